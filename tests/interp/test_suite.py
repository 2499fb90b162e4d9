"""Several experiments for one report: side by side or in turn, the same; one that fails stops no other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.cli.suite import Given, run_all
from tests.interp import tiny

TOY = f"{Path(__file__).with_name('toy.py')}:Toy"


@dataclass(frozen=True)
class Entry:
    key: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    experiment: str = TOY
    label: str = "Toy"
    title: str = "a toy"
    ready: bool = True


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    import numpy as np

    folder = tiny.folder(tmp_path_factory.mktemp("model"), "llama")
    file = tmp_path_factory.mktemp("vectors") / "v.npy"
    np.save(file, np.random.default_rng(0).normal(size=(3, 48)).astype(np.float32))
    return {"model": str(folder), "vectors": str(file), "scale": "smoke"}


def run(
    given: dict[str, Any], entries: list[Entry], out: Path, jobs: int
) -> tuple[dict[str, Any], dict[str, str], int]:
    seen: list[int] = []
    found = run_all(entries, Given(**given, out=out, jobs=jobs), lambda made, failed: seen.append(len(made)))
    assert seen == sorted(seen)
    assert seen[-1] == len(found[0])
    return found


def test_one_that_fails_stops_no_other(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [Entry("a"), Entry("wrong", {"no_such": 1}), Entry("absent", ready=False), Entry("b", {"n": 3})]
    made, failed, code = run(given, entries, tmp_path, jobs=1)
    assert (sorted(made), sorted(failed), code) == (["a", "b"], ["wrong"], 0)
    assert "no_such" in failed["wrong"]
    assert "is left out" in capsys.readouterr().err


@pytest.mark.slow
def test_side_by_side_gives_the_same_frames(given: dict[str, Any], tmp_path: Path) -> None:
    entries = [Entry("a"), Entry("b", {"n": 3}), Entry("wrong", {"no_such": 1})]
    one, two = (run(given, entries, tmp_path / str(jobs), jobs) for jobs in (1, 2))
    assert sorted(two[0]) == ["a", "b"]
    assert list(two[1]) == ["wrong"]
    for key in ("a", "b"):
        pd.testing.assert_frame_equal(one[0][key].frame, two[0][key].frame)
