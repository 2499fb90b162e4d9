"""The README's Python runs as it stands, and its plugin through the command beside it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from pytest_examples import EvalExample, find_examples

from experiments.patches import patch
from interp import registry
from interp.cli import call
from tests.experiments import toys

README = Path(__file__).resolve().parents[1] / "README.md"
JUPYTER, PLUGIN, PATCH = find_examples(README)


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
    found = patch(name, toys.model()).at(2).describe()
    assert found == "paths at block 2: q=CLEAN, v=CLEAN, resid_to_mlp=CLEAN, resid=CLEAN"


@pytest.mark.slow
def test_the_jupyter_block_makes_a_run_with_a_figure(eval_example: EvalExample) -> None:
    names = eval_example.run(JUPYTER)
    made = names["run"]
    assert len(made.frame) > 0
    assert set(made.frame.columns) == set(names["TokenSubstitution"].columns)
    assert made.figure().data


@pytest.mark.slow
def test_the_plugin_runs_by_its_path(elsewhere: Path) -> None:
    (elsewhere / "last_token_kl.py").write_text(PLUGIN.source)
    (command,) = re.findall(r"^\$ (interp run \./last_token_kl\.py.*)$", README.read_text(), re.MULTILINE)
    assert call(shlex.split(command)[1:]) == 0
    (frame,) = elsewhere.glob("runs/last-token-kl/*/frame.parquet")
    rows = pd.read_parquet(frame)
    none, once, thrice = (rows.kl[rows.factor == factor] for factor in (0, 1, 3))
    assert (none == 0).all()
    assert 0 < once.mean() < thrice.mean()
