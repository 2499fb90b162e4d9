"""A HookedTransformer computes what Hugging Face's model computes, for every family and feature."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
)

from interp.backend import load
from interp.backend.embedded import resolve_alias
from interp.backend.families import FAMILIES, hooked_weights
from interp.backend.lineage import lineage
from interp.backend.load import load_hooked
from interp.errors import UserError
from tests.interp import tiny

LLAMA_DEFAULT = {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}
GEMMA3_UNSCALED = {"full_attention": {"rope_type": "default", "rope_theta": 5000.0}}
SAME_BASE = {"sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}
WIDE: dict[str, Any] = {"sliding_window": 500}
FEATURES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama qkvo bias": ("llama", {}, r"[qkvo]_proj\.bias"),
    "llama down bias": ("llama", {}, r"down_proj\.bias"),
    "llama rope scaling": ("llama", LLAMA_DEFAULT, ""),
    "qwen2 qkv bias": ("qwen2", {}, r"[qkv]_proj\.bias"),
    "qwen2 window": ("qwen2", WIDE, ""),
    "qwen3 qkvo bias": ("qwen3", {}, r"[qkvo]_proj\.bias"),
    "qwen3 qk norm": ("qwen3", {}, r"[qk]_norm"),
    "qwen3 yarn": ("qwen3", LLAMA_DEFAULT, ""),
    "qwen3 window": ("qwen3", WIDE, ""),
    "mistral window": ("mistral", WIDE, ""),
    "gemma2 bias": ("gemma2", {}, r"[qkvo]_proj\.bias"),
    "gemma2 window": ("gemma2", WIDE, ""),
    "gemma2 score cap": ("gemma2", {"attn_logit_softcapping": None}, ""),
    "gemma2 logit cap": ("gemma2", {"final_logit_softcapping": None}, ""),
    "gemma2 attention scale": ("gemma2", {"query_pre_attn_scalar": 16}, ""),
    "gemma2 norms": ("gemma2", {}, "norm"),
    "gemma3 qk norm": ("gemma3", {}, r"[qk]_norm"),
    "gemma3 window": ("gemma3", WIDE, ""),
    "gemma3 logit cap": ("gemma3", {"final_logit_softcapping": None}, ""),
    "gemma3 rope scaling": ("gemma3", {"rope_parameters": tiny.GEMMA3_ROPE | GEMMA3_UNSCALED}, ""),
    "gemma3 local base": ("gemma3", {"rope_parameters": tiny.GEMMA3_ROPE | SAME_BASE}, ""),
    "gemma3 bias": ("gemma3", {}, r"[qkvo]_proj\.bias"),
    "gpt2 layer scale": ("gpt2", {"scale_attn_by_inverse_layer_idx": False}, ""),
    "gpt2 bias": ("gpt2", {}, "bias"),
}


def log_probs(model: Any, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Of Hugging Face's model; positions count from the first real token."""
    places = None if mask is None else (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        return model(ids, attention_mask=mask, position_ids=places).logits.log_softmax(-1)


@pytest.fixture(scope="module")
def loaded() -> dict[str, tuple[PreTrainedModel, load.Loaded]]:
    """Each family, in both libraries."""
    models = {family: tiny.model(family) for family in tiny.FAMILIES}
    return {family: (model, load_hooked(model, tokenizer=tiny.tokenizer())) for family, model in models.items()}


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("padding", [0, 7])
def test_log_probabilities_equal_those_of_hugging_face(loaded: Any, family: str, padding: int) -> None:
    model, ours = loaded[family]
    ids, mask = tiny.token_ids(), torch.ones(2, tiny.LENGTH, dtype=torch.long)
    ids[0, :padding], mask[0, :padding] = 0, 0
    expected = log_probs(model, ids, mask)
    with torch.no_grad():
        found = ours.hooked(ids, attention_mask=mask).log_softmax(-1)
    assert (found - expected)[mask.bool()].abs().max() < 1e-4


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_that_parity_covers_changes_the_output(loaded: Any, feature: str) -> None:
    family, config, zero = FEATURES[feature]
    ids = tiny.token_ids()
    without = log_probs(tiny.model(family, config=config, zero=zero), ids)
    assert (without - log_probs(loaded[family][0], ids)).abs().max() > 1e-2


@pytest.mark.parametrize("feature", FEATURES)
def test_parity_holds_with_a_feature_switched_off(feature: str) -> None:
    family, config, zero = FEATURES[feature]
    model, ids = tiny.model(family, config=config, zero=zero), tiny.token_ids()
    with torch.no_grad():
        found = load_hooked(model).hooked(ids).log_softmax(-1)
    assert (found - log_probs(model, ids)).abs().max() < 1e-4


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_folder_loads_bit_identically_to_its_object(loaded: Any, tmp_path: Path, family: str) -> None:
    again = load_hooked(tiny.folder(tmp_path / "mine", family))
    ids = tiny.token_ids()
    assert torch.equal(again.hooked(ids), loaded[family][1].hooked(ids))
    assert (again.name, again.stop_ids) == ("mine", (2,))
    assert again.architecture == type(loaded[family][0]).__name__
    assert again.tokenizer is not None
    assert again.hooked.to_tokens("a b").tolist() == [again.tokenizer.encode("a b")]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_bfloat16_stays_bfloat16_and_close(tmp_path: Path, family: str) -> None:
    folder = tiny.folder(tmp_path / "half", family, dtype=torch.bfloat16)
    half, full = load_hooked(folder), load_hooked(folder, dtype="float32")
    assert {value.dtype for value in half.hooked.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in full.hooked.parameters()} == {torch.float32}
    ids = tiny.token_ids()
    gap = half.hooked(ids).float().log_softmax(-1) - full.hooked(ids).log_softmax(-1)
    assert gap.abs().mean() < 0.1
    assert half.lineage == full.lineage == lineage(half.hooked)


def test_lineages_tell_base_models_apart(loaded: Any) -> None:
    prints = {ours.lineage for _, ours in loaded.values()}
    other = load_hooked(tiny.model("llama", seed=1)).lineage
    assert len(prints | {other}) == len(tiny.FAMILIES) + 1
    nudged: Any = tiny.model("llama")
    with torch.no_grad():
        nudged.lm_head.weight.add_(1.0)
    assert load_hooked(nudged).lineage == loaded["llama"][1].lineage


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_no_weight_shares_memory_and_the_callers_model_stays_trainable(
    loaded: Any, tmp_path: Path, family: str
) -> None:
    model, ours = loaded[family]
    held = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    assert not held & {one.untyped_storage().data_ptr() for one in ours.hooked.parameters()}
    assert all(parameter.requires_grad for parameter in model.parameters())
    for one in (ours, load_hooked(tiny.folder(tmp_path / "mine", family))):
        places = [value.data_ptr() for value in one.hooked.parameters()]
        assert len(set(places)) == len(places)
        assert not any(parameter.requires_grad for parameter in one.hooked.parameters())


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_processing_a_loaded_model_in_place_keeps_its_numbers(tmp_path: Path, family: str) -> None:
    ours, ids = load_hooked(tiny.folder(tmp_path / "mine", family)), tiny.token_ids()
    with torch.no_grad():
        before, table = ours.hooked(ids).log_softmax(-1), ours.hooked.embed.W_E.clone()
        ours.hooked.unembed.W_U.sub_(ours.hooked.unembed.W_U.mean(-1, keepdim=True))
        assert torch.equal(ours.hooked.embed.W_E, table)
        ours.hooked.process_weights_(fold_ln=True, center_writing_weights=False, center_unembed=True)
        assert (ours.hooked(ids).log_softmax(-1) - before).abs().max() < 1e-3


def test_context_length_is_the_models_own_and_reaches_beyond_the_first_tables() -> None:
    model = tiny.model("llama", config={"max_position_embeddings": 131072, "num_hidden_layers": 1})
    ours, ids = load_hooked(model), tiny.token_ids(1, 2100)
    assert ours.hooked.cfg.n_ctx == 131072
    with torch.no_grad():
        assert (ours.hooked(ids).log_softmax(-1) - log_probs(model, ids)).abs().max() < 1e-3


def test_stop_ids_come_from_generation_config_tokenizer_and_template() -> None:
    model = tiny.model("llama", config={"eos_token_id": [3, 7]})
    assert load_hooked(model).stop_ids == (3, 7)
    assert load_hooked(model, tokenizer=tiny.tokenizer()).stop_ids == (2, 3, 7)
    model.generation_config.eos_token_id = [{"id": 3}]
    with pytest.raises(UserError, match="eos_token_id is a token number"):
        load_hooked(model)


def test_other_architectures_are_refused_by_name() -> None:
    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
    neox = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, num_attention_heads=2))
    phi = PhiForCausalLM(PhiConfig(**sizes, num_attention_heads=2))
    for model in (neox, phi):
        with pytest.raises(UserError, match=f"{type(model).__name__}.*LlamaForCausalLM.*GPT2LMHeadModel"):
            load_hooked(model)
    with pytest.raises(UserError, match="Linear"):
        load_hooked(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("llama", {"hidden_act": "mish"}, "activation"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10.0, "factor": 2.0}}, "dynamic"),
        ("mistral", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10.0, "factor": 2.0}}, "linear"),
        ("gpt2", {"add_cross_attention": True}, "causal"),
    ],
)
def test_settings_that_cannot_be_carried_are_refused(family: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_hooked(tiny.model(family, config=config))


def test_weights_that_cannot_be_carried_are_refused() -> None:
    gated: Any = tiny.model("llama")
    with torch.no_grad():
        gated.model.layers[1].mlp.up_proj.bias[3] = 0.5
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.bias"):
        load_hooked(gated)
    adapted: Any = tiny.model("qwen2")
    adapted.model.layers[0].mlp.down_proj.register_parameter("lora_A", torch.nn.Parameter(torch.ones(2)))
    with pytest.raises(UserError, match="lora_A"):
        load_hooked(adapted)


def test_a_bias_put_into_down_proj_is_kept() -> None:
    model: Any = tiny.model("gemma2")
    ids, before = tiny.token_ids(), log_probs(model, tiny.token_ids())
    model.model.layers[1].mlp.down_proj.bias = torch.nn.Parameter(torch.linspace(-1, 1, 48))
    expected = log_probs(model, ids)
    assert (expected - before).abs().max() > 1e-2
    assert (load_hooked(model).hooked(ids).log_softmax(-1) - expected).abs().max() < 1e-4


def test_missing_and_unexpected_weights_are_errors(tmp_path: Path) -> None:
    model = tiny.model("llama")
    hooked = load_hooked(model).hooked
    weights = hooked_weights(model, hooked.cfg)
    for change in ({"blocks.0.mlp.W_in": None}, {"blocks.0.mlp.W_extra": torch.ones(1)}, {"ln_final.w": torch.ones(3)}):
        changed = {key: value for key, value in (weights | change).items() if value is not None}
        with pytest.raises(UserError, match=next(iter(change))):
            load._fill(load._construct(hooked.cfg), changed)
    folder = tiny.folder(tmp_path / "whole", "llama")
    tensors = load_file(folder / "model.safetensors")
    for name, value in {"model.norm.weight": None, "model.layers.0.extra.weight": torch.ones(1)}.items():
        changed = {key: one for key, one in (tensors | {name: value}).items() if one is not None}
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match=name):
            load_hooked(folder)


