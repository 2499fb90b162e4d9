"""Hostile arguments of the public functions: only `UserError`, in one line, without Python's text for an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from interp import Batch, Model, Site, compare, load_model, load_task
from interp.edits import Add
from interp.errors import UserError
from interp.store import RunRecord
from interp.tasks import Task
from tests.interp import tiny
from tests.interp.toy import Toy
from vectors import load_vectors

HOSTILE: tuple[Any, ...] = (
    None, -1, 0, 10**30, float("nan"), float("inf"), -float("inf"), 1.5, "", "x", "nope", b"x", [], {}, object(), "\0",
    "\ud800", "y" * 300, True, "~nobody-here/x", Path("nowhere"), [1, "a"], torch.ones(2),
)  # fmt: skip


@pytest.fixture(scope="module")
def small() -> Model:
    return load_model(tiny.model("qwen2"), tokenizer=tiny.tokenizer())


def calls(model: Model, out: Path) -> Mapping[str, Callable[[Any], object]]:
    asked = model.prompt("hi")
    batch, site = Batch.of([asked]), Site(1, "resid_post")
    return {
        "model": lambda one: one is None or load_model(one),
        "task": load_task,
        "vectors": load_vectors,
        "run": RunRecord.read,
        "stream": lambda one: Site(1, one),
        "direction": lambda one: model.run(batch, [Add(site, one)]),
        "turns": lambda one: model.prompt(one),
        "tokens": lambda one: model.generate([asked], max_new_tokens=one),
        "samples": lambda one: model.generate([asked], max_new_tokens=1, samples=one),
        "temperature": lambda one: model.generate([asked], max_new_tokens=1, temperature=one),
        "seed": lambda one: model.generate([asked], max_new_tokens=1, seed=one),
        "prompts": lambda one: model.generate(one, max_new_tokens=1),
        "edits": lambda one: model.generate([asked], one, max_new_tokens=1),
        "run edits": lambda one: model.run(batch, one),
        "readouts": lambda one: model.score(batch, (), one),
        "readout": lambda one: model.score(batch, (), [one]),
        "batch": Batch.of,
        "row": lambda one: Batch.of([one]),
        "compared": lambda one: compare(model, "hi", one, max_new_tokens=1),
        "intervention": lambda one: compare(model, "hi", {"one": one}, max_new_tokens=1),
        "problems": lambda one: isinstance(one, torch.Tensor) or Task.of(one),
        "split": lambda one: Task.of(["a"]).problems(one),
        "n of a task": lambda one: Task.of(["a"]).problems("test", n=one),
        "scale": Toy.at,
        "setting": lambda one: Toy(size=one),
        "n": lambda one: one is None or Toy(size=1).run(n=one, out=out, progress=False),
        "memory": lambda one: Toy(size=1).run(memory=one, out=out, progress=False),
        "shard": lambda one: Toy(size=1).run(shard=one, out=out, progress=False),
        "given vectors": lambda one: Toy(size=1).run(vectors=one, out=out, progress=False),
        "given task": lambda one: Toy(size=1).run(task=one, out=out, progress=False),
    }


def test_public_functions_raise_nothing_but_user_errors(
    small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong: list[str] = []
    for name, call in calls(small, tmp_path / "runs").items():
        for value in HOSTILE:
            try:
                call(value)
            except UserError as error:
                if "\n" in str(error) or " object at 0x" in str(error):
                    wrong.append(f"{name}: {error}")
            except Exception as error:
                if type(error).__module__.split(".")[0] in ("jaxtyping", "beartype"):
                    continue  # the tests check annotations; users' calls reach the function
                wrong.append(f"{name} of {value!r:.40}: {type(error).__name__}: {str(error)[:90]}")
    assert not wrong, "\n".join(wrong)
