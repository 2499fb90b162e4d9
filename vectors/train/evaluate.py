"""Graded accuracy of an intervention on a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue
from scipy.stats import binomtest

from interp.bare_model import takes_model
from interp.completions import Completions
from interp.edits import Edit
from interp.grading import Grade
from interp.model import Model
from interp.tasks.task import Problem, Task

EVALUATION_SEED = 2**40
"""No training step samples with it."""


@dataclass(frozen=True)
class Score:
    """One completion of each problem, graded.

    Attributes:
        problems: what was asked.
        completions: what was said.
        grades: of each.
    """

    problems: Sequence[Problem]
    completions: Completions
    grades: Sequence[Grade]

    @property
    def right(self) -> float:
        """Share of right answers."""
        return sum(bool(grade.right) for grade in self.grades) / len(self.grades)

    @property
    def marks(self) -> dict[str, JsonValue]:
        """The problems by their ids, and "1" for each right answer, "0" for each wrong one."""
        right = "".join("1" if grade.right else "0" for grade in self.grades)
        return {"problems": [problem.id for problem in self.problems], "right": right}

    def summary(self) -> dict[str, JsonValue]:
        """Accuracy with its 95 % interval (Wilson; the problem is the unit), overall and by template, and the rest."""
        rows = self.completions.rows
        entropy = [value for row in rows for value in row.entropy]
        return {
            **_share([bool(grade.right) for grade in self.grades]),
            "boxed": sum(grade.boxed for grade in self.grades) / len(rows),
            "ended": sum(row.ended for row in rows) / len(rows),
            "tokens": self.completions.n_tokens / len(rows),
            "entropy_nats": sum(entropy) / len(entropy),
            "by_template": {name: _share(marks) for name, marks in self._by("template").items()},
            "by_operations": {name: _share(marks) for name, marks in self._by("operations").items()},
        }

    def _by(self, field: str) -> dict[str, list[bool]]:
        groups: dict[str, list[bool]] = {}
        for problem, grade in zip(self.problems, self.grades, strict=True):
            groups.setdefault(str(getattr(problem, field) or ""), []).append(bool(grade.right))
        return {name: marks for name, marks in sorted(groups.items()) if name}


@takes_model
def evaluate(
    model: Model, edits: Sequence[Edit], task: Task, problems: Sequence[Problem], *, temperature: float, seed: int = 0
) -> Score:
    """Complete and grade each problem once.

    Args:
        model: the model.
        edits: what is switched on; nothing for the base model.
        task: how problems are asked and graded.
        problems: one completion each.
        temperature: 0 = greedy.
        seed: of the draws, apart from those of any training step.
    """
    completions = model.generate(
        [task.prompt(model.tokenizer, problem) for problem in problems],
        tuple(edits),
        max_new_tokens=task.max_new_tokens,
        temperature=temperature,
        seed=EVALUATION_SEED + seed,
        keys=[problem.id for problem in problems],
    )
    grades = [task.grade(problem, text) for problem, (_, text) in zip(problems, completions, strict=True)]
    return Score(problems, completions, grades)


def _share(marks: Sequence[bool]) -> dict[str, JsonValue]:
    interval = binomtest(sum(marks), len(marks)).proportion_ci(method="wilson")
    return {
        "accuracy": sum(marks) / len(marks),
        "low": float(interval.low),
        "high": float(interval.high),
        "n": len(marks),
    }
