"""Geometry by hand, random directions as random, planted agreement as agreement."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import VectorGeometry
from experiments.controls import other_seeds
from experiments.geometry_frames import Nulls, against, between, isotropic, judge, null_means, ranks, stable_rank, unit
from experiments.texts import texts
from interp.context import Context
from interp.errors import UserError
from interp.model import Model
from interp.store import Store
from tests.experiments import toys
from vectors import SteeringVectors
from vectors.card import Card

WIDTH, BLOCKS = 32, 8


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def nulls() -> Nulls:
    generator = torch.Generator().manual_seed(1)
    scale = torch.linspace(0.3, 3, WIDTH)
    tokens = {layer: scale * torch.randn(300, WIDTH, generator=generator) for layer in range(BLOCKS)}
    return Nulls.of(tokens, draws=200, seed=0)


def made(rows: torch.Tensor) -> SteeringVectors:
    from vectors import Card

    return SteeringVectors(rows, tuple(range(len(rows))), Card(name="toy", d_model=rows.shape[1], trained="apart"))


def random(seed: int) -> SteeringVectors:
    return made(torch.randn(BLOCKS, WIDTH, generator=torch.Generator().manual_seed(seed)))


def rows_of(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def test_isotropic_random_directions_have_the_expected_cosines() -> None:
    draws = unit(torch.randn(40_000, 2, WIDTH, generator=torch.Generator().manual_seed(0)))
    cosines = (draws[:, 0] * draws[:, 1]).sum(-1).abs()
    expected, high = isotropic(WIDTH)
    assert float(cosines.mean()) == pytest.approx(expected, rel=0.02)
    assert float((cosines < high).float().mean()) == pytest.approx(0.95, abs=0.005)
    assert isotropic(3)[0] == pytest.approx(0.5)  # |cos| is uniform on a sphere


def test_random_directions_of_a_stream_have_larger_cosines_where_it_has_few_directions(nulls: Nulls) -> None:
    loud = torch.zeros(WIDTH)
    loud[-1] = 2.0
    frame = between(made(loud.expand(2, -1)), nulls)
    assert list(frame["cosine"]) == pytest.approx([1.0])
    assert float(frame["covariance_abs"].iloc[0]) > 1.5 * float(frame["isotropic_abs"].iloc[0])


def test_stable_rank_counts_directions(nulls: Nulls) -> None:
    assert stable_rank(torch.eye(4)) == pytest.approx(4)
    assert stable_rank(torch.ones(3, 5)) == pytest.approx(1)
    assert stable_rank(torch.diag(torch.tensor([2.0, 1.0]))) == pytest.approx(1.25)
    rows = torch.zeros(BLOCKS, WIDTH)
    rows[:, 0] = torch.arange(1, BLOCKS + 1)
    frame = ranks(made(rows), nulls, draws=20, seed=0).set_index(["vector", "matrix"])
    assert frame.loc[("trained", "as given"), "stable_rank"] == pytest.approx(1)
    unit_rows = frame.loc[("random-isotropic", "unit rows")]
    assert 3 < unit_rows["stable_rank_low"] < unit_rows["stable_rank"] < unit_rows["stable_rank_high"] < BLOCKS


def judged(own: SteeringVectors, other: SteeringVectors, nulls: Nulls) -> str:
    both = [against(own, other, nulls), null_means(own, own.layers, nulls)]
    frame = pd.concat(both, ignore_index=True).assign(set="other", relation="seed")
    return judge(frame, "seed", "seeds-agree", margin=0.1).phrase


def test_planted_agreement_is_found_and_its_opposite(nulls: Nulls) -> None:
    own = random(0)
    assert judged(own, own + 0.5 * random(1), nulls) == "same direction"
    assert judged(own, -own, nulls) == "opposite"
    few = own.only((0, 1, 2))
    assert judged(few, few, nulls).startswith("not testable here, because 3 blocks have vectors in both sets")
    empty = pd.DataFrame({"part": [], "relation": [], "set": [], "cosine": []})
    assert judge(empty, "probe", "", margin=0.1).because == "there is no such set of vectors for this model"


def test_random_sets_agree_in_at_most_5_percent(nulls: Nulls) -> None:
    same = [judged(random(2 * seed), random(2 * seed + 1), nulls) == "same direction" for seed in range(60)]
    assert np.mean(same) <= 0.05


def test_norms_are_compared_with_the_median_of_the_stream(model: Model, tmp_path: Path) -> None:
    vectors = toys.random(model, scale=3.0, layers=(0, 1, 2))
    ctx = Context(model=model, task=toys.task(), vectors=vectors, n=6, store=Store(tmp_path))
    experiment = VectorGeometry(n=6, draws=50, baselines=())
    frame = experiment.measure(ctx, experiment.cells(ctx))
    said = texts(ctx, keep=[0, 1, 2])
    stream = said.forced.base_at(1)[said.where("prompt", "generated")].norm(dim=1).median()
    row = rows_of(frame, part="norms", layer=1).iloc[0]
    assert (row["norm"], row["residual_norm"]) == pytest.approx((3.0, float(stream)), rel=1e-5)
    assert row["relative"] == pytest.approx(3.0 / float(stream), rel=1e-5)
    small = Context(model=model, task=toys.task(), vectors=vectors, n=6, store=ctx.store, memory=1e-5)
    again = experiment.measure(small, experiment.cells(small))
    np.testing.assert_allclose(again["covariance_abs"].dropna(), frame["covariance_abs"].dropna(), atol=1e-5)


def test_other_sets_enter_the_key_and_unknown_seeds_are_refused(model: Model, tmp_path: Path) -> None:
    vectors = toys.random(model, scale=3.0, layers=(0, 1, 2))
    other = vectors + toys.random(model, scale=0.1, layers=(0, 1, 2), seed=3)
    path = other.save(tmp_path / "seed-1.safetensors")
    ctx = Context(model=model, task=toys.task(), vectors=vectors, n=4, store=Store(tmp_path))
    experiment = VectorGeometry(n=4, draws=50, baselines=(), seeds=(str(path),))
    assert experiment.inputs(ctx) == {str(path): other.digest}
    assert VectorGeometry(baselines=()).inputs(ctx) == {}
    frame = experiment.measure(ctx, experiment.cells(ctx))
    rows = rows_of(frame, part="against", relation="seed")
    assert len(rows) == 3 and float(rows["cosine"].min()) > 0.99 and set(rows["digest"]) == {other.digest}
    with pytest.raises(UserError, match="no such vectors for this model"):
        VectorGeometry(seeds=("lora-r1",)).inputs(ctx)


def test_other_seeds_are_found_by_the_name_of_the_set(model: Model, tmp_path: Path) -> None:
    def found(name: str) -> tuple[str, ...]:
        card = Card(name=name, d_model=model.d_model)
        vectors = SteeringVectors(torch.ones(1, model.d_model), (0,), card)
        return other_seeds(Context(model=model, task=toys.task(), vectors=vectors, n=4, store=Store(tmp_path)))

    stem = "smollm2-135m-instruct/all-layer"
    assert f"{stem}@1" in found(f"{stem}@0") and f"{stem}@0" not in found(f"{stem}@0")
    assert f"{stem}@0" in found(f"{stem}@1") and {name.partition("@")[0] for name in found(f"{stem}@1")} == {stem}
    assert found("mine") == found("") == ()


def test_baselines_are_those_of_the_models_own_completions(model: Model, runs: Path) -> None:
    from vectors.from_model import baseline

    vectors = toys.random(model, scale=3.0, layers=(0, 1, 2))
    prompts = [toys.task().prompt(model.tokenizer, problem) for problem in toys.task().problems("train", 8)]
    openings = Counter(text[:1] for text in model.generate(prompts, max_new_tokens=5, samples=24).texts)
    task = toys.task(answer=next(first for first, _ in openings.most_common() if first.isalnum()))
    run = VectorGeometry(n=4, train_n=8, samples=24, draws=50).run(model, vectors, task, out=runs, progress=False)
    for method in ("mean-difference", "probe"):
        expected = baseline(model, task, method, n=8, samples=24)
        cosines = [float(unit(vectors[k]) @ unit(expected[k])) for k in (0, 1, 2)]
        rows = rows_of(run.frame, part="against", relation=method)
        assert list(rows["cosine"]) == pytest.approx(cosines, abs=1e-4)
    assert len(run.verdicts) == 4
    never = VectorGeometry(n=4, train_n=2, draws=50, seed=1).run(
        model, vectors, toys.task(answer="<"), out=runs, progress=False
    )
    assert "against" not in set(never.frame["part"])


@pytest.mark.slow
def test_on_the_embedded_model_the_shipped_set_is_measured(runs: Path) -> None:
    from interp import load_model, load_task

    run = VectorGeometry.at("smoke").run(
        load_model("smollm2-135m-instruct"),
        "smollm2-135m-instruct/all-layer",
        load_task("word-problems"),
        out=runs,
        progress=False,
    )
    assert len(rows_of(run.frame, part="norms")) == 30
    assert len(rows_of(run.frame, part="between")) == 435
    assert 0 < float(rows_of(run.frame, part="norms")["relative"].max()) < 2
