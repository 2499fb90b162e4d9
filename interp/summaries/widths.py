"""Intervals, and the least width that finite data leave.

Equal outcomes never make an interval of no width: of n units that all came out alike, up to `room(n)` of all units may
come out otherwise (97.5 % a side). How far that moves the mean depends on what a single unit can give, so that the
interval of equal outcomes is unbounded where that is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp.errors import UserError
from interp.numbers import ROUNDING, shown

Array = NDArray[Any]
Bounds = tuple[float, float]
"""The smallest and the largest value that a single unit can give."""

UNBOUNDED: Bounds = (float("-inf"), float("inf"))
SHARE: Bounds = (0.0, 1.0)
GAIN: Bounds = (-1.0, 1.0)
TWICE: Bounds = (-2.0, 2.0)
POSITIVE: Bounds = (0.0, float("inf"))


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
        estimate, low, high = (shown(number) for number in (self.estimate, self.low, self.high))
        return f"{estimate} [{low}, {high}], n = {self.n}"

    def points(self) -> str:
        """The interval of a share, in points, for a sentence."""
        estimate, low, high = (shown(100 * number, ".1f") for number in (self.estimate, self.low, self.high))
        return f"{estimate} points [{low}, {high}]"

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


def finite(values: ArrayLike) -> Array:
    """Return numbers as an array.

    Raises:
        UserError: a value is no number, NaN or infinite.
    """
    try:
        numbers = np.asarray(values, float)
    except (TypeError, ValueError):
        raise UserError("statistics are made of numbers", given=str(values)[:60]) from None
    if not np.isfinite(numbers).all():
        count = int((~np.isfinite(numbers)).sum())
        raise UserError("statistics need finite numbers", given=f"{count} of {numbers.size} are NaN or infinite")
    return numbers


def room(n: int, level: float = 0.95) -> float:
    """Share of units that may still come out otherwise although n units came out alike, 0 to 1.

    It is the exact upper end for an outcome that was never seen, 1 - 0.025^(1/n).
    """
    if n < 1:
        raise UserError("an interval needs at least one unit", given=n)
    return 1 - ((1 - level) / 2) ** (1 / n)


def of_equal(value: float, n: int, bounds: Bounds = UNBOUNDED, level: float = 0.95) -> Interval:
    """Return the interval of n units that all gave one value: `room(n)` of all units may lie at either bound."""
    share = room(n, level)
    low, high = bounds
    # 0 x infinity: a value at a bound cannot lie beyond it
    down = share * (value - low) if value > low else 0.0
    up = share * (high - value) if high > value else 0.0
    return Interval(value, value - down, value + up, n)


def with_width(found: Interval, bounds: Bounds, *, share: bool = False, level: float = 0.95) -> Interval:
    """At least the width that equal units have; for shares at least `room(n)` on either side, within the bounds."""
    low, high = found.low, found.high
    if found.n > 1 and not share and alike(low, high):
        equal = of_equal(found.estimate, found.n, bounds, level)
        low, high = equal.low, equal.high
    if found.n > 1 and share:
        least = room(found.n, level)
        low = max(bounds[0], min(low, found.estimate - least))
        high = min(bounds[1], max(high, found.estimate + least))
    return Interval(found.estimate, low, high, found.n)


def alike(low: float, high: float) -> bool:
    """Equal but for rounding, also that of numbers near 1 whose difference was taken."""
    return bool(high - low <= max(ROUNDING, 1e-9 * max(abs(low), abs(high))))


def kind_of(rows: Array, bounds: Bounds | None, share: bool | None) -> tuple[Bounds, bool]:
    """Bounds of a row, and whether rows are outcomes of 0 or 1 or differences of such."""
    outcomes = bool(np.isin(rows, (-1, 0, 1)).all())
    if bounds is None:
        inferred = (GAIN if share or (rows < 0).any() else SHARE) if outcomes or share else UNBOUNDED
        return inferred, outcomes if share is None else share
    finite = bool(np.isfinite(bounds).all())
    return bounds, (outcomes and finite) if share is None else share
