"""Intervals cover, tests agree with second implementations, and a random vector is not called an effect."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from interp.errors import UserError
from interp.summaries import (
    Interval,
    against_null,
    auc,
    band,
    benjamini_hochberg,
    bootstrap,
    control_range,
    detectable,
    detectable_from,
    difference,
    mantel,
    mantel_haenszel,
    room,
    share,
    verdict,
    wilson,
)

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test sees the same numbers, whichever ran before."""
    RNG.bit_generator.state = START


def test_the_bootstrap_of_a_mean_is_close_to_the_t_interval() -> None:
    values = RNG.normal(3, 2, 40)
    found = bootstrap(values, draws=20_000)
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert found.estimate == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06)
    assert found.n == 40


def test_the_bootstrap_covers_with_few_units() -> None:
    hits = sum((found := bootstrap(RNG.normal(0, 1, 8), draws=400)).low <= 0 <= found.high for _ in range(400))
    assert 0.9 <= hits / 400 <= 0.985


def test_repeating_every_row_changes_nothing_when_clustered() -> None:
    values, problem = RNG.normal(size=30), np.arange(30)
    once = bootstrap(values, problem)
    many = bootstrap(np.repeat(values, 8), np.repeat(problem, 8))
    assert (many.estimate, many.low, many.high, many.n) == pytest.approx((once.estimate, once.low, once.high, 30))
    assert bootstrap(np.repeat(values, 8)).high - many.low < many.high - many.low


def test_the_fast_mean_equals_the_general_statistic() -> None:
    values, problem = RNG.normal(size=40), np.repeat(np.arange(10), 4)
    fast = bootstrap(values, problem, draws=300)
    general = bootstrap(values, problem, statistic=lambda rows: float(rows.mean()), draws=300)
    assert (fast.low, fast.high) == pytest.approx((general.low, general.high))


def test_seeds_repeat_and_differ() -> None:
    values = RNG.normal(size=20)
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1) != bootstrap(values, seed=2)


def test_pairing_removes_what_both_share() -> None:
    base = RNG.normal(0, 10, 50)
    paired = difference(base + 1 + RNG.normal(0, 0.1, 50), base)
    assert paired.low < 1.05 and paired.high > 0.95 and paired.high - paired.low < 0.1
    with pytest.raises(UserError, match="same shape"):
        difference(base, base[:3])


def test_one_unit_bounds_nothing_and_no_rows_are_refused() -> None:
    assert bootstrap([1.0]) == Interval(1.0, float("-inf"), float("inf"), 1)
    with pytest.raises(UserError, match="at least one row"):
        bootstrap([])
    with pytest.raises(UserError, match="each row needs one cluster"):
        bootstrap([1.0, 2.0], [1])


def test_wilson_has_its_closed_form() -> None:
    right, n, z = 7, 20, stats.norm.ppf(0.975)
    centre, half = (right + z**2 / 2) / (n + z**2), z * np.sqrt(right * (n - right) / n + z**2 / 4) / (n + z**2)
    found = wilson(right, n)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))
    assert wilson(0, 20).high > 0.1
    with pytest.raises(UserError):
        wilson(3, 2)


def test_a_band_covers_whole_curves_where_single_intervals_do_not() -> None:
    whole = single = 0
    for seed in range(200):
        curves = RNG.normal(size=(40, 10))
        found = band(curves, draws=300, seed=seed)
        whole += bool(((found.low <= 0) & (found.high >= 0)).all())
        half = stats.t.ppf(0.975, 39) * stats.sem(curves)
        single += bool((np.abs(curves.mean(0)) <= half).all())
    assert whole / 200 >= 0.9 > single / 200
    flat = band(np.ones((5, 3)))
    assert (flat.low <= 1 - room(5)).all()
    assert (flat.high == 1).all()


def test_benjamini_hochberg_by_hand() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert len(benjamini_hochberg([])) == 0
    with pytest.raises(UserError):
        benjamini_hochberg([1.2])


def test_auc_counts_pairs() -> None:
    scores, positive = RNG.integers(0, 6, (3, 30)), RNG.random(30) < 0.4
    pairs = scores[:, positive][:, :, None] - scores[:, ~positive][:, None, :]
    by_hand = ((pairs > 0) + 0.5 * (pairs == 0)).mean((1, 2))
    assert auc(scores, positive) == pytest.approx(by_hand)
    u = stats.mannwhitneyu(scores[0][positive], scores[0][~positive]).statistic
    assert auc(scores[0], positive) == pytest.approx(u / positive.sum() / (~positive).sum())
    with pytest.raises(UserError):
        auc(scores, np.zeros(30, bool))


