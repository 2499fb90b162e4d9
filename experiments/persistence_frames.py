"""Frames of persistence: each problem, each pair of blocks beside random vectors, and cosines of final effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from experiments.controls import RANDOM
from experiments.lens_frames import as_direction, resampled
from experiments.persistence_readings import STATISTICS, Reading, cosine
from interp.summaries import GAIN, TWICE, Interval, bootstrap, with_width

Array = NDArray[Any]
Drawn = Mapping[tuple[str, int], Reading]
"""Readings by kind of vector and draw; ("trained", 0) is the vector under study."""
TRAINED = ("trained", 0)
DRAWS = 1000
"""Bootstrap samples of an interval."""


def by_problem(readings: Drawn, examples: Sequence[str]) -> pd.DataFrame:
    """One row a vector, statistic and problem: the mean over observed blocks."""
    frames: list[pd.DataFrame] = []
    for (vector, draw), reading in readings.items():
        means = reading.values.nanmean(1).numpy()
        for index, statistic in enumerate(STATISTICS):
            about = {"part": "problems", "vector": vector, "draw": draw, "statistic": statistic}
            frames.append(pd.DataFrame({**about, "example": examples[: len(means)], "value": means[:, index]}))
    return pd.concat(frames, ignore_index=True).dropna(subset="value")


def by_pair(readings: Drawn, observed: Sequence[int]) -> pd.DataFrame:
    """One row a vector, statistic and observed block, means over problems; intervals for the vector under study."""
    rows: list[dict[str, Any]] = []
    random = [reading for (vector, _), reading in readings.items() if vector in RANDOM]
    for (vector, draw), reading in readings.items():
        for place, layer in enumerate(observed):
            for index, statistic in enumerate(STATISTICS):
                values = reading.values[:, place, index].numpy()
                row = {"vector": vector, "draw": draw, "observed": layer, "statistic": statistic}
                row |= _mean(values, interval=(vector, draw) == TRAINED)
                if (vector, draw) == TRAINED and random:
                    drawn = np.stack([one.values[:, place, index].numpy() for one in random])
                    row |= _above(values[: drawn.shape[1]], drawn)
                rows.append(row)
    return pd.DataFrame(rows).assign(part="pairs").dropna(subset="value")


def _mean(values: Array, *, interval: bool) -> dict[str, float]:
    kept = values[np.isfinite(values)]
    if not len(kept) or not interval:
        return {"value": float(kept.mean()) if len(kept) else np.nan, "n": len(kept)}
    found = bootstrap(kept, draws=DRAWS, bounds=GAIN)
    return {"value": found.estimate, "low": found.low, "high": found.high, "n": len(kept)}


def _above(values: Array, drawn: Array) -> dict[str, float]:
    """The vector's value less the mean of random vectors', paired by problem, and where those vectors' means lie."""
    kept = np.isfinite(values) & np.isfinite(drawn).all(0)
    if not kept.any():
        return {}
    found = bootstrap(values[kept] - drawn[:, kept].mean(0), draws=DRAWS, bounds=TWICE)
    means = drawn[:, kept].mean(1)
    ends = {"random_low": float(means.min()), "random_high": float(means.max())}
    return {"random": float(means.mean()), **ends, "above": found.estimate} | {
        "above_low": found.low,
        "above_high": found.high,
        "above_n": float(found.n),
    }


def final_cosines(
    finals: Mapping[tuple[str, int], Mapping[int, Float[Tensor, "problem d_model"]]], *, n: int, seed: int
) -> pd.DataFrame:
    """cos(D_i, D_j) of the mean effects after the last block, and its mean over the blocks that have random vectors.

    Args:
        finals: by vector and draw, steered block -> each problem's mean change.
        n: problems, the first ones, that random vectors were read on; means of fewer problems are noisier, so the mean
            over blocks is taken on these for all vectors.
        seed: of the bootstrap.
    """
    frames: list[pd.DataFrame] = []
    compared = {layer for (vector, _), by_layer in finals.items() if vector in RANDOM for layer in by_layer}
    for (vector, draw), by_layer in finals.items():
        trained = (vector, draw) == TRAINED
        samples = {layer: resampled(rows, seed) for layer, rows in by_layer.items()} if trained else {}
        rows = [_pair(by_layer, samples, *pair) for pair in combinations(sorted(by_layer), 2)]
        shared = {layer: rows[:n] for layer, rows in by_layer.items() if layer in compared}
        frames.append(pd.DataFrame([{"part": "final", **row} for row in rows]).assign(vector=vector, draw=draw))
        if len(shared) > 1:
            mean = {"part": "final-mean", **_mean_cosine(shared, seed, interval=trained)}
            frames.append(pd.DataFrame([mean]).assign(vector=vector, draw=draw))
    return pd.concat(frames, ignore_index=True).assign(statistic="final")


def _pair(by_layer: Mapping[int, Tensor], samples: Mapping[int, Tensor], one: int, other: int) -> dict[str, Any]:
    value = float(cosine(as_direction(by_layer[one]), as_direction(by_layer[other])))
    row: dict[str, Any] = {"layer": one, "observed": other, "value": value}
    row["n"] = int(torch.isfinite(by_layer[one]).all(1).sum())
    if samples:
        row |= _ends(value, cosine(samples[one], samples[other]), row["n"])
    return row


def _mean_cosine(by_layer: Mapping[int, Tensor], seed: int, *, interval: bool) -> dict[str, Any]:
    """Mean over pairs of blocks; problems are resampled for all blocks together."""

    def mean(directions: Mapping[int, Tensor]) -> Tensor:
        pairs = combinations(sorted(directions), 2)
        return torch.stack([cosine(directions[i], directions[j]) for i, j in pairs]).mean(0)

    value = float(mean({layer: as_direction(rows) for layer, rows in by_layer.items()}))
    counted = min(int(torch.isfinite(rows).all(1).sum()) for rows in by_layer.values())
    row: dict[str, Any] = {"value": value, "n": counted}
    if not interval:
        return row
    return row | _ends(value, mean({k: resampled(rows, seed) for k, rows in by_layer.items()}), counted)


def _ends(value: float, drawn: Tensor, n: int) -> dict[str, float]:
    low, high = np.quantile(drawn.numpy(), [0.025, 0.975]).tolist()
    found = with_width(Interval(value, min(low, value), max(high, value), n), GAIN)
    return {"low": found.low, "high": found.high}
