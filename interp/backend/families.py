"""What HookedTransformer needs to know about each family of Hugging Face models: its config and its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import (
    convert_gemma_weights,
    convert_gpt2_weights,
    convert_llama_weights,
    convert_mistral_weights,
    convert_qwen2_weights,
    convert_qwen3_weights,
)
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS
from transformers import PretrainedConfig, PreTrainedModel

from interp.backend.config_fields import check_fields, check_heads, check_rope, soft_cap
from interp.errors import UserError

ROTARY_KEYS = (
    r"model\.embed_tokens\.weight|model\.norm\.weight|lm_head\.weight"
    r"|model\.layers\.\d+\.(input_layernorm\.weight|post_attention_layernorm\.weight"
    r"|self_attn\.[qkvo]_proj\.(weight|bias)|mlp\.(gate|up|down)_proj\.(weight|bias){extra})"
)
QK_NORM_KEYS = r"|self_attn\.[qk]_norm\.weight"
GEMMA_KEYS = r"|(pre|post)_feedforward_layernorm\.weight"
GPT2_KEYS = (
    r"transformer\.(wte|wpe|ln_f)\.(weight|bias)|lm_head\.weight"
    r"|transformer\.h\.\d+\.(ln_1|ln_2|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.(weight|bias)"
)


@dataclass(frozen=True)
class Family:
    """How one architecture becomes a HookedTransformer.

    Attributes:
        settings: config fields beyond those that all families share.
        convert: TransformerLens' converter of the weights.
        keys: pattern of the parameter names that the conversion carries.
    """

    settings: Callable[[PretrainedConfig], dict[str, Any]]
    convert: Callable[..., dict[str, Tensor]]
    keys: str


def family_of(architecture: str) -> Family:
    """The family of an architecture, by its class name.

    Raises:
        UserError: TransformerLens' HookedTransformer cannot hold this architecture, or nobody checked that it does.
    """
    if architecture not in FAMILIES:
        raise UserError(
            "this architecture is not supported", given=architecture, works=f"use one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[architecture]


def hooked_config(
    config: PretrainedConfig, architecture: str, *, name: str, dtype: torch.dtype, device: str
) -> HookedTransformerConfig:
    """Build the config of the HookedTransformer that computes what the Hugging Face model computes.

    `n_ctx` is the model's own context length, uncapped: masks are made per forward pass and rotary tables
    grow with use, so a long context costs no memory until it is used (TransformerLens 3.9).

    Raises:
        UserError: the config asks for something that HookedTransformer cannot compute.
    """
    given: Any = config
    if getattr(given, "use_bidirectional_attention", False) or getattr(given, "add_cross_attention", False):
        raise UserError("only causal decoder models are supported", given=architecture)
    check_fields(config, architecture)
    settings: dict[str, Any] = {
        "n_layers": given.num_hidden_layers,
        "d_model": given.hidden_size,
        "n_heads": given.num_attention_heads,
        "n_ctx": given.max_position_embeddings,
        "d_vocab": given.vocab_size,
        "model_name": name,
        "original_architecture": architecture,
        "dtype": dtype,
        "device": device,
        "init_weights": False,
    }
    settings |= family_of(architecture).settings(config)
    if settings["act_fn"] not in SUPPORTED_ACTIVATIONS:
        raise UserError("this activation function is not supported", given=settings["act_fn"])
    return HookedTransformerConfig(**settings)


def hooked_weights(model: PreTrainedModel, cfg: HookedTransformerConfig) -> dict[str, Tensor]:
    """The model's parameters under HookedTransformer's names, sharing memory where no arithmetic is needed.

    Raises:
        UserError: the model has parameters that the conversion would drop.
    """
    family = family_of(cfg.original_architecture or "")
    left = [key for key in model.state_dict() if not re.fullmatch(family.keys, key)]
    if left:
        raise UserError(
            f"{len(left)} parameters have no place in a HookedTransformer",
            given=left[0],
            works="load the plain model (merge adapters first)",
        )
    with torch.no_grad():
        weights = dict(family.convert(model, cfg))
        if cfg.positional_embedding_type == "rotary":
            weights |= _biases(model, cfg)
        weights.setdefault("unembed.b_U", torch.zeros(cfg.d_vocab))
    # Detached, so that freezing the HookedTransformer leaves the caller's model trainable.
    return {key: value.detach().to(cfg.device, cfg.dtype) for key, value in weights.items()}


def _biases(model: PreTrainedModel, cfg: HookedTransformerConfig) -> dict[str, Tensor]:
    """Biases that the rotary families may have; TransformerLens' converters put zeros in their place."""
    found: dict[str, Tensor] = {}
    decoder: Any = model
    for index, layer in enumerate(decoder.model.layers):
        attention, mlp, block = layer.self_attn, layer.mlp, f"blocks.{index}"
        for letter, proj in (("b_Q", attention.q_proj), ("_b_K", attention.k_proj), ("_b_V", attention.v_proj)):
            if proj.bias is not None:
                found[f"{block}.attn.{letter}"] = proj.bias.reshape(-1, cfg.d_head)
        if attention.o_proj.bias is not None:
            found[f"{block}.attn.b_O"] = attention.o_proj.bias
        if mlp.down_proj.bias is not None:
            found[f"{block}.mlp.b_out"] = mlp.down_proj.bias
        for part in ("gate_proj", "up_proj"):
            bias = getattr(mlp, part).bias
            # The gated MLP of TransformerLens adds its one inner bias after the gate: it cannot hold these two.
            if bias is not None and bool(bias.any()):
                raise UserError(
                    "HookedTransformer has no place for biases inside a gated MLP",
                    given=f"model.layers.{index}.mlp.{part}.bias",
                    works="only down_proj may have a non-zero bias",
                )
    return found


