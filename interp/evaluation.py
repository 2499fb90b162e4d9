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
    from collections.abc import Sequence

    import pandas as pd

    from interp.tasks.task import Problem


@dataclass(frozen=True)
class Shown:
    """A graded completion.

    Attributes:
        problem: what was asked.
        text: what the model said.
        answer: the right answer.
        read: the answer as the scorer read it; None where it read none.
        right: the grade.
    """

    problem: str
    text: str
    answer: str
    read: str | None
    right: bool


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
        prompt: the first prompt as the model got it, special tokens included.
        shown: a completion graded right and one graded wrong, where there are such.
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
    prompt: str = ""
    shown: tuple[Shown, ...] = ()

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
        UserError: a problem has no answer, or the scorer gives no grade.
    """
    problems, frame = _all_graded(ctx, split=split, temperature=temperature, samples=samples)
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
        prompt=ctx.model.prompt_text(ctx.prompts(problems[:1])[0]),
        shown=tuple(_first(ctx, problems, frame, grade) for grade in (1.0, 0.0) if grade in right),
    )


def _all_graded(ctx: Context, *, split: Any, temperature: float, samples: int) -> tuple[list[Problem], pd.DataFrame]:
    """The problems, and a completion in each row with its grade as a number."""
    problems = ctx.problems(split)
    if bare := next((problem.id for problem in problems if problem.answer is None), None):
        what = f"task {ctx.task.name} has problems without answers"
        raise UserError(what, given=f"problem {bare}", works="give a task with answers")
    frame = graded(ctx, split=split, temperature=temperature, samples=samples)
    if any(frame["right"].isna().tolist()):
        raise UserError(
            f"the scorer of task {ctx.task.name} left completions without a grade", given=ctx.task.scorer.spec
        )
    return problems, frame.assign(right=frame["right"].astype(float))


def _first(ctx: Context, problems: Sequence[Problem], frame: pd.DataFrame, right: float) -> Shown:
    """The first completion of this grade."""
    row = frame[frame["right"] == right].iloc[0]
    problem, text = problems[int(row["example"])], str(row["text"])
    read = ctx.task.grade(problem, text).answer
    return Shown(problem.problem, text, str(problem.answer), read, bool(right))


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
