"""Two processes at once, full disks and folders that cannot be written: nothing half-done, and one line."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Start
from tests.faults.jobs import Place
from tests.faults.test_kills import arguments, check_whole, ended, environment, results, same

pytestmark = pytest.mark.faults

NAMES = ("run", "paper", "train", "fetch")
NOBODY = 65534


def one_line(log: Path) -> str:
    """What a user reads of a failed command."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("interp: ") and "warning" not in line]
    assert "Traceback" not in log.read_text(), log.read_text()[-3000:]
    assert len(lines) == 1, log.read_text()[-3000:]
    return lines[0]


@pytest.fixture(scope="module")
def undisturbed(place: Place, start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder that each command leaves."""
    base = tmp_path_factory.mktemp("undisturbed")
    for name in NAMES:
        ended(
            start(arguments(name, place, base / name), environment(name, place, base / name), str(base / "log")),
            base / "log",
        )
    return {name: base / name for name in NAMES}


def check_same(out: Path, other: Path) -> None:
    found, expected = results(out), results(other)
    assert set(found) == set(expected)
    assert all(same(found[one], expected[one]) for one in expected)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_on_one_folder(
    name: str, place: Place, start: Start, tmp_path: Path, undisturbed: dict[str, Path], survived: Counter[str]
) -> None:
    out, logs = tmp_path / "out", [tmp_path / f"log-{number}" for number in range(2)]
    both: list[Any] = []
    for log in logs:
        both.append(start(arguments(name, place, out), environment(name, place, out), str(log)))
    for process, log in zip(both, logs, strict=True):
        ended(process, log)
    check_same(out, undisturbed[name])
    check_whole(out)
    if name in ("run", "train"):
        assert any("waiting for it" in log.read_text() for log in logs)
    survived["pairs of processes on one folder"] += 1


def test_two_processes_share_completions(place: Place, start: Start, tmp_path: Path) -> None:
    """Another experiment in the same folder of runs: the cache is shared, and no run disturbs the other."""
    log, out = tmp_path / "log", tmp_path / "out"
    first = arguments("run", place, out)
    second = [*first[:1], "magnitude", *first[2:]]
    both = [start(one, environment("run", place, out), str(log)) for one in (first, second)]
    for process in both:
        ended(process, log)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [
        "accuracy-by-layer",
        "completions",
        "magnitude",
    ]
    check_whole(out)


@pytest.mark.parametrize("limit", [6_000, 20_000])
@pytest.mark.parametrize("name", NAMES)
def test_a_bound_on_files(
    name: str,
    limit: int,
    place: Place,
    start: Start,
    tmp_path: Path,
    undisturbed: dict[str, Path],
    survived: Counter[str],
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(arguments(name, place, out), environment(name, place, out), str(log), file_bytes=limit)
    if ended(process, log, codes=(0, 2)) == 2:
        assert "file too large" in log.read_text().lower() or "cannot" in one_line(log)
        survived["full disks"] += 1
    elif limit == 6_000:
        pytest.fail("nothing was refused")
    check_whole(out)
    ended(start(arguments(name, place, out), environment(name, place, out), str(log)), log)
    check_same(out, undisturbed[name])


@pytest.mark.parametrize("size", ["16k", "64k"])
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(name: str, size: str, place: Place, start: Start, tmp_path: Path, survived: Counter[str]) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir()
    process = start(arguments(name, place, out), environment(name, place, out), str(log), tmpfs=(str(out), size))
    process.join(300)
    if "PermissionError" in log.read_text():
        pytest.skip("this user may not mount; the bound on files stands in for it")
    assert process.exitcode == 2, log.read_text()[-3000:]
    assert "no space left on device" in one_line(log)
    survived["full disks"] += 1


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_written(
    name: str, place: Place, start: Start, tmp_path: Path, survived: Counter[str]
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir(mode=0o555)
    options: dict[str, Any] = {}
    if os.geteuid() == 0:  # who may write everywhere is refused by a mount only
        options["read_only"] = str(out)
    process = start(arguments(name, place, out / "deep"), environment(name, place, out / "deep"), str(log), **options)
    process.join(300)
    if "PermissionError" in log.read_text():
        pytest.skip("this user may not mount")
    assert process.exitcode == 2, log.read_text()[-3000:]
    assert "cannot write" in one_line(log)
    assert not list(out.iterdir())
    survived["folders that cannot be written"] += 1


def test_a_finished_run_is_read_where_nothing_can_be_written(
    place: Place, start: Start, tmp_path: Path, undisturbed: dict[str, Path]
) -> None:
    log, out = tmp_path / "log", shutil.copytree(undisturbed["run"], tmp_path / "out")
    (run,) = out.glob("*/*/run.json")
    if os.geteuid() != 0:
        pytest.skip("needs a mount")
    process = start(["show", str(run.parent)], {}, str(log), read_only=str(out))
    process.join(300)
    if "PermissionError" in log.read_text():
        pytest.skip("this user may not mount")
    assert process.exitcode == 0, log.read_text()[-2000:]


def test_the_second_process_measures_nothing(
    place: Place, start: Start, tmp_path: Path, undisturbed: dict[str, Path]
) -> None:
    """A finished run is recalled: it takes no time and no file changes."""
    out, log = shutil.copytree(undisturbed["run"], tmp_path / "out"), tmp_path / "log"
    before = {file: file.stat().st_mtime_ns for file in out.rglob("frame.parquet")}
    began = time.monotonic()
    ended(start(arguments("run", place, out), environment("run", place, out), str(log)), log)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("frame.parquet")} == before
    assert time.monotonic() - began < 60
