"""PathPatching: identities of its shares, a planted vector that attention cannot see, and random vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import PathPatching
from experiments.attention_rows import attention_change
from experiments.factorial import ATTENTION, PLAYERS
from experiments.patched_block import PatchedBlock
from experiments.path_frames import attention_frame, control_places, factorial_rows
from experiments.path_verdicts import MATCHED, judge_rows, judge_share
from experiments.texts import places, texts
from interp.context import Context
from interp.errors import UserError
from interp.load import load_model
from interp.model import Model
from interp.run import Run
from interp.store import Store
from tests.experiments import toys
from tests.interp import tiny
from vectors import SteeringVectors

BLOCK = toys.LAYERS - 2
SMALL: dict[str, Any] = {"n": 12, "draws": 4, "control_n": 12, "references": False}


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def run(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    experiment = PathPatching.at("quick", **SMALL | {"at_most": 0, "factorial_at_most": 0, "references": True})
    vectors = toys.planted(model, scale=40.0, layers=(BLOCK,))
    yield experiment.run(model, vectors, toys.task(), out=tmp_path_factory.mktemp("planted"), progress=False)


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def phrases(run: Run) -> dict[str, str]:
    return {verdict["claim"]: verdict["phrase"] for verdict in run.verdicts}


def blind_model() -> Model:
    """Attention of the last block reads the first 24 coordinates only.

    A large constant in another coordinate keeps the norm that it divides by from telling it of the rest.
    """
    hf: Any = tiny.model("llama", zero="mlp.*bias")
    block = hf.model.layers[toys.LAYERS - 1]
    with torch.no_grad():
        hf.model.layers[BLOCK].mlp.down_proj.bias[47] = 100
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(block.self_attn, name).weight[:, 24:] = 0
            getattr(block.self_attn, name).weight.mul_(10)
        block.self_attn.o_proj.weight.mul_(20)
        hf.lm_head.weight.mul_(10)
    return load_model(hf, tokenizer=tiny.tokenizer())


def unseen(model: Model, *, scale: float, seed: int = 0) -> SteeringVectors:
    """A vector in the other coordinates."""
    row = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))
    row[:24] = row[47] = 0
    return toys.wrap(model, scale * row[None] / row.norm(), (BLOCK,))


def test_shapley_values_sum_to_the_whole_and_named_patches_are_coalitions(run: Run) -> None:
    frame = run.frame
    paths = part(frame, part="paths", vector="trained", statistic="shapley").set_index("path")
    whole = float(paths["whole"].iloc[0])
    assert float(paths.loc[list(PLAYERS), "value"].sum()) == pytest.approx(whole, rel=1e-5)
    assert float(paths.loc[list(ATTENTION), "share"].sum()) == pytest.approx(float(paths.loc["attention", "share"]))
    assert float(paths.loc["attention", "share_low"]) <= float(paths.loc["attention", "share"])
    worth = part(frame, part="coalitions", vector="trained").set_index("patch")["value"]
    assert abs(float(worth["none"])) < 1e-6 * whole + 1e-6
    named = part(frame, part="patches", vector="trained").set_index("patch")["value"]
    for name, coalition in {
        "steered": "+".join(PLAYERS),
        "skip-attn": "resid-to-mlp+resid",
        "skip-layer": "resid",
        "skip-mlp": "q+k+v+resid",
        "only-attn": "q+k+v+attn-to-mlp",
    }.items():
        assert float(named[name]) == pytest.approx(float(worth[coalition]), abs=1e-5)
    last = part(frame, part="paths", vector="trained", statistic="last").set_index("path")["value"]
    assert float(last["resid"]) == pytest.approx(whole - float(worth["q+k+v+attn-to-mlp+resid-to-mlp"]), abs=1e-5)


def test_a_patch_of_everything_keeps_all_and_per_problem_rows_average_to_it(run: Run) -> None:
    patches = part(run.frame, part="patches", vector="trained").set_index("patch")
    assert float(patches.loc["steered", "share"]) == pytest.approx(1, abs=1e-5)
    assert not np.isfinite(patches.loc["steered", ["share_low", "share_high"]].astype(float)).any()  # equal shares
    problems = part(run.frame, part="problems").groupby("patch")[["value", "kl", "tv", "max_dp"]].mean()
    for column in problems.columns:
        assert list(problems[column]) == pytest.approx(list(patches.loc[problems.index, column]))
    drawn = part(run.frame, part="patches", patch="skip-attn")
    assert drawn.groupby("vector")["draw"].nunique().drop("trained").max() == 4


def test_a_head_accounts_for_what_is_lost_without_it(run: Run) -> None:
    rows = part(run.frame, part="sweep", vector="trained")
    skip = rows[rows["family"].str.startswith("skip")]
    assert list(skip["head_share"]) == pytest.approx(list(1 - skip["share"]), abs=1e-6)
    assert rows.groupby("family").size().to_dict() == {
        **dict.fromkeys(("skip-head", "only-head", "skip-q", "only-q"), 6),
        **dict.fromkeys(("skip-k", "only-k", "skip-v", "only-v"), 2),
    }
    assert set(part(run.frame, part="sweep")["vector"]) <= {"trained", MATCHED}


def test_accuracy_carries_what_must_stand_beside_it(run: Run) -> None:
    rows = part(run.frame, part="accuracy")
    trained = part(rows, vector="trained").set_index("patch")
    assert float(trained.loc["steered", "accuracy"]) >= 0.5
    assert float(trained.loc["steered", "share"]) == 1.0
    assert {"matched-entropy", "1-shot", "3-shot", "5-shot", "base"} <= set(rows["vector"])
    assert rows[["boxed", "ended", "length", "entropy"]].notna().all().all()
    assert phrases(run)["gain-without-attention"] == "same direction"
    answers = part(run.frame, part="answers", patch="skip-attn", vector="trained")
    assert float(answers["right"].mean()) == pytest.approx(float(trained.loc["skip-attn", "accuracy"]))


def test_a_vector_that_attention_cannot_see_is_told_from_random_ones(runs: Path) -> None:
    model = blind_model()
    experiment = PathPatching.at(
        "quick",
        **SMALL
        | {
            "draws": 8,
            "patches": ("skip-attn",),
            "sweep": (),
            "temperatures": (),
            "controls": ("random-isotropic",),
        },
    )
    task = toys.task()
    found = phrases(experiment.run(model, unseen(model, scale=25.0), task, out=runs, progress=False))
    assert found["attention-carries-less-than-for-random-vectors"] == "same direction"
    assert found["gain-without-attention"] == "not testable here, because no completions were graded"
    seen = toys.random(model, scale=6.0, layers=(BLOCK,), seed=7)
    found = phrases(experiment.run(model, seen, task, out=runs, progress=False))
    assert "same direction" not in found.values()


def test_attention_rows_are_judged_against_vectors_of_the_same_effect() -> None:
    def rows(moved: float) -> pd.DataFrame:
        place = {"part": "attention", "head": -1, "keys": "later", "stratum": "completion", "text": "base", "n": 48}
        ends = {"attention_tv_low": moved - 0.01, "attention_tv_high": moved + 0.01}
        drawn = [{**place, "vector": MATCHED, "attention_tv": 0.3 + 0.01 * draw} for draw in range(-4, 5)]
        other = [{**place, "vector": "random-isotropic", "attention_tv": 0.05 * draw} for draw in range(9)]
        return pd.DataFrame([{**place, "vector": "trained", "attention_tv": moved, **ends}, *drawn, *other])

    phrases = {moved: judge_rows(rows(moved)).phrase for moved in (0.1, 0.3, 0.5)}
    assert phrases == {0.1: "same direction", 0.3: "no effect within the margin", 0.5: "opposite"}


def test_random_vectors_come_out_in_the_same_direction_in_at_most_5_percent(model: Model, tmp_path: Path) -> None:
    ctx = Context(model=model, task=toys.task(), n=16, store=Store(tmp_path))
    said = texts(ctx, keep=[BLOCK])
    at = places(said, "first", "generated", at_most=2)
    few = control_places(places(said, "first", "generated", at_most=1), 8)
    own: list[pd.DataFrame] = []
    control: list[pd.DataFrame] = []
    for seed in range(27):
        vectors = toys.random(model, scale=6.0, layers=(BLOCK,), seed=seed)
        change = attention_change(ctx, said, vectors)
        for where, into, trained in ((at, own, True), (few, control, False)):
            block = PatchedBlock(ctx, said, vectors, where.where)
            frames = [factorial_rows(block, where, "kl", intervals=trained)]
            frames.append(attention_frame(said, change, intervals=trained))
            into.append(pd.concat(frames).assign(text="base", draw=seed, vector="trained" if trained else MATCHED))
    phrases: list[str] = []
    for start in range(0, 27, 9):
        for seed in range(start, start + 9):
            others = [frame for other, frame in enumerate(control[start : start + 9], start) if other != seed]
            frame = pd.concat([own[seed], *others])
            phrases += [judge_share(frame).phrase, judge_rows(frame).phrase]
    assert np.mean([phrase == "same direction" for phrase in phrases]) <= 0.05
    assert np.mean([phrase == "opposite" for phrase in phrases]) <= 0.05


def test_results_do_not_depend_on_how_cells_are_grouped(model: Model, runs: Path) -> None:
    experiment = PathPatching.at("quick", **SMALL | {"n": 4, "draws": 3, "sweep": ("skip-head",), "temperatures": ()})
    vectors = toys.random(model, scale=6.0, layers=(0, BLOCK))

    def context() -> Context:
        return Context(model=model, task=toys.task(), vectors=vectors, n=4, store=Store(runs))

    cells = experiment.cells(context())
    together = experiment.measure(context(), cells)
    apart = pd.concat([experiment.measure(context(), [cell]) for cell in reversed(cells)])
    keys = ["part", "vector", "draw", "patch", "path", "statistic", "family", "head", "keys", "stratum", "example"]

    def ordered(frame: pd.DataFrame) -> pd.DataFrame:
        marked: Any = frame.assign(**{key: frame[key].astype(str) for key in keys})
        return marked.sort_values(keys).reset_index(drop=True)[sorted(together)]

    pd.testing.assert_frame_equal(ordered(together), ordered(apart))


@pytest.mark.parametrize("readout", ["tv", "delta_p"])
def test_other_distances_and_lower_blocks(model: Model, runs: Path, readout: str) -> None:
    settings = {"n": 4, "draws": 3, "sweep": (), "temperatures": (), "controls": ("random-isotropic",)}
    experiment = PathPatching.at("quick", **SMALL | settings, readout=readout, text=("base", "steered"))
    run = experiment.run(model, toys.random(model, scale=20.0, layers=(0, 2)), toys.task(), out=runs, progress=False)
    assert set(run.frame["layer"]) == {0} and set(run.frame["readout"]) == {readout}
    for text in ("base", "steered"):
        shapley = part(run.frame, part="paths", vector="trained", statistic="shapley", text=text).set_index("path")
        assert float(shapley.loc[list(PLAYERS), "share"].sum()) == pytest.approx(1, rel=1e-4)
    beside = part(run.frame, part="patches", vector="trained", patch="steered", text="base").iloc[0]
    assert float(beside["whole"]) == pytest.approx(float(beside["tv" if readout == "tv" else "max_dp"]), rel=1e-4)


def test_what_cannot_be_patched_is_refused(model: Model, runs: Path, tmp_path: Path) -> None:
    def start(layers: tuple[int, ...], **settings: object) -> None:
        vectors = toys.random(model, scale=1.0, layers=layers)
        PathPatching.at("smoke", **settings).run(model, vectors, toys.task(), out=runs, progress=False)

    with pytest.raises(UserError, match="block above"):
        start((toys.LAYERS - 1,))
    with pytest.raises(UserError, match="block above"):
        start((0,), layer=1)
    with pytest.raises(UserError, match="heads 0 to 5"):
        start((BLOCK,), patches=("skip-head-6",))
    with pytest.raises(UserError, match="no such patch"):
        start((BLOCK,), patches=("skip-atn",))
    with pytest.raises(UserError, match="no such patch"):
        start((BLOCK,), generated=("skip-atn",))
    with pytest.raises(UserError, match="no such family"):
        start((BLOCK,), sweep=("skip-heads",))


def test_a_patch_of_ones_own_is_part_of_the_key(model: Model, runs: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("from interp import CLEAN, BlockPaths\nKEYS_ONLY = BlockPaths(q=CLEAN, v=CLEAN)\n")
    ctx = Context(model=model, task=toys.task(), n=4, store=Store(runs))
    name = f"{own}:KEYS_ONLY"
    other = tmp_path / "other.py"
    other.write_text(own.read_text().replace("q=CLEAN", "q=CLEAN, k=CLEAN"))
    keyed = [list(PathPatching(patches=(one,)).inputs(ctx).values()) for one in (name, f"{other}:KEYS_ONLY")]
    assert keyed[0][0] != keyed[1][0]
    settings = {"patches": (name, "skip-attn"), "factorial": False, "sweep": (), "attention": False, "draws": 3}
    run = PathPatching.at("smoke", **settings, temperatures=()).run(
        model, toys.random(model, scale=6.0, layers=(BLOCK,)), toys.task(), out=runs, progress=False
    )
    assert set(part(run.frame, part="patches")["patch"]) == {name, "skip-attn"}
    said = phrases(run)
    assert said["attention-carries-less-than-for-random-vectors"] == (
        "not testable here, because the factorial was not run"
    )
    assert said["attention-rows-move-less-than-under-random-vectors"] == (
        "not testable here, because attention rows were not read"
    )


@pytest.mark.slow
def test_on_the_embedded_model_every_part_is_measured_and_four_problems_decide_nothing(runs: Path) -> None:
    from interp import load_model, load_task

    embedded = load_model("smollm2-135m-instruct")
    row = torch.randn(1, embedded.d_model, generator=torch.Generator().manual_seed(0))
    vectors = toys.wrap(embedded, 150 * row / row.norm(), (embedded.n_layers - 2,))
    run = PathPatching.at("smoke").run(embedded, vectors, load_task("word-problems"), out=runs, progress=False)
    assert set(run.frame["part"]) == {
        "patches",
        "problems",
        "paths",
        "coalitions",
        "sweep",
        "attention",
        "accuracy",
        "answers",
    }
    assert all(phrase.startswith("not testable here, because") for phrase in phrases(run).values())
    shapley = part(run.frame, part="paths", vector="trained", statistic="shapley").set_index("path")["share"]
    assert float(shapley[list(PLAYERS)].sum()) == pytest.approx(1, abs=1e-3)
