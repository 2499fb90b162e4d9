"""Written folders say the same to transformers 4.57 and 5: each field that one of them has renamed stands twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, LlamaConfig

from interp.backend.portable import portable_config, write_config, write_tokenizer
from interp.errors import UserError
from tests.interp import tiny

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 123.0},
    "linear": {"rope_type": "linear", "rope_theta": 77.0, "factor": 3.0},
    "llama3": tiny.LLAMA3,
    "yarn": tiny.YARN,
}


def logits(folder: Path) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    with torch.no_grad():
        return model(tiny.token_ids()).logits


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_both_spellings_are_written_for_each_family(family: str, tmp_path: Path) -> None:
    model: Any = tiny.model(family)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    before = logits(tmp_path)
    write_config(model.config, tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["dtype"] == fields["torch_dtype"] == "bfloat16"
    assert fields["tie_word_embeddings"] is model.config.tie_word_embeddings
    if family != "gpt2":
        whole = model.config.rope_parameters.get("full_attention", model.config.rope_parameters)
        assert fields["rope_theta"] == whole["rope_theta"]
        assert (fields["rope_scaling"] or {"rope_type": "default"}).items() <= whole.items()
        assert (fields["rope_scaling"] is None) == (whole["rope_type"] == "default")
    reread: Any = AutoConfig.from_pretrained(tmp_path)
    assert getattr(reread, "rope_parameters", 0) == getattr(model.config, "rope_parameters", 0)
    assert torch.equal(logits(tmp_path), before)


@pytest.mark.parametrize("kind", ROPES)
def test_each_scaling_has_its_old_name(kind: str) -> None:
    fields = portable_config(LlamaConfig(rope_parameters=dict(ROPES[kind])))
    old = {key: value for key, value in ROPES[kind].items() if key != "rope_theta"}
    assert fields["rope_theta"] == ROPES[kind]["rope_theta"]
    assert fields["rope_scaling"] == (None if kind == "default" else old)
    assert LlamaConfig(**fields).rope_parameters == LlamaConfig(rope_parameters=dict(ROPES[kind])).rope_parameters


def test_gemma3_has_two_bases() -> None:
    fields = portable_config(Gemma3TextConfig(rope_parameters={key: dict(v) for key, v in tiny.GEMMA3_ROPE.items()}))
    assert (fields["rope_theta"], fields["rope_local_base_freq"]) == (5000.0, 50.0)
    assert fields["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    scaled = {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "linear", "factor": 2.0}}
    with pytest.raises(UserError, match=r"4\.57 cannot scale"):
        portable_config(Gemma3TextConfig(rope_parameters=scaled))


def test_a_tokenizer_has_a_class_and_special_tokens_that_both_versions_know(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|extra|>"]})
    write_tokenizer(tokenizer, tmp_path)
    fields = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert fields["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert fields["additional_special_tokens"] == ["<|extra|>"]
    assert not {"extra_special_tokens", "is_local", "backend"} & set(fields)
    reread = AutoTokenizer.from_pretrained(tmp_path)
    assert reread.encode("a <|extra|> b") == tokenizer.encode("a <|extra|> b")
    assert reread.chat_template == tokenizer.chat_template


def test_a_tokenizer_that_would_give_other_ids_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer: Any = tiny.tokenizer()
    encode = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda text: [*encode(text), 1])
    with pytest.raises(UserError, match="cannot be written for other versions"):
        write_tokenizer(tokenizer, tmp_path)
