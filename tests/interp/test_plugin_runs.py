"""Runs with parts that a user wrote: what is recalled, what is computed again, how it is repeated, who made it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from figures.origin import origin_of
from interp import Context, Custom, Site, Store, given, open_run
from interp.cli import app
from interp.provenance import class_source
from interp.registry import load
from interp.store import RunRecord
from interp.testing import tiny_model, tiny_task, tiny_vectors

EDIT = """
FACTOR = {factor}


def scale(value, tokens):
    return value * FACTOR
"""
EXPERIMENT = """
from typing import ClassVar

import pandas as pd
from interp import Batch, Cell, Declaration, Experiment
from base import Mixin


class Measured(Mixin, Experiment):
    \"\"\"The largest probability.\"\"\"

    needs = ("model",)
    columns = {{"x": "a number", "p": "a probability"}}
    declaration = Declaration("x", "problem", "mean", "none", ("none",), margin=0.05)
    rate: ClassVar[float] = {rate}
    names: tuple[str, ...] = ("./my readouts.py:P",)
    \"\"\"Readouts.\"\"\"

    def measure(self, ctx, cells):
        batch = Batch.of([ctx.model.prompt("2 + 2?")])
        frames = [ctx.model.score(batch, (), [name]) for name in self.names]
        return pd.concat(frames).assign(x=self.rate * self.own)[["x", "p"]]
"""
READOUT = """
class P:
    columns = {{"p": "a probability"}}

    def __call__(self, rows):
        return {{"p": [{value}] * len(rows.base)}}
"""
TOY = """
import pandas as pd
from interp import Cell, Declaration, Experiment


