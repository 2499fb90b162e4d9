"""Geometry of sets of vectors: norms, cosines against random directions, stable rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import special, stats
from torch import Tensor

from interp.summaries import GAIN, Interval, Verdict, bootstrap, control_range, verdict
from vectors import Card, SteeringVectors
from vectors.controls import random_covariance, random_isotropic

LEVEL = 0.95
LEAST = 4
"""Blocks from which a mean over blocks can decide anything."""


@dataclass(frozen=True)
class Nulls:
    """Random directions at each block.

    Attributes:
        layers: blocks, in the order of the middle axis.
        covariance: unit directions with the covariance of the block's residual stream.
    """

    layers: tuple[int, ...]
    covariance: Float[Tensor, "draw layer d_model"]

    @staticmethod
    def of(tokens: Mapping[int, Float[Tensor, "token d_model"]], *, draws: int, seed: int) -> Nulls:
        """Draw them from the stream at some tokens of each block."""
        layers = tuple(sorted(tokens))
        width = tokens[layers[0]].shape[1]
        card = Card(name="null", d_model=width, trained="apart")
        carrier = SteeringVectors(torch.ones(len(layers), width), layers, card)
        drawn = random_covariance(carrier, tokens, draws=draws, seed=seed)
        return Nulls(layers, torch.stack([unit(one.directions) for one in drawn]))

    def cosines(self, direction: Float[Tensor, " d_model"], layer: int) -> Float[Tensor, " draw"]:
        """Of a direction with the random ones of a block."""
        return self.covariance[:, self.layers.index(layer)] @ unit(direction)


def unit(rows: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
    """Rows of norm 1; a zero row stays zero."""
    return rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-30)


def isotropic(width: int) -> tuple[float, float]:
    """Expected |cos| of two isotropic random directions, and the |cos| that 95 % of them stay below.

    cos^2 is Beta(1/2, (width - 1) / 2) distributed.
    """
    expected = np.exp(special.gammaln(width / 2) - special.gammaln((width + 1) / 2)) / np.sqrt(np.pi)
    return float(expected), float(np.sqrt(stats.beta.ppf(LEVEL, 0.5, (width - 1) / 2)))


def norms(vectors: SteeringVectors, residual: Mapping[int, float]) -> pd.DataFrame:
    """One row a block."""
    rows = [
        {"layer": layer, "norm": norm, "residual_norm": residual[layer], "relative": norm / residual[layer]}
        for layer, norm in vectors.norms.items()
    ]
    return pd.DataFrame(rows).assign(part="norms")


def between(vectors: SteeringVectors, nulls: Nulls) -> pd.DataFrame:
    """Cosines of the set's vectors, one row a pair of blocks i < j."""
    rows = [
        _cosine(vectors[one], vectors[other], other, nulls) | {"layer": one, "other_layer": other}
        for place, one in enumerate(vectors.layers)
        for other in vectors.layers[place + 1 :]
    ]
    return pd.DataFrame(rows).assign(part="between")


def against(vectors: SteeringVectors, other: SteeringVectors, nulls: Nulls) -> pd.DataFrame:
    """Cosines with another set's vectors at the same blocks, one row a block; empty where there is none."""
    shared = [layer for layer in vectors.layers if layer in other.layers]
    rows = [_cosine(vectors[layer], other[layer], layer, nulls) | {"layer": layer} for layer in shared]
    return pd.DataFrame(rows).assign(part="against")


def null_means(vectors: SteeringVectors, layers: Sequence[int], nulls: Nulls) -> pd.DataFrame:
    """Mean over blocks of the cosine with random directions of the blocks' covariance, one row a draw."""
    means = torch.stack([nulls.cosines(vectors[layer], layer) for layer in layers]).mean(0)
    return pd.DataFrame({"part": "null", "draw": range(len(means)), "cosine": means.numpy()})


def stable_rank(rows: Float[Tensor, "layer d_model"]) -> float:
    """|M|_F^2 / |M|_2^2: from 1, one direction, to the number of rows."""
    values = torch.linalg.svdvals(rows.double())
    return float((values**2).sum() / values[0] ** 2)


def ranks(vectors: SteeringVectors, nulls: Nulls, *, draws: int, seed: int) -> pd.DataFrame:
    """Stable rank as trained and with unit rows, beside random rows of the same norms."""
    rows: list[dict[str, Any]] = []
    places = [nulls.layers.index(layer) for layer in vectors.layers]
    lengths = vectors.directions.norm(dim=1, keepdim=True)
    isotropic_rows = [one.directions for one in random_isotropic(vectors, draws=draws, seed=seed)]
    drawn = {
        "random-isotropic": isotropic_rows,
        "random-covariance": [one * lengths for one in nulls.covariance[:, places]],
    }
    for matrix, shape in (("as given", lambda rows: rows), ("unit rows", unit)):
        rows.append({"vector": "trained", "matrix": matrix, "stable_rank": stable_rank(shape(vectors.directions))})
        for kind, some in drawn.items():
            values = [stable_rank(shape(one)) for one in some]
            low, middle, high = np.quantile(values, [0.025, 0.5, 0.975]).tolist()
            about = {"vector": kind, "matrix": matrix, "stable_rank": middle}
            rows.append({**about, "stable_rank_low": low, "stable_rank_high": high})
    return pd.DataFrame(rows).assign(part="rank")


def _cosine(one: Tensor, other: Tensor, layer: int, nulls: Nulls) -> dict[str, float]:
    drawn = nulls.cosines(one, layer)
    expected, high = isotropic(len(one))
    low, top = np.quantile(drawn.numpy(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return {
        "cosine": float(unit(one) @ unit(other)),
        "isotropic_abs": expected,
        "isotropic_high": high,
        "covariance_abs": float(drawn.abs().mean()),
        "covariance_low": low,
        "covariance_high": top,
    }


def judge(frame: pd.DataFrame, relation: str, claim: str, *, margin: float) -> Verdict:
    """Whether vectors of two sets point the same way, mean over the blocks that both have.

    Args:
        frame: of the experiment.
        relation: which sets stand against the set under study; the first one of that relation is judged.
        claim: in words.
        margin: smallest cosine of interest.
    """
    rows: Any = frame[frame["relation"] == relation]
    names = list(dict.fromkeys(rows.loc[rows["part"] == "against", "set"]))
    rows = rows[rows["set"] == names[0]] if names else rows
    cosines, drawn = (rows.loc[rows["part"] == part, "cosine"].to_numpy() for part in ("against", "null"))
    reason = None if names else "there is no such set of vectors for this model"
    if names and len(cosines) < LEAST:
        reason = f"{len(cosines)} blocks have vectors in both sets, {LEAST} is the least"
    if reason:
        return verdict(None, margin=margin, testable=reason, claim=claim, unit="cosine")
    control: Interval = control_range(drawn)
    return verdict(bootstrap(cosines, bounds=GAIN), control, margin, claim=claim, unit="cosine", least=LEAST)
