"""Identity of everything in a model that can change a number; what recalls results uses it.

Computed anew at every question, because a weight may change through `.data` or another view of its memory without a
trace. It names contents only: a model that is loaded again, from wherever, has the same fingerprint.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformer_lens import HookedTransformer
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from interp.backend.checksums import checksum
from interp.backend.foreign import modules_of, survey
from interp.backend.weights import Hooked, runs_functionally
from interp.digest import digest

NUMERICS = 1
"""Raised when the engine or the hook path gives other numbers than before, beyond rounding."""

WEIGHTS = 16
"""Hexadecimal digits of a fingerprint that stand for the weights; the rest stands for what is done with them."""

_NAMES = frozenset(
    [
        "model_name",
        "device",
        "n_devices",
        "seed",
        "init_weights",
        "init_mode",
        "initializer_range",
        "n_params",
        "tokenizer_name",
        "from_checkpoint",
        "checkpoint_index",
        "checkpoint_label_type",
        "checkpoint_value",
        "trust_remote_code",
        "default_prepend_bos",
        "tokenizer_prepends_bos",
        "use_hook_tokens",
        "_name_or_path",
        "name_or_path",
        "transformers_version",
        "torch_dtype",
    ]
)
"""Settings of a config that change no number: names, places, how weights were drawn, what is done with strings."""


def fingerprint(hooked: Hooked, tokenizer: Any, stop_ids: Sequence[int]) -> str:
    """Return 32 hex characters: 16 for all weights, then 16 for settings, text and path.

    The first half covers every parameter and buffer with its name, shape and dtype. The second half covers the config
    and the settings of every module, the tokenizer (vocabulary, merges, added tokens, normaliser, pre-tokeniser), the
    chat template, the end tokens, whether the engine or the model's own hooks compute, and `NUMERICS`. Device, library
    versions and batch sizes move the last bits only and stay out; a run records them.

    A model with foreign code (see `interp.backend.foreign`) gets a suffix that never occurs twice: nobody can say
    what a hook computes.
    """
    about = survey(hooked)
    path = "engine" if not about.foreign and runs_functionally(hooked, about.kinds) else type(hooked).__name__
    rest = digest(NUMERICS, path, settings_digest(hooked), tokenizer_digest(tokenizer), sorted(map(int, stop_ids)))
    suffix = f"+foreign-{uuid.uuid4().hex[:8]}" if about.foreign else ""
    return weights_digest(hooked) + rest + suffix


def weights_digest(hooked: Hooked) -> str:
    """Return 16 hex characters for all parameters and buffers; see `interp.backend.checksums`.

    Rotary tables that are what the settings say count as those settings: they grow with use, and other processors
    round their last bit in another way.
    """
    angles = _angles(hooked) if isinstance(hooked, HookedTransformer) else {}
    found = {
        name: "as set" if name in angles and _same(value, angles[name]) else _describe(value)
        for name, value in tensors_of(hooked)
    }
    return digest(found)


def head_digest(hooked: Any) -> str:
    """Return 16 hex characters for what makes logits of the last stream: final norm, unembedding, soft cap."""
    parts = [part for part in (getattr(hooked, "ln_final", None), getattr(hooked, "unembed", None)) if part is not None]
    weights = [[name, _describe(value)] for part in parts for name, value in tensors_of(part)]
    return digest(weights, [_scalars(part) for part in parts], _value(hooked.cfg.output_logits_soft_cap))


def tensors_of(hooked: Any) -> list[tuple[str, Tensor]]:
    """Parameters, buffers and tensors that somebody keeps on a module as plain attributes, by name."""
    root = hooked.original_model if isinstance(hooked, TransformerBridge) else hooked
    found: list[tuple[str, Tensor]] = []
    for prefix, module in root.named_modules():
        held = {**module._parameters, **module._buffers, **vars(module)}  # pyright: ignore[reportPrivateUsage]
        found += [(f"{prefix}.{name}", value) for name, value in held.items() if isinstance(value, Tensor)]
    return found


def _describe(value: Tensor) -> list[Any]:
    return [str(value.dtype), list(value.shape), *checksum(value)]


def _angles(hooked: HookedTransformer) -> dict[str, Tensor]:
    """The rotary tables that the settings ask for, by name."""
    known: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
    tables: dict[str, Tensor] = {}
    for layer, block in enumerate(hooked.blocks):
        attn: Any = getattr(block, "attn", None)
        if not hasattr(attn, "rotary_cos"):
            continue
        key = str(attn.attn_type), len(attn.rotary_cos)
        if key not in known:
            width, base, dtype = hooked.cfg.rotary_dim, attn._rotary_base(), hooked.cfg.dtype
            known[key] = attn.calculate_sin_cos_rotary(width, key[1], base=base, dtype=dtype)
        for name, table in zip(("rotary_sin", "rotary_cos"), known[key], strict=True):
            tables[f"blocks.{layer}.attn.{name}"] = table
    return tables


def _same(value: Tensor, expected: Tensor) -> bool:
    return value.dtype == expected.dtype and torch.equal(value, expected.to(value.device))


def settings_digest(hooked: Any) -> str:
    """Return 16 hex characters for the config and for what each module was built with."""
    inside = getattr(hooked, "original_model", None)
    cfg = hooked.cfg if inside is None else inside.config
    values = {name: _value(value) for name, value in (cfg.to_dict() if hasattr(cfg, "to_dict") else vars(cfg)).items()}
    defaults = _defaults(type(cfg))
    changed = {name: value for name, value in values.items() if name not in _NAMES and value != defaults.get(name)}
    modules = [[type(one).__qualname__, _scalars(one)] for one in modules_of(hooked) if not isinstance(one, HookPoint)]
    training = bool(hooked.training and getattr(hooked.cfg, "use_logn_attn", False))
    return digest(changed, modules, training)


def _scalars(module: nn.Module) -> dict[str, Any]:
    """Numbers, texts and functions that a module keeps, such as eps, its scale and its activation function."""
    held = {name: value for name, value in vars(module).items() if name[0] != "_" and name not in ("training", "cfg")}
    return _plain(held)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """What can be written, without what is None, False or empty: a later library adds such settings."""
    found = {name: _value(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if not _empty(value)}


def _empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _value(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, list | tuple):
        return [_value(one) for one in value]
    if isinstance(value, torch.dtype):
        return str(value)
    if callable(value) and not isinstance(value, nn.Module):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
    return value if isinstance(value, bool | int | float | str) else None


def _defaults(kind: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(kind):
        return {}
    return {one.name: _value(one.default) for one in dataclasses.fields(kind)}


def tokenizer_digest(tokenizer: Any) -> str:
    """Return 16 hex characters for what a tokenizer makes of text and of ids; empty without a tokenizer."""
    if tokenizer is None:
        return ""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is not None:
        contents = _canonical(inner.to_str())
    elif hasattr(tokenizer, "get_vocab"):
        contents = digest(tokenizer.get_vocab())
    else:
        contents = uuid.uuid4().hex  # nobody can say what it does
    special = {name: str(value) for name, value in sorted(getattr(tokenizer, "special_tokens_map", {}).items())}
    flags = ("add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces", "legacy")
    told = _plain({name: getattr(tokenizer, name, None) for name in flags})
    return digest(contents, _value(getattr(tokenizer, "chat_template", None)), special, told)


@lru_cache(maxsize=8)
def _canonical(text: str) -> str:
    """Hash a tokenizers file without what is null, false or empty, as a later library may write more of it."""
    contents: dict[str, Any] = json.loads(text)
    # Set by whoever pads or cuts a batch; it changes no prompt of ours, which are tokenised one at a time.
    for name in ("padding", "truncation"):
        contents.pop(name, None)
    kept = json.dumps(_pruned(contents), sort_keys=True, ensure_ascii=False)
    return sha256(kept.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: one for name, inner in value.items() if not _empty(one := _pruned(inner))}
    return [_pruned(one) for one in value] if isinstance(value, list) else value
