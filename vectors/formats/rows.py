"""From the rows of somebody's file to vectors of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import UserError
from vectors.adaptive import AdaptiveVectors
from vectors.card import UNKNOWN, Card
from vectors.formats.base import Options
from vectors.steering import SteeringVectors
from vectors.untrusted import as_vector


def from_rows(
    rows: Mapping[int, Tensor], path: Path, format_name: str, options: Options, known: Mapping[str, Any] | None = None
) -> SteeringVectors:
    """Build vectors from one row for each layer, with a card that names the file and nothing else.

    Args:
        rows: block, 0 = first -> what the file holds for it.
        path: the file or folder.
        format_name: the format, for card and messages.
        options: the caller's answers; they enter the card where the format does not know better.
        known: fields of the card that the format knows.

    Raises:
        UserError: there are no rows, or one is no finite vector of the common width.
    """
    if not rows:
        raise UserError(f"this {format_name} file holds no vectors", given=path.name)
    d_model: int | None = None
    values: dict[int, Tensor] = {}
    for layer, row in rows.items():
        values[layer] = as_vector(row, f"layer {layer}", d_model)
        d_model = values[layer].shape[0]
    recipe = {"format": format_name, "file": path.name}
    fields: dict[str, Any] = {
        "name": path.stem or path.name,
        "n_layers": options.n_layers,
        "trained": options.trained or UNKNOWN,
        **(known or {}),
        "d_model": d_model,
    }
    fields["recipe"] = {**recipe, **fields.get("recipe", {})}
    return SteeringVectors(torch.stack(list(values.values())), tuple(values), Card.parse(fields, where=path.name))


def is_bare(array: Tensor, options: Options) -> bool:
    """Whether a tensor is one vector that does not tell its block; the only row of a one-block model does."""
    alone = array.ndim == 2 and len(array) == 1 and options.n_layers != 1
    return array.ndim == 1 or alone


def from_bare(array: Tensor, path: Path, format_name: str, options: Options) -> SteeringVectors:
    """Build vectors from one tensor that tells neither its block nor its stream.

    Args:
        array: [d_model] or [1, d_model].
        path: the file.
        format_name: the format, for the card.
        options: must state `site` and `layer`.

    Raises:
        UserError: site or layer is not stated.
    """
    missing = [name for name in ("site", "layer") if getattr(options, name) is None]
    if missing:
        flags = " and ".join(f"--{name}" for name in missing)
        works = f"state {flags} ({', '.join(f'{name}=' for name in missing)} in Python)"
        what = f"this file is one bare vector and does not tell its {' and '.join(missing)}"
        raise UserError(what, given=f"{path.name}: {list(array.shape)}", works=works)
    assert options.layer is not None
    row = array[0] if array.ndim == 2 else array
    if not bool((row != 0).any()):
        raise UserError("the vector in this file is zero", given=path.name)
    return from_rows({options.layer: row}, path, format_name, options, {"site": options.site})


def nonzero_rows(matrix: Tensor, path: Path) -> dict[int, Tensor]:
    """Rows of a [layer, d_model] matrix that are not zero, by index: a zero row is a layer that was not trained.

    Raises:
        UserError: all are zero.
    """
    return without_zeros(dict(enumerate(matrix)), path)


def without_zeros(rows: Mapping[int, Tensor], path: Path) -> dict[int, Tensor]:
    """Rows that are not zero: a zero row adds nothing.

    Raises:
        UserError: all are zero.
    """
    kept = {layer: row for layer, row in rows.items() if bool((row != 0).any())}
    if rows and not kept:
        raise UserError("all vectors in this file are zero", given=path.name)
    return kept


def steering_only(vectors: SteeringVectors | AdaptiveVectors, format_name: str) -> SteeringVectors:
    """Vectors that a format without sites and adapters can hold.

    Raises:
        UserError: they are adaptive, or are added elsewhere than at resid_post.
    """
    if isinstance(vectors, AdaptiveVectors):
        raise UserError(f"{format_name} cannot hold adaptive vectors", works="write peft or safetensors")
    if vectors.card.site != "resid_post":
        works = f"write safetensors; {format_name} means resid_post"
        raise UserError(f"{format_name} cannot hold vectors at this site", given=vectors.card.site, works=works)
    return vectors
