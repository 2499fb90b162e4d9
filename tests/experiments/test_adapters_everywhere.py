"""Rank-1 adapters as the intervention under study: every experiment runs with them, or says why not and what works."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from experiments import (
    AccuracyByLayer,
    Composition,
    EffectAgainstCost,
    GainLadder,
    LogitLens,
    Magnitude,
    PathPatching,
    Persistence,
    Placement,
    PrefixSubstitution,
    SelfExplanation,
    SideEffects,
    TokenSubstitution,
    Transfer,
    VectorGeometry,
)
from experiments.adaptive_writing import written
from experiments.patched_block import streams
from experiments.recipients import recipient
from experiments.texts import texts
from interp import registry
from interp.context import Context
from interp.errors import UserError
from interp.experiment import Experiment
from interp.model import Model
from interp.sites import Site
from interp.store import Store
from tests.experiments import toys
from vectors import AdaptiveVectors

INDEX = ["stratum", "layer", "observed", "statistic"]
SWEEP: dict[str, Any] = {"n": 8, "draws": 3, "validation_n": 2, "train_n": 2, "beside": ()}
SMALL: dict[str, Any] = {"n": 8, "draws": 3, "train_n": 2}
EVERY: tuple[tuple[Experiment, set[str]], ...] = (
    (TokenSubstitution(**SMALL, causal_draws=3, chosen=2, at_most=1), {"random-isotropic", "permuted", "negated"}),
    (AccuracyByLayer(**SWEEP, control_blocks=1), {"random-isotropic", "permuted", "negated"}),
    (Magnitude(**SWEEP, factors=(0.0, 1.0), texts_n=2, kl_draws=1), {"random-isotropic"}),
    (Composition(**SWEEP, factors=(0.0, 1.0)), {"random-isotropic", "random-partner"}),
    (
        SideEffects(
            n=8, draws=3, n_texts=4, length=8, n_questions=2, answer_tokens=4, task_n=2, matched_n=2, doses=(0.0, 1.0),
            generated_draws=3, few_shot=False, controls=("random-isotropic", "permuted", "permuted-layers"),
        ),
        {"random-isotropic", "permuted"},
    ),
    (GainLadder(**SWEEP, seeds=(), blocks=2), {"random-isotropic"}),
    (
        EffectAgainstCost(**SWEEP, doses=(0.0, 1.0), random_doses=(1.0,), n_texts=4, length=8),
        {"random-isotropic"},
    ),
    (PrefixSubstitution(**SMALL, openers=2, matched_n=2, few_shot=False), {"random-isotropic", "permuted"}),
    (
        PathPatching(
            **SMALL, at_most=1, control_n=2, factorial_at_most=1, sweep=("skip-head",), sweep_at_most=1,
            references=False,
        ),
        {"random-isotropic"},
    ),
)  # fmt: skip
"""Experiments at tiny settings, with kinds of control that must have rows."""
READING: tuple[tuple[Experiment, set[str]], ...] = (
    (Persistence(n=8, draws=3, train_n=2), {"random-isotropic"}),
    (LogitLens(n=8, draws=3, train_n=2, at_most=2, null_draws=20, top=3), {"random-isotropic", "negated"}),
    (VectorGeometry(n=4, train_n=4, samples=2, draws=20, others=(), baselines=()), {"random-isotropic"}),
    (Transfer(n=8, draws=3, recipients=("task-prompt", "other-system-line"), donors=(), few_shot=False), {"base"}),
    (SelfExplanation(n=2, draws=3, blocks=(0, 2), sizes=(1.0,), layers=2), {"random-isotropic"}),
)
"""Experiments that read what is written, and where else it helps."""
REFUSING: tuple[Experiment, ...] = (Placement.at("smoke"),)
"""Experiments that say why not."""


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def adapters(model: Model) -> AdaptiveVectors:
    return toys.adapters(model)


def named(experiments: Any) -> list[str]:
    return [type(one[0] if isinstance(one, tuple) else one).__name__ for one in experiments]


@pytest.mark.parametrize(("experiment", "kinds"), (*EVERY, *READING), ids=named((*EVERY, *READING)))
def test_an_experiment_runs_with_adapters_beside_random_ones(
    model: Model, adapters: AdaptiveVectors, runs: Path, experiment: Experiment, kinds: set[str]
) -> None:
    run = experiment.run(model, adapters, toys.task(), out=runs, progress=False)
    assert kinds | {"trained"} <= set(run.frame["vector"].dropna())
    if not isinstance(experiment, VectorGeometry):  # its controls are directions, not interventions
        assert not {"random-covariance", "other-block", "permuted-layers"} & set(run.frame["vector"].dropna())
    assert run.verdicts
    scale_zero_changes_nothing(run.frame)


def scale_zero_changes_nothing(frame: Any) -> None:
    """Where an experiment has a factor or dose."""
    for name in ("factor", "dose"):
        if name not in frame:
            continue
        still = frame[(frame["vector"] == "trained") & (frame[name] == 0)]
        assert len(still)
        moved = [column for column in ("gain", "kl", "kl_task", "repeated_change") if column in still]
        assert moved
        for column in moved:
            assert still[column].dropna().abs().max() < 1e-6, column


@pytest.mark.parametrize("experiment", REFUSING, ids=named(REFUSING))
def test_an_experiment_without_adapters_says_why_in_one_line(
    model: Model, adapters: AdaptiveVectors, runs: Path, experiment: Experiment
) -> None:
    with pytest.raises(UserError, match=f"takes no rank-1 adapters: {re.escape(experiment.no_adapters)}") as found:
        experiment.run(model, adapters, toys.task(), out=runs, progress=False)
    assert experiment.no_adapters
    assert "\n" not in str(found.value)


def test_every_experiment_runs_with_adapters_or_says_why_not() -> None:
    """None is forgotten here: what takes vectors is in one of the lists, or has its own tests with adapters."""
    own = {"adaptive-scaling", "sae-attribution", "feature-correctness"}
    here = {one.name for one, _ in (*EVERY, *READING)} | {one.name for one in REFUSING} | own
    all_of = {name: registry.load("experiments", name) for name in registry.names("experiments") if "/" not in name}
    assert {name for name, one in all_of.items() if "vectors" in one.needs} == here


def indexed(rows: Any) -> Any:
    return rows.set_index(INDEX)["value"]


def test_persistence_does_not_depend_on_the_sign_that_an_adapter_is_written_with(
    model: Model, adapters: AdaptiveVectors, runs: Path
) -> None:
    """(a, b) and (-a, -b); the scale's sign is a property of the adapter, and makes Delta another one."""
    settings = Persistence(n=6, controls=(), layers=(0,))
    same = replace(adapters, a=-adapters.a, b=-adapters.b)
    frames = [settings.run(model, one, toys.task(), out=runs, progress=False).frame for one in (adapters, same)]
    one, other = (indexed(frame[frame["part"] == "pairs"]) for frame in frames)
    assert {"self", "gain", "induced", "diff_vector", "mean_diff"} <= set(one.index.get_level_values("statistic"))
    pd.testing.assert_series_equal(one, other, rtol=1e-4, atol=1e-5)


