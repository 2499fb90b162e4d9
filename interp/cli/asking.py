"""The flags that say how a task's problems are asked and graded: one group, wherever a command takes a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import click

from interp.given import as_vectors, check_paths
from interp.reading import NOTHING_SAID, Reading

_FLAGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("prompt_of", {"metavar": "T", "help": "Ask with the system line and examples of task T; `vectors`: of theirs."}),
    ("system", {"metavar": "TEXT", "help": "System line, in place of the task's; `none` for none."}),
    (
        "example",
        {"metavar": "QUESTION ANSWER", "nargs": 2, "multiple": True, "help": "Worked example; may be repeated."},
    ),
    ("no_example", {"is_flag": True, "help": "Show no worked example."}),
    ("scorer", {"metavar": "S", "help": "last-box, last-number, regex:PATTERN, choice:A|B or path/to/file.py:Name."}),
    ("pattern", {"metavar": "REGEX", "help": "Grade the first group of the last match, in place of a scorer."}),
    (
        "grader",
        {
            "type": click.Choice(["workbench", "plain"]),
            "default": "workbench",
            "show_default": True,
            "help": "How a last box is graded: by the workbench, or plain, by math-verify alone as in the paper.",
        },
    ),
    ("tokens", {"metavar": "N", "type": click.IntRange(1), "help": "Longest completion; the task's own by default."}),
)
PROMPT = ("prompt_of", "system", "example", "no_example")
"""Of these flags those that change a prompt."""


def asking_options(names: Sequence[str] = (), *, without: Sequence[str] = ()) -> list[click.Option]:
    """The flags by name, all of them by default.

    Args:
        names: which ones.
        without: which ones a command has with another help.
    """
    return [
        click.Option([f"--{name.replace('_', '-')}", name], **settings)
        for name, settings in _FLAGS
        if (not names or name in names) and name not in without
    ]


def asking_flags(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of these flags that differ from their defaults, for the recipe of a run."""
    return {name: values[name] for name, about in _FLAGS if values.get(name) not in (None, about.get("default"), ())}


def pop_asking(values: dict[str, Any], names: Sequence[str] = ()) -> Any:
    """Take the values of these flags, all by default, out of a command's values, as an `Asking`."""
    from interp.tasks.asking import Asking

    taken: dict[str, Any] = {
        name: values.pop(name) for name, _ in _FLAGS if name in values and (not names or name in names)
    }
    taken["example"] = tuple(taken.get("example") or ())
    return Asking(**taken)


def asks(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command's function these flags, all by default, as an argument `asking`."""

    def decorate(callback: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(callback)
        def call(**values: Any) -> Any:
            asking = pop_asking(values, names)
            return callback(**values, asking=asking)

        known: list[click.Option] = getattr(callback, "__click_params__", [])
        call.__dict__["__click_params__"] = [*reversed(asking_options(names)), *known]
        return call

    return decorate


def asked(task: Any, asking: Any, vectors: str | None, reading: Reading = NOTHING_SAID) -> Any:
    """A task as the flags want it asked; the card of vectors is read where it holds the prompt.

    Args:
        task: a Task.
        asking: an `Asking`.
        vectors: name of the vectors.
        reading: what a file of vectors leaves open.

    Raises:
        UserError: as `Asking.apply`.
    """
    if not asking.like_vectors:
        check_paths(**{"prompt-of": asking.prompt_of})
    return asking.apply(task, as_vectors(vectors, task=task, reading=reading) if asking.like_vectors else None)
