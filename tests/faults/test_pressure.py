"""Little memory halves batches, and says so; an interrupt ends within two seconds and keeps what is done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Start
from tests.faults.jobs import Place, complete
from tests.faults.test_kills import arguments, check_whole, ended, environment, results, same

pytestmark = pytest.mark.faults

PROMISED = 2.0
"""Seconds between an interrupt and the end."""
INTERRUPTS = {"run": 7, "paper": 3, "train": 7, "fetch": 5}


def test_generation_goes_on_with_smaller_batches(place: Place, start: Start, tmp_path: Path) -> None:
    """48 rows of 700 tokens need 0.6 GB for attention alone; with 200 MB left the allocator fails for real."""
    found: list[Any] = []
    for spare in (None, 200 << 20):
        file = tmp_path / f"{spare}.json"
        process = start(str(place.model), 48, 700, spare, str(file), target=complete)
        process.join(300)
        assert process.exitcode == 0
        found.append(json.loads(file.read_text()))
    free, tight = found
    assert free["said"] == []
    assert tight["said"][0] == "out of memory with 48 prompts at a time; going on with 24"
    assert tight["ids"] == free["ids"]


def crowding() -> float:
    """Seconds on the clock for one second of a processor, now: 1 on a quiet machine."""
    began, used = time.monotonic(), time.process_time()
    while time.process_time() - used < 0.1:
        pass
    return max(1.0, (time.monotonic() - began) / 0.1)


def test_interrupts(place: Place, start: Start, tmp_path: Path, survived: Counter[str]) -> None:
    log, moments = tmp_path / "log", random.Random(0)

    def begin(name: str, out: Path) -> Any:
        return start(arguments(name, place, out), environment(name, place, out), str(log))

    for name, count in INTERRUPTS.items():
        ended(begin(name, tmp_path / f"{name}-warm"), log)  # the first one reads libraries from the disk
        began = time.monotonic()
        ended(begin(name, tmp_path / name), log)
        seconds, expected = time.monotonic() - began, results(tmp_path / name)
        interrupted = rounds = 0
        while interrupted < count:
            out, rounds = tmp_path / f"{name}-{rounds}", rounds + 1
            for _ in range(2):  # the second one goes on where the first one stopped
                process = begin(name, out)
                process.join(moments.uniform(0.2, 0.8) * seconds)
                if process.exitcode is None:
                    interrupted += 1
                    os.kill(process.pid, signal.SIGINT)
                before = time.monotonic()
                ended(process, log, codes=(0, 130), seconds=60)
                assert time.monotonic() - before < PROMISED * crowding()
                check_whole(out)
            ended(begin(name, out), log)
            found = results(out)
            assert set(found) == set(expected) and all(same(found[one], expected[one]) for one in expected)
        survived["interrupts"] += interrupted
    assert "Traceback" not in log.read_text()


def workers(pid: int) -> list[int]:
    """Processes that a process has started and that use much memory: they have torch in it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    sizes = {int(child): int(Path(f"/proc/{child}/statm").read_text().split()[1]) * 4096 for child in children}
    return [child for child, size in sizes.items() if size > 150 << 20]


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_the_workers_of_a_report_end_with_it(
    stop: signal.Signals, place: Place, root: Path, tmp_path: Path, survived: Counter[str]
) -> None:
    command = arguments("paper", place, tmp_path / "out")
    command.insert(2, "3")
    command[command.index("--jobs") + 1] = "2"
    told = {**os.environ, **environment("paper", place, tmp_path), "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(2, signal.default_int_handler); import interp.__main__",
         *command], env=told, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(found := workers(process.pid)) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    began = time.monotonic()
    if stop == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, error = process.communicate(timeout=60)
    while any(Path(f"/proc/{child}/stat").exists() and _alive(child) for child in found):
        assert time.monotonic() - began < 30
        time.sleep(0.05)
    if stop == signal.SIGINT:
        assert time.monotonic() - began < PROMISED * crowding()
        assert process.returncode == 130, error
    survived["reports ended with their workers"] += 1


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
