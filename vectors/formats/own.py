"""Our own file: safetensors `directions` [layer, d_model] and `layers`, with a JSON card beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from interp.errors import UserError
from vectors.adaptive import AdaptiveVectors
from vectors.card import UNKNOWN, Card
from vectors.formats.base import Format, Options, Vectors
from vectors.steering import SteeringVectors
from vectors.storage import KEY, check_inside, read_card
from vectors.untrusted import is_safetensors, safetensors_metadata, safetensors_names, safetensors_read

VECTOR = ["directions", "layers"]
RANK1 = ["a", "b", "layers", "scales"]


def matches(path: Path) -> bool:
    """A safetensors file whose tensors have our names."""
    return is_safetensors(path) and set(_names(path)) in ({*VECTOR}, {*RANK1})


def read(path: Path, options: Options) -> Vectors:
    """Read vectors or adapters with their card, and hold the tensors against the card's digest.

    Raises:
        UserError: tensors or card are damaged or do not belong together.
    """
    names = safetensors_names(path)
    unknown = sorted(set(safetensors_metadata(path)) - {KEY, "format"})
    if unknown:
        raise UserError("the metadata of this safetensors file are not understood", given=f"{path.name}: {unknown[0]}")
    tensors = safetensors_read(path, names)
    adaptive = set(names) == {*RANK1}
    layers = _layers(tensors["layers"], path)
    main = tensors["b" if adaptive else "directions"]
    wanted = ["a", "b"] if adaptive else ["directions"]
    if any(tensors[name].ndim != 2 or tensors[name].dtype != torch.float32 for name in wanted):
        raise UserError(f"{' and '.join(wanted)} must be float32 matrices", given=path.name)
    card = read_card(path) or _bare(path, main.shape[1], options, adaptive)
    if adaptive:
        scales = tensors["scales"]
        if scales.ndim != 1 or scales.dtype != torch.float64:
            raise UserError("scales must be a float64 vector", given=path.name)
        found: Vectors = AdaptiveVectors(tensors["a"], main, tuple(scales.tolist()), layers, card)
    elif card.kind != "vector":
        raise UserError("the card is that of adaptive vectors", given=path.name)
    else:
        found = SteeringVectors(main, layers, card)
    if card.digest and card.digest != found.digest:
        raise UserError("the tensors are not those of the card", given=path.name, works="take both from one place")
    check_inside(path, card)
    return found


def write(path: Path, vectors: Vectors) -> Path:
    """Write tensors and card."""
    return vectors.save(path)


def _names(path: Path) -> list[str]:
    try:
        return safetensors_names(path)
    except UserError:
        return []


def _layers(value: Tensor, path: Path) -> tuple[int, ...]:
    if value.ndim != 1 or value.dtype != torch.int64:
        raise UserError("layers must be a vector of int64", given=path.name)
    return tuple(int(layer) for layer in value.tolist())


def _bare(path: Path, d_model: int, options: Options, adaptive: bool) -> Card:
    if options.site is None and not adaptive:
        works = "state --site (site= in Python)"
        raise UserError("this file lost its card and does not tell its site", given=path.name, works=works)
    return Card(
        name=path.stem,
        kind="rank1" if adaptive else "vector",
        site=options.site or "mlp_out",
        d_model=d_model,
        n_layers=options.n_layers,
        trained=options.trained or UNKNOWN,
    )


FORMAT = Format("safetensors", "safetensors with a JSON card beside it", matches, read, write, frozenset())