def test_a_qwen2_checkpoint_with_steering_biases_is_not_loaded_without_them(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "steered", "qwen2")
    tensors = load_file(folder / "model.safetensors")
    bias = {"model.layers.1.mlp.down_proj.bias": torch.ones(48)}
    save_file(tensors | bias, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.down_proj\.bias.*load_vectors"):
        load_hooked(folder)


def test_sources_that_do_not_exist_say_what_would_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="smollm2-135m-instruct"):
        load_hooked("smollm3")
    with pytest.raises(UserError, match=r"config\.json"):
        load_hooked(tmp_path)
    with pytest.raises(UserError, match="no such dtype"):
        load_hooked(tiny.model("llama"), dtype="int8")
    with pytest.raises(UserError, match="the hub did not give"):
        load_hooked("nobody/nothing")
    folder = tiny.folder(tmp_path / "mute", "llama")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        load_hooked(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"]}))
    with pytest.raises(UserError, match="GPTNeoXForCausalLM"):
        load_hooked(folder, tokenizer=tiny.tokenizer())


def test_aliases() -> None:
    assert resolve_alias("qwen2.5-math-7b") == "Qwen/Qwen2.5-Math-7B"
    assert resolve_alias("Llama-3.1-8B-Instruct") == "meta-llama/Llama-3.1-8B-Instruct"
    assert resolve_alias("some/other") == "some/other"


def test_only_one_warning_is_silenced_and_only_there() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        hooked = load_hooked(tiny.model("gpt2")).hooked
        type(hooked)(hooked.cfg, move_to_device=False)
    assert [str(one.message)[:31] for one in seen] == ["HookedTransformer is deprecated"]


def test_every_supported_architecture_is_tested(loaded: Any) -> None:
    assert {ours.architecture for _, ours in loaded.values()} == set(FAMILIES)
