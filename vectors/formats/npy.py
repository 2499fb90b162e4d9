"""The authors' matrices: npy or npz, float32 [L, d_model]; a single-layer run has one non-zero row."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from interp.errors import UserError
from interp.files import write_bytes
from vectors.formats.base import Format, Options, Vectors
from vectors.formats.carried import write_carried
from vectors.formats.rows import from_bare, from_rows, is_bare, nonzero_rows, steering_only
from vectors.steering import SteeringVectors
from vectors.untrusted import ELEMENTS, bounded, head, parsing, regular_file

NPY = b"\x93NUMPY"


def matches(path: Path) -> bool:
    """An npy file, or a zip of npy files."""
    start = head(path, 6)
    return start == NPY or (start[:4] == b"PK\x03\x04" and bool(_members(path)))


def read(path: Path, options: Options) -> SteeringVectors:
    """Read a matrix with one row for each block, at resid_post unless `options.site` differs; zero rows are absent.

    Raises:
        UserError: there is one row more than layers and nobody said what row 0 is, it is one bare row and nobody said
            of which block, or the file is damaged.
    """
    array = load_array(path)
    if is_bare(array, options):
        return from_bare(array, path, "npy", options)
    matrix, n_layers = block_rows(array, path, options)
    known = {"site": options.site or "resid_post"}
    return from_rows(nonzero_rows(matrix, path), path, "npy", replace(options, n_layers=n_layers), known)


def write(path: Path, vectors: Vectors) -> Path:
    """Write [L, d_model] float32 with zeros at absent layers, and the card into `NAME.npy.json`.

    Raises:
        UserError: the number of layers of the model is unknown, the vectors are not at resid_post, or one is zero.
    """
    vectors = steering_only(vectors, "npy")
    empty = [layer for layer, norm in vectors.norms.items() if norm == 0]
    if empty:
        works = "leave it out with only(...), or write safetensors"
        raise UserError("npy cannot hold a vector of zeros: it means no vector", given=f"layer {empty[0]}", works=works)
    if vectors.card.n_layers is None:
        raise UserError("npy needs the model's number of layers, which the card does not tell", given=vectors.name)
    matrix = torch.zeros(vectors.card.n_layers, vectors.d_model)
    matrix[list(vectors.layers)] = vectors.directions
    path = path if path.suffix == ".npy" else path.with_name(path.name + ".npy")
    made = io.BytesIO()
    np.save(made, matrix.numpy(), allow_pickle=False)
    write_bytes(path, made.getvalue())
    return write_carried(path, vectors)


def load_array(path: Path) -> Tensor:
    """The matrix of an npy file, or the only one of an npz file.

    Raises:
        UserError: it is no float matrix, holds Python objects, or the file is damaged.
    """
    regular_file(path)
    with parsing(path, "npy file"):
        # The map is as long as the header claims, so a claim that exceeds the file fails before memory is taken.
        array = np.load(path, mmap_mode="r", allow_pickle=False) if head(path, 6) == NPY else _from_zip(path)
        if isinstance(array, np.memmap) and array.offset + array.nbytes != path.stat().st_size:
            raise ValueError("there is more in it than one array")
    if array.dtype.kind != "f" or array.ndim not in (1, 2):
        given = f"{path.name}: {array.dtype} {list(array.shape)}"
        raise UserError("a float matrix [layer, d_model] was expected", given=given)
    bounded(path.name, list(array.shape))
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused as such
        return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def block_rows(matrix: Tensor, path: Path, options: Options) -> tuple[Tensor, int]:
    """Rows that belong to blocks, and their number.

    Raises:
        UserError: the number of rows is one more than that of layers and `options.rows` is not given.
    """
    if matrix.ndim != 2:
        given = f"{path.name}: {list(matrix.shape)}"
        raise UserError("a matrix [layer, d_model] was expected", given=given, works="add the layers' dimension")
    rows, n_layers = len(matrix), options.n_layers
    if options.rows == "embeddings-first":
        matrix = matrix[1:]
    elif options.rows is None and n_layers is not None and rows == n_layers + 1:
        works = 'rows="embeddings-first" if row 0 belongs to the embeddings, rows="blocks" if not'
        works = f"{works} (--rows on the command line)"
        raise UserError(f"{rows} rows for {n_layers} layers", given=path.name, works=works)
    if n_layers is not None and len(matrix) != n_layers:
        raise UserError(f"{len(matrix)} rows for {n_layers} layers", given=path.name)
    return matrix, len(matrix)


def _members(path: Path) -> list[zipfile.ZipInfo]:
    """The entries of a zip file that holds nothing but npy files."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return []
    return entries if all(entry.filename.endswith(".npy") for entry in entries) else []


def _from_zip(path: Path) -> Any:
    entries = _members(path)
    if len(entries) != 1:
        names = ", ".join(entry.filename for entry in entries)[:80]
        raise UserError("an npz file must hold one matrix", given=f"{path.name}: {names}")
    if entries[0].file_size > 4 * ELEMENTS:
        raise UserError("this npz file unpacks to too much", given=f"{path.name}: {entries[0].file_size} bytes")
    with zipfile.ZipFile(path) as archive, archive.open(entries[0]) as member:
        claimed = _claimed_bytes(cast(zipfile.ZipExtFile, member))
    if claimed > entries[0].file_size:
        raise ValueError("the header claims more than the file holds")
    with np.load(path, allow_pickle=False) as archive:
        return archive[entries[0].filename.removesuffix(".npy")]


def _claimed_bytes(member: zipfile.ZipExtFile) -> int:
    """Size that the header of an npy stream asks for; numpy would reserve it before reading on."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = readers[np.lib.format.read_magic(member)](member)
    return math.prod(shape) * dtype.itemsize


FORMAT = Format(
    "npy",
    "float32 [L, d_model], zero rows where nothing was trained (npy, npz)",
    matches,
    read,
    write,
    frozenset({"rows"}),
)
