"""Progress and time left of long work, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass
class Bar:
    """A running bar.

    Attributes:
        show: the rich progress display; None where nothing is shown.
        task: its task.
    """

    show: Any = None
    task: Any = None

    def advance(self, steps: int) -> None:
        """Count steps as done."""
        if self.show is not None:
            self.show.advance(self.task, steps)

    def say(self, text: str) -> None:
        """One line above the bar."""
        if self.show is not None:
            self.show.console.print(text, markup=False, highlight=False)


@contextmanager
def bar(what: str, total: int, *, done: int = 0, shown: bool = True) -> Generator[Bar]:
    """Show a bar while the block runs.

    Args:
        what: what is being done.
        total: number of steps.
        done: steps that were done before.
        shown: show anything at all.
    """
    if not shown:
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    console = Console(stderr=True, force_jupyter=False)
    quiet = not console.is_terminal
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True, disable=quiet
    ) as show:
        yield Bar(show, show.add_task(what, total=total, completed=done))


def to_stderr(text: str) -> None:
    """Say something to the user, beside the bar."""
    from rich.console import Console

    Console(stderr=True, force_jupyter=False).print(text, markup=False, highlight=False, soft_wrap=True)


@cache
def say_once(say: Callable[[str], None], text: str) -> None:
    """Say a text to the user in the same way once a process."""
    say(text)
