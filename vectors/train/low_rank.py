"""LoRA of down_proj as an edit: MLP output += (m A^T) B with m = mlp_post (arXiv:2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from interp.digest import digest
from interp.edits import select
from interp.positions import EVERYWHERE, Positions, Tokens
from interp.sites import Site


@dataclass(frozen=True, eq=False)
class LowRank:
    """Add (A m) B to the MLP output of a block; rank 1 is `interp.AddAdaptive`.

    Args:
        layer: the block.
        a: [rank, d_mlp], reads mlp_post.
        b: [rank, d_model], writes to the MLP output.
        positions: which tokens.
        origin: name of the adapters that it is part of, shown in figures; no part of its digest.
    """

    layer: int
    a: Float[Tensor, "rank d_mlp"]
    b: Float[Tensor, "rank d_model"]
    positions: Positions = EVERYWHERE
    origin: str = field(default="", kw_only=True, repr=False)
    adapts_down_proj = True

    @property
    def sites(self) -> tuple[Site, ...]:
        """Reads mlp_post, writes mlp_out."""
        return Site(self.layer, "mlp_post"), Site(self.layer, "mlp_out")

    @property
    def by_row(self) -> bool:
        """All rows get the same matrices."""
        return False

    @property
    def digest(self) -> str:
        """Content hash."""
        return digest("LowRank", self.layer, self.a, self.b, self.positions)

    def describe(self) -> str:
        """One line."""
        norm = float((self.b.detach().T @ self.a.detach()).norm())
        return f"add rank {len(self.a)} of norm {norm:.4g} to down_proj[{self.layer}]"

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
        """Read the coefficients at mlp_post, add at mlp_out."""
        if site.stream == "mlp_post":
            tokens.scratch["coefficients"] = value.to(self.a.dtype) @ self.a.T
            return value
        moved = (value.to(self.b.dtype) + tokens.scratch["coefficients"] @ self.b).to(value.dtype)
        return moved if self.positions == EVERYWHERE else select(tokens, moved, value)
