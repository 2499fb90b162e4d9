"""Tasks: problems, how they are asked, how answers are graded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from interp.errors import UserError
from interp.files import as_path, exists
from interp.grading import load_scorer
from interp.registry import is_name, load, names, unknown
from interp.tasks.benchmarks import ALL_BENCHMARKS, BENCHMARKS, all_benchmarks, benchmark
from interp.tasks.files import from_hub, from_jsonl, from_prompts, with_scorer
from interp.tasks.task import SPLITS, Problem, Split, Task
from interp.tasks.word_problems import word_problems

__all__ = [
    "ALL_BENCHMARKS",
    "BENCHMARKS",
    "SPLITS",
    "Problem",
    "Split",
    "Task",
    "all_benchmarks",
    "benchmark",
    "from_hub",
    "from_jsonl",
    "from_prompts",
    "load_task",
    "task_names",
    "word_problems",
]

_HUB = re.compile(r"[\w.-]+/[\w.-]+(?::(?P<config>[\w.-]+))?")


def task_names() -> list[str]:
    """Names that `load_task` knows: installed tasks (entry points `interp.tasks`), the six benchmarks, all six."""
    return sorted({*names("tasks"), "word-problems", *BENCHMARKS, ALL_BENCHMARKS})


def load_task(name: str | Path, *, scorer: str | None = None) -> Task:
    """A task by name or path.

    Args:
        name: an installed task, a benchmark, a `.jsonl` file (see `from_jsonl`), a `.txt` file of prompts,
            `path/to/file.py:Name`, or a hub data set `owner/name[:config]` (see `from_hub`).
        scorer: replaces the task's own; see `interp.grading.load_scorer`.

    Raises:
        UserError: nothing of this name exists, or it is not a task.
    """
    task = _find(str(name))
    return task if scorer is None else with_scorer(task, load_scorer(scorer))


def _find(name: str) -> Task:
    path = as_path(name)
    if path.suffix == ".jsonl":
        return from_jsonl(path)
    if path.suffix == ".txt":
        return from_prompts(path)
    if is_name("tasks", name):
        return _task(load("tasks", name), name)
    if name == "word-problems":
        return word_problems()
    if name in BENCHMARKS:
        return benchmark(name)
    if name == ALL_BENCHMARKS:
        return all_benchmarks()
    if exists(path):
        raise UserError("not a task file", given=name, works="give a .jsonl file, a .txt file or path/to/file.py:Name")
    hub = _HUB.fullmatch(name)
    if hub:
        return from_hub(name.partition(":")[0], config=hub["config"])
    raise unknown("task", name, task_names())


def _task(found: Any, name: str) -> Task:
    made = found() if callable(found) and not isinstance(found, Task) else found
    if not isinstance(made, Task):
        raise UserError("not a task", given=name, works="name a Task, or a function that returns one")
    return made
