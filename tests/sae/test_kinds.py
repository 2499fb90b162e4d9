"""Folders of sae-lens: equal to sae-lens itself where they are autoencoders of one stream, refused otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sae_lens import SAE
from sae_lens.registry import get_sae_class
from safetensors.torch import load_file, save_file

import sae
from interp.errors import UserError
from sae.kinds import KINDS, NORMALISATIONS

D_IN, FEATURES, HOOK = 12, 20, "blocks.1.hook_resid_post"
ALL = (
    *KINDS,
    *("matching_pursuit", "temporal", "transcoder", "skip_transcoder", "jumprelu_transcoder"),
    "jumprelu_skip_transcoder",
)


def folder(path: Path, kind: str = "standard", *, metadata: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A random autoencoder, or one of its relatives, as sae-lens saves it."""
    coder_class, config_class = get_sae_class(kind)
    transcoder = "transcoder" in kind
    plain: dict[str, Any] = {"d_in": D_IN, "d_sae": FEATURES}
    plain |= {"d_out": D_IN, "apply_b_dec_to_input": False} if transcoder else {}
    plain |= {"k": 4} if "topk" in kind else {}
    plain |= {"n_heads": 2, "bottleneck_factor": 2} if kind == "temporal" else {}
    torch.manual_seed(0)
    coder: Any = coder_class(config_class(**plain | settings)).eval()
    with torch.no_grad():
        for value in coder.parameters():
            value.add_(0.2 * torch.randn_like(value))
    for name, value in ({"hook_name": HOOK} | (metadata or {})).items():
        setattr(coder.cfg.metadata, name, value)
    coder.save_model(path)
    return path


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("normalised", ["none", "layer_norm", "constant_norm_rescale", "expected_average_only_in"])
def test_every_kind_equals_sae_lens_or_is_refused(tmp_path: Path, kind: str, normalised: str) -> None:
    path = folder(tmp_path, kind, normalize_activations=normalised)
    if kind not in KINDS or normalised not in NORMALISATIONS:
        with pytest.raises(UserError) as caught:
            sae.load(path)
        assert "\n" not in str(caught.value)
        return
    ours, theirs = sae.load(path), SAE.load_from_disk(path)
    x = 3 * torch.randn(5, D_IN, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.encode(x), theirs.encode(x))
    assert torch.equal(ours.reconstruct(x), theirs(x).detach())


def test_settings_that_change_the_forward_pass_equal_sae_lens(tmp_path: Path) -> None:
    x = 3 * torch.randn(5, D_IN, generator=torch.Generator().manual_seed(1))
    changes: list[tuple[str, dict[str, Any]]] = [
        ("standard", {"apply_b_dec_to_input": False}),
        ("topk", {"rescale_acts_by_decoder_norm": True}),
        ("topk", {"k": 2}),
    ]
    for number, (kind, changed) in enumerate(changes):
        path = folder(tmp_path / str(number), kind, **changed)
        ours, theirs = sae.load(path), SAE.load_from_disk(path)
        assert torch.equal(ours.reconstruct(x), theirs(x).detach())
        decoded = ours.encode(x) @ ours.directions + ours.bias
        assert torch.allclose(decoded, theirs(x), atol=1e-5)


@pytest.mark.parametrize(
    "metadata",
    [
        *({"hook_head_index": 3}, {"hook_name_out": "blocks.1.hook_mlp_out"}, {"hook_name": "blocks.1.attn.hook_z"}),
        {"matryoshka_of": "two streams"},
    ],
)
def test_metadata_that_mean_another_stream_are_refused(tmp_path: Path, metadata: dict[str, Any]) -> None:
    assert sae.load(folder(tmp_path / "plain")).site.layer == 1
    with pytest.raises(UserError):
        sae.load(folder(tmp_path / "odd", metadata=metadata))


def config(path: Path, **changes: Any) -> Path:
    file = path / "cfg.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return path


LEGACY: dict[str, Any] = {"metadata": {}, "hook_name": HOOK, "activation_fn_str": "relu", "hook_layer": 1}


@pytest.mark.parametrize(
    "changes",
    [
        *({"finetuning_scaling_factor": True}, {"activation_fn_str": "tanh-relu"}, {"hook_layer": 2}),
        *({"activation_fn_str": "topk"}, {"hook_head_index": 0}, {"normalize_activations": True}, {"gate": "soft"}),
    ],
)
def test_old_folders_are_read_where_their_settings_are_plain(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = config(folder(tmp_path), **LEGACY)
    assert sae.load(path).site.layer == 1
    with pytest.raises(UserError):
        sae.load(config(path, **changes))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12), value=st.sampled_from([1, 0.5, "x", True]))
def test_no_unknown_key_is_dropped(tmp_path: Path, name: str, value: Any) -> None:
    path = folder(tmp_path)
    if name in json.loads((path / "cfg.json").read_text()):
        return
    with pytest.raises(UserError):
        sae.load(config(path, **{name: value}))


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path)
    file = path / "sae_weights.safetensors"
    whole = load_file(file)
    changes: list[dict[str, torch.Tensor]] = [
        whole | {"W_dec": whole["W_dec"] * float("nan")},
        {name: value for name, value in whole.items() if name != "b_dec"},
        whole | {"W_dec": whole["W_dec"].T.contiguous()},
        whole | {"W_skip": torch.ones(D_IN, D_IN)},
    ]
    for tensors in changes:
        save_file(tensors, file)
        with pytest.raises(UserError):
            sae.load(path)


def test_card_and_config_must_name_one_hook(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "card.json").write_text(json.dumps({"hook": "blocks.2.hook_resid_pre"}))
    assert sae.load(path).site.layer == 1  # the same stream
    (path / "card.json").write_text(json.dumps({"hook": "blocks.2.hook_resid_post"}))
    with pytest.raises(UserError, match="different hook points"):
        sae.load(path)
