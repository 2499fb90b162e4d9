"""Estimates with intervals: the problem is the unit, bootstraps are clustered and reproducible by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from interp.errors import UserError
from interp.numbers import ROUNDING
from interp.summaries.widths import GAIN as GAIN
from interp.summaries.widths import SHARE as SHARE
from interp.summaries.widths import UNBOUNDED, Bounds, alike, finite, kind_of, with_width
from interp.summaries.widths import Interval as Interval
from interp.summaries.widths import of_equal as of_equal
from interp.summaries.widths import room as room

Array = NDArray[Any]
Statistic = Callable[[Array], float]


@dataclass(frozen=True)
class Band:
    """A curve with a simultaneous band: with 95 % probability it covers the whole curve.

    Attributes:
        estimate: the curve, [points].
        low: lower edge, [points].
        high: upper edge, [points].
        n: independent units behind it.
    """

    estimate: Array
    low: Array
    high: Array
    n: int


def bootstrap(
    values: ArrayLike,
    cluster: ArrayLike | None = None,
    *,
    statistic: Statistic | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    bounds: Bounds | None = None,
    share: bool | None = None,
) -> Interval:
    """Bootstrap over clusters, with expanded percentiles.

    Plain percentile intervals are too narrow for few clusters; following Hesterberg (2015, "What teachers should
    know about the bootstrap", sec. 5.4) the tail probability is that of a t interval: norm.cdf(-sqrt(n/(n-1)) t).

    For shares no half-width is below `room(n)`; where all units are equal, the interval is that of `of_equal`.

    Args:
        values: one row a measurement, [rows] or [rows, columns].
        cluster: the problem of each row; without it each row is its own.
        statistic: of the resampled rows, a number; the mean by default.
        level: coverage.
        draws: bootstrap samples.
        seed: of the resampling.
        bounds: what a single unit can give; by default that of a share where all rows are 0 or 1, else unbounded. With
            a statistic, its own range.
        share: whether the rows are outcomes of 0 or 1, or differences of such, perhaps averaged; read from the rows
            where it is not given.

    Raises:
        UserError: there are no rows, a row is not finite, or rows and clusters differ in number.
    """
    rows, code, n = _clustered(values, cluster)
    _check(draws, level)
    kind = kind_of(rows, bounds, share) if statistic is None else (bounds or UNBOUNDED, bool(share))
    pick = np.random.default_rng(seed).integers(n, size=(draws, n))
    if statistic is None:
        rows = rows.astype(float)
        estimate = float(rows.mean())
        sums, counts = np.bincount(code, rows, n), np.bincount(code, minlength=n)
        drawn = sums[pick].sum(1) / counts[pick].sum(1)
    else:
        estimate = float(statistic(rows))
        members = [np.flatnonzero(code == index) for index in range(n)]
        drawn = np.array([statistic(rows[np.concatenate([members[i] for i in chosen])]) for chosen in pick])
    if not np.isfinite(estimate):
        raise UserError("this statistic is not a number for these rows", given=estimate)
    low, high = _expanded(drawn, n, level)
    return with_width(
        Interval(estimate, min(low, estimate), max(high, estimate), n), kind[0], share=kind[1], level=level
    )


def _check(draws: int, level: float) -> None:
    if draws < 1 or not 0 < level < 1:
        raise UserError("a bootstrap needs at least one draw and a level between 0 and 1", given=f"{draws}, {level}")


def difference(
    treated: ArrayLike,
    base: ArrayLike,
    cluster: ArrayLike | None = None,
    *,
    draws: int = 2000,
    seed: int = 0,
    bounds: Bounds | None = None,
    share: bool | None = None,
) -> Interval:
    """Mean of treated - base, paired row by row (same problem, same random stream), bootstrapped over clusters.

    Args:
        treated: one row a measurement, [rows].
        base: the same rows without the treatment, [rows].
        cluster: the problem of each row; without it each row is its own.
        draws: bootstrap samples.
        seed: of the resampling.
        bounds: what a single difference can be; -1 to 1 where all rows are 0 or 1.
        share: whether both are outcomes of 0 or 1, perhaps averaged; read from the rows where it is not given.
    """
    left, right = finite(treated), finite(base)
    if left.shape != right.shape:
        raise UserError("paired arrays must have the same shape", given=f"{left.shape} and {right.shape}")
    if share is None and bounds is None:
        share = bool(np.isin(left, (0, 1)).all() and np.isin(right, (0, 1)).all())
        bounds = GAIN if share else UNBOUNDED
    elif share and bounds is None:
        bounds = GAIN
    return bootstrap(left - right, cluster, draws=draws, seed=seed, bounds=bounds, share=share)


def wilson(right: int, n: int) -> Interval:
    """Wilson interval of a proportion of `n` independent outcomes, 0 to 1; use it where there is one row a problem."""
    if not 0 <= right <= n or n == 0:  # NaN is neither
        raise UserError("a proportion needs 0 <= right <= n and n > 0", given=f"{right} of {n}")
    from statsmodels.stats.proportion import proportion_confint

    low, high = np.asarray(proportion_confint(right, n, method="wilson"), float)
    return Interval(right / n, float(low), float(high), n)


def band(
    curves: ArrayLike, cluster: ArrayLike | None = None, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Band:
    """Simultaneous band of a mean curve, by the bootstrap distribution of the largest |t| over its points.

    A point at which all units are equal gets the interval of `of_equal`, at the level of one point of all; for shares
    no half-width is below `room(n)`.

    Args:
        curves: one row a measurement, [rows, points].
        cluster: the problem of each row.
        level: probability that the band covers all points at once.
        draws: bootstrap samples.
        seed: of the resampling.

    Raises:
        UserError: the curves are not [rows, points], or a value is not finite.
    """
    rows, code, n = _clustered(curves, cluster)
    _check(draws, level)
    if rows.ndim != 2 or not rows.shape[1]:
        raise UserError("curves must be [rows, points]", given=rows.shape)
    rows = rows.astype(float)
    sums = np.zeros((n, rows.shape[1]))
    np.add.at(sums, code, rows)
    counts = np.bincount(code, minlength=n)
    pick = np.random.default_rng(seed).integers(n, size=(draws, n))
    weight = np.stack([np.bincount(chosen, minlength=n) for chosen in pick])
    drawn = (weight @ sums) / (weight @ counts)[:, None]
    estimate = rows.mean(0)
    # the bootstrap's own spread is too small by sqrt((n - 1) / n)
    error = drawn.std(0, ddof=1) * np.sqrt(n / max(n - 1, 1))
    moving = error > ROUNDING
    largest = np.abs((drawn - estimate)[:, moving] / error[moving]).max(1) if moving.any() else np.zeros(draws)
    width = error * float(np.quantile(largest, level)) * _t_factor(n, level) if n > 1 else np.full(len(error), np.inf)
    bounds, share = kind_of(rows, None, None)
    ends = [
        with_width(
            Interval(float(value), float(value - half), float(value + half), n), bounds, share=share, level=single
        )
        for value, half, single in zip(estimate, width, _levels(moving, level), strict=True)
    ]
    return Band(estimate, np.array([end.low for end in ends]), np.array([end.high for end in ends]), n)


def _levels(moving: Array, level: float) -> list[float]:
    """The level of each point: of a single one where it moves, of one among all where its units are equal."""
    return [level if moves else 1 - (1 - level) / len(moving) for moves in moving]


def _clustered(values: ArrayLike, cluster: ArrayLike | None) -> tuple[Array, Array, int]:
    """Rows, the index of each row's cluster, and the number of clusters."""
    rows = finite(values)
    if rows.ndim == 0 or not len(rows):
        raise UserError("an interval needs at least one row")
    if cluster is None:
        return rows, np.arange(len(rows)), len(rows)
    names = np.asarray(cluster)
    if names.shape != (len(rows),):
        raise UserError("each row needs one cluster", given=f"{len(rows)} rows, clusters {names.shape}")
    found, code = np.unique(names, return_inverse=True)
    return rows, code, len(found)


def _t_factor(n: int, level: float) -> float:
    """How much wider a t interval of n units is than a normal one."""
    tail = (1 + level) / 2
    return _t(tail, n) / float(stats.norm.ppf(tail))


@cache
def _t(tail: float, n: int) -> float:
    """Quantile of the t distribution for n units; kept, since scipy takes long over it."""
    return float(stats.t.ppf(tail, max(n - 1, 1)))


def _expanded(drawn: Array, n: int, level: float) -> tuple[float, float]:
    if n < 2:
        return float("-inf"), float("inf")
    known = drawn[np.isfinite(drawn)]
    if len(known) < len(drawn) * (1 + level) / 2:
        return UNBOUNDED  # such as a ratio whose denominator may be 0
    drawn = known
    tail = float(stats.norm.cdf(-np.sqrt(n / (n - 1)) * _t((1 + level) / 2, n)))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def control_range(draws: ArrayLike, *, problems: int | None = None) -> Interval:
    """Range that one more control draw leaves, on either side, in at most about 2.5 % of cases; n = draws.

    Up to 38 draws: the t prediction interval, mean +- t_{n-1} sd sqrt(1 + 1/n), widened where needed to the median
    plus and minus 24/(n+1) times the distance of the extreme draws. The naive quantiles of 8 draws would be passed by
    a new draw every fifth time; the widening keeps a side below 5 % for tails as heavy as Cauchy's or a log-normal's.
    From 39 draws: the order statistics that a new draw passes with probability <= 2.5 % a side, whatever the law.

    Equal draws do not show how far draws scatter: their range is unbounded, unless they are shares of known problems.

    Args:
        draws: the statistic of each control draw.
        problems: for shares of problems (accuracies, gains), how many problems are behind each draw; then the
            half-width of equal draws is `room(problems)`.

    Raises:
        UserError: fewer than three draws, or draws that are not finite.
    """
    drawn = finite(draws)
    n = len(drawn) if drawn.ndim == 1 else 0
    if n < 3:
        raise UserError("a control range needs at least three finite draws, better eight", given=n)
    drawn = np.sort(drawn)
    mean = float(drawn.mean())
    low, high = _prediction(drawn)
    if alike(drawn[0], drawn[-1]):
        half = float("inf") if problems is None else room(problems)
        low, high = mean - half, mean + half
    elif alike(low, high):  # order statistics may be equal where draws are not
        low, high = float(drawn[0]), float(drawn[-1])
    return Interval(mean, low, high, n)


def _prediction(drawn: Array) -> tuple[float, float]:
    """Ends of the range of one more draw; `drawn` is sorted."""
    n, mean, middle = len(drawn), float(drawn.mean()), float(np.median(drawn))
    if n >= 39:
        rank = int(0.025 * (n + 1))
        return float(drawn[rank - 1]), float(drawn[-rank])
    half = _t(0.975, n) * float(drawn.std(ddof=1) * np.sqrt(1 + 1 / n))
    stretch = max(1.0, 24 / (n + 1))
    low = min(mean - half, middle - stretch * (middle - float(drawn[0])))
    return low, max(mean + half, middle + stretch * (float(drawn[-1]) - middle))
