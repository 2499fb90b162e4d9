"""MatchFullTuning on records made by hand, on live sets, and with kinds that are missing."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import MatchFullTuning
from experiments.match_full_tuning import judge
from experiments.tuned_sets import cosine_of, expected_jaccard, flipped, jaccard
from interp.model import Model
from interp.run import Run
from tests.experiments import toys
from vectors.train.evaluate import evaluate
from vectors.train.record import Answers, Change, Fixed, TrainingRecord, divergence, mean_changes

N = 80


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


def marks(share: float, *, seed: int) -> Answers:
    """Right on a share of the problems, the same problems first where seeds agree."""
    order = np.random.default_rng(seed).permutation(N)
    right = "".join("1" if place < share * N else "0" for place in order)
    return Answers(problems=tuple(f"test-{index}" for index in range(N)), right=right)


def record(model: Model, name: str, answers: Answers, *, seed: int = 0, **more: Any) -> TrainingRecord:
    about = {"fingerprint": model.fingerprint, "task": toys.task().digest, "rollouts": 100, "trials": 2}
    return TrainingRecord.model_validate({"set": name, "seed": seed, "answers": {"T=1": answers}, **about, **more})


def change(model: Model, edits: Any) -> Change:
    """What a record of full tuning would hold if these edits were full tuning."""
    task = toys.task()
    fixed = Fixed.drawn(model, task, 8)
    before, after = fixed.finals(model), fixed.finals(model, edits)
    delta = mean_changes(before, after).numpy().astype("<f2").tobytes()
    kl = {"base": divergence(model, after, model, before)}
    texts = dict(zip(fixed.examples, fixed.texts, strict=True))
    return Change(texts=texts, width=model.d_model, delta=base64.b64encode(delta).decode(), kl=kl)


def measured(model: Model, folder: Path, runs: Path, **settings: Any) -> Run:
    experiment = MatchFullTuning.at("smoke", folder=str(folder), temperatures=(1.0,), n=8, **settings)
    return experiment.run(model, None, toys.task(), out=runs, progress=False)


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def phrases(run: Run) -> dict[str, str]:
    return {verdict["claim"]: verdict["phrase"] for verdict in run.verdicts}


def test_equal_sets_match_worse_ones_do_not_and_missing_ones_say_so(model: Model, tmp_path: Path, runs: Path) -> None:
    best = marks(0.8, seed=1)
    record(model, "base", marks(0.1, seed=9)).save(tmp_path)
    record(model, "full", best).save(tmp_path)
    record(model, "all-layer", best).save(tmp_path)
    record(model, "lora-r1", marks(0.3, seed=2)).save(tmp_path)
    run = measured(model, tmp_path, runs)
    found = phrases(run)
    assert found["all-layer-matches-full-tuning"] == "same direction"
    assert found["lora-r1-matches-full-tuning"] == "opposite"
    assert found["lora-r4-matches-full-tuning"] == ("not testable here, because no set lora-r4 of this model and task")
    rows = part(run.frame, part="accuracy").set_index("kind")
    assert rows.loc["full", "accuracy"] == 0.8 and rows.loc["lora-r1", "difference"] == pytest.approx(-0.5)
    assert rows.loc["full", "gain"] == pytest.approx(0.7)
    missing = part(run.frame, part="missing")
    assert "not testable here, because no set lora-r4" in " ".join(missing["reason"])
    overlap = part(run.frame, part="overlap").set_index("kind")
    assert overlap.loc["all-layer", "jaccard"] == 1.0 > overlap.loc["all-layer", "expected_high"]


def test_without_full_tuning_or_with_another_budget_nothing_is_decided(
    model: Model, tmp_path: Path, runs: Path
) -> None:
    record(model, "base", marks(0.1, seed=9)).save(tmp_path)
    record(model, "all-layer", marks(0.8, seed=1)).save(tmp_path)
    assert "no evaluation of full tuning" in phrases(measured(model, tmp_path, runs))["all-layer-matches-full-tuning"]
    record(model, "full", marks(0.8, seed=1), rollouts=200).save(tmp_path)
    assert "equally many completions" in phrases(measured(model, tmp_path, runs))["all-layer-matches-full-tuning"]
    record(model, "full", marks(0.1, seed=1)).save(tmp_path)
    assert "full tuning gains 0.0 points" in phrases(measured(model, tmp_path, runs))["all-layer-matches-full-tuning"]


def test_a_record_of_other_weights_or_another_task_does_not_count(model: Model, tmp_path: Path, runs: Path) -> None:
    record(model, "full", marks(0.8, seed=1)).save(tmp_path)
    record(model, "all-layer", marks(0.8, seed=1), fingerprint="other").save(tmp_path)
    record(model, "lora-r1", marks(0.8, seed=1), task="other").save(tmp_path)
    rows = part(measured(model, tmp_path, runs).frame, part="seeds")
    assert set(rows["kind"]) == {"base", "full"}


def test_the_full_tuning_that_was_held_against_most_sets_is_compared_with(
    model: Model, tmp_path: Path, runs: Path
) -> None:
    vectors, other = toys.planted(model, scale=20.0), toys.planted(model, scale=-20.0)
    vectors.save(tmp_path / "all-layer@0.safetensors")
    for seed, full in enumerate((other, vectors)):
        found = change(model, full.edits())
        known = {"kl": {"all-layer@0": found.kl["base"]}, "of": {"all-layer@0": vectors.digest}} if seed else {}
        record(model, "full", marks(0.8, seed=1), seed=seed, change=found.model_copy(update=known)).save(tmp_path)
    row = part(measured(model, tmp_path, runs, texts=4).frame, part="change", kind="all-layer").iloc[0]
    assert row["cosine"] == pytest.approx(1.0, abs=1e-3) and np.isfinite(row["kl"])


def test_a_record_of_a_set_that_was_trained_anew_does_not_count(model: Model, tmp_path: Path, runs: Path) -> None:
    old, new = toys.planted(model, scale=20.0), toys.planted(model, scale=10.0)
    new.save(tmp_path / "all-layer@0.safetensors")
    then = change(model, new.edits())
    for digest, of, source in ((old.digest, old.digest, "live"), (new.digest, new.digest, "record")):
        noted = then.model_copy(update={"kl": {"all-layer@0": then.kl["base"]}, "of": {"all-layer@0": of}})
        record(model, "full", marks(0.8, seed=1), change=noted).save(tmp_path)
        record(model, "all-layer", marks(0.8, seed=1), digest=digest).save(tmp_path)
        frame = measured(model, tmp_path, runs, texts=4).frame
        assert set(part(frame, part="answers", kind="all-layer")["source"]) == {source}
        row = part(frame, part="change", kind="all-layer").iloc[0]
        assert np.isfinite(row.get("kl", np.nan)) == (source == "record")


def test_seeds_are_averaged_within_a_problem_and_shown_as_points(model: Model, tmp_path: Path, runs: Path) -> None:
    record(model, "full", marks(0.5, seed=1)).save(tmp_path)
    for seed, share in ((0, 0.4), (1, 0.6)):
        record(model, "all-layer", marks(share, seed=seed + 5), seed=seed).save(tmp_path)
    frame = measured(model, tmp_path, runs).frame
    assert list(part(frame, part="seeds", kind="all-layer")["accuracy"]) == pytest.approx([0.4, 0.6])
    row = part(frame, part="accuracy", kind="all-layer").iloc[0]
    assert row["accuracy"] == pytest.approx(0.5) and row["seeds"] == 2 and row["difference"] == pytest.approx(0)


def test_weights_that_ship_are_evaluated_on_the_records_streams(model: Model, tmp_path: Path, runs: Path) -> None:
    vectors = toys.planted(model, scale=20.0)
    vectors.save(tmp_path / "all-layer@0.safetensors")
    record(model, "full", marks(0.8, seed=1), change=change(model, vectors.edits())).save(tmp_path)
    run = measured(model, tmp_path, runs, texts=4)
    task = toys.task()
    score = evaluate(model, vectors.edits(), task, task.problems("test")[:8], temperature=1.0)
    own = part(run.frame, part="answers", kind="all-layer")
    assert set(own["source"]) == {"live"}
    assert "".join(str(int(mark)) for mark in own["right"]) == score.marks["right"]
    rows = part(run.frame, part="change").set_index(["kind", "seed"])
    assert rows.loc[("all-layer", 0), "cosine"] == pytest.approx(1.0, abs=1e-3)
    assert np.isfinite(rows.loc[("base", 0), "kl"]) and rows.loc[("base", 0), "kl"] > 0
    random = rows.loc["random"]["cosine"]
    assert len(random) == 3 and float(random.abs().max()) < 0.7
    assert "equally many" in phrases(run)["all-layer-matches-full-tuning"]


def test_overlap_by_hand() -> None:
    base = {"a": 0.0, "b": 0.0, "c": 0.0, "d": 1.0}
    one, other = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0}, {"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0}
    names = ["a", "b", "c"]
    flips = flipped(base, one, names), flipped(base, other, names)
    assert [list(flip) for flip in flips] == [[True, True, False], [True, False, True]]
    assert jaccard(*flips) == pytest.approx(1 / 3)
    assert np.isnan(jaccard(np.array([False]), np.array([False])))
    # two of three against two of three: they share one or two, with probability 2/3 and 1/3
    drawn = expected_jaccard(*flips, ["t"] * 3, draws=6000, seed=0)
    assert drawn.mean() == pytest.approx(2 / 3 * 1 / 3 + 1 / 3 * 1, abs=0.02)
    # within strata of one problem each nothing moves
    assert set(expected_jaccard(*flips, names, draws=5, seed=0)) == {jaccard(*flips)}
    assert cosine_of(np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0]])) == pytest.approx(2**-0.5)


def test_a_set_at_the_margin_matches_in_at_most_5_percent_of_runs() -> None:
    import pandas as pd

    from experiments.match_full_tuning import _compared  # pyright: ignore[reportPrivateUsage]

    generator = np.random.default_rng(0)
    same: list[bool] = []
    for _ in range(200):
        names = [str(index) for index in range(100)]
        draws = {
            kind: dict(zip(names, (generator.random(100) < p).astype(float), strict=True))
            for kind, p in (("base", 0.1), ("full", 0.7), ("all-layer", 0.65))
        }
        rows = [_compared(kind, mean, draws) for kind, mean in draws.items()]
        seeds = [{"part": "seeds", "kind": kind, "rollouts": 1} for kind in draws]
        frame = pd.DataFrame([*rows, *seeds]).assign(temperature=1.0)
        same.append(judge(frame, "all-layer", 1.0).phrase == "same direction")
    assert np.mean(same) <= 0.05


@pytest.mark.slow
def test_on_the_embedded_model_it_shows_what_ships(runs: Path) -> None:
    from interp import load_model, load_task

    embedded = load_model("smollm2-135m-instruct")
    run = MatchFullTuning.at("smoke", temperatures=(1.0,)).run(
        embedded, None, load_task("word-problems"), out=runs, progress=False
    )
    assert {"base", "all-layer"} <= set(part(run.frame, part="accuracy")["kind"])
    assert len(run.verdicts) == 3
    assert torch.isfinite(torch.tensor(part(run.frame, part="accuracy")["accuracy"].to_numpy())).all()
