"""What the README shows exists. Its blocks run in test_packaging.py, from the wheel alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pytest_examples import find_examples

from experiments.patches import patch, placed
from interp import registry
from tests.experiments import toys

README = Path(__file__).resolve().parents[1] / "README.md"
*_, PATCH = find_examples(README)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, so that runs are written there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_that_the_documentation_shows_exists() -> None:
    texts = [README.read_text(), *(path.read_text() for path in README.parent.glob("docs/**/*.md"))]
    shown = {name for text in texts for name in re.findall(r"^\$ interp ([a-z]+)", text, re.MULTILINE)}
    assert shown <= set(registry.names("commands"))


def test_the_patch_is_found_by_its_path(elsewhere: Path) -> None:
    (elsewhere / "mine.py").write_text(PATCH.source)
    (name,) = re.findall(r"--patches skip-attn,(\./mine\.py:\w+)", README.read_text())
    assert len(PATCH.source.strip().splitlines()) <= 5
    found = placed(patch(name, toys.model()), 2).describe()
    assert found == "paths at block 2: q=CLEAN, v=CLEAN, resid_to_mlp=CLEAN, resid=CLEAN"
