"""The key of what is recalled covers everything that can change a number; vectors fit by a weaker identity."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace

from interp import Model, Prompt, load_model
from interp.backend import fingerprint as module
from interp.backend.checksums import ROW, checksum
from interp.backend.fingerprint import tokenizer_digest, weights_digest
from interp.completion_cache import Request
from interp.completion_file import asking
from interp.given import describe_model
from interp.store import run_key
from tests.interp import tiny
from tests.interp.test_what_runs import fresh
from vectors import Card, SteeringVectors, check_fit


@cache
def _base() -> Model:
    return load_model(tiny.model("gemma3"), tokenizer=tiny.tokenizer())


def base() -> Model:
    """A model of its own, with its own tokenizer, of the family with the most settings."""
    made = _base()
    return Model(copy.deepcopy(made.hooked), tokenizer=tiny.tokenizer(), stop_ids=made.stop_ids)


def keys(model: Model) -> tuple[str, ...]:
    """Every key that a model enters: of runs, of completions, of files of completions."""
    meta = {"experiment": "e", "version": 1, "settings": {}, "vectors": None, "task": None}
    request = Request((Prompt((5, 6)),), (), 4, 0.0, 1, 0)
    line = asking(model, request)[0]
    run = run_key({**meta, "model": describe_model(model)})
    return run, str(request.folder_keys(model)[0]), f"{line['model']} {line['stop_ids']}"


def test_any_element_of_any_tensor_changes_every_key() -> None:
    model = base()
    before = keys(model)
    for name, value in [*model.hooked.named_parameters(), *model.hooked.named_buffers()]:
        if not value.numel():
            continue
        index = torch.randint(value.numel(), (1,), generator=torch.Generator().manual_seed(len(name)))
        held = value.data.view(-1) if value.is_contiguous() else value.data.permute(*_order(value)).view(-1)
        kept = held[index].clone()
        held[index] = torch.nextafter(kept, kept + 1) if torch.isfinite(kept) else 0.0  # the smallest change there is
        assert weights_digest(model.hooked) != before[2][: module.WEIGHTS], name
        held[index] = kept
    assert keys(model) == before


def _order(value: torch.Tensor) -> list[int]:
    return sorted(range(value.ndim), key=lambda axis: -value.stride(axis))


SETTINGS: dict[str, Any] = {
    "eps": 1e-3, "act_fn": "relu", "use_attn_scale": False, "attn_scale": 4.0, "window_size": 3, "rotary_base": 77.0,
    "rotary_base_local": 78.0, "rotary_scaling_factor": 9.0, "rotary_dim": 8, "attn_scores_soft_cap": 5.0,
    "output_logits_soft_cap": 5.0, "use_qk_norm": False, "normalization_type": "LN", "rotary_adjacent_pairs": True,
    "use_normalization_before_and_after": False, "scale_attn_by_inverse_layer_idx": True, "n_ctx": 99, "d_head": 8,
    "attn_types": ["global"] * 3, "use_local_attn": False, "use_yarn_rope": True, "yarn_factor": 2.0,
    "yarn_truncate": False, "use_NTK_by_parts_rope": True, "NTK_by_parts_factor": 3.0, "n_key_value_heads": 3,
    "positional_embedding_type": "standard", "gated_mlp": False, "parallel_attn_mlp": True, "clip_qkv": 1.0,
    "use_logn_attn": True, "attention_dir": "bidirectional", "post_embedding_ln": True, "dtype": torch.float64,
    "original_architecture": "OlmoForCausalLM", "use_attn_result": True, "n_heads": 3, "attn_only": True,
}  # fmt: skip


def test_any_setting_of_the_forward_pass_changes_every_key() -> None:
    model = base()
    before, cfg = keys(model), model.hooked.cfg
    seen = {before}
    for name, value in SETTINGS.items():
        kept = getattr(cfg, name)
        setattr(cfg, name, value)
        assert kept != value, name
        seen.add(keys(model))
        setattr(cfg, name, kept)
    assert len(seen) == len(SETTINGS) + 1
    for name in ("model_name", "device", "seed", "init_mode", "tokenizer_name", "default_prepend_bos"):
        kept = getattr(cfg, name)
        setattr(cfg, name, "other")
        assert keys(model) == before, name
        setattr(cfg, name, kept)
    attn = model.hooked.blocks[1].attn
    for one, name in ((attn, "attn_scale"), (attn, "layer_id"), (model.hooked.blocks[0].ln1, "eps")):
        setattr(one, name, getattr(one, name) + 1)
        seen.add(keys(model))
    model.hooked.blocks[0].mlp.act_fn = torch.nn.functional.relu
    seen.add(keys(model))
    assert len(seen) == len(SETTINGS) + 5


def test_tokenizer_template_and_end_tokens_change_every_key() -> None:
    def template(model: Model) -> None:
        model.tokenizer.chat_template = model.tokenizer.chat_template.replace("user", "User") + "x"

    def added(model: Model) -> None:
        model.tokenizer.add_tokens(["<new>"])

    def vocabulary(model: Model) -> None:
        inner = model.tokenizer.backend_tokenizer
        names = model.tokenizer.get_vocab()
        names["A"], names["B"] = names["B"], names["A"]
        inner.model = BPE(vocab=names, merges=[])

    def first_token(model: Model) -> None:
        inner = model.tokenizer.backend_tokenizer
        names = {("<|other|>" if index == 0 else name): index for name, index in model.tokenizer.get_vocab().items()}
        inner.model = BPE(vocab=names, merges=[])

    def merges(model: Model) -> None:
        names = {**model.tokenizer.get_vocab(), "AB": tiny.VOCABULARY}
        model.tokenizer.backend_tokenizer.model = BPE(vocab=names, merges=[("A", "B")])

    def splits(model: Model) -> None:
        model.tokenizer.backend_tokenizer.pre_tokenizer = Whitespace()

    def other(model: Model) -> None:
        model.tokenizer = None

    def stops(model: Model) -> None:
        model.stop_ids = (*model.stop_ids, 3)

    changes: list[Callable[[Model], None]] = [template, added, vocabulary, first_token, merges, splits, other, stops]
    seen = {keys(base())}
    for change in changes:
        model = base()
        assert keys(model) in seen
        change(model)
        assert keys(model) not in seen, change.__name__
        seen |= {keys(model)}
    assert len(seen) == len(changes) + 1
    short = tiny.tokenizer()
    short("x", padding="max_length", max_length=4, truncation=True)
    assert tokenizer_digest(short) == tokenizer_digest(tiny.tokenizer())


def test_numerics_and_path_change_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    model = base()
    before = keys(model)
    monkeypatch.setattr(module, "NUMERICS", module.NUMERICS + 1)
    assert not set(before) & set(keys(model))
    monkeypatch.undo()
    monkeypatch.setattr(module, "runs_functionally", lambda hooked, kinds: False)
    assert not set(before) & set(keys(model))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_the_same_files_have_the_same_keys_and_another_dtype_others(tmp_path: Path, family: str) -> None:
    folder = tiny.folder(tmp_path / "a", family)
    first, again = load_model(folder), load_model(folder)
    assert keys(first) == keys(again) == keys(load_model(tiny.folder(tmp_path / "elsewhere", family)))
    again.run(tiny.token_ids(1, 30))
    if family != "gpt2":  # a context beyond the first tables changes no number of a shorter one
        again.hooked.blocks[0].attn._extend_rotary_embeddings(700)
    assert keys(first) == keys(again)
    half = load_model(folder, dtype="bfloat16")
    assert not set(keys(first)) & set(keys(half))
    v = SteeringVectors(torch.ones(1, 48), (1,), Card(d_model=48, lineage=first.lineage, fingerprint=first.fingerprint))
    assert check_fit(v, half) == check_fit(v, first) == "same base"


def test_a_tuned_model_has_another_key_and_takes_the_vectors_of_its_base() -> None:
    model = base()
    before, lineage = keys(model), model.lineage
    model.hooked.blocks[1].mlp.W_out.data[0, 0] += 1e-3
    assert not set(before) & set(keys(model))
    assert model.lineage == lineage


def test_foreign_code_is_never_recalled() -> None:
    model = base()
    handle = model.hooked.blocks[0].register_forward_hook(lambda *given: None)
    assert not set(keys(model)[::2]) & set(keys(model)[::2])
    assert keys(model)[1] == "None"
    handle.remove()
    assert keys(model) == keys(base())


def test_an_older_card_names_its_lineage_fingerprint() -> None:
    older = Card.parse({"d_model": 4, "fingerprint": "516cc1b30b9b5990"}, where="card.json")
    assert (older.lineage, older.fingerprint) == ("516cc1b30b9b5990", "")
    assert Card.parse(older.model_dump(), where="card.json") == older
    newer = Card(d_model=4, lineage="a" * 16, fingerprint="b" * 32)
    assert Card.parse(newer.model_dump(), where="card.json") == newer


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 3 * ROW), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int8]),
    seed=st.integers(0, 2**31), data=st.data(),
)  # fmt: skip
def test_a_checksum_sees_every_change_and_every_exchange(count: int, dtype: torch.dtype, seed: int, data: Any) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(count, generator=generator) * 50).to(dtype)
    before = checksum(values)
    assert before == checksum(values.clone())
    i, j = (data.draw(st.integers(0, count - 1)) for _ in range(2))
    changed = values.clone()
    changed.view(torch.uint8)[i * values.element_size()] ^= 1
    assert checksum(changed) != before
    moved = values.clone()
    moved[i], moved[j] = values[j], values[i]
    assert (checksum(moved) == before) == torch.equal(moved.view(torch.uint8), values.view(torch.uint8))
    rolled = values.roll(1)
    assert (checksum(rolled) == before) == torch.equal(rolled.view(torch.uint8), values.view(torch.uint8))


def test_a_checksum_knows_the_layout_and_not_the_place() -> None:
    values = torch.randn(5, 7, 3)
    assert checksum(values) == checksum(torch.cat([torch.zeros(1, 7, 3), values])[1:])
    assert checksum(values.permute(2, 0, 1).contiguous()) != checksum(values.permute(2, 0, 1))


def test_a_model_that_is_no_module_of_ours_has_a_key() -> None:
    for name in ("bare", "windowed", "loaded"):
        assert Model(fresh(name)).fingerprint == Model(fresh(name)).fingerprint
