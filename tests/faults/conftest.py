"""A tiny model with all that commands need, real processes to kill, and the counts of what was survived."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from tests.faults.jobs import PRELOAD, Place, command, make_place

Start = Callable[..., Any]
"""Starts `command` with these arguments in a process of its own."""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A model, vectors, a task and a GGUF file, read by all commands and changed by none."""
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="session")
def start(root: Path) -> Start:
    """Processes forked from one that has imported torch once: each is real, can be killed, and starts at once."""
    os.environ["PYTHONPATH"] = str(root)
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)

    def begin(*arguments: Any, target: Callable[..., None] = command, **options: Any) -> Any:
        process = context.Process(target=target, args=arguments, kwargs=options)
        process.start()
        return process

    return begin


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests recorded in `survived`, summed; it is known when a test is taken down."""
    total: Counter[str] = Counter()
    for report in terminalreporter.stats.get("", ()):
        for name, value in report.user_properties if report.when == "teardown" else ():
            if name.startswith("faults: "):
                total[name.removeprefix("faults: ")] += value
    if total:
        terminalreporter.section("faults")
        for name, value in total.items():
            terminalreporter.write_line(f"{name}: {value}")
        terminalreporter.write_line(f"lost results: {len(terminalreporter.stats.get('failed', ()))}")


@pytest.fixture
def survived(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Counts that end up in the summary."""
    counts: Counter[str] = Counter()
    yield counts
    request.node.user_properties += [(f"faults: {name}", value) for name, value in counts.items()]
