"""Both experiments on a tiny random model with a random autoencoder of the change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import FeatureCorrectness, SaeAttribution
from experiments.feature_correctness_texts import before_answer, said
from experiments.sae_attribution import judge_rank
from experiments.sae_attribution_frames import Pick, rank, slope
from interp.context import Context
from interp.errors import UserError
from interp.model import Model
from interp.run import Run
from interp.store import Store
from interp.summaries import difference
from tests.experiments import toys
from tests.sae.toys import folder


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def vectors(model: Model) -> Any:
    first, last = toys.random(model, scale=6.0, layers=(0,)), toys.planted(model, scale=18.0)
    return (first + last).together()


@pytest.fixture(scope="module")
def path(model: Model, vectors: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(folder(tmp_path_factory.mktemp("sae"), model, vectors))


@pytest.fixture(scope="module")
def attribution(model: Model, vectors: Any, path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    experiment = SaeAttribution(n=9, sae=path, train_n=4, draws=4, beside_at_most=6)
    yield experiment.run(model, vectors, toys.task(), out=tmp_path_factory.mktemp("a"), progress=False)


@pytest.fixture(scope="module")
def correctness(model: Model, vectors: Any, path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    settings = {"n": 12, "associate_n": 12, "samples": 6, "sae": path, "permutations": 30, "null_draws": 40}
    experiment = FeatureCorrectness.model_validate({**settings, "draws": 3, "reported": 4})
    task = toys.task(splits={"train": 4, "validation": 12, "test": 12})
    yield experiment.run(model, vectors, task, out=tmp_path_factory.mktemp("c"), progress=False)


def test_attribution_frames_add_up(attribution: Run) -> None:
    frame: Any = attribution.frame
    assert set(frame["part"]) == {"features", "nodes", "fit", "explained", "summary", "vector"}
    keys = ["example", "metric"]
    own = frame[(frame["part"] == "features") & (frame["dictionary"] == "sae") & (frame["vector"] == "trained")]
    assert set(own["chosen"]) == {"all"}
    nodes = frame[(frame["part"] == "nodes") & (frame["dictionary"] == "sae")]
    summed = own.groupby(keys)["attribution"].sum()
    told = nodes[nodes["node"] == "features"].set_index(keys)["attribution"]
    assert summed.to_dict() == pytest.approx(told.to_dict(), rel=1e-3, abs=1e-5)
    whole = nodes.pivot_table(index=keys, columns="node", values="attribution")
    assert np.allclose(whole["whole"], whole[["features", "error", "bias"]].sum(axis=1), atol=1e-5)
    shuffled = frame[(frame["part"] == "fit") & (frame["vector"] == "shuffled-attribution")]
    assert shuffled.groupby(["example", "dictionary", "metric"]).size().unique().tolist() == [4]
    assert frame["quality"].fillna("").eq("").all()


def test_attribution_tracks_ablation_in_a_real_network_and_shuffled_ones_do_not(attribution: Run) -> None:
    frame: Any = attribution.frame
    rows = frame[
        (frame["part"] == "summary") & (frame["statistic"] == "rank_correlation") & (frame["dictionary"] == "sae")
    ]
    own = rows[(rows["vector"] == "trained") & (rows["metric"] == "log_prob")]["value"]
    assert own.empty or float(own.iloc[0]) > 0.3
    shuffled = rows[rows["vector"] == "shuffled-attribution"]["value"]
    assert float(shuffled.abs().mean()) < 0.35
    spoilt = frame.copy()
    drawn = spoilt[(spoilt["vector"] == "shuffled-attribution") & (spoilt["part"] == "summary")]
    one = (spoilt["part"] == "summary") & (spoilt["statistic"] == "rank_correlation") & (spoilt["vector"] == "trained")
    spoilt.loc[one, "value"] = float(drawn["value"].iloc[0])
    spoilt.loc[one, ["low", "high"]] = [[float(drawn["value"].iloc[0]) - 0.2, float(drawn["value"].iloc[0]) + 0.2]]
    assert judge_rank(spoilt).phrase != "same direction"


def test_random_vectors_stand_beside_the_vector_in_the_decoder(attribution: Run) -> None:
    frame: Any = attribution.frame
    rows = frame[frame["part"] == "vector"]
    assert rows.groupby("vector")["draw"].nunique().to_dict() == {"trained": 1, "random-isotropic": 4}
    assert set(rows["layer"]) == {0.0}  # the vector of block 2 does not enter the change at block 1
    assert rows["cosine"].between(0, 1).all()


def test_slopes_and_ranks_by_hand() -> None:
    assert slope(np.array([0.0, 1, 2]), np.array([1.0, 3, 5])) == 2.0
    assert rank(np.array([1.0, 2, 3, 4]), np.array([1.0, 4, 9, 16])) == pytest.approx(1.0)
    assert rank(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1.0)
    assert np.isnan(rank(np.ones(4), np.arange(4.0)))
    picked = Pick(4, 1, (0, 0), "kl").features([0, 1, 2, 3, 4, 5], torch.tensor([0.0, 5, -9, 1, 2, 3]))
    assert [name for name, why in picked.items() if why == "top"] == [2, 1]
    assert sorted(picked.values()) == ["random", "random", "top", "top"]


def test_features_are_chosen_on_validation_problems_and_reported_on_test(correctness: Run) -> None:
    frame: Any = correctness.frame
    assert set(frame["part"]) >= {"features", "null", "accuracy", "answers", "tokens", "completions"}
    rows = frame[frame["part"] == "features"]
    by_half = rows.groupby("half")["feature"].apply(list)
    assert by_half["discovery"] == by_half["held-out"]
    scores = rows[rows["half"] == "discovery"]["score"].abs().tolist()
    assert scores == sorted(scores, reverse=True)
    answers = frame[frame["part"] == "answers"]
    assert all(str(example).startswith("test") for example in answers["example"])
    assert len(frame[(frame["part"] == "null") & (frame["vector"] == "permuted-labels")]) == 40
    chosen = rows[rows["rank"] == 1]["feature"].unique().tolist()
    ablated = frame[(frame["part"] == "accuracy") & (frame["vector"] == "ablated")]
    assert ablated["feature"].tolist() == chosen
    whole, own = (answers[answers["vector"] == name] for name in ("trained", "ablated"))
    by_hand = difference(whole["right"], own["right"], whole["example"])
    assert float(ablated["drop"].iloc[0]) == pytest.approx(by_hand.estimate)
    assert float(ablated["drop_low"].iloc[0]) <= by_hand.low and by_hand.high <= float(ablated["drop_high"].iloc[0])


def test_tokens_carry_the_activations_of_features(correctness: Run) -> None:
    frame: Any = correctness.frame
    tokens = frame[frame["part"] == "tokens"]
    assert tokens["activation"].ge(0).all() and tokens["activation"].gt(0).any()
    assert tokens.groupby(["feature", "context"])["position"].apply(lambda p: sorted(p) == list(range(len(p)))).all()


def test_the_tokens_before_the_answer(model: Model, vectors: Any, tmp_path: Path) -> None:
    ids = model.tokenizer.encode("so \\boxed{1} or \\boxed{2}", add_special_tokens=False)
    assert model.decode([ids[: before_answer(model, ids)]])[0] == "so \\boxed{1} or "
    assert before_answer(model, ids[:2]) == 2
    ctx = Context(model, vectors, toys.task(), 4, 0, Store(tmp_path))
    rows = said(ctx, ctx.problems(), vectors.edits(), 3)
    assert [(row.problem, row.sample) for row in rows] == [(p, s) for p in range(4) for s in range(3)]


def test_an_autoencoder_of_other_vectors_is_refused(model: Model, vectors: Any, path: str, runs: Path) -> None:
    with pytest.raises(UserError, match="describes the change by other vectors"):
        SaeAttribution(n=2, sae=path).run(model, 2 * vectors, toys.task(), out=runs, progress=False)
    with pytest.raises(UserError, match="no autoencoder of the change by these vectors"):
        FeatureCorrectness(n=2).run(model, vectors, toys.task(), out=runs, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SaeAttribution, FeatureCorrectness])
def test_on_the_embedded_model_every_part_is_measured(kind: Any, runs: Path) -> None:
    run = kind.at("smoke").run(
        "smollm2-135m-instruct", "smollm2-135m-instruct/all-layer", "word-problems", out=runs, progress=False
    )
    assert len(run.frame)
    assert all(verdict["phrase"].startswith("not testable here") for verdict in run.verdicts)


@pytest.mark.parametrize("kind", [SaeAttribution, FeatureCorrectness])
def test_adapters_stand_in_place_of_vectors(model: Model, kind: Any, runs: Path, tmp_path: Path) -> None:
    """With an autoencoder of their change; the vector that is encoded is what they add on average."""
    adapters = 3 * toys.adapters(model, trained="together")
    path = str(folder(tmp_path / "sae", model, adapters))
    settings: dict[str, Any] = {"n": 8, "sae": path, "draws": 3}
    settings |= {"train_n": 4, "at_most": 4, "beside_at_most": 4} if kind is SaeAttribution else {"associate_n": 8}
    task = toys.task(splits={"train": 4, "validation": 8, "test": 12})
    run = kind.model_validate(settings).run(model, adapters, task, out=runs, progress=False)
    assert "trained" in set(run.frame["vector"])
    assert run.verdicts
    if kind is SaeAttribution:
        assert set(run.frame.loc[run.frame["part"] == "vector", "layer"]) == {0, 1}
    with pytest.raises(UserError, match="no autoencoder of the change by these vectors"):
        kind(n=2).run(model, adapters, task, out=runs, progress=False)
