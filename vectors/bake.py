"""A plain Hugging Face checkpoint with the vectors inside, for engines that know nothing of vectors.

A vector at the output of a Llama-like block is the bias of its `mlp.down_proj`, and a rank-1 adapter is a change of
that matrix, so transformers, vLLM or llama.cpp steer without any code of ours. A Qwen2 checkpoint is relabelled as
Llama with biases, which computes the same and which stock engines serve: their Qwen2 has no place for such a bias.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from interp.backend.embedded import folder_of, resolve_alias
from interp.backend.families import hooked_config
from interp.backend.lineage import lineage_of_tensors
from interp.backend.load import read_config, read_tokenizer
from interp.backend.portable import write_config, write_tokenizer
from interp.errors import UserError
from interp.files import disk_errors, plain_sibling, write_json
from interp.zero_norm import refuse_zero
from vectors.adaptive import AdaptiveVectors
from vectors.fit import check_fit
from vectors.low_rank import LowRankAdapters
from vectors.steering import SteeringVectors, refuse_together
from vectors.untrusted import read_object

log = logging.getLogger(__name__)

INDEX, SINGLE, CARD = "model.safetensors.index.json", "model.safetensors", "steering_vectors.json"
ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM")
_PROJECTION = re.compile(r"model\.layers\.(\d+)\.(mlp|self_attn)\.(\w+)_proj\.(weight|bias)")
_KEPT = ("*.json", "*.model", "*.txt", "*.jinja")
_QWEN2_ONLY = ("model_type", "layer_types", "sliding_window", "use_sliding_window", "max_window_layers")
_ROUNDING = 1e-6
"""Relative error above which rounding is worth a message: float32 stays below it where no bias is large."""


class _Checkpoint:
    """What `check_fit` asks of a model, read from a folder without loading it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, _config(folder)
        self.name, self.architecture = folder.name, str(self.config.architectures[0])
        self.n_layers, self.d_model = int(self.config.num_hidden_layers), int(self.config.hidden_size)
        self.files = self._files()
        self._refuse_silent_biases()
        self.lineage = lineage_of_tensors(*self._tensors("model.norm.weight", "model.embed_tokens.weight"))

    @property
    def attention_bias(self) -> bool:
        """Whether the source's query, key and value projections have biases."""
        return self.architecture == "Qwen2ForCausalLM" or bool(getattr(self.config, "attention_bias", False))

    def _files(self) -> dict[str, str]:
        """Tensor -> its shard."""
        if (self.folder / INDEX).is_file():
            shards = read_object(self.folder / INDEX, "index of shards")["weight_map"]
            return {name: plain_sibling(self.folder, shard).name for name, shard in shards.items()}
        if not (self.folder / SINGLE).is_file():
            raise UserError("this folder holds no safetensors weights", given=self.folder.name)
        with safe_open(self.folder / SINGLE, "pt") as file:
            return dict.fromkeys(file.keys(), SINGLE)

    def _refuse_silent_biases(self) -> None:
        """Refuse biases in the files that the source's architecture ignores: the baked config would switch them on."""
        for name in self.files:
            match = _PROJECTION.fullmatch(name)
            if match is None or match[4] == "weight":
                continue
            used = self.attention_bias if match[2] == "self_attn" else bool(getattr(self.config, "mlp_bias", False))
            if not used or (match[3] == "o" and self.architecture == "Qwen2ForCausalLM"):
                raise UserError("this checkpoint holds a bias that its own architecture ignores", given=name)

    def _tensors(self, *names: str) -> list[Tensor]:
        found: list[Tensor] = []
        for name in names:
            if name not in self.files:
                raise UserError("this checkpoint lacks a tensor", given=name)
            with safe_open(self.folder / self.files[name], "pt") as file:
                found.append(file.get_tensor(name))
        return found


def _config(folder: Path) -> Any:
    """Return the config as transformers reads it, if a Llama with biases can compute what it says.

    Raises:
        UserError: another architecture, quantised weights, a sliding window, or a setting that nobody here knows.
    """
    architecture = str((read_object(folder / "config.json", "model config").get("architectures") or [""])[0])
    if architecture not in ARCHITECTURES:
        works = f"bake into {' or '.join(ARCHITECTURES)}"
        raise UserError("this architecture has no bias at the end of its MLP", given=architecture, works=works)
    config = read_config(folder)
    settings = hooked_config(config, architecture, name=folder.name, dtype=torch.float32, device="cpu")
    if settings.use_local_attn:
        raise UserError("a sliding window cannot be carried into a Llama checkpoint", given=folder.name)
    return config


