"""`path/to/file.py:Name` works wherever a name does, and an object that is called is not mistaken for its maker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import sae
from interp import given, load_model, load_task, registry
from interp.batch import Batch
from interp.cli import app
from interp.errors import UserError
from interp.grading import load_scorer
from interp.model import Model
from interp.run import open_run
from interp.scoring import chosen_readouts
from interp.testing import tiny_model
from tests.interp.toy import Toy
from vectors import SteeringVectors, convert, load_vectors
from vectors.formats import find

MINE = '''
from functools import partial
from pathlib import Path

import click
import plotly.graph_objects as go
import torch

from interp import CLEAN, BlockPaths, Custom, Edit, Experiment, Site, Task
from interp.readouts import LogOdds, TopTokens
from interp.testing import tiny_model
from vectors import Card, SteeringVectors
from vectors.formats.base import Format


class ProbOf:
    columns = {"p": "probability of a token with the edits"}

    def __init__(self, token=5):
        self.token = token

    def __call__(self, rows):
        return {"p": rows.steered[:, self.token].exp().tolist()}


class Needy(ProbOf):
    def __init__(self, token):
        self.token = token


class Broken(ProbOf):
    def __init__(self):
        raise TypeError("mine")


PROB = ProbOf(7)
MAKER = partial(ProbOf, 9)
ODDS = LogOdds((28,))


def make():
    return ProbOf(11)


TASK = Task.of([("2 + 2?", "4")], name="sums")


class Called(Task):
    def __call__(self):
        raise AssertionError("a task is not made by calling it")


CALLED = Called("called", TASK.source)
VECTORS = SteeringVectors(torch.eye(tiny_model().d_model)[:1], (1,), Card(d_model=tiny_model().d_model))
MODEL = tiny_model()
HOOKED = tiny_model().hooked
NUMBER = 3


def vectors():
    return VECTORS


def computed(model, task):
    return VECTORS


def place():
    return Path(__file__).parent / "saved.safetensors"


def model():
    return MODEL


def figure(run):
    return go.Figure(layout={"title": "mine"})


def matches(path):
    return path.suffix == ".mine"


def write(path, vectors):
    torch.save(vectors.directions, path)
    return path


FORMAT = Format("mine", "torch", matches, lambda path, options: VECTORS, write)
KEYS_ONLY = BlockPaths(q=CLEAN)
OFF = Custom(Site(1, "z"), lambda value, tokens: 0 * value)


def right(text, answer):
    return text == answer


@click.command()
def hello():
    """Say hello."""
    click.echo("hello")
'''


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a user's file, in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("my files")
    (folder / "mine.py").write_text(MINE)
    return str(folder / "mine.py")


def test_readouts_by_name_are_objects_classes_and_functions(mine: str) -> None:
    named = [f"{mine}:{name}" for name in ("ProbOf", "PROB", "MAKER", "make")]
    tokens: list[Any] = [getattr(one, "token", None) for one in chosen_readouts(named)]
    assert tokens == [5, 7, 9, 11]
    model = tiny_model()
    batch = Batch.of([model.prompt("2 + 2?")])
    for name, token in zip(named, tokens, strict=True):
        frame = model.score(batch, (), [name])
        expected = model.run(batch).log_probs()[0, -1, token].exp()
        assert frame["p"].iloc[0] == pytest.approx(float(expected), rel=1e-5)
    assert model.score(batch, (), [f"{mine}:ODDS"]).columns[-1] == "delta_log_odds"


@pytest.mark.parametrize(
    ("name", "says"),
    [("Needy", r"NAME = Needy\(\.\.\.\)"), ("NUMBER", "this is no readout"), ("right", "must be told more")],
)
def test_what_is_no_readout_is_refused_in_one_line(mine: str, name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        chosen_readouts([f"{mine}:{name}"])


def test_a_mistake_inside_a_readout_is_not_hidden(mine: str) -> None:
    with pytest.raises(TypeError, match="mine"):
        chosen_readouts([f"{mine}:Broken"])


def test_tasks_and_scorers(mine: str) -> None:
    assert load_task(f"{mine}:TASK").name == "sums"
    assert load_task(f"{mine}:CALLED").name == "called"
    assert load_scorer(f"{mine}:right")("4", "4").right is True
    with pytest.raises(UserError, match="not a task"):
        load_task(f"{mine}:NUMBER")


def test_models(mine: str) -> None:
    for name in ("MODEL", "HOOKED", "model"):
        loaded = load_model(f"{mine}:{name}")
        assert isinstance(loaded, Model)
        assert loaded.hooked is tiny_model().hooked


def test_vectors_of_every_kind_for_every_taker(mine: str, tmp_path: Path) -> None:
    model, task = tiny_model(), load_task(f"{mine}:TASK")
    load_vectors(f"{mine}:VECTORS").save(Path(mine).parent / "saved.safetensors")
    for name in ("VECTORS", "vectors", "computed", "place"):
        found = given.as_vectors(f"{mine}:{name}", model, task, keep=tmp_path)
        assert torch.equal(found.directions, torch.eye(model.d_model)[:1])
    for name in ("VECTORS", "vectors", "place"):
        assert isinstance(load_vectors(f"{mine}:{name}", model=model), SteeringVectors)
        assert convert(f"{mine}:{name}", tmp_path / f"{name}.safetensors").is_file()
    with pytest.raises(UserError, match="a model and a task"):
        load_vectors(f"{mine}:computed")
    with pytest.raises(UserError, match="these are no vectors"):
        given.as_vectors(f"{mine}:NUMBER")


def test_formats_figures_patches_autoencoders_and_commands(mine: str, tmp_path: Path) -> None:
    assert find(f"{mine}:FORMAT").name == "mine"
    with pytest.raises(UserError, match="no format"):
        find(f"{mine}:NUMBER")
    done = CliRunner().invoke(
        app, ["vectors", "convert", f"{mine}:VECTORS", str(tmp_path / "x"), "--to", f"{mine}:FORMAT"]
    )
    assert done.exit_code == 0, done.output
    run = Toy().run(out=tmp_path, progress=False)
    assert open_run(run.record.path).figure(f"{mine}:figure").layout.title.text == "mine"
    with pytest.raises(UserError, match="no figure"):
        open_run(run.record.path).figure(f"{mine}:NUMBER")
    with pytest.raises(UserError, match="no autoencoder"):
        sae.load(f"{mine}:NUMBER")
    assert CliRunner().invoke(app, [f"{mine}:hello"]).output == "hello\n"
    assert isinstance(CliRunner().invoke(app, [f"{mine}:NUMBER"]).exception, UserError)


def test_every_group_takes_a_file(mine: str) -> None:
    for group in registry.GROUPS:
        assert registry.load(group, f"{mine}:NUMBER") == 3
        assert registry.is_name(group, f"{mine}:NUMBER")
