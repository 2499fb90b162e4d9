"""Effect against cost: a planted gain stands out of the cloud, a random vector lies in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.effect_against_cost import CONTROL, EffectAgainstCost, judge
from figures.effect_against_cost import build
from interp.model import Model
from interp.run import Run
from tests.experiments import toys


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


def curves(model: Model, vectors: Any, out: Path, **settings: Any) -> Run:
    chosen: dict[str, Any] = {
        "n": 24,
        "draws": 3,
        "doses": (0.0, 1.0),
        "random_doses": (1.0,),
        "n_texts": 4,
        "beside": (),
        **settings,
    }
    return EffectAgainstCost(**chosen).run(model, vectors, toys.task(), out=out, progress=False)


def test_a_planted_gain_stands_out_and_costs_what_it_moves(model: Model, tmp_path: Path) -> None:
    run = curves(model, toys.planted(model, scale=200.0), tmp_path)
    rows: Any = run.frame[run.frame["part"] == "summary"]
    own = rows[rows["vector"] == "trained"].set_index("dose")
    assert own.loc[0.0, ["gain", "kl"]].tolist() == [0.0, 0.0]
    assert own.loc[1.0, "gain"] > 0.5
    assert own.loc[1.0, "kl_low"] > 0
    assert len(rows[rows["vector"] == CONTROL]) == 3
    assert judge(run.frame).phrase == "same direction"
    figure: Any = build(run.record)
    assert len(figure.data) == 2


def test_random_vectors_lie_in_the_cloud(model: Model, tmp_path: Path) -> None:
    phrases = [
        judge(curves(model, toys.random(model, scale=3.0, seed=seed), tmp_path, doses=(1.0,)).frame).phrase
        for seed in range(4)
    ]
    assert "same direction" not in phrases
