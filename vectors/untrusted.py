"""Reading files from strangers: bounded, never executed, every fault one `UserError`."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import safe_open
from torch import Tensor

from interp.errors import UserError
from interp.files import plain_sibling as plain_sibling
from interp.files import regular_file as regular_file

CARD_BYTES = 1 << 20
JSON_BYTES = 64 << 20
ELEMENTS = 1 << 28
"""Largest tensor that is read: 1 GiB in float32; all vectors of the largest open models together are 0.2 % of it."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@contextmanager
def parsing(path: Path, what: str) -> Generator[None, None, None]:
    """Turn whatever a parser raises on a damaged file into one line.

    Keep the body small: an error of our own in it would be blamed on the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"this {what} cannot be read: {reason}", given=path.name, works="is it whole?") from error


def head(path: Path, n: int = 8) -> bytes:
    """The first bytes of a regular file, fewer where it is shorter; none where it is no file."""
    if not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(n)
    except OSError:
        return b""


def read_json(path: Path, what: str, limit: int = JSON_BYTES) -> Any:
    """Decode a JSON file of bounded size.

    Args:
        path: the file.
        what: what it should be, for the message.
        limit: largest size in bytes.
    """
    size = regular_file(path).stat().st_size
    if size > limit:
        raise UserError(f"this {what} is too large", given=f"{path.name}, {size} bytes", works=f"at most {limit} bytes")
    with parsing(path, what):
        return json.loads(path.read_bytes(), parse_constant=_no_constant, object_pairs_hook=_once)


def read_object(path: Path, what: str, limit: int = CARD_BYTES) -> dict[str, Any]:
    """Decode a JSON file that must hold an object."""
    data = read_json(path, what, limit)
    if not isinstance(data, dict):
        raise UserError(f"this {what} is not a JSON object", given=path.name)
    return data


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that names a key twice, of which readers silently take the last."""
    read = dict(pairs)
    if len(read) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return read


def is_safetensors(path: Path) -> bool:
    """Whether a file starts like safetensors: eight bytes of header length, then a JSON object."""
    start = head(path, 9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def safetensors_names(path: Path) -> list[str]:
    """Names of the tensors in a safetensors file."""
    with parsing(regular_file(path), "safetensors file"), safe_open(path, "pt") as file:
        return sorted(file.keys())


def safetensors_read(path: Path, names: list[str]) -> dict[str, Tensor]:
    """Some tensors of a safetensors file; the others are not read."""
    with parsing(regular_file(path), "safetensors file"), safe_open(path, "pt") as file:
        for name in names:
            bounded(name, list(file.get_slice(name).get_shape()))
        return {name: file.get_tensor(name) for name in names}


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a safetensors file."""
    with parsing(regular_file(path), "safetensors file"), safe_open(path, "pt") as file:
        return file.metadata() or {}


def bounded(name: str, shape: list[int]) -> None:
    """Refuse a tensor that is larger than any set of vectors.

    Raises:
        UserError: it has too many elements.
    """
    if math.prod(shape) > ELEMENTS:
        raise UserError("a tensor is too large to be steering vectors", given=f"{name}: {shape}")


def as_vector(value: Tensor, name: str, d_model: int | None = None) -> Tensor:
    """A finite float32 vector out of a file's tensor.

    Args:
        value: what was read.
        name: what it is called, for the message.
        d_model: the width it must have, if known.

    Raises:
        UserError: it is not one-dimensional, not floating point, of another width, or not finite.
    """
    bounded(name, list(value.shape))
    if value.ndim != 1 or value.shape[0] == 0:
        raise UserError("a vector of shape [d_model] was expected", given=f"{name}: {list(value.shape)}")
    if value.dtype not in FLOATS:
        raise UserError("a vector must be floating point", given=f"{name}: {str(value.dtype).removeprefix('torch.')}")
    if d_model is not None and value.shape[0] != d_model:
        raise UserError(f"the other vectors have width {d_model}", given=f"{name}: {value.shape[0]}")
    row = value.detach().to("cpu", torch.float32, copy=True).contiguous()
    if not bool(row.isfinite().all()):
        raise UserError("a vector holds NaN or infinite values", given=name)
    return row
