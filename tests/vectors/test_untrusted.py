"""Files from strangers: nothing runs, nothing big is taken, every fault is one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from interp.errors import UserError
from tests.vectors.test_formats import NAME, authors_run, biases, checkpoint, control_vector, lora, matrix, refusal
from tests.vectors.toys import D_MODEL, make
from vectors import convert, load_vectors
from vectors.formats import npy


class Bomb:
    """Leaves a file behind when unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def bombs(folder: Path, trace: Path) -> list[Path]:
    """The same bomb in every wrapping that a reader could be tempted to open."""
    bomb = Bomb(trace)
    paths = [folder / "bomb.pkl", folder / "bomb.npy", folder / "bomb.npz", folder / NAME.format(1, "block_output")]
    paths[0].write_bytes(pickle.dumps(bomb))
    np.save(paths[1], np.array([bomb], dtype=object), allow_pickle=True)
    np.savez(paths[2], allow_pickle=True, bomb=np.array([bomb], dtype=object))
    torch.save({"bias": bomb}, paths[3])
    torch.save(bomb, folder / "direction.pt")
    (folder / "direction_metadata.json").write_text('{"pos": -1, "layer": 3}')
    old = folder / "old.pt"
    torch.save(bomb, old, _use_new_zipfile_serialization=False)
    (folder / "old.json").write_text('{"pos": -1, "layer": 3}')
    text = folder / "protocol0.pkl"
    text.write_bytes(pickle.dumps(bomb, protocol=0))
    return [*paths, folder / "direction.pt", old, text]


def test_no_pickle_is_ever_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    for path in bombs(tmp_path, trace):
        with pytest.raises(UserError) as caught:
            load_vectors(path)
        assert "\n" not in str(caught.value)
    assert not trace.exists()
    with pytest.raises(FileNotFoundError):  # the bomb itself works: unpickling reaches mkdir
        pickle.loads(pickle.dumps(Bomb(tmp_path / "no" / "such")))


class SteeringVector:
    """Stands in for the class of the steering-vectors package."""


