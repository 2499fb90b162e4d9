"""The authors' folders: `.../steering-layer-{l}/seed-{s}_lr-{x}/checkpoint-{n}/steering_vectors.npy`.

Each file is a matrix [L, d_model]; a run of layer l counts for its row l. Any folder of npy files is read whose path
or file names tell the layer (`layer-3`, `layer_3`, `layer3`, `3.npy`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import UserError
from vectors.formats import npy
from vectors.formats.base import Format, Options
from vectors.formats.rows import from_rows
from vectors.steering import SteeringVectors

_LAYER = re.compile(r"(?:^|[^a-z])layer[-_]?(\d{1,5})(?!\d|\.\d)")
_RUN = re.compile(r"steering[-_]layer[-_]?\d{1,5}")
_SEED = re.compile(r"(?:^|[^a-z])seed[-_]?(\d{1,9})(?!\d)")
_DEPTH, _FILES = 5, 4096


def matches(path: Path) -> bool:
    """A folder with npy or npz files in it, at most five folders down."""
    return path.is_dir() and next(_walk(path), None) is not None


def read(path: Path, options: Options) -> SteeringVectors:
    """Read one file for each layer, or the one matrix of a folder.

    Training runs in folders of their own (`steering-layer-{l}/`) were trained apart; of loose files nobody knows.

    Raises:
        UserError: several files compete for a layer, a file does not tell its layer, or one is damaged.
    """
    files = _chosen(list(_walk(path)), path, options)
    if len(files) == 1 and _layer(files[0], path) is None:
        return npy.read(files[0], replace(options, seed=None))
    rows: dict[int, Tensor] = {}
    used: dict[str, str] = {}
    depth = options.n_layers
    for file in files:
        layer = _layer(file, path)
        if layer is None:
            works = "name folders or files layer-{l}, or load the one file"
            raise UserError("a file in this folder does not tell its layer", given=_shown(file, path), works=works)
        if layer in rows:
            works = "give the folder of one run, or seed="
            raise UserError(f"several files for layer {layer}", given=_shown(file, path), works=works)
        rows[layer], depth = _row(file, layer, Options(options.rows, n_layers=depth))
        used[str(layer)] = _shown(file, path)
    runs = all(any(_RUN.fullmatch(part) for part in (path.name, *Path(shown).parts[:-1])) for shown in used.values())
    known: dict[str, Any] = {"recipe": {"files": used}, "site": options.site or "resid_post"}
    known |= {"trained": "apart"} if runs else {}
    return from_rows(rows, path, "authors", replace(options, n_layers=depth), known)


def _chosen(files: list[Path], path: Path, options: Options) -> list[Path]:
    seeds = {_number(_SEED, file.relative_to(path)) for file in files} - {None}
    if options.seed is not None:
        files = [file for file in files if _number(_SEED, file.relative_to(path)) == options.seed]
        if not files:
            raise UserError("no run with this seed", given=options.seed, works=f"seeds here: {_joined(seeds)}")
    elif len(seeds) > 1:
        raise UserError("this folder holds several seeds", given=_joined(seeds), works="choose one with seed=")
    return files


def _row(file: Path, layer: int, options: Options) -> tuple[Tensor, int | None]:
    array = npy.load_array(file)
    if array.ndim == 1:
        return array, options.n_layers
    if len(array) == 1:
        return array[0], options.n_layers
    matrix, depth = npy.block_rows(array, file, options)
    if layer >= depth:
        raise UserError(f"a file for layer {layer} has {depth} rows", given=file.name)
    if not bool((matrix[layer] != 0).any()):
        raise UserError(f"row {layer} of the file for layer {layer} is zero", given=file.name)
    if int((matrix != 0).any(1).sum()) != 1:
        works = "load that file alone"
        raise UserError(f"the file for layer {layer} holds vectors of other layers too", given=file.name, works=works)
    return matrix[layer], depth


def _walk(path: Path) -> Iterator[Path]:
    """Matrices below a folder; links to folders are not followed, hidden ones are skipped."""
    seen = 0
    for folder, subfolders, names in os.walk(path):
        depth = len(Path(folder).relative_to(path).parts)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".")) if depth < _DEPTH else []
        for name in sorted(names):
            if name.endswith((".npy", ".npz")):
                seen += 1
                if seen > _FILES:
                    works = "give one run's folder"
                    raise UserError("too many files for a set of vectors", given=path.name, works=works)
                yield Path(folder) / name


def _layer(file: Path, root: Path) -> int | None:
    relative = file.relative_to(root)
    named = _number(_LAYER, Path(root.name) / relative)
    return int(file.stem) if named is None and file.stem.isascii() and file.stem.isdigit() else named


def _number(pattern: re.Pattern[str], relative: Path) -> int | None:
    """The number in the innermost part of a path that has one."""
    for part in reversed(relative.parts):
        match = pattern.search(part.lower())
        if match is not None:
            return int(match[1])
    return None


def _shown(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _joined(seeds: set[int | None]) -> str:
    return ", ".join(str(seed) for seed in sorted(seed for seed in seeds if seed is not None)) or "none"


FORMAT = Format("authors", "folder of npy files, one for each layer", matches, read)
