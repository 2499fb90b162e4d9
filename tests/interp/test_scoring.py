"""Readouts against their definitions on whole distributions, and as a tidy frame."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from interp import distributions
from interp.backend.engine import Engine
from interp.batch import Batch
from interp.edits import Add
from interp.errors import UserError
from interp.load import load_model
from interp.model import Model
from interp.positions import Positions
from interp.prompts import Prompt
from interp.readouts import BUILT_IN, Choice, LogitDiff, LogOdds, TopTokens, readout
from interp.sites import Site
from tests.interp import tiny

END = 2
GENERATED = [[40, 50, 60], [70, END]]
PROMPTS = [Prompt((5, 6, 7, 8)), Prompt((9, 10))]
VECTOR = torch.randn(48, generator=torch.Generator().manual_seed(0))
LAST = Add(Site(2, "resid_post"), 3 * VECTOR)
NAMED = ["kl", "tv", "delta_p", "entropy", "argmax", "log_prob"]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(tiny.model("llama"), tokenizer=tiny.tokenizer())


@pytest.fixture(scope="module")
def batch() -> Batch:
    return Batch.of(PROMPTS, GENERATED)


def distribution(model: Model, ids: list[int], edits: Any = ()) -> torch.Tensor:
    """Log-probabilities after the last of some tokens, without batch, padding, or shared work."""
    return model.run(torch.tensor([ids]), edits).log_probs()[0, -1]


def test_each_readout_is_its_definition_at_each_position(model: Model, batch: Batch) -> None:
    frame = model.score(batch, (LAST,), [*NAMED, LogOdds((11, 12)), LogitDiff(11, 12), TopTokens(2)])
    rows = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert list(zip(frame["row"], frame["position"], strict=True)) == rows
    assert list(frame["phase"]) == ["first", "generated", "generated", "generated", "first", "generated"]
    for (row, position), got in zip(rows, frame.to_dict("records"), strict=True):
        ids = [*PROMPTS[row].ids, *GENERATED[row][:position]]
        base, steered = distribution(model, ids), distribution(model, ids, (LAST,))
        p, q = base.exp(), steered.exp()
        change = q - p
        expected: dict[str, Any] = {
            "token_id": ids[-1],
            "kl": float((q * (q.log() - p.log())).sum()),
            "tv": float(change.abs().sum()) / 2,
            "max_dp": float(change.max()),
            "max_token_id": int(change.argmax()),
            "min_dp": float(change.min()),
            "min_token_id": int(change.argmin()),
            "entropy_base": float(-(p * base).sum()),
            "entropy_steered": float(-(q * steered).sum()),
            "argmax_base_id": int(p.argmax()),
            "argmax_steered_id": int(q.argmax()),
            "logit_diff_steered": float((q[11] / q[12]).log()),
        }
        for name, value in expected.items():
            assert got[name] == pytest.approx(value, abs=2e-5), name
        assert got["delta_p"] == pytest.approx(change[[11, 12]].tolist(), abs=1e-5)
        odds = (q / (1 - q)).log() - (p / (1 - p)).log()
        assert got["delta_log_odds"] == pytest.approx(odds[[11, 12]].tolist(), abs=1e-4)
        assert got["top_base"] == [model.token_text(int(t)) for t in p.topk(2).indices]
        said = GENERATED[row][position] if position < len(GENERATED[row]) else None
        assert (
            math.isnan(got["log_prob_base"])
            if said is None
            else got["log_prob_base"] == pytest.approx(float(base[said]), abs=1e-4)
        )


def test_no_edit_changes_nothing_and_a_zero_vector_is_no_edit(model: Model, batch: Batch) -> None:
    for edits in ((), (Add(Site(2, "resid_post"), torch.zeros(48)),), (Add(Site(0, "resid_post"), VECTOR, 0.0),)):
        frame = model.score(batch, edits, ["kl", "tv", "delta_p"])
        assert (frame[["kl", "tv", "max_dp", "min_dp"]] == 0).to_numpy().all()


def test_a_vector_of_the_last_block_needs_no_pass_and_gives_what_a_pass_gives(
    model: Model, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    forward = Engine.forward
    monkeypatch.setattr(Engine, "forward", lambda *a, **k: (passes.append(1), forward(*a, **k))[1])
    frame = model.score(batch, (LAST,), ["kl"])
    assert len(passes) == 1  # the base alone
    at = batch.mask & (batch.position >= batch.prompt_len[:, None] - 1) & (batch.ids != END)
    base, full = model.run(batch).log_probs(at), model.run(batch, (LAST,)).log_probs(at)
    assert list(frame["kl"]) == pytest.approx(distributions.kl(full, base).tolist(), abs=1e-5)


def test_results_do_not_depend_on_how_many_rows_are_unembedded_together(
    model: Model, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.score(batch, (LAST,), NAMED)
    monkeypatch.setitem(distributions.CHUNK_VALUES, "cpu", 2 * tiny.VOCABULARY)
    parts = model.score(batch, (LAST,), NAMED)
    assert list(whole["max_token_id"]) == list(parts["max_token_id"])
    assert list(whole["kl"]) == pytest.approx(list(parts["kl"]), abs=1e-6)


def test_positions_of_the_prompt_are_negative_and_can_be_asked_for(model: Model, batch: Batch) -> None:
    frame = model.score(batch, (LAST,), ["kl"], at=Positions(prompt="all", generated="none"))
    assert list(frame["position"]) == [-3, -2, -1, 0, -1, 0]
    assert list(frame["phase"]) == ["prompt", "prompt", "prompt", "first", "prompt", "first"]
    unpadded = model.score(torch.tensor([[5, 6, 7, 8]]), (LAST,), ["kl"])
    assert list(unpadded["position"]) == [0]
    with pytest.raises(UserError, match="nothing to read"):
        model.score(torch.tensor([[5, 6]]), (LAST,), ["kl"], at=Positions(prompt="none"))


def test_choices_are_compared_among_themselves(model: Model, batch: Batch) -> None:
    frame: Any = model.score(batch, (LAST,), [Choice({"A": 30, "B": 31})])
    total = frame["choice_A_steered"].map(math.exp) + frame["choice_B_steered"].map(math.exp)
    assert list(total) == pytest.approx([1.0] * len(frame), abs=1e-5)
    steered = distribution(model, list(PROMPTS[0].ids), (LAST,))
    expected = float(steered[30] - torch.logsumexp(steered[[30, 31]], 0))
    assert float(frame["choice_A_steered"][0]) == pytest.approx(expected, abs=1e-5)


def test_log_odds_stay_finite_where_a_probability_rounds_to_one() -> None:
    assert float(distributions.log_odds(torch.zeros(1))[0]) == pytest.approx(16.118, abs=0.01)
    assert float(distributions.log_odds(torch.log(torch.tensor([0.25])))[0]) == pytest.approx(math.log(1 / 3), abs=1e-6)


def test_a_readout_is_known_by_name_or_says_what_it_needs() -> None:
    assert readout("kl") == BUILT_IN["kl"]()
    with pytest.raises(UserError, match="must be told more"):
        readout("log_odds")
    with pytest.raises(UserError, match="no such readout"):
        readout("klx")


def test_two_readouts_with_one_column_are_refused(model: Model, batch: Batch) -> None:
    with pytest.raises(UserError, match="same column"):
        model.score(batch, (LAST,), ["kl", "kl"])
