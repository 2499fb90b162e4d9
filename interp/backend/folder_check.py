"""A Hugging Face folder from anyone: no pickle is opened, no code run, and no more taken than its files hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from interp.errors import UserError
from interp.files import plain_sibling, read_json

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def check_folder(folder: Path, config: Any) -> None:
    """Refuse what transformers would believe: a config that claims more weights than the files hold.

    transformers makes a model as large as the config says, and fills what no file holds with new random numbers.

    Args:
        folder: with safetensors weights, in one file or in shards that lie beside their index.
        config: of the model, read already.

    Raises:
        UserError: there are no safetensors weights, a shard lies elsewhere, or the sizes do not fit.
    """
    for file in folder.glob("*.json"):  # transformers takes a damaged generation config for none, and its end tokens
        read_json(file)
    held = [size for file in _files(folder) for size in _sizes(file)]
    layers = getattr(config, "num_hidden_layers", 0)
    if not isinstance(layers, int) or not 0 < layers <= len(held):
        raise UserError(f"this config claims {layers} blocks, the files hold {len(held)} tensors", given=folder.name)
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if wanted > 2 * sum(held):  # a few missing weights are named one by one after loading
        raise UserError(f"this config claims {wanted} weights, the files hold {sum(held)}", given=folder.name)


def _files(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            works = "save them as safetensors: a pickle (.bin, .pt) is not opened, because it can run code"
            raise UserError("this folder holds no safetensors weights", given=folder.name, works=works)
        return [plain_sibling(folder, SINGLE)]
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError('an index of shards has a "weight_map"', given=folder.name)
    return [plain_sibling(folder, name) for name in dict.fromkeys(shards.values())]


def _sizes(file: Path) -> list[int]:
    """Number of elements of each tensor."""
    with safe_open(file, "pt") as opened:
        return [math.prod(opened.get_slice(name).get_shape()) for name in opened.keys()]  # noqa: SIM118 - no mapping
