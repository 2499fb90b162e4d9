"""Baseline vectors out of a model's own completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch

from interp.backend.weights import Hooked
from interp.bare_model import takes_model
from interp.batch import Batch
from interp.completions import Completions
from interp.errors import UserError
from interp.forced import Forced
from interp.model import Model
from interp.tasks.asking import Prompting
from interp.tasks.task import Problem, Split, Task
from vectors.baselines import FRACTION, States, mean_difference, probe
from vectors.card import Card
from vectors.steering import SteeringVectors


@takes_model
def baseline(
    model: Model | Hooked,
    task: Task,
    method: Literal["mean-difference", "probe"] = "mean-difference",
    *,
    n: int = 64,
    samples: int = 8,
    seed: int = 0,
    split: Split = "train",
    layers: Sequence[int] | None = None,
    positions: int = 16,
    fraction: float = FRACTION,
) -> SteeringVectors:
    """Vectors that point from the model's own wrong completions to its right ones.

    Completions are sampled at temperature 1 and read at their first generated tokens; prompt, template and end
    tokens stay out.

    Args:
        model: the model.
        task: problems with answers.
        method: how the direction is taken.
        n: number of problems.
        samples: completions of each problem.
        seed: of the sampling.
        split: where the problems come from; never the one that is reported on.
        layers: blocks; all of them if None.
        positions: how many generated positions are read.
        fraction: norm of each vector, as a fraction of the median residual norm at its layer.

    Raises:
        UserError: no completion is right, or none is wrong.
    """
    model, problems = Model.of(model), task.problems(split, n)
    prompts = [task.prompt(model.tokenizer, problem) for problem in problems]
    completions = model.generate(
        prompts,
        max_new_tokens=task.max_new_tokens,
        samples=samples,
        seed=seed,
        keys=[problem.id for problem in problems],
    )
    recipe = {"n": n, "samples": samples, "seed": seed, "split": split}
    return from_completions(
        model,
        task,
        problems,
        completions,
        method,
        layers=layers,
        positions=positions,
        fraction=fraction,
        recipe=recipe,
    )


@takes_model
def from_completions(
    model: Model,
    task: Task,
    problems: Sequence[Problem],
    completions: Completions,
    method: Literal["mean-difference", "probe"] = "mean-difference",
    *,
    layers: Sequence[int] | None = None,
    positions: int = 16,
    fraction: float = FRACTION,
    recipe: Mapping[str, Any] | None = None,
) -> SteeringVectors:
    """What `baseline` makes of completions that are there already.

    Args:
        model: the model.
        task: grades them.
        problems: one for each prompt of the completions.
        completions: of the model without edits, at temperature 1.
        method: how the direction is taken.
        layers: blocks; all of them if None.
        positions: how many generated positions are read.
        fraction: norm of each vector, as a fraction of the median residual norm at its layer.
        recipe: what the card should say of the completions.

    Raises:
        UserError: no completion is right, or none is wrong.
    """
    grades = _grades(task, problems, completions)
    blocks = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    groups = _groups(model, completions, grades, blocks, positions)
    prompt = Prompting.from_task(task).as_dict()
    about = {"task": task.name, "task_digest": task.digest, "prompt": prompt, **(recipe or {})}
    card = Card(
        name=f"{method} on {task.name}",
        base_model=model.name,
        architecture=model.architecture,
        lineage=model.lineage,
        fingerprint=model.fingerprint,
        d_model=model.d_model,
        n_layers=model.n_layers,
        origin=f"{method} of the model's own right and wrong completions",
        recipe={**about, "temperature": 1.0, "positions": positions},
    )
    take = mean_difference if method == "mean-difference" else probe
    return take(groups, blocks, card, fraction=fraction)


def _grades(task: Task, problems: Sequence[Problem], completions: Completions) -> list[list[bool]]:
    """Whether each sample of each problem is right."""
    grades = [
        [bool(task.grade(problem, text).right) for _, text in completions.of(index)]
        for index, problem in enumerate(problems)
    ]
    right = sum(sum(row) for row in grades)
    if right in (0, len(completions)):
        given = f"{right} of {len(completions)} right"
        raise UserError("right and wrong completions are both needed", given=given, works="another task, more samples")
    return grades


def _groups(
    model: Model, completions: Completions, grades: list[list[bool]], layers: tuple[int, ...], positions: int
) -> Iterator[States]:
    """States of the problems with both outcomes; of all problems where none has both."""
    decided = [index for index, row in enumerate(grades) if 0 < sum(row) < len(row)]
    for index in decided or range(len(grades)):
        yield _states(model, completions, index, grades[index], layers, positions)


def _states(
    model: Model, completions: Completions, index: int, right: list[bool], layers: tuple[int, ...], positions: int
) -> States:
    rows = [row for row, _ in completions.of(index)]
    tails = [row.ids[:positions] for row in rows]
    width = len(completions.prompts[index].ids)
    # Right padding would need a mask of its own; a repeated last token after the end is read by nothing.
    filled = [[*tail, *(tail[-1:] * (positions - len(tail)))] for tail in tails]
    batch = Batch.of([completions.prompts[index]] * len(rows), filled)
    forced = Forced(model, batch, keep=layers)  # the prompt, which all rows share, is run once
    values = torch.stack([forced.base_at(layer)[:, width:].float().cpu() for layer in layers], 1)
    stops = set(model.stop_ids)
    valid = [[place < len(tail) and tail[place] not in stops for place in range(positions)] for tail in tails]
    return States(values, torch.tensor(valid), torch.tensor(right))
