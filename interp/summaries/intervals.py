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

Array = NDArray[Any]
Statistic = Callable[[Array], float]


@dataclass(frozen=True)
class Interval:
    """An estimate with a 95 % interval, in the unit of the estimate.

    Attributes:
        estimate: the point estimate.
        low: lower end.
        high: upper end.
        n: independent units behind it (problems, not rows).
    """

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}], n = {self.n}"

    @property
    def finite(self) -> bool:
        """Whether all three numbers are finite."""
        return bool(np.isfinite([self.estimate, self.low, self.high]).all())

    def moved(self, by: float) -> Interval:
        """The interval shifted by a constant."""
        return Interval(self.estimate + by, self.low + by, self.high + by, self.n)

    def scaled(self, factor: float) -> Interval:
        """The interval in another unit, such as points (factor 100) for a proportion."""
        ends = sorted((self.low * factor, self.high * factor))
        return Interval(self.estimate * factor, ends[0], ends[1], self.n)


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
) -> Interval:
    """Bootstrap over clusters, with expanded percentiles.

    Plain percentile intervals are too narrow for few clusters; following Hesterberg (2015, "What teachers should
    know about the bootstrap", sec. 5.4) the tail probability is that of a t interval: norm.cdf(-sqrt(n/(n-1)) t).

    Args:
        values: one row a measurement, [rows] or [rows, columns].
        cluster: the problem of each row; without it each row is its own.
        statistic: of the resampled rows, a number; the mean by default.
        level: coverage.
        draws: bootstrap samples.
        seed: of the resampling.

    Raises:
        UserError: there are no rows, or rows and clusters differ in number.
    """
    rows, code, n = _clustered(values, cluster)
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
    low, high = _expanded(drawn, n, level)
    return Interval(estimate, min(low, estimate), max(high, estimate), n)


def difference(
    treated: ArrayLike, base: ArrayLike, cluster: ArrayLike | None = None, *, draws: int = 2000, seed: int = 0
) -> Interval:
    """Mean of treated - base, paired row by row (same problem, same random stream), bootstrapped over clusters."""
    left, right = np.asarray(treated, float), np.asarray(base, float)
    if left.shape != right.shape:
        raise UserError("paired arrays must have the same shape", given=f"{left.shape} and {right.shape}")
    return bootstrap(left - right, cluster, draws=draws, seed=seed)


def wilson(right: int, n: int) -> Interval:
    """Wilson interval of a proportion of `n` independent outcomes, 0 to 1; use it where there is one row a problem."""
    if not 0 <= right <= n or n == 0:
        raise UserError("a proportion needs 0 <= right <= n and n > 0", given=f"{right} of {n}")
    from statsmodels.stats.proportion import proportion_confint

    low, high = np.asarray(proportion_confint(right, n, method="wilson"), float)
    return Interval(right / n, float(low), float(high), n)


def band(
    curves: ArrayLike, cluster: ArrayLike | None = None, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Band:
    """Simultaneous band of a mean curve, by the bootstrap distribution of the largest |t| over its points.

    Args:
        curves: one row a measurement, [rows, points].
        cluster: the problem of each row.
        level: probability that the band covers all points at once.
        draws: bootstrap samples.
        seed: of the resampling.
    """
    rows, code, n = _clustered(curves, cluster)
    if rows.ndim != 2:
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
    moving = error > 0
    largest = np.abs((drawn - estimate)[:, moving] / error[moving]).max(1) if moving.any() else np.zeros(draws)
    width = error * float(np.quantile(largest, level)) * _t_factor(n, level)
    return Band(estimate, estimate - width, estimate + width, n)


def _clustered(values: ArrayLike, cluster: ArrayLike | None) -> tuple[Array, Array, int]:
    """Rows, the index of each row's cluster, and the number of clusters."""
    rows = np.asarray(values)
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
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return float("nan"), float("nan")
    tail = float(stats.norm.cdf(-np.sqrt(n / (n - 1)) * _t((1 + level) / 2, n)))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def control_range(draws: ArrayLike) -> Interval:
    """Range that one more control draw leaves, on either side, in at most about 2.5 % of cases; n = draws.

    Up to 38 draws: the t prediction interval, mean +- t_{n-1} sd sqrt(1 + 1/n), widened where needed to the median
    plus and minus 24/(n+1) times the distance of the extreme draws. The naive quantiles of 8 draws would be passed by
    a new draw every fifth time; the widening keeps a side below 5 % for tails as heavy as Cauchy's or a log-normal's.
    From 39 draws: the order statistics that a new draw passes with probability <= 2.5 % a side, whatever the law.

    Raises:
        UserError: fewer than three draws, or draws that are not finite.
    """
    drawn = np.sort(np.asarray(draws, float))
    n = len(drawn)
    if n < 3 or not np.isfinite(drawn).all():
        raise UserError("a control range needs at least three finite draws, better eight", given=n)
    mean, middle = float(drawn.mean()), float(np.median(drawn))
    if n >= 39:
        rank = int(0.025 * (n + 1))
        return Interval(mean, float(drawn[rank - 1]), float(drawn[-rank]), n)
    half = _t(0.975, n) * float(drawn.std(ddof=1) * np.sqrt(1 + 1 / n))
    stretch = max(1.0, 24 / (n + 1))
    low = min(mean - half, middle - stretch * (middle - float(drawn[0])))
    high = max(mean + half, middle + stretch * (float(drawn[-1]) - middle))
    return Interval(mean, low, high, n)
