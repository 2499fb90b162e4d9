"""What an `adapter_config.json` of PEFT may say so that the adapter is A and B on down_proj and nothing else.

Compared with peft 0.21: settings that matter in training only are known, all others must have the value that leaves
the forward pass alone; a setting of a later version is refused unless it is off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interp.errors import UserError

_OFF = (None, False, "", [], {})
_ANY = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "lora_dropout"),
        *(
            "ensure_weight_tying",
            "megatron_core",
            "qalora_group_size",
            "runtime_config",
            "r",
            "lora_alpha",
            "use_rslora",
        ),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    }
)
"""Settings whose value changes nothing, or is used below."""
_ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva"),
    "velora_config": (None,),
}
"""PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA and MiCA change the base model's weights at load, so they are not allowed."""
_NAMES = ("target_modules", "exclude_modules", "layers_pattern")
_OTHERS = (*(f"self_attn.{name}_proj" for name in "qkvo"), "mlp.gate_proj", "mlp.up_proj")


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse an adapter that is more than plain LoRA.

    Raises:
        UserError: a setting asks for another variant, or is not understood.
    """
    if config.get("peft_type") != "LORA":
        raise UserError("only LoRA adapters are read", given=str(config.get("peft_type"))[:40])
    for name, value in config.items():
        allowed = _ALLOWED.get(name)
        trained_with = name == "eva_config" and isinstance(value, dict)  # how A was drawn at first
        plain = trained_with or name in _ANY or (_is_off(value) if allowed is None else _is_in(value, allowed))
        if not plain:
            raise UserError("this variant of LoRA is not read", given=f"{name}: {value}"[:80])
    _check_selection(config)


def _check_selection(config: Mapping[str, Any]) -> None:
    """Names are a pattern or a list of texts, blocks a number or a list of numbers, and a pattern needs blocks."""
    if config.get("layers_pattern") and config.get("layers_to_transform") in (None, []):
        raise UserError("layers_pattern of an adapter needs layers_to_transform", given=config["layers_pattern"])
    for name, kind in (*((name, str) for name in _NAMES), ("layers_to_transform", int)):
        value: Any = config.get(name)
        parts = value if isinstance(value, list) else [value]
        if value is not None and any(type(part) is not kind for part in parts):
            raise UserError("this setting of an adapter cannot be read", given=f"{name}: {value}"[:80])


def _is_off(value: object) -> bool:
    return any(type(value) is type(off) and value == off for off in _OFF)


def _is_in(value: object, allowed: Sequence[Any]) -> bool:
    return any(type(value) is type(known) and value == known for known in allowed)


def scale_of(config: Mapping[str, Any]) -> tuple[float, int]:
    """Return LoRA's factor and the rank: alpha / r, or alpha / sqrt(r) for rsLoRA.

    Raises:
        UserError: a number is missing or no finite number.
    """
    rank, alpha, rslora = config.get("r"), config.get("lora_alpha"), config.get("use_rslora", False)
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool) and math.isfinite(alpha)
    if type(rank) is not int or rank < 1 or not number:
        raise UserError("an adapter config has numbers r and lora_alpha", given=f"{rank!r}, {alpha!r}"[:60])
    if rslora not in (True, False, None):
        raise UserError("use_rslora is true or false", given=str(rslora)[:40])
    return float(config["lora_alpha"]) / (math.sqrt(rank) if rslora else rank), rank


def check_targets(config: Mapping[str, Any], layers: Sequence[int], n_layers: int | None) -> None:
    """Refuse weights that peft would ignore, and blocks that it would leave at random weights.

    Args:
        config: of the adapter.
        layers: blocks with weights.
        n_layers: blocks of the model, where known.

    Raises:
        UserError: the settings select other modules than those with weights.
    """
    for layer in layers:
        if not _selects(config, f"model.layers.{layer}.mlp.down_proj"):
            what = "the settings of this adapter do not select a module that it has weights for"
            raise UserError(what, given=f"layers.{layer}.mlp.down_proj", works="peft would leave it off")
    if config.get("init_lora_weights", True) is False:
        depth = n_layers or max(layers) + 1
        wanted = [layer for layer in range(depth) if _selects(config, f"model.layers.{layer}.mlp.down_proj")]
        lacking = sorted(set(wanted) - set(layers))
        others = [name for name in _OTHERS if _selects(config, f"model.layers.{layers[0]}.{name}")]
        if lacking or others:
            missing = f"layer {lacking[0]}" if lacking else others[0]
            raise UserError("this adapter lacks weights, and peft would draw them at random", given=missing)


def _selects(config: Mapping[str, Any], module: str) -> bool:
    """Whether peft puts an adapter on a module: its `check_target_module_exists`."""
    excluded, targets = config.get("exclude_modules"), config.get("target_modules")
    if excluded and _matches(excluded, module):
        return False
    if targets == "all-linear":
        return True
    if not targets or not _matches(targets, module):
        return False
    layers = config.get("layers_to_transform")
    named = isinstance(targets, str) or module in targets  # then peft does not look at layers_to_transform
    return named or layers in (None, []) or _layer(config.get("layers_pattern"), module) in _listed(layers)


def _matches(names: Any, module: str) -> bool:
    if isinstance(names, str):
        return _pattern(names, re.fullmatch, module) is not None
    known = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return any(module == name or module.endswith(f".{name}") for name in known)


def _layer(pattern: Any, module: str) -> int | None:
    patterns = [r"[^.]*"] if not pattern else [pattern] if isinstance(pattern, str) else [str(part) for part in pattern]
    for part in patterns:
        match = _pattern(rf"(?:^|.*?\.){part}\.(?P<idx>\d+)\.", re.match, module)
        if match is not None:
            return int(match["idx"])
    return None


def _pattern(text: str, match: Callable[[str, str], re.Match[str] | None], module: str) -> re.Match[str] | None:
    if len(text) > 1000:
        raise UserError("a pattern of this adapter config is too long", given=f"{text[:40]}...")
    try:
        return match(text, module)
    except re.error as error:
        raise UserError("a pattern of this adapter config cannot be read", given=text[:60]) from error


def _listed(layers: Any) -> list[int]:
    return [layers] if type(layers) is int else [layer for layer in layers if type(layer) is int]
