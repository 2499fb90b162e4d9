"""Transfer: the same weights as a recipient give the same numbers, shares are of the own gain, shapes are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import Transfer
from experiments.controls import draw_controls
from experiments.recipients import OTHER_LINE, donors, recipient
from experiments.texts import texts
from experiments.transfer import judge
from interp.context import Context
from interp.errors import UserError
from interp.load import load_model
from interp.model import Model
from interp.store import Store
from interp.tasks.word_problems import word_problems
from tests.experiments import toys
from tests.interp import tiny
from vectors import SteeringVectors

LAYERS = (0, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("model"), "qwen2")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load_model(folder)


@pytest.fixture(scope="module")
def frame(model: Model, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs")
    own = toys.planted(model, scale=20.0)
    saved = toys.planted(model, scale=5.0).save(out / "own.safetensors")
    names = ("task-prompt", "other-system-line", "no-example", f"{folder}={saved}", str(folder), "lora-r1")
    experiment = Transfer(n=16, draws=3, recipients=names, donors=(str(saved), "single-layer"))
    return experiment.run(model, own, toys.task(), out=out, progress=False)


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def test_the_same_weights_loaded_again_gain_the_same(frame: Any, folder: Path) -> None:
    rows = part(frame.frame, part="accuracy", vector="trained").set_index("recipient")
    accuracy = part(frame.frame, part="accuracy", vector="trained", recipient="task-prompt")["accuracy"].iloc[0]
    assert list(dict.fromkeys(rows.index)) == ["task-prompt", "other-system-line", str(folder)]
    assert set(rows.loc[[str(folder)], "accuracy"]) == {accuracy} and accuracy >= 0.3
    assert rows["gain"].min() > 0.2


def test_shares_are_of_the_recipients_own_gain(frame: Any, folder: Path) -> None:
    rows = part(frame.frame, part="accuracy")
    home = part(rows, recipient="task-prompt", vector="trained").iloc[0]
    assert home["share"] == 1.0
    other = part(rows, recipient="other-system-line", vector="trained").iloc[0]
    assert other["share"] == pytest.approx(other["gain"] / home["gain"])
    assert part(rows, recipient="task-prompt", vector="donor")["donor"].nunique() == 1


def test_recipients_that_do_not_exist_are_left_out_and_each_other_one_has_a_verdict(frame: Any) -> None:
    assert "lora-r1" not in set(frame.frame["recipient"]) and "no-example" not in set(frame.frame["recipient"])
    claims = [verdict["claim"] for verdict in frame.verdicts]
    assert claims[0] == "helps-other-system-line" and len(claims) == 2
    assert {verdict["phrase"] for verdict in frame.verdicts} == {"same direction"}


def test_the_other_prompts_differ_from_the_tasks_in_what_their_names_say(model: Model) -> None:
    ctx = Context(model=model, task=word_problems(), vectors=toys.planted(model, scale=1.0), n=1)
    tasks = {name: recipient(ctx, name) for name in ("task-prompt", "other-system-line", "no-example")}
    own, line, bare = (one.ctx.task for one in tasks.values() if one is not None)
    assert own is ctx.task
    assert (line.system, line.example) == (OTHER_LINE, own.example) and line.system != own.system
    assert (bare.system, bare.example) == (own.system, ())


def test_an_adapter_of_the_recipient_stays_on_under_a_donor(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, donor = toys.random(model, scale=3.0, layers=(1,)), toys.random(model, scale=3.0, seed=1)
    ctx = Context(model=model, task=toys.task(), vectors=donor, n=4)
    monkeypatch.setattr(Context, "related", lambda ctx, name: adapter)
    one = recipient(ctx, "lora-r1")
    assert one is not None and one.own is None
    assert one.takes(donor) == (*adapter.edits(), *donor.edits())


def test_a_set_trained_apart_is_on_together_and_missing_seeds_are_said(model: Model, runs: Path) -> None:
    saved = toys.random(model, scale=1.0, layers=LAYERS).save(runs / "apart.safetensors")
    told: list[str] = []
    ctx = Context(model=model, task=toys.task(), n=4, say=told.append)
    found = donors(ctx, (str(saved), "all-layer@7"))
    assert len(found[str(saved)].edits()) == 2
    assert len(told) == 1 and "all-layer@7" in told[0]


def test_a_baseline_gives_its_directions_at_the_norms_of_the_vectors_under_study(model: Model, runs: Path) -> None:
    ours = toys.random(model, scale=1.0, layers=(LAYERS[0],))
    large = toys.random(model, scale=50.0, layers=LAYERS, seed=1)
    for name, recipe in (("baseline", {"fraction_of_median_norm": 0.3}), ("trained", {})):
        card = large.card.model_copy(update={"recipe": recipe, "name": name})
        replace(large, card=card).save(runs / f"{name}.safetensors")
    ctx = Context(model=model, task=toys.task(), vectors=ours, n=4)
    baseline, trained = donors(ctx, [str(runs / f"{name}.safetensors") for name in ("baseline", "trained")]).values()
    assert trained.norms == pytest.approx(large.norms)
    assert baseline.norms == pytest.approx(ours.norms)
    assert isinstance(baseline, SteeringVectors)
    cosine = torch.cosine_similarity(baseline[LAYERS[0]], large[LAYERS[0]], dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-6)


def test_vectors_of_another_width_are_refused_and_so_is_a_list_without_recipients(model: Model, runs: Path) -> None:
    wide = load_model(tiny.model("qwen2", config={"hidden_size": 60}), tokenizer=tiny.tokenizer())
    ctx = Context(model=model, task=toys.task(), vectors=toys.planted(model, scale=1.0), n=4)
    one = recipient(ctx, "task-prompt")
    assert one is not None
    with pytest.raises(UserError, match="d_model 48"):
        one.takes(toys.random(wide, scale=1.0))
    experiment = Transfer(n=4, recipients=("no-example",), donors=(), few_shot=False)
    with pytest.raises(UserError, match="none of these recipients"):
        experiment.run(model, toys.planted(model, scale=1.0), toys.task(), out=runs, progress=False)


def test_every_kind_of_set_control_keeps_what_it_says(model: Model, runs: Path) -> None:
    ctx = Context(model=model, task=toys.task(), n=6, store=Store(runs))
    vectors = toys.random(model, scale=4.0, layers=LAYERS).together()
    kinds = ("random-isotropic", "random-covariance", "permuted", "permuted-layers", "negated", "random-effect-matched")
    drawn = draw_controls(ctx, vectors, kinds, draws=2, trained_on=lambda: texts(ctx, split="train", keep=LAYERS))
    assert set(drawn) >= set(kinds[:-1])
    for kind in kinds[:-1]:
        for one in drawn[kind]:
            assert one.layers == LAYERS and len(one.edits()) == 2
            assert torch.allclose(one.directions.norm(dim=1), vectors.directions.norm(dim=1), rtol=1e-4)
    with pytest.raises(UserError, match="no such control"):
        draw_controls(ctx, vectors, ("randm",), draws=1, trained_on=lambda: texts(ctx))


def test_random_sets_come_out_in_the_same_direction_in_at_most_5_percent() -> None:
    rng = np.random.default_rng(0)
    same: list[bool] = []
    for _ in range(300):
        gains = rng.normal(0, 0.1, 9)
        rows = [{"vector": "trained", "draw": 0, "gain": gains[0]}]
        rows += [{"vector": "random-isotropic", "draw": draw, "gain": gain} for draw, gain in enumerate(gains[1:])]
        frame = pd.DataFrame(rows).assign(part="accuracy", recipient="r", n=64, accuracy=0.5)
        frame = frame.assign(gain_low=frame["gain"] - 0.01, gain_high=frame["gain"] + 0.01)
        same.append(judge(frame, "r").phrase == "same direction")
    assert np.mean(same) <= 0.05


def test_a_recipient_that_is_never_right_decides_nothing() -> None:
    rows = [
        {"vector": kind, "draw": draw} for kind, count in (("trained", 1), ("permuted", 8)) for draw in range(count)
    ]
    frame = pd.DataFrame(rows).assign(part="accuracy", recipient="r", n=64, accuracy=0.0)
    frame = frame.assign(gain=0.0, gain_low=0.0, gain_high=0.0)
    assert judge(frame, "r").phrase == (
        "not testable here, because no completion is right, with the vectors or without: a floor on which no gain or "
        "loss can show"
    )


@pytest.mark.slow
def test_on_the_embedded_model_two_recipients_are_measured(runs: Path) -> None:
    from interp import load_task
    from vectors import load_vectors

    embedded, task = load_model("smollm2-135m-instruct"), load_task("word-problems")
    vectors = load_vectors("smollm2-135m-instruct/all-layer", model=embedded)
    run = Transfer.at("smoke").run(embedded, vectors, task, out=runs, progress=False)
    assert set(run.frame["recipient"]) == {"task-prompt", "no-example"}
    assert all(verdict["phrase"].startswith("not testable here, because") for verdict in run.verdicts)
