"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

collect_ignore = ["plugin_package"]
"""A package of its own, tested where it is installed."""

if TYPE_CHECKING:
    from interp import Model

ROOT = Path(__file__).resolve().parents[1]

# No test module, and so no library that reads these, is imported yet: one thread and no network, here and in children.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    WANDB_MODE="disabled",
)


@pytest.fixture(scope="session")
def model() -> Model:
    """The embedded model, loaded once per worker. Tests may not change it."""
    from interp import load_model

    return load_model("smollm2-135m-instruct")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """An empty folder for run records."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT
