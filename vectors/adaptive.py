"""Adaptive vectors: rank-1 adapters of down_proj, whose strength depends on the token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import SupportsFloat, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from interp.digest import digest
from interp.edits import AddAdaptive
from interp.errors import UserError
from interp.markup import text
from interp.positions import Positions
from interp.selection import distinct, whole_numbers
from vectors.card import Card
from vectors.hub import push_files
from vectors.steering import SteeringVectors, refuse_together
from vectors.storage import write_tensors


@dataclass(frozen=True, eq=False)
class AdaptiveVectors:
    """MLP output += scale (a . m_t) b at some layers, m_t = `mlp.hook_post` (arXiv:2509.06608 sec. 10).

    (a, b) and (-a, -b) are the same adapter; `oriented` settles the sign. Sums of adapters are not rank-1, so
    there is no `+`.

    Args:
        a: reading direction of each layer.
        b: writing direction of each layer, in units of the residual stream.
        scales: factor of each layer, LoRA's alpha / r, without unit.
        layers: block of each row, 0 = first block.
        card: where they come from; its kind must be `rank1`.
        permitted: set by `together()`.

    Raises:
        UserError: rows, scales and layers differ in number, a layer is given twice or outside the model, the width
            is not the card's, or a value is not finite.
    """

    a: Float[Tensor, "layer d_mlp"]
    b: Float[Tensor, "layer d_model"]
    scales: tuple[float, ...]
    layers: tuple[int, ...]
    card: Card
    permitted: bool = field(default=False, kw_only=True, repr=False)

    __array_ufunc__ = None  # numpy scalars leave `2 * v` to us

    def __post_init__(self) -> None:
        if self.card.kind != "rank1" or self.card.site != "mlp_out":
            given = f"{self.card.kind}, {self.card.site}"
            raise UserError("adaptive vectors are of kind rank1 at mlp_out", given=given)
        if not len(self.a) == len(self.b) == len(self.scales) == len(self.layers):
            counts = f"{len(self.a)} a, {len(self.b)} b, {len(self.scales)} scales, {len(self.layers)} layers"
            raise UserError("one a, b and scale is needed for each layer", given=counts)
        scale = torch.tensor(self.scales)
        if not bool(self.a.isfinite().all()) or not bool(scale.isfinite().all()):
            raise UserError("an adaptive vector holds NaN or infinite values")
        written = SteeringVectors(self.b, self.layers, self.card)
        order = sorted(range(len(self.layers)), key=lambda row: self.layers[row])
        object.__setattr__(self, "a", self.a.detach().to("cpu", torch.float32, copy=True)[order].contiguous())
        object.__setattr__(self, "b", written.directions)
        object.__setattr__(self, "scales", tuple(float(self.scales[row]) for row in order))
        object.__setattr__(self, "layers", written.layers)
        object.__setattr__(self, "card", self.card.model_copy(update={"digest": self.digest}))

    @property
    def digest(self) -> str:
        """Hash of layers and values; the card does not enter."""
        return digest("AdaptiveVectors", self.layers, self.a, self.b, self.scales)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdaptiveVectors) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.b.shape[1]

    @property
    def name(self) -> str:
        """The card's name, or the digest where it has none."""
        return self.card.name or self.digest

    @property
    def norms(self) -> dict[int, float]:
        """Factor scale |a| |b| of each layer: added norm per unit of MLP activation along a."""
        values = torch.tensor(self.scales).abs() * self.a.norm(dim=1) * self.b.norm(dim=1)
        return dict(zip(self.layers, values.tolist(), strict=True))

    def __mul__(self, factor: SupportsFloat) -> AdaptiveVectors:
        if not isinstance(factor, SupportsFloat):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        recipe = {"operation": f"{float(factor)!r} * a", "of": [self.digest]}
        card = self.card.derive(f"{float(factor):g} * {self.name}", recipe)
        return replace(self, scales=tuple(float(factor) * scale for scale in self.scales), card=card)

    __rmul__ = __mul__

    def __neg__(self) -> AdaptiveVectors:
        return self * -1.0

    def only(self, layers: SupportsIndex | Iterable[SupportsIndex]) -> AdaptiveVectors:
        """The adapters of some layers, the others absent.

        Raises:
            UserError: a layer has no adapter here.
        """
        chosen = distinct(whole_numbers(layers, "a layer", works=f"use some of {list(self.layers)}"), "a layer")
        missing = [layer for layer in chosen if layer not in self.layers]
        if missing:
            raise UserError("no adapter at this layer", given=missing, works=f"use some of {list(self.layers)}")
        rows = [self.layers.index(layer) for layer in chosen]
        scales = tuple(self.scales[row] for row in rows)
        recipe = {"operation": "only", "layers": list(chosen), "of": [self.digest], "recipe": self.card.recipe}
        card = self.card.derive(f"{self.name}/{','.join(map(str, chosen))}", recipe)
        return AdaptiveVectors(self.a[rows], self.b[rows], scales, chosen, card, permitted=self.permitted)

    def each(self) -> list[AdaptiveVectors]:
        """One value for each layer."""
        return [self.only(layer) for layer in self.layers]

    def together(self) -> AdaptiveVectors:
        """The same adapters, allowed to be on together although they were trained apart."""
        return replace(self, permitted=True)

    def oriented(self, reference: SteeringVectors) -> AdaptiveVectors:
        """The same adapters, each (a, b) signed so that cos(b, reference) >= 0 where the reference has that layer.

        Raises:
            UserError: the widths differ.
        """
        if reference.d_model != self.d_model:
            raise UserError("vectors of different width", given=f"{self.d_model} and {reference.d_model}")
        sign = torch.ones(len(self.layers), 1)
        for row, layer in enumerate(self.layers):
            if layer in reference.layers and float(self.b[row] @ reference[layer]) < 0:
                sign[row] = -1
        return replace(self, a=self.a * sign, b=self.b * sign)

    def edits(self, positions: Positions | None = None) -> tuple[AddAdaptive, ...]:
        """One `AddAdaptive` for each layer; by default at all positions.

        Raises:
            UserError: the adapters were trained apart, there are several, and `together()` was not called.
        """
        refuse_together(self.card, self.layers, self.permitted)
        where = Positions() if positions is None else positions
        rows = zip(self.layers, self.a, self.b, self.scales, strict=True)
        named = self.card.title
        return tuple(AddAdaptive(layer, a, b, scale, where, origin=named) for layer, a, b, scale in rows)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file and its JSON card beside it; loading them gives the same bits.

        Returns:
            The safetensors file.
        """
        tensors = {
            "a": self.a,
            "b": self.b,
            "scales": torch.tensor(self.scales, dtype=torch.float64),
            "layers": torch.tensor(self.layers, dtype=torch.int64),
        }
        return write_tensors(path, tensors, self.card)

    def push(self, repo: str, *, private: bool = True) -> str:
        """Upload adapters and card to a repository of the Hugging Face hub; see `SteeringVectors.push`."""
        return push_files(repo, self.save, private=private)

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{layer}</td><td>{norm:.4g}</td></tr>" for layer, norm in self.norms.items())
        about = text(f"{self.name}: {self.card.base_model}, rank-1 adapters of down_proj")
        return f"<table><caption>{about}</caption><tr><th>layer</th><th>scale |a| |b|</th></tr>{rows}</table>"

    def __repr__(self) -> str:
        return f"AdaptiveVectors({self.name!r}, layers {list(self.layers)}, d_model {self.d_model}, {self.digest})"
