"""PEFT LoRA of rank 1 on down_proj: an adaptive vector, scale alpha / r (rsLoRA: alpha / sqrt(r))."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from interp.errors import UserError
from interp.files import write_bytes, write_text
from vectors.adaptive import AdaptiveVectors
from vectors.card import UNKNOWN, Card
from vectors.formats.base import Format, Options, Vectors
from vectors.formats.carried import write_carried
from vectors.formats.peft_config import check_config, check_targets, scale_of
from vectors.untrusted import as_vector, bounded, read_object, safetensors_names, safetensors_read

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TENSOR = re.compile(r"base_model\.model\.model\.layers\.(0|[1-9]\d{0,4})\.mlp\.down_proj\.lora_([AB])\.weight")
"""The names that peft writes for a causal language model; it ignores others when it loads."""


def matches(path: Path) -> bool:
    """A folder with adapter_config.json."""
    return (path / CONFIG).is_file()


def read(path: Path, options: Options) -> AdaptiveVectors:
    """Read a = lora_A, b = lora_B.

    Raises:
        UserError: the rank is not 1, other modules are adapted too, a variant of LoRA is used, or a file is damaged.
    """
    layers, a, b, scale, card = adapter(path, options)
    if a.shape[1] != 1:
        works = "an adaptive vector is LoRA of rank 1; LowRankAdapters.read takes any rank"
        raise UserError(f"LoRA of rank {a.shape[1]} is no adaptive vector", works=works)
    return AdaptiveVectors(a[:, 0], b[:, 0], (scale,) * len(layers), layers, card)


def adapter(
    path: Path, options: Options
) -> tuple[tuple[int, ...], Float[Tensor, "layer rank d_mlp"], Float[Tensor, "layer rank d_model"], float, Card]:
    """Layers, A, B transposed, alpha / r and card of LoRA of any rank on down_proj.

    Raises:
        UserError: other modules are adapted too, a variant of LoRA is used, or a file is damaged.
    """
    config = read_object(path / CONFIG, "adapter config")
    check_config(config)
    scale, rank = scale_of(config)
    if not (path / WEIGHTS).is_file():
        raise UserError("the adapter has no safetensors weights", given=path.name, works="save it with safetensors")
    names = safetensors_names(path / WEIGHTS)
    found = {name: _TENSOR.fullmatch(name) for name in names}
    other = [name for name, match in found.items() if match is None]
    if other or not names:
        works = "adaptive vectors are rank-1 LoRA on mlp.down_proj and nothing else"
        raise UserError("this adapter changes more than down_proj", given=(other or ["nothing"])[0], works=works)
    tensors = safetensors_read(path / WEIGHTS, names)
    parts: dict[str, dict[int, Tensor]] = {"A": {}, "B": {}}
    for name, match in found.items():
        if match is not None:
            parts[match[2]][int(match[1])] = _of_rank(tensors[name], name, rank, dim=0 if match[2] == "A" else 1)
    layers = tuple(sorted(parts["A"]))
    if layers != tuple(sorted(parts["B"])):
        raise UserError("lora_A and lora_B are not of the same layers", given=path.name)
    check_targets(config, layers, options.n_layers)
    a, b = (_stack(parts[key], layers, f"lora_{key}") for key in "AB")
    return layers, a, b, scale, _card(path, config, b.shape[2], options)


def write(path: Path, vectors: Vectors) -> Path:
    """Write an adapter folder that `PeftModel.from_pretrained` loads; scales that differ go into lora_B.

    The card goes into `card.json`.

    Raises:
        UserError: the vectors are not adaptive.
    """
    if not isinstance(vectors, AdaptiveVectors):
        raise UserError("peft holds adaptive vectors only", given=vectors.name, works="write npy, gguf or safetensors")
    if len(set(vectors.scales)) > 1:
        scaled = vectors.b * torch.tensor(vectors.scales)[:, None]
        vectors = replace(vectors, b=scaled, scales=(1.0,) * len(vectors.scales))
    tensors: dict[str, Tensor] = {}
    for row, layer in enumerate(vectors.layers):
        start = f"base_model.model.model.layers.{layer}.mlp.down_proj.lora_"
        tensors[f"{start}A.weight"] = vectors.a[row][None].clone()
        tensors[f"{start}B.weight"] = vectors.b[row][:, None].clone()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": vectors.card.base_model,
        "r": 1,
        "lora_alpha": vectors.scales[0],
        "lora_dropout": 0.0,
        "target_modules": [f"model.layers.{layer}.mlp.down_proj" for layer in vectors.layers],
        "inference_mode": True,
    }
    write_bytes(path / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_text(path / CONFIG, json.dumps(config, indent=1))
    return write_carried(path, vectors)


def _of_rank(value: Tensor, name: str, rank: int, *, dim: int) -> Float[Tensor, "rank width"]:
    bounded(name, list(value.shape))
    if value.ndim != 2 or value.shape[dim] != rank:
        raise UserError(f"a rank-{rank} matrix was expected", given=f"{name}: {list(value.shape)}")
    return value if dim == 0 else value.T


def _stack(rows: dict[int, Tensor], layers: tuple[int, ...], name: str) -> Float[Tensor, "layer rank width"]:
    width = rows[layers[0]].shape[1]
    return torch.stack(
        [torch.stack([as_vector(row, f"{name} of layer {layer}", width) for row in rows[layer]]) for layer in layers]
    )


def _card(path: Path, config: dict[str, Any], d_model: int, options: Options) -> Card:
    base = config.get("base_model_name_or_path")
    return Card(
        name=path.name,
        kind="rank1" if config["r"] == 1 else "lora",
        site="mlp_out",
        base_model=base[:200] if isinstance(base, str) and base else UNKNOWN,
        d_model=d_model,
        n_layers=options.n_layers,
        trained=options.trained or UNKNOWN,
        recipe={"format": "peft", "file": path.name, "lora_alpha": float(config["lora_alpha"])},
    )


FORMAT = Format("peft", "PEFT LoRA of rank 1 on down_proj (adaptive vectors)", matches, read, write, frozenset())
