"""The conformance checks find the faults that they are made for."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch

from interp import Add, BlockPaths, Cell, Context, Custom, Declaration, Experiment, Problem, Site, Task, registry
from interp.grading import LastBox, Regex
from interp.positions import Tokens
from interp.readouts import KL, Rows
from interp.testing import PluginConformance, checks, tiny_model, tiny_task, tiny_vectors
from vectors.formats import find


class Steady(Experiment):
    """Mean of the vectors, a row for each factor."""

    columns: ClassVar = {"factor": "scale, 1 = as trained", "y": "mean value, units of the stream"}
    declaration: ClassVar = Declaration("mean", "problem", "mean", "factors", ("factor 0",), 0.1)

    def cells(self, ctx: Context) -> list[Cell]:
        return [Cell.at(factor=float(factor)) for factor in range(3)]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        mean = float(ctx.vectors.directions.mean())
        return pd.DataFrame([{"factor": cell["factor"], "y": float(cell["factor"]) * mean} for cell in cells])


class ByChunk(Steady, abstract=True):
    """Its numbers depend on what else is in the chunk."""

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        return super().measure(ctx, cells).assign(y=float(len(cells)))


class Unsaid(Steady):
    """A setting that nobody explains."""

    size: int = 3


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    return {"model": tiny_model(), "vectors": tiny_vectors(tiny_model(), tmp_path), "task": tiny_task()}


def test_experiments(given: dict[str, Any], tmp_path: Path) -> None:
    checks.check_experiment(Steady(n=2), given, tmp_path / "steady")
    with pytest.raises(AssertionError, match="values are different"):
        checks.check_experiment(ByChunk(n=2), given, tmp_path / "chunk")
    with pytest.raises(AssertionError, match="without a docstring below them: size"):
        checks.check_experiment(Unsaid(n=2), given, tmp_path / "unsaid")


class Neighbours(KL):
    """Subtracts the mean of the rows."""

    def __call__(self, rows: Rows) -> dict[str, list[float]]:
        values = torch.tensor(super().__call__(rows)["kl"])
        return {"kl": (values - values.mean()).tolist()}


class Undeclared(KL):
    """Names another column than it declares."""

    def __call__(self, rows: Rows) -> dict[str, list[float]]:
        return {"k": [0.0] * len(rows.base)}


def test_readouts() -> None:
    checks.check_readout(KL(), "kl")
    with pytest.raises(AssertionError, match="kl depends on other rows"):
        checks.check_readout(Neighbours(), "mine")
    with pytest.raises(AssertionError, match="declared are"):
        checks.check_readout(Undeclared(), "mine")


def lean(value: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """Adds the mean over the batch."""
    return value + value.mean(0, keepdim=True)


def test_patches(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, vectors = given["model"], given["vectors"]
    across = Custom(Site(1, "resid_post"), lean)
    for one in (BlockPaths(), Add(Site(0, "resid_post"), vectors[0]), across):
        monkeypatch.setattr(checks, "load", lambda group, name, one=one: one)
        if one is across:
            with pytest.raises(AssertionError, match="rows differ in a batch"):
                checks.check_patch("mine", one, model, vectors)
        else:
            checks.check_patch("mine", one, model, vectors)
    with pytest.raises(AssertionError, match="no BlockPaths and no Edit"):
        checks.check_patch("mine", "skip-attn", model, vectors)


def test_formats(given: dict[str, Any], tmp_path: Path) -> None:
    own = find("safetensors")
    checks.check_format("safetensors", own, given["vectors"], tmp_path)
    with pytest.raises(AssertionError, match="claims a file of any bytes"):
        checks.check_format("safetensors", replace(own, matches=lambda path: True), given["vectors"], tmp_path)

    def rounded(path: Path, vectors: Any) -> Path:
        assert own.write is not None
        return own.write(path, vectors * (1 + struct.unpack("<f", b"\x00\x00\x00\x34")[0]))

    with pytest.raises(AssertionError, match="does not give back what was written"):
        checks.check_format("safetensors", replace(own, write=rounded), given["vectors"], tmp_path)


def test_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [Problem("a", "1 + 1?", "2"), Problem("a", "1 + 2?", "3")]
    deaf = Regex("it is (.) indeed")
    for problems, scorer, fault in ((twice, LastBox(), "have the same id"), (twice[:1], deaf, "is graded right")):
        task = Task("mine", lambda problems=problems: problems, scorer=scorer)
        monkeypatch.setattr(checks, "load_task", lambda name, task=task: task)
        with pytest.raises(AssertionError, match=fault):
            checks.check_task("mine", tiny_model())
    monkeypatch.setattr(checks, "load_task", lambda name: tiny_task())
    checks.check_task("mine", tiny_model())


def test_each_group_has_its_test() -> None:
    groups = {name.removeprefix("test_") for name in vars(PluginConformance) if name.startswith("test_")}
    assert set(registry.GROUPS) <= groups
