"""Accuracy of many conditions in one batch: pairing, references, hand-worked summaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.gain_ladder import GainLadder
from experiments.graded import Condition, answers, demonstrations, matched_temperature, references, summarise
from experiments.transfer import Transfer
from experiments.vector_geometry import VectorGeometry
from interp import given
from interp.context import Context
from interp.errors import UserError
from interp.experiment import Experiment
from interp.model import Model
from interp.store import Store, run_key
from interp.summaries import room
from tests.experiments import toys


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture
def ctx(model: Model, tmp_path: Path) -> Context:
    return Context(model, toys.planted(model, scale=200.0), toys.task(), 12, 0, Store(tmp_path))


def test_conditions_of_one_batch_equal_conditions_alone(ctx: Context) -> None:
    every = [Condition(), Condition("trained", edits=ctx.vectors.edits()), Condition("trained", 0, (), {"factor": 0.0})]
    together = answers(ctx, every, temperature=1.0, samples=2)
    alone = pd.concat([answers(ctx, [one], temperature=1.0, samples=2) for one in every], ignore_index=True)
    pd.testing.assert_frame_equal(together, alone)
    assert together["right"].groupby(together["vector"]).size().to_dict() == {"base": 24, "trained": 48}


def test_without_edits_nothing_is_gained_and_a_planted_answer_is(ctx: Context) -> None:
    every = [Condition(), Condition("nothing"), Condition("trained", edits=ctx.vectors.edits())]
    summary = summarise(answers(ctx, every, temperature=1.0)).set_index("vector")
    assert summary.loc["nothing", ["gain", "gain_low", "gain_high"]].tolist() == pytest.approx([0, -room(12), room(12)])
    trained = summary.loc["trained"]
    assert trained["accuracy"] == 1.0
    assert trained["gain"] == pytest.approx(1 - summary.loc["base", "accuracy"])
    assert trained["gain_low"] > 0.4


def test_a_prefix_is_part_of_the_completion(ctx: Context) -> None:
    token = toys.token(ctx.model)
    rows = answers(ctx, [Condition(), Condition("prefix", prefix=(token,))], temperature=0.0)
    prefix: Any = rows[rows["vector"] == "prefix"]
    assert prefix["right"].tolist() == [1.0] * 12
    asked = ctx.prompts(ctx.problems())
    own = ctx.model.generate([type(p)((*p.ids, token), p.spans) for p in asked], max_new_tokens=5, temperature=0)
    assert prefix["length"].tolist() == [len(row.ids) + 1 for row in own.rows]


def test_a_summary_by_hand() -> None:
    def rows(vector: str, right: list[int], boxed: list[int]) -> pd.DataFrame:
        same = {"draw": 0, "temperature": 1.0, "ended": 1.0, "length": 3.0, "entropy": 0.5}
        told = {"example": list("aabb"), "right": right, "boxed": boxed}
        return pd.DataFrame({"vector": vector, **same, **told})

    frame = pd.concat([rows("base", [0, 0, 1, 0], [1, 0, 1, 0]), rows("trained", [1, 1, 1, 0], [1, 1, 1, 0])])
    summary = summarise(frame).set_index("vector")
    assert summary["accuracy"].tolist() == [0.25, 0.75]
    assert summary["gain"].tolist() == [0.0, 0.5]
    assert summary["boxed"].tolist() == [0.5, 0.75]
    assert summary["right_if_boxed"].tolist() == [0.5, 1.0]
    assert summary["n"].tolist() == [2, 2]


def test_examples_are_the_tasks_own_and_then_solved_training_problems(ctx: Context) -> None:
    train = ctx.task.problems("train")
    assert demonstrations(ctx, 2) == [(one.problem, r"\boxed{7}") for one in train[:2]]


def test_references_stand_beside(ctx: Context) -> None:
    base = answers(ctx, [Condition()], temperature=1.0)
    found: Any = references(ctx, base, entropy=1.0)
    assert found["vector"].tolist() == ["matched-entropy", "1-shot", "3-shot", "5-shot"]
    assert found["temperature"].iloc[0] == matched_temperature(ctx, 1.0)
    assert found["gain"].notna().all()


def test_the_matched_temperature_matches(ctx: Context) -> None:
    base: Any = answers(ctx, [Condition()], temperature=1.0)
    assert matched_temperature(ctx, float(base["entropy"].mean())) == pytest.approx(1.0, abs=0.25)
    assert matched_temperature(ctx, 0.5) < matched_temperature(ctx, 2.0)


def test_other_inputs_enter_the_key() -> None:
    meta = {"experiment": "x", "version": 1, "settings": {}, "model": None, "vectors": None, "task": None}
    keys = [run_key({**meta, **more}) for more in ({}, {"inputs": {}}, {"inputs": {"a": "1"}}, {"inputs": {"a": "2"}})]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_related_vectors(ctx: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(given, "catalogue", lambda: [f"{ctx.model.name}/all-layer@0"])
    assert ctx.related("format-reward") is None
    monkeypatch.setattr(given, "as_vectors", lambda alias, model: alias)
    monkeypatch.setattr(given, "catalogue", lambda: [f"{ctx.model.name}/all-layer-random-reward@0"])
    assert ctx.related("random-reward") == f"{ctx.model.name}/all-layer-random-reward"
    monkeypatch.undo()
    path = ctx.vectors.save(tmp_path / "other.safetensors")
    assert ctx.related(str(path)) == ctx.vectors


def test_preferred_vectors_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "catalogue", lambda: ["m/all-layer@0", "m/single-layer@0"])
    assert given.default_vectors("m", ("single-layer", "all-layer")) == "m/single-layer"
    assert given.default_vectors("m", ("lora-r1",)) == "m/all-layer"


@pytest.mark.parametrize(
    ("kind", "setting"), [(GainLadder, "beside"), (VectorGeometry, "others"), (Transfer, "donors")]
)
def test_a_misspelt_set_is_refused_with_a_suggestion(kind: type[Experiment], setting: str) -> None:
    with pytest.raises(UserError, match="did you mean single-layer"):
        kind.at("full", **{setting: ("single-layr",)})
    with pytest.raises(UserError, match="no such file"):
        kind.at("full", **{setting: ("missing.npy",)})
    assert kind.at("full", **{setting: ("all-layer@1", "single-layer/12", "random-reward")})


def test_a_seed_that_a_set_lacks_is_refused(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "catalogue", lambda: [f"{ctx.model.name}/all-layer@0"])
    with pytest.raises(UserError, match="no such seed"):
        ctx.related("all-layer@7")
