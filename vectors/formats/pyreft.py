"""pyreft folders whose interventions are biases: `intkey_layer_{l}_comp_{c}_unit_pos_nunit_1#0.bin`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import UserError
from vectors.formats.base import Format, Options
from vectors.formats.pickled import load_torch
from vectors.formats.rows import from_rows
from vectors.steering import SteeringVectors
from vectors.untrusted import read_object

_NAME = re.compile(r"intkey_layer_(\d{1,5})_comp_([a-z_]+?)_unit_pos_nunit_.*\.bin")
_SHIFT = {"block_output": ("resid_post", 0), "block_input": ("resid_post", -1), "mlp_output": ("mlp_out", 0)}
_BOOKKEEPING = ("embed_dim", "interchange_dim")
_KINDS = {"rotate_layer": "LoReFT", "proj_layer": "NoReFT", "learned_source": "a ReFT", "weight": "LoReFT"}


def matches(path: Path) -> bool:
    """A folder with `intkey_layer_*` files, or one such file."""
    return bool(_files(path))


def read(path: Path, options: Options) -> SteeringVectors:
    """Read the bias of each layer.

    pyreft intervenes at prompt positions that the caller names for each batch; here, as for every steering vector,
    the default is all positions.

    Raises:
        UserError: an intervention is no bias (LoReFT and its relatives are refused by name), sits elsewhere than at
            a block's or MLP's output, or a file is damaged.
    """
    _check_whole(path)
    rows: dict[int, Tensor] = {}
    sites: set[str] = set()
    for file, layer, component in _files(path):
        if component not in _SHIFT:
            raise UserError("this place of a pyreft intervention is not read", given=file.name, works="block_output")
        site, shift = _SHIFT[component]
        if layer + shift < 0:
            raise UserError("a bias before block 0 is added to the embeddings", given=file.name)
        if layer + shift in rows:
            raise UserError("two interventions at one layer", given=file.name)
        rows[layer + shift] = _bias(file)
        sites.add(site)
    if len(sites) != 1:
        raise UserError("interventions at block and MLP outputs do not mix", given=path.name)
    site = sites.pop()
    recipe = {"positions": "chosen by the caller in pyreft; all by default here"}
    recipe |= {"module": "mlp"} if site == "mlp_out" else {}
    return from_rows(rows, path, "pyreft", options, {"site": site, "recipe": recipe})


def _files(path: Path) -> list[tuple[Path, int, str]]:
    candidates = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [(file, _NAME.fullmatch(file.name)) for file in candidates if file.is_file()]
    return [(file, int(match[1]), match[2]) for file, match in found if match is not None]


def _check_whole(path: Path) -> None:
    """Refuse a folder that lacks an intervention of its config.json, or holds one that is not read."""
    if not path.is_dir():
        return
    files = {file.name.removesuffix(".bin") for file in path.glob("*.bin")}
    read = {file.name.removesuffix(".bin") for file, _, _ in _files(path)}
    config = read_object(path / "config.json", "pyreft config") if (path / "config.json").is_file() else {}
    named = config.get("sorted_keys")
    wanted = {str(name) for name in named} if isinstance(named, list) else read
    odd = (files | wanted) ^ read
    if odd:
        raise UserError("this pyreft folder holds or promises an intervention that is not read", given=min(odd))


def _bias(file: Path) -> Tensor:
    state = load_torch(file)
    if not isinstance(state, Mapping):
        raise UserError("a pyreft file holds a state dict", given=file.name)
    tensors = {str(key): value for key, value in state.items() if key not in _BOOKKEEPING}
    for key in tensors:
        kind = next((label for start, label in _KINDS.items() if key.startswith(start)), None)
        if kind is not None:
            works = "a low-rank edit depends on the token; only biases are steering vectors"
            raise UserError(f"this is {kind}, no bias", given=f"{file.name}: {key}", works=works)
    vectors = [value for value in tensors.values() if isinstance(value, Tensor) and value.ndim == 1]
    if len(tensors) != 1 or len(vectors) != 1:
        raise UserError("one bias was expected", given=f"{file.name}: {', '.join(sorted(tensors))[:80]}")
    for key in _BOOKKEEPING:
        width = state.get(key)
        if width is not None and _width(width) != len(vectors[0]):
            raise UserError("this intervention changes a part of the stream", given=f"{file.name}: {key} = {width}")
    return vectors[0]


def _width(value: Any) -> int | None:
    plain = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    return plain if type(plain) is int else None


FORMAT = Format("pyreft", "folder of pyreft bias interventions", matches, read, asks=frozenset())
