"""AccuracyByLayer on planted effects, on random vectors, and against single graded runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import AccuracyByLayer
from experiments.accuracy_by_layer import curve, judge
from experiments.graded import Condition, answers, summarise
from experiments.sweeps import alone, choosing_split, p_beyond, spread
from interp.cell import Cell
from interp.context import Context
from interp.errors import UserError
from interp.model import Model
from interp.run import Run
from interp.store import Store
from interp.summaries import benjamini_hochberg
from tests.experiments import toys
from vectors import SteeringVectors

LAST = toys.LAYERS - 1


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def vectors(model: Model) -> SteeringVectors:
    """The last block's vector does it alone; the others are random."""
    return toys.random(model, scale=3.0, layers=(0, 1)) + toys.planted(model, scale=20.0)


@pytest.fixture(scope="module")
def run(model: Model, vectors: SteeringVectors, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    experiment = AccuracyByLayer.at("quick", n=24, draws=4, train_n=4, control_blocks=2, validation_n=8)
    out = tmp_path_factory.mktemp("layers")
    yield experiment.run(model, vectors, toys.task(), out=out, progress=False)


@pytest.fixture
def ctx(model: Model, vectors: SteeringVectors, runs: Path) -> Context:
    return Context(model=model, task=toys.task(), vectors=vectors, n=16, store=Store(runs))


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def test_the_block_that_acts_is_chosen_elsewhere_and_gains_more_than_random_vectors(run: Run) -> None:
    chosen = part(run.frame, part="chosen", vector="trained")
    assert list(chosen["layer"]) == [LAST]
    assert float(chosen["gain_low"].iloc[0]) > 0.3
    assert run.verdicts[0]["phrase"] == "same direction"
    found = part(run.frame, part="curve").set_index("layer")
    assert list(found.index) == [0, 1, 2]
    assert float(found.loc[LAST, "q"]) < 0.05 < float(found.loc[0, "q"])
    assert (found["band_low"] <= found["accuracy"]).all() and (found["accuracy"] <= found["band_high"]).all()


def test_each_block_is_measured_alone(model: Model, ctx: Context, run: Run) -> None:
    summary = part(run.frame, part="summary", vector="trained").set_index("layer")
    experiment = AccuracyByLayer(n=24)
    ctx.n = 24
    for layer in range(toys.LAYERS):
        own = answers(ctx, [Condition(), alone(ctx.vectors, layer)], temperature=1.0)
        one = part(summarise(own), vector="trained").iloc[0]
        for column in ("accuracy", "gain", "gain_low", "ended", "length", "entropy"):
            assert float(summary.loc[layer, column]) == pytest.approx(float(one[column]))
    assert experiment.measured_layers(ctx) == (0, 1, 2)


def test_controls_and_references_stand_beside(run: Run) -> None:
    summary = part(run.frame, part="summary")
    assert summary.groupby("vector").size().to_dict() == {
        "trained": 3,
        "random-isotropic": 6,  # mixed draws at two blocks, each of four at the chosen one
        "permuted": 1,
        "negated": 1,
        "base": 1,
        "matched-entropy": 1,
        "1-shot": 1,
        "3-shot": 1,
        "5-shot": 1,
    }
    assert set(part(summary, vector="negated")["layer"]) == {LAST}
    assert float(part(summary, vector="negated")["accuracy"].iloc[0]) == 0
    assert part(run.frame, part="chosen", vector="random-isotropic").groupby("layer").size().to_dict() == {LAST: 4}


def test_cells_give_the_same_rows_one_by_one_and_together(model: Model, vectors: SteeringVectors, runs: Path) -> None:
    experiment = AccuracyByLayer.at("smoke", blocks=0, n=6)

    def fresh(name: str) -> Context:
        return Context(model=model, task=toys.task(), vectors=vectors, n=6, store=Store(runs / name))

    cells = experiment.cells(fresh("a"))
    together = experiment.measure(fresh("a"), cells)
    one_by_one = pd.concat([experiment.measure(fresh("b"), [cell]) for cell in reversed(cells)])
    order = ["part", "vector", "draw", "layer", "temperature", "example"]
    left, right = (frame.sort_values(order).reset_index(drop=True) for frame in (together, one_by_one))
    pd.testing.assert_frame_equal(left, right, check_dtype=False)


def test_random_vectors_come_out_in_the_same_direction_in_at_most_5_percent(model: Model, ctx: Context) -> None:
    conditions = [
        Condition("random", seed, toys.random(model, scale=12.0, seed=seed).edits(), {"layer": LAST})
        for seed in range(27)
    ]
    rows: Any = summarise(answers(ctx, [Condition(), *conditions], temperature=1.0), ["layer"])
    rows = rows[rows["vector"] == "random"].assign(part="chosen")
    assert float(rows["gain"].std()) > 0
    same: list[bool] = []
    for start in range(0, 27, 9):
        group = rows.iloc[start : start + 9]
        for place in range(9):
            kinds = ["trained" if at == place else "random-isotropic" for at in range(9)]
            same.append(judge(group.assign(vector=kinds)).phrase == "same direction")
    assert np.mean(same) <= 0.05


def test_p_of_one_more_draw_by_hand() -> None:
    own, controls = np.array([1.0, 1, 1, 0]), np.array([[0.0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]])
    excess = own - controls.mean(1)  # 2/3, 1, 2/3, -1/3
    variance = excess.var(ddof=1) / 4 + controls.mean(0).var(ddof=1) * 4 / 3
    t = excess.mean() / np.sqrt(variance)
    assert p_beyond(own, controls, list("abcd")) == pytest.approx(2 * stats.t.sf(t, 2))
    assert np.isnan(p_beyond(own, controls[:, :2], list("abcd")))
    met = np.array([0, 1, 2, 0])
    means = [np.mean((own - controls[:, 0])[met == draw]) for draw in range(3)]
    assert p_beyond(own, controls[:, :1], list("abcd"), met) == pytest.approx(stats.ttest_1samp(means, 0)[1])


def test_blocks_without_controls_are_held_against_the_nearest_and_adjusted_together() -> None:
    rng = np.random.default_rng(0)
    layers = (0, 4, 9)
    right = rng.integers(0, 2, size=(3, 20)).astype(float)
    drawn = rng.integers(0, 2, size=(2, 5, 20)).astype(float)
    example = [f"p{index}" for index in range(20)]
    trained = pd.DataFrame({"right": right.ravel(), "example": example * 3})
    controls = {
        layer: (pd.DataFrame({"right": drawn[at].ravel(), "example": example * 5}), 5)
        for at, layer in enumerate((0, 9))
    }
    found: Any = curve(trained, layers, controls)
    by_hand = [p_beyond(right[at], drawn[near].T, example) for at, near in ((0, 0), (1, 0), (2, 1))]
    assert list(found["p"]) == pytest.approx(by_hand)
    assert list(found["q"]) == pytest.approx(list(benjamini_hochberg(by_hand)))
    assert bool(np.isnan(curve(trained, layers, {})["q"].to_numpy()).all())


def test_layers_are_spread_with_first_and_last() -> None:
    assert spread((0, 3, 5, 9, 12, 20, 28), 3) == (0, 9, 28)
    assert spread((1, 2), 5) == (1, 2) and spread((1, 2, 3), 0) == (1, 2, 3) and spread((1, 2, 3), 1) == (2,)


def test_without_other_problems_one_half_chooses_and_the_other_reports(
    model: Model, vectors: SteeringVectors, runs: Path
) -> None:
    task = toys.task(splits={"test": 32})
    found = AccuracyByLayer.at("quick", n=32, draws=3, control_blocks=1).run(
        model, vectors, task, out=runs, progress=False
    )
    chosen = part(found.frame, part="chosen", vector="trained")
    assert list(chosen["layer"]) == [LAST] and list(chosen["n"]) == [16]
    assert set(part(found.frame, part="summary", vector="trained")["n"]) == {32}
    assert "3-shot" not in set(found.frame["vector"])


def test_other_seeds_and_sets_are_read_from_files_and_keyed(model: Model, ctx: Context, tmp_path: Path) -> None:
    seed = toys.planted(model, scale=10.0).save(tmp_path / "seed.safetensors")
    experiment = AccuracyByLayer(n=16, seeds=(str(seed),), beside=(str(seed),))
    inputs = experiment.inputs(ctx)
    assert set(inputs) == {"seed 1", str(seed)}
    rows = experiment.measure(ctx, [Cell.at(part="layer", temperature=1.0, layer=LAST)])
    trained = part(rows, part="summary", vector="trained")
    assert list(trained["seed"]) == [0, 1]
    assert part(rows, part="summary", vector=str(seed))["accuracy"].iloc[0] == trained["accuracy"].iloc[1]


def test_a_task_without_answers_is_refused_and_four_problems_decide_nothing(
    model: Model, ctx: Context, runs: Path
) -> None:
    with pytest.raises(UserError, match="without answers"):
        AccuracyByLayer.at("smoke").run(model, ctx.vectors, toys.task(answer=None), out=runs, progress=False)
    run = AccuracyByLayer.at("smoke").run(model, ctx.vectors, toys.task(), out=runs, progress=False)
    assert run.verdicts[0]["phrase"] == "not testable here, because 4 problems are too few, 8 is the least"
    assert choosing_split(ctx) == "train"


@pytest.mark.slow
def test_on_the_embedded_model_all_parts_are_measured(runs: Path) -> None:
    from interp import load_model, load_task
    from vectors import load_vectors

    embedded, task = load_model("smollm2-135m-instruct"), load_task("word-problems")
    vectors = load_vectors("smollm2-135m-instruct/all-layer")
    run = AccuracyByLayer.at("smoke").run(embedded, vectors, task, out=runs, progress=False)
    assert set(run.frame["part"]) == {"summary", "answers", "curve", "chosen"}
    assert run.verdicts[0]["phrase"].startswith("not testable here, because")
    assert {"base", "matched-entropy", "5-shot", "negated"} <= set(run.frame["vector"].dropna())
