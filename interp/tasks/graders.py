"""The values of `--grader`."""

from __future__ import annotations

from dataclasses import replace

from interp.errors import UserError
from interp.grading import LastBox, PlainBox
from interp.registry import unknown
from interp.tasks.task import Task

GRADERS = ("workbench", "plain")
"""Values of `--grader`: the task's own scorer, or math-verify alone on the last box."""


def graded_by(task: Task, grader: str) -> Task:
    """Return the task with the grader of `--grader`, which enters its digest.

    Args:
        task: a task whose scorer is the last box.
        grader: one of `GRADERS`.

    Raises:
        UserError: there is no such grader, or the task is not graded by its last box.
    """
    if grader not in GRADERS:
        raise unknown("grader", grader, list(GRADERS))
    if grader == "workbench":
        return task
    if not isinstance(task.scorer, LastBox):
        works = "leave --grader out: math-verify grades the last box alone"
        raise UserError(
            "--grader plain is for tasks that are graded by their last box", given=task.scorer.spec, works=works
        )
    return replace(task, scorer=PlainBox())