@pytest.mark.parametrize("zipped", [False, True])
def test_pickles_of_the_steering_vectors_package_are_refused_by_name(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    module = types.ModuleType("steering_vectors")
    monkeypatch.setitem(sys.modules, "steering_vectors", module)
    monkeypatch.setattr(SteeringVector, "__module__", "steering_vectors")
    monkeypatch.setattr(module, "SteeringVector", SteeringVector, raising=False)
    path = tmp_path / "v.pt"
    if zipped:
        torch.save(SteeringVector(), path)
    else:
        path.write_bytes(pickle.dumps(SteeringVector()))
    with pytest.raises(UserError, match=r"steering-vectors package.*npy"):
        load_vectors(path)


def test_a_header_that_claims_too_much_takes_no_memory(tmp_path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (100000000, 100000), }".ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)
    (tmp_path / "v.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        archive.writestr("v.npy", data)
    header = json.dumps({"directions": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (tmp_path / "v.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (tmp_path / "long.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{" + bytes(64))
    for start in (struct.pack("<IQQ", 3, 1 << 60, 1), struct.pack("<IQQ", 3, 0, 1 << 60)):
        (tmp_path / "v.gguf").write_bytes(b"GGUF" + start + bytes(64))
        with pytest.raises(UserError):
            load_vectors(tmp_path / "v.gguf")
    for name in ("v.npy", "v.npz", "v.safetensors", "long.safetensors"):
        with pytest.raises(UserError):
            load_vectors(tmp_path / name)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy, "ELEMENTS", 1 << 16)  # the real bound would take half a minute to exceed
    np.savez_compressed(tmp_path / "v.npz", v=np.zeros((64, 1 << 11), dtype=np.float32))
    assert (tmp_path / "v.npz").stat().st_size < 1 << 16
    with pytest.raises(UserError, match="unpacks to too much"):
        load_vectors(tmp_path / "v.npz")


def test_a_view_that_blows_up_a_small_storage_is_refused(tmp_path: Path) -> None:
    folder = refusal(tmp_path, 2)
    torch.save(torch.zeros(1).expand(1 << 40), folder / "direction.pt")
    with pytest.raises(UserError, match="too large"):
        load_vectors(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused_everywhere(tmp_path: Path, value: float) -> None:
    rows = matrix()
    rows[3, 5] = value
    np.save(tmp_path / "v.npy", rows)
    vector = torch.from_numpy(rows[3])
    save_file({"model.layers.3.mlp.down_proj.bias": vector}, tmp_path / "bias.safetensors")
    own = {"directions": torch.from_numpy(rows), "layers": torch.arange(4)}
    save_file(own, tmp_path / "own.safetensors")
    torch.save({"bias": vector}, tmp_path / NAME.format(3, "block_output"))
    text = json.dumps({"directions": {"3": [1.0, value]}})
    (tmp_path / "v.svec").write_text(text)
    for name in ("v.npy", "bias.safetensors", "own.safetensors", NAME.format(3, "block_output"), "v.svec"):
        with pytest.raises(UserError):
            load_vectors(tmp_path / name)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_types_that_are_not_floating_point_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    rows = torch.ones(2, D_MODEL).to(dtype)
    np.save(tmp_path / "v.npy", rows.numpy())
    save_file({"model.layers.1.mlp.down_proj.bias": rows[0]}, tmp_path / "bias.safetensors")
    save_file({"directions": rows, "layers": torch.arange(2)}, tmp_path / "own.safetensors")
    for name in ("v.npy", "bias.safetensors", "own.safetensors"):
        with pytest.raises(UserError):
            load_vectors(tmp_path / name)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    for path in (tmp_path / "pipe.npy", Path("/dev/zero")):
        with pytest.raises(UserError):
            load_vectors(path)


def test_a_safetensors_header_that_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    tensors = {"directions": torch.ones(1, 4), "layers": torch.zeros(1, dtype=torch.int64)}
    sizes = {n: save(tensors, metadata={"format": "x" * n})[:2] for n in range(0, 1024, 8)}
    pad = next(n for n, start in sizes.items() if start == b"\x80\x02")
    save_file(tensors, tmp_path / "v.safetensors", metadata={"format": "x" * pad})
    assert load_vectors(tmp_path / "v.safetensors", site="resid_post").layers == (0,)


def whole_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Format -> (what is loaded, the file to damage)."""
    own = make().save(folder / "own")
    np.save(folder / "v.npy", matrix())
    np.savez_compressed(folder / "v.npz", v=matrix())
    control_vector(folder / "v.gguf")
    svec = convert(make((1,)).save(folder / "tmp"), folder / "v.svec", "svec")
    peft, refused = lora(folder / "lora"), refusal(folder / "refusal", 2)
    reft = folder / "reft"
    reft.mkdir()
    torch.save({"bias": make((1,))[1].clone()}, reft / NAME.format(1, "block_output"))
    model = checkpoint(folder / "checkpoint", biases())
    run = authors_run(folder / "authors", 3, 0)
    return {
        "own": (own, own),
        "card": (own, own.with_suffix(".json")),
        **{name: (folder / f"v.{name}", folder / f"v.{name}") for name in ("npy", "npz", "gguf")},
        "svec": (svec, svec),
        "peft": (peft, peft / "adapter_model.safetensors"),
        "peft config": (peft, peft / "adapter_config.json"),
        "refusal": (refused, refused / "direction.pt"),
        "refusal json": (refused, refused / "direction_metadata.json"),
        "pyreft": (reft, reft / NAME.format(1, "block_output")),
        "checkpoint": (model, model / "model.safetensors"),
        "config": (model, model / "config.json"),
        "authors": (folder / "authors", run / "steering_vectors.npy"),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    return whole_files(tmp_path_factory.mktemp("whole"))


FORMATS = [
    *("own", "card", "npy", "npz", "gguf", "svec", "peft", "peft config"),
    *("refusal", "refusal json", "pyreft", "checkpoint", "config", "authors"),
]


def damaged(data: bytes, where: float, bit: int | None) -> bytes:
    at = min(int(where * len(data)), len(data) - 1)
    if bit is None:
        return data[:at]
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1), near_start=st.booleans(), bit=st.none() | st.integers(0, 7))
def test_a_damaged_file_is_one_line_or_still_vectors(
    files: dict[str, tuple[Path, Path]], name: str, where: float, near_start: bool, bit: int | None
) -> None:
    source, file = files[name]
    data = file.read_bytes()
    # Headers are where a flipped bit does the worst, and a small part of the file.
    place = where * min(1.0, 400 / len(data)) if near_start else where
    kept = file.with_name(f"{file.name}.kept")
    shutil.move(file, kept)
    try:
        file.write_bytes(damaged(data, place, bit))
        vectors = load_vectors(source)
        assert vectors.edits() or vectors.layers
    except UserError as error:
        assert str(error)
        assert "\n" not in str(error)
    finally:
        shutil.move(kept, file)


def test_the_whole_files_load(files: dict[str, tuple[Path, Path]]) -> None:
    assert set(files) == set(FORMATS)
    for source, _ in files.values():
        assert load_vectors(source).layers


def test_a_zip_of_something_else_is_no_format(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    (tmp_path / "v.zip").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="no known format"):
        load_vectors(tmp_path / "v.zip")
