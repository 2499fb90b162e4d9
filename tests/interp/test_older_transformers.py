"""Folders that we write mean the same to transformers 4.57: log-probabilities, tokens, token ids, chat template."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp import load_model
from interp.backend.embedded import embedded_folder, gguf_folder
from interp.backend.portable import write_config, write_tokenizer
from tests.interp import older_peer, tiny
from tests.interp.test_embedded import plain_llama, write_gguf
from tests.vectors.test_bake import adapter, steering
from vectors import Card, SteeringVectors
from vectors.bake import bake

pytestmark = pytest.mark.slow

OLDER = ("transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.2")
EMBEDDED = "smollm2-135m-instruct"
# The attention that 4.57 takes by default ignores these two settings.
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "mistral": {},
    "gemma2": {"attn_logit_softcapping": None},
    "gemma3": {},
    "gpt2": {"scale_attn_by_inverse_layer_idx": False},
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the older transformers and what it needs in other versions; torch and the rest are ours."""
    folder = tmp_path_factory.mktemp("older")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", folder)
    subprocess.run([*pip, *OLDER], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def single() -> SteeringVectors:
    row = torch.randn(1, 576, generator=torch.Generator().manual_seed(0))
    return SteeringVectors(100 * row / row.norm(), (12,), Card(d_model=576, n_layers=30))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, single: SteeringVectors) -> list[Path]:
    root = tmp_path_factory.mktemp("folders")
    sources: dict[str, Path] = {}
    for family, config in {"llama": {}, "qwen2": {"layer_types": ["full_attention"] * 3}, **FAMILIES}.items():
        model, sources[family] = tiny.model(family, config=config), root / family
        model.save_pretrained(sources[family])
        write_config(model.config, sources[family])
        write_tokenizer(tiny.tokenizer(), sources[family])
    plain = tiny.folder(root / "plain", "llama")  # as transformers 5 writes it: the bake adds what is missing
    baked = [bake(steering(), source, root / f"{source.name}-baked") for source in (plain, sources["qwen2"])]
    baked += [bake(adapter(), plain, root / "rank1"), bake(single, EMBEDDED, root / "embedded-baked")]
    converted = gguf_folder(write_gguf(root / "tiny.gguf", plain_llama()))
    return [*sources.values(), *baked, converted, embedded_folder(EMBEDDED)]


def test_an_older_transformers_reads_what_we_write(
    library: Path, folders: list[Path], single: SteeringVectors, tmp_path: Path
) -> None:
    out = {version: tmp_path / version for version in ("old", "new")}
    for path in out.values():
        path.mkdir()
    peer = [sys.executable, older_peer.__file__, out["old"], *folders]
    done = subprocess.run(peer, env={**os.environ, "PYTHONPATH": str(library)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for folder in folders:
        older_peer.look(str(folder), out["new"])
        old, new = (json.loads((path / f"{folder.name}.json").read_text()) for path in out.values())
        assert old.pop("version").startswith("4.57.")
        assert new.pop("version").startswith("5.")
        assert old == new, folder.name
        numbers = [np.load(path / f"{folder.name}.npz") for path in out.values()]
        assert np.abs(numbers[0]["log_probs"] - numbers[1]["log_probs"]).max() < 1e-5, folder.name
        assert np.array_equal(numbers[0]["greedy"], numbers[1]["greedy"]), folder.name
    _compare_steered(out["old"] / "embedded-baked.npz", out["old"] / f"{folders[-1].name}.npz", single)


def _compare_steered(baked: Path, base: Path, vectors: SteeringVectors) -> None:
    """The older library's baked model gives the log-probabilities of our steered one, and its greedy tokens."""
    model, ids = load_model(EMBEDDED), torch.tensor(older_peer.IDS)
    theirs = np.load(baked)
    ours = model.run(ids, vectors.edits()).log_probs().numpy()
    assert np.abs(ours - theirs["log_probs"]).max() < 2e-3
    assert np.abs(theirs["log_probs"] - np.load(base)["log_probs"]).max() > 0.1
    tokens = ids[:1]
    for _ in range(theirs["greedy"].shape[1] - tokens.shape[1]):
        best = model.run(tokens, vectors.edits()).log_probs()[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, best], 1)
    assert np.array_equal(tokens.numpy(), theirs["greedy"])
