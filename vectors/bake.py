"""A plain Hugging Face checkpoint with the vectors inside, for engines that know nothing of vectors.

A vector at the output of a Llama-like block is the bias of its `mlp.down_proj`, and a rank-1 adapter is a change of
that matrix, so transformers, vLLM or llama.cpp steer without any code of ours. A Qwen2 checkpoint is relabelled as
Llama with biases, which computes the same and which stock engines serve: their Qwen2 has no place for such a bias.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.backend.embedded import folder_of, resolve_alias
from interp.backend.lineage import lineage_of_tensors
from interp.errors import UserError
from interp.files import disk_errors, write_json
from interp.zero_norm import refuse_zero
from vectors.adaptive import AdaptiveVectors
from vectors.fit import check_fit
from vectors.steering import SteeringVectors, refuse_together
from vectors.untrusted import read_object

INDEX, SINGLE, CARD = "model.safetensors.index.json", "model.safetensors", "steering_vectors.json"
ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM")
_PROJECTION = re.compile(r"model\.layers\.(\d+)\.(mlp|self_attn)\.(\w+)_proj\.(weight|bias)")
_KEPT = ("*.json", "*.model", "*.txt", "*.jinja")


class _Checkpoint:
    """What `check_fit` asks of a model, read from a folder without loading it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, read_object(folder / "config.json", "model config")
        self.name, self.architecture = folder.name, str((self.config.get("architectures") or [""])[0])
        if self.architecture not in ARCHITECTURES:
            works = f"bake into {' or '.join(ARCHITECTURES)}"
            raise UserError("this architecture has no bias at the end of its MLP", given=self.architecture, works=works)
        if self.config.get("use_sliding_window"):
            raise UserError("a sliding window cannot be carried into a Llama checkpoint", given=folder.name)
        self.n_layers, self.d_model = int(self.config["num_hidden_layers"]), int(self.config["hidden_size"])
        self.files = self._files()
        self.lineage = lineage_of_tensors(*self._tensors("model.norm.weight", "model.embed_tokens.weight"))

    def _files(self) -> dict[str, str]:
        """Tensor -> its shard."""
        if (self.folder / INDEX).is_file():
            return dict(read_object(self.folder / INDEX, "index of shards")["weight_map"])
        if not (self.folder / SINGLE).is_file():
            raise UserError("this folder holds no safetensors weights", given=self.folder.name)
        with safe_open(self.folder / SINGLE, "pt") as file:
            return dict.fromkeys(file.keys(), SINGLE)

    def _tensors(self, *names: str) -> list[Tensor]:
        found: list[Tensor] = []
        for name in names:
            with safe_open(self.folder / self.files[name], "pt") as file:
                found.append(file.get_tensor(name))
        return found


def bake(vectors: SteeringVectors | AdaptiveVectors, model: object, out: str | Path, *, foreign: bool = False) -> Path:
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
    biased = {**source.config, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": True}
    biased["attention_bias"] = bool(source.config.get("attention_bias")) or source.architecture == "Qwen2ForCausalLM"
    write_json(out / "config.json", biased)
    write_json(out / CARD, vectors.card.model_dump(mode="json"))
    places: dict[str, str] = {}
    for shard in sorted(set(source.files.values())):
        with safe_open(source.folder / shard, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        tensors |= _biases(tensors, vectors, source.files, attention=biased["attention_bias"])
        save_file({name: value.contiguous() for name, value in tensors.items()}, out / shard, {"format": "pt"})
        places |= dict.fromkeys(tensors, shard)
    if (source.folder / INDEX).is_file():
        size = sum((source.folder / shard).stat().st_size for shard in set(source.files.values()))
        (out / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=2))


def _biases(
    tensors: dict[str, Tensor], vectors: SteeringVectors | AdaptiveVectors, known: Mapping[str, str], *, attention: bool
) -> dict[str, Tensor]:
    """The vectors and adapters of a shard's blocks, and zeros for every other bias that the config now promises."""
    made: dict[str, Tensor] = {}
    for name, value in tensors.items():
        match = _PROJECTION.fullmatch(name)
        if match is None or (match[2] == "self_attn" and not attention):
            continue
        layer, down, bias = int(match[1]), match[3] == "down", f"{name.rpartition('.')[0]}.bias"
        row = vectors.layers.index(layer) if down and layer in vectors.layers else None
        if isinstance(vectors, AdaptiveVectors) and row is not None and match[4] == "weight":
            change = vectors.scales[row] * vectors.b[row][:, None] * vectors.a[row][None]
            made[name] = (value.float() + change).to(value.dtype)
        moved = vectors.directions[row] if isinstance(vectors, SteeringVectors) and row is not None else None
        if match[4] == "bias" and moved is not None:
            made[bias] = (value.float() + moved).to(value.dtype)
        elif match[4] == "weight" and bias not in known:
            made[bias] = (torch.zeros(value.shape[0]) if moved is None else moved.clone()).to(value.dtype)
    return made
