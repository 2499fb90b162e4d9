"""GGUF control vectors mean the same to repeng: it applies ours, and we apply those it trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from interp import load_model
from interp.edits import Edit
from tests.interp import tiny
from tests.vectors.repeng_peer import IDS
from vectors import Card, SteeringVectors, load_vectors
from vectors.load import convert

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with repeng alone: it asks for a NumPy older than everyone else's, and runs with ours all the same."""
    folder = tmp_path_factory.mktemp("repeng")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", folder)
    wanted = ("-c", root / "benchmarks" / "constraints.txt", "repeng", "scikit-learn", "threadpoolctl")
    subprocess.run([*pip, *wanted], check=True, capture_output=True)
    return folder


def test_repeng_and_we_steer_alike(library: Path, root: Path, tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model", "llama")
    rows = torch.randn(2, 48, generator=torch.Generator().manual_seed(1))
    ours = SteeringVectors(rows, (1, 2), Card(d_model=48, n_layers=3))
    file = convert(ours.save(tmp_path / "ours"), tmp_path / "ours.gguf", "gguf")
    written, found = tmp_path / "theirs.gguf", tmp_path / "found.npz"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(library), str(root)))}
    peer = [sys.executable, root / "tests" / "vectors" / "repeng_peer.py", folder, file, written, found]
    done = subprocess.run(peer, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = np.load(found)

    model = load_model(folder, dtype="float64")

    def log_probs(edits: tuple[Edit, ...] = ()) -> NDArray[np.float64]:
        return model.run(torch.tensor([IDS]), edits).log_probs().numpy()

    assert np.abs(log_probs() - told["plain"]).max() < 1e-5
    assert np.abs(log_probs(ours.edits()) - told["theirs"]).max() < 1e-5
    assert np.abs(told["theirs"] - told["plain"]).max() > 0.1
    theirs = load_vectors(written)
    assert isinstance(theirs, SteeringVectors)
    assert theirs.layers == (1, 2)
    assert all(np.array_equal(theirs[layer].numpy(), told[f"own.{layer}"]) for layer in theirs.layers)
    assert np.abs(log_probs((2 * theirs).together().edits()) - told["own"]).max() < 1e-5
    assert np.abs(told["own"] - told["plain"]).max() > 0.1
