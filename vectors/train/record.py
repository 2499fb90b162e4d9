"""What a trained set is worth, problem by problem: kept as a small file, so that sets whose weights do not ship count.

Weights that move everywhere are too large to ship and long completions are dear, but right or wrong by problem, the
change of the last hidden state and a divergence per token are not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from torch import Tensor

from interp.bare_model import takes_model
from interp.batch import Batch
from interp.distributions import blocks, kl, log_probs
from interp.edits import Edit, Intervention
from interp.errors import UserError
from interp.files import write_json
from interp.forced import Forced
from interp.model import Model
from interp.scoring import PREDICTING, positions_of
from interp.tasks.task import Problem, Task
from vectors.train.evaluate import evaluate
from vectors.train.result import set_name
from vectors.train.settings import TrainSettings
from vectors.train.trainer import TESTED, Trained

RECORDS = "records"
"""Folder of records beside a model's sets."""
BASE = "base"
"""Name of the model itself, untrained."""
TEXTS = 32
"""Test problems whose completions by the base model are the fixed texts."""


class Answers(BaseModel):
    """One graded completion of each problem; its random stream depends on the problem alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problems: tuple[str, ...]
    """Ids of test problems."""
    right: str
    """"1" for each right answer, "0" for each wrong one."""

    def by_problem(self) -> dict[str, float]:
        """1 or 0 of each problem."""
        return {name: float(mark) for name, mark in zip(self.problems, self.right, strict=True)}


class Change(BaseModel):
    """What training changed on fixed texts: completions of the base model at temperature 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: dict[str, tuple[int, ...]]
    """Problem -> tokens of its completion, the end token included."""
    width: int
    """d_model."""
    delta: str
    """Mean change of the last block's output over the positions that predict a text's tokens, [text, d_model], base64
    of little-endian float16."""
    kl: dict[str, tuple[float, ...]]
    """"base" or a set's name -> KL(this model || that one), mean over the same positions of each text, nats."""
    of: dict[str, str] = {}
    """Digest of each of those sets: one that is trained anew under the same name is another."""

    def kl_to(self, name: str, digest: str = "") -> tuple[float, ...]:
        """KL(this model || that one) of each text; nothing where the set of that name is not the one of then.

        Args:
            name: "base" or a set's name.
            digest: of the set as it is now; empty for the base.
        """
        return self.kl.get(name, ()) if self.of.get(name, "") == digest else ()

    def deltas(self) -> Float[np.ndarray, "text d_model"]:
        """The mean change of each text."""
        return np.frombuffer(base64.b64decode(self.delta), "<f2").reshape(-1, self.width).astype(float)


class TrainingRecord(BaseModel):
    """A trained set, or the base model, on the test split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    set: str
    """Name of the set, "full" or "base"."""
    seed: int
    """Of training."""
    fingerprint: str
    """Of the base model, weights and settings: the record is of no other."""
    task: str
    """Digest of the task."""
    digest: str = ""
    """Of the set that ships; empty where none does."""
    rollouts: int = 0
    """Completions that it was trained on."""
    trials: int = 0
    """Runs of the same question among which it was chosen, itself included."""
    answers: dict[str, Answers] = {}
    """"T=1" and "greedy"."""
    change: Change | None = None
    """On fixed texts."""
    provenance: dict[str, JsonValue] = {}
    """Run, settings, versions, revision and time."""

    @property
    def name(self) -> str:
        """`set@seed`."""
        return f"{self.set}@{self.seed}"

    def save(self, folder: Path) -> Path:
        """Write it as `folder/records/<set>@<seed>.json`."""
        path = folder / RECORDS / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, json.loads(self.model_dump_json()))
        return path

    @classmethod
    def read(cls, path: Path) -> TrainingRecord:
        """Read a record.

        Raises:
            UserError: the file is none.
        """
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except (ValidationError, ValueError, OSError) as error:
            raise UserError("this file is no record of a trained set", given=path.name) from error


def read_records(folder: Path) -> list[TrainingRecord]:
    """The records of one model's sets, sorted by name."""
    return [TrainingRecord.read(path) for path in sorted((folder / RECORDS).glob("**/*.json"))]


def recorded(folder: Path, settings: TrainSettings, n_layers: int) -> bool:
    """Whether a model's folder holds the record of a run of these settings; what they leave open may be anything."""
    path = folder / RECORDS / f"{set_name(settings.checked(n_layers), n_layers)}@{settings.seed}.json"
    known = TrainingRecord.read(path).provenance.get("settings") if path.exists() else None
    asked = settings.model_dump(mode="json", include=settings.model_fields_set)
    return isinstance(known, dict) and all(known.get(name) == value for name, value in asked.items())


