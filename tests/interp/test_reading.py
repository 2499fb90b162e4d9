"""--site, --layer, --rows and --trained exist wherever vectors are read on the command line, and act."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pytest
import torch

from interp import registry
from interp.cli import call
from interp.errors import UserError
from interp.given import as_vectors
from interp.reading import NOTHING_SAID, Reading
from tests.vectors.toys import make

LEAVES = ("run", "audit", "try", "eval", "paper", "show")
NESTED = {"vectors": ("convert", "push", "bake"), "completions": ("export", "import"), "sae": ("train", "attribute")}
FLAGS = ("site", "layer", "rows", "trained")


def commands() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {name: registry.load("commands", name) for name in LEAVES}
    group = found.pop("run")
    assert isinstance(group, click.Group)
    context = click.Context(group)
    found |= {f"run {name}": group.get_command(context, name) or group for name in ("adaptive-scaling", "persistence")}
    for name, inner in NESTED.items():
        parent = registry.load("commands", name)
        assert isinstance(parent, click.Group)
        found |= {f"{name} {one}": parent.commands[one] for one in inner}
    return found


def test_the_flags_exist_wherever_vectors_are_read() -> None:
    for name, command in commands().items():
        flags = [flag for option in command.params for flag in option.opts]
        assert len(flags) == len(set(flags)), name
        for flag in FLAGS:
            assert f"--vector-{flag}" in flags, name
            assert f"--{flag}" in flags, name


def test_the_flags_say_what_a_bare_tensor_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(make((2,))[2].clone(), tmp_path / "v.pt")
    file = str(tmp_path / "v.pt")
    assert call(["show", file]) == 2
    refusal = capsys.readouterr().err
    assert "--site" in refusal
    assert "--layer" in refusal
    assert call(["show", file, "--site", "attn_out", "--layer", "2"]) == 0
    assert "attn_out" in capsys.readouterr().out
    assert call(["show", file, "--vector-site", "attn_out", "--vector-layer", "2"]) == 0
    out = str(tmp_path / "v.safetensors")
    assert call(["vectors", "convert", file, out, "--site", "resid_post", "--layer", "2"]) == 0
    assert call(["show", out, "--layer", "1"]) == 2
    assert call(["show", out, "--site", "elsewhere"]) == 2


def test_answers_without_a_file_are_refused(tmp_path: Path) -> None:
    vectors = make()
    assert as_vectors(vectors) is vectors
    assert as_vectors(None, reading=NOTHING_SAID) is None
    for given in (vectors, None):
        with pytest.raises(UserError, match="--trained apart"):
            as_vectors(given, reading=Reading(trained="apart"))
    np.save(tmp_path / "v.npy", vectors.directions.numpy())
    assert as_vectors(tmp_path / "v.npy", reading=Reading(trained="apart")).card.trained == "apart"
