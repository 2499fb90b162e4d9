"""Small, equal, constant and missing data: a bounded interval of some width, or one line that says why not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from experiments.controls import control_interval
from experiments.graded import floor, summarise
from experiments.sweeps import p_beyond, p_of_mean
from interp.errors import UserError
from interp.summaries import (
    GAIN,
    SHARE,
    Interval,
    against_null,
    auc,
    band,
    benjamini_hochberg,
    bootstrap,
    control_range,
    detectable,
    difference,
    mantel,
    mantel_haenszel,
    of_equal,
    room,
    share,
    verdict,
    wilson,
)

UNIT = "share of problems"
ONES = st.integers(2, 40).flatmap(lambda n: arrays(np.int8, n, elements=st.integers(0, 1)))
PAIRS = st.integers(2, 40).flatmap(lambda n: arrays(np.int8, (2, n), elements=st.integers(0, 1)))
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
VALUES = st.integers(2, 20).flatmap(lambda n: arrays(float, n, elements=NUMBERS))
QUICK = settings(max_examples=30, deadline=None)


@given(PAIRS)
@example(np.zeros((2, 8), np.int8))
@example(np.ones((2, 8), np.int8))
@example(np.array([[1] * 8, [0] * 8], np.int8))
@QUICK
def test_a_difference_of_shares_has_a_width_within_its_range(pair: np.ndarray) -> None:
    found = difference(*pair, draws=100)
    half = room(pair.shape[1])
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    # clipped where no effect can be larger
    assert found.low <= max(-1, found.estimate - half) and found.high >= min(1, found.estimate + half)
    assert found.low < found.high


@given(ONES)
@QUICK
def test_an_accuracy_has_a_width_within_its_range(right: np.ndarray) -> None:
    for found in (bootstrap(right, draws=100), wilson(int(right.sum()), len(right))):
        assert -1e-12 <= found.low < found.high <= 1 + 1e-12
    edges = band(np.stack([right, 1 - right], -1), draws=100)
    assert (edges.low < edges.high).all() and (edges.low >= 0).all() and (edges.high <= 1).all()


@given(VALUES)
@example(np.full(9, 3.25))
@example(np.full(9, 0.1))
@QUICK
def test_no_interval_of_finite_numbers_has_no_width(values: np.ndarray) -> None:
    found = bootstrap(values, draws=100)
    assert found.low <= found.estimate <= found.high and found.low < found.high
    both = difference(values, values[::-1], draws=100)
    assert both.low < both.high
    edges = band(values[:, None] * np.ones(3), draws=100)
    assert (edges.low < edges.high).all()


def test_one_unit_bounds_no_curve_just_as_it_bounds_no_mean() -> None:
    edges, single = band(np.array([[0.3, 1.0]])), bootstrap([0.3])
    assert (edges.low < edges.estimate).all() and (edges.estimate < edges.high).all() and not single.finite


@pytest.mark.parametrize("noise", [[0.1 + 0.2 - 0.3] * 4 + [0.0] * 4, [1e-17 * row for row in range(8)]])
def test_pairs_that_differ_by_rounding_are_equal_pairs(noise: list[float]) -> None:
    assert bootstrap(noise).high == bootstrap([0.0] * 8, bounds=(-np.inf, np.inf)).high == np.inf
    assert "inconclusive" in verdict(bootstrap(noise), None, 0.05).phrase
    assert control_range(noise).low == -np.inf and band(np.array([noise]).T).low == [-np.inf]
    assert "inconclusive" in verdict(Interval(0.3, 0.2, 0.4, 20), control_range(noise), 0.05).phrase


@given(st.floats(-1, 1), st.integers(1, 500))
@QUICK
def test_equal_units_leave_less_room_the_more_there_are(value: float, n: int) -> None:
    few, many = (of_equal(value, count, GAIN) for count in (n, n + 1))
    assert -1 <= few.low <= many.low <= value <= many.high <= few.high <= 1
    assert room(n) > room(n + 1) > 0


def test_the_room_of_equal_outcomes_is_the_exact_upper_end() -> None:
    assert bootstrap(np.zeros(20)).high == pytest.approx(room(20)) == pytest.approx(1 - 0.025 ** (1 / 20))
    assert difference(np.zeros(8), np.zeros(8), np.arange(8)).low == pytest.approx(-room(8))
    # numbers of no known range bound nothing
    assert not bootstrap(np.full(8, 2.5)).finite
    assert bootstrap(np.full(8, 0.5), bounds=SHARE).finite
    # two samples of each problem are no further problems
    assert difference(np.zeros(16), np.zeros(16), np.repeat(np.arange(8), 2)).n == 8


@given(st.integers(3, 60).flatmap(lambda n: arrays(float, n, elements=st.sampled_from([0.0, 1 / 28, 2 / 28, 0.5]))))
@example(np.full(3, 3 / 28))
@example(np.full(45, 3 / 28))
@example(np.array([0.0] * 58 + [0.5]))
@QUICK
def test_no_range_of_controls_has_no_width(draws: np.ndarray) -> None:
    known, unknown = control_range(draws, problems=28), control_range(draws)
    assert unknown.low < unknown.high
    assert known.low < known.high and known.finite
    if len(set(draws)) == 1:
        assert (known.low, known.high) == pytest.approx((draws[0] - room(28), draws[0] + room(28)))
    assert unknown.finite is (len(set(draws)) > 1)


def test_equal_controls_decide_only_where_their_problems_are_known() -> None:
    effect = Interval(0.357, 0.179, 0.536, 28)
    assert (
        verdict(effect, control_range([3 / 28] * 3), 0.05, unit=UNIT).phrase
        == "inconclusive (not detectable at this n)"
    )
    known = control_interval({"random-isotropic": [0.0] * 8}, problems=28)
    assert verdict(effect, known, 0.05, unit=UNIT).phrase == "same direction"
    weak = verdict(effect.moved(-0.2), known, 0.05, unit=UNIT).phrase
    assert weak.startswith("inconclusive")
    by_hand = Interval(0.107, 0.107, 0.107, 3)
    assert "control draws are equal" in verdict(effect, by_hand, 0.05, unit=UNIT).phrase


@given(PAIRS, st.floats(0.01, 0.2))
@QUICK
def test_equal_pairs_never_decide(pair: np.ndarray, margin: float) -> None:
    n = pair.shape[1]
    found = verdict(difference(pair[0], pair[0], draws=50), None, margin, unit=UNIT)
    if room(n) > margin:
        assert found.phrase.startswith(("inconclusive", "not testable"))
    if n < 8:
        assert found.phrase.startswith("not testable here, because")
    assert verdict(Interval(0.0, 0.0, 0.0, n), None, margin, unit=UNIT).phrase.startswith("not testable")


@given(st.floats(-0.4, 0.4), st.floats(0.001, 3), st.integers(8, 100), st.sampled_from([1, -1]))
@QUICK
def test_a_share_is_never_detectable_beyond_one(estimate: float, half: float, n: int, sign: Any) -> None:
    control = control_range([0.0, half / 3, -half / 3])
    found = verdict(Interval(estimate, estimate - half, estimate + half, n), control, 0.05, expected=sign, unit=UNIT)
    assert found.detectable is None or 0 < found.detectable <= 1
    if found.phrase.startswith("inconclusive"):
        assert (found.detectable is None) is ("not detectable at this n" in found.phrase)


def test_a_floor_is_not_testable() -> None:
    rows = [(name, problem) for name in ("base", "trained") for problem in range(8)]
    about: dict[str, Any] = {"draw": 0, "temperature": 1.0, "boxed": 1.0, "ended": 1.0, "length": 3, "entropy": 0.1}
    frame = pd.DataFrame([{"vector": name, "example": str(problem), "right": 0.0, **about} for name, problem in rows])
    row = summarise(frame).iloc[1]
    assert "no completion is right" in str(floor(row))
    frame.loc[0, "right"] = 1.0
    assert floor(summarise(frame).iloc[1]) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "x", None])
def test_what_is_no_number_is_refused(bad: Any) -> None:
    values: list[Any] = [0.0, 1.0, bad]
    for function in (bootstrap, lambda v: difference(v, v), lambda v: band([[x] for x in v]), control_range):
        with pytest.raises(UserError):
            function(values)
    with pytest.raises(UserError):
        against_null(0.0, values)
    with pytest.raises(UserError):
        benjamini_hochberg([0.1, bad])


def test_missing_scores_and_labels_are_refused() -> None:
    with pytest.raises(UserError, match="are NaN or infinite"):
        auc([0.1, np.nan], [True, False])
    with pytest.raises(UserError, match="one label"):
        auc([0.1, 0.2, 0.3], [True, False])
    with pytest.raises(UserError, match="both positive and negative"):
        auc([0.1, 0.2], [True, True])
    with pytest.raises(UserError, match="NaN or infinite"):
        mantel_haenszel([1, np.nan], [0, 1], [0, 0])
    with pytest.raises(UserError, match="NaN or infinite"):
        against_null(float("nan"), [0.0, 1.0])
    for right, n in ((0, 0), (-1, 3), (4, 3)):
        with pytest.raises(UserError):
            wilson(right, n)
    with pytest.raises(UserError):
        bootstrap([1.0, 2.0], draws=0)


@given(st.integers(0, 1), st.integers(1, 99))
@QUICK
def test_no_p_value_is_zero(constant: int, draws: int) -> None:
    assert against_null(9.0, np.full(draws, float(constant))).p >= 1 / (draws + 1)
    example = [str(index) for index in range(8)]
    assert 0 < p_of_mean(np.ones(8), example) == 2.0**-7
    assert p_of_mean(np.zeros(8), example) == 1
    controls = np.full((8, max(3, draws)), float(constant))
    assert 0 < p_beyond(np.ones(8), controls, example) <= 1


def test_matrices_without_anything_of_their_own() -> None:
    points = np.arange(6.0)
    distance = np.abs(points[:, None] - points)
    noise = np.random.default_rng(0).normal(size=(6, 6))
    other = noise + noise.T
    with pytest.raises(UserError, match="without variation"):
        mantel(other, np.full((6, 6), 0.1), permutations=9)
    with pytest.raises(UserError, match="determines"):
        mantel(other, distance, 2 * distance, method="pearson", permutations=9)
    found = mantel(distance, other, distance, method="pearson", permutations=9)
    assert found.statistic == 0 and 0 < found.p <= 1


def test_ratios_near_zero_are_not_shown_and_never_of_no_width() -> None:
    everyone = share(np.ones(28), np.ones(28))
    assert everyone is None or everyone.low < everyone.high
    rng = np.random.default_rng(0)
    gain = (rng.random(28) < 0.2) * 1.0 - (rng.random(28) < 0.2)
    assert share(gain, gain) is None
    with pytest.raises(UserError, match="same rows"):
        share(np.ones(3), np.ones(4))

    def ratio(rows: np.ndarray) -> float:
        top, bottom = rows.mean(0)
        return float(top / bottom) if bottom else float("nan")

    # a tenth of the samples have no denominator, so that the ratio has no finite interval
    rare = bootstrap(np.stack([np.arange(12.0), np.eye(12)[0]], -1), statistic=ratio, draws=300)
    assert math.isinf(rare.low) and math.isinf(rare.high)
    with pytest.raises(UserError, match="not a number"):
        bootstrap(np.zeros((9, 2)), statistic=ratio)


def test_power_of_equal_pairs_is_unknown() -> None:
    with pytest.raises(UserError, match="deviation above 0"):
        detectable(0.0, 8)


def test_few_units_decide_nothing() -> None:
    for n in (1, 2, 7):
        assert "too few" in verdict(Interval(0.5, 0.4, 0.6, n), None, 0.1).phrase
    assert verdict(Interval(0.5, 0.4, 0.6, 4), None, 0.1, least=4).phrase == "same direction"
    assert "could not be measured" in verdict(Interval(0.5, float("nan"), 0.6, 9), None, 0.1).phrase
    with pytest.raises(UserError):
        verdict(Interval(0.5, 0.4, 0.6, 9), None, float("nan"))
