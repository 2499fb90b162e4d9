"""Explicit small settings of every experiment: scales of the product may change, these may not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments import (
    AccuracyByLayer,
    AdaptiveScaling,
    Composition,
    EffectAgainstCost,
    FeatureCorrectness,
    GainLadder,
    LogitLens,
    Magnitude,
    MatchFullTuning,
    PathPatching,
    Persistence,
    Placement,
    PrefixSubstitution,
    SaeAttribution,
    SelfExplanation,
    SideEffects,
    TokenSubstitution,
    Transfer,
    VectorGeometry,
)
from interp.experiment import Experiment
from interp.model import Model
from tests.experiments import toys
from tests.sae import toys as saes
from vectors import Card, SteeringVectors
from vectors.train.record import Answers, TrainingRecord

SWEEP: dict[str, Any] = {"n": 8, "draws": 3, "validation_n": 2, "train_n": 2, "beside": ()}
FORCED: dict[str, Any] = {"n": 8, "draws": 3, "train_n": 2}
PLACES = ("ln1_out", "attn_out", "ln2_out")
SPLITS: dict[Any, int] = {"train": 8, "validation": 12, "test": 24}


@dataclass(frozen=True)
class Subject:
    """What the experiments study.

    Attributes:
        model: a tiny random model.
        vectors: one vector per block, the last one planted so that it raises accuracy.
        adapters: one rank-1 adapter per block; None where a norm follows the MLP, or the MLP has no gate.
        sae: folder of a random autoencoder of the change that the vectors make at block 1.
        places: files of vectors at the other places of the last block.
        records: folder of training records.
    """

    model: Model
    vectors: SteeringVectors
    adapters: Any
    sae: str
    places: tuple[str, ...]
    records: str


def subject(family: str, folder: Path) -> Subject:
    """Return a tiny random model of a family with everything that the experiments need, files in `folder`."""
    model = toys.model(family)
    last = model.n_layers - 1
    lower = toys.random(model, scale=6.0, layers=tuple(range(last)))
    vectors = (lower + toys.planted(model, scale=18.0, layers=(last,))).together()
    adaptable = model.cfg.gated_mlp and not model.cfg.use_normalization_before_and_after
    return Subject(
        model=model,
        vectors=vectors,
        adapters=toys.adapters(model) if adaptable else None,
        sae=str(saes.folder(folder / "sae", model, vectors)),
        places=tuple(_place(model, name, folder) for name in PLACES),
        records=str(_records(model, folder / "records")),
    )


def _place(model: Model, place: Any, folder: Path) -> str:
    last = model.n_layers - 1
    card = Card(name=place, d_model=model.d_model, n_layers=model.n_layers, site=place, trained="apart")
    rows = toys.random(model, scale=2.0, seed=PLACES.index(place)).directions
    return str(SteeringVectors(rows, (last,), card).save(folder / f"{place}.safetensors"))


def _records(model: Model, folder: Path) -> Path:
    """Write records of graded answers: the sets differ in the share of problems that are right."""
    generator = torch.Generator().manual_seed(0)
    facts = {"fingerprint": model.fingerprint, "task": toys.task(splits=SPLITS).digest, "rollouts": 100, "trials": 2}
    for name, share in (("base", 0.1), ("full", 0.8), ("all-layer", 0.7), ("lora-r1", 0.3)):
        marks = torch.rand(60, generator=generator) < share
        answers = Answers(
            problems=tuple(f"test-{index}" for index in range(60)), right="".join("01"[int(mark)] for mark in marks)
        )
        TrainingRecord.model_validate({"set": name, "seed": 0, "answers": {"T=1": answers}, **facts}).save(folder)
    return folder


def experiments(subject: Subject) -> dict[str, tuple[Experiment, Any]]:
    """Return name -> (experiment, vectors to study)."""
    vectors, single = subject.vectors, subject.vectors.only(subject.model.n_layers - 1)
    chosen: list[tuple[Experiment, Any]] = [
        (TokenSubstitution(**FORCED, causal_draws=3, chosen=2, at_most=1), single),
        (AccuracyByLayer(**SWEEP, control_blocks=1), vectors),
        (Magnitude(**SWEEP, factors=(0.0, 1.0), texts_n=2, kl_draws=1), vectors),
        (Composition(**SWEEP, factors=(0.0, 1.0)), vectors),
        (
            SideEffects(
                n=8,
                draws=3,
                n_texts=4,
                length=8,
                n_questions=2,
                answer_tokens=4,
                task_n=2,
                matched_n=2,
                doses=(0.0, 1.0),
                generated_draws=3,
                few_shot=False,
                controls=("random-isotropic", "permuted"),
            ),
            vectors,
        ),
        (GainLadder(**SWEEP, seeds=(), blocks=2), vectors),
        (EffectAgainstCost(**SWEEP, doses=(0.0, 1.0), random_doses=(1.0,), n_texts=4, length=8), vectors),
        (PrefixSubstitution(**FORCED, openers=2, matched_n=2, few_shot=False), single),
        (
            PathPatching(
                **FORCED,
                at_most=1,
                control_n=2,
                factorial_at_most=1,
                sweep=("skip-head",),
                sweep_at_most=1,
                references=False,
            ),
            vectors,
        ),
        (Persistence(**FORCED), vectors),
        (LogitLens(**FORCED, at_most=2, null_draws=20, top=3), vectors),
        (VectorGeometry(n=4, train_n=4, samples=2, draws=20, others=(), baselines=()), vectors),
        (
            Transfer(n=8, draws=3, recipients=("task-prompt", "other-system-line"), donors=(), few_shot=False),
            vectors,
        ),
        (SelfExplanation(n=2, draws=3, blocks=(0, 2), sizes=(1.0,), layers=2), vectors),
        (Placement(n=8, draws=3, sets=subject.places), single),
        (MatchFullTuning.at("smoke", folder=subject.records, temperatures=(1.0,), n=8), None),
        (SaeAttribution(n=9, sae=subject.sae, train_n=4, draws=4, beside_at_most=6), vectors),
        (
            FeatureCorrectness(
                n=12,
                associate_n=12,
                samples=6,
                sae=subject.sae,
                permutations=30,
                null_draws=40,
                draws=3,
                reported=4,
            ),
            vectors,
        ),
    ]
    if subject.adapters is not None:
        adaptive = AdaptiveScaling(n=4, draws=3, train_n=2, shown=1, reference="", temperatures=())
        chosen.append((adaptive, subject.adapters))
    return {experiment.name: (experiment, vectors) for experiment, vectors in chosen}
