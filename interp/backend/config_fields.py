"""Fields of a model config that nobody here reads: refused where their name speaks of a computation.

transformers keeps a field that its class does not declare and computes without it. Such a field can be a note of the
tool that wrote the file, or a setting of a relative of the architecture that changes each number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from interp.errors import UserError

ROPE_KEYS = re.compile(
    "rope_type|type|rope_theta|factor|partial_rotary_factor|attention_factor|low_freq_factor|high_freq_factor"
    "|original_max_position_embeddings|beta_fast|beta_slow|mscale|mscale_all_dim|truncate|short_factor|long_factor"
)
"""Keys of `rope_parameters` that transformers knows; each kind of scaling uses some and ignores the others."""

IRRELEVANT = frozenset(
    {
        "attn_implementation",  # which kernel computes the same attention
        "cache_implementation",  # how generation stores keys and values
        "cross_attention_hidden_size",  # cross-attention itself is refused
        "experts_implementation",
        "gradient_checkpointing",
        "layer_types",  # compared by the family, whether declared or not
        "max_window_layers",  # without a window it selects nothing
        "original_max_position_embeddings",  # transformers moves it into rope_parameters
        "per_layer_config",  # refused if it is in use
        "quantization_config",  # refused before, except for dequantised GGUF files
        "rope_parameters",
        "rope_scaling",
        "tie_last_hidden_states",  # what is handed out as hidden states
        "use_cache",
    }
)
"""Fields that change no number, or that are checked elsewhere."""

READ = {
    "gemma2": {"hidden_act"},  # `hidden_activation` counts, and published configs have both
    "gemma3_text": {"hidden_act", "sliding_window_pattern"},
    "qwen2": {"head_dim"},
}
"""Fields that transformers or its class of the config uses, or overrules, without a declaration."""

COMPUTATION = re.compile(
    "act|activations?|alibi|altup|attention|attn|bias|biases|bidirectional|cap|capping|chunk|clip|conv|dims?|dual|embd"
    "|embeddings?|eps|epsilon|experts?|factor|ffn|freq|gate|gated|heads?|hidden|interleaved|kv|laurel|layers?|layernorm"
    "|limit|linear|logits?|mamba|mixture|mla|mlp|moe|mrope|multiplier|norm|normalization|normalize|parallel|pct"
    "|positions?|positional|pruned|qk|qkv|query|residual|rms|rope|rotary|routers?|scale|scaled|scaling|shared|sinks?"
    "|skip|size|sliding|softcap|softcapping|sparse|ssm|swiglu|temperature|theta|types?|windows?"
)
"""Words of a name that speak of a computation."""


def check_fields(config: Any, architecture: str) -> None:
    """Refuse a config with settings that neither transformers nor the conversion uses, though their names say more.

    Values that switch nothing on (null, false, 0, empty) pass, and so do fields for people and tools.

    Raises:
        UserError: there is such a field, or blocks differ in their settings.
    """
    if getattr(config, "is_heterogeneous", False):
        raise UserError("settings that differ between blocks are not supported", given="per_layer_config")
    declared = set(type(config)().to_dict()) | set(config.attribute_map)
    allowed = declared | IRRELEVANT | READ.get(config.model_type, set())
    for name, value in config.to_dict().items():
        if name in allowed or name.startswith("_") or not value or not _computes(name):
            continue
        raise UserError(
            f"this config has a setting that {architecture} does not have",
            given=f"{name}: {value}"[:80],
            works="if it is only a note, remove it from config.json",
        )


def check_rope(parameters: Mapping[str, Any]) -> None:
    """Refuse settings of the rotary embedding that transformers would ignore, and a base that is no number.

    Raises:
        UserError: there is one.
    """
    unknown = sorted(key for key, value in parameters.items() if not ROPE_KEYS.fullmatch(key) and value is not None)
    if unknown:
        raise UserError("this setting of rotary embeddings is not supported", given=unknown[0])
    base = parameters.get("rope_theta")
    if not isinstance(base, int | float) or base <= 0:
        raise UserError("the base of rotary embeddings is a positive number", given=f"rope_theta: {base}")


def check_heads(query: int, key_value: int) -> None:
    """Refuse numbers of heads that do not divide.

    Raises:
        UserError: the query heads cannot share the key and value heads evenly.
    """
    if key_value < 1 or query % key_value:
        raise UserError("the query heads cannot share the key and value heads evenly", given=f"{query}, {key_value}")


def soft_cap(value: float | None) -> float:
    """Return TransformerLens' soft cap, -1 for none.

    Raises:
        UserError: it is 0 or below: TransformerLens takes that for none, transformers divides by it.
    """
    if value is not None and value <= 0:
        raise UserError("a soft cap is a positive number, or null", given=value)
    return -1.0 if value is None else float(value)


def _computes(name: str) -> bool:
    words = name.lower().replace(".", "_").split("_")
    return any(map(COMPUTATION.fullmatch, words)) and not {"dropout", "pdrop"} & set(words)
