"""Keys, atomic files, locks and parts."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.errors import UserError
from interp.files import disk_errors, read_json, write_atomically, write_json
from interp.parts import Part, choose, read_part, write_part
from interp.store import RunFolder, RunRecord, Store, merge, run_key

META: dict[str, Any] = {
    "experiment": "toy",
    "version": 1,
    "settings": {"n": 4, "seed": 0, "layers": [0, 1], "rate": 0.1},
    "model": {"name": "m", "fingerprint": "f", "dtype": "float32"},
    "vectors": None,
    "task": {"name": "t", "digest": "d"},
    "columns": {"x": "place", "y": "points"},
    "source": "s",
    "partial": True,
}


def part(*places: int, source: str = "s", scale: float = 1.0) -> Part:
    frame = pd.DataFrame({"x": list(places), "y": [scale * place for place in places]})
    return Part(tuple((place, (("x", place),)) for place in places), source, (), frame)


def test_key_is_fixed() -> None:
    assert run_key(META) == run_key(dict(reversed(META.items()))) == "8faf97a03f16353c"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 2),
        ("settings", {**META["settings"], "seed": 1}),
        ("settings", {**META["settings"], "rate": 0.1 + 1e-16 * 2}),
        ("model", {"name": "m", "fingerprint": "f", "dtype": "bfloat16"}),
        ("model", {"name": "m", "fingerprint": "g", "dtype": "float32"}),
        ("vectors", {"digest": "v"}),
        ("task", {"name": "t", "digest": "e"}),
    ],
)
def test_what_can_change_a_number_changes_the_key(name: str, value: object) -> None:
    assert run_key({**META, name: value}) != run_key(META)


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", "full"), ("device", "cuda"), ("model", {**META["model"], "name": "other"}), ("started", "now")],
)
def test_what_cannot_does_not(name: str, value: object) -> None:
    assert run_key({**META, name: value}) == run_key(META)


def test_a_part_tells_its_cells(tmp_path: Path) -> None:
    whole = part(2, 3)
    write_part(tmp_path, whole)
    (file,) = tmp_path.iterdir()
    again = read_part(file)
    assert again is not None
    assert (again.cells, again.source) == (whole.cells, "s")
    pd.testing.assert_frame_equal(again.frame(), whole.frame())


def test_half_a_part_is_no_part(tmp_path: Path) -> None:
    write_part(tmp_path, part(2, 3))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for length in (0, 4, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert read_part(file) is None


def test_parts_of_other_sources_and_repeated_cells_are_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for one in (part(0, 1), part(1, 2), part(3), part(4, source="old")):
        folder.add_part(one)
    covered = [place for one in folder.parts("s") for place, _ in one.cells]
    assert len(covered) == len(set(covered))
    assert 4 not in covered
    assert choose([part(2), part(0, 1)])[0].cells[0][0] == 0


def test_merge_is_in_grid_order() -> None:
    frame = merge([part(0, 3), part(1), part(2, 4)])
    assert list(frame["x"]) == [0, 1, 2, 3, 4]


def test_partial_record_shows_its_parts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_meta(META)
    assert list(RunRecord.read(tmp_path).frame.columns) == ["x", "y"]
    folder.add_part(part(1))
    assert list(RunRecord.read(tmp_path).frame["y"]) == [1.0]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    write_json(file, {"a": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match="no space left"):
        write_atomically(file, fail)
    assert read_json(file) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_full_and_read_only_disks_are_one_line(tmp_path: Path) -> None:
    for code in (errno.EROFS, errno.EACCES, errno.ENOSPC):
        with pytest.raises(UserError) as caught, disk_errors(tmp_path / "x"):
            raise OSError(code, os.strerror(code))
        assert "\n" not in str(caught.value)
        assert "--out" in str(caught.value)
    for code in (errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.EINVAL, errno.EIO, errno.ELOOP, errno.ENXIO):
        with pytest.raises(UserError, match="cannot write"), disk_errors(tmp_path):
            raise OSError(code, os.strerror(code))
    for other in (ValueError("ours"), ConnectionRefusedError(errno.ECONNREFUSED, "ours")):
        with pytest.raises(type(other), match="ours"), disk_errors(tmp_path):
            raise other


def test_out_may_not_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"), Store(tmp_path / "file").folder(META).lock():
        pass


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        RunRecord.read(tmp_path / "none")
    with pytest.raises(UserError, match=r"holds no run\.json"):
        RunRecord.read(tmp_path)
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(UserError, match="JSON object"):
        RunRecord.read(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 99}')
    with pytest.raises(UserError, match="later version"):
        RunRecord.read(tmp_path)


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    value = torch.randn(3, 4).to(torch.bfloat16)
    folder.write_tensors("deltas", {"a": value, "b": np.arange(3)})
    folder.write_meta(META)
    read = RunRecord.read(tmp_path).tensors("deltas")
    assert torch.equal(torch.from_numpy(read["a"]).to(torch.bfloat16), value)
    assert list(read["b"]) == [0, 1, 2]
    with pytest.raises(UserError, match="no such tensors"):
        RunRecord.read(tmp_path).tensors("other")


def test_records_are_listed_newest_first(runs: Path) -> None:
    store = Store(runs)
    for seed, started in ((1, "2024"), (2, "2025")):
        meta = {**META, "settings": {"seed": seed}, "started": started}
        store.folder(meta).write_meta(meta)
    assert [record.meta["started"] for record in store.records()] == ["2025", "2024"]
