"""One door for vectors: an alias, a file or a folder in any known format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch

from interp.arguments import check_kind, shown
from interp.bare_model import takes_model
from interp.errors import UserError
from interp.files import as_path, exists
from interp.given import HUB, as_model, named_vectors
from interp.reading import PLACEMENTS, ROWS, TRAINED, Placement
from vectors.adaptive import AdaptiveVectors
from vectors.catalogue import PRETRAINED, Choice, find, list_pretrained
from vectors.fit import check_fit
from vectors.formats import agree, formats, read
from vectors.formats import find as find_format
from vectors.formats.base import Options, Vectors
from vectors.formats.peft_lora import CONFIG, matches
from vectors.hub import pull
from vectors.installed import installed
from vectors.low_rank import LowRankAdapters
from vectors.steering import SteeringVectors
from vectors.untrusted import read_object

Rows = Literal["blocks", "embeddings-first"]
Trained = Literal["together", "apart"]


@takes_model
def load_vectors(
    source: str | Path,
    *,
    model: Any = None,
    foreign: bool = False,
    rows: Rows | None = None,
    trained: Trained | None = None,
    seed: int | None = None,
    site: Placement | None = None,
    layer: int | None = None,
) -> Vectors:
    """Load vectors by alias `model/set[/layer][@seed]`, or from a file, a folder or the hub in any known format.

    What `interp train` wrote is named in the same way by its path: `FOLDER/set[/layer][@seed]`, or the run's folder.

    Args:
        source: alias, path, or `hf://user/name[@revision][/path]`; an alias that exists wins over a folder of that name
            (write `./name` for the folder).
        model: where given, the vectors must fit it (`check_fit`), and its depth settles what a file leaves open.
        foreign: allow vectors of other weights of the same shape.
        rows: what row 0 of a matrix with L + 1 rows is.
        trained: whether vectors of a file that does not say so were trained together or apart.
        seed: which run of a folder, or which seed of a set.
        site: stream at which a bare tensor is added; refused where a file states another one.
        layer: block of a bare vector; refused where a file states other ones.

    Returns:
        Steering vectors, or adaptive ones where the file holds rank-1 adapters.

    Raises:
        UserError: there is no such alias or file, it is damaged, it does not tell what is needed or contradicts what
            was given, or the vectors do not fit the model.
    """
    check_kind("the name of vectors", source, str | Path, "an alias, a file or a folder")
    model, options = _options(model, rows, trained, seed, site, layer)
    vectors = _named(source, model, options) or _vectors(_resolve(source, options), options)
    if model is not None:
        check_fit(vectors, model, foreign=foreign)
    return vectors


@takes_model
def load_intervention(
    source: str | Path,
    *,
    model: Any = None,
    foreign: bool = False,
    rows: Rows | None = None,
    trained: Trained | None = None,
    seed: int | None = None,
    site: Placement | None = None,
    layer: int | None = None,
) -> Vectors | LowRankAdapters:
    """Load what `--vectors` names: as `load_vectors`, and LoRA of any rank on down_proj from a PEFT folder.

    Arguments are those of `load_vectors`.

    Raises:
        UserError: as `load_vectors`.
    """
    model, options = _options(model, rows, trained, seed, site, layer)
    target = _resolve(source, options)
    folder = _adapter_folder(target)
    if folder is None or read_object(folder / CONFIG, "adapter config").get("r", 1) == 1:
        loaded: Vectors | LowRankAdapters = _vectors(target, options)
    else:
        loaded = LowRankAdapters.read(folder, options)
        agree(loaded.card, loaded.layers, options)
    if model is not None:
        check_fit(loaded, model, foreign=foreign)
    return loaded


def convert(
    source: str | Path,
    target: str | Path,
    to: str = "safetensors",
    *,
    rows: Rows | None = None,
    trained: Trained | None = None,
    seed: int | None = None,
    site: Placement | None = None,
    layer: int | None = None,
    layers: Sequence[int] | None = None,
) -> Path:
    """Read vectors in any known format and write them in another.

    Args:
        source: as for `load_vectors`, like the arguments without a line here.
        target: the file or folder to write.
        to: name of the format.
        rows: as for `load_vectors`.
        trained: as for `load_vectors`.
        seed: as for `load_vectors`.
        site: as for `load_vectors`.
        layer: as for `load_vectors`.
        layers: blocks to write; None writes all that the source has.

    Returns:
        What was written.

    Raises:
        UserError: the format cannot be written or cannot hold these vectors, or a layer has none.
    """
    if not Path(target).name:
        raise UserError("this is no name of a file", given=repr(str(target)), works="such as vectors.safetensors")
    chosen = find_format(to)
    if chosen.write is None:
        works = ", ".join(known.name for known in formats() if known.write is not None)
        raise UserError("this format is only read", given=to, works=f"write {works}")
    vectors = load_vectors(source, rows=rows, trained=trained, seed=seed, site=site, layer=layer)
    return chosen.write(Path(target), vectors if layers is None else vectors.only(layers))


def _named(source: str | Path, model: Any, options: Options) -> Vectors | None:
    """Vectors of an installed name or of `path/to/file.py:Name`; None for everything else."""
    found = None if isinstance(source, Path) else named_vectors(source, model)
    if found is None or isinstance(found, SteeringVectors | AdaptiveVectors):
        return found
    if isinstance(found, str | Path):
        return read(as_path(found), options)
    given = f"{source} gives a {type(found).__name__}"
    raise UserError("these are no directions that a file can hold", given=given, works="give them to a run")


def _options(
    model: Any, rows: Any, trained: Any, seed: int | None, site: Any, layer: int | None
) -> tuple[Any, Options]:
    """The model, and the caller's answers once they are known to be possible ones."""
    model = model if hasattr(model, "n_layers") else as_model(model)  # a bare HookedTransformer
    depth = None if model is None else int(model.n_layers)
    for name, value, known in (("rows", rows, ROWS), ("trained", trained, TRAINED), ("site", site, PLACEMENTS)):
        if value is not None and value not in known:
            raise UserError(f"no such answer to {name}", given=value, works=f"use one of {', '.join(known)}")
    for name, value in (("layer", layer), ("seed", seed)):
        if value is not None and (type(value) is not int or value < 0):
            raise UserError(f"{name} is a number from 0", given=value)
    return model, Options(rows, trained, seed, depth, site, layer)


