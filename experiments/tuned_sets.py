"""Sets trained on the same rollouts, by their shipped weights or by the record of their evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.context import Context
from interp.digest import digest
from interp.edits import Edit, per_row
from interp.identity import identity_of
from interp.positions import EVERYWHERE
from vectors.catalogue import PRETRAINED
from vectors.controls import random_isotropic
from vectors.steering import SteeringVectors
from vectors.train.evaluate import EVALUATION_SEED
from vectors.train.record import BASE, Change, Fixed, TrainingRecord, mean_changes, read_records
from vectors.train.result import shipped

FULL = "full"
NAMES = {0.0: "greedy", 1.0: "T=1"}
"""How records name temperatures."""


@dataclass(frozen=True)
class Tuned:
    """One trained set with one seed.

    Attributes:
        kind: name of the set: "base", "all-layer", "lora-r1", "lora-r4", "full".
        seed: of training.
        record: of its evaluation; None where there is none of these weights.
        edits: what switches it on; None where its weights do not ship.
        vectors: the set, where its weights ship.
    """

    kind: str
    seed: int
    record: TrainingRecord | None = None
    edits: tuple[Edit, ...] | None = None
    vectors: Any = None

    @property
    def name(self) -> str:
        """`set@seed`."""
        return f"{self.kind}@{self.seed}"

    @property
    def rollouts(self) -> int | None:
        """Completions that it was trained on; None where neither record nor card says so."""
        if self.record is not None:
            return self.record.rollouts
        recipe = {} if self.vectors is None else self.vectors.card.recipe
        settings = recipe.get("settings") or {}
        known = [settings.get(name) for name in ("steps", "prompts", "samples")]
        steps, prompts, samples = known
        return None if steps is None or prompts is None or samples is None else steps * prompts * samples

    @property
    def trials(self) -> int | None:
        """Training runs among which it was chosen; None where unknown."""
        if self.record is not None:
            return self.record.trials
        return None if self.vectors is None else self.vectors.card.runs or None


def home(ctx: Context, folder: str) -> Path:
    """Where the sets and records of the run's model lie."""
    return Path(folder) if folder else PRETRAINED / str(ctx.model.name)


def tuned_sets(ctx: Context, kinds: Sequence[str], folder: str) -> list[Tuned]:
    """The base model and every set of some kinds, of this model and task, sorted by kind and seed."""
    path = home(ctx, folder)
    fits = [
        one for one in read_records(path) if (one.fingerprint, one.task) == (ctx.model.fingerprint, ctx.task.digest)
    ]
    weights = shipped(path, ctx.model) if path.is_dir() else {}
    # a set that was trained anew under its name is not what the old record is of
    current = {name: one.digest for name, one in weights.items()}
    records = {one.name: one for one in fits if one.digest in ("", current.get(one.name, one.digest))}
    found = [Tuned(BASE, 0, records.get(f"{BASE}@0"), ())]
    for name in sorted({*records, *weights}):
        kind, _, seed = name.partition("@")
        if kind in kinds and kind != BASE:
            one = weights.get(name)
            edits = None if one is None else tuple(one.edits())
            found.append(Tuned(kind, int(seed), records.get(name), edits, one))
    return found


def digests(sets: Sequence[Tuned]) -> dict[str, str]:
    """What of the sets can change a number, by name."""
    found: dict[str, str] = {}
    for one in sets:
        record = "" if one.record is None else digest(one.record.model_dump_json())
        found[one.name] = digest(record, [identity_of(edit) for edit in one.edits or ()])
    return found