def test_persistence_compares_with_what_the_adapter_added_at_each_token(
    model: Model, adapters: AdaptiveVectors, runs: Path
) -> None:
    """Against two plain runs, with strengths computed from the neurons."""
    run = Persistence(n=6, controls=(), layers=(0,)).run(model, adapters, toys.task(), out=runs, progress=False)
    ctx = Context(model=model, task=toys.task(), vectors=adapters, n=6, store=Store(runs))
    said, one = texts(ctx), adapters.only(0)
    sites = [Site(0, "mlp_post"), Site(2, "resid_post")]
    clean, moved = (model.run(said.batch, edits, sites) for edits in ((), one.edits()))
    added = (clean[sites[0]] @ one.a[0])[..., None] * one.b[0]
    change, where = moved[sites[1]] - clean[sites[1]], said.where("generated")
    cosines = torch.nn.functional.cosine_similarity(change, added, dim=-1)
    read = run.frame.query("part == 'pairs' and stratum == 'generated' and observed == 2").set_index("statistic")
    by_row = [(cosines[row][at], change[row][at], added[row][at]) for row, at in enumerate(where) if at.any()]
    wanted = torch.stack([cosine.mean() for cosine, _, _ in by_row]).mean()
    gain = torch.stack([c.norm(dim=-1).mean() / a.norm(dim=-1).mean() for _, c, a in by_row]).mean()
    assert read.loc["self", "value"] == pytest.approx(float(wanted), abs=1e-4)
    assert read.loc["gain", "value"] == pytest.approx(float(gain), rel=1e-3)


