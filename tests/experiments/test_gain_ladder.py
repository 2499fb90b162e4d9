"""The gain ladder: every rung is there, a planted gain beats the simpler rungs and a random vector does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.gain_ladder import SIMPLE, GainLadder, judge
from interp import given
from interp.model import Model
from interp.run import Run
from tests.experiments import toys


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


def ladder(model: Model, vectors: Any, out: Path, **settings: Any) -> Run:
    chosen: dict[str, Any] = {
        "n": 24,
        "draws": 3,
        "blocks": 2,
        "validation_n": 4,
        "train_n": 4,
        "seeds": (),
        "beside": (),
        **settings,
    }
    return GainLadder(**chosen).run(model, vectors, toys.task(), out=out, progress=False)


def vector(run: Run, name: str) -> Any:
    rows: Any = run.frame[(run.frame["part"] == "summary") & (run.frame["vector"] == name)]
    return rows


def test_every_rung_is_there_and_a_planted_gain_is_more_than_the_simpler_ones(model: Model, tmp_path: Path) -> None:
    planted = toys.planted(model, scale=200.0, layers=(1, 2)).together()
    run = ladder(model, planted, tmp_path)
    rungs = {"base", "one-layer", "trained", "random-isotropic", *SIMPLE} - {"random-reward", "format-reward"}
    assert set(run.frame["vector"]) == rungs
    assert len(vector(run, "random-isotropic")) == 3
    assert vector(run, "trained")["accuracy"].item() > 0.9
    # in this task the first token decides: writing it, or the vector there alone, is all there is
    assert vector(run, "prefix")["accuracy"].item() == 1.0
    assert vector(run, "first-position")["accuracy"].item() == vector(run, "one-layer")["accuracy"].item()
    # twelve equal problems do not exclude an effect of the margin
    assert judge(run.frame).phrase.startswith("inconclusive")
    others: Any = run.frame[~run.frame["vector"].isin(["prefix", "first-position"])]
    assert judge(others).phrase == "same direction"


def test_a_random_vector_beats_nothing(model: Model, tmp_path: Path) -> None:
    run = ladder(model, toys.random(model, scale=2.0, layers=(1, 2)).together(), tmp_path)
    assert judge(run.frame).phrase != "same direction"


def test_other_sets_are_rungs_and_inputs(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = toys.planted(model, scale=200.0).save(tmp_path / "other.safetensors")
    monkeypatch.setattr(given, "catalogue", lambda: [])
    run = ladder(model, toys.random(model, scale=2.0), tmp_path / "runs", beside=(str(other),))
    assert list(run.record.meta["inputs"]) == [str(other)]
    assert vector(run, str(other))["accuracy"].item() > 0.9
