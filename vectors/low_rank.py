"""LoRA of any rank on down_proj, read from a PEFT folder; rank 1 is `AdaptiveVectors`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from interp.digest import digest
from interp.errors import UserError
from interp.positions import EVERYWHERE, Positions
from interp.selection import distinct, whole_numbers
from interp.sites import block
from vectors.card import Card
from vectors.formats.base import Options
from vectors.formats.peft_lora import adapter
from vectors.train.low_rank import LowRank
from vectors.untrusted import read_object

CARD = "card.json"


@dataclass(frozen=True, eq=False)
class LowRankAdapters:
    """MLP output += (A m_t) B at some layers, m_t = `mlp.hook_post` (arXiv:2106.09685).

    Args:
        a: reading directions of each layer.
        b: writing directions of each layer, which carry LoRA's alpha / r.
        layers: block of each row, 0 = first block.
        card: where they come from.

    Raises:
        UserError: rows and layers differ in number, a layer is given twice or is negative, or a value is not finite.
    """

    a: Float[Tensor, "layer rank d_mlp"]
    b: Float[Tensor, "layer rank d_model"]
    layers: tuple[int, ...]
    card: Card

    def __post_init__(self) -> None:
        if not len(self.a) == len(self.b) == len(self.layers):
            given = f"{len(self.a)} A, {len(self.b)} B, {len(self.layers)} layers"
            raise UserError("one A and one B is needed for each layer", given=given)
        layers = distinct(whole_numbers(self.layers, "a layer"), "a layer")
        object.__setattr__(self, "layers", tuple(map(block, layers)))
        if not bool(self.a.isfinite().all()) or not bool(self.b.isfinite().all()):
            raise UserError("a low-rank adapter holds NaN or infinite values")

    @classmethod
    def read(cls, folder: str | Path, options: Options = Options()) -> LowRankAdapters:  # noqa: B008 - frozen
        """Read a PEFT folder, with its card where one lies beside the weights.

        Raises:
            UserError: other modules are adapted too, a variant of LoRA is used, or a file is damaged.
        """
        layers, a, b, scale, card = adapter(Path(folder), options)
        known = Path(folder) / CARD
        card = Card.parse(read_object(known, "card"), where=known.name) if known.is_file() else card
        read = cls(a, b * scale, layers, card)
        if card.digest and card.digest != read.digest:
            raise UserError("the tensors are not those of the card", given=Path(folder).name)
        return read

    @property
    def digest(self) -> str:
        """Hash of layers and values; the card does not enter."""
        return digest("LowRankAdapters", self.layers, self.a, self.b)

    @property
    def name(self) -> str:
        """The card's name, or the digest where it has none."""
        return self.card.name or self.digest

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.b.shape[2]

    @property
    def norms(self) -> dict[int, float]:
        """Frobenius norm of the matrix that each layer adds to down_proj."""
        return {layer: float(part.norm()) for layer, part in zip(self.layers, self.parts(), strict=True)}

    @property
    def rank(self) -> int:
        """Directions a layer."""
        return self.a.shape[1]

    def __repr__(self) -> str:
        return f"LowRankAdapters({self.name!r}, rank {self.rank}, {len(self.layers)} layers, {self.digest})"

    def edits(self, positions: Positions = EVERYWHERE) -> tuple[LowRank, ...]:
        """One edit for each layer; by default at all positions."""
        rows = zip(self.layers, self.a, self.b, strict=True)
        return tuple(LowRank(layer, a, b, positions, origin=self.card.title) for layer, a, b in rows)

    def parts(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """The matrix that each layer adds to down_proj."""
        return torch.einsum("lrd,lrm->ldm", self.b, self.a)
