"""Completions under the vectors with the features that fire in them, up to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from experiments.feature_correctness_tests import Firing, rates_of
from interp.bare_model import takes_model
from interp.context import Context
from interp.edits import Edit
from interp.tasks.task import Problem
from sae import Dictionary
from sae.passes import Layout, described, lay_out, streams

PROBLEMS_AT_ONCE = 8
BOX = "\\boxed"


@dataclass(frozen=True)
class Said:
    """One graded completion.

    Attributes:
        problem: index of its problem.
        sample: index among those of the problem.
        ids: generated tokens.
        before: how many of them come before the answer's box; all where there is none.
        right: graded right.
        ended: ended by itself.
        boxed: has a closed box.
    """

    problem: int
    sample: int
    ids: tuple[int, ...]
    before: int
    right: bool
    ended: bool
    boxed: bool


def said(ctx: Context, problems: Sequence[Problem], edits: Sequence[Edit], samples: int) -> list[Said]:
    """Graded completions of problems under edits, at temperature 1."""
    keys = [problem.id for problem in problems]
    found = ctx.completions(ctx.prompts(problems), edits, temperature=1.0, samples=samples, keys=keys)
    rows: list[Said] = []
    for row, text in found:
        grade = ctx.task.grade(problems[row.prompt], text)
        before = before_answer(ctx.model, row.ids)
        rows.append(Said(row.prompt, row.sample, row.ids, before, bool(grade.right), row.ended, grade.boxed))
    return rows


@takes_model
def before_answer(model: Any, ids: Sequence[int]) -> int:
    """Tokens whose text ends before the last box begins, at least one; all where there is no box."""
    text: str = model.decode([list(ids)])[0]
    place = text.rfind(BOX)
    if place < 0:
        return len(ids)
    ends = [len(model.decode([list(ids[: count + 1])])[0]) for count in range(len(ids))]
    return max(1, sum(end <= place for end in ends))


def codes(
    ctx: Context, problems: Sequence[Problem], rows: Sequence[Said], edits: Sequence[Edit], found: Dictionary
) -> list[Float[Tensor, "pos feature"]]:
    """Activations at the positions that predict the tokens before the answer, for each completion.

    Column i is read where token i is predicted: the first is the last prompt token.
    """
    every: list[Tensor] = []
    for start in range(0, len(problems), PROBLEMS_AT_ONCE):
        some = [[row for row in rows if row.problem == at] for at in range(start, start + PROBLEMS_AT_ONCE)]
        kept = [start + index for index, one in enumerate(some) if one]
        if not kept:
            continue
        prompts = ctx.prompts([problems[index] for index in kept])
        layout = lay_out(ctx.model, prompts, [[row.ids for row in some[index - start]] for index in kept])
        here = [row for one in some for row in one]
        every += [values[: row.before] for values, row in zip(_coded(ctx, layout, edits, found), here, strict=True)]
    return every


def _coded(ctx: Context, layout: Layout, edits: Sequence[Edit], found: Dictionary) -> Float[Tensor, "row pos feature"]:
    steered = streams(ctx.model, layout, edits, found.site).tails
    base = streams(ctx.model, layout, (), found.site).tails if found.card.of == "change" else steered
    return found.encode(described(found.card.of, base, steered))


def firing(
    ctx: Context, problems: Sequence[Problem], rows: Sequence[Said], edits: Sequence[Edit], found: Dictionary
) -> Firing:
    """Firing rates of the completions of those problems that have right and wrong ones."""
    mixed = {index for index in range(len(problems)) if len({row.right for row in rows if row.problem == index}) == 2}
    kept = sorted((row for row in rows if row.problem in mixed), key=lambda row: (row.problem, row.sample))
    active = [(one != 0).cpu().numpy() for one in codes(ctx, problems, kept, edits, found)]
    rate = rates_of(active) if active else np.zeros((0, found.width))
    covariates = [[row.before, row.ended, row.boxed] for row in kept]
    return Firing(
        rate,
        np.array([row.right for row in kept], float),
        np.array([problems[row.problem].id for row in kept], object).astype(str),
        np.array(covariates, float).reshape(-1, 3),
        np.array([row.sample for row in kept], int),
    )


def top_contexts(
    ctx: Context,
    problems: Sequence[Problem],
    rows: Sequence[Said],
    edits: Sequence[Edit],
    found: Dictionary,
    features: Sequence[int],
    firing: Firing,
    count: int,
) -> list[dict[str, Any]]:
    """The completions in which features fire most, token by token, with their activations."""
    by_name = {(problems[row.problem].id, row.sample): row for row in rows}
    told: list[dict[str, Any]] = []
    for feature in features:
        order = np.argsort(-firing.rate[:, feature], kind="stable")[:count]
        chosen = [by_name[str(firing.problem[at]), int(firing.sample[at])] for at in order]
        chosen = sorted(chosen, key=lambda row: (row.problem, row.sample))
        for context, (row, values) in enumerate(zip(chosen, codes(ctx, problems, chosen, edits, found), strict=True)):
            told += _tokens(ctx, problems[row.problem].id, row, feature, context, values[:, feature])
    return told


def _tokens(
    ctx: Context, example: str, row: Said, feature: int, context: int, values: Float[Tensor, " pos"]
) -> list[dict[str, Any]]:
    return [
        {
            "part": "tokens",
            "vector": "trained",
            "feature": feature,
            "context": context,
            "example": example,
            "position": position,
            "token": ctx.model.token_text(row.ids[position]),
            "activation": float(value),
            "right": float(row.right),
        }
        for position, value in enumerate(values.tolist())
    ]
