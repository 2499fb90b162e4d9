"""SideEffects: hand-worked repetition, a planted selective vector, random vectors, and the counts of McNemar's test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import SideEffects
from experiments.neutral import cost, passages, questions, repetition, sample
from experiments.side_effect_frames import CONTROLLED, damage, judge_selectivity, log_ratio, spread
from experiments.texts import places
from interp.context import Context
from interp.errors import UserError
from interp.model import Model
from interp.store import Store
from interp.summaries import Interval
from tests.experiments import toys

SETTINGS: dict[str, Any] = {
    "n": 16, "n_texts": 10, "length": 12, "n_questions": 8, "answer_tokens": 4, "task_n": 8, "matched_n": 3, "draws": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def ctx(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context(model=model, task=toys.task(), n=16, store=Store(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def frame(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("planted")
    run = SideEffects(**SETTINGS).run(model, toys.planted(model, scale=20.0), toys.task(), out=out, progress=False)
    return run.frame


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def test_the_sample_has_three_kinds_in_its_first_texts_and_no_mathematics() -> None:
    data = sample()
    assert {one["kind"] for one in data["texts"][:5]} == {"prose", "code", "list"} and len(data["texts"]) == 60
    assert "CC0" in data["about"] and "this project" in data["about"]
    assert len({one["text"] for one in data["texts"]}) == 60 and len(set(data["questions"])) == len(data["questions"])
    assert not any(character.isdigit() for question in data["questions"] for character in question)


@pytest.mark.parametrize(
    ("ids", "distinct", "repeated"),
    [
        ((1, 2, 3, 4), 1.0, 0.0),
        ((1, 2, 1, 2), 2 / 3, 0.5),  # pairs 12 21 12; the run 1 2 occurs twice
        ((5, 5, 5, 5), 1 / 3, 0.75),  # the run 5 5 5 occurs at 0 and 1
        ((1, 2, 3, 1, 2, 3, 9), 4 / 6, 3 / 7),
        ((7,), 1.0, 0.0),
        ((), 1.0, 0.0),
    ],
)
def test_repetition_by_hand(ids: tuple[int, ...], distinct: float, repeated: float) -> None:
    assert repetition(ids) == pytest.approx({"distinct": distinct, "repeated": repeated})


def test_cost_is_what_score_gives_without_the_first_token(model: Model, ctx: Context) -> None:
    said, kinds = passages(ctx, 5, 12)
    vectors = [toys.random(model, scale=4.0, layers=(0, 2)).together(), toys.random(model, scale=2.0, seed=1)]
    frames = cost(ctx, said, places(said, "generated", at_most=0), vectors)
    assert kinds == ["prose", "prose", "prose", "code", "list"]
    for vector, found in zip(vectors, frames, strict=True):
        base, steered = model.run(said.batch), model.run(said.batch, vector.edits())
        for row, ids in enumerate(said.batch.ids):
            p, q = (run.log_probs()[row] for run in (steered, base))
            assert found["kl"].tolist()[row] == pytest.approx(float((p.exp() * (p - q)).sum(-1)[1:].mean()), abs=1e-5)
            surprise = -p[1:-1].gather(1, ids[2:, None]).mean()
            assert found["nll"].tolist()[row] == pytest.approx(float(surprise), abs=1e-5)


def test_the_log_ratio_of_two_estimates_by_hand() -> None:
    top, bottom = Interval(4.0, 2.0, 8.0, 9), Interval(1.0, 0.5, 2.0, 8)
    found = log_ratio(top, bottom)
    ln2 = float(np.log(2))
    assert (found.estimate, found.n) == (pytest.approx(2 * ln2), 8)
    assert (found.low, found.high) == (pytest.approx((2 - 2**0.5) * ln2), pytest.approx((2 + 2**0.5) * ln2))


def test_broken_and_fixed_problems_by_hand() -> None:
    base = pd.DataFrame({"vector": "base", "draw": 0, "dose": 0.0, "right": [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]})
    own = pd.DataFrame({"vector": "trained", "draw": 0, "dose": 1.0, "right": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]})
    found = damage(own.iloc[:1][["vector", "draw", "dose"]], pd.concat([base, own]), base).iloc[0]
    assert (found["broken"], found["fixed"], found["broken_share"], found["fixed_share"]) == (3, 1, 0.75, 0.5)
    assert found["p"] == pytest.approx(10 / 16)  # 2 P(at least 3 of 4 heads)


def test_every_part_is_measured_at_every_dose_and_cost_grows_with_it(frame: Any) -> None:
    effect = part(frame, part="effect", vector="trained").sort_values("dose")
    assert list(effect["dose"]) == [0.5, 1.0, 2.0]
    assert effect["kl_neutral"].is_monotonic_increasing and effect["perplexity_base"].nunique() == 1
    accuracy = part(frame, part="accuracy")
    changed = accuracy["fixed"] - accuracy["broken"]
    assert list(changed / 16) == pytest.approx(list(accuracy["gain"]))
    assert part(frame, part="style", vector="base")["repeated_change"].iloc[0] == 0
    kinds = part(frame, part="effect").groupby("vector").size().to_dict()
    assert kinds["random-isotropic"] == 4
    generated = part(accuracy, dose=1.0).groupby("vector").size().to_dict()
    assert sum(count for kind, count in generated.items() if kind != "trained") == 3


def selective(model: Model, ctx: Context, vectors: list[Any]) -> list[dict[str, float]]:
    """Rows of part "effect" of some vectors."""
    from experiments.texts import texts

    neutral, _ = passages(ctx, 10, 12)
    task = texts(ctx, n=10)
    read = cost(ctx, neutral, places(neutral, "generated", at_most=0), vectors)
    own = cost(ctx, task, places(task, "first", "generated", at_most=0), vectors)
    return [
        spread(pd.concat([a.assign(kind="prose"), b.assign(kind="task")])).iloc[0].to_dict()
        for a, b in zip(read, own, strict=True)
    ]


def judged(own: dict[str, float], controls: list[dict[str, float]]) -> str:
    rows = [{**own, "vector": "trained", "draw": 0}]
    rows += [{**one, "vector": CONTROLLED, "draw": draw} for draw, one in enumerate(controls)]
    texts = pd.DataFrame({"part": "texts", "kind": "task", "example": range(10), "vector": "trained"})
    return judge_selectivity(pd.concat([pd.DataFrame(rows).assign(part="effect", dose=1.0), texts])).phrase


def test_random_vectors_come_out_in_the_same_direction_in_at_most_5_percent(model: Model, ctx: Context) -> None:
    rows = selective(model, ctx, [toys.random(model, scale=2.0, seed=seed) for seed in range(27)])
    same = [
        judged(rows[start + place], [one for at, one in enumerate(rows[start : start + 9]) if at != place])
        for start in range(0, 27, 9)
        for place in range(9)
    ]
    assert np.mean([phrase == "same direction" for phrase in same]) <= 0.05


def test_planted_selectivity_is_found_on_either_side(model: Model, ctx: Context) -> None:
    controls = selective(model, ctx, [toys.random(model, scale=2.0, seed=seed) for seed in range(8)])
    for shift, phrase in ((3.0, "same direction"), (-3.0, "opposite")):
        planted = {name: value + shift * name.startswith("selectivity") for name, value in controls[0].items()}
        assert judged(planted, controls[1:]) == phrase


def test_doses_without_the_trained_scale_and_too_many_texts_are_refused(model: Model, ctx: Context) -> None:
    vectors = toys.planted(model, scale=20.0)
    with pytest.raises(UserError, match="must hold 1"):
        SideEffects.at("smoke", doses=(0.5,)).run(model, vectors, toys.task(), out=ctx.store.root, progress=False)
    with pytest.raises(UserError, match="60 neutral texts"):
        passages(ctx, 61, 4)
    with pytest.raises(UserError, match="questions"):
        questions(ctx, 1000)


@pytest.mark.slow
def test_on_the_embedded_model_every_part_is_measured(runs: Path) -> None:
    from interp import load_model, load_task
    from vectors import load_vectors

    embedded, task = load_model("smollm2-135m-instruct"), load_task("word-problems")
    vectors = load_vectors("smollm2-135m-instruct/all-layer", model=embedded)
    run = SideEffects.at("smoke").run(embedded, vectors, task, out=runs, progress=False)
    assert set(run.frame["part"]) == {"texts", "effect", "off-task", "style", "accuracy", "answers"}
    assert all(verdict["phrase"].startswith("not testable here, because") for verdict in run.verdicts)
