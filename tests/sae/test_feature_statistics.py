"""Planted features are found and unplanted ones are not; hand-worked numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.feature_correctness_frames import CAUSES, judge_cause, judge_mark, with_drop
from experiments.feature_correctness_tests import (
    Firing,
    centred,
    effect,
    null_effects,
    of_same_rate,
    rates_of,
    scores,
    screen,
)
from interp.errors import UserError

FEATURES = 40
PLANTED = 7


def synthetic(seed: int, *, planted: float = 0.0, through: str = "", problems: int = 24, samples: int = 8) -> Firing:
    """Completions with random features; feature 7 fires more in right ones, or in long ones, which are right."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"p{index}" for index in range(problems)], samples)
    hard = np.repeat(rng.normal(0, 1, problems), samples)
    length = rng.integers(10, 40, len(names)).astype(float)
    chance = 1 / (1 + np.exp(-(hard + (0.2 * (length - 25) if through else 0.0))))
    right = (rng.random(len(names)) < chance).astype(float)
    base = np.repeat(rng.beta(2, 8, (problems, FEATURES)), samples, axis=0)  # each problem has its own features
    rate = np.clip(base + rng.normal(0, 0.05, base.shape), 0, 1)
    rate[:, PLANTED] += planted * (0.02 * (length - 25) if through else right)
    beside = np.column_stack([length, np.ones(len(names)), np.ones(len(names))])
    return Firing(rate, right, names, beside, np.tile(np.arange(samples), problems)).mixed()


def test_a_planted_feature_is_found_on_one_half_and_reported_on_the_other() -> None:
    score, p = screen(synthetic(0, planted=0.1), permutations=200, seed=0)
    assert int(np.abs(score).argmax()) == PLANTED
    assert p[PLANTED] == pytest.approx(1 / 201)
    assert p[np.arange(FEATURES) != PLANTED].min() > 0.05
    found = effect(synthetic(1, planted=0.1), PLANTED)
    assert found.difference.low > 0.05
    assert found.odds is not None and found.odds.interval.estimate > 2 and found.odds.p < 0.01
    wrong = effect(synthetic(1, planted=-0.1), PLANTED)
    assert wrong.difference.high < -0.05
    assert wrong.odds is not None and wrong.odds.interval.estimate < 0.5 and wrong.odds.p < 0.01


def test_unplanted_features_pass_the_largest_of_all_in_about_5_percent() -> None:
    smallest = [screen(synthetic(seed), permutations=99, seed=seed)[1].min() for seed in range(60)]
    assert float(np.mean(np.array(smallest) <= 0.05)) <= 0.15


def test_a_feature_that_follows_length_is_not_taken_for_correctness() -> None:
    confounded = synthetic(3, planted=1.0, through="length")
    own, p = screen(confounded, permutations=200, seed=0)
    assert p[PLANTED] > 0.05
    bare = Firing(confounded.rate, confounded.right, confounded.problem, 0 * confounded.covariates, confounded.sample)
    assert screen(bare, permutations=200, seed=0)[1][PLANTED] < 0.05
    assert abs(own[PLANTED]) < 3


def test_random_features_come_out_in_the_same_direction_in_at_most_5_percent() -> None:
    phrases = [judge_mark(frame_of(2 * seed, planted=0.0)).phrase for seed in range(40)]
    assert sum(phrase in ("same direction", "opposite") for phrase in phrases) <= 3
    assert judge_mark(frame_of(0, planted=0.1)).phrase == "same direction"
    assert judge_mark(frame_of(0, planted=-0.1)).phrase == "opposite"


def frame_of(seed: int, *, planted: float) -> Any:
    """What the experiment does with two sets of completions."""
    discovery, held_out = synthetic(seed, planted=planted), synthetic(seed + 1, planted=planted)
    score, _ = screen(discovery, permutations=20, seed=0)
    feature = int(np.abs(score).argmax())
    found = effect(held_out, feature).difference
    told = {"effect": found.estimate, "effect_low": found.low, "effect_high": found.high, "n": found.n, "rank": 1}
    rows: list[dict[str, Any]] = [{"part": "features", "half": "held-out", "vector": "trained", **told}]
    drawn = null_effects(discovery, held_out, draws=60, seed=seed)
    rows += [{"part": "null", "vector": "permuted-labels", "effect": value} for _, value in drawn]
    return pd.DataFrame(rows)


