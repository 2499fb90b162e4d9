"""One door for vectors: an alias, a file or a folder in any known format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from interp.arguments import shown
from interp.errors import UserError
from interp.files import as_path, exists
from interp.given import HUB, as_model
from vectors.adaptive import AdaptiveVectors
from vectors.catalogue import PRETRAINED, Choice, find, list_pretrained
from vectors.fit import check_fit
from vectors.formats import find as find_format
from vectors.formats import formats, read
from vectors.formats.base import Options, Vectors
from vectors.formats.peft_lora import CONFIG, matches
from vectors.hub import pull
from vectors.low_rank import LowRankAdapters
from vectors.steering import SteeringVectors
from vectors.untrusted import read_object


def load_vectors(
    source: str | Path,
    *,
    model: Any = None,
    foreign: bool = False,
    rows: Literal["blocks", "embeddings-first"] | None = None,
    trained: Literal["together", "apart"] | None = None,
    seed: int | None = None,
) -> Vectors:
    """Load vectors by alias `model/set[/layer][@seed]`, or from a file, a folder or the hub in any known format.

    Args:
        source: alias, path, or `hf://user/name[@revision][/path]`; an alias that exists wins over a folder of that name
            (write `./name` for the folder).
        model: where given, the vectors must fit it (`check_fit`), and its depth settles what a file leaves open.
        foreign: allow vectors of other weights of the same shape.
        rows: what row 0 of a matrix with L + 1 rows is.
        trained: whether vectors without a card were trained together or apart.
        seed: which run of a folder that holds several.

    Returns:
        Steering vectors, or adaptive ones where the file holds rank-1 adapters.

    Raises:
        UserError: there is no such alias or file, it is damaged, or the vectors do not fit the model.
    """
    model = model if hasattr(model, "n_layers") else as_model(model)  # a bare HookedTransformer
    depth = None if model is None else int(model.n_layers)
    vectors = _load(source, Options(rows, trained, seed, depth))
    if model is not None:
        check_fit(vectors, model, foreign=foreign)
    return vectors


def load_intervention(source: str | Path, *, model: Any = None, foreign: bool = False) -> Vectors | LowRankAdapters:
    """What `--vectors` names: all that `load_vectors` loads, and LoRA of any rank on down_proj from a PEFT folder.

    Args:
        source: as for `load_vectors`.
        model: what it must fit, where given.
        foreign: allow vectors of other weights of the same shape.

    Raises:
        UserError: as `load_vectors`.
    """
    folder = _adapter_folder(source)
    if folder is None or read_object(folder / CONFIG, "adapter config").get("r", 1) == 1:
        return load_vectors(source, model=model, foreign=foreign)
    adapters = LowRankAdapters.read(folder)
    if model is not None:
        check_fit(adapters, model, foreign=foreign)
    return adapters


def _adapter_folder(source: str | Path) -> Path | None:
    """The PEFT folder that an alias or a path stands for."""
    known = isinstance(source, str) and _is_alias(source)
    path = dict(find(str(source), PRETRAINED).found.files).get(-1) if known else as_path(source)
    return path if path is not None and exists(path) and matches(path) else None


def convert(
    source: str | Path,
    target: str | Path,
    to: str = "safetensors",
    *,
    rows: Literal["blocks", "embeddings-first"] | None = None,
    trained: Literal["together", "apart"] | None = None,
    seed: int | None = None,
) -> Path:
    """Read vectors in any known format and write them in another; arguments as for `load_vectors`.

    Returns:
        What was written.

    Raises:
        UserError: the format cannot be written, or cannot hold these vectors.
    """
    if not Path(target).name:
        raise UserError("this is no name of a file", given=repr(str(target)), works="such as vectors.safetensors")
    chosen = find_format(to)
    if chosen.write is None:
        works = ", ".join(one.name for one in formats() if one.write is not None)
        raise UserError("this format is only read", given=to, works=f"write {works}")
    return chosen.write(Path(target), load_vectors(source, rows=rows, trained=trained, seed=seed))


def _load(source: str | Path, options: Options) -> Vectors:
    if not isinstance(source, str | Path):
        raise UserError("vectors are loaded by a name or a path", given=shown(source))
    if isinstance(source, Path):
        return read(source, options)
    if source.startswith(HUB):
        return read(pull(source), options)
    if _is_alias(source):
        return load_choice(find(source, PRETRAINED))
    path = as_path(source)
    if exists(path) or source.startswith((".", "/", "~")) or path.suffix in (".safetensors", ".npy", ".gguf"):
        return read(path, options)
    return load_choice(find(source, PRETRAINED))


def _is_alias(source: str) -> bool:
    parts = source.split("@")[0].split("/")
    return len(parts) >= 2 and (parts[0], parts[1]) in {(one.model, one.set) for one in list_pretrained(PRETRAINED)}


def load_choice(choice: Choice) -> Vectors:
    """The vectors that an alias stands for."""
    files = dict(choice.found.files)
    if not choice.found.apart:
        vectors = read(files[-1])
        return vectors if choice.layer is None else vectors.only(choice.layer)
    if choice.layer is not None:
        return read(files[choice.layer])
    return _merged([read(path) for path in files.values()], choice)


def _merged(parts: list[Vectors], choice: Choice) -> Vectors:
    """Vectors trained apart, in one value that still says so."""
    first, *others = parts
    layers = tuple(layer for part in parts for layer in part.layers)
    recipe = {"apart": {str(part.layers[0]): part.digest for part in parts}}
    card = first.card.derive(choice.found.alias, recipe, *(part.card for part in others))
    card = card.model_copy(update={"trained": "apart"})
    if isinstance(first, SteeringVectors):
        rows = [part.directions for part in parts if isinstance(part, SteeringVectors)]
        return SteeringVectors(torch.cat(rows), layers, card)
    adapters = [part for part in parts if isinstance(part, AdaptiveVectors)]
    scales = tuple(scale for part in adapters for scale in part.scales)
    a, b = torch.cat([part.a for part in adapters]), torch.cat([part.b for part in adapters])
    return AdaptiveVectors(a, b, scales, layers, card)
