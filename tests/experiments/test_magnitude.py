"""Magnitude on a vector that was trained too weakly, on one that is strong enough, and on random ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import Magnitude
from experiments.graded import Condition, answers
from experiments.magnitude import CONTROL, judge
from experiments.texts import special_ids, texts
from interp.context import Context
from interp.model import Model
from interp.run import Run
from interp.store import Store
from tests.experiments import toys

LAST = toys.LAYERS - 1
FACTORS = (-1.0, 0.5, 4.0)


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


def measured(model: Model, scale: float, out: Path, **settings: Any) -> Run:
    experiment = Magnitude.at("quick", n=32, factors=FACTORS, draws=4, texts_n=6, **settings)
    return experiment.run(model, toys.planted(model, scale=scale), toys.task(), out=out, progress=False)


@pytest.fixture(scope="module")
def weak(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    yield measured(model, 5.0, tmp_path_factory.mktemp("weak"))


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def test_a_larger_factor_is_found_where_the_vector_was_trained_too_weakly(weak: Run) -> None:
    chosen = part(weak.frame, part="chosen", vector="trained").iloc[0]
    assert float(chosen["factor"]) == 4.0
    assert float(chosen["loss_low"]) > 0.3
    assert weak.verdicts[0]["phrase"] == "opposite"
    at_one = part(weak.frame, part="chosen", vector="trained-scale").iloc[0]
    assert float(chosen["accuracy"]) - float(at_one["accuracy"]) == pytest.approx(float(chosen["loss"]))


def test_a_scale_beyond_which_nothing_is_gained_is_near_the_best(model: Model, runs: Path) -> None:
    strong = measured(model, 60.0, runs)
    assert float(part(strong.frame, part="chosen", vector="trained")["factor"].iloc[0]) == 1.0
    # no outcome changes between the factors, and 32 equal pairs leave room for 11 points
    assert strong.verdicts[0]["phrase"].startswith("inconclusive")


def test_a_vector_without_a_gain_is_not_tested(model: Model, runs: Path) -> None:
    run = Magnitude.at("quick", n=16, factors=FACTORS, draws=4, texts_n=4).run(
        model, toys.random(model, scale=8.0), toys.task(), out=runs, progress=False
    )
    assert "a floor on which no gain or loss can show" in run.verdicts[0]["phrase"]


def test_random_vectors_stand_at_every_factor(weak: Run) -> None:
    summary = part(weak.frame, part="summary", vector=CONTROL)
    draws = {factor: sorted(own["draw"]) for factor, own in summary.groupby("factor")}
    assert draws == {-1.0: [-1], 0.5: [-1], 1.0: [0, 1, 2, 3], 4.0: [-1]}
    assert set(summary["n"]) == {32}


def test_each_problem_meets_the_next_draw(model: Model, runs: Path) -> None:
    ctx = Context(model=model, task=toys.task(), n=8, store=Store(runs))
    drawn = [toys.random(model, scale=25.0, seed=seed).edits() for seed in range(3)]
    mixed = answers(ctx, [Condition("mixed", -1, rotation=tuple(drawn))], temperature=1.0)
    apart = answers(ctx, [Condition("one", draw, edits) for draw, edits in enumerate(drawn)], temperature=1.0)
    columns = ["example", "right", "length", "entropy"]
    expected = pd.concat([apart.iloc[8 * (problem % 3) + problem][columns].to_frame().T for problem in range(8)])
    assert mixed[columns].to_numpy().tolist() == expected.to_numpy().tolist()


def test_kl_is_what_score_gives(model: Model, weak: Run, runs: Path) -> None:
    vectors = toys.planted(model, scale=5.0)
    ctx = Context(model=model, task=toys.task(), n=6, store=Store(runs))
    said = texts(ctx)
    scored: Any = model.score(said.batch, (4.0 * vectors).edits(), ["kl"])
    scored = scored[~(scored["token_id"].isin(sorted(special_ids(model))) & (scored["position"] > 0))]
    row = part(weak.frame, part="kl", vector="trained", factor=4.0).iloc[0]
    assert float(row["kl"]) == pytest.approx(float(scored["kl"].mean()), rel=1e-4)
    values = part(weak.frame, part="kl", vector="trained").set_index("factor")["kl"]
    assert 0 < float(values[0.5]) < float(values[1.0]) < float(values[4.0])


def test_a_set_trained_together_is_scaled_as_a_whole_and_others_by_their_best_block(model: Model, runs: Path) -> None:
    ctx = Context(model=model, task=toys.task(), n=8, store=Store(runs))
    apart = toys.random(model, scale=1.0, layers=(0, 1)) + toys.planted(model, scale=20.0)
    ctx.vectors = apart
    assert Magnitude(n=8).subject(ctx).layers == (LAST,)
    together = type(apart)(apart.directions, apart.layers, apart.card.model_copy(update={"trained": "together"}))
    ctx.vectors = together
    assert Magnitude(n=8).subject(ctx).layers == (0, 1, LAST)
    assert Magnitude(n=8, layer=1).subject(ctx).layers == (1,)


def test_random_vectors_never_speak_for_the_claim(model: Model, runs: Path) -> None:
    phrases: list[str] = []
    for seed in range(4):
        vectors = toys.random(model, scale=15.0, seed=100 + seed)
        experiment = Magnitude.at("quick", n=16, factors=(2.0,), draws=4, texts_n=2, kl_draws=0)
        run = experiment.run(model, vectors, toys.task(), out=runs, progress=False)
        phrases.append(run.verdicts[0]["phrase"])
    assert np.mean([phrase == "same direction" for phrase in phrases]) <= 0.05


def test_the_verdict_by_hand() -> None:
    row = {"part": "chosen", "draw": 0, "temperature": 1.0, "factor": 2.0, "n": 48, "gain": 0.3, "accuracy": 0.5}
    trained = {**row, "vector": "trained", "gain_low": 0.2, "gain_high": 0.4, "loss": 0.01, "loss_low": -0.02}
    frame = pd.DataFrame(
        [{**trained, "loss_high": 0.04}, *({**row, "vector": CONTROL, "draw": d, "gain": 0.01 * d} for d in range(8))]
    )
    assert judge(frame).phrase == "no effect within the margin"
    assert judge(frame.replace({"loss_low": {-0.02: -0.2}})).phrase.startswith("inconclusive")
    assert judge(frame.replace({"gain_low": {0.2: 0.0}})).phrase.startswith("not testable here, because at its best")


@pytest.mark.slow
def test_on_the_embedded_model_all_parts_are_measured(runs: Path) -> None:
    from interp import load_model, load_task
    from vectors import load_vectors

    embedded, task = load_model("smollm2-135m-instruct"), load_task("word-problems")
    vectors = load_vectors("smollm2-135m-instruct/single-layer")
    run = Magnitude.at("smoke").run(embedded, vectors, task, out=runs, progress=False)
    assert set(run.frame["part"]) == {"summary", "answers", "kl", "chosen"}
    assert run.verdicts[0]["phrase"].startswith("not testable here, because")
    kl = part(run.frame, part="kl", vector="trained").set_index("factor")["kl"]
    assert 0 < float(kl[1.0]) < float(kl[4.0])
