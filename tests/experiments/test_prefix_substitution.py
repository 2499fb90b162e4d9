"""PrefixSubstitution: a planted token is found on training problems, written, and ranked; random vectors find none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import PrefixSubstitution
from experiments.openers import Openers, choices
from experiments.prefix_substitution import as_controls, judge
from interp.context import Context
from interp.model import Model
from interp.run import Run
from interp.store import Store
from interp.tasks.task import Problem, Task
from tests.experiments import toys

SETTINGS: dict[str, Any] = {"openers": 3, "train_n": 6, "draws": 4, "matched_n": 3}


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def run(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    experiment = PrefixSubstitution.at("quick", n=16, **SETTINGS)
    out = tmp_path_factory.mktemp("planted")
    yield experiment.run(model, toys.planted(model, scale=20.0), toys.task(), out=out, progress=False)


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def test_a_planted_token_is_chosen_and_writing_it_solves_every_problem(run: Run) -> None:
    chosen = part(run.frame, part="tokens", vector="trained")
    assert list(chosen["token"]) == [toys.ANSWER]
    written = part(run.frame, part="accuracy", vector="prefix", stratum="all").iloc[0]
    assert written["token"] == toys.ANSWER
    assert (written["accuracy"], written["rank"]) == (1.0, 1.0)
    assert written["share"] >= 1.0
    assert [verdict["phrase"] for verdict in run.verdicts] == ["same direction"]
    assert set(part(run.frame, part="references")["vector"]) == {"matched-entropy", "1-shot", "3-shot", "5-shot"}


def test_openers_are_the_bases_likeliest_first_tokens_and_none_of_the_template(model: Model, run: Run) -> None:
    ctx = Context(model=model, task=toys.task(), n=4)
    prompts = ctx.prompts(ctx.problems("train", 6))
    from interp.batch import Batch

    trace = model.run(Batch.of(prompts))
    last = np.asarray(trace.log_probs().exp()[:, -1].mean(0))
    last[[0, 1, 2, 3]] = 0  # the special tokens
    openers = part(run.frame, part="tokens", vector="opener")
    assert list(openers["token_id"]) == list(np.argsort(-last)[:3])
    assert list(openers["p_base"]) == pytest.approx(list(np.sort(last)[::-1][:3]), abs=1e-5)


def test_strata_split_the_problems_and_their_gains_average_to_the_whole(run: Run) -> None:
    for _, rows in part(run.frame, part="accuracy").query("vector in ['prefix', 'opener']").groupby("token_id"):
        whole, strata = rows[rows["stratum"] == "all"].iloc[0], rows[rows["stratum"] != "all"]
        assert strata["n"].sum() == whole["n"] == 16
        assert float(np.average(strata["gain"], weights=strata["n"])) == pytest.approx(float(whole["gain"]))


def test_controls_take_the_gain_of_the_token_they_chose() -> None:
    rows = [("base", -1, 0.0), ("prefix", 5, 0.5), ("prefix", 6, 0.25), ("prefix", 7, -0.5)]
    found = pd.DataFrame([{"vector": v, "draw": 0, "token_id": t, "gain": g, "stratum": "all"} for v, t, g in rows])
    chosen = [("trained", 0, 5), ("opener", 0, 6), ("permuted", 0, 7), ("permuted", 1, 6)]
    tokens = pd.DataFrame([{"vector": v, "draw": d, "token_id": t, "u": 0.1, "p_base": 0.2} for v, d, t in chosen])
    named = as_controls(found, tokens).set_index(["vector", "draw"])
    assert named.loc[("permuted", 0), "gain"] == -0.5 and named.loc[("permuted", 1), "gain"] == 0.25
    assert named.loc[("prefix", 0), "rank"] == 1 and named.loc[("opener", 0), "rank"] == 2
    assert set(named.index.get_level_values("vector")) == {"base", "prefix", "opener", "permuted"}


def test_tokens_of_random_vectors_come_out_in_the_same_direction_in_at_most_5_percent(model: Model) -> None:
    ctx = Context(model=model, task=toys.task(), n=16, store=Store())
    openers = Openers.of(ctx, 8, toys.LAYERS - 1)
    drawn = [toys.random(model, scale=4.0, seed=seed) for seed in range(90)]
    tokens = [openers.raised(vector)[0] for vector in drawn]
    rng = np.random.default_rng(0)
    gain = {token: float(rng.normal(0, 0.2)) for token in set(tokens)}  # what each token is worth
    same: list[bool] = []
    for start in range(0, 90, 9):
        for place in range(9):
            members = tokens[start : start + 9]
            own, others = gain[members[place]], [gain[t] for at, t in enumerate(members) if at != place]
            rows = [{"vector": "prefix", "draw": 0, "gain": own, "gain_low": own - 0.01, "gain_high": own + 0.01}]
            rows += [{"vector": "random-isotropic", "draw": d, "gain": g} for d, g in enumerate(others)]
            frame = pd.DataFrame(rows).assign(part="accuracy", stratum="all", temperature=1.0, n=64, accuracy=0.5)
            same.append(judge(frame).phrase == "same direction")
    assert len(set(tokens)) > 3
    assert np.mean(same) <= 0.05


def test_no_token_is_chosen_where_nothing_is_kept_for_choosing(model: Model, tmp_path: Any) -> None:
    from interp.errors import UserError

    only = Task("test only", lambda: [Problem("a", "1?", "7")], max_new_tokens=3)
    with pytest.raises(UserError, match="nothing can be chosen"):
        PrefixSubstitution.at("smoke", n=1).run(
            model, toys.planted(model, scale=20.0), only, out=tmp_path, progress=False
        )


def test_the_choice_by_a_vector_is_the_largest_mean_change(model: Model) -> None:
    ctx = Context(model=model, task=toys.task(), n=4)
    openers = Openers.of(ctx, 4, toys.LAYERS - 1)
    frame = choices(openers, toys.planted(model, scale=20.0), {}, 2)
    assert list(frame["vector"]) == ["trained", "opener", "opener"]
    assert frame["u"].iloc[0] > 0.2 and frame["u"].iloc[1:].isna().all()


@pytest.mark.slow
def test_on_the_embedded_model_every_part_is_measured(runs: Any) -> None:
    from interp import load_model, load_task

    embedded, task = load_model("smollm2-135m-instruct"), load_task("word-problems")
    vectors = toys.random(embedded, scale=150.0, layers=(embedded.n_layers - 1,))
    run = PrefixSubstitution.at("smoke").run(embedded, vectors, task, out=runs, progress=False)
    assert set(run.frame["part"]) == {"tokens", "accuracy", "answers"}
    assert all(verdict["phrase"].startswith("not testable here, because") for verdict in run.verdicts)
