"""refusal-direction: `direction.pt`, one vector, and `direction_metadata.json` {pos, layer} beside it.

The direction is added BEFORE block `layer` (a pre-hook on the block), which is `resid_post` of block layer - 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import UserError
from vectors.formats.base import Format, Options
from vectors.formats.pickled import is_torch_archive, load_torch
from vectors.formats.rows import from_rows
from vectors.steering import SteeringVectors
from vectors.untrusted import is_safetensors, read_object


def matches(path: Path) -> bool:
    """A `direction.pt`-like file with its JSON, or a folder with both."""
    file = _file(path)
    return file is not None and is_torch_archive(file)


def read(path: Path, options: Options) -> SteeringVectors:
    """Read the direction as `resid_post` of the block before the one that the JSON names.

    Raises:
        UserError: the JSON is missing or names layer 0 (the embeddings, which are no block), or a file is damaged.
    """
    file = _file(path)
    if file is None:
        raise UserError("a direction.pt was expected", given=path.name)
    metadata = _metadata(file)
    about = read_object(metadata, "refusal-direction JSON")
    unknown = sorted(set(about) - {"layer", "pos"})
    if unknown:
        raise UserError(
            "this key of a refusal-direction JSON is not understood", given=f"{metadata.name}: {unknown[0]}"
        )
    layer = _integer(about.get("layer"), "layer", metadata)
    if layer < 1:
        works = "directions of layer 1 and later load as resid_post of the block before"
        raise UserError("a direction before block 0 is added to the embeddings", given=f"layer {layer}", works=works)
    value = load_torch(file)
    if not isinstance(value, Tensor):
        raise UserError("direction.pt holds one tensor", given=type(value).__name__)
    recipe = {"pos": _integer(about.get("pos", -1), "pos", metadata), "added_before_block": layer}
    return from_rows({layer - 1: value.squeeze()}, file, "refusal-direction", options, {"recipe": recipe})


def _file(path: Path) -> Path | None:
    file = path / "direction.pt" if path.is_dir() else path
    return file if file.is_file() and _metadata(file).is_file() and not is_safetensors(file) else None


def _metadata(file: Path) -> Path:
    named = file.with_name(f"{file.stem}_metadata.json")
    return named if named.is_file() else file.with_suffix(".json")


def _integer(value: Any, name: str, path: Path) -> int:
    if type(value) is not int:
        raise UserError(f'"{name}" must be an integer', given=f"{path.name}: {value!r}"[:80])
    return value


FORMAT = Format("refusal-direction", "direction.pt with a JSON {pos, layer}", matches, read, asks=frozenset())