def test_a_score_and_an_effect_by_hand() -> None:
    right = np.array([1.0, 0, 1, 0])
    problem = np.array(["a", "a", "b", "b"])
    rate = np.array([[1.0, 0.5], [0, 0.5], [1, 0.5], [0, 0.5]])
    assert centred(right, problem).tolist() == [0.5, -0.5, 0.5, -0.5]
    found = scores(centred(rate, problem), right, problem)
    assert found[0] == pytest.approx(1 / np.sqrt(0.5))  # two problems, each: sum 0.5, variance 0.5 * 0.5 / 1
    assert found[1] == 0.0
    firing = Firing(rate, right, problem, np.ones((4, 3)), np.array([0, 1, 0, 1]))
    assert effect(firing, 0).difference.estimate == pytest.approx(1.0)
    assert effect(firing, 1).difference.estimate == pytest.approx(0.0)
    assert rates_of([np.array([[True, False], [True, True]])]).tolist() == [[1.0, 0.5]]


def test_problems_without_both_outcomes_are_left_out() -> None:
    problem = np.array(["a", "a", "b", "b"])
    firing = Firing(np.zeros((4, 1)), np.array([1.0, 1, 1, 0]), problem, np.zeros((4, 3)), np.zeros(4))
    assert firing.mixed().problem.tolist() == ["b", "b"]
    nothing = Firing(np.zeros((2, 1)), np.ones(2), problem[:2], np.zeros((2, 3)), np.zeros(2)).mixed()
    with pytest.raises(UserError, match="no problem has right and wrong completions"):
        screen(nothing, permutations=5, seed=0)


def test_random_features_fire_as_often() -> None:
    rate = np.linspace(0, 1, 101)
    drawn = of_same_rate(rate, 50, draws=8, seed=0)
    assert len(set(drawn)) == 8 and 50 not in drawn
    assert max(abs(rate[index] - 0.5) for index in drawn) <= 0.17
    assert drawn != of_same_rate(rate, 50, draws=8, seed=1)


@pytest.mark.parametrize(
    ("score", "drop", "phrase"), [(3.0, 0.3, "same direction"), (-3.0, -0.3, "same direction"), (3.0, -0.3, "opposite")]
)
def test_taking_a_feature_out_is_judged_by_what_it_marks(score: float, drop: float, phrase: str) -> None:
    rows: list[dict[str, Any]] = [{"part": "features", "half": "discovery", "rank": 1, "score": score}]
    rows.append({"part": "accuracy", "vector": "trained", "accuracy": 0.7, "n": 48})
    ends = {"drop": drop, "drop_low": drop - 0.1, "drop_high": drop + 0.1, "accuracy": 0.7 - drop, "n": 48}
    rows.append({"part": "accuracy", "vector": "ablated", **ends})
    values = (0.02, -0.02, 0.0, 0.01, -0.01, 0.0, 0.02, -0.02)
    rows += [{"part": "accuracy", "vector": "random-feature", "drop": value, "n": 48} for value in values]
    found = judge_cause(pd.DataFrame(rows))
    assert (found.claim, found.phrase) == (CAUSES, phrase)


def test_no_changed_grade_is_no_proof_of_no_effect() -> None:
    names = [str(index) for index in range(48)]
    rows = pd.DataFrame(
        [{"vector": v, "draw": 0, "example": name, "right": 1.0} for v in ("trained", "ablated") for name in names]
    )
    summary = pd.DataFrame([{"vector": "ablated", "draw": 0}])
    found = with_drop(summary, rows).iloc[0]
    assert found["drop"] == 0.0
    assert found["drop_high"] == pytest.approx(1 - 0.025 ** (1 / 48)) and found["drop_high"] > 0.05
