"""What a notebook shows of models and completions; runs, comparisons and vectors have it in their own tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from interp.completions import SHOWN
from interp.model import Model
from interp.run import open_run
from tests.experiments import toys
from tests.interp.toy import Toy


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


def test_a_model_tells_its_shape_and_weights(model: Model) -> None:
    shown = model._repr_html_()
    for said in ("LlamaForCausalLM", "<th>blocks</th><td>3</td>", "<td>6, 2</td>", "<td>48</td>", model.fingerprint):
        assert said in shown


def test_completions_are_shown_escaped_and_not_all(model: Model) -> None:
    made = model.generate([model.prompt("3 + 4?")], max_new_tokens=2, samples=SHOWN + 3)
    evil = dataclasses.replace(made, texts=("<script>", *made.texts[1:]))
    shown = evil._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert shown.count("<tr>") == SHOWN + 1
    assert "and 3 more rows" in shown
    assert repr(made) == f"Completions(1 prompts, {SHOWN + 3} rows, {made.n_tokens} tokens)"


def test_a_run_under_way_shows_what_is_there(tmp_path: Path) -> None:
    half = Toy(size=4).run(out=tmp_path, shard=(1, 2), progress=False)
    assert half.partial
    seen = open_run(half.record.path)
    assert len(seen.frame) == 8
    assert "(partial)" in seen._repr_html_()
