"""What a user wrote is identified by everything that can change what it does, or not at all."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from interp.edits import Custom
from interp.errors import UserError
from interp.grading import load_scorer
from interp.identity import UNSAVED, code_identity, identity_of, kept_identity
from interp.positions import EVERYWHERE, Positions
from interp.registry import load
from interp.sites import Site
from interp.tasks.task import Task

PLUGIN = """
import functools
import math

import torch

from interp import Add, Custom, Edit, Experiment, Site
from pack import inner
from pack.deep.low import LOW, low
from neighbour import SCALE, shift

FACTOR = 1.5  # constant
UNUSED = 2.5
TABLE = {"a": 3.5, "b": [4.5, {5.5}]}
WEIGHTS = torch.full((2,), 6.5)
SETTINGS = type("Settings", (), {"gain": 7.5})


def helper(value):
    def nested(value):
        return value * FACTOR + LOW
    return nested(value)


def edit(value, tokens, power=8.5, *, flat=9.5):
    return helper(value) * TABLE["a"] + WEIGHTS.sum() + SETTINGS.gain + shift(value) * inner.gain(value) * math.pi


def counted(value, tokens):
    return sum(part * counted.bias for part in (lambda x: x * 10.5,)[0](value))


counted.bias = 11.5
partial = functools.partial(edit, power=12.5)


def made(strength):
    def close(value, tokens):
        return value * strength
    return close


closed = made(13.5)


class Base:
    rate = 14.5

    def apply(self, site, value, tokens):
        return value * self.rate * self.strength * self._own()

    @staticmethod
    def _own():
        return 15.5


class Mine(Base):
    sites = (Site(0, "resid_post"),)
    by_row = True
    digest = "always the same"

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, value, tokens):
        return self.apply(None, value, tokens)

    def describe(self):
        return "mine"


