"""Hostile arguments of the public functions: only `UserError`, in one line, without Python's text for an object.

Run in a process of its own: the tests check annotations, so that a hostile value would not reach the function.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from interp import Batch, Custom, Model, Patch, Positions, Site, at, compare, load_model, load_task, per_row
from interp.edits import Add
from interp.errors import UserError
from interp.store import RunRecord
from interp.tasks.task import Task
from tests.interp import tiny
from tests.interp.toy import Toy
from vectors import Card, SteeringVectors, check_fit, compare_vectors, load_vectors

HOSTILE: tuple[Any, ...] = (
    None, -1, 0, 10**30, float("nan"), float("inf"), -float("inf"), 1.5, "", "x", "nope", b"x", [], {}, object(), "\0",
    "\ud800", "y" * 300, True, "~nobody-here/x", Path("nowhere"), [1, "a"], torch.ones(2),
)  # fmt: skip


def calls(model: Model, out: Path) -> Mapping[str, Callable[[Any], object]]:
    asked = model.prompt("hi")
    batch, site = Batch.of([asked]), Site(1, "resid_post")
    return {**of_the_base(model, out), **of_models(model, batch, site), **of_vectors(model)}


def of_models(model: Model, batch: Batch, site: Site) -> Mapping[str, Callable[[Any], object]]:
    asked, one_row = model.prompt("hi"), torch.ones(model.d_model)
    changed = lambda value, _: value  # noqa: E731
    return {
        "site": lambda one: Site(one, "resid_post"),
        "batch of a run": model.run,
        "batch of a score": model.score,
        "read": lambda one: model.run(batch, read=one),
        "site that is read": lambda one: model.run(batch, read=[one]),
        "places of a score": lambda one: model.score(batch, at=one),
        "keys": lambda one: model.generate([asked], max_new_tokens=1, keys=one),
        "memory of completions": lambda one: model.generate([asked], max_new_tokens=1, memory_gb=one),
        "rows": model.decode,
        "row of tokens": lambda one: model.decode([one]),
        "token": model.token_text,
        "prompt as text": model.prompt_text,
        "system line": lambda one: model.prompt("hi", one),
        "site of a trace": lambda one: model.run(batch, read=[site])[one],
        "mask": lambda one: model.run(batch).log_probs(one),
        "place of an edit": lambda one: model.run(batch, [Add(one, one_row)]),
        "positions of an edit": lambda one: model.run(batch, [Add(site, one_row, positions=one)]),
        "scale of an edit": lambda one: Add(site, one_row, one),
        "place of a function": lambda one: model.run(batch, [Custom(one, changed)]),
        "source of a patch": lambda one: model.run(batch, [Patch(site, one)]),
        "edits by row": lambda one: model.run(batch, per_row([[], []]) if one is None else [one]),
        "prompt positions": Positions,
        "generated positions": lambda one: Positions(generated=one),
        "text of positions": at,
        "completions of a batch": lambda one: Batch.of([asked], one),
        "completion": lambda one: Batch.of([asked], [one]),
        "ids": Batch.unpadded,
        "model of a comparison": lambda one: compare(one, "hi", {"base": None}),
        "model wrapped": Model.of,
        "tokenizer": lambda one: one is None or load_model(tiny.model("qwen2"), tokenizer=one),
    }


def of_vectors(model: Model) -> Mapping[str, Callable[[Any], object]]:
    known = Card(d_model=model.d_model, trained="together")
    v = SteeringVectors(torch.ones(2, model.d_model), (0, 1), known)
    return {
        "directions": lambda one: SteeringVectors(one, (0,), known),
        "layers of vectors": lambda one: SteeringVectors(torch.ones(1, model.d_model), one, known),
        "card": lambda one: SteeringVectors(torch.ones(1, model.d_model), (0,), one),
        "field of a card": lambda one: Card(d_model=one),
        "kind of a card": lambda one: Card(d_model=4, kind=one),
        "only": v.only,
        "layer": lambda one: v[one],
        "norms": v.with_norms,
        "norm": lambda one: v.with_norms({0: one}),
        "file": v.save,
        "where": lambda one: model.run(Batch.of([model.prompt("hi")]), v.edits(one)),
        "applied": lambda one: v.applied(one).__enter__(),
        "sets": compare_vectors,
        "set": lambda one: compare_vectors({"a": one, "b": v}),
        "fit of": lambda one: check_fit(one, model),
        "fit with": lambda one: check_fit(v, one),
        "model of vectors": lambda one: one is None or load_vectors("smollm2-135m-instruct/all-layer", model=one),
    }


def of_the_base(model: Model, out: Path) -> Mapping[str, Callable[[Any], object]]:
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
        "out": lambda one: Toy(size=1).run(out=one, progress=False),
        "scorer": lambda one: one is None or Task.of([("a", "b")], scorer=one).grade(Task.of(["a"]).problems()[0], "c"),
        "scorer by name": lambda one: one is None or load_task("word-problems", scorer=one),
        "length": lambda one: Task.of(["a"], max_new_tokens=one),
        "name of a task": lambda one: Task.of(["a"], name=one),
        "system line of a task": lambda one: Task.of(["a"], system=one),
        "examples of a task": lambda one: Task.of(["a"], example=one),
        "given task": lambda one: Toy(size=1).run(task=one, out=out, progress=False),
    }


def wrong_calls(model: Model, out: Path) -> list[str]:
    wrong: list[str] = []
    for name, call in calls(model, out).items():
        for value in HOSTILE:
            try:
                call(value)
            except UserError as error:
                if "\n" in str(error) or " object at 0x" in str(error):
                    wrong.append(f"{name}: {error}")
            except Exception as error:
                wrong.append(f"{name} of {value!r:.40}: {type(error).__name__}: {str(error)[:90]}")
    return wrong


def test_public_functions_raise_nothing_but_user_errors(root: Path) -> None:
    command = [sys.executable, "-m", "tests.interp.test_hostile_calls"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr[-2000:]


if __name__ == "__main__":
    os.chdir(tempfile.mkdtemp())
    made = load_model(tiny.model("qwen2"), tokenizer=tiny.tokenizer())
    with contextlib.redirect_stdout(sys.stderr):
        found = wrong_calls(made, Path("runs"))
    sys.stdout.write("".join(f"{line}\n" for line in found))
