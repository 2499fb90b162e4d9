"""Persistence against two plain passes, on planted changes, and on random vectors."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from experiments import Persistence
from experiments.controls import KINDS, RANDOM
from experiments.persistence_frames import TRAINED, by_pair, by_problem, final_cosines
from experiments.persistence_readings import STATISTICS, Reading, of_block, read_all
from experiments.persistence_verdicts import judge, judge_final, relate
from experiments.texts import completed
from interp.context import Context
from interp.errors import UserError
from interp.load import load_model
from interp.model import Model
from interp.sites import Site
from interp.store import Store
from tests.experiments import toys
from tests.interp import tiny

SETTINGS: dict[str, Any] = {"n": 12, "draws": 4, "control_n": 8}


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def ctx(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Context:
    store = Store(tmp_path_factory.mktemp("runs"))
    vectors = toys.random(model, scale=8.0, layers=(0, 1, 2), seed=5)
    return Context(model=model, task=toys.task(), vectors=vectors, n=12, store=store)


@pytest.fixture(scope="module")
def frame(ctx: Context) -> pd.DataFrame:
    experiment = Persistence(**SETTINGS)
    return experiment.measure(ctx, experiment.cells(ctx))


def rows_of(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def by_hand(changes: np.ndarray, own: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """The definitions, token by token, in float64; a lone token agrees with nothing."""
    n, mean, rest = len(changes), changes.mean(0), changes - own
    others = [np.delete(np.arange(n), i) for i in range(n)] if n > 1 else []
    lone = np.nan if n == 1 else 0.0
    return {
        "diff_vector": float(np.mean([cos(x, there) for x in changes])),
        "diff_diff": float(np.mean([cos(x, mean) for x in changes])),
        "mean_diff": cos(mean, there),
        "diff_diff_out": lone + sum(cos(changes[i], changes[o].mean(0)) for i, o in enumerate(others)) / n,
        "self": float(np.mean([cos(x, own) for x in changes])),
        "gain": float(np.mean([np.linalg.norm(x) / np.linalg.norm(own) for x in changes])),
        "induced": lone + sum(cos(rest[i], rest[o].mean(0)) for i, o in enumerate(others)) / n,
    }


@pytest.mark.parametrize(("layer", "observed"), [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("stratum", ["generated", "prompt"])
def test_sums_are_what_two_plain_passes_give(
    ctx: Context, frame: pd.DataFrame, layer: int, observed: int, stratum: str
) -> None:
    said, model, vectors = completed(ctx), ctx.model, ctx.vectors
    site = Site(observed, "resid_post")
    change = (
        model.run(said.batch, vectors.only(layer).edits(), read=[site])[site].double()
        - model.run(said.batch, read=[site])[site].double()
    ).numpy()
    code = {"generated": 1, "prompt": 3}[stratum]
    own, there = (vectors[k].double().numpy() for k in (layer, observed))
    tokens = [change[row][said.stratum[row].numpy() == code] for row in range(12)]
    expected = pd.DataFrame([by_hand(own_tokens, own, there) for own_tokens in tokens if len(own_tokens)])
    assert len(expected) >= 8
    found = rows_of(frame, part="pairs", vector="trained", layer=layer, observed=observed, stratum=stratum)
    for statistic in STATISTICS:
        row = rows_of(found, statistic=statistic).iloc[0]
        assert row["value"] == pytest.approx(expected[statistic].mean(), abs=2e-5), statistic
        assert row["n"] == expected[statistic].count()


def test_a_stream_that_nothing_writes_to_carries_the_vector_and_the_network_adds_nothing(runs: Path) -> None:
    still = load_model(tiny.model("llama", zero=r"(o_proj|down_proj)\.(weight|bias)"), tokenizer=tiny.tokenizer())
    vectors = toys.random(still, scale=8.0, layers=(0, 1), seed=5)
    run = Persistence(**SETTINGS).run(still, vectors, toys.task(), out=runs, progress=False)
    means = run.frame[run.frame["part"] == "pairs"].groupby("statistic")["value"].agg(["min", "max"])
    for statistic in ("diff_diff", "diff_diff_out", "self", "gain"):
        assert list(means.loc[statistic]) == pytest.approx([1, 1], abs=1e-4)
    own = rows_of(run.frame, part="pairs", vector="trained", statistic="diff_vector")["value"]
    assert list(own) == pytest.approx([cos(vectors[0].numpy(), vectors[1].numpy())] * 2, abs=1e-4)
    verdicts = {verdict["claim"]: verdict["phrase"] for verdict in run.verdicts}
    assert verdicts["keeps-its-direction"] == "no effect within the margin"


def test_of_two_tokens_each_is_compared_with_the_other_and_one_token_with_none() -> None:
    change = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    values = of_block(change, torch.tensor([0, 0, 1]), 3, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
    found = dict(zip(STATISTICS, values.T.tolist(), strict=True))
    assert found["diff_diff_out"][0] == pytest.approx(0) and np.isnan(found["diff_diff_out"][1:]).all()
    assert found["diff_diff"][:2] == pytest.approx([(2 + 1) / 2 / 5**0.5, 1])
    assert found["self"][:2] == pytest.approx([0.5, 0.6])
    assert found["diff_vector"][:2] == pytest.approx([0.5, 0.8])
    assert found["mean_diff"][:2] == pytest.approx([1 / 5**0.5, 0.8])
    assert found["gain"][:2] == pytest.approx([1.5, 5])
    # what is added to (1, 0): (1, 0) and (-1, 1)
    assert found["induced"][0] == pytest.approx(-1 / 2**0.5)
    assert np.isnan([found[name][2] for name in STATISTICS]).all()


def test_random_vectors_are_read_on_the_same_problems_and_stand_beside(frame: pd.DataFrame) -> None:
    draws = frame[frame["part"] == "pairs"].groupby("vector")["draw"].nunique().to_dict()
    assert draws == {"trained": 1, "random-isotropic": 4}
    assert set(rows_of(frame, vector="trained", part="pairs")["layer"]) == {0, 1}
    problems = rows_of(frame, part="problems", statistic="self", stratum="prompt")
    assert problems.groupby("vector")["example"].nunique().to_dict() == {"trained": 12, "random-isotropic": 8}
    one = rows_of(frame, part="pairs", statistic="self", layer=0, observed=2, stratum="prompt")
    trained, drawn = rows_of(one, vector="trained").iloc[0], rows_of(one, vector="random-isotropic")["value"]
    assert trained["random"] == pytest.approx(drawn.mean(), abs=1e-6)
    assert (trained["random_low"], trained["random_high"]) == pytest.approx((drawn.min(), drawn.max()), abs=1e-6)
    assert trained["above_low"] < trained["above"] < trained["above_high"] and trained["above_n"] == 8
    assert set(frame["trained"]) == {"apart"}


def test_parts_that_fit_into_little_memory_give_the_same(ctx: Context, frame: pd.DataFrame) -> None:
    small = Context(model=ctx.model, task=ctx.task, vectors=ctx.vectors, n=12, store=ctx.store, memory=1e-4)
    experiment = Persistence(**SETTINGS)
    assert [stop - start for start, stop in experiment_slices(experiment, small)] != [8, 4]
    again = experiment.measure(small, experiment.cells(small)[::-1])
    keys = ["part", "stratum", "vector", "draw", "layer", "observed", "statistic", "example"]
    both = frame.merge(again, on=keys, suffixes=("", "_again"))
    assert len(both) == len(frame) == len(again)
    np.testing.assert_allclose(both["value"], both["value_again"], atol=1e-4)


def experiment_slices(experiment: Persistence, ctx: Context) -> list[tuple[int, int]]:
    return [(start, start + len(said.examples)) for start, said in experiment._parts(ctx, "base", 0)]


def test_final_effects_are_mean_changes_after_the_last_block(ctx: Context, runs: Path) -> None:
    run = Persistence(**SETTINGS).run(ctx.model, ctx.vectors, ctx.task, out=runs, progress=False)
    said, saved = completed(ctx), load_file(next(run.record.path.rglob("*final-base-prompt*.safetensors")))
    changes: dict[int, torch.Tensor] = {}
    for layer in (0, 1):
        change = ctx.model.run(said.batch, ctx.vectors.only(layer).edits()).final - ctx.model.run(said.batch).final
        means = [change[row][said.stratum[row] == 3].mean(0) for row in range(12)]
        changes[layer] = torch.stack(means).mean(0)
        torch.testing.assert_close(saved[str(layer)], changes[layer], rtol=1e-4, atol=1e-4)
    row = rows_of(run.frame, part="final", vector="trained", stratum="prompt").iloc[0]
    assert row["value"] == pytest.approx(cos(changes[0].numpy(), changes[1].numpy()), abs=1e-4)
    assert row["low"] <= row["value"] <= row["high"] and (row["layer"], row["observed"]) == (0, 1)
    assert [verdict["claim"] for verdict in run.verdicts][-1] == "effects-of-layers-converge"


def test_completions_under_each_vector_are_texts_of_their_own(ctx: Context) -> None:
    experiment = Persistence(n=12, draws=3, control_n=8, texts=("steered",), layers=(1,))
    found = experiment.measure(ctx, experiment.cells(ctx))
    said = completed(ctx, edits=ctx.vectors.only(1).edits())
    assert not torch.equal(said.batch.ids[:, -4:], completed(ctx).batch.ids[:, -4:])
    states = said.run(ctx.model, [1, 2]).forced
    change = (states.steered(ctx.vectors.only(1).edits())[0] - states.base)[said.stratum == 3]
    value = torch.nn.functional.cosine_similarity(change, ctx.vectors[1][None]).mean()
    row = rows_of(found, part="pairs", vector="trained", stratum="prompt", statistic="self").iloc[0]
    assert set(found["text"]) == {"steered"} and row["value"] == pytest.approx(float(value), abs=0.05)


def test_every_kind_of_control_is_read_and_only_random_ones_are_what_verdicts_compare_with(ctx: Context) -> None:
    experiment = Persistence(n=10, draws=3, control_n=8, controls=KINDS, control_blocks=1, train_n=4)
    ctx = Context(model=ctx.model, task=ctx.task, vectors=ctx.vectors, n=10, store=ctx.store)
    found = experiment.measure(ctx, experiment.cells(ctx))
    pairs = rows_of(found, part="pairs", statistic="self", stratum="prompt", observed=2)
    kinds = {str(kind): set(part["layer"]) for kind, part in pairs.groupby("vector")}
    assert kinds.pop("trained") == {0, 1}
    assert {*kinds} >= {*KINDS} - {"random-effect-matched"} and all(layers == {0} for layers in kinds.values())
    random = pairs[pairs["vector"].isin(RANDOM)]["value"]
    assert rows_of(pairs, vector="trained", layer=0)["random"].iloc[0] == pytest.approx(random.mean(), abs=1e-6)
    verdict = judge(found, "self", text="base", margin=0.1)
    others: Any = found[~found["vector"].isin(["negated", "other-block"])]
    assert judge(others, "self", text="base", margin=0.1) == verdict and verdict.control is not None


def made(shift: float, seed: int, *, draws: int = 8, n: int = 24) -> pd.DataFrame:
    """Two steered blocks: unrelated changes for random vectors, and for the vector under study `shift` towards it."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.zeros(32)
    own[0] = 1
    frames: list[pd.DataFrame] = []
    finals: dict[tuple[str, int], dict[int, torch.Tensor]] = {}
    for layer in (0, 1):
        readings: dict[tuple[str, int], Reading] = {}
        for key in [TRAINED, *(("random-isotropic", draw) for draw in range(draws))]:
            towards = shift if key == TRAINED else 0.0
            offset = 0.3 * torch.randn(32, generator=generator)
            change = torch.randn(n * 6, 32, generator=generator) + offset + towards * own
            row = torch.arange(n).repeat_interleave(6)
            values = of_block(change, row, n, own)
            mean = torch.zeros(n, 32).index_add(0, row, change) / 6
            readings[key] = Reading(values[:, None], mean)
            finals.setdefault(key, {})[layer] = mean
        frames.append(by_problem(readings, [str(i) for i in range(n)]).assign(layer=layer))
        frames.append(by_pair(readings, [2]).assign(layer=layer))
    frames.append(final_cosines(finals, n=n, seed=0))
    return pd.concat(frames, ignore_index=True).assign(text="base", stratum="generated", trained="apart")


