"""PEFT adapters of every variant: equal to peft itself, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.errors import UserError
from interp.load import load_model
from interp.model import Model
from tests.interp import tiny
from vectors import SteeringVectors
from vectors.load import load_intervention
from vectors.low_rank import LowRankAdapters

IDS = torch.arange(5, 17)[None]
Changed = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def base(family: str = "llama") -> Any:
    plain = {"mlp_bias": False, "attention_bias": False} if family == "llama" else {}
    return tiny.model(family, config=plain)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(base())


def adapter(folder: Path, family: str = "llama", **settings: Any) -> Path:
    """A trained-looking adapter as peft saves it."""
    from peft import LoraConfig, get_peft_model

    plain: dict[str, Any] = {"task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 6, "target_modules": ["down_proj"]}
    torch.manual_seed(0)
    wrapped = get_peft_model(base(family), LoraConfig(**plain | settings))
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_" in name:
                value.add_(torch.randn_like(value) * 0.3)
    wrapped.save_pretrained(str(folder))
    return folder


def config(folder: Path, **changes: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def weights(folder: Path, change: Changed) -> Path:
    file = folder / "adapter_model.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(file)).items()}, file)
    return folder


def theirs(folder: Path, family: str = "llama") -> Tensor:
    from peft import PeftModel

    wrapped: Any = PeftModel.from_pretrained(base(family), str(folder)).eval()
    with torch.no_grad():
        return wrapped(input_ids=IDS).logits.log_softmax(-1)


def ours(model: Model, folder: Path) -> Tensor:
    return model.run(IDS, load_intervention(folder, model=model).edits()).log_probs()


EQUAL: list[dict[str, Any]] = [
    *(
        {"r": 1},
        {"r": 3},
        {"use_rslora": True},
        {"r": 1, "use_rslora": True},
        {"lora_dropout": 0.5},
        {"ensure_weight_tying": True},
    ),
    *(
        {"layers_to_transform": [0, 2]},
        {"layers_to_transform": 1},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
    ),
    *({"target_modules": r".*\.1\.mlp\.down_proj"}, {"exclude_modules": ["model.layers.1.mlp.down_proj"]}),
    *({"init_lora_weights": "gaussian"}, {"init_lora_weights": False}),
]
REFUSED: list[dict[str, Any]] = [
    *(
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
    ),
    *({"alpha_pattern": {"layers.1.mlp.down_proj": 20}}, {"rank_pattern": {"layers.1.mlp.down_proj": 4}}),
    *({"target_modules": ["q_proj"]}, {"target_modules": ["q_proj", "down_proj"]}, {"target_modules": "all-linear"}),
    *({"init_lora_weights": name} for name in ("pissa", "olora", "orthogonal", "mica")),
    *({"use_qalora": True, "qalora_group_size": 4}, {"trainable_token_indices": [1, 2]}),
    *({"layer_replication": [[0, 2], [1, 3]]}, {"alora_invocation_tokens": [1, 2]}),
]


@pytest.mark.filterwarnings("ignore")
def test_adapters_equal_peft_itself(tmp_path: Path, model: Model) -> None:
    plain = model.run(IDS).log_probs()
    for number, settings in enumerate(EQUAL):
        folder = adapter(tmp_path / str(number), **settings)
        expected = theirs(folder)
        assert (expected - plain).abs().max() > 0.1, settings
        assert (ours(model, folder) - expected).abs().max() < 1e-4, settings


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", REFUSED, ids=lambda settings: next(iter(settings)))
def test_other_variants_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        load_intervention(adapter(tmp_path, **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_any_changed_setting_gives_what_peft_gives_or_is_refused(tmp_path: Path, model: Model) -> None:
    values: tuple[Any, ...] = (True, None, 3, 0.5, "x", ["x"], {"x": 1}, [0], [])
    start = json.loads((adapter(tmp_path) / "adapter_config.json").read_text())
    known = ("base_model_name_or_path", "revision", "peft_version", "auto_mapping", "lora_dropout", "inference_mode")
    known += ("megatron_core", "qalora_group_size", "eva_config")
    before, tried = ours(model, tmp_path), 0
    for key in [*start, "a_setting_of_tomorrow"]:
        for value in values:
            config(tmp_path, **start | {key: value})
            try:
                after = ours(model, tmp_path)
            except UserError:
                continue
            finally:
                (tmp_path / "adapter_config.json").write_text(json.dumps(start))
            off = not value or key in known or value == start.get(key)
            if off and torch.equal(after, before):
                continue
            config(tmp_path, **start | {key: value})
            tried += 1
            assert (after - theirs(tmp_path)).abs().max() < 1e-4, (key, value)
            (tmp_path / "adapter_config.json").write_text(json.dumps(start))
    assert tried


def without(part: str) -> Changed:
    return lambda tensors: {name: value for name, value in tensors.items() if part not in name}


def renamed(old: str, new: str) -> Changed:
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


@pytest.mark.filterwarnings("ignore")
def test_changed_weights_give_what_peft_gives_or_are_refused(tmp_path: Path, model: Model) -> None:
    dropped = weights(adapter(tmp_path / "a"), without(".1."))
    assert (ours(model, dropped) - theirs(dropped)).abs().max() < 1e-4
    half = weights(adapter(tmp_path / "b"), lambda tensors: {name: value.bfloat16() for name, value in tensors.items()})
    assert (ours(model, half) - theirs(half)).abs().max() < 1e-4
    changes: list[Changed] = [
        *(without("1.mlp.down_proj.lora_A"), renamed(".weight", ".default.weight"), renamed(".1.", ".7.")),
        *(renamed("model.model.layers", "model.layers"), renamed(".1.", ".01."), renamed("down_proj", "up_proj")),
        lambda tensors: {name: value.T for name, value in tensors.items()},
        lambda tensors: {name: value * float("nan") for name, value in tensors.items()},
        lambda tensors: {name: value[..., :-1] for name, value in tensors.items()},
        lambda tensors: {name: value.to(torch.float8_e4m3fn) for name, value in tensors.items()},
        lambda tensors: tensors | {"base_model.model.lm_head.weight": torch.ones(2, 2)},
    ]
    for number, change in enumerate(changes):
        folder = weights(adapter(tmp_path / str(number)), change)
        with pytest.raises(UserError):
            ours(model, folder)
    random = weights(adapter(tmp_path / "random", init_lora_weights=False), without(".1."))
    with pytest.raises(UserError, match="at random"):
        load_intervention(random, model=model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
@pytest.mark.parametrize("rank", [1, 2])
def test_an_adapter_before_a_norm_is_refused_with_the_model_and_without(tmp_path: Path, family: str, rank: int) -> None:
    folder, model = adapter(tmp_path, family, r=rank), load_model(base(family))
    with pytest.raises(UserError, match="a norm follows"):
        load_intervention(folder, model=model)
    loaded = load_intervention(folder)
    assert loaded.card.kind == ("rank1" if rank == 1 else "lora")
    with pytest.raises(UserError, match="a norm follows"):
        model.run(IDS, loaded.edits())


def test_a_bias_of_the_mlp_is_refused_where_a_norm_follows(tmp_path: Path) -> None:
    model = load_model(base("gemma2"))
    save_file({"model.layers.1.mlp.down_proj.bias": torch.ones(model.d_model)}, tmp_path / "bias.safetensors")
    assert isinstance(load_intervention(tmp_path / "bias.safetensors"), SteeringVectors)
    with pytest.raises(UserError, match="a norm follows"):
        load_intervention(tmp_path / "bias.safetensors", model=model)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_another_mlp_is_refused(tmp_path: Path, model: Model) -> None:
    tensors = {"A": torch.ones(2, 7), "B": torch.ones(model.d_model, 2)}
    folder = adapter(tmp_path)
    names = {f"base_model.model.model.layers.0.mlp.down_proj.lora_{key}.weight": t for key, t in tensors.items()}
    weights(folder, lambda _: names)
    assert isinstance(load_intervention(folder), LowRankAdapters)
    with pytest.raises(UserError, match="MLP of width"):
        load_intervention(folder, model=model)
