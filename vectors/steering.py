"""Steering vectors as immutable values."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import check_kind, shown
from interp.digest import digest
from interp.edits import Add
from interp.errors import UserError
from interp.finite import finite
from interp.markup import text
from interp.positions import Positions
from interp.selection import distinct, whole, whole_numbers
from interp.sites import Site
from interp.zero_norm import refuse_zero
from vectors.card import Card
from vectors.hub import push_files
from vectors.refusals import listed as listed
from vectors.refusals import refuse_together as refuse_together
from vectors.storage import write_tensors

Hook = tuple[str | Callable[..., Any], Callable[..., Any]]
_NO_CLEAN_HOOK = ("ln1_out", "ln2_out")


@dataclass(frozen=True, eq=False)
class SteeringVectors:
    """Vectors that are added to the residual stream at every position, one for each of some layers.

    A layer that is not in `layers` is absent, not zero: nothing is added there.
    The vector of block l is added at `resid_post` of block l, which is what a bias of its `mlp.down_proj`
    does in Llama- and Qwen-like models (arXiv:2509.06608 sec. 2); the card may name another stream.

    Args:
        directions: one row for each layer, in units of the residual stream; kept in float32 on the CPU.
        layers: block of each row, 0 = first block; sorted on construction.
        card: where they come from; its digest is filled in here.
        permitted: set by `together()`.

    Raises:
        UserError: rows and layers differ in number, a layer is given twice or outside the model, the width is not
            the card's, or a value is not finite.
    """

    directions: Float[Tensor, "layer d_model"]
    layers: tuple[int, ...]
    card: Card
    permitted: bool = field(default=False, kw_only=True, repr=False)

    __array_ufunc__ = None  # numpy scalars leave `2 * v` to us

    def __post_init__(self) -> None:
        check_kind("directions", self.directions, Tensor, "a tensor, a row for each layer")
        check_kind("layers", self.layers, Iterable, "layers=(0, 1)")
        check_kind("a card", self.card, Card, "Card(d_model=...)")
        directions = self.directions.detach().to("cpu", torch.float32, copy=True)
        if len(self.layers):
            object.__setattr__(self, "layers", whole_numbers(self.layers, "a layer", works="layers=(0, 1)"))
        _check(directions, self.layers, self.card)
        order = sorted(range(len(self.layers)), key=lambda row: self.layers[row])
        object.__setattr__(self, "directions", directions[order].contiguous())
        object.__setattr__(self, "layers", tuple(self.layers[row] for row in order))
        object.__setattr__(self, "card", self.card.model_copy(update={"digest": self.digest}))

    @property
    def digest(self) -> str:
        """Hash of layers, site and values; the card does not enter."""
        return digest("SteeringVectors", self.layers, self.card.site, self.directions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SteeringVectors) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.directions.shape[1]

    @property
    def name(self) -> str:
        """The card's name, or the digest where it has none."""
        return self.card.name or self.digest

    @property
    def norms(self) -> dict[int, float]:
        """Euclidean norm of each layer's vector, in units of the residual stream."""
        return dict(zip(self.layers, self.directions.norm(dim=1).tolist(), strict=True))

    def __getitem__(self, layer: SupportsIndex) -> Float[Tensor, " d_model"]:
        """The direction of one layer."""
        number = whole(layer, "a layer", works=f"use one of {listed(self.layers)}")
        if number not in self.layers:
            raise UserError("no vector at this layer", given=number, works=f"use one of {listed(self.layers)}")
        return self.directions[self.layers.index(number)]

    def __mul__(self, factor: SupportsFloat) -> SteeringVectors:
        if not isinstance(factor, SupportsFloat):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        recipe = {"operation": f"{float(factor)!r} * a", "of": [self.digest]}
        card = self.card.derive(f"{float(factor):g} * {self.name}", recipe)
        return replace(self, directions=self.directions * float(factor), card=card)

    __rmul__ = __mul__

    def __neg__(self) -> SteeringVectors:
        return self * -1.0

    def __add__(self, other: SteeringVectors) -> SteeringVectors:
        if not isinstance(other, SteeringVectors):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        return self._combine(other, 1.0)

    def __sub__(self, other: SteeringVectors) -> SteeringVectors:
        if not isinstance(other, SteeringVectors):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        return self._combine(other, -1.0)

    def _combine(self, other: SteeringVectors, sign: float) -> SteeringVectors:
        if self.d_model != other.d_model:
            raise UserError("vectors of different width cannot be added", given=f"{self.d_model} and {other.d_model}")
        if self.card.site != other.card.site:
            raise UserError("vectors at different sites cannot be added", given=f"{self.card.site}, {other.card.site}")
        layers = tuple(sorted({*self.layers, *other.layers}))
        total = torch.zeros(len(layers), self.d_model)
        for part, factor in ((self, 1.0), (other, sign)):
            total[[layers.index(layer) for layer in part.layers]] += factor * part.directions
        symbol = "+" if sign > 0 else "-"
        recipe = {"operation": f"a {symbol} b", "of": [self.digest, other.digest]}
        card = self.card.derive(f"{self.name} {symbol} {other.name}", recipe, other.card)
        return SteeringVectors(total, layers, card, permitted=self.permitted and other.permitted)

    def only(self, layers: SupportsIndex | Iterable[SupportsIndex]) -> SteeringVectors:
        """The vectors of some layers, the others absent.

        Raises:
            UserError: a layer has no vector here, or none is asked for.
        """
        chosen = distinct(whole_numbers(layers, "a layer", works=f"use some of {listed(self.layers)}"), "a layer")
        rows = torch.stack([self[layer] for layer in chosen])
        if set(chosen) == set(self.layers):
            return replace(self, directions=rows, layers=chosen)
        recipe = {"operation": "only", "layers": list(chosen), "of": [self.digest], "recipe": self.card.recipe}
        card = self.card.derive(f"{self.name}/{listed(chosen)}", recipe)
        return replace(self, directions=rows, layers=chosen, card=card)

    def each(self) -> list[SteeringVectors]:
        """One value for each layer."""
        return [self.only(layer) for layer in self.layers]

    def with_norms(self, norms: Mapping[int, float]) -> SteeringVectors:
        """The directions of some layers at other norms.

        Args:
            norms: layer -> Euclidean norm, in units of the residual stream.

        Raises:
            UserError: a layer has no vector here, or none is asked for.
        """
        check_kind("norms", norms, Mapping, "{12: 1.5}, a norm for each layer")
        kept = self.only(norms.keys())
        negative = [norm for norm in norms.values() if not finite(norm, "a norm") >= 0]
        if negative:
            raise UserError("a norm is not negative", given=negative[0], works="-v turns vectors round")
        refuse_zero(kept, "rescaled")
        sizes = torch.tensor([float(norms[layer]) for layer in kept.layers])
        directions = torch.nn.functional.normalize(kept.directions, dim=1) * sizes[:, None]
        recipe = {"operation": "other norms", "norms": {str(layer): norms[layer] for layer in kept.layers}}
        card = self.card.derive(f"{self.name} at other norms", recipe | {"of": [self.digest]})
        return replace(kept, directions=directions, card=card)

    def together(self) -> SteeringVectors:
        """The same vectors, allowed to be on together although they were trained apart."""
        return replace(self, permitted=True)

    def edits(self, positions: Positions | None = None) -> tuple[Add, ...]:
        """One `Add` for each layer.

        Args:
            positions: which tokens; by default all of prompt and completion, as in training.

        Raises:
            UserError: the vectors were trained apart, there are several, and `together()` was not called.
        """
        refuse_together(self.card, self.layers, self.permitted)
        where = Positions() if positions is None else positions
        return tuple(
            Add(Site(layer, self.card.site), row, positions=where, origin=self.card.title)
            for layer, row in zip(self.layers, self.directions, strict=True)
        )

    def fwd_hooks(self) -> list[Hook]:
        """Hooks for `hooked.run_with_hooks(ids, fwd_hooks=...)`; they add at every position, padding included.

        Raises:
            UserError: as for `edits`, or the site has no hook whose value is the stream itself.
        """
        if self.card.site in _NO_CLEAN_HOOK:
            raise UserError("this site has no hook", given=self.card.site, works="use model.run(batch, v.edits())")
        return [(f"blocks.{edit.site.layer}.hook_{self.card.site}", _adder(edit.direction)) for edit in self.edits()]

    @contextmanager
    def applied(self, hooked: Any) -> Generator[Any, None, None]:
        """Steer a bare HookedTransformer inside a `with` block; its other hooks are left alone.

        The hooks are permanent ones while the block lasts, so `reset_hooks()` does not switch the vectors off.

        Args:
            hooked: the HookedTransformer, which is also what `as` gives.
        """
        if not hasattr(hooked, "hook_dict"):
            raise UserError("this is no HookedTransformer", given=shown(hooked), works="model.hooked of a Model")
        points = [(hooked.hook_dict[str(name)], function) for name, function in self.fwd_hooks()]
        added: list[tuple[Any, Any]] = []
        try:
            for point, function in points:
                point.add_hook(function, is_permanent=True)
                added.append((point, point.fwd_hooks[-1]))
            yield hooked
        finally:
            for point, handle in added:
                handle.hook.remove()
                point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file and its JSON card beside it; loading them gives the same bits.

        Returns:
            The safetensors file.
        """
        tensors = {"directions": self.directions, "layers": torch.tensor(self.layers, dtype=torch.int64)}
        return write_tensors(path, tensors, self.card)

    def push(self, repo: str, *, private: bool = True) -> str:
        """Upload vectors and card to a repository of the Hugging Face hub.

        Args:
            repo: `user/name`; created where it does not exist.
            private: visibility of a repository created here.

        Returns:
            The repository's address.
        """
        return push_files(repo, self.save, private=private)

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{layer}</td><td>{norm:.4g}</td></tr>" for layer, norm in self.norms.items())
        about = text(f"{self.name}: {self.card.base_model}, {self.card.site}, trained {self.card.trained}")
        return f"<table><caption>{about}</caption><tr><th>layer</th><th>norm</th></tr>{rows}</table>"

    def __repr__(self) -> str:
        return f"SteeringVectors({self.name!r}, layers {listed(self.layers)}, d_model {self.d_model}, {self.digest})"


def _adder(direction: Float[Tensor, " d_model"]) -> Callable[..., Tensor]:
    def add(value: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - the name is TransformerLens's
        return (value.float() + direction.to(value.device)).to(value.dtype)

    return add


def _check(directions: Float[Tensor, "layer d_model"], layers: tuple[int, ...], card: Card) -> None:
    if directions.ndim != 2:
        given = f"shape {list(directions.shape)}"
        raise UserError("directions are a matrix, a row for each layer", given=given, works="direction[None]")
    if len(layers) != len(directions) or not layers:
        raise UserError("one row is needed for each layer", given=f"{len(directions)} rows, {len(layers)} layers")
    if len(set(layers)) != len(layers):
        raise UserError("a layer is given twice", given=listed(layers))
    depth = card.n_layers
    if min(layers) < 0 or (depth is not None and max(layers) >= depth):
        works = "layers count from 0" if depth is None else f"the model has layers 0 to {depth - 1}"
        raise UserError("no such layer", given=listed(layers), works=works)
    if directions.shape[1] != card.d_model:
        raise UserError(f"the card says d_model {card.d_model}", given=f"width {directions.shape[1]}")
    if not bool(directions.isfinite().all()):
        bad = [layer for layer, row in zip(layers, directions, strict=True) if not bool(row.isfinite().all())]
        raise UserError("a steering vector holds NaN or infinite values", given=f"layers {listed(bad)}")
