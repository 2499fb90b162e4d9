"""Names become models, vectors and tasks; nothing of this machine's folders is recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp import given, registry
from interp.errors import UserError
from interp.load import load_model
from interp.model import Model
from interp.tasks.task import Task
from tests.interp import tiny
from vectors import SteeringVectors
from vectors.card import Card

_MODULE = "made_by_plugin"
_SOURCE = """
import torch
from vectors import SteeringVectors
from vectors.card import Card

def from_nothing():
    return SteeringVectors(torch.ones(1, 48), (1,), Card(d_model=48))

def from_model(model, task):
    model.asked = [*getattr(model, "asked", ()), task.name]  # a global that it changed would be another function
    return SteeringVectors(2 * torch.ones(1, model.d_model), (2,), Card(d_model=model.d_model))
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "plug_vectors-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-vectors\nVersion: 1.0\n")
    entries = f"[interp.vectors]\nones = {_MODULE}:from_nothing\ntwos = {_MODULE}:from_model\n"
    (info / "entry_points.txt").write_text(entries)
    (tmp_path / f"{_MODULE}.py").write_text(_SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, _MODULE, raising=False)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(tiny.model("llama"), tokenizer=tiny.tokenizer())


def test_installed_vectors_by_name(plugin: None) -> None:
    assert torch.equal(given.as_vectors("ones").directions, torch.ones(1, 48))


def test_computed_vectors_are_computed_once(plugin: None, model: Model, tmp_path: Path) -> None:
    task = Task.of([("1 + 1", "2")], name="sums")
    first = given.as_vectors("twos", model, task, keep=tmp_path)
    again = given.as_vectors("twos", model, task, keep=tmp_path)
    assert vars(model)["asked"] == ["sums"]
    assert again == first
    assert torch.equal(first.directions, 2 * torch.ones(1, 48))
    given.as_vectors("twos", model, Task.of([("2 + 1", "3")], name="others"), keep=tmp_path)
    assert vars(model)["asked"] == ["sums", "others"]
    with pytest.raises(UserError, match="a model and a task"):
        given.as_vectors("twos")


def test_objects_pass_as_they_are(model: Model) -> None:
    v = SteeringVectors(torch.ones(1, 48), (0,), Card(d_model=48))
    assert given.as_vectors(v) is v
    assert given.as_model(model) is model
    assert given.as_model(None) is None
    assert given.as_model(model.hooked).hooked is model.hooked


def test_default_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Any] = {"names": ["m/single@0", "m/all-layer@1", "other/x@0"], "installed": []}
    monkeypatch.setattr(given, "catalogue", lambda: known["names"])
    monkeypatch.setattr(registry, "names", lambda group: known["installed"])
    assert given.default_vectors("m") == "m/all-layer"
    known["names"] = ["m/single@0"]
    assert given.default_vectors("m") == "m/single"
    known["names"] = []
    with pytest.raises(UserError, match="no vectors of m"):
        given.default_vectors("m")
    known["installed"] = ["untrained"]
    assert given.default_vectors("m") == "untrained"


@pytest.mark.parametrize("path", ["./x", "/x", "~/x", "x.npy", "x.jsonl", "dir/x.gguf", "x.py:Name"])
def test_paths_to_nothing_are_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        given.check_paths(vectors=path)


@pytest.mark.parametrize(
    "alias", ["smollm2-135m-instruct/all-layer/3@1", "Qwen/Qwen2.5-Math-7B", "word-problems", None]
)
def test_names_are_no_paths(alias: str | None) -> None:
    given.check_paths(model=alias)


def test_absolute_paths_are_not_recorded(tmp_path: Path) -> None:
    assert given.plain_name(str(tmp_path / "v.npy")) == "v.npy"
    assert given.plain_name("sets/v.npy") == "sets/v.npy"
    assert given.as_json({"path": tmp_path / "a", "nan": float("nan"), "n": np.float32(2.5), "t": (1, None)}) == {
        "path": "a",
        "nan": None,
        "n": 2.5,
        "t": [1, None],
    }


def test_foreign_hooks_change_the_fingerprint(model: Model) -> None:
    plain = given.describe_model(model)
    with model.hooked.hooks([("blocks.0.hook_resid_post", lambda value, hook: value)]):
        hooked = given.describe_model(model)
    assert plain != hooked
    assert given.describe_model(model) == plain