def _resolve(source: str | Path, options: Options) -> Choice | Path:
    """The set or path that a source names."""
    if not isinstance(cast("object", source), str | Path):
        raise UserError("vectors are loaded by a name or a path", given=shown(source))
    text = str(source)
    if isinstance(source, str) and _is_alias(text):
        return _find(text, options.seed)
    hub = isinstance(source, str) and text.startswith(HUB)
    path = pull(text) if hub else as_path(source)
    choice = installed(path, options.seed)
    if choice is not None:
        return choice
    known = exists(path) or text.startswith((".", "/", "~")) or path.suffix in (".safetensors", ".npy", ".gguf")
    return path if known or hub or isinstance(source, Path) else _find(text, options.seed)


def _find(alias: str, seed: int | None) -> Choice:
    if seed is None:
        return find(alias, PRETRAINED)
    if "@" in alias:
        raise UserError("the alias names a seed", given=f"{alias}, seed {seed}", works="give one of them")
    return find(f"{alias}@{seed}", PRETRAINED)


def _is_alias(source: str) -> bool:
    parts = source.split("@")[0].split("/")
    sets = {(known.model, known.set) for known in list_pretrained(PRETRAINED)}
    return len(parts) >= 2 and (parts[0], parts[1]) in sets


def _vectors(target: Choice | Path, options: Options) -> Vectors:
    """Read a set or path and compare it with the caller's answers."""
    if isinstance(target, Path):
        return read(target, options)
    if options.rows is not None:
        raise UserError("rows says nothing about a set of vectors", given=options.rows, works="leave it out")
    vectors = load_choice(target)
    agree(vectors.card, vectors.layers, options)
    return vectors


def _adapter_folder(target: Choice | Path) -> Path | None:
    """The PEFT folder that an alias or a path stands for."""
    path = dict(target.found.files).get(-1) if isinstance(target, Choice) else target
    return path if path is not None and exists(path) and matches(path) else None


def load_choice(choice: Choice) -> Vectors:
    """The vectors that an alias stands for."""
    files = dict(choice.found.files)
    if not choice.found.apart:
        vectors = read(files[-1])
        return vectors if choice.layer is None else vectors.only(choice.layer)
    if choice.layer is not None:
        return _layer(files[choice.layer], choice.layer)
    return _merged([_layer(path, layer) for layer, path in files.items()], choice)


def _layer(path: Path, layer: int) -> Vectors:
    """The vector of a file that is named after its block."""
    vectors = read(path)
    if vectors.layers != (layer,):
        shown = ", ".join(map(str, vectors.layers))
        raise UserError(f"this file is named after layer {layer} and holds others", given=f"{path.name}: {shown}")
    return vectors


def _merged(parts: list[Vectors], choice: Choice) -> Vectors:
    """Several files, a layer each, as one value; trained apart unless each file says otherwise."""
    first, *others = parts
    for name in ("kind", "site", "d_model", "n_layers", "architecture", "fingerprint"):
        if len({getattr(part.card, name) for part in parts}) > 1:
            raise UserError(f"the files of this set differ in {name}", given=choice.found.alias)
    layers = tuple(layer for part in parts for layer in part.layers)
    recipe = {"apart": {str(part.layers[0]): part.digest for part in parts}}
    card = first.card.derive(choice.found.alias, recipe, *(part.card for part in others))
    if card.trained != "together":  # the layout with a file for each layer is that of sets trained apart
        card = card.model_copy(update={"trained": "apart"})
    if isinstance(first, SteeringVectors):
        rows = [part.directions for part in parts if isinstance(part, SteeringVectors)]
        return SteeringVectors(torch.cat(rows), layers, card)
    adapters = [part for part in parts if isinstance(part, AdaptiveVectors)]
    scales = tuple(scale for part in adapters for scale in part.scales)
    a, b = torch.cat([part.a for part in adapters]), torch.cat([part.b for part in adapters])
    return AdaptiveVectors(a, b, scales, layers, card)
