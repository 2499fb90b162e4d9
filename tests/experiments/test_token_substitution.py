"""TokenSubstitution on planted effects, on random vectors, and against `Model.score`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import TokenSubstitution
from experiments.controls import MATCHED_POSITIONS, halves
from experiments.first_position import where
from experiments.graded import matched_temperature
from experiments.texts import places, special_ids, steered_at, texts
from experiments.token_effects import chosen_tokens
from experiments.token_frames import Table
from experiments.token_substitution import judge_share
from interp import distributions
from interp.context import Context
from interp.errors import UserError
from interp.model import Model
from interp.positions import Tokens
from interp.readouts import LogOdds
from interp.run import Run
from interp.scoring import positions_of
from interp.store import Store
from tests.experiments import toys

LAST = toys.LAYERS - 1


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def ctx(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Context:
    store = Store(tmp_path_factory.mktemp("runs"))
    return Context(model=model, task=toys.task(), vectors=toys.planted(model, scale=20.0), n=16, store=store)


@pytest.fixture(scope="module")
def run(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    experiment = TokenSubstitution.at("quick", n=16, draws=4, causal_draws=3, chosen=3, named=("+",), at_most=0)
    out = tmp_path_factory.mktemp("planted")
    yield experiment.run(model, toys.planted(model, scale=20.0), toys.task(), out=out, progress=False)


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def phrases(run: Run) -> dict[str, str]:
    return {verdict["claim"]: verdict["phrase"] for verdict in run.verdicts}


def test_a_planted_token_is_found_and_its_first_position_is_enough(run: Run) -> None:
    top = part(run.frame, part="summary", vector="trained", half="held-out", rank=1)
    assert set(top["token"]) == {toys.ANSWER}
    assert float(top["u_low"].min()) > 0.2
    assert float(top["tv_share_low"].min()) > 0.4
    causal = part(run.frame, part="causal").set_index(["vector", "applied"])["accuracy"]
    assert causal["trained", "first"] == causal["trained", "everywhere"] >= 0.3
    assert causal["trained", "all-but-first"] == causal["base", "nowhere"]
    assert phrases(run) == {"single-token": "same direction", "first-token-suffices": "same direction"}


def test_the_share_of_the_gain_is_shown_only_where_its_denominator_is_large(model: Model, run: Run, runs: Path) -> None:
    first = part(run.frame, part="causal", vector="trained", applied="first")
    assert float(first["share"].iloc[0]) == 1.0
    weak = TokenSubstitution(n=8, controls=("random-isotropic",), draws=3, causal_draws=0, chosen=2, at_most=1)
    found = weak.run(model, toys.planted(model, scale=1e-3), toys.task(), out=runs, progress=False)
    assert part(found.frame, part="causal")["share"].isna().all()
    assert phrases(found)["first-token-suffices"].startswith("not testable here, because no completion is right")


def test_controls_are_read_at_the_same_positions_and_do_not_move_the_token(run: Run) -> None:
    positions = part(run.frame, part="positions").groupby(["vector", "draw"])
    sizes = positions.size()
    assert sizes.nunique() == 1
    draws = sizes.groupby("vector").size().to_dict()
    assert draws == {"trained": 1, "negated": 1, "permuted": 4, "random-isotropic": 4, "random-covariance": 4} | {
        name: count for name, count in draws.items() if name == "random-effect-matched"
    }
    rows = part(run.frame, part="summary", stratum="all", half="held-out", token=toys.ANSWER)
    control = rows[rows["vector"] != "trained"]
    assert float(control["u"].abs().max()) < float(part(rows, vector="trained")["u"].iloc[0]) / 5
    assert float(part(rows, vector="negated")["delta_log_odds"].iloc[0]) < 0


def test_rows_are_what_score_gives_and_summaries_are_their_means(model: Model, ctx: Context, run: Run) -> None:
    said = texts(ctx)
    token = toys.token(model)
    scored: Any = model.score(said.batch, toys.planted(model, scale=20.0).edits(), ["kl", "delta_p", LogOdds((token,))])
    template = scored["token_id"].isin(sorted(special_ids(model))) & (scored["position"] > 0)
    scored = scored[~template].copy()
    scored["example"] = [said.examples[row] for row in scored["row"]]
    keep = ["example", "position"]
    own = part(run.frame, part="positions", vector="trained")
    own = own[own["stratum"] != "template"].merge(scored, on=keep, suffixes=("", "_scored"))
    assert len(own) == len(scored)
    assert list(own["kl"]) == pytest.approx(list(own["kl_scored"]), abs=1e-5)
    assert list(own["max_dp"]) == pytest.approx(list(own["max_dp_scored"]), abs=1e-6)
    scored["u"] = [change[0] for change in scored["delta_p"]]
    held_out = [said.examples[row] for row in halves(16, 0)[1]]
    by_hand = scored[scored["example"].isin(held_out)].groupby("example")["u"].mean().mean()
    summary = part(run.frame, part="summary", vector="trained", half="held-out", stratum="all", token=toys.ANSWER)
    assert float(summary["u"].iloc[0]) == pytest.approx(float(by_hand), abs=1e-6)
    chosen = part(run.frame, part="chosen", token=toys.ANSWER).merge(scored, on=keep, suffixes=("", "_scored"))
    assert list(chosen["delta_p"]) == pytest.approx(list(chosen["u_scored"]), abs=1e-6)


def test_a_token_that_takes_all_that_moves_has_half_of_the_total_variation(run: Run) -> None:
    rows = part(run.frame, part="summary")
    assert float(rows["tv_share"].max()) <= 0.5 + 1e-6


def test_tokens_are_chosen_without_a_look_at_the_other_half(model: Model, ctx: Context) -> None:
    said = texts(ctx)
    at = places(said, "first", "generated", at_most=0)
    choosing, reporting = halves(len(said.examples), 0)
    assert sorted([*choosing, *reporting]) == list(range(16))
    final = steered_at(said, toys.random(model, scale=20.0), at.where)
    spoilt = final.clone()
    spoilt[torch.isin(at.row, torch.tensor(reporting))] += 30 * torch.randn(model.d_model)
    assert torch.equal(
        chosen_tokens(model, said, at, final, choosing, 5), chosen_tokens(model, said, at, spoilt, choosing, 5)
    )


def test_random_vectors_come_out_in_the_same_direction_in_at_most_5_percent(model: Model, ctx: Context) -> None:
    said = texts(ctx)
    at = places(said, "first", "generated", at_most=0)
    split = halves(len(said.examples), 0)
    finals = [steered_at(said, toys.random(model, scale=10.0, seed=seed), at.where) for seed in range(27)]
    own = Table(model, said, at, split, torch.zeros(3, 1, dtype=torch.long))
    controls = [own.concentration(effect) for effect in own.effects(finals)]
    same: list[bool] = []
    for start in range(0, 27, 9):
        group = [frame.assign(vector="random-isotropic", draw=d) for d, frame in enumerate(controls[start : start + 9])]
        for place in range(9):
            final = finals[start + place]
            selected = chosen_tokens(model, said, at, final, split[0], 1)
            table = Table(model, said, at, split, selected)
            summary = table.summary(table.effects([final])[0], intervals=True).assign(vector="trained")
            others = [frame for d, frame in enumerate(group) if d != place]
            same.append(judge_share(pd.concat([summary, *others])).phrase == "same direction")
    assert np.mean(same) <= 0.05


def test_where_the_first_token_is_predicted_and_everywhere_else_make_everything(model: Model, ctx: Context) -> None:
    said = texts(ctx)
    batch = said.batch
    rows = torch.arange(len(batch))
    tokens = Tokens(batch.ids, batch.position, batch.prompt_len, rows, str)
    first = where("first", 100).mask(tokens) & batch.mask
    rest = where("all-but-first", 100).mask(tokens) & batch.mask
    assert torch.equal(first, batch.position == batch.prompt_len[:, None] - 1)
    assert torch.equal(rest, batch.mask & ~first)
    assert bool((said.where("first") == first).all())
    assert not bool((said.where("generated") & ~positions_of(model, batch, where("everywhere", 0))).any())


def test_the_base_is_as_sharp_as_the_steered_model_at_the_matched_temperature(
    model: Model, ctx: Context, run: Run
) -> None:
    said = texts(ctx)
    at = places(said, "first", "generated", at_most=MATCHED_POSITIONS)
    log_p = distributions.log_probs(model, said.forced.base[at.where])
    for wanted in (0.7, 1.0, 1.6):
        target = float(distributions.entropy((log_p / wanted).log_softmax(-1)).mean())
        assert matched_temperature(ctx, target) == pytest.approx(wanted, abs=0.02)
    assert matched_temperature(ctx, 0.0) == 0.05
    sharp = part(run.frame, part="entropy-matched")
    steered = part(run.frame, part="causal", vector="trained", applied="everywhere")
    assert float(sharp["temperature"].iloc[0]) < 1
    assert float(sharp["entropy"].iloc[0]) == pytest.approx(float(steered["entropy"].iloc[0]), abs=0.5)


def test_a_task_without_answers_is_read_without_the_causal_test(model: Model, runs: Path) -> None:
    experiment = TokenSubstitution(n=4, draws=3, controls=("random-isotropic",), chosen=2, at_most=1)
    run = experiment.run(model, toys.planted(model, scale=20.0), toys.task(answer=None), out=runs, progress=False)
    assert "causal" not in set(run.frame["part"])
    assert phrases(run)["first-token-suffices"] == "not testable here, because no completions were graded"


def test_a_named_token_must_be_one_token_and_is_reported(model: Model, run: Run, runs: Path) -> None:
    named = part(run.frame, part="chosen", chosen_by="named")
    assert set(named["token"]) == {"+"}
    with pytest.raises(UserError, match="single token"):
        TokenSubstitution.at("smoke", named=("++",)).run(
            model, toys.planted(model, scale=20.0), toys.task(), out=runs, progress=False
        )


def test_vectors_that_do_not_fit_and_unknown_controls_are_refused(model: Model, runs: Path) -> None:
    smoke = TokenSubstitution.at("smoke")
    with pytest.raises(UserError, match="no such layer"):
        smoke.run(model, toys.random(model, scale=1.0, layers=(toys.LAYERS,)), toys.task(), out=runs, progress=False)
    with pytest.raises(UserError, match="no such control"):
        TokenSubstitution.at("smoke", controls=("randm",)).run(
            model, toys.planted(model, scale=20.0), toys.task(), out=runs, progress=False
        )


def test_another_block_is_a_control_where_the_set_has_several(model: Model, runs: Path) -> None:
    vectors = toys.random(model, scale=5.0, layers=(0, 1, 2))
    experiment = TokenSubstitution(n=4, controls=("other-block",), chosen=2, at_most=1, temperatures=())
    run = experiment.run(model, vectors, toys.task(), out=runs, progress=False)
    assert set(run.frame["layer"]) == {LAST}
    assert run.frame.groupby("vector")["draw"].nunique().to_dict() == {"trained": 1, "other-block": 2}


@pytest.mark.slow
def test_on_the_embedded_model_every_part_is_measured_and_four_problems_decide_nothing(runs: Path) -> None:
    from interp import load_model, load_task

    embedded = load_model("smollm2-135m-instruct")
    row = torch.randn(1, embedded.d_model, generator=torch.Generator().manual_seed(0))
    vectors = toys.wrap(embedded, 150 * row / row.norm(), (embedded.n_layers - 1,))
    task = load_task("word-problems")
    run = TokenSubstitution.at("smoke").run(embedded, vectors, task, out=runs, progress=False)
    assert set(run.frame["part"]) == {
        "positions",
        "chosen",
        "summary",
        "concentration",
        "causal",
        "entropy-matched",
        "answers",
    }
    assert all(phrase.startswith("not testable here, because") for phrase in phrases(run).values())
    positions = part(run.frame, part="positions")
    assert float(positions["tv"].max()) <= 1
    assert float(positions["kl"].min()) >= 0