def test_a_null_distribution_gives_uniform_p_values() -> None:
    p = [against_null(float(RNG.normal()), RNG.normal(size=199), centre=0.0).p for _ in range(500)]
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert against_null(9.0, np.zeros(99)).p == pytest.approx(0.01)


def _distances(points: np.ndarray) -> np.ndarray:
    return np.abs(points[:, None] - points[None, :])


def test_mantel_finds_a_shared_structure_and_explains_it_away() -> None:
    points = RNG.normal(size=16)
    shared = _distances(points)
    noise = _distances(RNG.normal(size=16))
    x, y = shared + 0.5 * noise, shared + 0.5 * _distances(RNG.normal(size=16))
    alone = mantel(x, y, permutations=499)
    given = mantel(x, y, shared, permutations=499)
    upper = np.triu_indices(16, 1)
    assert alone.statistic == pytest.approx(stats.spearmanr(x[upper], y[upper])[0])
    assert alone.p <= 0.01
    assert abs(given.statistic) < abs(alone.statistic)
    linear = mantel(x, y, shared, method="pearson", permutations=9)
    residual = [stats.linregress(shared[upper], m[upper]) for m in (x, y)]
    left, right = (m[upper] - r[0] * shared[upper] for m, r in zip((x, y), residual, strict=True))
    assert linear.statistic == pytest.approx(stats.pearsonr(left, right)[0])


