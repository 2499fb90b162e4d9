"""IBM activation-steering: JSON with `directions`, layer numbers as string keys.

The package measures direction l at the output of block l (`hidden_states[l + 1]`), which is our `resid_post` of block
l and what is read here. Its LeashLayer then adds direction l at the INPUT of block l, one block earlier than it was
measured, and only to the first row of a batch; to repeat that, move the vector to layer l - 1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import UserError
from interp.files import write_text
from vectors.formats.base import Format, Options, Vectors
from vectors.formats.carried import write_carried
from vectors.formats.rows import from_rows, steering_only
from vectors.steering import SteeringVectors
from vectors.untrusted import head, read_json


def matches(path: Path) -> bool:
    """A JSON object with `directions` near its start, or any file named .svec."""
    start = head(path, 4096).lstrip()
    return start[:1] == b"{" and (b'"directions"' in start or path.suffix == ".svec")


def read(path: Path, options: Options) -> SteeringVectors:
    """Read the direction of each layer; whether they are meant to be on together is not stated.

    Raises:
        UserError: a key is no layer number or not known, a direction no list of numbers, or the file is damaged.
    """
    data = read_json(path, ".svec file")
    directions = data.get("directions") if isinstance(data, dict) else None
    if not isinstance(directions, dict):
        raise UserError('a .svec file holds an object "directions"', given=path.name)
    unknown = sorted(set(data) - {"model_type", "directions", "explained_variances"})
    if unknown:
        raise UserError("this key of a .svec file is not understood", given=f"{path.name}: {unknown[0][:40]}")
    _check_variances(data.get("explained_variances"), directions, path)
    rows: dict[int, Tensor] = {}
    for key, values in directions.items():
        if not key.isascii() or not key.isdigit() or len(key) > 5 or int(key) in rows:
            raise UserError("a layer of a .svec file is a number, used once", given=f"{path.name}: {key[:20]!r}")
        rows[int(key)] = _row(key, values)
    model_type = data.get("model_type")
    recipe = {"model_type": model_type} if isinstance(model_type, str) else {}
    return from_rows(rows, path, "svec", options, {"recipe": recipe})


def write(path: Path, vectors: Vectors) -> Path:
    """Write directions with string keys; `explained_variances`, which the package expects, are written as 0.

    The card goes into `NAME.svec.json`.
    """
    vectors = steering_only(vectors, "svec")
    path = path if path.suffix == ".svec" else path.with_name(path.name + ".svec")
    rows = dict(zip(map(str, vectors.layers), vectors.directions.tolist(), strict=True))
    variances = dict.fromkeys(rows, 0.0)
    document = {"model_type": vectors.card.architecture, "directions": rows, "explained_variances": variances}
    write_text(path, json.dumps(document))
    return write_carried(path, vectors)


def _check_variances(variances: Any, directions: dict[str, Any], path: Path) -> None:
    """A variance without its direction, or the reverse, is half a file."""
    if variances and (not isinstance(variances, dict) or set(variances) != set(directions)):
        raise UserError("explained_variances and directions of a .svec file are of other layers", given=path.name)


def _row(key: str, values: Any) -> Tensor:
    numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not numbers:
        raise UserError("a direction of a .svec file is a list of numbers", given=f"layer {key}")
    try:
        return torch.tensor(values, dtype=torch.float64)
    except (OverflowError, RuntimeError) as error:
        raise UserError("a number in this .svec file is out of range", given=f"layer {key}") from error


FORMAT = Format("svec", "IBM activation-steering, JSON", matches, read, write, frozenset())
