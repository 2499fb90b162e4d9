"""From an interval, a margin and a control to one of five phrases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from interp.errors import UserError
from interp.numbers import shown
from interp.summaries.intervals import GAIN, Interval, bootstrap
from interp.summaries.widths import finite

POWER = 0.8
LEVEL = 0.95
_Z = float(stats.norm.ppf((1 + LEVEL) / 2))
_Z_POWER = float(stats.norm.ppf(POWER))

ENOUGH = 8
"""Units (problems) below which nothing is decided."""

_LARGEST = {
    "share": 1.0, "auc": 0.5, "cosine above": 2.0, "cosine": 1.0, "rank correlation": 1.0, "total variation": 1.0,
    "contrast": 1.0,
}  # fmt: skip
"""Largest possible effect by the first words of its unit."""

FLOOR = 0.05
"""A ratio is shown only where the lower bound of its denominator is at least 5 points of accuracy."""


@dataclass(frozen=True)
class Verdict:
    """What a run says about one claim.

    Attributes:
        claim: the claim, in words.
        phrase: "same direction", "opposite", "no effect within the margin", "inconclusive (detectable >= x)",
            "inconclusive (not detectable at this n)" or "not testable here, because ...".
        estimate: the effect; None where nothing was measured.
        control: range of one new control draw, where there are controls.
        margin: smallest effect of interest, in the unit of the estimate.
        detectable: smallest effect that comes out as "same direction" with power 0.8, same unit; None where it
            is unknown or larger than any possible effect.
        because: which comparison decided.
        unit: of estimate, control, margin and detectable.
    """

    claim: str
    phrase: str
    estimate: Interval | None
    control: Interval | None
    margin: float
    detectable: float | None
    because: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.claim}: {self.phrase}" if self.claim else self.phrase


def verdict(
    effect: Interval | None,
    control: Interval | None = None,
    margin: float = 0.0,
    *,
    expected: Literal[1, -1] = 1,
    relative: bool = False,
    testable: str | None = None,
    claim: str = "",
    unit: str = "",
    least: int = ENOUGH,
) -> Verdict:
    """Judge an effect by its interval, the margin and the control alone.

    In order:

    1. "not testable here, because ...": `testable` gives the reason, or the effect was not measured, or on fewer than
       `least` units, or an interval has no width (equal outcomes, equal draws).
    2. "no effect within the margin": the whole interval lies within +-margin (not where it is `relative`); or, with a
       control, the interval of (effect - mean of the controls) does, its ends widened by the uncertainty of that mean.
    3. "same direction": on the expected side, the whole interval is beyond 0 AND beyond the control's range, and
       the estimate is at least the margin.
    4. "opposite": the same on the other side.
    5. "inconclusive (detectable >= x)": anything else; x is the smallest effect that would come out as "same
       direction" with power 0.8, at this n and beside these controls; "not detectable at this n" where no possible
       effect is as large.

    The control's range must hold for one NEW draw (`control_range`), so that an effect that is itself a control
    draw passes in at most 2.5 % of cases on either side, whatever its own interval.

    Args:
        effect: estimate and interval; its null value is 0, or the controls' mean where it is `relative`.
        control: range of the same statistic for control interventions; None only where there is no control.
        margin: smallest effect of interest, in the effect's unit.
        expected: the sign that the paper reports.
        relative: the statistic is not 0 without an effect (a share, a cosine), so that effect and control are shown
            and judged minus the controls' mean.
        testable: why the claim cannot be tested here; None where it can.
        claim: the claim, in words.
        unit: of the effect, the control and the margin; its first words tell how large an effect can be.
        least: units below which nothing is decided.

    Raises:
        UserError: the margin is negative or not finite.
    """
    if not 0 <= margin < np.inf:
        raise UserError("a margin is not negative", given=margin)
    testable = testable or _untestable(effect, control, least)
    if effect is None or testable is not None:
        reason = testable or ""
        return Verdict(claim, f"not testable here, because {reason}", effect, control, margin, None, reason, unit)
    if relative and control is not None:
        effect, control = effect.moved(-control.estimate), control.moved(-control.estimate)
    seen = _detectable_beside(effect, control, margin, expected)
    seen = seen if np.isfinite(seen) and seen <= _largest(unit) else None
    kind, because = _judge(effect, control, margin, expected, relative=relative)
    effects = "not detectable at this n" if seen is None else f"detectable >= {shown(seen)}"
    phrase = f"inconclusive ({effects})" if kind == "inconclusive" else kind
    return Verdict(claim, phrase, effect, control, margin, seen, because, unit)


def _untestable(effect: Interval | None, control: Interval | None, least: int) -> str | None:
    """Why numbers alone decide nothing; None where they may."""
    if effect is None or not np.isfinite(effect.estimate) or np.isnan([effect.low, effect.high]).any():
        return "the effect could not be measured"
    if effect.n < least:
        return f"{effect.n} problems are too few, {least} is the least"
    if not effect.low < effect.high:
        return "all outcomes are equal, and its interval has no width"
    if control is not None and not control.low < control.high:
        return "all control draws are equal, and do not show how far draws scatter"
    return None


def _largest(unit: str) -> float:
    """The largest possible effect in a unit; infinite where that is unknown."""
    return next((most for words, most in _LARGEST.items() if unit.lower().startswith(words)), float("inf"))


def _judge(
    effect: Interval, control: Interval | None, margin: float, expected: int, *, relative: bool
) -> tuple[str, str]:
    if not relative and -margin <= effect.low and effect.high <= margin:
        return "no effect within the margin", "the interval lies within the margin"
    if control is not None and _beside(effect, control, margin):
        return "no effect within the margin", "the interval lies within the margin of the controls' mean"
    for sign, name in ((expected, "same direction"), (-expected, "opposite")):
        inner = effect.low if sign > 0 else -effect.high
        if inner > _limit(control, sign) and sign * effect.estimate >= margin:
            beyond = "0" if control is None else "0 and the controls' range"
            return name, f"the interval is beyond {beyond}"
    return "inconclusive", "the interval is neither within the margin nor beyond 0, the margin and the controls"


def _limit(control: Interval | None, sign: int) -> float:
    """What an effect of this sign has to be beyond."""
    return 0.0 if control is None else max(0.0, control.high if sign > 0 else -control.low)


def _detectable_beside(effect: Interval, control: Interval | None, margin: float, sign: int) -> float:
    """Effect whose interval clears the controls, and whose estimate the margin, with power 0.8."""
    deviation = (effect.high - effect.low) / 2 / _Z
    return max(_limit(control, sign) + detectable_from(effect), margin + _Z_POWER * deviation)


def _beside(effect: Interval, control: Interval, margin: float) -> bool:
    """Whether the effect less the controls' mean lies within the margin."""
    # half a prediction range is t sd sqrt(1 + 1/n); half the mean's interval is t sd / sqrt(n)
    unsure = (control.high - control.low) / 2 / np.sqrt(control.n + 1)
    down, up = effect.estimate - effect.low, effect.high - effect.estimate
    middle = effect.estimate - control.estimate
    return bool(middle - np.hypot(down, unsure) >= -margin and middle + np.hypot(up, unsure) <= margin)