def test_mantel_rejects_at_its_level() -> None:
    p = [
        mantel(_distances(RNG.normal(size=8)), _distances(RNG.normal(size=8)), permutations=39, seed=i).p
        for i in range(150)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.11


@pytest.mark.parametrize("matrix", [np.ones((3, 4)), np.arange(16.0).reshape(4, 4), np.eye(3)])
def test_mantel_refuses_other_matrices(matrix: np.ndarray) -> None:
    with pytest.raises(UserError):
        mantel(matrix, matrix, permutations=9)


def test_mantel_haenszel_sees_through_confounding() -> None:
    problem = np.repeat(np.arange(40), 50)
    ease = np.repeat(RNG.random(40), 50)
    feature, right = RNG.random(2000) < ease, RNG.random(2000) < ease
    (a, b), (c, d) = np.histogram2d(feature, right, 2)[0]
    crude = a * d / (b * c)
    found = mantel_haenszel(feature, right, problem)
    assert found is not None
    assert crude > 2 > found.interval.high
    assert found.interval.low <= 1.1 <= found.interval.high * 1.3
    assert mantel_haenszel([True, True], [True, False], [0, 0]) is None


def test_mantel_haenszel_by_hand() -> None:
    rows = [(1, 1)] * 6 + [(1, 0)] * 2 + [(0, 1)] * 3 + [(0, 0)] * 5
    feature, right = (np.array(column, bool) for column in zip(*rows, strict=True))
    found = mantel_haenszel(feature, right, np.zeros(16))
    assert found is not None
    assert found.interval.estimate == pytest.approx(6 * 5 / (2 * 3))
    assert found.interval.n == 1


def test_detectable_effects_have_their_power() -> None:
    size = detectable(2.0, 30)
    assert TTestPower().power(size / 2, 30, 0.05) == pytest.approx(0.8, abs=1e-3)
    half = 1.96 * 2 / np.sqrt(200)
    assert detectable_from(Interval(0.0, -half, half, 200)) == pytest.approx(detectable(2.0, 200), rel=0.02)
    assert all(a > b for a, b in pairwise(detectable(1.0, n) for n in (5, 10, 50)))


def test_a_ratio_needs_a_denominator() -> None:
    gain = RNG.random(200) < 0.4
    half = gain * (RNG.random(200) < 0.5)
    shown = share(half, gain)
    assert shown is not None
    assert shown.estimate == pytest.approx(half.sum() / gain.sum())
    assert 0.3 < shown.low < shown.high < 0.7
    assert share(half, np.zeros(200)) is None
    assert share(half[:12], gain[:12] * 0.1) is None


EFFECT = Interval(10.0, 7.0, 13.0, 64)


@pytest.mark.parametrize(
    ("effect", "control", "margin", "phrase"),
    [
        (EFFECT, None, 2.0, "same direction"),
        (EFFECT, Interval(0, -5, 5, 8), 2.0, "same direction"),
        (EFFECT, Interval(0, -8, 8, 8), 2.0, "inconclusive (detectable >= 12.3)"),
        (EFFECT, None, 11.0, "inconclusive (detectable >= 12.3)"),
        (EFFECT, None, 20.0, "no effect within the margin"),
        (EFFECT, Interval(10, 9, 11, 8), 4.0, "no effect within the margin"),
        (EFFECT.scaled(-1), Interval(0, -5, 5, 8), 2.0, "opposite"),
        (EFFECT.scaled(-1), Interval(0, -8, 5, 8), 2.0, "inconclusive (detectable >= 9.29)"),
        (Interval(1, -2, 4, 64), None, 3.0, "inconclusive (detectable >= 4.29)"),
        (Interval(0.5, -1, 2, 64), None, 3.0, "no effect within the margin"),
        (None, None, 3.0, "not testable here, because the effect could not be measured"),
    ],
)
def test_the_five_phrases(effect: Interval | None, control: Interval | None, margin: float, phrase: str) -> None:
    assert verdict(effect, control, margin).phrase == phrase
    if effect is not None:
        mirrored = None if control is None else control.scaled(-1)
        assert verdict(effect.scaled(-1), mirrored, margin, expected=-1).phrase == phrase


def test_a_relative_effect_is_judged_against_the_controls_mean_and_its_uncertainty() -> None:
    effect, few, many = Interval(0.53, 0.52, 0.54, 64), Interval(0.5, 0.2, 0.8, 8), Interval(0.5, 0.2, 0.8, 8000)
    said = verdict(effect, many, 0.1, relative=True)
    assert said.phrase == "no effect within the margin"
    assert said.estimate is not None
    assert said.control is not None
    assert said.estimate.estimate == pytest.approx(0.03)
    assert (said.control.low, said.control.high) == pytest.approx((-0.3, 0.3))
    assert verdict(effect, few, 0.1, relative=True).phrase.startswith("inconclusive")
    assert verdict(effect.moved(0.5), many, 0.1, relative=True).phrase == "same direction"
    assert verdict(effect.moved(-0.5), many, 0.1, relative=True).phrase == "opposite"


def test_a_reason_overrides_the_numbers() -> None:
    said = verdict(EFFECT, None, 1.0, testable="1.5 % of tokens have another script", claim="Non-Latin tokens fall")
    assert said.phrase == "not testable here, because 1.5 % of tokens have another script"
    assert str(said) == f"Non-Latin tokens fall: {said.phrase}"
    with pytest.raises(UserError):
        verdict(EFFECT, None, -1.0)


Law = Callable[[tuple[int, ...]], np.ndarray]

LAWS: dict[str, Law] = {
    "normal": lambda size: RNG.normal(size=size),
    "normal around 2": lambda size: RNG.normal(2, 1, size),
    "t with 2 degrees": lambda size: RNG.standard_t(2, size),
    "log-normal": lambda size: RNG.lognormal(0, 1, size),
    "none": np.zeros,
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("noise", "spread"), [("normal", 0.05), ("normal", 1.0), ("t with 2 degrees", 1.0)])
def test_at_most_five_percent_of_random_vectors_go_in_the_same_direction(law: str, noise: str, spread: float) -> None:
    cases, problems = 500, 24
    effects = LAWS[law]((cases, 9))
    seen = effects[:, :, None] + spread * LAWS[noise]((cases, 9, problems))
    half = stats.t.ppf(0.975, problems - 1) * stats.sem(seen[:, 0], axis=1)
    phrases = [
        verdict(Interval(mean[0], mean[0] - width, mean[0] + width, problems), control_range(mean[1:])).phrase
        for mean, width in zip(seen.mean(2), half, strict=True)
    ]
    assert phrases.count("same direction") / cases <= 0.05
    assert phrases.count("opposite") / cases <= 0.05


def test_the_bootstrap_and_the_verdict_together_on_random_vectors() -> None:
    same = 0
    for case in range(400):
        vectors = RNG.normal(0.3, 0.1, 9)
        gains = [RNG.random(24) < effect for effect in vectors]
        base = RNG.random(24) < 0.25
        effect = difference(gains[0], base, draws=200, seed=case)
        controls = control_range([gain.mean() - base.mean() for gain in gains[1:]])
        same += verdict(effect, controls).phrase == "same direction"
    assert same / 400 <= 0.05


def test_a_real_effect_is_found() -> None:
    same = sum(
        verdict(Interval(6.0, 5.5, 6.5, 64), control_range(RNG.normal(size=8)), 1.0).phrase == "same direction"
        for _ in range(200)
    )
    assert same / 200 > 0.8


def test_the_control_range_of_many_draws_is_an_order_statistic() -> None:
    draws = np.arange(1.0, 1000.0)
    assert control_range(draws) == Interval(500.0, 25.0, 975.0, 999)
    with pytest.raises(UserError, match="three"):
        control_range([1.0, 2.0])


def test_no_torch() -> None:
    code = (
        "import sys, interp.summaries, interp.tasks; assert not {'torch', 'pandas', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