def phrases(frame: Any) -> list[str]:
    direction = [judge(frame, statistic, text="base", margin=0.1).phrase for statistic in ("self", "induced")]
    return [*direction, judge_final(frame, text="base", margin=0.1).phrase]


def test_a_planted_direction_is_found_and_its_opposite_too() -> None:
    assert phrases(made(5.0, 0)) == ["same direction"] * 3
    assert phrases(made(-5.0, 0))[0] == "opposite"
    few = made(5.0, 0, n=4)
    assert phrases(few)[0].startswith("not testable here, because 4 problems are too few")
    alone = few[few["vector"] == "trained"]
    assert phrases(alone)[0].startswith("not testable here, because there are no random vectors")
    later = judge(few, "diff_vector", text="base", margin=0.1)
    assert later.because == "no later block has a vector"
    assert phrases(alone)[2].startswith("not testable here, because random vectors were not read")


def test_unplanted_vectors_come_out_in_the_same_direction_in_at_most_5_percent() -> None:
    found = np.array([[phrase == "same direction" for phrase in phrases(made(0.0, seed))] for seed in range(40)])
    assert found.mean(0).max() <= 0.05


def test_random_vectors_of_the_model_come_out_in_the_same_direction_in_at_most_5_percent(ctx: Context) -> None:
    said = [completed(ctx).run(ctx.model, [0, 1, 2])]
    every = {
        layer: read_all(
            said,
            [toys.random(ctx.model, scale=8.0, layers=(layer,), seed=100 * layer + seed) for seed in range(18)],
            range(layer + 1, 3),
            {},
        )
        for layer in (0, 1)
    }
    same: list[list[bool]] = []
    for own in range(18):
        others = [index for index in range(9 * (own // 9), 9 * (own // 9) + 9) if index != own]
        order = {TRAINED: own} | {("random-isotropic", draw): index for draw, index in enumerate(others)}
        frames = [
            by_problem({key: every[layer][index]["prompt"] for key, index in order.items()}, said[0].examples).assign(
                layer=layer
            )
            for layer in (0, 1)
        ]
        finals = {key: {layer: every[layer][index]["prompt"].final for layer in (0, 1)} for key, index in order.items()}
        frames.append(final_cosines(finals, n=12, seed=0))
        same.append(
            [p == "same direction" for p in phrases(pd.concat(frames).assign(text="base", stratum="generated"))]
        )
    assert np.mean(same) <= 0.05


def planted(size: int, slope: float, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    pairs = list(combinations(range(0, 3 * size, 3), 2))
    ours = rng.normal(size=len(pairs)) + np.array([j - i for i, j in pairs]) / 5
    theirs = slope * ours + 0.3 * rng.normal(size=len(pairs)) + np.array([j - i for i, j in pairs]) / 5
    about = {"part": "pairs", "statistic": "diff_vector", "text": "base", "stratum": "generated", "vector": "trained"}
    i, j = zip(*pairs, strict=True)
    persistence = pd.DataFrame({**about, "layer": i, "observed": j, "value": ours})
    return persistence, pd.DataFrame({"i": i, "j": j, "interaction": theirs})


def test_a_planted_relation_to_the_accuracy_of_pairs_is_found_and_distance_alone_is_none() -> None:
    found = relate(*planted(9, 1.0), permutations=999)
    assert found.statistic > 0.8 and found.p == pytest.approx(0.001)
    assert relate(*planted(9, -1.0), permutations=999).statistic < -0.6
    unrelated = [relate(*planted(9, 0.0, seed), permutations=199).p for seed in range(20)]
    assert np.mean(np.array(unrelated) < 0.05) <= 0.15


def test_a_relation_needs_all_pairs_of_four_blocks() -> None:
    composition: Any
    persistence, composition = planted(6, 1.0)
    twice = pd.concat([composition.assign(interaction=composition["interaction"] + d) for d in (-1, 1)])
    assert relate(persistence, twice, permutations=99) == relate(persistence, composition, permutations=99)
    lacking = composition[~((composition["i"] == 0) & (composition["j"] == 3))]
    assert relate(persistence, lacking, permutations=99).statistic != 0
    with pytest.raises(UserError, match="at least 4 blocks"):
        relate(persistence, composition[composition["j"] <= 6], permutations=99)


def test_the_last_block_alone_is_refused(ctx: Context) -> None:
    with pytest.raises(UserError, match="nothing comes after the last block"):
        Persistence(layers=(2,)).cells(ctx)


@pytest.mark.slow
def test_on_the_embedded_model_every_part_is_measured_and_four_problems_decide_nothing(runs: Path) -> None:
    from interp import load_model as load
    from interp import load_task

    run = Persistence.at("smoke").run(
        load("smollm2-135m-instruct"),
        "smollm2-135m-instruct/all-layer",
        load_task("word-problems"),
        out=runs,
        progress=False,
    )
    assert set(run.frame["part"]) == {"problems", "pairs", "final", "final-mean"}
    assert set(run.frame["trained"]) == {"together"}
    assert all(verdict["phrase"].startswith("not testable here, because") for verdict in run.verdicts)
    cosines: Any = run.frame[run.frame["statistic"] != "gain"]
    assert float(cosines["value"].abs().max()) <= 1.0001
