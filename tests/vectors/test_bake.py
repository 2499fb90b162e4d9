"""A baked checkpoint is steered by transformers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from interp.errors import UserError
from interp.load import load_model
from tests.interp import tiny
from vectors import AdaptiveVectors, Card, SteeringVectors, load_vectors
from vectors.bake import bake

IDS = torch.randint(4, tiny.VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))


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
