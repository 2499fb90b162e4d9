"""The statistics of pairs of vectors: interactions, the better single vector, random partners, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from experiments.controls import control_interval, halves, too_few
from experiments.sweeps import MARGIN, UNIT, columns_of, interval_of, mean_of, p_of_mean
from interp.summaries import GAIN, SHARE, TWICE, Interval, Verdict, benjamini_hochberg, bootstrap, share, verdict

Right = Mapping[Any, np.ndarray]
"""Whether each answer is right: 0 = base, (layer, factor), ("pair", i, j), "all": [answers]; ("random", layer) and
("partner", i, j): [answers, draws]."""


def interaction(right: Right, i: int, j: int) -> np.ndarray:
    """R_ij - R_i - R_j + R_0 of each answer; its mean is I_ij."""
    return right["pair", i, j] - right[i, 1.0] - right[j, 1.0] + right[0]


def random_interaction(right: Right, i: int, j: int) -> np.ndarray:
    """The same with random vectors in place of j's, [answers, draws]."""
    return right["partner", i, j] - right[i, 1.0][:, None] - right["random", j] + right[0][:, None]


def log_odds_interaction(rows: np.ndarray) -> float:
    """The interaction of log-odds, nats, of columns pair, i, j, base; counts are smoothed by 1/2."""
    count = len(rows)
    shares = (rows.sum(0) + 0.5) / (count + 1)
    odds = np.log(shares / (1 - shares))
    return float(odds[0] - odds[1] - odds[2] + odds[3])


