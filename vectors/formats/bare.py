"""Bare tensors: what `torch.save(tensor, file)` or `save_file({name: tensor}, file)` leaves, without any metadata.

One vector needs `site` and `layer` from the caller, a matrix [L, d_model] needs `site`; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import UserError
from vectors.formats.base import Format, Options
from vectors.formats.npy import block_rows
from vectors.formats.pickled import is_torch_archive, load_torch
from vectors.formats.rows import from_bare, from_rows, is_bare, nonzero_rows
from vectors.steering import SteeringVectors
from vectors.untrusted import (
    FLOATS,
    bounded,
    is_safetensors,
    safetensors_metadata,
    safetensors_names,
    safetensors_read,
)


def matches(path: Path) -> bool:
    """A torch archive, or a safetensors file."""
    return is_torch_archive(path) or is_safetensors(path)


def read(path: Path, options: Options) -> SteeringVectors:
    """Read the only tensor of a file.

    Raises:
        UserError: it holds something else than one float tensor, site or layer is not stated, or it is damaged.
    """
    array = _only(path)
    bounded(path.name, list(array.shape))
    if array.dtype not in FLOATS or array.ndim not in (1, 2) or not array.numel():
        given = f"{path.name}: {str(array.dtype).removeprefix('torch.')} {list(array.shape)}"
        raise UserError("a float vector [d_model] or matrix [layer, d_model] was expected", given=given)
    if is_bare(array, options):
        return from_bare(array, path, "tensor", options)
    if options.site is None:
        works = "state --site (site= in Python)"
        raise UserError("this file is a bare matrix and does not tell its site", given=path.name, works=works)
    matrix, n_layers = block_rows(array, path, options)
    rows = nonzero_rows(matrix, path)
    return from_rows(rows, path, "tensor", replace(options, n_layers=n_layers), {"site": options.site})


def _only(path: Path) -> Tensor:
    if is_torch_archive(path):
        value: Any = load_torch(path)
        if isinstance(value, Tensor):
            return value
        names = ", ".join(map(str, value))[:80] if isinstance(value, dict) else type(value).__name__
        works = "torch.save the one tensor, or a float32 [L, d_model] npy"
        raise UserError("this torch file holds no single tensor", given=f"{path.name}: {names}", works=works)
    names, about = safetensors_names(path), sorted(set(safetensors_metadata(path)) - {"format"})
    if len(names) != 1:
        works = "save one tensor, or what SteeringVectors.save writes"
        raise UserError("this safetensors file is no set of vectors", given=f"{', '.join(names)[:80]}", works=works)
    if about:
        raise UserError("the metadata of this safetensors file are not understood", given=f"{path.name}: {about[0]}")
    return safetensors_read(path, names)[names[0]]


FORMAT = Format("tensor", "one bare tensor of torch.save or safetensors", matches, read, asks=frozenset({"rows"}))
