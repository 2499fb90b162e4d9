"""Which paths of a block are clean in each row of a batch, as masks for the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import UserError
from interp.paths import CLEAN, STEERED, BlockPaths, Heads, Slice, World

ATTENTION = ("attn_to_mlp", "attn_to_resid")


@dataclass(frozen=True, eq=False)
class Routes:
    """How each row of the caller's batch passes through one block.

    Attributes:
        rows: a patch for each row; None = all steered.
        heads: query heads.
        kv_heads: key-value heads.
        device: of the masks.
        known: masks made so far.
    """

    rows: tuple[BlockPaths | None, ...]
    heads: int
    kv_heads: int
    device: torch.device
    known: dict[tuple[str, World], Bool[Tensor, " row"]] = field(default_factory=dict[Any, Any], repr=False)

    def __post_init__(self) -> None:
        for patch in {patch for patch in self.rows if patch is not None}:
            for name, count in (("q", self.heads), ("z", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):
                value = getattr(patch, name)
                if isinstance(value, Heads) and max(value.heads) >= count:
                    raise UserError(f"{name} has heads 0 to {count - 1}", given=max(value.heads))

    @cached_property
    def q(self) -> Bool[Tensor, "row head"]:
        """True = steered."""
        return self._heads("q", self.heads)

    @cached_property
    def k(self) -> Bool[Tensor, "row kv_head"]:
        """True = steered."""
        return self._heads("k", self.kv_heads)

    @cached_property
    def v(self) -> Bool[Tensor, "row kv_head"]:
        """True = steered."""
        return self._heads("v", self.kv_heads)

    @cached_property
    def z(self) -> Bool[Tensor, "row head"]:
        """True = as the patched queries, keys and values give it; False = as in the clean run."""
        return self._heads("z", self.heads)

    @cached_property
    def needs_steered(self) -> bool:
        """Whether some row takes the attention output of the steered run beside that of its patched heads."""
        return any(self._takes(name, STEERED) for name in ATTENTION)

    @cached_property
    def needs_clean(self) -> bool:
        """Whether some row takes heads, or the attention output, of the clean run."""
        return bool((~self.z).any()) or any(self._takes(name, CLEAN) for name in ATTENTION)

    def stream(self, name: str, rows: Int[Tensor, " batch"], steered: Tensor, clean: Tensor) -> Tensor:
        """The stream that a path ("resid" or "resid_to_mlp") sees, [batch, pos, d_model].

        Args:
            name: field of the patch.
            rows: the caller's row of each row.
            steered: with the edit.
            clean: without.
        """
        return torch.where(self._is(name, CLEAN)[rows][:, None, None], clean, steered)

    def attention(
        self, name: str, rows: Int[Tensor, " batch"], followed: Tensor, outputs: Mapping[World, Tensor]
    ) -> Tensor:
        """The attention output that a path ("attn_to_mlp" or "attn_to_resid") sees, [batch, pos, d_model].

        Args:
            name: field of the patch.
            rows: the caller's row of each row.
            followed: of the patched heads.
            outputs: of whole runs, those that some row needs.
        """
        for world, value in outputs.items():
            followed = torch.where(self._is(name, world)[rows][:, None, None], value, followed)
        return followed

    def _takes(self, name: str, world: World) -> bool:
        return bool(self._is(name, world).any())

    def _is(self, name: str, world: World) -> Bool[Tensor, " row"]:
        if (name, world) not in self.known:
            where = [getattr(patch, name, None) is world for patch in self.rows]
            self.known[name, world] = torch.tensor(where, device=self.device)
        return self.known[name, world]

    def _heads(self, name: str, count: int) -> Tensor:
        return torch.tensor([_steered(name, patch, count) for patch in self.rows], device=self.device)


def _steered(name: str, patch: BlockPaths | None, count: int) -> list[bool]:
    value: Slice = STEERED if patch is None else getattr(patch, name)
    if isinstance(value, World):
        return [value is STEERED] * count
    return [(head in value.heads) == (value.world is STEERED) for head in range(count)]


def routes_of(
    patches: Sequence[tuple[BlockPaths, Sequence[int] | None]],
    n_rows: int,
    *,
    heads: int,
    kv_heads: int,
    device: torch.device,
) -> dict[int, Routes]:
    """Block -> routes, from placed patches and the rows of each (None = all).

    Raises:
        UserError: two patches are placed at one block of a row, or a head does not exist.
    """
    placed: dict[int, list[BlockPaths | None]] = {}
    for patch, rows in patches:
        column = placed.setdefault(patch.layer or 0, [None] * n_rows)
        for row in range(n_rows) if rows is None else rows:
            if column[row] is not None:
                raise UserError("two path patches at one block", given=f"block {patch.layer}", works="give one")
            column[row] = patch
    return {layer: Routes(tuple(column), heads, kv_heads, device) for layer, column in placed.items()}
