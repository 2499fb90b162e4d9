"""A baked checkpoint is steered by transformers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from interp.errors import UserError
from interp.load import load_model
from tests.interp import tiny
from vectors import AdaptiveVectors, Card, SteeringVectors, load_vectors
from vectors.bake import bake
from vectors.low_rank import LowRankAdapters

IDS = torch.randint(4, tiny.VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))


def change_config(folder: Path, out: Path, **changes: Any) -> Path:
    """A copy of a model's folder with other fields in its config; None removes one."""
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).symlink_to(file) if "tokenizer" in file.name else (out / file.name).write_bytes(
            file.read_bytes()
        )
    fields = json.loads((out / "config.json").read_text()) | changes
    kept = {name: value for name, value in fields.items() if value is not None}
    (out / "config.json").write_text(json.dumps(kept))
    return out


@pytest.fixture(params=["llama", "qwen2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    model = tiny.model(request.param)
    model.config.use_sliding_window = False
    if request.param == "qwen2":
        model.config.layer_types = ["full_attention"] * 3
    model.save_pretrained(tmp_path / "model", max_shard_size="60KB")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def steering(n: int = 3, site: str = "resid_post") -> SteeringVectors:
    rows = torch.randn(n, 48, generator=torch.Generator().manual_seed(1))
    return SteeringVectors(rows, tuple(range(n)), Card.model_validate({"d_model": 48, "n_layers": 3, "site": site}))


def adapter() -> AdaptiveVectors:
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(1, 80, generator=generator), torch.randn(1, 48, generator=generator)
    card = Card(kind="rank1", site="mlp_out", d_model=48, n_layers=3)
    return AdaptiveVectors(a, b, (0.5,), (1,), card)


def logits(path: Path) -> torch.Tensor:
    """In float64: these tiny models amplify the rounding of float32."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    with torch.no_grad():
        return model(IDS).logits.log_softmax(-1)


@pytest.mark.parametrize("vectors", [steering(), steering(2, "mlp_out"), adapter()], ids=["all", "two", "rank1"])
def test_logits_are_those_of_the_steered_model(
    folder: Path, tmp_path: Path, vectors: SteeringVectors | AdaptiveVectors
) -> None:
    baked = logits(bake(vectors, folder, tmp_path / "baked"))
    steered = load_model(folder, dtype="float64").run(IDS, vectors.edits()).log_probs()
    assert (baked - steered).abs().max() < 1e-5
    assert (baked - logits(folder)).abs().max() > 1e-2


@pytest.mark.parametrize("folder", ["qwen2"], indirect=True)  # the tiny llama has biases of its own
def test_vectors_are_read_back(folder: Path, tmp_path: Path) -> None:
    back = load_vectors(bake(steering(), folder, tmp_path / "baked"), trained="together")
    assert isinstance(back, SteeringVectors)
    assert torch.equal(back.directions, steering().directions)


def test_what_cannot_be_baked(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only a vector after the MLP"):
        bake(steering(site="ln2_out"), folder, tmp_path / "x")
    with pytest.raises(UserError, match="this folder exists"):
        bake(steering(), folder, folder)
    apart = SteeringVectors(steering().directions, (0, 1, 2), Card(d_model=48, n_layers=3, trained="apart"))
    with pytest.raises(UserError, match="trained apart"):
        bake(apart, folder, tmp_path / "x")
    other = SteeringVectors(steering().directions, (0, 1, 2), Card(d_model=48, n_layers=3, fingerprint="0" * 16))
    with pytest.raises(UserError, match="made for other weights"):
        bake(other, folder, tmp_path / "x")
    gemma = tmp_path / "gemma"
    tiny.model("gemma2").save_pretrained(gemma)
    with pytest.raises(UserError, match="no bias at the end of its MLP"):
        bake(steering(), gemma, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("folder", ["qwen2"], indirect=True)
def test_defaults_of_the_source_are_written_out(folder: Path, tmp_path: Path) -> None:
    """Qwen2 has no end token by default, Llama has token 2; a source of transformers 4 has its base elsewhere."""
    left_out = dict.fromkeys(("rope_parameters", "eos_token_id", "bos_token_id", "rms_norm_eps", "layer_types"))
    source = change_config(folder, tmp_path / "old", rope_theta=123.0, use_sliding_window=False, **left_out)
    out = bake(steering(), source, tmp_path / "baked")
    steered = load_model(source, dtype="float64").run(IDS, steering().edits()).log_probs()
    assert (logits(out) - steered).abs().max() < 1e-5
    assert (logits(folder) - logits(source)).abs().max() > 1e-2
    fields = json.loads((out / "config.json").read_text())
    assert fields["rope_theta"] == fields["rope_parameters"]["rope_theta"] == 123.0
    assert (fields["eos_token_id"], fields["bos_token_id"]) == (None, None)
    assert not {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"} & set(fields)


def test_tokenizer_and_sizes_are_those_of_the_source(folder: Path, tmp_path: Path) -> None:
    out = bake(steering(), folder, tmp_path / "baked")
    ours, theirs = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(folder)
    assert json.loads((out / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert ours.encode("a <|im_end|>\n b") == theirs.encode("a <|im_end|>\n b")
    assert ours.chat_template == theirs.chat_template
    index = json.loads((out / "model.safetensors.index.json").read_text())
    tensors = {name: value for shard in out.glob("*.safetensors") for name, value in load_file(shard).items()}
    assert set(index["weight_map"]) == set(tensors)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in tensors.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised"),
        ({"residual_multiplier": 0.5}, "residual_multiplier"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10.0, "factor": 2.0}}, "dynamic"),
        ({"use_sliding_window": True, "sliding_window": 5, "layer_types": ["sliding_attention"] * 3}, "sliding"),
    ],
)
@pytest.mark.parametrize("folder", ["qwen2"], indirect=True)
def test_settings_that_llama_cannot_compute_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        bake(steering(), change_config(folder, tmp_path / "changed", **changes), tmp_path / "x")


def test_a_bias_that_its_own_config_ignores_is_refused(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model", "qwen2")
    folder = change_config(folder, tmp_path / "plain", use_sliding_window=False, layer_types=["full_attention"] * 3)
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.layers.1.mlp.down_proj.bias", "model.layers.1.self_attn.o_proj.bias"):
        save_file(tensors | {name: torch.ones(48)}, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match=name):
            bake(steering(), folder, tmp_path / "x")
    lacking = {name: value for name, value in tensors.items() if name != "model.layers.1.mlp.down_proj.weight"}
    save_file(lacking, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"no mlp.down_proj.weight at this layer"):
        bake(steering(), folder, tmp_path / "x")


def test_rounding_is_said_with_its_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    half = tiny.folder(tmp_path / "half", "llama", dtype=torch.bfloat16)
    out = bake(steering(), half, tmp_path / "baked")
    before, after = load_file(half / "model.safetensors"), load_file(out / "model.safetensors")
    errors: list[float] = []
    for layer, row in zip(steering().layers, steering().directions, strict=True):
        name = f"model.layers.{layer}.mlp.down_proj.bias"
        assert after[name].dtype == torch.bfloat16
        errors.append(float((after[name].double() - before[name].double() - row).norm() / row.norm()))
    assert f"by up to {100 * max(errors):.2g} %" in caplog.text
    assert 1e-4 < max(errors) < 1e-2
    caplog.clear()
    bake(steering(), tiny.folder(tmp_path / "full", "llama"), tmp_path / "exact")
    assert "rounds" not in caplog.text


def test_lora_of_a_higher_rank_is_refused(folder: Path, tmp_path: Path) -> None:
    card = Card(kind="lora", site="mlp_out", d_model=48, n_layers=3)
    lora: Any = LowRankAdapters(torch.ones(1, 2, 80), torch.ones(1, 2, 48), (1,), card)
    with pytest.raises(UserError, match="merge LoRA"):
        bake(lora, folder, tmp_path / "x")
