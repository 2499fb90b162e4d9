"""Each field of a config counts as in transformers, in whichever spelling, or the load is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from interp.backend.config_fields import check_fields
from interp.backend.families import FAMILIES
from interp.backend.load import load_hooked
from interp.backend.portable import portable_config
from interp.errors import UserError
from tests.interp import tiny

ABSENT = "(absent)"
SLIDING, FULL = "sliding_attention", "full_attention"
NESTED: dict[str, Any] = {FULL: {"rope_type": "default", "rope_theta": 50.0}, SLIDING: {"rope_theta": 70.0}}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
ROPE: dict[str, list[Any]] = {
    "rope_theta": [50.0, ABSENT, None],
    "rope_local_base_freq": [33.0, ABSENT],
    "rope_scaling": [
        None,
        ABSENT,
        {"type": "linear", "factor": 2.0},
        {"rope_type": "linear", "type": "yarn", "factor": 2.0},
        {"rope_type": "linear", "factor": 2.0, "attention_factor": 3.0},
        {"rope_type": "default", "rope_theta": 77.0},
        {"rope_type": "default", "factor": 9.0},
        {"rope_type": "dynamic", "factor": 2.0},
        YARN,
        {**YARN, "attention_factor": 1.5, "beta_fast": 16, "beta_slow": 2, "truncate": False},
        {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5},
        {**YARN, "factor": None},
        {key: value for key, value in tiny.LLAMA3.items() if key != "rope_theta"},
        {"type": "mrope", "mrope_section": [2, 3, 3]},
        {"rope_type": "default", "mrope_section": [2, 3, 3]},
        {"rope_type": "default", "partial_rotary_factor": 0.5},
    ],
    "rope_parameters": [ABSENT, None, {"rope_theta": 50.0}, {"rope_type": "linear", "factor": 2.0}, NESTED],
    "partial_rotary_factor": [0.5],
    "original_max_position_embeddings": [8],
}
OTHERS: dict[str, list[Any]] = {
    "head_dim": [8, ABSENT, None],
    "num_key_value_heads": [ABSENT, 1],
    "sliding_window": [None, ABSENT, 0, 3],
    "use_sliding_window": [True, False, ABSENT],
    "max_window_layers": [0, 99, ABSENT],
    "layer_types": [ABSENT, [FULL] * 3, [SLIDING] * 3, [FULL, SLIDING, FULL], ["chunked_attention"] * 3],
    "sliding_window_pattern": [2, ABSENT],
    "attention_bias": [True, False, ABSENT],
    "mlp_bias": [True, False, ABSENT],
    "hidden_act": ["gelu", "relu", "gelu_pytorch_tanh", "quick_gelu", ABSENT],
    "hidden_activation": ["silu", "gelu", ABSENT, None],
    "activation_function": ["gelu", "relu", ABSENT],
    "rms_norm_eps": [0.1, ABSENT],
    "layer_norm_epsilon": [0.1, ABSENT],
    "tie_word_embeddings": [True, False, ABSENT],
    "final_logit_softcapping": [2.0, None, ABSENT, 0.0],
    "attn_logit_softcapping": [1.5, None, ABSENT, 0.0],
    "query_pre_attn_scalar": [4, ABSENT],
    "scale_attn_weights": [False, ABSENT],
    "scale_attn_by_inverse_layer_idx": [False, ABSENT],
    "reorder_and_upcast_attn": [True],
    "n_inner": [20, None],
    "max_position_embeddings": [64, ABSENT],
    "use_bidirectional_attention": [True],
    "add_cross_attention": [True],
    "chunk_size_feed_forward": [2],
    "pretraining_tp": [2],
    "per_layer_config": [{"0": {"sliding_window": 2}}],
    "torch_dtype": ["float16"],
    "dtype": [ABSENT],
}
UNKNOWN: dict[str, Any] = {
    "attention_multiplier": 0.5,
    "residual_multiplier": 0.2,
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "logit_scale": 0.1,
    "use_qk_norm": True,
    "qk_layernorm": True,
    "clip_qkv": 8.0,
    "alibi": True,
    "position_embedding_type": "alibi",
    "rotary_pct": 0.25,
    "rotary_dim": 4,
    "mrope_section": [2, 3, 3],
    "use_mrope": True,
    "rope_interleaved": True,
    "no_rope_layers": [1, 0, 1],
    "attn_temperature_tuning": True,
    "attention_chunk_size": 8,
    "dual_chunk_attention_config": {"chunk_size": 8},
    "num_experts": 4,
    "num_local_experts": 4,
    "use_bias": True,
    "qkv_bias": True,
    "attention_out_bias": True,
    "use_post_norm": True,
    "normalization": "layernorm",
    "norm_eps": 1e-3,
    "parallel_attn": True,
    "pruned_heads": {"0": [1]},
    "swiglu_limit": 7.0,
    "num_kv_shared_layers": 1,
    "attention_sinks": True,
}
NOTES: dict[str, Any] = {
    "use_mrope": False,
    "rope_interleaved": False,
    "is_llama_config": True,
    "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}},
    "unsloth_version": "2025.1",
    "unsloth_fixed": True,
    "max_sequence_length": 2048,
    "n_ctx": 1024,
    "_attn_implementation_autoset": True,
    "cache_implementation": "hybrid",
    "max_window_layers": 28,
    "hidden_dropout": 0.1,
    "tokenizer_class": "X",
    "task_specific_params": {"text-generation": {"max_length": 50}},
    "my_comment": "kept",
    "num_experts": 0,
}


def fields_of(family: str, style: str) -> dict[str, Any]:
    """A config.json of the tiny model of a family: with both spellings, or with one of them."""
    kind, settings = tiny.CONFIGS[family]
    fields = json.loads(json.dumps(portable_config(kind(**settings)) | {"dtype": "float32", "torch_dtype": "float32"}))
    left_out = {"both": (), "old": ("rope_parameters", "dtype"), "new": ("rope_theta", "rope_scaling", "torch_dtype")}
    return {key: value for key, value in fields.items() if key not in left_out[style]}


def variants(style: str) -> Iterator[tuple[str, Any]]:
    for name, values in (ROPE if style != "both" else ROPE | OTHERS).items():
        for value in values:
            yield name, value


def reference(fields: dict[str, Any]) -> Any:
    """transformers' model for a config.json, with weights that depend on names and shapes alone."""
    config = AutoConfig.for_model(**json.loads(json.dumps(fields)))
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(tiny._scaled(name, draw, centred_norms=fields["model_type"].startswith("gemma")))
            if name.endswith(("gate_proj.bias", "up_proj.bias")):
                parameter.zero_()
    return model.eval().double()


