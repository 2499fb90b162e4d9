"""Graded accuracy of a model under an intervention, with what must stand beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from interp.context import Context
from interp.errors import UserError
from interp.fired import refuse_untouched
from interp.given import as_json
from interp.summaries.intervals import bootstrap, wilson

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evaluation:
    """How a model did on a split.

    Attributes:
        accuracy: share of completions graded right; a cut completion keeps its grade.
        low: lower end of the 95 % interval over problems.
        high: upper end.
        n: problems.
        samples: completions of each problem.
        boxed: share of completions with a closed box.
        ended: share that ended by themselves.
        entropy: mean entropy of a token's distribution, nats.
        length: mean length, tokens.
        temperature: 0 = greedy.
        split: of the task.
        templates: accuracy by template of the task, where it has any.
    """

    accuracy: float
    low: float
    high: float
    n: int
    samples: int
    boxed: float
    ended: float
    entropy: float
    length: float
    temperature: float
    split: str
    templates: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return as_json(asdict(self))


def evaluate(ctx: Context, *, split: Any = "test", temperature: float = 1.0, samples: int = 1) -> Evaluation:
    """Grade completions of the context's model, with its vectors if it has any; completions are cached.

    Args:
        ctx: model, vectors, task, n and seed.
        split: train, validation or test.
        temperature: 0 = greedy.
        samples: completions of each problem.

    Raises:
        UserError: the task has no answers.
    """
    frame = graded(ctx, split=split, temperature=temperature, samples=samples)
    if any(frame["right"].isna().tolist()):
        raise UserError(f"task {ctx.task.name} has problems without answers", works="give a task with answers")
    frame = frame.assign(right=frame["right"].astype(float))
    right, example = frame["right"].to_numpy(), frame["example"].to_numpy()
    known = wilson(int(right.sum()), len(right)) if samples == 1 else bootstrap(right, example, seed=ctx.seed)
    named = frame.loc[frame["template"] != ""]
    return Evaluation(
        accuracy=known.estimate,
        low=known.low,
        high=known.high,
        n=len(set(frame["example"])),
        samples=samples,
        boxed=fmean(frame["boxed"]),
        ended=fmean(frame["ended"]),
        entropy=fmean(frame["entropy"]),
        length=fmean(frame["length"]),
        temperature=temperature,
        split=str(split),
        templates={
            name: fmean(named.loc[named["template"] == name, "right"]) for name in sorted(set(named["template"]))
        },
    )


def graded(ctx: Context, *, split: Any, temperature: float, samples: int) -> pd.DataFrame:
    """One row per completion: example, template, right, boxed, ended, entropy, length, text."""
    import pandas as pd

    problems = ctx.problems(split)
    edits = () if ctx.vectors is None else ctx.vectors.edits()
    keys = [problem.id for problem in problems]
    said = ctx.completions(ctx.prompts(problems), edits, temperature=temperature, samples=samples, keys=keys)
    refuse_untouched(said.fired)
    rows: list[dict[str, Any]] = []
    for row, text in said:
        problem = problems[row.prompt]
        grade = ctx.task.grade(problem, text)
        rows.append(
            {
                "example": row.prompt,
                "template": problem.template,
                "right": grade.right,
                "boxed": grade.boxed,
                "ended": row.ended,
                "entropy": fmean(row.entropy),
                "length": len(row.ids),
                "text": text,
            }
        )
    return pd.DataFrame(rows)
