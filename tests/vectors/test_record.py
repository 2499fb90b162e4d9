"""Records of trained sets: answers by problem, changes against two plain passes; LoRA of rank 4 and its matrices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from interp.errors import UserError
from interp.model import Model
from interp.sites import Site
from tests.vectors.test_train import task, toy_model
from vectors import Card, LowRankAdapters, SteeringVectors, list_pretrained, load, load_vectors
from vectors.catalogue import PRETRAINED
from vectors.train.command import _Runner  # pyright: ignore[reportPrivateUsage]
from vectors.train.evaluate import evaluate
from vectors.train.plan import EMBEDDED_MODEL, embedded_plan
from vectors.train.record import (
    Fixed,
    TrainingRecord,
    base_record,
    divergence,
    mean_changes,
    read_records,
    record_of,
    recorded,
)
from vectors.train.result import install, shipped
from vectors.train.settings import TrainSettings
from vectors.train.trainer import Trained, train

FEW = {"steps": 1, "prompts": 2, "samples": 2, "validate_every": 1, "validation": 2, "test": 6}


def trained(model: Model, out: Path, **settings: object) -> Trained:
    return train(model, task(), TrainSettings.model_validate({**FEW, **settings}), out=out)


def fresh() -> Model:
    return toy_model(dtype=torch.float32)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    out = tmp_path_factory.mktemp("lora")
    run = trained(fresh(), out / "runs", kind="lora", rank=4, rate=0.1)
    install(run, out / "toy")
    return run, out / "toy"


def test_lora_of_rank_4_adds_what_its_matrices_do(lora: tuple[Trained, Path]) -> None:
    run, folder = lora
    adapters = LowRankAdapters.read(folder / "lora-r4@0")
    assert adapters.rank == 4 and adapters.card.name == "toy/lora-r4@0"
    model = fresh()
    fixed = Fixed.drawn(model, task(), 4)
    tensors = load_file(folder / "lora-r4@0" / "adapter_model.safetensors")
    config = json.loads((folder / "lora-r4@0" / "adapter_config.json").read_text())
    big_a, big_b = (tensors[f"base_model.model.model.layers.1.mlp.down_proj.lora_{key}.weight"] for key in "AB")
    edits = [edit for edit in adapters.edits() if edit.layer == 1]
    sites = [Site(1, "mlp_post"), Site(1, "mlp_out")]
    before, after = model.run(fixed.batch, (), sites), model.run(fixed.batch, edits, sites)
    lora_output = before[sites[0]] @ big_a.T @ big_b.T * config["lora_alpha"] / config["r"]
    real = fixed.batch.mask
    assert float(lora_output[real].abs().max()) > 1e-4
    assert torch.allclose((after[sites[1]] - before[sites[1]])[real], lora_output[real], atol=1e-5)
    assert torch.allclose(adapters.parts()[1], big_b @ big_a, atol=1e-6)
    with_it = run.parameters.edits()
    assert torch.allclose(
        model.run(fixed.batch, with_it).final, model.run(fixed.batch, adapters.edits()).final, atol=1e-4
    )


def test_an_adaptive_vector_is_rank_1_and_says_where_to_go(lora: tuple[Trained, Path]) -> None:
    with pytest.raises(UserError, match="LoRA of rank 4 is no adaptive vector"):
        load_vectors(lora[1] / "lora-r4@0")
    assert set(shipped(lora[1], fresh())) == {"lora-r4@0"}


def test_what_takes_vectors_by_name_takes_lora_of_any_rank(
    lora: tuple[Trained, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = fresh(), tmp_path / "toy"
    shutil.copytree(lora[1] / "lora-r4@0", folder / "lora-r4@0")
    SteeringVectors(torch.ones(1, 8), (0,), Card(d_model=8)).save(folder / "all-layer@0.safetensors")
    monkeypatch.setattr(load, "PRETRAINED", tmp_path)
    assert [one.alias for one in list_pretrained(tmp_path)] == ["toy/all-layer@0", "toy/lora-r4@0"]
    kept = LowRankAdapters.read(folder / "lora-r4@0")
    for given in ("toy/lora-r4", "toy/lora-r4@0", str(folder / "lora-r4@0")):
        found = load.load_intervention(given, model=model)
        assert isinstance(found, LowRankAdapters) and found.digest == kept.digest and found.rank == 4
    assert repr(kept).startswith(f"LowRankAdapters({kept.name!r}, rank 4") and kept.card.kind == "lora"
    assert isinstance(load.load_intervention("toy/all-layer"), SteeringVectors)
    with pytest.raises(UserError, match="no such seed"):
        load.load_intervention("toy/lora-r4@3")
    with pytest.raises(UserError, match="d_model"):
        load.load_intervention("toy/lora-r4", model=SimpleNamespace(n_layers=9, d_model=7))


def test_vectors_trained_apart_are_no_set_that_acts_at_once(tmp_path: Path) -> None:
    d_model = fresh().cfg.d_model
    each: tuple[Literal["apart", "together"], ...] = ("apart", "together")
    for trained_as in each:
        card = Card(name=f"toy/{trained_as}@0", d_model=d_model, trained=trained_as)
        SteeringVectors(torch.ones(2, d_model), (0, 1), card).save(tmp_path / f"{trained_as}@0.safetensors")
    assert set(shipped(tmp_path, fresh())) == {"together@0"}


def test_a_record_holds_the_runs_own_answers_and_comes_back(lora: tuple[Trained, Path], tmp_path: Path) -> None:
    run, _ = lora
    record = record_of(run, fresh(), task(), others={}, trials=1)
    assert record.name == "lora-r4@0" and record.rollouts == 4
    for name in ("T=1", "greedy"):
        answers = record.answers[name]
        assert np.mean(list(answers.by_problem().values())) == pytest.approx(run.meta["scores"][name]["accuracy"])
    record.save(tmp_path)
    assert read_records(tmp_path) == [record]
    # a run that kept no answers is tested again and finds the same
    old = Trained(run.parameters, run.progress, {k: v for k, v in run.meta.items() if k != "answers"}, run.path)
    assert record_of(old, fresh(), task(), others={}, trials=1).answers == record.answers


def test_changes_and_divergences_are_those_of_two_plain_passes(lora: tuple[Trained, Path]) -> None:
    run, folder = lora
    model = fresh()
    record = record_of(run, model, task(), others={"same": LowRankAdapters.read(folder / "lora-r4@0")}, trials=1)
    assert record.change is not None
    fixed = Fixed.drawn(model, task())
    assert record.change.texts == dict(zip(fixed.examples, fixed.texts, strict=True))
    assert record.change.kl["same"] == pytest.approx([0.0] * len(fixed.texts), abs=1e-6)
    row = 3
    start = int((~fixed.batch.mask[row]).sum()) + int(fixed.batch.prompt_len[row]) - 1
    stop = start + len(fixed.texts[row])
    before, after = (model.run(fixed.batch, edits) for edits in ((), run.parameters.edits()))
    delta = (after.final - before.final)[row, start:stop].mean(0)
    assert record.change.deltas()[row] == pytest.approx(delta.detach().numpy(), rel=2e-3, abs=1e-5)
    p, q = (model.unembed(trace.final[row, start:stop]).log_softmax(-1) for trace in (after, before))
    by_hand = float((p.exp() * (p - q)).sum(-1).mean())
    assert record.change.kl["base"][row] == pytest.approx(by_hand, rel=1e-3)


def test_all_weights_leave_a_record_against_sets_of_the_base(tmp_path: Path) -> None:
    run = trained(fresh(), tmp_path / "runs", kind="full", rate=0.01)
    base = fresh()
    nothing = SteeringVectors(torch.zeros(1, base.cfg.d_model), (0,), Card(d_model=base.cfg.d_model))
    record = record_of(run, base, task(), others={"nothing": nothing}, trials=1)
    assert record.set == "full" and record.change is not None
    assert record.change.kl_to("nothing", nothing.digest) == pytest.approx(record.change.kl_to("base"))
    assert record.change.kl_to("nothing", "trained anew") == ()
    assert min(record.change.kl["base"]) > 0
    fixed = Fixed.drawn(base, task())
    moved = run.parameters.sampler
    assert mean_changes(fixed.finals(base), fixed.finals(moved)).abs().max() > 0
    assert divergence(moved, fixed.finals(moved), moved, fixed.finals(moved)) == pytest.approx([0.0] * 12, abs=1e-7)


def test_the_record_of_the_base_is_its_evaluation() -> None:
    model = fresh()
    record = base_record(model, task(), test=5)
    marks = evaluate(model, (), task(), task().problems("test")[:5], temperature=0.0).marks
    assert record.answers["greedy"].right == marks["right"]
    assert list(record.answers["greedy"].problems) == marks["problems"] and record.change is None


def test_a_recipe_is_done_where_a_record_has_its_settings(lora: tuple[Trained, Path], tmp_path: Path) -> None:
    run, model = lora[0], fresh()
    record_of(run, model, task(), others={}, trials=1).save(tmp_path)
    asked = {"kind": "lora", "rank": 4}
    for more, done in (({}, True), ({"steps": 1, "rate": 0.1}, True), ({"steps": 2}, False), ({"seed": 1}, False)):
        settings = TrainSettings.model_validate(asked | more)
        assert recorded(tmp_path, settings, model.n_layers) is done
    assert not recorded(tmp_path, TrainSettings(kind="lora", rank=1), model.n_layers)


def test_a_plan_trains_what_its_folder_lacks_and_records_what_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_Runner, "model", property(lambda runner: fresh()))
    monkeypatch.setattr("interp.given.as_task", lambda given: task())
    runner = _Runner("toy", "word-problems", None, tmp_path / "runs", tmp_path / "toy")
    plan = [TrainSettings.model_validate({**FEW, **more}) for more in ({"layers": (1,)}, {"kind": "lora", "rank": 4})]
    runner.share(plan[:1])
    capsys.readouterr()
    runner.share(plan)
    told = capsys.readouterr().err
    assert "single-layer/1@0 is there" in told and told.count("training ") == 1
    records = {record.name: record for record in read_records(tmp_path / "toy")}
    assert set(records) == {"base@0", "single-layer/1@0", "lora-r4@0"}
    ships = load.load_intervention(tmp_path / "toy" / "lora-r4@0")
    assert (records["lora-r4@0"].digest, records["lora-r4@0"].trials) == (ships.digest, 1)
    # in another folder of runs the set's own folder still says that it is done
    _Runner("toy", "word-problems", None, tmp_path / "elsewhere", tmp_path / "toy").share(plan)
    assert capsys.readouterr().err.count("is there") == 2


def test_every_set_of_the_recipe_ships_with_its_record() -> None:
    folder = PRETRAINED / EMBEDDED_MODEL
    lacking = [one for one in embedded_plan() if not recorded(folder, one, n_layers=30)]
    assert not lacking, "interp train --plan embedded"
    for record in read_records(folder):
        if record.set not in ("full", "base"):
            found = load.load_intervention(f"{EMBEDDED_MODEL}/{record.name}")
            known = record.digest, record.provenance["key"], record.trials
            assert known == (found.digest, found.card.recipe["run"], found.card.runs)


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "x@0.json").write_text('{"set": "x"}')
    with pytest.raises(UserError, match="no record of a trained set"):
        read_records(tmp_path)
    assert TrainingRecord(set="x", seed=0, fingerprint="", task="").name == "x@0"