def bake(
    vectors: SteeringVectors | AdaptiveVectors | LowRankAdapters,
    model: object,
    out: str | Path,
    *,
    foreign: bool = False,
) -> Path:
    """Write a checkpoint whose logits are those of the steered model.

    Args:
        vectors: vectors at mlp_out or resid_post, or rank-1 adapters; rounded to the checkpoint's dtype.
        model: alias, local folder, `.gguf` file or hub id of a Llama- or Qwen2-type model.
        out: the new folder.
        foreign: allow vectors of other weights of the same shape.

    Returns:
        The folder, with the vectors' card in `steering_vectors.json`.

    Raises:
        UserError: the architecture or the vectors' place cannot be baked, they do not fit, or the folder exists.
    """
    if not isinstance(model, str | Path):
        given, works = type(model).__name__, "give the folder, file, alias or hub id that it was loaded from"
        raise UserError("a checkpoint is made from files, not from a model in memory", given=given, works=works)
    if isinstance(vectors, LowRankAdapters):
        works = "merge LoRA of a higher rank with peft"
        raise UserError("only vectors and rank-1 adapters can be baked", given=type(vectors).__name__, works=works)
    out, source = Path(out), _Checkpoint(folder_of(resolve_alias(str(model))))
    check_fit(vectors, source, foreign=foreign)
    refuse_together(vectors.card, vectors.layers, vectors.permitted)
    refuse_zero(vectors, "baked into a checkpoint")
    if vectors.card.site not in ("mlp_out", "resid_post"):
        raise UserError("only a vector after the MLP can be baked", given=vectors.card.site)
    if out.exists():
        raise UserError("this folder exists", given=out, works="name a new one")
    scratch = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    with disk_errors(out):
        try:
            _write(source, vectors, scratch)
            scratch.rename(out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return out


def _write(source: _Checkpoint, vectors: SteeringVectors | AdaptiveVectors, out: Path) -> None:
    out.mkdir(parents=True)
    for pattern in _KEPT:
        for file in source.folder.glob(pattern):
            if file.name not in ("config.json", INDEX):
                shutil.copyfile(file, out / file.name)
    write_config(_relabelled(source), out)
    _write_tokenizer(source.folder, out)
    write_json(out / CARD, vectors.card.model_dump(mode="json"))
    places: dict[str, str] = {}
    errors: dict[int, float] = {}
    size = 0
    for shard in sorted(set(source.files.values())):
        with safe_open(source.folder / shard, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        changed = _biases(tensors, vectors, source.files, attention=source.attention_bias)
        errors |= _rounding(tensors, changed, vectors)
        tensors |= changed
        save_file({name: value.contiguous() for name, value in tensors.items()}, out / shard, {"format": "pt"})
        places |= dict.fromkeys(tensors, shard)
        size += sum(value.nbytes for value in tensors.values())
    _report(errors, vectors)
    if (source.folder / INDEX).is_file():
        (out / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=2))


def _relabelled(source: _Checkpoint) -> LlamaConfig:
    """Return the source's config as that of a Llama with biases; settings that only Qwen2 has are off and left out."""
    fields = {key: value for key, value in source.config.to_dict().items() if key not in _QWEN2_ONLY}
    fields |= {"architectures": ["LlamaForCausalLM"], "mlp_bias": True, "attention_bias": source.attention_bias}
    return LlamaConfig(**fields)


def _write_tokenizer(folder: Path, out: Path) -> None:
    """Write the tokenizer for transformers 4.57 and 5; a folder without one stays without."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        return
    tokenizer = read_tokenizer(folder)
    for name in ("special_tokens_map.json", "added_tokens.json"):  # 4.57 would let them overrule the files written now
        (out / name).unlink(missing_ok=True)
    write_tokenizer(tokenizer, out)


def _rounding(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], vectors: SteeringVectors | AdaptiveVectors
) -> dict[int, float]:
    """Return layer -> |change in the file - change asked for| / |change asked for|."""
    errors: dict[int, float] = {}
    for row, layer in enumerate(vectors.layers):
        adaptive = isinstance(vectors, AdaptiveVectors)
        name = f"model.layers.{layer}.mlp.down_proj.{'weight' if adaptive else 'bias'}"
        if name not in after:
            continue
        wanted = _change(vectors, row)
        real = after[name].double() - (before[name].double() if name in before else 0.0)
        size = float(wanted.norm())
        errors[layer] = float((real - wanted.double()).norm()) / size if size else 0.0
    return errors


def _report(errors: Mapping[int, float], vectors: SteeringVectors | AdaptiveVectors) -> None:
    """Log what rounding to the checkpoint's dtype did; raise if a layer has no place in the files."""
    missing = [layer for layer in vectors.layers if layer not in errors]
    if missing:
        raise UserError("this checkpoint has no mlp.down_proj.weight at this layer", given=missing[0])
    worst = max(errors, key=lambda layer: errors[layer])
    if errors[worst] > _ROUNDING:
        text = "the checkpoint's dtype rounds the baked change by up to %.2g %% of its norm (layer %d)"
        log.warning(text, 100 * errors[worst], worst)


def _change(vectors: SteeringVectors | AdaptiveVectors, row: int) -> Tensor:
    """Return what one layer's vector adds to the bias, or one layer's adapter to the matrix."""
    if isinstance(vectors, SteeringVectors):
        return vectors.directions[row]
    return vectors.scales[row] * vectors.b[row][:, None] * vectors.a[row][None]


def _biases(
    tensors: dict[str, Tensor], vectors: SteeringVectors | AdaptiveVectors, known: Mapping[str, str], *, attention: bool
) -> dict[str, Tensor]:
    """Return the vectors and adapters of a shard's blocks, and zeros for each other bias that the config promises."""
    changed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        match = _PROJECTION.fullmatch(name)
        if match is None or (match[2] == "self_attn" and not attention):
            continue
        layer, bias = int(match[1]), f"{name.rpartition('.')[0]}.bias"
        steered = match[3] == "down" and layer in vectors.layers
        change = _change(vectors, vectors.layers.index(layer)) if steered else torch.zeros(())
        if (match[4] == "weight") == (change.ndim == 2) and steered:
            changed[name] = (value.float() + change).to(value.dtype)
        if match[4] == "weight" and bias not in known:
            row = change if change.ndim == 1 else torch.zeros(value.shape[0])
            changed[bias] = row.clone().to(value.dtype)
    return changed
