"""Path patches by name: which paths into the block above a vector see it (arXiv:2509.06608 sec. 7).

A patch is a `BlockPaths` value, or any edit, which is applied after the vectors. Further ones are entry points of the
group `interp.patches`. Families count heads from
0, query heads for head, q and z, key-value heads for k and v: "skip-head-3", "only-head-3", "skip-k-1", "only-q-0".
Any patch may end in "-to-mlp" or "-to-resid": its heads reach only the MLP, or only the residual stream, and the other
one receives the attention of the steered run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from interp.bare_model import takes_model
from interp.edits import Edit
from interp.errors import UserError
from interp.paths import CLEAN, STEERED, BlockPaths, clean, steered
from interp.registry import load, names, offers, unknown
from interp.settings import Names

STEERED_BLOCK = BlockPaths()
"""Every path sees the vector."""
BASE = BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN, resid_to_mlp=CLEAN, resid=CLEAN)
"""No path does."""
SKIP_ATTN = BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN)
"""All but attention."""
SKIP_LAYER = BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN, resid_to_mlp=CLEAN)
"""Only what passes the block by; in the last block, the unembedding alone sees the vector."""
SKIP_MLP = BlockPaths(attn_to_mlp=CLEAN, resid_to_mlp=CLEAN)
"""All but the MLP."""
ONLY_ATTN = BlockPaths(resid_to_mlp=CLEAN, resid=CLEAN)
"""Only attention, with what it tells the MLP."""

BUILT_IN: Mapping[str, BlockPaths] = {
    "steered": STEERED_BLOCK,
    "base": BASE,
    "skip-attn": SKIP_ATTN,
    "skip-layer": SKIP_LAYER,
    "skip-mlp": SKIP_MLP,
    "only-attn": ONLY_ATTN,
}
"""Patches of this package by name."""

Receiver = Literal["head", "q", "k", "v"]
FAMILIES = tuple(f"{kind}-{part}" for part in ("head", "q", "k", "v") for kind in ("skip", "only"))
"""Names that a head's number completes."""

_FAMILY = re.compile(rf"(?P<family>{'|'.join(FAMILIES)})-(?P<head>\d+)")
_TO = {"-to-mlp": "attn_to_resid", "-to-resid": "attn_to_mlp"}


@takes_model
def patch(name: str, model: Any) -> Edit:
    """The patch of a name, for a model's numbers of heads: paths of a block, or an edit; see `placed`.

    Without a model, every number of a head passes: what else is wrong with a name shows before a model is loaded.

    Raises:
        UserError: there is no such patch, or the model has no such head.
    """
    installed = offers("patches", name) or ":" in name
    for ending, other in _TO.items():
        if name.endswith(ending) and not installed:
            inner = patch(name.removesuffix(ending), model)
            if not isinstance(inner, BlockPaths):
                raise UserError("only paths of a block can end at the MLP or at the stream", given=name)
            return _with(inner, **{other: STEERED})
    family = _FAMILY.fullmatch(name)
    if family is not None:
        return _of_head(family["family"], int(family["head"]), model)
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not installed:
        known = names("patches")
        raise unknown("patch", name, sorted({*BUILT_IN, *known, *(f"{family}-0" for family in FAMILIES)}))
    found = load("patches", name)
    if isinstance(found, type) or not isinstance(found, Edit):
        works = "BlockPaths(k=CLEAN), or an edit such as Custom(Site(3, 'z'), function)"
        raise UserError("a patch is a BlockPaths or an Edit", given=f"{name} is a {type(found).__name__}", works=works)
    return found


def _check_patches(patches: tuple[str, ...]) -> tuple[str, ...]:
    for name in patches:
        patch(name, None)
    return patches


def _check_families(families: tuple[str, ...]) -> tuple[str, ...]:
    for name in families:
        check_family(name)
    return families


Patches = Annotated[Names, AfterValidator(_check_patches)]
"""Patches by name, as a setting."""
Families = Annotated[Names, AfterValidator(_check_families)]
"""Families of patches, as a setting."""


def check_family(name: str) -> None:
    """Raise where there is no family of this name.

    Raises:
        UserError: there is none.
    """
    if name not in FAMILIES:
        raise unknown("family of patches", name, list(FAMILIES))


def placed(one: Edit, layer: int) -> Edit:
    """A patch as it acts beside vectors below a block: paths of that block; an edit stays at its own sites.

    Raises:
        UserError: the paths are those of another block.
    """
    if not isinstance(one, BlockPaths):
        return one
    if one.layer not in (None, layer):
        works = f"a patch without a block, or placed at block {layer}"
        raise UserError(
            "this patch is placed at another block than the one above the vector", given=one.layer, works=works
        )
    return one.at(layer)


@takes_model
def family(name: str, model: Any) -> list[str]:
    """The names of a family, one for each head of a model: "skip-k" gives "skip-k-0", "skip-k-1" ...

    Raises:
        UserError: there is no such family.
    """
    check_family(name)
    return [f"{name}-{head}" for head in range(heads(name, model))]


@takes_model
def heads(name: str, model: Any) -> int:
    """How many heads a family counts."""
    grouped = name.rpartition("-")[2] in ("k", "v") and model.cfg.n_key_value_heads
    return int(model.cfg.n_key_value_heads if grouped else model.cfg.n_heads)


def _of_head(name: str, head: int, model: Any) -> BlockPaths:
    count = head + 1 if model is None else heads(name, model)
    if model is not None and head >= count:
        raise UserError(f"{model.name} has heads 0 to {count - 1} here", given=f"{name}-{head}")
    kind, _, part = name.partition("-")
    if part == "head":
        return BlockPaths(z=clean(head) if kind == "skip" else steered(head))
    return _with(
        BlockPaths() if kind == "skip" else SKIP_ATTN, **{part: clean(head) if kind == "skip" else steered(head)}
    )


def _with(one: BlockPaths, **paths: Any) -> BlockPaths:
    return replace(one, **paths)
