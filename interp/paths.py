"""Path patches of one block as values (arXiv:2509.06608 sec. 7: which paths carry a steering vector)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from torch import Tensor

from interp.digest import digest
from interp.errors import UserError
from interp.positions import EVERYWHERE, Positions, Tokens
from interp.selection import brief, whole_numbers
from interp.sites import Site, block


class World(Enum):
    """Which run a path takes its value from."""

    STEERED = "steered"
    CLEAN = "clean"
    FOLLOW = "follow"

    def __repr__(self) -> str:
        return self.name


STEERED, CLEAN, FOLLOW = World.STEERED, World.CLEAN, World.FOLLOW
"""STEERED and CLEAN: the stream with and without the edit. FOLLOW: the attention output of the patched heads."""


@dataclass(frozen=True)
class Heads:
    """Some heads take one world, the rest the other."""

    world: Literal[World.STEERED, World.CLEAN]
    heads: tuple[int, ...]

    def __post_init__(self) -> None:
        heads = whole_numbers(self.heads, "a head", works="clean(0), steered(0, 2)")
        if min(heads) < 0 or len(set(heads)) != len(heads):
            raise UserError("heads are distinct and count from 0", given=heads)
        object.__setattr__(self, "heads", heads)
        if self.world not in (STEERED, CLEAN):
            raise UserError("heads are STEERED or CLEAN", given=self.world)


def clean(*heads: int) -> Heads:
    """These heads CLEAN, the rest STEERED. Query heads for q and z, key-value heads for k and v."""
    return Heads(World.CLEAN, heads)


def steered(*heads: int) -> Heads:
    """These heads STEERED, the rest CLEAN."""
    return Heads(World.STEERED, heads)


Slice = World | Heads


@dataclass(frozen=True)
class BlockPaths:
    """Which paths through a block see the edit below it and which do not.

    With x the stream that enters the block without the edit and x' with it, the block computes
    r + W_O a + MLP(LN2(r_m + W_O a_m)), where a are the outputs of the patched heads.

    Attributes:
        q: world of the queries; STEERED, CLEAN, `clean(heads)` or `steered(heads)`.
        k: world of the keys, by key-value head.
        v: world of the values, by key-value head.
        z: world of whole heads: a CLEAN head gives its output in the clean run.
        attn_to_mlp: a_m; FOLLOW the patched heads, or the attention of the steered or clean run.
        attn_to_resid: the attention output that reaches the residual stream, likewise.
        resid_to_mlp: r_m, the stream that the MLP reads.
        resid: r, the stream that goes on.
        layer: the block; None until `at(layer)` places it.

    Raises:
        UserError: FOLLOW where there is nothing to follow, or a value that is no world.
    """

    q: Slice = STEERED
    k: Slice = STEERED
    v: Slice = STEERED
    z: Slice = STEERED
    attn_to_mlp: World = FOLLOW
    attn_to_resid: World = FOLLOW
    resid_to_mlp: World = STEERED
    resid: World = STEERED
    layer: int | None = None

    def __post_init__(self) -> None:
        for name in ("q", "k", "v", "z", "resid_to_mlp", "resid"):
            if getattr(self, name) is FOLLOW:
                works = "only attn_to_mlp and attn_to_resid can follow the patched heads"
                raise UserError(f"{name} is STEERED or CLEAN", given=FOLLOW, works=works)
        for name in ("q", "k", "v", "z", "attn_to_mlp", "attn_to_resid", "resid_to_mlp", "resid"):
            value, by_head = getattr(self, name), name in ("q", "k", "v", "z")
            if not isinstance(value, World | Heads if by_head else World):
                works = "use STEERED, CLEAN, clean(heads) or steered(heads)" if by_head else "use STEERED or CLEAN"
                raise UserError(f"{name} is a world of this path", given=brief(value), works=works)
        if self.layer is not None:
            object.__setattr__(self, "layer", block(self.layer))
        if self.layer == 0:
            raise UserError("a path patch needs a block above the edit", given=self.layer)

    def at(self, layer: int) -> BlockPaths:
        """The same patch placed at a block; the edit is what `resid_post[layer - 1]` receives."""
        return replace(self, layer=layer)

    @property
    def sites(self) -> tuple[Site, ...]:
        """None: the block itself is computed differently."""
        return ()

    @property
    def positions(self) -> Positions:
        """All of them."""
        return EVERYWHERE

    @property
    def by_row(self) -> bool:
        """Rows with the same patch are computed alike."""
        return False

    @property
    def digest(self) -> str:
        """Content hash."""
        return digest("BlockPaths", repr(self))

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG002 - as every edit
        """Never called: a path patch has no site."""
        raise UserError("a path patch is no change of a stream", given=str(site), works="give it to a Model's pass")

    def describe(self) -> str:
        """The settings that differ from STEERED and FOLLOW."""
        default = BlockPaths()
        names = ("q", "k", "v", "z", "attn_to_mlp", "attn_to_resid", "resid_to_mlp", "resid")
        changed = [f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name) != getattr(default, name)]
        where = "" if self.layer is None else f" at block {self.layer}"
        return f"paths{where}: {', '.join(changed) or 'all steered'}"
