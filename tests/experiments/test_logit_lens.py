"""LogitLens decides on a vocabulary of several scripts, finds planted effects, and none in random vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from experiments import LogitLens
from experiments.lens_frames import Vocabulary, middle
from experiments.lens_verdicts import judge_classes, judge_scripts
from experiments.script_shift import match, null, shift
from experiments.sweeps import spread
from experiments.texts import texts
from experiments.vocabulary import NON_LATIN
from interp.context import Context
from interp.lens import CentredLens
from interp.model import Model
from interp.run import Run
from interp.sites import Site
from interp.store import Store
from tests.experiments import languages, toys
from vectors import SteeringVectors

Planted = tuple[Model, torch.Tensor, torch.Tensor]
MIDDLE = 1


@pytest.fixture(scope="module")
def planted() -> Planted:
    return languages.model()


@pytest.fixture(scope="module")
def vocabulary(planted: Planted) -> Vocabulary:
    return Vocabulary.of(planted[0], scale=1.0, minimum=500, layers=3, draws=300, seed=0)


def lens(**settings: object) -> LogitLens:
    return LogitLens.at("quick", n=12, train_n=4, null_draws=300, top=5, **settings)


@pytest.fixture(scope="module")
def run(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    model, han, process = planted
    rows = 6 * (process / process.norm() - han / han.norm())
    vectors = toys.wrap(model, rows.expand(3, -1), (0, 1, 2))
    yield lens().run(model, vectors, toys.task(), out=tmp_path_factory.mktemp("planted"), progress=False)


def rows_of(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def phrases(run: Run) -> dict[str, str]:
    return {verdict["claim"]: verdict["phrase"] for verdict in run.verdicts}


def test_planted_effects_on_a_script_and_on_process_words_are_found(run: Run) -> None:
    assert phrases(run) == {"pushes-down-non-latin": "same direction", "promotes-process-words": "same direction"}
    scripts = rows_of(run.frame, part="scripts", vector="trained", lens="centred", quantity="raw", script="Han")
    assert len(scripts) == 3
    assert float(scripts["auc"].max()) < float(scripts["null_low"].min()) < 0.5
    assert set(scripts["p"]) == {1 / 301}
    assert set(rows_of(run.frame, part="scripts", script="Cyrillic")["testable"]) == {False}
    top = rows_of(run.frame, part="tokens", quantity="raw", lens="centred", side="top", layer=0)
    assert set(top["token"]) <= set(languages.PROCESS)


def test_the_opposite_vector_gives_the_opposite_verdict(planted: Planted, runs: Path) -> None:
    model, han, _ = planted
    vectors = toys.wrap(model, 6 * (han / han.norm())[None], (MIDDLE,))
    run = lens(tuned="no").run(model, vectors, toys.task(), out=runs, progress=False)
    assert phrases(run)["pushes-down-non-latin"] == "opposite"


def test_a_vocabulary_with_few_tokens_of_a_script_is_not_tested(run: Run) -> None:
    verdict = judge_scripts(run.frame, margin=0.1, minimum=1000)
    assert verdict.phrase == (
        "not testable here, because the vocabulary has 640 whole tokens of other scripts than Latin, fewer than 1000"
    )
    last = rows_of(run.frame, layer=0)
    assert judge_scripts(last, margin=0.1, minimum=500).because == "no vector of a middle layer was measured"
    assert judge_classes(last, margin=0.1).because == "there are no control draws to compare with"


def test_random_vectors_push_scripts_down_in_at_most_5_percent(planted: Planted, vocabulary: Vocabulary) -> None:
    draw = torch.Generator().manual_seed(11)
    directions = torch.randn(63, planted[0].d_model, generator=draw)
    noise = 0.1 * torch.randn(8, planted[0].d_model, generator=draw)
    shifts = [
        vocabulary.shifts(one[None], one + noise).assign(quantity="propagated", depth=0.5, layer=MIDDLE, n=12)
        for one in directions
    ]
    same: list[bool] = []
    for start in range(0, 63, 9):
        group = shifts[start : start + 9]
        for place, own in enumerate(group):
            others = [f.assign(vector="random-isotropic", draw=d) for d, f in enumerate(group) if d != place]
            frame = pd.concat([own.assign(vector="trained", draw=0), *others], ignore_index=True)
            same.append(judge_scripts(frame, margin=0.1, minimum=500).phrase == "same direction")
    assert np.mean(same) <= 0.05


def test_random_vectors_promote_process_words_in_at_most_5_percent() -> None:
    """Problems differ, and so do vectors: the spread of control draws, not that of problems, is what counts."""
    rng = np.random.default_rng(0)
    same: list[bool] = []
    for _ in range(60):
        means = rng.normal(0, 1, 9)
        values = means[:, None] + rng.normal(0, 0.5, (9, 24))
        frames = [
            pd.DataFrame(
                {
                    "part": "class-examples",
                    "vector": "trained" if d == 0 else "random-isotropic",
                    "draw": d,
                    "layer": MIDDLE,
                    "token_class": "process word or structure symbol",
                    "quantity": "propagated",
                    "example": [str(i) for i in range(24)],
                    "log_odds": values[d],
                }
            )
            for d in range(9)
        ]
        same.append(judge_classes(pd.concat(frames), margin=0.1).phrase == "same direction")
    assert np.mean(same) <= 0.05


def test_propagated_directions_are_mean_differences_of_two_plain_passes(run: Run, planted: Planted) -> None:
    model, han, process = planted
    vectors = toys.wrap(model, 6 * (process / process.norm() - han / han.norm()).expand(3, -1), (0, 1, 2))
    ctx = Context(model=model, task=toys.task(), vectors=vectors, n=12, store=Store(run.record.path.parents[1]))
    batch = texts(ctx).batch
    change = model.run(batch, vectors.only(MIDDLE).edits()).final - model.run(batch).final
    tensors = load_file(next(run.record.path.rglob(f"*directions-{MIDDLE}*.safetensors")))
    for row in range(12):
        own = batch.in_completion[row] & batch.mask[row] & ~torch.isin(batch.ids[row], torch.tensor([0, 1, 2, 3]))
        torch.testing.assert_close(tensors["propagated"][row], change[row][own].mean(0), rtol=1e-4, atol=1e-4)
    direction = tensors["propagated"].mean(0, keepdim=True)
    hooked: Any = model.hooked
    gain, w_u = hooked.ln_final.w, hooked.unembed.W_U
    by_hand = ((direction * gain) @ (w_u - w_u.mean(1, keepdim=True)))[0]
    top = rows_of(run.frame, part="tokens", quantity="propagated", lens="centred", side="top", layer=MIDDLE)
    assert list(top["token_id"]) == by_hand.topk(5).indices.tolist()
    ratio = top["score"].to_numpy() / by_hand.topk(5).values.numpy()
    assert np.ptp(ratio) < 1e-4  # the scale of a logit at the median norm of a final residual


def test_class_probabilities_are_sums_over_the_vocabulary(run: Run) -> None:
    rows = rows_of(run.frame, part="classes")
    totals = rows.groupby(["vector", "quantity", "draw", "layer"])["delta_p"].sum()
    assert totals.abs().max() < 1e-5
    about = {"vector": "trained", "layer": MIDDLE, "token_class": "process word", "quantity": "propagated"}
    examples = rows_of(run.frame, part="class-examples", **about)
    mean = rows_of(rows, **about)["delta_p"].iloc[0]
    assert float(examples["delta_p"].mean()) == pytest.approx(float(mean))


def test_controls_are_propagated_at_the_middle_block_and_after_the_last(run: Run) -> None:
    control: Any = run.frame[run.frame["vector"] != "trained"]
    assert set(control["layer"]) == {MIDDLE, 2}
    draws = control.groupby("vector")["draw"].nunique().to_dict()
    assert draws == {"random-isotropic": 8, "negated": 1}


def test_every_token_is_in_one_bin_of_the_histogram(run: Run, planted: Planted) -> None:
    counts = rows_of(run.frame, part="histogram").groupby(["layer", "quantity", "lens"])["count"].sum()
    assert set(counts) == {planted[0].d_vocab}


def test_the_tuned_lens_is_fitted_below_the_last_block_only(run: Run) -> None:
    tuned = rows_of(run.frame, part="tokens", lens="tuned")
    assert set(tuned["layer"]) == {0, 1}
    assert set(tuned["quantity"]) == {"raw"}
    assert tuned["r2"].notna().all() and tuned["lens_kl"].isna().all()
    scripts = rows_of(run.frame, part="scripts", lens="tuned", script="Han")
    assert set(scripts["layer"]) == {0, 1} and bool((scripts["null_low"] < 0.5).all())


def test_a_vector_of_the_last_block_does_by_itself_what_it_does(run: Run) -> None:
    last = rows_of(run.frame, part="classes", vector="trained", layer=2).set_index(["quantity", "token_class"])
    raw, propagated = last.loc["raw"]["log_odds"], last.loc["propagated"]["log_odds"]
    assert list(raw) == pytest.approx(list(propagated), abs=1e-4)
    earlier = rows_of(run.frame, part="classes", vector="trained", layer=0).set_index(["quantity", "token_class"])
    assert abs(float((earlier.loc["raw"]["log_odds"] - earlier.loc["propagated"]["log_odds"]).max())) > 1e-3


def test_a_lens_trained_on_divergence_says_what_is_left(planted: Planted, run: Run, runs: Path) -> None:
    model, han, process = planted
    vectors = toys.wrap(model, 6 * (process / process.norm() - han / han.norm())[None], (MIDDLE,))
    trained = lens(tuned="kl").run(model, vectors, toys.task(), out=runs, progress=False)
    rows = rows_of(trained.frame, part="tokens", lens="tuned")
    assert bool((rows["lens_kl"] >= 0).all()) and len(rows) == 10


def test_results_do_not_depend_on_which_layers_are_measured_together(planted: Planted, run: Run, runs: Path) -> None:
    model, han, process = planted
    vectors = toys.wrap(model, 6 * (process / process.norm() - han / han.norm()).expand(3, -1), (0, 1, 2))
    shard = lens().run(model, vectors, toys.task(), out=runs, shard=(3, 3), progress=False)
    assert shard.partial
    alone = pd.read_parquet(next(shard.record.path.rglob("*.parquet"), Path()))
    whole = rows_of(run.frame, layer=2, part="scripts", lens="centred")
    part = rows_of(alone, layer=2, part="scripts", lens="centred")
    assert list(part["auc"]) == pytest.approx(list(whole["auc"]), abs=1e-6)
    assert list(part["null_low"].dropna()) == list(whole["null_low"].dropna())


def test_the_null_is_centred_and_wider_for_more_layers(planted: Planted, vocabulary: Vocabulary) -> None:
    script = next(one for one in vocabulary.scripts if one.name == NON_LATIN)
    centred = CentredLens.of(planted[0])
    one = null(centred, script, width=48, layers=1, draws=200, seed=1)
    many = null(centred, script, width=48, layers=8, draws=200, seed=1)
    assert many.low < one.low < 0.5 < one.high < many.high
    assert one.p(0.5) == 1.0
    direction = torch.randn(1, 48, generator=torch.Generator().manual_seed(0))
    assert shift(centred, direction, script)[0] == pytest.approx(1 - shift(centred, -direction, script)[0])


def test_matched_tokens_are_latin_and_alike_in_rank_and_norm() -> None:
    rng = np.random.default_rng(0)
    norms = rng.uniform(1, 2, 1000)
    latin = list(range(0, 1000, 2))
    tokens = list(range(701, 801, 2))
    script = match("Han", tokens, latin, norms, minimum=10)
    assert set(script.matched) <= set(latin)
    assert abs(norms[list(script.matched)].mean() - norms[tokens].mean()) < 0.05
    assert abs(np.mean(script.matched) - np.mean(tokens)) < 60  # all Latin tokens: 250 away


def test_layers_are_spread_and_the_middle_is_the_models() -> None:
    assert spread(range(30), 8) == (0, 4, 8, 12, 17, 21, 25, 29)
    assert spread((3, 9), 8) == (3, 9)
    assert spread(range(9), 1) == (4,)
    assert middle((0, 14, 29), 30, 1) == (14,)
    assert middle((2, 29), 30, 0) == ()


@pytest.mark.slow
def test_on_the_embedded_model_the_centred_lens_foretells_the_change_of_logits_better_than_the_cosine(
    model: Model,
) -> None:
    from interp.lens import CosineLens

    text = "Tom has 3 apples and buys 4 more. He has 3 + 4 = 7 apples now, so the answer is 7."
    h = model.run(torch.tensor([model.tokenizer.encode(text)])).final[0, 4:]
    scale = 1 / float(h.square().mean(-1).sqrt().median())
    direction = torch.randn(1, model.d_model, generator=torch.Generator().manual_seed(0))
    direction = 0.1 * h.norm(dim=-1).median() * direction / direction.norm()
    with torch.no_grad():
        change = (model.unembed(h + direction) - model.unembed(h)).mean(0)
    change = change - change.mean()
    agreement = {
        one.name: float(torch.corrcoef(torch.stack([change, one.scores(direction)[0]]))[0, 1])
        for one in (CentredLens.of(model, scale), CosineLens.of(model))
    }
    assert agreement["centred"] > 0.97
    assert agreement["centred"] > agreement["cosine"]


@pytest.mark.slow
def test_on_the_embedded_model_scripts_cannot_be_tested(model: Model, runs: Path) -> None:
    from interp import load_task

    rows = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(0))
    vectors: SteeringVectors = toys.wrap(model, 20 * rows / rows.norm(dim=1, keepdim=True), (14, 29))
    run = LogitLens.at("smoke").run(model, vectors, load_task("word-problems"), out=runs, progress=False)
    assert phrases(run)["pushes-down-non-latin"].startswith("not testable here, because the vocabulary has")
    assert set(run.frame["part"]) == {"tokens", "histogram", "scripts", "classes", "class-examples"}
    assert Site(29, "resid_post") == vectors.only(29).edits()[0].site