def split_answers(example: Sequence[str], problems: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which answers belong to the half that chooses, and to the one that reports."""
    choosing = {problems[index] for index in halves(len(problems), seed)[0]}
    first = np.array([name in choosing for name in example])
    return first, ~first


def best_single(right: Right, i: int, j: int, factors: Sequence[float], choosing: np.ndarray) -> tuple[int, float]:
    """Block and factor of the single vector with the highest accuracy on the choosing half; of equals, nearest to 1."""
    options = [(layer, factor) for layer in (i, j) for factor in factors]
    return max(options, key=lambda one: (float(right[one][choosing].mean()), -abs(one[1] - 1.0)))


def pair_rows(
    right: Right,
    layers: Sequence[int],
    factors: Sequence[float],
    example: Sequence[str],
    problems: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """A row for each pair i < j."""
    names, (choosing, reporting) = np.asarray(example), split_answers(example, problems, seed)
    rows: list[dict[str, Any]] = []
    for i, j in combinations(layers, 2):
        of_pair, effect = right["pair", i, j], interaction(right, i, j)
        table = np.stack([of_pair, right[i, 1.0], right[j, 1.0], right[0]], -1)
        best = best_single(right, i, j, factors, choosing)
        beyond = (of_pair - right[best])[reporting]
        rows.append(
            {
                "i": i,
                "j": j,
                **mean_of(of_pair, example, "accuracy", SHARE),
                **mean_of(effect, example, "interaction", TWICE),
                **columns_of(bootstrap(table, names, statistic=log_odds_interaction), "log_odds"),
                "p": p_of_mean(effect, example),
                "best": best[0],
                "best_factor": best[1],
                **mean_of(beyond, list(names[reporting]), "beyond_best", GAIN),
                **mean_of(of_pair - right["partner", i, j].mean(1), example, "beyond_random", GAIN),
                **columns_of(_share(right, i, j, names, choosing, reporting), "share"),
            }
        )
    frame = pd.DataFrame(rows).assign(part="pairs", vector="trained", draw=0, n=len(set(example)))
    return frame.assign(q=benjamini_hochberg(frame["p"].to_numpy()))


def _share(
    right: Right, i: int, j: int, names: np.ndarray, choosing: np.ndarray, reporting: np.ndarray
) -> Interval | None:
    """(A_ij - B)/(P - B) on the reporting half; None without vectors of all layers or with too small a denominator."""
    if "all" not in right:
        return None
    better = right[best_single(right, i, j, (1.0,), choosing)]
    gained, whole = ((right[key] - better)[reporting] for key in (("pair", i, j), "all"))
    return share(gained, whole, names[reporting])


def whole_rows(
    right: Right,
    layers: Sequence[int],
    pairs: pd.DataFrame,
    example: Sequence[str],
    problems: Sequence[str],
    draw_of: np.ndarray | None,
    seed: int,
) -> pd.DataFrame:
    """Means over pairs, and the same of each draw of random partners.

    Args:
        right: see `Right`.
        layers: the blocks.
        pairs: of `pair_rows`, for the better single vectors.
        example: problem of each answer.
        problems: the problems in order.
        draw_of: draw that each answer met, where draws are mixed; None where every draw met every problem.
        seed: of the halves.
    """
    (_, reporting), keys = split_answers(example, problems, seed), list(combinations(layers, 2))
    best = [right[int(one), float(factor)] for one, factor in zip(pairs["best"], pairs["best_factor"], strict=True)]
    effect = np.mean([interaction(right, i, j) for i, j in keys], 0)
    beyond = np.mean([right["pair", i, j] - one for (i, j), one in zip(keys, best, strict=True)], 0)
    alone = np.mean([right[layer, 1.0] - right["random", layer].mean(1) for layer in layers], 0)
    names = np.asarray(example)
    row = {
        "part": "whole",
        **mean_of(effect, example, "interaction", TWICE),
        **mean_of(beyond[reporting], list(names[reporting]), "beyond_best", GAIN),
        **mean_of(alone, example, "alone", GAIN),
    }
    random = np.mean([random_interaction(right, i, j) for i, j in keys], 0)
    past = np.mean([right["partner", i, j] - one[:, None] for (i, j), one in zip(keys, best, strict=True)], 0)
    draws = [
        {"part": "draws", "vector": "random-partner", "draw": draw, "interaction": a, "beyond_best": b}
        for draw, (a, b) in enumerate(zip(_by_draw(random, draw_of), _by_draw(past, draw_of, reporting), strict=True))
    ]
    return pd.DataFrame([{**row, "vector": "trained", "draw": 0}, *draws]).assign(n=len(set(example)))


def _by_draw(values: np.ndarray, draw_of: np.ndarray | None, where: np.ndarray | None = None) -> list[float]:
    """Mean of each draw over the answers that met it; NaN where none did."""
    where = np.ones(len(values), bool) if where is None else where
    if draw_of is None:
        return [float(mean) for mean in values[where].mean(0)]
    chosen = [values[where & (draw_of == draw), 0] for draw in range(int(draw_of.max()) + 1)]
    return [float(own.mean()) if len(own) else float("nan") for own in chosen]


def judge_sum(frame: pd.DataFrame) -> Verdict:
    """Whether two vectors give another sum than each alone; tested only where they gain anything alone."""
    return _judge(frame, "two-vectors-add-up", "interaction")


def judge_best(frame: pd.DataFrame) -> Verdict:
    """Whether two vectors beat the better one at its best factor by more than a random partner does."""
    return _judge(frame, "two-beat-the-better-one", "beyond_best")


def _judge(frame: pd.DataFrame, claim: str, name: str) -> Verdict:
    rows: Any = frame[frame["part"].isin(["whole", "draws"])]  # the base at matched entropy may be warmer
    rows = rows[rows["temperature"] == frame.loc[frame["part"] == "whole", "temperature"].max()]
    row = rows[rows["part"] == "whole"].iloc[0]
    if not int(row["n"]):
        return verdict(None, margin=MARGIN, testable="the set has one block", claim=claim, unit=UNIT)
    found, single = interval_of(row, name), interval_of(row, "alone")
    drawn = [value for value in rows[rows["part"] == "draws"][name] if np.isfinite(value)]
    control = control_interval({"partner": drawn}, ["partner"], problems=found.n)
    reason = too_few(found.n) or (None if control else "there are no control draws to compare with")
    if row["trained"] != "apart":
        known = row["trained"] == "together"
        reason = "these vectors were trained together" if known else "nobody says that these vectors were trained apart"
    elif reason is None and not single.low > 0:
        reason = f"alone, the vectors are {single.points()} better than random ones"
    return verdict(found, control, MARGIN, testable=reason, claim=claim, unit=UNIT)
