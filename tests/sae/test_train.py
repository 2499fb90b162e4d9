"""Training on a tiny model: what is saved is what was trained, and the report is measured on other problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click.testing
import pytest
import torch
from sae_lens import SAE

import sae
from interp.batch import Batch
from interp.completions import paired_rows
from interp.errors import UserError
from interp.model import Model
from interp.sites import Site
from sae.command import command
from sae.report import Report, explained, recovery, sparsity
from sae.source import again, chunks
from sae.training import SCALES, TrainSettings
from tests.experiments import toys
from tests.sae.toys import dictionary, exact

SMALL = TrainSettings(features=64, k=4, problems=24, held_out=8, steps=150, batch=64, buffer=256, rate=3e-3)


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def vectors(model: Model) -> Any:
    return toys.random(model, scale=6.0, layers=(0,))


def task() -> Any:
    return toys.task(splits={"train": 24, "validation": 8, "test": 8})


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
@pytest.mark.parametrize("of", ["change", "stream"])
def test_a_trained_one_explains_other_problems(model: Model, vectors: Any, tmp_path: Path, of: Any, kind: Any) -> None:
    settings = SMALL.model_copy(update={"of": of, "kind": kind, "layer": 1})
    made = sae.train(model, vectors, task(), settings, out=tmp_path, say=lambda _: None)
    assert made.report.explained > 0.4
    if kind == "topk":
        assert made.report.l0 == made.report.l0_trained == 4.0
    assert made.dictionary.card.of == of
    again_loaded = sae.load(made.path, model)
    assert again_loaded == made.dictionary
    x = torch.randn(3, model.d_model)
    assert torch.equal(again_loaded.encode(x), SAE.load_from_disk(made.path).encode(x))
    assert made.dictionary.card.report == made.report.model_dump()
    if of == "change":
        made.dictionary.check_vectors(vectors)
        assert 0 < made.report.recovered <= 1
        with pytest.raises(UserError, match="describes the change by other vectors"):
            made.dictionary.check_vectors(2 * vectors)


def test_the_same_seed_trains_the_same_autoencoder(model: Model, vectors: Any, tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"steps": 5, "layer": 1})
    made = [sae.train(model, vectors, task(), settings, out=tmp_path / name, say=lambda _: None) for name in "ab"]
    assert made[0].dictionary.digest == made[1].dictionary.digest


def test_where_the_change_is_a_constant_nothing_is_trained(model: Model, vectors: Any, tmp_path: Path) -> None:
    for layer, message in ((0, "the change is the same for every token"), (9, "the model has blocks 0 to 2")):
        settings = SMALL.model_copy(update={"layer": layer})
        with pytest.raises(UserError, match=message):
            sae.train(model, vectors, task(), settings, out=tmp_path, say=lambda _: None)


def test_activations_are_the_change_at_problem_and_completion_tokens(model: Model, vectors: Any) -> None:
    """Against plain passes over the same rows."""
    site, problems = Site(1, "resid_post"), task().problems("train")[:3]
    prompts = [task().prompt(model.tokenizer, problem) for problem in problems]
    keys = [problem.id for problem in problems]
    edits = vectors.edits()
    found = torch.cat(list(chunks(model, prompts, keys, edits, site, of="change", max_new_tokens=5, seed=0)))
    said = model.generate(prompts, edits, max_new_tokens=5, keys=keys)
    batch = Batch.of(*paired_rows(said))
    change = model.run(batch, edits, read=[site])[site] - model.run(batch, read=[site])[site]
    expected: list[torch.Tensor] = []
    for row, (completion, _) in enumerate(said):
        own = change[row][batch.mask[row]]
        first, stop = prompts[row].spans["problem"]
        length = len(prompts[row])
        inside = [at for at in range(first, stop) if batch.ids[row][batch.mask[row]][at] > 3]
        expected += [own[inside], own[length - 1 : length - 1 + len(completion.ids)]]
    expected_rows = torch.cat(expected)
    assert len(found) == len(expected_rows)
    ours, theirs = (rows[rows[:, 0].argsort()] for rows in (found, expected_rows))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_later_rounds_have_the_same_chunks_in_another_order() -> None:
    first = [torch.full((1, 1), float(number)) for number in range(6)]
    stream = again(iter(first), seed=0)
    drawn = [float(next(stream)) for _ in range(18)]
    assert drawn[:6] == [0, 1, 2, 3, 4, 5]
    assert sorted(drawn[6:12]) == sorted(drawn[12:]) == drawn[:6]
    assert drawn[6:12] != drawn[12:]


def test_quality_by_hand(model: Model, vectors: Any) -> None:
    x = torch.tensor([[0.0, 0], [2, 0], [0, 2], [2, 2]])
    assert explained(x, x) == 1.0
    assert explained(x, x.mean(0).expand_as(x)) == pytest.approx(0.0)
    assert explained(x, x + torch.tensor([1.0, 0])) == pytest.approx(0.5)
    found = dictionary(model)
    l0, dead = sparsity(found, torch.randn(50, model.d_model, generator=torch.Generator().manual_seed(0)))
    assert l0 <= 4 and 0 <= dead < 1
    told = {"kl": 0.1, "recovered": 0.9, "tokens": 10}
    assert Report(explained=0.61, l0_trained=16, l0=18, dead=0.29, **told).good  # pyright: ignore[reportArgumentType]
    bad = Report(explained=0.5, l0_trained=16, l0=40, dead=0.3, **told)  # pyright: ignore[reportArgumentType]
    assert [reason.split()[0] for reason in bad.reasons] == ["explained", "L0", "30"]


def test_a_dictionary_with_zero_error_recovers_all_and_an_empty_one_nothing(model: Model, vectors: Any) -> None:
    prompts = [model.prompt(text) for text in ("2 + 2?", "What is nine?")]
    batch = Batch.of(prompts, [(70, 71, 72), (80, 81)])
    lost, whole = recovery(model, batch, vectors.edits(), exact(model))
    assert lost > 0.01 and whole == pytest.approx(1.0, abs=1e-3)
    nothing = exact(model)
    nothing.coder.W_dec = torch.zeros_like(nothing.coder.W_dec)
    assert recovery(model, batch, vectors.edits(), nothing)[1] < 0.9


def test_the_command_says_what_it_can_do() -> None:
    runner = click.testing.CliRunner()
    for arguments in (["--help"], ["train", "--help"], ["attribute", "--help"]):
        result = runner.invoke(command, arguments)
        assert result.exit_code == 0
    assert all(scale in runner.invoke(command, ["train", "--help"]).output for scale in SCALES)
