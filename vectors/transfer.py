"""Vectors carried to a model of another width, by a linear map between the residual streams of the two.

The map is affine and fitted on the states of both models at the same places of the same texts. A steering vector is a
difference of states, so the linear part alone moves it. How well the map explains states it was not fitted on (`r2`)
bounds what it can carry; a random map of the same size (`random_map`) is the control.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.digest import digest
from interp.errors import UserError
from vectors.card import Card
from vectors.steering import SteeringVectors

HELD_OUT = 0.25
"""Share of the texts that a map is judged on."""


@dataclass(frozen=True)
class StreamMap:
    """target = weight @ source + offset.

    Attributes:
        weight: the linear part.
        offset: in units of the target's stream.
        r2: share of the target's variance on held-out texts that is explained; 0 = no better than its mean.
    """

    weight: Float[Tensor, "target source"]
    offset: Float[Tensor, " target"]
    r2: float


def fit_map(
    source: Float[Tensor, "rows source"],
    target: Float[Tensor, "same_rows target"],
    text: Int[Tensor, " row"] | None = None,
    *,
    ridge: float = 1e-3,
    seed: int = 0,
) -> StreamMap:
    """Fit an affine map by ridge regression, on three quarters of the texts; judge it on the others.

    Args:
        source: states of the donor's model; leave out the first token of a row and template tokens, whose norms would
            be all that counts.
        target: states of the recipient's model at the same places.
        text: the text of each row, so that no text is on both sides; each row its own if None.
        ridge: penalty, as a share of the mean variance of a source coordinate.
        seed: which texts are held out.

    Raises:
        UserError: the rows do not pair, or there are fewer than four texts.
    """
    labels = torch.arange(len(source)) if text is None else text.cpu()
    if not len(source) == len(target) == len(labels):
        given = f"{len(source)} source, {len(target)} target, {len(labels)} labels"
        raise UserError("source, target and text pair row by row", given=given)
    names = labels.unique()
    if len(names) < 4:
        raise UserError("a map needs at least four texts, one of them held out", given=len(names))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    held = torch.isin(labels, names[order[: max(1, int(HELD_OUT * len(names)))]])
    x, y = source.detach().cpu().double(), target.detach().cpu().double()
    weight, offset = _ridge(x[~held], y[~held], ridge)
    missed = y[held] - x[held] @ weight.T - offset
    spread = y[held] - y[~held].mean(0)
    r2 = 1 - float(missed.square().sum() / spread.square().sum())
    return StreamMap(weight.float(), offset.float(), r2)


def _ridge(x: Tensor, y: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    middle, target = x.mean(0), y.mean(0)
    x, y = x - middle, y - target
    gram = x.T @ x
    penalty = ridge * gram.diagonal().mean().clamp(min=1e-12)
    weight = torch.linalg.solve(gram + penalty * torch.eye(len(gram), dtype=gram.dtype), x.T @ y).T
    return weight, target - weight @ middle


def random_map(fitted: StreamMap, seed: int = 0) -> StreamMap:
    """A Gaussian map with the Frobenius norm of a fitted one, which explains nothing."""
    number = int(digest("random_map", seed), 16) % 2**63
    weight = torch.randn(fitted.weight.shape, generator=torch.Generator().manual_seed(number))
    return StreamMap(weight * (fitted.weight.norm() / weight.norm()), fitted.offset, 0.0)


def carry(
    vectors: SteeringVectors, maps: Mapping[int, StreamMap], card: Card, *, layers: Mapping[int, int] | None = None
) -> SteeringVectors:
    """Vectors moved by the linear part of each layer's map.

    Args:
        vectors: the donor's.
        maps: donor's layer -> map of its stream to the recipient's; layers without a map are left behind.
        card: what is known of the recipient: name, base_model, architecture, lineage, fingerprint and n_layers; the
            rest is filled in.
        layers: donor's layer -> recipient's; the same number if None.

    Raises:
        UserError: no layer has a map, or a map is of another width than the vectors.
    """
    chosen = [layer for layer in vectors.layers if layer in maps]
    if not chosen:
        raise UserError("no map for any layer of these vectors", given=sorted(maps), works=f"layers {vectors.layers}")
    wrong = [layer for layer in chosen if maps[layer].weight.shape[1] != vectors.d_model]
    if wrong:
        given = f"a map from width {maps[wrong[0]].weight.shape[1]}, vectors of width {vectors.d_model}"
        raise UserError("the map does not start at these vectors' model", given=given)
    rows = torch.stack([maps[layer].weight @ vectors[layer] for layer in chosen])
    r2 = {str(layer): maps[layer].r2 for layer in chosen}
    told = card.model_copy(
        update={
            "d_model": rows.shape[1],
            "site": vectors.card.site,
            "trained": vectors.card.trained,
            "origin": f"carried from {vectors.card.base_model}",
            "recipe": {"operation": "carry", "of": vectors.digest, "held_out_r2": r2},
        }
    )
    placed = tuple(layer if layers is None else layers[layer] for layer in chosen)
    return replace(vectors, directions=rows, layers=placed, card=told)
