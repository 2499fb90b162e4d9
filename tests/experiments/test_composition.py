"""Composition on vectors that act only together, on vectors that saturate, and by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import Composition
from experiments.composition_pairs import (
    best_single,
    interaction,
    judge_best,
    judge_sum,
    log_odds_interaction,
    pair_rows,
    random_interaction,
    whole_rows,
)
from experiments.graded import Condition, answers
from interp.context import Context
from interp.model import Model
from interp.run import Run
from interp.store import Store
from tests.experiments import toys
from vectors import SteeringVectors

PROBLEMS = [f"p{index}" for index in range(8)]


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


def both(model: Model, scale: float) -> SteeringVectors:
    """The same push at the two last blocks."""
    return toys.planted(model, scale=scale, layers=(1, 2))


@pytest.fixture(scope="module")
def run(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    experiment = Composition.at("quick", n=24, draws=4)
    out = tmp_path_factory.mktemp("pairs")
    yield experiment.run(model, both(model, 20.0), toys.task(), out=out, progress=False)


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def test_the_interaction_is_that_of_four_runs(model: Model, run: Run, runs: Path) -> None:
    ctx = Context(model=model, task=toys.task(), n=24, store=Store(runs))
    vectors = both(model, 20.0)
    edits = [(), vectors.only(1).edits(), vectors.only(2).edits(), vectors.together().edits()]
    right = [answers(ctx, [Condition(edits=one)], temperature=1.0)["right"].to_numpy() for one in edits]
    row = part(run.frame, part="pairs").iloc[0]
    assert (row["i"], row["j"]) == (1, 2)
    by_hand = right[3] - right[1] - right[2] + right[0]
    assert float(row["interaction"]) == pytest.approx(float(by_hand.mean()))
    assert float(row["interaction_low"]) <= float(by_hand.mean()) <= float(row["interaction_high"])
    assert float(row["accuracy"]) == pytest.approx(float(right[3].mean()))
    assert float(row["log_odds"]) == pytest.approx(log_odds_interaction(np.stack([right[k] for k in (3, 1, 2, 0)], -1)))


def test_two_strong_pushes_at_the_same_thing_gain_less_than_their_sum(model: Model, runs: Path) -> None:
    experiment = Composition.at("quick", n=32, draws=4, beside=())
    run = experiment.run(model, both(model, 60.0), toys.task(), out=runs, progress=False)
    assert float(part(run.frame, part="pairs")["interaction_high"].iloc[0]) < -0.3
    phrases = {one["claim"]: one["phrase"] for one in run.verdicts}
    assert phrases["two-vectors-add-up"] == "opposite"
    assert phrases["two-beat-the-better-one"] != "same direction"


def test_every_control_stands_beside(run: Run) -> None:
    summary = part(run.frame, part="summary")
    assert sorted(part(summary, vector="trained")["factor"].dropna()) == [1.0, 1.0, 2.0, 2.0]
    assert len(part(summary, vector="random-partner")) == 1 and len(part(summary, vector="random-isotropic")) == 2
    assert {"base", "matched-entropy", "3-shot"} <= set(summary["vector"])
    assert len(part(run.frame, part="draws")) == 4
    assert set(run.frame["trained"]) == {"apart"}


def toy_right(draws: int = 2, seed: int = 0) -> dict[Any, np.ndarray]:
    rng = np.random.default_rng(seed)

    def flip(*shape: int) -> np.ndarray:
        return rng.integers(0, 2, size=shape).astype(float)

    right: dict[Any, np.ndarray] = {0: flip(8), "all": flip(8)}
    for layer in (3, 5, 9):
        right |= {(layer, 1.0): flip(8), (layer, 2.0): flip(8), ("random", layer): flip(8, draws)}
    for i, j in ((3, 5), (3, 9), (5, 9)):
        right |= {("pair", i, j): flip(8), ("partner", i, j): flip(8, draws)}
    return right


def test_pairs_by_hand() -> None:
    right = toy_right()
    found: Any = pair_rows(right, (3, 5, 9), (1.0, 2.0), PROBLEMS, PROBLEMS, 0)
    assert [(row["i"], row["j"]) for row in found.to_dict("records")] == [(3, 5), (3, 9), (5, 9)]
    a = right["pair", 3, 9].mean() - right[3, 1.0].mean() - right[9, 1.0].mean() + right[0].mean()
    assert float(found["interaction"][1]) == pytest.approx(float(a))
    gap = right["pair", 5, 9].mean() - right["partner", 5, 9].mean()
    assert float(found["beyond_random"][2]) == pytest.approx(float(gap))
    assert (found["q"] >= found["p"] - 1e-12).all()


def test_the_better_one_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    right, half = toy_right(), np.array([True] * 4 + [False] * 4)
    right[3, 2.0] = np.array([1.0, 1, 1, 1, 0, 0, 0, 0])
    for key in ((3, 1.0), (5, 1.0), (5, 2.0)):
        right[key] = np.array([0.0, 0, 0, 0, 1, 1, 1, 1])
    assert best_single(right, 3, 5, (1.0, 2.0), half) == (3, 2.0)
    assert best_single(right, 3, 5, (1.0, 2.0), ~half)[1] == 1.0
    found: Any = pair_rows(right, (3, 5), (1.0, 2.0), PROBLEMS, PROBLEMS, 0)
    assert (int(found["best"][0]), float(found["best_factor"][0])) in {(3, 2.0), (3, 1.0), (5, 1.0)}


def test_mixed_draws_are_told_apart_by_problem() -> None:
    right, pairs = toy_right(draws=1), ((3, 5), (3, 9), (5, 9))
    rows = pair_rows(right, (3, 5, 9), (1.0,), PROBLEMS, PROBLEMS, 0)
    draw_of = np.arange(8) % 4
    found: Any = whole_rows(right, (3, 5, 9), rows, PROBLEMS, PROBLEMS, draw_of, 0)
    draws = found[found["part"] == "draws"]
    mean = np.mean([random_interaction(right, *pair)[:, 0] for pair in pairs], 0)
    assert list(draws["interaction"]) == pytest.approx([float(mean[draw_of == d].mean()) for d in range(4)])
    whole = found[found["part"] == "whole"].iloc[0]
    by_hand = np.mean([interaction(right, *pair) for pair in pairs])
    assert float(whole["interaction"]) == pytest.approx(float(by_hand))
    several: Any = whole_rows(toy_right(draws=5), (3, 5, 9), rows, PROBLEMS, PROBLEMS, None, 0)
    assert len(several[several["part"] == "draws"]) == 5


def test_log_odds_by_hand() -> None:
    rows = np.array([[1.0, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]])

    def logit(count: float) -> float:
        return float(np.log((count + 0.5) / (3.5 - count)))

    assert log_odds_interaction(rows) == pytest.approx(logit(3) - 2 * logit(1) + logit(0))


def whole_frame(**changed: Any) -> pd.DataFrame:
    row = {"part": "whole", "temperature": 1.0, "n": 48, "trained": "apart", "alone": 0.3, "alone_low": 0.2}
    row |= {"alone_high": 0.4, "interaction": 0.01, "interaction_low": -0.03, "interaction_high": 0.04}
    row |= {"beyond_best": 0.3, "beyond_best_low": 0.25, "beyond_best_high": 0.35, **changed}
    draws = [{"part": "draws", "temperature": 1.0, "interaction": 0.01 * d, "beyond_best": 0.01 * d} for d in range(8)]
    return pd.DataFrame([row, *draws])


def test_verdicts_by_hand() -> None:
    assert judge_sum(whole_frame()).phrase == "no effect within the margin"
    assert judge_best(whole_frame()).phrase == "same direction"
    assert judge_sum(whole_frame(alone_low=-0.1)).phrase.startswith("not testable here, because alone, the vectors are")
    assert judge_sum(whole_frame(trained="together")).phrase.endswith("these vectors were trained together")
    assert judge_sum(whole_frame(n=4)).phrase.startswith("not testable here, because 4 problems")
    assert judge_best(whole_frame(n=0)).phrase == "not testable here, because the set has one block"


def test_random_vectors_come_out_in_the_same_direction_in_at_most_5_percent() -> None:
    """Answers under random vectors: each differs from the base on a few problems, in either direction."""
    problems = [f"p{index}" for index in range(48)]
    rng = np.random.default_rng(1)
    base = (rng.random(48) < 0.3).astype(float)

    def moved(*shape: int) -> np.ndarray:
        flips = rng.random((48, *shape)) < 0.15
        return np.where(flips, 1 - base.reshape(48, *(1,) * len(shape)), base.reshape(48, *(1,) * len(shape)))

    same: list[bool] = []
    for _ in range(40):
        right: dict[Any, np.ndarray] = {0: base}
        for layer in (0, 1, 2):
            right |= {(layer, 1.0): moved(), (layer, 2.0): moved(), ("random", layer): moved(8)}
        for i, j in ((0, 1), (0, 2), (1, 2)):
            right |= {("pair", i, j): moved(), ("partner", i, j): moved(8)}
        pairs = pair_rows(right, (0, 1, 2), (1.0, 2.0), problems, problems, 0)
        frame = whole_rows(right, (0, 1, 2), pairs, problems, problems, None, 0)
        frame = frame.assign(temperature=1.0, trained="apart", alone_low=1.0)  # the gate is not what is tested
        same += [judge(frame).phrase == "same direction" for judge in (judge_sum, judge_best)]
    assert np.mean(same) <= 0.05


def test_one_block_has_no_pairs(model: Model, runs: Path) -> None:
    run = Composition.at("smoke").run(model, toys.planted(model, scale=20.0), toys.task(), out=runs, progress=False)
    assert {one["phrase"] for one in run.verdicts} == {"not testable here, because the set has one block"}


@pytest.mark.slow
def test_on_the_embedded_model_a_pair_is_measured(runs: Path) -> None:
    from interp import load_model, load_task
    from vectors import load_vectors

    embedded, task = load_model("smollm2-135m-instruct"), load_task("word-problems")
    vectors = load_vectors("smollm2-135m-instruct/single-layer")
    run = Composition.at("smoke").run(embedded, vectors, task, out=runs, progress=False)
    assert {"summary", "answers", "pairs", "whole", "draws"} == set(run.frame["part"])
    assert all(one["phrase"].startswith("not testable here, because") for one in run.verdicts)
