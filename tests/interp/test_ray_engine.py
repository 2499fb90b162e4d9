"""Two workers of a local Ray make the frames that one process makes, though one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp import Run, open_run, registry
from interp.runner import run_experiment
from tests.interp.toy import measured

TOY = f"{Path(__file__).with_name('slow_toy.py')}:SlowToy"
NOTHING: dict[str, Any] = {"model": None, "vectors": None, "task": None}
# A busy machine may not bring Ray up within the half minute that it allows itself.
COMMAND = """
import sys, ray
from interp.cli import call
for attempt in range(4):
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        break
    except Exception:
        ray.shutdown()
sys.exit(call(sys.argv[1:]))
"""

pytestmark = pytest.mark.slow


def start(root: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """`interp run --engine ray` in a process of its own, on a Ray with 2 workers."""
    command = ["run", TOY, "--engine", "ray", "--out", str(folder / "ray"), *flags(folder), *options]
    env = {**os.environ, "PYTHONPATH": str(root), "RAY_USAGE_STATS_ENABLED": "0"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", COMMAND, *command], env=env, stdout=pipe, stderr=pipe, text=True)


def flags(folder: Path) -> list[str]:
    return ["--size", "6", "--log", str(folder / "log"), "--pids", str(folder / "pids")]


def finish(process: subprocess.Popen[str]) -> Run:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return open_run(out.split()[-1])


def local(folder: Path, pause: float = 0.0) -> Run:
    settings = {"size": 6, "log": str(folder / "log"), "pids": str(folder / "pids"), "pause": pause}
    experiment = registry.load("experiments", TOY).model_validate(settings)
    return run_experiment(experiment, NOTHING, out=folder / "local", progress=False)


def test_two_workers_give_the_frame_of_one_process(root: Path, tmp_path: Path) -> None:
    theirs = finish(start(root, tmp_path, "--pause", "0.3"))
    assert len(set((tmp_path / "pids").read_text().split())) == 2
    assert sorted(measured(tmp_path / "log")) == sorted(f"{x}{kind}" for x in range(6) for kind in "ab")
    ours = local(tmp_path, 0.3)
    pd.testing.assert_frame_equal(theirs.frame, ours.frame)
    assert (theirs.key, theirs.partial) == (ours.key, False)
    assert (theirs.record.path / "figure.html").is_file()


def in_second_chunk(pids: Path, process: subprocess.Popen[str]) -> int:
    """A worker that has finished a cell and measures the next two."""
    while process.poll() is None:
        seen = Counter(pids.read_text().split()) if pids.exists() else Counter[str]()
        for pid, chunks in seen.items():
            if chunks == 2:
                return int(pid)
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def test_the_cells_of_a_killed_worker_are_measured_by_another(root: Path, tmp_path: Path) -> None:
    process = start(root, tmp_path, "--pause", "1")
    killed = in_second_chunk(tmp_path / "pids", process)
    time.sleep(0.3)  # one of its two cells has begun, the other not
    os.kill(killed, signal.SIGKILL)
    theirs = finish(process)
    assert not theirs.partial
    pids = (tmp_path / "pids").read_text().split()
    assert pids.count(str(killed)) == 2
    assert pids[-1] != str(killed)
    cells = [f"{x}{kind}" for x in range(6) for kind in "ab"]
    assert sorted(Counter(measured(tmp_path / "log")).values()) == [1] * (len(cells) - 1) + [
        2
    ]  # finished ones are kept
    pd.testing.assert_frame_equal(theirs.frame, local(tmp_path).frame)