class Toy(Experiment):
    \"\"\"Nothing.\"\"\"

    needs = ()
    columns = {"x": "a number"}
    declaration = Declaration("x", "problem", "mean", "none", ("none",), margin=0.05)
    note: str = ""
    \"\"\"Text.\"\"\"
    most: int | None = 3
    \"\"\"Number.\"\"\"
    rates: tuple[float, ...] = (1.0,)
    \"\"\"Numbers.\"\"\"

    def measure(self, ctx, cells):
        return pd.DataFrame({"x": [1.0]})
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory that is on the search path."""
    folder = tmp_path / "work here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_completions_under_an_edited_function_are_made_again(here: Path) -> None:
    ctx = Context(tiny_model(), None, tiny_task(), n=2, store=Store(here / "runs"))
    prompts = ctx.prompts(ctx.problems())
    texts: dict[float, Any] = {}
    for factor in (1.0, -1.0, 1.0):
        (here / "mine.py").write_text(EDIT.format(factor=factor))
        edit = Custom(Site(1, "resid_post"), load("patches", "./mine.py:scale"))
        kept = ctx.completions(prompts, [edit], temperature=0.0, max_new_tokens=4)
        fresh = ctx.model.generate(prompts, [edit], temperature=0.0, max_new_tokens=4)
        assert kept.texts == fresh.texts
        assert texts.setdefault(factor, kept.texts) == kept.texts
        assert [row.ids for row in kept.rows] == [row.ids for row in fresh.rows]
    assert len(list((here / "runs" / "completions").glob("*/*.parquet"))) == 2


def test_nothing_is_written_for_an_edit_without_identity(here: Path) -> None:
    (here / "mine.py").write_text(
        "def scale(value, tokens):\n    with open('x') as file:\n        return value * float(file.read())\n"
    )
    (here / "x").write_text("1.0")
    ctx = Context(tiny_model(), None, tiny_task(), n=1, store=Store(here / "runs"))
    edit = Custom(Site(1, "resid_post"), load("patches", "./mine.py:scale"))
    with pytest.warns(UserWarning, match="nothing computed with scale is kept: scale uses `open`"):
        ctx.completions(ctx.prompts(ctx.problems()), [edit], temperature=0.0, max_new_tokens=2)
    assert not list((here / "runs").rglob("*.parquet"))


def test_an_experiment_counts_its_bases_attributes_and_the_plugins_that_it_names(here: Path) -> None:
    """After each change of a part the run shows the new number; without one it is recalled."""
    parts: dict[str, Any] = {"rate": 2.0, "own": 3.0, "value": 0.5}

    def measured() -> tuple[float, float, str]:
        (here / "mine.py").write_text(EXPERIMENT.format(rate=parts["rate"]))
        (here / "base.py").write_text(f"class Mixin:\n    own = {parts['own']}\n")
        (here / "my readouts.py").write_text(READOUT.format(value=parts["value"]))
        run = load("experiments", "./mine.py:Measured")(n=1).run(tiny_model(), out="runs", progress=False)
        return run.frame["x"].iloc[0], run.frame["p"].iloc[0], run.provenance["started"] + run.provenance["source"]

    assert measured()[:2] == (6.0, 0.5)
    first = measured()
    assert first == measured()
    for name, value in (("rate", 5.0), ("value", 0.25)):
        parts[name] = value
        assert measured()[:2] == (parts["rate"] * parts["own"], parts["value"]), name
    kind = load("experiments", "./mine.py:Measured")
    before = class_source(kind)
    kind.rate = 9.0
    assert class_source(kind) != before
    (here / "base.py").write_text("class Mixin:\n    own = 77.0\n")
    with pytest.warns(UserWarning, match=r"base\.py changed after it was imported"):
        assert class_source(kind).startswith("unsaved-")
    sys.modules.pop("base")


def test_vectors_that_a_function_computes_follow_the_function(here: Path) -> None:
    source = "import torch\nfrom vectors import Card, SteeringVectors\nSIZE = {}\n\n\ndef made(model, task):\n"
    source += "    return SteeringVectors(SIZE * torch.ones(1, model.d_model), (1,), Card(d_model=model.d_model))\n"
    for size in (1.0, 2.0, 1.0):
        (here / "mine.py").write_text(source.format(size))
        v = given.as_vectors("./mine.py:made", tiny_model(), tiny_task(), keep=here)
        assert torch.equal(v.directions, size * torch.ones(1, tiny_model().d_model))
    assert len(list((here / "vectors").glob("*.safetensors"))) == 2


PLACES = ("./mine.py", "./sub dir/mine.py", "sub dir/mine.py", "../else where/mine.py", "{above}/else where/mine.py")


@pytest.mark.parametrize("place", PLACES)
def test_a_recipe_repeats_the_run_from_the_same_folder(place: str, here: Path) -> None:
    place = place.format(above=here.parent)
    Path(place).parent.mkdir(exist_ok=True)
    Path(place).write_text(TOY)
    words = ["run", f"{place}:Toy", "--note", 'it\'s $HOME, "x" ; *', "--most", "none", "--rates=-1,2.5"]
    words += ["--out", "my runs"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    run = open_run(done.stdout.strip().splitlines()[-1])
    assert str(here.parent) not in (run.record.path / "run.json").read_text()
    command = shlex.split(run.recipe().command)
    assert command[0] == "interp"
    again = CliRunner().invoke(app, command[1:])
    assert again.stdout.strip().splitlines()[-1] == str(run.record.path)
    space: dict[str, Any] = {}
    exec(run.recipe().python, space)
    assert space["run"].record.path.resolve() == run.record.path.resolve()
    assert space["run"].settings == run.settings == {**run.settings, "most": None, "rates": [-1.0, 2.5]}
    assert origin_of(run.record) == "File mine.py"


def test_a_recipe_repeats_files_of_vectors_tasks_and_prompts(here: Path) -> None:
    model = tiny_model()
    (here / "my data").mkdir()
    tiny_vectors(model, here / "my data").save(here / "my data" / "v 1.safetensors")
    (here / "my data" / "p.txt").write_text("2 + 2?\n")
    (here / "my data" / "t.jsonl").write_text('{"problem": "2 + 2?", "answer": "4"}\n')
    (here / "mine.py").write_text(TOY.replace("Toy", "Other").replace("needs = ()", "needs = ('vectors', 'task')"))
    vectors = str(here / "my data" / "v 1.safetensors")
    for flag, file in (("--prompts", "my data/p.txt"), ("--task", str(here / "my data" / "t.jsonl"))):
        words = ["run", "./mine.py:Other", "--vectors", vectors, flag, file, "--foreign"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        run = open_run(done.stdout.strip().splitlines()[-1])
        recipe = run.recipe()
        assert str(here) not in str(recipe)
        again = CliRunner().invoke(app, shlex.split(recipe.command)[1:])
        assert again.stdout.strip().splitlines()[-1] == str(run.record.path), recipe.command
        space: dict[str, Any] = {}
        exec(recipe.python, space)
        assert space["run"].key == run.key


@pytest.mark.parametrize(
    ("meta", "head"),
    [
        ({"experiment": "path-patching", "target": "experiments.path_patching:PathPatching"}, "Figures 5, 6, 20, 21"),
        ({"experiment": "magnitude", "target": "experiments.magnitude:Magnitude"}, "This project"),
        ({"experiment": "path-patching", "target": "their.code:PathPatching"}, "Package their"),
        ({"experiment": "x", "target": "their.code:X", "offered_by": "plugin their-plugin"}, "Plugin their-plugin"),
        ({"experiment": "x", "target": "../a/mine.py:X"}, "File mine.py"),
        ({"experiment": "x", "target": "__main__:X"}, "Notebook"),
    ],
)
def test_a_report_says_where_an_experiment_comes_from(meta: dict[str, Any], head: str, tmp_path: Path) -> None:
    assert origin_of(RunRecord(tmp_path, meta)) == head
