"""A Hugging Face checkpoint with the vectors in `model.layers.{l}.mlp.down_proj.bias`.

transformers drops such keys of a Qwen2 model on load and TransformerLens writes zeros, so they are read from the
tensors. In Llama- and Qwen-like blocks nothing follows the MLP, and the bias is an addition at resid_post.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import UserError
from vectors.formats.base import Format, Options
from vectors.formats.rows import from_rows, nonzero_rows
from vectors.steering import SteeringVectors
from vectors.untrusted import (
    JSON_BYTES,
    is_safetensors,
    plain_sibling,
    read_object,
    safetensors_names,
    safetensors_read,
)

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types in which nothing follows the MLP but an addition to the residual stream."""

_SHARD = re.compile(r".*-(\d{5})-of-(\d{5})\.safetensors")
_OTHER = re.compile(r"(?:base_model\.model\.)?model\.layers\.\d{1,5}\.mlp\.(?:gate|up)_proj\.bias")
_BIAS = re.compile(r"(?:base_model\.model\.)?model\.layers\.(\d{1,5})\.mlp\.down_proj\.(?:base_layer\.)?bias")


def matches(path: Path) -> bool:
    """A folder with safetensors weights, or one safetensors file with such biases."""
    if path.is_dir():
        return (path / INDEX).is_file() or (path / SINGLE).is_file()
    if not is_safetensors(path):
        return False
    try:
        return any(_BIAS.fullmatch(name) for name in safetensors_names(path))
    except UserError:
        return True


def read(path: Path, options: Options) -> SteeringVectors:
    """Read the biases; layers whose bias is zero or missing are absent.

    Raises:
        UserError: there are none, the architecture has a norm after the MLP (Gemma), or a file is damaged.
    """
    config = _config(path)
    files = _weight_map(path)
    _check_other_biases(files, path)
    if any("post_feedforward_layernorm" in name for name in files):
        raise UserError(
            "a norm follows the MLP of this model, so a bias of down_proj is no addition to the residual stream",
            given=path.name,
            works="train the vector at resid_post",
        )
    kind = config.get("model_type", FAMILIES[0])
    if kind not in FAMILIES:
        works = f"model types {', '.join(FAMILIES)}; else train the vector at resid_post"
        raise UserError("whether a bias of down_proj is a plain addition here is not known", given=kind, works=works)
    biases = {name: (int(match[1]), file) for name, file in files.items() if (match := _BIAS.fullmatch(name))}
    if not biases:
        works = "the vectors are model.layers.{l}.mlp.down_proj.bias"
        raise UserError("this checkpoint holds no biases of down_proj", given=path.name, works=works)
    rows = _rows(biases, path)
    depth = config.get("num_hidden_layers")
    fields: dict[str, Any] = {"n_layers": depth} if type(depth) is int and depth > 0 else {}
    fields["recipe"] = {"module": "mlp.down_proj"}
    return from_rows(rows, path, "checkpoint", options, fields)


def _rows(biases: dict[str, tuple[int, Path]], path: Path) -> dict[int, Tensor]:
    rows: dict[int, Tensor] = {}
    for file in sorted({file for _, file in biases.values()}):
        names = [name for name, (_, where) in biases.items() if where == file]
        for name, value in safetensors_read(file, names).items():
            layer = biases[name][0]
            if layer in rows:
                raise UserError("two biases at one layer", given=name)
            rows[layer] = value
    if len({(value.shape, value.dtype) for value in rows.values()}) != 1:
        raise UserError("the biases differ in width or type", given=path.name)
    layers = sorted(rows)
    kept = nonzero_rows(torch.stack([rows[layer] for layer in layers]), path)
    return {layers[row]: value for row, value in kept.items()}


def _config(path: Path) -> dict[str, Any]:
    file = (path if path.is_dir() else path.parent) / "config.json"
    config = read_object(file, "model config") if file.is_file() else {}
    if str(config.get("model_type", "")).startswith("gemma"):
        raise UserError(
            "a norm follows the MLP of Gemma, so a bias of down_proj is no addition to the residual stream",
            given=path.name,
            works="train the vector at resid_post",
        )
    return config


def _check_other_biases(files: dict[str, Path], path: Path) -> None:
    """Biases inside the MLP are a part of the model, so that down_proj's may be one too."""
    for name, file in files.items():
        if _OTHER.fullmatch(name) and file.is_file() and bool((safetensors_read(file, [name])[name] != 0).any()):
            what = "this model has biases of its own in the MLP, so that of down_proj may be no steering vector"
            raise UserError(what, given=f"{path.name}: {name}")


def _weight_map(path: Path) -> dict[str, Path]:
    """Tensor name -> the file that holds it."""
    if path.is_file():
        part = _SHARD.fullmatch(path.name)
        if part is not None and int(part[2]) > 1:
            works = f"give the folder with {INDEX}"
            raise UserError(f"this is one of {int(part[2])} shards", given=path.name, works=works)
        return dict.fromkeys(safetensors_names(path), path)
    if not (path / INDEX).is_file():
        file = plain_sibling(path, SINGLE)
        return dict.fromkeys(safetensors_names(file), file)
    if (path / SINGLE).is_file():
        raise UserError(
            f"this folder holds {SINGLE} and {INDEX}", given=path.name, works="remove the one that is stale"
        )
    index = read_object(path / INDEX, "index of shards", JSON_BYTES).get("weight_map")
    if not isinstance(index, dict):
        raise UserError('an index of shards has a "weight_map"', given=path.name)
    shards = {shard for name, shard in index.items() if _BIAS.fullmatch(name) or _OTHER.fullmatch(name)}
    files = {shard: plain_sibling(path, shard) for shard in shards}
    for shard, file in files.items():
        promised = {name for name, where in index.items() if where == shard and _BIAS.fullmatch(name)}
        inside = {name for name in safetensors_names(file) if _BIAS.fullmatch(name)}
        if promised - inside:
            raise UserError(
                "a shard lacks a tensor that the index promises", given=f"{shard}: {min(promised - inside)}"
            )
        if inside - promised:
            raise UserError(
                "a shard holds a bias that the index does not name", given=f"{shard}: {min(inside - promised)}"
            )
    return {name: files.get(shard, path) if isinstance(shard, str) else path for name, shard in index.items()}


FORMAT = Format("checkpoint", "Hugging Face checkpoint with mlp.down_proj.bias", matches, read, asks=frozenset())