def _rotary(config: PretrainedConfig) -> dict[str, Any]:
    """What all families with rotary embeddings and a gated MLP share."""
    given: Any = config
    check_heads(given.num_attention_heads, given.num_key_value_heads)
    d_head = getattr(given, "head_dim", None) or given.hidden_size // given.num_attention_heads
    return {
        "d_head": d_head,
        "rotary_dim": d_head,
        "d_mlp": given.intermediate_size,
        "n_key_value_heads": given.num_key_value_heads,
        "eps": given.rms_norm_eps,
        # Gemma declares `hidden_activation` and ignores a `hidden_act`, which its published configs have too.
        "act_fn": given.hidden_activation if given.model_type.startswith("gemma") else given.hidden_act,
        "normalization_type": "RMS",
        "positional_embedding_type": "rotary",
        "gated_mlp": True,
    }


def _local(config: PretrainedConfig, types: list[str]) -> dict[str, Any]:
    """Sliding-window layers, from Hugging Face's names of layer types."""
    names = {"sliding_attention": "local", "full_attention": "global"}
    unknown = sorted(set(types) - set(names))
    if unknown:
        raise UserError("this type of attention layer is not supported", given=unknown[0])
    if "sliding_attention" not in types:
        return {}
    window = getattr(config, "sliding_window", None)
    if type(window) is not int or window < 1:
        raise UserError("layers with a sliding window need its width", given=f"sliding_window: {window}")
    return {"use_local_attn": True, "window_size": window, "attn_types": [names[kind] for kind in types]}


