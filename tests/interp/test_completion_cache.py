"""Completions are made once; what is read back equals what would be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from interp import completion_cache
from interp.completion_cache import Request, complete
from interp.edits import Add, Edits, per_row
from interp.load import load_model
from interp.model import Model
from interp.positions import Positions
from interp.prompts import Prompt
from interp.sites import Site
from tests.interp import tiny


@pytest.fixture(scope="module")
def tiny_model() -> Model:
    return load_model(tiny.model("qwen2"), tokenizer=tiny.tokenizer())


def prompts(count: int) -> tuple[Prompt, ...]:
    return tuple(Prompt(tuple(row)) for row in tiny.token_ids(count, 12).tolist())


def vector(seed: int = 0, positions: Positions | None = None) -> Add:
    direction = 4 * torch.randn(48, generator=torch.Generator().manual_seed(seed))
    return Add(Site(1, "resid_post"), direction, positions=positions or Positions())


def request(count: int = 3, edits: Edits = (), samples: int = 2, temperature: float = 1.0, seed: int = 0) -> Request:
    keys = tuple(f"problem-{i}" for i in range(count))
    return Request(prompts(count), edits, 6, temperature, samples, seed, keys)


class Counted:
    """How many prompts were really completed."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[int] = []
        made = type(model).generate

        def generate(model: Model, asked: tuple[Prompt, ...], *rest: object, **named: object) -> object:
            self.calls.append(len(asked))
            return made(model, asked, *rest, **named)  # pyright: ignore[reportArgumentType]

        monkeypatch.setattr(type(model), "generate", generate)


@pytest.fixture
def counted(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(tiny_model, monkeypatch)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "edits",
    [(), (vector(),), (vector(positions=Positions(prompt="none")),), per_row([[vector()], [], [vector(1), vector()]])],
    ids=["base", "vector", "generated only", "by row"],
)
def test_what_is_read_equals_what_was_made(
    tiny_model: Model, tmp_path: Path, counted: Counted, edits: Edits, temperature: float
) -> None:
    asked = request(edits=edits, temperature=temperature)
    made = complete(tiny_model, asked, tmp_path)
    read = complete(tiny_model, asked, tmp_path)
    assert counted.calls == [3]
    assert (read.rows, read.texts) == (made.rows, made.texts)
    assert {one.edit: one.touched for one in read.fired} == {one.edit: one.touched for one in made.fired}


def test_only_what_is_missing_is_made(tiny_model: Model, tmp_path: Path, counted: Counted) -> None:
    few = complete(tiny_model, request(2), tmp_path)
    more = complete(tiny_model, request(4), tmp_path)
    assert counted.calls == [2, 2]
    assert more.texts[:4] == few.texts
    alone = complete(tiny_model, request(4), tmp_path / "fresh")
    assert [row.ids for row in more.rows] == [row.ids for row in alone.rows]


def test_conditions_in_one_batch_share_with_conditions_alone(
    tiny_model: Model, tmp_path: Path, counted: Counted
) -> None:
    base = complete(tiny_model, request(2), tmp_path)
    both = request(2)
    asked = Request(both.prompts * 2, per_row([[], [], [vector()], [vector()]]), 6, 1.0, 2, 0, (both.keys or ()) * 2)
    mixed = complete(tiny_model, asked, tmp_path)
    assert counted.calls == [2, 2]
    assert mixed.texts[:4] == base.texts


def test_what_can_change_a_token_is_told_apart(tiny_model: Model, tmp_path: Path, counted: Counted) -> None:
    complete(tiny_model, request(), tmp_path)
    for other in (request(seed=1), request(temperature=0.7), request(edits=(vector(),)), request(edits=(vector(1),))):
        complete(tiny_model, other, tmp_path)
    assert counted.calls == [3] * 5
    complete(tiny_model, request(samples=1), tmp_path)
    assert counted.calls == [3] * 5, "fewer samples of the same streams are there already"


def test_foreign_hooks_are_never_recalled(tiny_model: Model, tmp_path: Path, counted: Counted) -> None:
    complete(tiny_model, request(), tmp_path)
    with tiny_model.hooked.hooks([("blocks.0.hook_resid_post", lambda value, hook: value * 2)]):
        complete(tiny_model, request(), tmp_path)
    complete(tiny_model, request(), tmp_path)
    assert counted.calls == [3, 3]


def test_a_killed_process_keeps_a_request_whole(
    tiny_model: Model, tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(edits=per_row([[vector()], [], [vector(1)]]))
    write, written = completion_cache._write, list[Path]()

    def killed(folder: Path, *about: Any) -> Path:
        if len(written) == 2:  # the journal and one of three folders
            raise KeyboardInterrupt
        written.append(write(folder, *about))
        return written[-1]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(completion_cache, "_write", killed)
        complete(tiny_model, asked, tmp_path)
    undisturbed = complete(tiny_model, asked, tmp_path / "fresh")
    rerun = complete(tiny_model, asked, tmp_path)
    assert counted.calls == [3, 3]
    assert (rerun.rows, rerun.texts) == (undisturbed.rows, undisturbed.texts)
    assert not list((tmp_path / completion_cache.JOURNAL).iterdir())


def test_a_journal_writes_nowhere_else(tiny_model: Model, tmp_path: Path) -> None:
    kept = tmp_path / "a" / "completions"
    row = {"prompt": "p", "sample": 0, "ids": [1], "ended": True, "log_prob": [0.0], "entropy": [0.0], "text": "t"}
    hostile = [{**row, "folder": name} for name in ("../../outside", str(tmp_path / "outside"), "..", "")]
    completion_cache._write(kept / completion_cache.JOURNAL, hostile, completion_cache._journal_schema())
    complete(tiny_model, request(), kept)
    assert {path.name for path in tmp_path.rglob("*.parquet")} == {path.name for path in kept.glob("*/*.parquet")}
    assert not (tmp_path / "outside").exists()