def outcome(model: Any) -> torch.Tensor | None:
    """Our log-probabilities, or None where the load is refused in a line."""
    try:
        hooked = load_hooked(model).hooked
    except UserError as error:
        assert "\n" not in str(error)
        return None
    with torch.no_grad():
        return hooked(tiny.token_ids(1, 24)).log_softmax(-1)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("style", ["both", "old", "new"])
def test_each_field_counts_as_in_transformers_or_is_refused(family: str, style: str) -> None:
    base, ids = fields_of(family, style), tiny.token_ids(1, 24)
    model = reference(base)
    architecture, plain = type(model).__name__, outcome(model)
    assert plain is not None
    compared = changed = 0
    for name, value in variants(style):
        fields = {key: kept for key, kept in base.items() if key != name} | ({} if value == ABSENT else {name: value})
        try:
            check_fields(AutoConfig.for_model(**json.loads(json.dumps(fields))), architecture)
            model = reference(fields)
        except Exception:  # refused here, or by transformers, whose classes each have their own way
            continue
        ours = outcome(model)
        if ours is None:
            continue
        with torch.no_grad():
            theirs = model(ids).logits.log_softmax(-1)
        assert (ours - theirs).abs().max() < 1e-4, (name, value)
        compared += 1
        changed += bool((theirs - plain).abs().max() > 1e-3)
    if family != "gpt2" or style == "both":
        assert compared >= (30 if style == "both" else 8)
        assert changed >= 2


@pytest.mark.parametrize("architecture", FAMILIES)
def test_settings_that_nobody_here_computes_are_refused_and_notes_are_not(architecture: str) -> None:
    family = next(name for name in tiny.FAMILIES if architecture.lower().startswith(name.replace("gpt2", "gpt2lm")))
    base = fields_of(family, "both")
    check_fields(AutoConfig.for_model(**base), architecture)
    for name, value in UNKNOWN.items():
        with pytest.raises(UserError, match=name):
            check_fields(AutoConfig.for_model(**base, **{name: value}), architecture)
    for name, value in NOTES.items():
        check_fields(AutoConfig.for_model(**{**base, name: value}), architecture)


def test_published_configs_are_taken() -> None:
    """Keys and values that published checkpoints have besides their sizes."""
    rope3 = {key: value for key, value in tiny.LLAMA3.items() if key != "rope_theta"}
    common = {"attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True, "transformers_version": "4.44.0"}
    window = {"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 28, "use_mrope": False}
    old: dict[str, dict[str, Any]] = {
        "llama": {"rope_theta": 500000.0, "rope_scaling": rope3, "pretraining_tp": 1, "eos_token_id": [3, 5]},
        "qwen2": {"rope_theta": 10000, **window},
        "qwen3": {"rope_theta": 1000000, **window, "rope_scaling": None, "use_mrope": None},
        "mistral": {"rope_theta": 1000000.0, "sliding_window": None},
        "gemma2": {"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid", "rope_theta": 10000.0},
        "gemma3": {"rope_local_base_freq": 10000, "sliding_window_pattern": 6, "rope_scaling": None},
        "gpt2": {"n_ctx": 1024, "task_specific_params": {"text-generation": {"max_length": 50}}, "embd_pdrop": 0.1},
    }
    for family, extra in old.items():
        base = {key: value for key, value in fields_of(family, "old").items() if key not in ("layer_types", *extra)}
        assert outcome(reference(base | common | extra)) is not None, family


def test_stop_tokens_are_those_of_each_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers stops at those of the generation config; ours adds the others, as its documentation says."""
    model = tiny.model("llama", config={"eos_token_id": 7, "bos_token_id": 9})
    for theirs, stops in ((3, (3, 7)), ([3, 4], (3, 4, 7)), (None, (7,))):
        model.generation_config.eos_token_id = theirs
        assert load_hooked(model).stop_ids == stops
        assert load_hooked(model, tokenizer=tiny.tokenizer()).stop_ids == tuple(sorted({*stops, 2}))
