"""How a task's problems are asked and graded where a user sets it, and how they were asked in a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

from interp.errors import UserError
from interp.grading import Regex, Scorer, load_scorer
from interp.tasks.files import with_scorer
from interp.tasks.graders import graded_by
from interp.tasks.task import Task

VECTORS = "vectors"
"""Stands, in place of a task's name, for the prompt under which the run's vectors were trained."""

NONE = "none"
"""Stands for no system line."""


@dataclass(frozen=True)
class Asking:
    """What a user sets in place of what a task brings; what is not set stays the task's.

    Attributes:
        prompt_of: a task whose system line and worked examples are taken, or `VECTORS`.
        system: the system line; `NONE` for none.
        example: worked examples, as (question, answer).
        no_example: show no worked example.
        scorer: see `interp.grading.load_scorer`.
        pattern: a regular expression whose first group is the answer, in place of a scorer.
        grader: one of `interp.tasks.graders.GRADERS`.
        tokens: where completions are cut.
    """

    prompt_of: str | None = None
    system: str | None = None
    example: tuple[tuple[str, str], ...] = ()
    no_example: bool = False
    scorer: str | None = None
    pattern: str | None = None
    grader: str = "workbench"
    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.scorer is not None and self.pattern is not None:
            raise UserError("--scorer and --pattern exclude each other", works="give one of them")
        if self.example and self.no_example:
            raise UserError("--example and --no-example exclude each other", works="give one of them")

    @property
    def like_vectors(self) -> bool:
        """Whether the prompt is the one under which the vectors were trained."""
        return self.prompt_of == VECTORS

    def apply(self, task: Task, vectors: Any = None) -> Task:
        """The task as the user wants it asked and graded.

        Args:
            task: the task.
            vectors: an Intervention, whose card holds its training's prompt; needed for `prompt_of=VECTORS` alone.

        Raises:
            UserError: there is no such scorer or task, or no card holds the prompt that is asked for.
        """
        scorer = self._scorer()
        task = task if scorer is None else with_scorer(task, scorer)
        if self.prompt_of is not None:
            prompt = _trained(vectors) if self.like_vectors else _task(self.prompt_of)
            task = replace(task, system=prompt.system, example=prompt.example)
        if self.system is not None:
            task = replace(task, system=None if self.system == NONE else self.system)
        if self.example or self.no_example:
            task = replace(task, example=self.example)
        task = graded_by(task, self.grader)
        return task if self.tokens is None else replace(task, max_new_tokens=self.tokens)

    def _scorer(self) -> Scorer | None:
        if self.pattern is not None:
            return Regex(self.pattern)
        return None if self.scorer is None else load_scorer(self.scorer)


@dataclass(frozen=True)
class Prompting:
    """A system line, worked examples and the scorer's name: what two tasks must share to be asked and graded alike."""

    system: str | None
    example: tuple[tuple[str, str], ...]
    scorer: str

    @classmethod
    def from_task(cls, task: Task) -> Prompting:
        """Those of a task."""
        return cls(task.system, task.example, task.scorer.spec)

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Prompting | None:
        """Those on a card; None where it does not hold them."""
        if not {"system", "example", "scorer"} <= set(fields):
            return None
        example = tuple((str(pair[0]), str(pair[1])) for pair in fields["example"])
        return cls(fields["system"], example, str(fields["scorer"]))

    def as_dict(self) -> dict[str, Any]:
        """As a card holds it."""
        return {"system": self.system, "example": [list(pair) for pair in self.example], "scorer": self.scorer}


def training_of(vectors: Any) -> tuple[str, str, Prompting | None] | None:
    """The task that vectors were trained on, its digest, and how it was asked.

    Returns:
        None where their card names no task; the last is None where neither the card nor an installed task holds it.
    """
    recipe = getattr(getattr(vectors, "card", None), "recipe", None)
    while isinstance(recipe, Mapping) and "task" not in recipe:
        recipe = cast("Mapping[str, Any]", recipe).get("recipe")  # of a part of a set: that of the set
    if not isinstance(recipe, Mapping):
        return None
    fields = cast("Mapping[str, Any]", recipe)
    task = fields["task"]
    if not isinstance(task, Mapping):
        task = {"name": str(task), "digest": fields.get("task_digest", ""), **(fields.get("prompt") or {})}
    known = cast("Mapping[str, Any]", task)
    name, digest = str(known.get("name", "")), str(known.get("digest", ""))
    return name, digest, Prompting.read(known) or _installed(name, digest)


def prompt_note(vectors: Any, task: Task | None, *, graded: bool = True) -> str | None:
    """One line where vectors were trained under another prompt, or another scorer, than a task has; else None.

    Args:
        vectors: an Intervention; one whose card names no task gets no note.
        task: what they are run on.
        graded: whether completions are graded, so that the scorer matters.
    """
    training = None if task is None else training_of(vectors)
    if task is None or training is None:
        return None
    name, digest, trained = training
    asked = Prompting.from_task(task)
    if trained is not None and not graded:
        trained = replace(trained, scorer=asked.scorer)
    if trained == asked or digest == task.digest:
        return None
    start = f"these vectors were trained on the task {name}"
    if trained is None:
        return f"{start}, whose prompt their card does not hold: whether {task.name} asks alike is unknown"
    prompt = [what for what in ("system", "example") if getattr(trained, what) != getattr(asked, what)]
    parts = {"system": "another system line", "example": "other worked examples"}
    differences = [parts[what] for what in prompt]
    remedies = ["--prompt-of vectors asks with theirs"] if prompt else []
    if trained.scorer != asked.scorer:
        differences.append(f"another scorer ({trained.scorer})")
        remedies.append(f"--scorer '{trained.scorer}' grades with theirs")
    return f"{start} with {' and '.join(differences)} than {task.name} has; {'; '.join(remedies)}"


@cache
def _installed(name: str, digest: str) -> Prompting | None:
    """How an installed task is asked, if it is the task of this digest; files and data sets are not opened."""
    from interp.tasks import BENCHMARKS, load_task, task_names

    if name not in task_names() or name in BENCHMARKS:
        return None
    task = load_task(name)
    return Prompting.from_task(task) if task.digest == digest else None


def _trained(vectors: Any) -> Prompting:
    if vectors is None:
        raise UserError("--prompt-of vectors needs vectors", works="give --vectors, or the name of a task")
    training = training_of(vectors)
    if training is None or training[2] is None:
        works = "give --prompt-of the name or the file of that task, or --system and --example"
        raise UserError("the card of these vectors does not hold the prompt that they were trained under", works=works)
    return training[2]


def _task(name: str) -> Task:
    from interp.tasks import load_task

    return load_task(name)