OBJECT = Mine(16.5)
METHOD = OBJECT.apply
"""
FILES = {
    "mine.py": PLUGIN,
    "neighbour.py": "SCALE = 17.5\n\ndef shift(value):\n    return value * SCALE\n",
    "pack/__init__.py": "START = 18.5\n",
    "pack/inner.py": "from . import other\n\ndef gain(value):\n    return value * other.GAIN\n",
    "pack/other.py": "from .deep import low\nGAIN = 19.5\n",
    "pack/deep/__init__.py": "",
    "pack/deep/low.py": "LOW = 20.5\n\ndef low():\n    return 21.5\n",
}
SUBJECTS = ("edit", "counted", "partial", "closed", "OBJECT", "METHOD", "Mine")
SCRIPT = """
import sys
from interp.identity import code_identity
from interp.registry import load
for name in sys.argv[2:]:
    print(name, code_identity(load("patches", sys.argv[1] + ":" + name)))
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's modules, on the search path."""
    _write(tmp_path, FILES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pack", "neighbour")]:
        del sys.modules[name]


def _identities(folder: Path) -> dict[str, str]:
    """Identities as a new process sees them."""
    _forget()
    sys.path_importer_cache.clear()
    return {name: code_identity(load("patches", f"{folder / 'mine.py'}:{name}")) for name in SUBJECTS}


def test_any_constant_of_any_file_changes_every_identity(plugin: Path) -> None:
    """One after the other, each number in the plugin and in what it imports gets another value."""
    seen = {name: {identity} for name, identity in _identities(plugin).items()}
    numbers = [(file, number) for file, text in FILES.items() for number in re.findall(r"\b\d+\.5", text)]
    assert len(numbers) == len(set(numbers)) == 21
    for count, (file, number) in enumerate(numbers, start=2):
        _write(plugin, {file: re.sub(rf"\b{number}", "0.25", FILES[file])})
        for name, identity in _identities(plugin).items():
            seen[name].add(identity)
            assert len(seen[name]) == count, f"{name} is the same although {number} changed in {file}"
        _write(plugin, {file: FILES[file]})
    assert all(identity in seen[name] for name, identity in _identities(plugin).items())


def test_nothing_changes_from_process_to_process(plugin: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(plugin / "mine.py"), *SUBJECTS]
    environment = {**os.environ, "PYTHONPATH": str(plugin), "PYTHONHASHSEED": "1"}
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert there == "".join(f"{name} {identity}\n" for name, identity in _identities(plugin).items())


def test_values_count_as_they_are_now(plugin: Path) -> None:
    """What a notebook sets in a module after it was imported changes the identity, and setting it back restores it."""
    _forget()
    edit: Any = load("patches", f"{plugin / 'mine.py'}:edit")
    module: Any = sys.modules[edit.__module__]
    at: Any = edit.__globals__
    custom = Custom(Site(0, "resid_post"), edit)
    changes: list[tuple[Any, Any, Any, str]] = [
        (at, "FACTOR", 0.25, "a global of a helper"),
        (at["TABLE"], "a", 0.25, "an item of a global"),
        (at["TABLE"]["b"], 1, {0.25}, "a set inside of it"),
        (vars(sys.modules["neighbour"]), "SCALE", 0.25, "a global of a neighbour"),
        (vars(sys.modules["pack.other"]), "GAIN", 0.25, "a global of a module of a module"),
        (edit.__kwdefaults__, "flat", 0.25, "a default"),
    ]
    before, held = custom.digest, custom == Custom(Site(0, "resid_post"), edit)
    assert held and module is not None
    for holder, key, value, what in changes:
        old, holder[key] = holder[key], value
        assert custom.digest != before, what
        holder[key] = old
        assert custom.digest == before, what
    at["WEIGHTS"][1] = 0.25
    assert custom.digest != before
    at["WEIGHTS"][1] = 6.5
    at["SETTINGS"].gain = 0.25
    assert custom.digest != before


def test_each_part_of_a_callable_counts(plugin: Path) -> None:
    _forget()
    mine, made, edit, tools = (
        load("patches", f"{plugin / 'mine.py'}:{one}") for one in ("Mine", "made", "edit", "functools")
    )
    assert code_identity(mine(1.0)) == code_identity(mine(1.0)) != code_identity(mine(2.0))
    assert code_identity(made(1.0)) == code_identity(made(1.0)) != code_identity(made(2.0))
    assert code_identity(mine(1.0).apply) != code_identity(mine(2.0).apply)
    partial = tools.partial
    kinds = [partial(edit), partial(edit, power=1.0), partial(edit, power=2.0), partial(edit, 1.0)]
    assert len({code_identity(one) for one in kinds}) == 4
    lambdas = [lambda value, tokens: value, lambda value, tokens: 2 * value, lambda value, tokens: value * 2]
    assert len({code_identity(one) for one in lambdas}) == 3


def test_a_digest_of_the_users_own_is_not_trusted(plugin: Path) -> None:
    _forget()
    mine = load("patches", f"{plugin / 'mine.py'}:Mine")
    one, other = mine(1.0), mine(2.0)
    assert one.digest == other.digest == "always the same"
    assert identity_of(one) == identity_of(mine(1.0)) != identity_of(other)
    mine.rate = 0.25
    assert identity_of(one) != identity_of(other)
    changed = identity_of(one)
    mine.rate = 14.5
    assert identity_of(one) != changed


HIDDEN = {
    "opens a file": "return float(open('x').read())",
    "reads a path": "return pathlib.Path('x').read_text()",
    "loads tensors": "return torch.load('x')",
    "reads the environment": "return os.environ['X']",
    "asks for the environment": "return os.getenv('X')",
    "evaluates text": "return eval('FACTOR')",
    "asks for its globals": "return globals()['FACTOR']",
    "imports by name": "return importlib.import_module('x').X",
    "holds a lock": "return LOCK",
    "holds a generator": "return next(STREAM)",
    "in a function inside": "return (lambda: open('x'))()",
}


@pytest.mark.parametrize("body", HIDDEN.values(), ids=HIDDEN)
def test_what_reaches_outside_is_never_kept(body: str, tmp_path: Path) -> None:
    head = "import importlib, os, pathlib, threading\nimport torch\n"
    head += "LOCK = threading.Lock()\nSTREAM = iter(x for x in ())\n"
    (tmp_path / "mine.py").write_text(f"{head}FACTOR = 1\n\ndef edit(value, tokens):\n    {body}\n")
    edit = load("patches", f"{tmp_path / 'mine.py'}:edit")
    with pytest.raises(UserError):
        code_identity(edit)
    custom = Custom(Site(0, "resid_post"), edit)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert custom.digest.startswith(UNSAVED)
        assert custom.digest != custom.digest
        assert custom == Custom(Site(0, "resid_post"), edit)
    assert all("nothing computed with edit is kept" in str(one.message) for one in told)
    assert len(told) <= 1


def test_functions_of_notebooks_are_known_by_their_values() -> None:
    """Code that was typed in has no file: its code and all values that it uses stand for it."""

    def typed(factor: float, text: str = "return value * FACTOR + helper(value)") -> Any:
        space: dict[str, Any] = {"__name__": "__main__", "FACTOR": factor}
        exec(f"def helper(value):\n    return value - FACTOR\n\ndef edit(value, tokens):\n    {text}", space)
        return space["edit"]

    assert code_identity(typed(1.0)) == code_identity(typed(1.0))
    assert len({code_identity(typed(1.0)), code_identity(typed(2.0)), code_identity(typed(1.0, "return value"))}) == 3


def test_a_file_that_was_edited_is_run_again_and_a_stale_module_is_not_kept(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "mine.py"
    told: list[tuple[float, str]] = []
    for number in ("1.0", "2.0", "1.0"):
        file.write_text(f"FACTOR = {number}\n\ndef edit(value, tokens):\n    return value * FACTOR\n")
        edit = load("patches", f"{file}:edit")
        told.append((edit(1.0, None), code_identity(edit)))
    assert [value for value, _ in told] == [1.0, 2.0, 1.0]
    assert told[0] == told[2] != told[1]
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stale_one.py").write_text("def edit(value, tokens):\n    return value\n")
    stale_one: Any = importlib.import_module("stale_one")
    code_identity(stale_one.edit)
    (tmp_path / "stale_one.py").write_text("def edit(value, tokens):\n    return 2 * value\n")
    with pytest.raises(UserError, match=r"stale_one\.py changed after it was imported"):
        code_identity(stale_one.edit)


def test_the_folder_does_not_count(tmp_path: Path) -> None:
    texts = {"a": "X = 1\n\ndef edit(value, tokens):\n    return X\n"}
    for folder in ("one", "two"):
        _write(tmp_path / folder, {"mine.py": texts["a"]})
    one, two = (code_identity(load("patches", f"{tmp_path / folder / 'mine.py'}:edit")) for folder in ("one", "two"))
    assert one == two


SCORER = """
from interp.grading import Grade
MOST = {most}


def right(text, answer):
    return len(text) < MOST


class Own:
    spec = "own"

    def __call__(self, text, answer):
        return Grade(len(text) < MOST, False, None)
{more}
"""


def test_scorers_count_with_their_helpers(tmp_path: Path) -> None:
    digests: list[str] = []
    for most, more in itertools.product((1, 2), ("", "# more")):
        (tmp_path / "mine.py").write_text(SCORER.format(most=most, more=more))
        for name in ("right", "Own"):
            task = Task.of([("a", "b")], scorer=load_scorer(f"{tmp_path / 'mine.py'}:{name}"))
            assert task.digest == task.digest
            digests.append(task.digest)
    assert len(set(digests)) == 8
    task = Task.of([("a", "b")], scorer=load_scorer(f"{tmp_path / 'mine.py'}:Own"))
    call: Any = task.scorer.__call__
    call.__func__.__globals__["MOST"] = 3
    assert task.digest not in digests


def test_classes_of_this_project_keep_their_digests() -> None:
    """Shipped cards and records name them."""
    from interp.edits import Add

    edit = Add(Site(1, "resid_post"), torch.ones(4))
    assert identity_of(edit) == edit.digest
    assert kept_identity(EVERYWHERE, "positions") == kept_identity(Positions(), "positions")


def test_a_module_is_a_value() -> None:
    module = ModuleType("typed_in")
    vars(module)["X"] = 1

    def edit(value: float, tokens: object) -> float:
        del tokens
        return value * module.X

    before = code_identity(edit)
    vars(module)["X"] = 2
    assert code_identity(edit) != before


GLOBAL_PARTS = """
import re
import types

S = 1
PATTERN = re.compile("a")
HOLDER = types.SimpleNamespace(x=1)


class Slots:
    __slots__ = ("x",)

    def __init__(self):
        self.x = 1

    def __reduce__(self):
        return Slots, ()

    def __call__(self, value, tokens):
        return value * self.x


SLOTS = Slots()


def pattern(value, tokens):
    return value if PATTERN.match("a") else 2 * value


def by_text(value, tokens):
    import named_by_text as module

    return value * getattr(module, "S")


def inside(value, tokens):
    from named_by_text import S

    return value * S
"""


def test_what_is_named_by_a_text_or_imported_on_each_call_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, {"named_by_text.py": GLOBAL_PARTS})
    monkeypatch.syspath_prepend(str(tmp_path))
    module: Any = importlib.import_module("named_by_text")
    changes: dict[str, Callable[[], None]] = {
        "pattern": lambda: setattr(module, "PATTERN", re.compile("a", re.IGNORECASE)),
        "by_text": lambda: setattr(module, "S", 2),
        "inside": lambda: setattr(module, "S", 3),
        "SLOTS": lambda: setattr(module.SLOTS, "x", 2),
    }
    for name, change in changes.items():
        before = code_identity(getattr(module, name))
        assert code_identity(getattr(module, name)) == before
        change()
        assert code_identity(getattr(module, name)) != before, name
    sys.modules.pop("named_by_text")


def test_common_random_streams_the_clock_and_processes_have_no_identity() -> None:
    import random
    import time

    own = random.Random(0)
    refused: list[Callable[..., object]] = [
        lambda value, tokens: value + torch.randn_like(value),
        lambda value, tokens: value * random.random(),
        lambda value, tokens: value * time.time(),
        lambda value, tokens: value * len(subprocess.check_output("date")),
        lambda value, tokens: value * len(sys.argv),
    ]
    for function in refused:
        with pytest.raises(UserError, match="cannot be told"):
            code_identity(function)
    kept: list[Callable[..., object]] = [
        lambda value, tokens: value + torch.randn(4, generator=torch.Generator().manual_seed(0)),
        lambda value, tokens: value * own.random(),
        lambda value, tokens: value * (2 if "open" in str(tokens) else 1),
    ]
    for function in kept:
        assert code_identity(function)
