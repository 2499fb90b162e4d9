"""Killed at any moment, a command leaves nothing half-written, and the rerun ends where an undisturbed run does."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from interp.store import RunRecord
from tests.faults.conftest import Start
from tests.faults.jobs import Place

pytestmark = pytest.mark.faults

KILLS = {"run": 55, "paper": 30, "train": 55, "fetch": 70}
MOST = 4
"""Kills before a folder is finished and compared; each start but the first is a rerun of a killed one."""

CLOCKS = ["seconds", "seconds_sampling"]


def arguments(name: str, place: Place, out: Path) -> list[str]:
    about = ["--vectors", str(place.vectors), "--scale", "smoke"]
    return {
        "run": ["run", "accuracy-by-layer", "--model", str(place.model), "--task", str(place.task), *about, "--n", "6"],
        "paper": ["paper", "4", *about, "--jobs", "1"],
        "train": [
            *("train", "--model", str(place.model), "--task", str(place.task), "--reward", "random", "--resume"),
            *("--steps", "4", "--prompts", "2", "--samples", "2", "--validate-every", "2", "--test", "4"),
        ],
        "fetch": ["fetch", str(place.gguf)],
    }[name] + ([] if name == "fetch" else ["--out", str(out)])


def environment(name: str, place: Place, out: Path) -> dict[str, str]:
    return {"INTERP_CACHE": str(out if name == "fetch" else place.cache)}


def results(out: Path) -> dict[str, Any]:
    """What a command leaves, by its place: frames and tensors, without what tells the time."""
    found: dict[str, Any] = {}
    for file in sorted(out.rglob("frame.parquet")):
        frame = RunRecord.read(file.parent).frame
        found[file.relative_to(out).as_posix()] = frame.drop(columns=CLOCKS, errors="ignore")
    for file in sorted(out.rglob("*.safetensors")):
        found[file.relative_to(out).as_posix()] = load_file(file)
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
        return True
    return set(one) == set(other) and all(bool((one[name] == other[name]).all()) for name in one)


def check_whole(out: Path) -> int:
    """Read every file that is not under a temporary name; one that is half-written raises."""
    files = [file for file in out.rglob("*") if file.is_file() and not _hidden(file.relative_to(out))]
    for file in files:
        if file.suffix == ".parquet":
            pq.read_table(file, page_checksum_verification=True)
        elif file.suffix == ".safetensors":
            load_file(file)
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".html":
            assert file.read_text().rstrip().endswith("</html>"), file
    return len(files)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def ended(process: Any, log: Path, *, codes: Sequence[int] = (0,), seconds: float = 300) -> int:
    """Wait for a process; its exit code must be one of these."""
    process.join(seconds)
    assert process.exitcode in codes, f"exit code {process.exitcode}\n{log.read_text()[-3000:]}"
    return int(process.exitcode)


@pytest.mark.parametrize("name", list(KILLS))
def test_a_killed_command_loses_nothing(
    name: str, place: Place, start: Start, tmp_path: Path, survived: Counter[str]
) -> None:
    log, moments = tmp_path / "log", random.Random(name)

    def begin(out: Path) -> Any:
        return start(arguments(name, place, out), environment(name, place, out), str(log))

    def whole(out: Path) -> float:
        began = time.monotonic()
        ended(begin(out), log)
        return time.monotonic() - began

    whole(tmp_path / "warm")  # the first one reads libraries from the disk
    seconds, expected = whole(tmp_path / "undisturbed"), results(tmp_path / "undisturbed")
    assert expected
    kills = rounds = 0
    while kills < KILLS[name]:
        out, rounds = tmp_path / f"round-{rounds}", rounds + 1
        for _ in range(moments.randint(1, MOST)):
            process = begin(out)
            process.join(moments.uniform(0, seconds))
            process.kill()
            kills += ended(process, log, codes=(0, -signal.SIGKILL)) != 0
            if out.exists():
                check_whole(out)
        whole(out)
        found = results(out)
        assert set(found) == set(expected)
        assert all(same(found[one], expected[one]) for one in expected)
        check_whole(out)
    survived[f"kills of {name} survived"] += kills
    survived["kills survived"] += kills
    survived["reruns compared with an undisturbed run"] += rounds