def right_by_problem(
    ctx: Context, sets: Sequence[Tuned], temperature: float, *, live: bool
) -> dict[str, tuple[str, dict[str, float]]]:
    """Where the answers are from ("record" or "live"), and 1 or 0 of each problem, of each set.

    Records are taken where there are any. What else has its weights here completes the problems of the run, with the
    random streams of the records, in one batch.

    Args:
        ctx: the run.
        sets: of `tuned_sets`.
        temperature: of sampling; 0 = greedy.
        live: whether sets without a record are evaluated here.
    """
    name = NAMES.get(temperature, "")
    found: dict[str, tuple[str, dict[str, float]]] = {}
    for one in sets:
        answers = None if one.record is None else one.record.answers.get(name)
        if answers is not None:
            found[one.name] = "record", answers.by_problem()
    left = [one for one in sets if one.name not in found and one.edits is not None] if live else []
    if not left:
        return found
    problems = ctx.problems()
    said = ctx.completions(
        ctx.prompts(problems) * len(left),
        per_row([one.edits or () for one in left for _ in problems]),
        temperature=temperature,
        seed=EVALUATION_SEED,
        keys=[problem.id for problem in problems] * len(left),
    )
    marks: dict[str, dict[str, float]] = {one.name: {} for one in left}
    for row, text in said:
        problem = problems[row.prompt % len(problems)]
        right = float(bool(ctx.task.grade(problem, text).right))
        marks[left[row.prompt // len(problems)].name][problem.id] = right
    return found | {key: ("live", value) for key, value in marks.items()}


def fixed_texts(ctx: Context, change: Change, at_most: int) -> Fixed:
    """The texts of a record."""
    by_id = {problem.id: problem for problem in ctx.task.problems("test")}
    chosen = [name for name in change.texts if name in by_id][:at_most]
    return Fixed.of(ctx.model, ctx.task, [by_id[name] for name in chosen], [change.texts[name] for name in chosen])


def changes(ctx: Context, fixed: Fixed, sets: Mapping[str, Sequence[Edit]]) -> dict[str, Float[Tensor, "text d_model"]]:
    """Mean change of the last hidden state on each text, under each set."""
    before = fixed.finals(ctx.model)
    return {name: mean_changes(before, fixed.finals(ctx.model, edits)) for name, edits in sets.items()}


def random_sets(sets: Sequence[Tuned], draws: int, seed: int) -> dict[str, Sequence[Edit]]:
    """Random vectors with the norms of the first set of vectors."""
    first = next((one.vectors for one in sets if isinstance(one.vectors, SteeringVectors)), None)
    if first is None:
        return {}
    return {
        f"random {i}": one.edits(EVERYWHERE) for i, one in enumerate(random_isotropic(first, draws=draws, seed=seed))
    }


def cosines(one: Float[Tensor, "text d_model"], other: Float[np.ndarray, "text d_model"]) -> tuple[float, np.ndarray]:
    """Cosine of the two mean changes over all texts, and the stacked rows for a bootstrap, [text, 2 d_model]."""
    both = np.concatenate([one.numpy().astype(float), other[: len(one)]], 1)
    return cosine_of(both), both


def cosine_of(both: Float[np.ndarray, "text both"]) -> float:
    """Cosine of the means of the left and the right half of the columns."""
    left, right = np.split(both.mean(0), 2)
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / size if size > 0 else 0.0


def flipped(base: Mapping[str, float], own: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    """Which problems the base has wrong and the set right."""
    return np.array([base[name] == 0 and own[name] == 1 for name in names])


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Shared over all; NaN where there are none."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else float("nan")


def expected_jaccard(one: np.ndarray, other: np.ndarray, strata: Sequence[str], *, draws: int, seed: int) -> np.ndarray:
    """Jaccard overlaps when the flips of one set fall on random problems of the same stratum, a number a draw.

    Args:
        one: flips of one set, among problems that the base has wrong.
        other: flips of the other.
        strata: of each problem: overlap because some templates are easier is no shared mechanism.
        draws: permutations.
        seed: of the permutations.
    """
    generator, found = np.random.default_rng(seed), np.empty(draws)
    groups = [np.flatnonzero(np.array(strata) == name) for name in sorted(set(strata))]
    for draw in range(draws):
        mixed = one.copy()
        for group in groups:
            mixed[group] = one[generator.permutation(group)]
        found[draw] = jaccard(mixed, other)
    return found


def as_tensor(change: Change, n: int) -> Float[Tensor, "text d_model"]:
    """The recorded changes of the first texts."""
    return torch.tensor(change.deltas()[:n], dtype=torch.float32)
