"""Texts shared between vectors of the last block are those that the model generates row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments import last_block
from experiments.first_position import APPLIED, where
from interp.completions import Completions
from interp.context import Context
from interp.edits import PerRow, per_row
from interp.model import Model
from interp.store import Store
from tests.experiments import toys

Asked = tuple[list[Any], PerRow, list[str]]


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


def context(model: Model, path: Path) -> Context:
    return Context(model=model, task=toys.task(), n=12, store=Store(path))


def asked(ctx: Context, model: Model, *, layer: int = toys.LAYERS - 1) -> Asked:
    """The base, four vectors at each set of positions, all on twelve problems."""
    problems = ctx.problems()
    prompts = ctx.prompts(problems)
    longest = max(len(prompt) for prompt in prompts)
    vectors = [toys.random(model, scale=1.0, layers=(layer,), seed=seed) for seed in range(4)]
    edits = [()] + [v.edits(where(applied, longest)) for v in vectors for applied in APPLIED[1:]]
    rows = per_row([one for one in edits for _ in problems])
    return prompts * len(edits), rows, [problem.id for problem in problems] * len(edits)


def generated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows that later calls generate."""
    counted: list[int] = []
    inner = Context.completions

    def count(ctx: Context, prompts: Any, *args: Any, **named: Any) -> Completions:
        counted.append(len(prompts))
        return inner(ctx, prompts, *args, **named)

    monkeypatch.setattr(Context, "completions", count)
    return counted


@pytest.mark.parametrize(("temperature", "samples"), [(1.0, 1), (0.7, 3), (0.0, 1)])
def test_shared_texts_equal_those_generated_alone(
    model: Model, runs: Path, monkeypatch: pytest.MonkeyPatch, temperature: float, samples: int
) -> None:
    plain_ctx, shared_ctx = context(model, runs / "plain"), context(model, runs / "shared")
    prompts, edits, keys = asked(plain_ctx, model)
    how: dict[str, Any] = {"temperature": temperature, "samples": samples, "keys": keys}
    plain = plain_ctx.completions(prompts, edits, **how)
    counted = generated(monkeypatch)
    shared = last_block.complete(shared_ctx, prompts, edits, **how)
    assert sum(counted) < len(prompts)
    assert [(row.prompt, row.sample, row.ids, row.ended) for row in shared.rows] == [
        (row.prompt, row.sample, row.ids, row.ended) for row in plain.rows
    ]
    assert shared.texts == plain.texts
    for one, other in zip(shared.rows, plain.rows, strict=True):
        assert one.entropy == pytest.approx(other.entropy, abs=1e-4)
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
    assert sorted(map(str, shared_ctx.take_fired())) == sorted(map(str, plain_ctx.take_fired()))


def test_vectors_of_an_earlier_block_share_nothing(model: Model, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = context(model, runs)
    prompts, edits, keys = asked(ctx, model, layer=0)
    counted = generated(monkeypatch)
    last_block.complete(ctx, prompts, edits, temperature=1.0, samples=1, keys=keys)
    assert counted == [len(prompts)]