def _rope(parameters: Mapping[str, Any], *, all_global: bool, n_ctx: int) -> dict[str, Any]:
    """Base and scaling of the rotary embedding, from `config.rope_parameters`.

    Raises:
        UserError: a scaling that TransformerLens lacks, or has for global layers only.
    """
    check_rope(parameters)
    kind = parameters.get("rope_type") or "default"
    fields: dict[str, Any] = {"rotary_base": parameters["rope_theta"]}
    if parameters.get("partial_rotary_factor", 1.0) != 1.0 or (kind == "linear" and not all_global):
        raise UserError("this rotary embedding is not supported", given=dict(parameters))
    if kind == "linear":
        fields["rotary_scaling_factor"] = float(parameters["factor"])
    elif kind == "llama3":
        fields |= {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_factor": parameters["factor"],
            "NTK_by_parts_low_freq_factor": parameters["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": parameters["high_freq_factor"],
            "NTK_original_ctx_len": parameters["original_max_position_embeddings"],
        }
    elif kind == "yarn" and not parameters.get("mscale"):
        original = parameters["original_max_position_embeddings"]
        factor = parameters.get("factor") or n_ctx / original
        default = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
        scale = parameters.get("attention_factor")
        fields |= {
            "use_yarn_rope": True,
            "yarn_factor": factor,
            "yarn_attention_factor": default if scale is None else scale,
            "yarn_beta_fast": parameters.get("beta_fast") or 32.0,
            "yarn_beta_slow": parameters.get("beta_slow") or 1.0,
            "yarn_original_max_position_embeddings": original,
            "yarn_truncate": parameters.get("truncate", True),
        }
    elif kind != "default":
        raise UserError("this scaling of rotary embeddings is not supported", given=kind, works="llama3, yarn, linear")
    return fields


def _plain(config: PretrainedConfig) -> dict[str, Any]:
    """Llama, Qwen2, Qwen3 (which name their layer types) and Mistral (one window for all layers)."""
    given: Any = config
    types: Any = getattr(given, "layer_types", None)
    if given.model_type in ("llama", "mistral"):
        windowed = given.model_type == "mistral" and given.sliding_window is not None
        uniform = ["sliding_attention" if windowed else "full_attention"] * given.num_hidden_layers
        if types not in (None, uniform):
            raise UserError(f"{given.model_type} has one type of attention layer", given=f"layer_types: {types}"[:80])
        types = uniform
    local = _local(config, types)
    rope = _rope(given.rope_parameters, all_global=not local, n_ctx=given.max_position_embeddings)
    return _rotary(config) | local | rope


def _qwen3(config: PretrainedConfig) -> dict[str, Any]:
    return _plain(config) | {"use_qk_norm": True}


def _gemma(config: PretrainedConfig) -> dict[str, Any]:
    given: Any = config
    return (
        _rotary(config)
        | _local(config, given.layer_types)
        | {
            "use_normalization_before_and_after": True,
            "attn_scale": float(given.query_pre_attn_scalar) ** 0.5,
            "output_logits_soft_cap": soft_cap(given.final_logit_softcapping),
        }
    )


def _gemma2(config: PretrainedConfig) -> dict[str, Any]:
    given: Any = config
    fields = _gemma(config)
    rope = _rope(given.rope_parameters, all_global="use_local_attn" not in fields, n_ctx=given.max_position_embeddings)
    return fields | rope | {"attn_scores_soft_cap": soft_cap(given.attn_logit_softcapping)}


def _gemma3(config: PretrainedConfig) -> dict[str, Any]:
    """Gemma-3 has one rotary embedding for local and one for global layers; it does not cap attention scores."""
    given: Any = config
    local, whole = given.rope_parameters["sliding_attention"], given.rope_parameters["full_attention"]
    if (local.get("rope_type") or "default") != "default" or whole.get("rope_type") not in (None, "default", "linear"):
        raise UserError("this rotary embedding is not supported", given=dict(given.rope_parameters))
    rope = _rope(whole, all_global=True, n_ctx=given.max_position_embeddings)
    return _gemma(config) | rope | {"use_qk_norm": True, "rotary_base_local": local["rope_theta"]}


def _gpt2(config: PretrainedConfig) -> dict[str, Any]:
    given: Any = config
    if set(getattr(given, "layer_types", None) or ()) - {"full_attention"}:
        raise UserError("gpt2 has one type of attention layer", given=f"layer_types: {given.layer_types}"[:80])
    return {
        "d_head": given.n_embd // given.n_head,
        "d_mlp": given.n_inner or 4 * given.n_embd,
        "eps": given.layer_norm_epsilon,
        "act_fn": given.activation_function,
        "use_attn_scale": given.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": given.scale_attn_by_inverse_layer_idx,
        "normalization_type": "LN",
    }


_PLAIN_KEYS = ROTARY_KEYS.replace("{extra}", "")
FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family(_plain, convert_llama_weights, _PLAIN_KEYS),
    "Qwen2ForCausalLM": Family(_plain, convert_qwen2_weights, _PLAIN_KEYS),
    "Qwen3ForCausalLM": Family(_qwen3, convert_qwen3_weights, ROTARY_KEYS.replace("{extra}", QK_NORM_KEYS)),
    "MistralForCausalLM": Family(_plain, convert_mistral_weights, _PLAIN_KEYS),
    "Gemma2ForCausalLM": Family(_gemma2, convert_gemma_weights, ROTARY_KEYS.replace("{extra}", GEMMA_KEYS)),
    "Gemma3ForCausalLM": Family(
        _gemma3, convert_gemma_weights, ROTARY_KEYS.replace("{extra}", GEMMA_KEYS + QK_NORM_KEYS)
    ),
    "GPT2LMHeadModel": Family(_gpt2, convert_gpt2_weights, GPT2_KEYS),
}
"""The supported architectures. Blocks that run attention and MLP in parallel have no resid_mid and stay out."""