@dataclass(frozen=True)
class Fixed:
    """Prompts with completions of the base model, to compare models on."""

    examples: tuple[str, ...]
    texts: tuple[tuple[int, ...], ...]
    batch: Batch

    @classmethod
    @takes_model
    def of(cls, model: Model, task: Task, problems: Sequence[Problem], texts: Sequence[Sequence[int]]) -> Fixed:
        """These problems with these completions."""
        prompts = [task.prompt(model.tokenizer, problem) for problem in problems]
        batch = Batch.of(prompts, texts, device=model.device)
        return cls(tuple(one.id for one in problems), tuple(tuple(text) for text in texts), batch)

    @classmethod
    @takes_model
    def drawn(cls, model: Model, task: Task, n: int = TEXTS) -> Fixed:
        """The model's own completions of the first test problems at temperature 1."""
        problems = task.problems("test")[:n]
        score = evaluate(model, (), task, problems, temperature=1.0)
        return cls.of(model, task, problems, [row.ids for row in score.completions.rows])

    @takes_model
    def finals(self, model: Model, edits: Sequence[Edit] = ()) -> list[Float[Tensor, "_ d_model"]]:
        """Last hidden states at the positions that predict each text's tokens."""
        forced = Forced(model, self.batch)
        final = forced.steered(tuple(edits))[0] if edits else forced.base
        where = positions_of(model, forced.batch, PREDICTING)
        return [final[row][where[row]] for row in range(len(self.texts))]


def mean_changes(
    base: Sequence[Float[Tensor, "_ d_model"]], changed: Sequence[Float[Tensor, "_ d_model"]]
) -> Float[Tensor, "text d_model"]:
    """Mean change of the last hidden state of each text."""
    pairs = zip(base, changed, strict=True)
    return torch.stack([(after - before).float().mean(0) for before, after in pairs]).cpu()


@takes_model
def divergence(
    model: Model,
    finals: Sequence[Float[Tensor, "_ d_model"]],
    other: Model,
    others: Sequence[Float[Tensor, "_ d_model"]],
) -> tuple[float, ...]:
    """KL(model || other) of each text, mean over its positions, nats; each model with its own unembedding."""
    found: list[float] = []
    for own, beside in zip(finals, others, strict=True):
        parts = [kl(log_probs(model, own[some]), log_probs(other, beside[some])) for some in blocks(own, model.d_vocab)]
        found.append(float(torch.cat(parts).mean()))
    return tuple(found)


@takes_model
def record_of(
    trained: Trained, base: Model, task: Task, *, others: Mapping[str, Intervention], trials: int
) -> TrainingRecord:
    """The record of a finished run.

    Args:
        trained: the run, at its best checkpoint.
        base: the untrained model; apart from the trained one where all weights are trained.
        task: what was trained on.
        others: sets of the same model by name, to which the divergence is taken too.
        trials: runs among which this one was chosen.
    """
    settings, meta = trained.parameters.settings, trained.meta
    with torch.no_grad():
        model, edits = trained.parameters.sampler, trained.parameters.edits()
    return TrainingRecord(
        set=set_name(settings, base.n_layers),
        seed=settings.seed,
        fingerprint=str(meta["model"]["fingerprint"]),
        task=task.digest,
        rollouts=settings.steps * settings.prompts * settings.samples,
        trials=trials,
        answers=_answers(meta.get("answers"), model, edits, task, settings.test),
        change=_change(base, model, edits, task, others),
        provenance={name: meta[name] for name in ("key", "settings", "versions", "git", "finished")},
    )


@takes_model
def base_record(model: Model, task: Task, *, test: int | None = None) -> TrainingRecord:
    """The record of a model without anything trained."""
    answers = _answers(None, model, (), task, test)
    return TrainingRecord(set=BASE, seed=0, fingerprint=model.fingerprint, task=task.digest, answers=answers)


def _answers(known: Any, model: Model, edits: Sequence[Edit], task: Task, test: int | None) -> dict[str, Answers]:
    """What the run's own test found; a run that did not keep it is tested again, on the same random streams."""
    if known or test == 0:
        return {name: Answers.model_validate(marks) for name, marks in (known or {}).items()}
    problems = task.problems("test")[:test]
    with torch.no_grad():
        scores = {name: evaluate(model, edits, task, problems, temperature=t) for name, t in TESTED.items()}
    return {name: Answers.model_validate(score.marks) for name, score in scores.items()}


def _change(base: Model, model: Model, edits: Sequence[Edit], task: Task, others: Mapping[str, Intervention]) -> Change:
    fixed = Fixed.drawn(base, task)
    with torch.no_grad():
        before, after = fixed.finals(base), fixed.finals(model, edits)
        found = {BASE: divergence(model, after, base, before)}
        found |= {name: divergence(model, after, base, fixed.finals(base, one.edits())) for name, one in others.items()}
    delta = mean_changes(before, after).numpy().astype("<f2").tobytes()
    return Change(
        texts=dict(zip(fixed.examples, fixed.texts, strict=True)),
        width=base.d_model,
        delta=base64.b64encode(delta).decode(),
        kl=found,
        of={name: one.digest for name, one in others.items()},
    )