def detectable_from(effect: Interval) -> float:
    """Smallest effect found with power 0.8 by an interval of this width (normal approximation), in its unit."""
    return (effect.high - effect.low) / 2 / _Z * (_Z + _Z_POWER)


def detectable(deviation: float, n: int) -> float:
    """Smallest mean difference that a paired t test of `n` problems finds with power 0.8 at the 5 % level.

    Args:
        deviation: standard deviation of the difference over problems.
        n: problems.
    """
    if n < 2 or not 0 < deviation < np.inf:
        # equal pairs have a deviation of 0, which does not mean that any effect would be seen
        raise UserError("power needs at least two problems and a deviation above 0", given=f"n={n}, sd={deviation}")
    from statsmodels.stats.power import TTestPower

    size = TTestPower().solve_power(effect_size=None, nobs=n, alpha=1 - LEVEL, power=POWER)
    return deviation * float(np.squeeze(size))


def share(
    numerator: ArrayLike,
    denominator: ArrayLike,
    cluster: ArrayLike | None = None,
    *,
    floor: float = FLOOR,
    draws: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Ratio of two mean differences, such as (prefix - base) / (steered - base), paired by problem.

    Args:
        numerator: difference of each row, [rows].
        denominator: difference of the same rows, [rows].
        cluster: the problem of each row.
        floor: smallest lower bound of the denominator, in its unit (0.05 = 5 points of accuracy).
        draws: bootstrap samples.
        seed: of the resampling.

    Returns:
        None, "not shown", where the denominator's lower bound is below `floor`.
    """
    top, bottom = finite(numerator), finite(denominator)
    if top.shape != bottom.shape:
        raise UserError("both parts of a ratio need the same rows", given=f"{top.shape} and {bottom.shape}")
    outcomes = bool(np.isin(bottom, (-1, 0, 1)).all())
    below = bootstrap(bottom, cluster, draws=draws, seed=seed, bounds=GAIN if outcomes else None)
    if not below.low >= floor:
        return None
    both = np.stack([top, bottom], -1)

    def ratio(rows: np.ndarray) -> float:
        top, bottom = rows.mean(0)
        return float(top / bottom) if bottom else float("nan")

    return bootstrap(both, cluster, statistic=ratio, draws=draws, seed=seed)
