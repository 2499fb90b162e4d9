"""Rank-1 adapters as the intervention under study: every experiment runs with them, or says why not and what works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import (
    AccuracyByLayer,
    Composition,
    EffectAgainstCost,
    FeatureCorrectness,
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
from experiments.patched_block import streams
from experiments.sae_attribution import SaeAttribution
from experiments.texts import texts
from interp.context import Context
from interp.errors import UserError
from interp.experiment import Experiment
from interp.model import Model
from interp.store import Store
from tests.experiments import toys
from vectors import AdaptiveVectors, Card

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
REFUSING: tuple[Experiment, ...] = tuple(
    one.at("smoke")
    for one in (
        LogitLens,
        Persistence,
        VectorGeometry,
        SelfExplanation,
        Transfer,
        Placement,
        SaeAttribution,
        FeatureCorrectness,
    )
)
"""Experiments that read or move a fixed direction."""


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def adapters(model: Model) -> AdaptiveVectors:
    return adapter(model)


def adapter(model: Model, layers: tuple[int, ...] = (0, 1, 2), trained: Any = "apart") -> AdaptiveVectors:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(len(layers), model.cfg.d_mlp, generator=generator)
    b = torch.randn(len(layers), model.d_model, generator=generator)
    card = Card(
        name="toy", kind="rank1", site="mlp_out", d_model=model.d_model, n_layers=model.n_layers, trained=trained
    )
    return AdaptiveVectors(a, b, (1.0,) * len(layers), layers, card).together()


def named(experiments: Any) -> list[str]:
    return [type(one[0] if isinstance(one, tuple) else one).__name__ for one in experiments]


@pytest.mark.parametrize(("experiment", "kinds"), EVERY, ids=named(EVERY))
def test_an_experiment_runs_with_adapters_beside_random_ones(
    model: Model, adapters: AdaptiveVectors, runs: Path, experiment: Experiment, kinds: set[str]
) -> None:
    run = experiment.run(model, adapters, toys.task(), out=runs, progress=False)
    assert kinds | {"trained"} <= set(run.frame["vector"].dropna())
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
def test_an_experiment_on_fixed_directions_refuses_adapters_in_one_line(
    model: Model, adapters: AdaptiveVectors, runs: Path, experiment: Experiment
) -> None:
    with pytest.raises(UserError, match=r"no fixed vector.*adaptive-scaling, token-substitution") as found:
        experiment.run(model, adapters, toys.task(), out=runs, progress=False)
    assert "\n" not in str(found.value)


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
