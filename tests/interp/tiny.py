"""Tiny random Hugging Face models, one of each family, with every feature of the family switched on.

Defaults of the configs switch most features off, so that a conversion which forgets one would look right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from interp.testing.tiny import CHAT as CHAT
from interp.testing.tiny import SPECIAL, VOCABULARY
from interp.testing.tiny import tokenizer as tokenizer

LENGTH = 40
"""Tokens in a test row: longer than every window and than the context before rope scaling."""

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,  # not 48 / 6
    "max_position_embeddings": 512,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
}
WINDOW: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
GPT2_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 128,
    "n_inner": 70,
    "scale_attn_by_inverse_layer_idx": True,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}

CONFIGS: Mapping[str, tuple[type, dict[str, Any]]] = {
    "llama": (LlamaConfig, {**SHAPE, "attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3}),
    "qwen2": (Qwen2Config, {**SHAPE, **WINDOW, "tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {**SHAPE, **WINDOW, "attention_bias": True, "rope_parameters": YARN}),
    "mistral": (MistralConfig, {**SHAPE, "sliding_window": 5}),
    "gemma2": (
        Gemma2Config,
        {
            **SHAPE,
            "attention_bias": True,
            "sliding_window": 5,
            "query_pre_attn_scalar": 9,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        Gemma3TextConfig,
        {
            **SHAPE,
            "attention_bias": True,
            "sliding_window": 5,
            "layer_types": TYPES,
            "query_pre_attn_scalar": 9,
            "final_logit_softcapping": 3.0,
            "rope_parameters": GEMMA3_ROPE,
        },
    ),
    "gpt2": (GPT2Config, GPT2_SHAPE),
}
FAMILIES = tuple(CONFIGS)


def model(family: str, *, config: Mapping[str, Any] | None = None, zero: str = "", seed: int = 0) -> PreTrainedModel:
    """A random float32 model in evaluation mode; the same seed and shapes give the same weights.

    Args:
        family: one of FAMILIES.
        config: settings to change.
        zero: pattern of parameters to set to zero after the draw.
        seed: of the draw.
    """
    kind, settings = CONFIGS[family]
    made: Any = AutoModelForCausalLM.from_config(kind(**{**settings, **(config or {})}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(_scaled(name, draw, centred_norms=family.startswith("gemma")))
            # A gated MLP of TransformerLens cannot hold these two biases; they are refused unless zero.
            if re.search(r"(gate|up)_proj\.bias", name) or (zero and re.search(zero, name)):
                parameter.zero_()
    return made.eval()


def _scaled(name: str, draw: torch.Tensor, *, centred_norms: bool) -> torch.Tensor:
    if name.endswith("bias"):
        return 0.3 * draw
    if draw.ndim == 1:
        return 0.3 * draw + (0.0 if centred_norms else 1.0)
    return draw * (0.5 if "embed" in name or "wte" in name or "wpe" in name else 1.2 / draw.shape[-1] ** 0.5)


def folder(path: Path, family: str = "qwen2", *, dtype: torch.dtype = torch.float32) -> Path:
    """Save a tiny model and its tokenizer as a Hugging Face folder."""
    made: Any = model(family)
    made.to(dtype).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def token_ids(rows: int = 2, length: int = LENGTH, seed: int = 0) -> torch.Tensor:
    """Random token ids without special ones, [rows, length]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(len(SPECIAL), VOCABULARY, (rows, length), generator=generator)
