"""The same command gives the same numbers; batches and chunks of other sizes change roundings only."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from experiments import AccuracyByLayer
from interp import Model, load_model, runner
from interp.prompts import Prompt
from interp.tasks.files import from_jsonl
from tests.faults.conftest import Start
from tests.faults.jobs import Place, long_prompts
from tests.faults.test_kills import arguments, ended, environment, results, same
from tests.vectors.test_train import chosen, equal, first_rollout, gradients, moved, task, toy_model
from vectors import load_vectors
from vectors.train import parameters as training
from vectors.train import passes
from vectors.train.passes import backward

pytestmark = pytest.mark.faults

ROWS, TOKENS = 256, 64


@pytest.fixture(scope="module")
def tiny_model(place: Place) -> Model:
    return load_model(place.model)


@pytest.mark.parametrize("name", ["run", "train"])
def test_the_same_command_twice(name: str, place: Place, start: Start, tmp_path: Path) -> None:
    log, found = tmp_path / "log", list[dict[str, Any]]()
    for number in range(2):
        out = tmp_path / str(number)
        ended(start(arguments(name, place, out), environment(name, place, out), str(log)), log)
        found.append(results(out))
    assert found[0] and set(found[0]) == set(found[1])
    assert all(same(found[0][one], found[1][one]) for one in found[0])


def drawn(model: Model, prompts: list[Prompt], size: int) -> list[tuple[int, ...]]:
    """Sampled tokens of each prompt, `size` prompts in a batch."""
    keys = [str(index) for index in range(len(prompts))]
    batches = [slice(first, first + size) for first in range(0, len(prompts), size)]
    return [
        row.ids
        for some in batches
        for row in model.generate(prompts[some], max_new_tokens=TOKENS, temperature=1.0, keys=keys[some]).rows
    ]


def test_how_often_a_sampled_token_depends_on_the_batch(tiny_model: Model, survived: Counter[str]) -> None:
    """A token differs where the random number falls between two roundings of one probability: one in a million."""
    prompts = long_prompts(ROWS, 12)
    alone = drawn(tiny_model, prompts, 1)
    for size in (7, ROWS):
        together = drawn(tiny_model, prompts, size)
        pairs = list(zip(alone, together, strict=True))
        first = [next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), None) for pair in pairs]
        survived["sampled tokens compared over batch sizes"] += sum(map(len, together))
        survived["sampled tokens that differ"] += sum(one is not None for one in first)
    assert survived["sampled tokens compared over batch sizes"] > 1000
    assert survived["sampled tokens that differ"] <= survived["sampled tokens compared over batch sizes"] / 1000


def test_probabilities_agree_up_to_rounding(tiny_model: Model) -> None:
    prompts = long_prompts(32, 20)
    made = [tiny_model.generate(prompts[:n], max_new_tokens=4, temperature=0.0) for n in (1, 32)]
    for one, other in zip(made[0].rows, made[1].rows, strict=False):
        assert one.ids == other.ids
        torch.testing.assert_close(torch.tensor(one.log_prob), torch.tensor(other.log_prob), rtol=0, atol=1e-4)


def test_other_chunks_and_other_batches_give_the_same_frame(
    place: Place, tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, problems = load_vectors(place.vectors), from_jsonl(place.task)
    experiment = AccuracyByLayer.at("smoke", n=6)

    def frame(name: str, memory: float | None = None) -> pd.DataFrame:
        return experiment.run(tiny_model, vectors, problems, out=tmp_path / name, memory=memory, progress=False).frame

    usual = frame("usual")
    few = frame("few", memory=1e-5)
    monkeypatch.setattr(runner, "CHUNK_SECONDS", 0.0)
    cells = frame("cells")
    for other in (few, cells):
        pd.testing.assert_frame_equal(usual, other, check_exact=False, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["vector", "rank1", "full"])
def test_training_with_chunks_halved_for_lack_of_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt fails after a chunk has left its gradient; the second one starts from none."""
    made = training.start(toy_model(), chosen(kind=kind, prompts=5, samples=4).checked(3), dict.fromkeys(range(3), 1.0))
    if kind != "full":
        moved(made)
    rollout = first_rollout(made, task())
    loss = backward(made, rollout)
    expected = gradients(made)
    for tensor in made.tensors.values():
        tensor.grad = None
    calls: list[int] = []
    whole = passes._Sharing.chunk

    def chunk(self: Any, some: passes.Chunk) -> float:
        calls.append(len(some.rows))
        found = whole(self, some)
        if len(calls) == 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return found

    monkeypatch.setattr(passes._Sharing, "chunk", chunk)
    with pytest.warns(UserWarning, match="out of memory with 32 completions at a time; going on with 16"):
        assert backward(made, rollout) == pytest.approx(loss, rel=1e-9)
    for name, gradient in gradients(made).items():
        assert equal(gradient, expected[name]), name
