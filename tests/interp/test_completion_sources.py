"""Completions made elsewhere count as our own: by a server process over a baked checkpoint, or from a file."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp import Completions, Context, Model, Store, UserError, completion_file, load_model
from interp.cli import call
from interp.completion_file import FileSource, asking
from interp.completion_sources import Said, scored
from interp.edits import per_row
from interp.given import as_sources
from interp.testing import tiny_task
from tests.interp import tiny
from vectors import Card, SteeringVectors, load_vectors
from vectors.bake import bake


@contextmanager
def serving(folder: Path, *options: str) -> Generator[str]:
    """Address of a server process over a checkpoint."""
    script = Path(__file__).parents[1] / "completion_server.py"
    with subprocess.Popen([sys.executable, script, folder, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def asked(url: str) -> int:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/asked") as reply:
        return json.load(reply)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("checkpoint") / "model", "llama")


@pytest.fixture(scope="module")
def llama(checkpoint: Path) -> Model:
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def vectors(llama: Model) -> SteeringVectors:
    rows = 0.5 * torch.randn(3, llama.d_model, generator=torch.Generator().manual_seed(0))
    return SteeringVectors(rows, (0, 1, 2), Card(d_model=llama.d_model, n_layers=3, trained="together"))


@pytest.fixture(scope="module")
def baked(checkpoint: Path, vectors: SteeringVectors) -> Path:
    return bake(vectors, checkpoint, checkpoint.parent / "baked")


@pytest.fixture(scope="module")
def url(baked: Path) -> Generator[str]:
    with serving(baked) as address:
        yield address


@pytest.fixture(scope="module")
def base_url(checkpoint: Path) -> Generator[str]:
    with serving(checkpoint) as address:
        yield address


def context(model: Model, vectors: Any, runs: Path, *sources: str) -> Context:
    ctx = Context(model, vectors, tiny_task(), n=4, store=Store(runs))
    ctx.sources = as_sources(sources, vectors)
    return ctx


def complete(ctx: Context, *, temperature: float, samples: int = 1) -> Completions:
    """Two problems steered, then the same two as they are."""
    prompts = ctx.prompts(ctx.problems())[:2]
    edits = per_row([ctx.vectors.edits()] * 2 + [()] * 2)
    keys = [problem.id for problem in ctx.problems()[:2]] * 2
    return ctx.completions([*prompts, *prompts], edits, temperature=temperature, samples=samples, keys=keys)


def same(one: Completions, other: Completions) -> None:
    assert [row.ids for row in one.rows] == [row.ids for row in other.rows]
    assert [(row.prompt, row.sample, row.ended) for row in one.rows] == [
        (row.prompt, row.sample, row.ended) for row in other.rows
    ]
    assert one.texts == other.texts
    for a, b in zip(one.rows, other.rows, strict=True):
        assert a.log_prob == pytest.approx(b.log_prob, abs=1e-4)
        assert a.entropy == pytest.approx(b.entropy, abs=1e-4)
    assert set(one.fired) == set(other.fired)


def test_greedy_completions_of_a_server_are_ours(llama: Model, vectors: SteeringVectors, url: str, runs: Path) -> None:
    ours = complete(context(llama, vectors, runs), temperature=0)
    before = asked(url)
    theirs = complete(context(llama, vectors, runs / "other", url), temperature=0)
    assert asked(url) - before == 2  # only the steered ones
    same(theirs, ours)
    assert theirs.rows[0].ids != theirs.rows[2].ids


def test_samples_are_kept_apart_from_ours(llama: Model, vectors: SteeringVectors, url: str, runs: Path) -> None:
    ours = complete(context(llama, vectors, runs), temperature=0.7, samples=2)
    before = asked(url)
    theirs = complete(context(llama, vectors, runs, url), temperature=0.7, samples=2)
    assert asked(url) - before == 4
    assert [row.ids for row in theirs.rows[:4]] != [row.ids for row in ours.rows[:4]]  # another stream
    assert theirs.rows[4:] == ours.rows[4:]
    same(complete(context(llama, vectors, runs, url), temperature=0.7, samples=2), theirs)
    assert asked(url) - before == 4, "kept completions were asked for again"
    same(complete(context(llama, vectors, runs), temperature=0.7, samples=2), ours)


def test_a_second_server_answers_for_the_base(
    llama: Model, vectors: SteeringVectors, base_url: str, url: str, runs: Path
) -> None:
    before = asked(base_url)
    said = complete(context(llama, vectors, runs, url, f"base={base_url}"), temperature=0)
    assert asked(base_url) - before == 2
    same(said, complete(context(llama, vectors, runs / "other"), temperature=0))


def test_a_server_of_other_weights_is_refused(
    llama: Model, vectors: SteeringVectors, base_url: str, runs: Path
) -> None:
    with pytest.raises(UserError, match="other weights or other vectors"):
        complete(context(llama, vectors, runs, base_url), temperature=0)
    with pytest.raises(UserError, match="gives no completions"):
        complete(context(llama, vectors, runs, "http://127.0.0.1:9/v1"), temperature=0)  # nobody listens


def test_where_a_text_ends(llama: Model) -> None:
    ctx = Context(llama, None, tiny_task(), n=1)
    request = ctx.request(ctx.prompts(ctx.problems()), temperature=0)
    (end,) = llama.stop_ids[:1]
    cases = [(Said("ab", True), True, 3), (Said("ab", False), False, 2), (Said("abcdefgh"), False, 6)]
    cases += [(Said("ab", True, (70, 71, end)), True, 3), (Said("", True), True, 1), (Said("ab"), False, 2)]
    for said, ended, length in cases:
        (row,) = scored(llama, request, [[said]]).rows
        assert (row.ended, len(row.ids)) == (ended, length), said
        assert row.ended == (row.ids[-1] in llama.stop_ids)


def test_export_then_import_gives_our_own(llama: Model, vectors: SteeringVectors, checkpoint: Path, runs: Path) -> None:
    file = runs / "v.npy"
    np.save(file, vectors.directions.numpy())
    made = ["--model", str(checkpoint), "--vectors", f"{file}", "--task", "word-problems", "--n", "3"]
    made += ["--tokens", "5", "--temperature", "0"]
    here, out = ["--out", str(runs)], runs / "out.jsonl"
    assert call(["completions", "export", str(out), *made, *here]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 3
    assert not any("text" in line for line in lines)
    assert call(["eval", *made, *here]) == 0
    assert call(["completions", "export", str(out), *made, *here]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(len(line["ids"]) == 5 for line in lines)
    bare = runs / "bare.jsonl"
    bare.write_text("".join(json.dumps({"problem": line["problem"], "ids": line["ids"]}) + "\n" for line in lines))
    assert call(["completions", "import", str(bare), str(runs / "back.jsonl"), *made]) == 0
    back = [json.loads(line) for line in (runs / "back.jsonl").read_text().splitlines()]
    for one, other in zip(back, lines, strict=True):
        assert one.pop("log_prob") == pytest.approx(other.pop("log_prob"), abs=1e-4)
        assert one.pop("entropy") == pytest.approx(other.pop("entropy"), abs=1e-4)
    assert back == lines


def test_a_file_stands_in_for_the_model(
    llama: Model, vectors: SteeringVectors, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.completion_file import export

    ctx = context(llama, vectors, runs)
    ours = complete(ctx, temperature=0)
    names = [problem.id for problem in ctx.problems()[:2]]
    request = ctx.request(ctx.prompts(ctx.problems()[:2]), vectors.edits(), temperature=0, keys=names)
    assert export(llama, request, names, ctx.store.completions, runs / "file.jsonl") == (2, 2)
    asked: list[int] = []
    generate = Model.generate
    monkeypatch.setattr(
        Model,
        "generate",
        lambda self, prompts, *a, **k: (asked.append(len(prompts)), generate(self, prompts, *a, **k))[1],
    )
    theirs = complete(context(llama, vectors, runs / "other", str(runs / "file.jsonl")), temperature=0)
    assert asked == [2], "the steered ones are in the file"
    same(theirs, ours)
    lines = (runs / "file.jsonl").read_text().splitlines()
    wrong = [{**json.loads(line), "log_prob": [-9.0] * 6} for line in lines]
    (runs / "wrong.jsonl").write_text("\n".join(map(json.dumps, wrong)))
    with pytest.raises(UserError, match="other weights or other vectors"):
        complete(context(llama, vectors, runs / "third", str(runs / "wrong.jsonl")), temperature=0)
    (runs / "broken.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"broken\.jsonl, line 1"):
        as_sources([str(runs / "broken.jsonl")], vectors)


def test_a_line_with_what_nobody_reads_is_refused(runs: Path) -> None:
    plain = {"problem": "p", "prompt_ids": [1], "edits": [], "sample": 0, "ids": [2], "stop_ids": [3]}
    file = runs / "lines.jsonl"
    file.write_text(json.dumps(plain))
    assert FileSource.read(file).lines
    wrong: list[dict[str, Any]] = [{"top_p": 0.9}, {"ids": ["2"]}, {"ids": [-1]}, {"ids": 5}, {"sample": "0"}]
    for change in wrong:
        file.write_text(json.dumps(plain | change))
        with pytest.raises(UserError, match="line 1"):
            FileSource.read(file)


def test_other_end_tokens_are_another_question(llama: Model, vectors: SteeringVectors, runs: Path) -> None:
    ctx = context(llama, vectors, runs)
    request = ctx.request(ctx.prompts(ctx.problems()[:1]), (), temperature=0)
    (line,) = asking(llama, request)
    file = runs / "lines.jsonl"
    for stop_ids, answered in ((line["stop_ids"], [0]), ([*line["stop_ids"], 9], [])):
        file.write_text(json.dumps(line | {"ids": [2], "stop_ids": stop_ids}))
        assert FileSource.read(file).answers(llama, request) == answered


def test_a_run_is_keyed_by_who_completes(llama: Model, vectors: SteeringVectors, url: str, runs: Path) -> None:
    from interp.runner import describe
    from tests.interp.toy import Toy

    ctx = context(llama, vectors, runs)
    keys = {describe(Toy(), one)["key"] for one in (ctx, replace(ctx), context(llama, vectors, runs, url))}
    assert len(keys) == 2


@pytest.mark.slow
def test_the_embedded_model_served_with_its_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "smollm2-135m-instruct"
    folder = bake(load_vectors(f"{name}/all-layer"), name, tmp_path / "baked")
    command = ["eval", "--vectors", f"{name}/all-layer", "--n", "8", "--temperature", "0", "--json"]
    for options in (), ("--plain",):
        with serving(folder, *options) as address:
            assert call([*command, "--completions-from", address, "--out", str(tmp_path / f"theirs{options}")]) == 0
            assert asked(address) == 8
    assert call([*command, "--out", str(tmp_path / "ours")]) == 0
    tokens, text, ours = map(json.loads, capsys.readouterr().out.splitlines())
    entropy = ours.pop("entropy")
    for theirs in (tokens, text):
        assert theirs.pop("entropy") == pytest.approx(entropy, abs=1e-3)
        assert theirs == ours
    assert ours["boxed"] > 0.5  # the vectors are on: the model as it is boxes little


def test_a_text_with_line_separators_stays_on_its_line(tmp_path: Path) -> None:
    texts = [f"a{mark}b" for mark in ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\n", "\ud800", "é")]
    completion_file._write(tmp_path / "ours.jsonl", [{"text": text} for text in texts])
    assert [line["text"] for line in completion_file.read_lines(tmp_path / "ours.jsonl")] == texts
    theirs = "\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts if text != "a\ud800b")
    (tmp_path / "theirs.jsonl").write_bytes(theirs.encode())
    assert len(completion_file.read_lines(tmp_path / "theirs.jsonl")) == len(texts) - 1