def test_what_an_adapter_writes_on_average_is_its_mean_change_of_the_block(
    model: Model, adapters: AdaptiveVectors, runs: Path
) -> None:
    """Measured with each adapter on alone; the signs of a and b do not matter, and vectors stay as they are."""
    ctx = Context(model=model, task=toys.task(), vectors=adapters, n=6, store=Store(runs))
    found = written(ctx, adapters)
    said = texts(ctx, keep=adapters.layers)
    where = said.where("generated")
    for layer in adapters.layers:
        moved, _ = said.forced.steered_at(adapters.only(layer).edits(), [layer])
        change = moved[layer] - said.forced.base_at(layer)
        means = torch.stack([change[row][at].mean(0) for row, at in enumerate(where) if at.any()])
        torch.testing.assert_close(found[layer], means.mean(0), atol=1e-5, rtol=1e-4)
    same = written(ctx, replace(adapters, a=-adapters.a, b=-adapters.b))
    torch.testing.assert_close(same.directions, found.directions)
    fixed = toys.random(model, scale=1.0)
    assert written(ctx, fixed) is fixed


def test_adapters_have_random_controls_where_only_shuffled_layers_were_asked_for(
    model: Model, adapters: AdaptiveVectors, runs: Path
) -> None:
    settings = Transfer(n=8, draws=3, recipients=("task-prompt",), controls=("permuted-layers",), donors=())
    run = settings.run(model, adapters, toys.task(), out=runs, progress=False)
    rows = run.frame[run.frame["part"] == "accuracy"]
    assert list(rows["vector"]).count("random-isotropic") == 3
    assert {*rows["vector"]} == {"base", "trained", "random-isotropic"}


def test_adapters_are_not_carried_to_another_shape(model: Model, adapters: AdaptiveVectors, runs: Path) -> None:
    ctx = Context(model=model, task=toys.task(), vectors=adapters, n=2, store=Store(runs))
    heard: list[str] = []
    ctx.say = heard.append
    other = toys.model("gpt2")
    ctx.once("recipient ./other", lambda: other)
    assert (other.n_layers, other.d_model, other.cfg.d_mlp) != (model.n_layers, model.d_model, model.cfg.d_mlp)
    assert recipient(ctx, "./other") is None
    assert [line for line in heard if "reads the neurons of its own MLP" in line] == heard[-1:]


@pytest.mark.parametrize("layer", [0, 1])
def test_what_enters_the_block_above_an_adapter_is_what_a_plain_run_gives(
    model: Model, adapters: AdaptiveVectors, runs: Path, layer: int
) -> None:
    """Its output with and without the adapter, from whole runs; the patch that lets everything in changes nothing."""
    from experiments.patched_block import PatchedBlock
    from experiments.patches import BASE, STEERED_BLOCK

    ctx = Context(model=model, task=toys.task(), vectors=adapters, n=4, store=Store(runs))
    said, one = texts(ctx, keep=[layer]), adapters.only(layer)
    read = said.batch.mask
    clean, moved = streams(ctx, said, one)
    plain, _ = texts(ctx).forced.steered_at(one.edits(), [layer])
    torch.testing.assert_close(moved[read], plain[layer][read])
    assert not torch.allclose(moved[read], clean[read])
    patched = PatchedBlock(ctx, said, one, said.where("generated"))
    whole = said.forced.steered(one.edits())[0][said.where("generated")]
    torch.testing.assert_close(patched.final(STEERED_BLOCK), whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(patched.final(BASE), patched.base, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(patched.base, whole, atol=1e-3)
