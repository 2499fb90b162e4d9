"""Placement with toy vectors at each place: a planted difference is found, and what is missing is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from experiments import Placement
from experiments.graded import Condition, answers
from experiments.placement import PLACES, catalogued, judge
from interp.context import Context
from interp.edits import Add
from interp.errors import UserError
from interp.model import Model
from interp.run import Run
from interp.sites import Site
from interp.store import Store
from tests.experiments import toys
from vectors import Card, SteeringVectors

LAST = toys.LAYERS - 1


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


def at(model: Model, place: Any, rows: torch.Tensor, layer: int = LAST) -> SteeringVectors:
    card = Card(name=f"toy at {place}", d_model=model.d_model, n_layers=model.n_layers, site=place, trained="apart")
    return SteeringVectors(rows, (layer,), card)


@pytest.fixture(scope="module")
def files(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The planted direction at attn_out works as at the output; at the norms' outputs there are random ones."""
    folder, planted = tmp_path_factory.mktemp("places"), toys.planted(model, scale=20.0).directions
    noise = toys.random(model, scale=0.5).directions
    rows = {"ln1_out": noise, "attn_out": 3 * planted, "ln2_out": noise}
    return tuple(str(at(model, place, own).save(folder / f"{place}.safetensors")) for place, own in rows.items())


@pytest.fixture(scope="module")
def run(model: Model, files: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    experiment = Placement.at("quick", n=24, draws=4, sets=files)
    out = tmp_path_factory.mktemp("runs")
    yield experiment.run(model, toys.planted(model, scale=20.0), toys.task(), out=out, progress=False)


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def test_a_place_that_does_nothing_is_found(run: Run) -> None:
    summary = part(run.frame, part="summary", vector="trained").set_index("place")
    assert list(summary.index) == list(PLACES)
    assert float(summary.loc["mlp_out", "gain_low"]) > 0.3
    spread = part(run.frame, part="spread").iloc[0]
    assert spread["place"] in ("attn_out", "mlp_out") and spread["other"] in ("ln1_out", "ln2_out")
    assert float(spread["difference_low"]) > 0.2
    assert run.verdicts[0]["phrase"] == "opposite"
    pairs = part(run.frame, part="pairs").set_index(["place", "other"])
    assert len(pairs) == 6
    assert float(pairs.loc[("ln1_out", "mlp_out"), "q"]) < 0.05 < float(pairs.loc[("ln1_out", "ln2_out"), "q"])


def test_each_place_is_where_its_card_says(model: Model, files: tuple[str, ...], run: Run, runs: Path) -> None:
    ctx = Context(model=model, task=toys.task(), n=24, store=Store(runs))
    placed = Placement(n=24, sets=files).placed(
        Context(model=model, task=toys.task(), vectors=toys.planted(model, scale=20.0), n=24, store=Store(runs))
    )
    assert {name: one.card.site for name, one in placed.items()} == {
        "ln1_out": "ln1_out",
        "attn_out": "attn_out",
        "ln2_out": "ln2_out",
        "mlp_out": "resid_post",
    }
    for place, one in placed.items():
        edit = Add(Site(LAST, place if place != "mlp_out" else "mlp_out"), one.directions[0])  # pyright: ignore[reportArgumentType]
        own = answers(ctx, [Condition(edits=(edit,))], temperature=1.0)
        found = part(run.frame, part="answers", vector="trained", place=place)
        assert list(found["length"]) == list(own["length"]) and list(found["right"]) == list(own["right"])


def test_random_vectors_stand_at_each_place(run: Run) -> None:
    random = part(run.frame, part="summary", vector="random-isotropic")
    assert sorted(random["place"]) == sorted(PLACES) and set(random["draw"]) == {-1}
    whole = Placement.at("quick", n=24, draws=4, mixed=False)
    assert len(whole._random("mlp_out", toys.wrap(toys.model(), torch.ones(1, 48), (LAST,)))) == 4


def test_without_a_second_place_there_is_nothing_to_test(model: Model, runs: Path) -> None:
    planted = toys.planted(model, scale=20.0)
    run = Placement.at("quick", n=16, draws=3).run(model, planted, toys.task(), out=runs, progress=False)
    assert run.verdicts[0]["phrase"] == f"not testable here, because block {LAST} has a vector at mlp_out only"
    assert part(run.frame, part="pairs").empty


def test_places_that_all_do_nothing_are_not_tested(model: Model, runs: Path, tmp_path: Path) -> None:
    noise = at(model, "attn_out", toys.random(model, scale=5.0, seed=3).directions).save(tmp_path / "a.safetensors")
    run = Placement.at("quick", n=16, draws=3, sets=(str(noise),)).run(
        model, toys.random(model, scale=5.0), toys.task(), out=runs, progress=False
    )
    assert "better than random vectors" in run.verdicts[0]["phrase"]


def test_the_block_with_most_places_is_taken_and_unknown_sets_are_refused(
    model: Model, files: tuple[str, ...], runs: Path, tmp_path: Path
) -> None:
    own = toys.random(model, scale=1.0, layers=(0, 1, 2))
    ctx = Context(model=model, task=toys.task(), vectors=own, n=4, store=Store(runs))
    elsewhere = at(model, "attn_out", torch.ones(1, model.d_model), layer=0).save(tmp_path / "x.safetensors")
    sets = (*files, str(elsewhere))
    assert {one.layers for one in Placement(sets=sets).placed(ctx).values()} == {(LAST,)}
    assert list(Placement(sets=sets, layer=0).placed(ctx)) == ["attn_out", "mlp_out"]
    assert set(Placement(sets=files).inputs(ctx)) == set(PLACES)
    with pytest.raises(UserError):
        Placement(sets=("no-such-set",)).placed(ctx)
    with pytest.raises(UserError, match="no vector at this block"):
        Placement(sets=files, layer=7).placed(ctx)


def test_the_verdict_by_hand() -> None:
    row = {"temperature": 1.0, "layer": 16, "n": 48, "place": "mlp_out"}
    spread = {**row, "part": "spread", "difference": 0.01, "difference_low": -0.03, "difference_high": 0.04}
    spread |= {"excess": 0.3, "excess_low": 0.2, "excess_high": 0.4}
    rows = [spread, {**row, "part": "summary"}, {**row, "part": "summary", "place": "attn_out"}]
    assert judge(pd.DataFrame(rows)).phrase == "no effect within the margin"
    apart = {**spread, "difference_low": 0.01, "difference_high": 0.2, "difference": 0.1}
    assert judge(pd.DataFrame([apart, *rows[1:]])).phrase == "opposite"


def test_the_catalogue_is_read_by_the_cards_site() -> None:
    assert all(alias.startswith("smollm2-135m-instruct/") for alias in catalogued("smollm2-135m-instruct"))
    assert catalogued("no-such-model") == []


@pytest.mark.slow
def test_on_the_embedded_model_a_place_is_measured(runs: Path) -> None:
    from interp import load_model, load_task
    from vectors import load_vectors

    embedded, task = load_model("smollm2-135m-instruct"), load_task("word-problems")
    vectors = load_vectors("smollm2-135m-instruct/single-layer")
    run = Placement.at("smoke").run(embedded, vectors, task, out=runs, progress=False)
    assert {"summary", "answers", "spread"} <= set(run.frame["part"])
    assert run.verdicts[0]["phrase"].startswith("not testable here, because")
