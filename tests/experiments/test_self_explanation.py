"""SelfExplanation: putting an embedding in place of a token is writing that token; random vectors decide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import SelfExplanation
from experiments.self_explanation import _chosen, judge  # pyright: ignore[reportPrivateUsage]
from interp.batch import Batch
from interp.context import Context
from interp.distributions import log_probs
from interp.model import Model
from interp.prompts import Prompt
from tests.experiments import toys


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


def test_a_words_own_stream_in_its_place_is_the_word(model: Model) -> None:
    experiment, ctx = SelfExplanation(n=2), Context(model=model)
    prompts = experiment._prompts(ctx)  # pyright: ignore[reportPrivateUsage]
    assert len({prompt.ids for prompt, _ in prompts}) == 2
    prompt, index = prompts[0]
    assert model.token_text(prompt.ids[index]) == "?"
    token = toys.token(model, "k")
    embedding: Any = model.hooked.embed.W_E
    sizes = embedding[list(prompt.ids[1:])].norm(dim=-1)
    size = float(embedding[token].norm() / sizes.median())
    put = embedding[token][None].detach()
    found = experiment._read(ctx, prompts[:1], put, 0, size)[0, 0]  # pyright: ignore[reportPrivateUsage]
    written = Prompt((*prompt.ids[:index], token, *prompt.ids[index + 1 :]))
    by_hand = log_probs(model, model.run(Batch.of([written])).final[:, -1])[0]
    assert torch.allclose(found, by_hand, atol=1e-4)


def test_block_and_scale_are_chosen_on_one_half_and_reported_on_the_other() -> None:
    rows = [
        {"block": block, "scale": 1.0, "half": half, "repeated": float(value)}
        for block, choosing, held in ((0, 1, 0), (2, 0, 1))
        for half, value in (("choosing", choosing), ("held-out", held))
        for _ in range(10)
    ]
    one = _chosen(pd.DataFrame(rows)).iloc[0]
    assert (one["block"], one["repeated"], one["n"]) == (0, 0.0, 10)


def frame(variation: float, drawn: list[float], repeated_low: float) -> pd.DataFrame:
    chosen = {"part": "chosen", "repeated": 0.9, "repeated_low": repeated_low, "repeated_high": 1.0, "n": 12}
    ends = {"variation_low": variation - 0.02, "variation_high": variation + 0.02, "n": 8}
    rows = [chosen, {"part": "specific", "layer": 1, "vector": "trained", "variation": variation, **ends}]
    rows += [{"part": "specific", "layer": 1, "vector": "random-isotropic", "variation": one} for one in drawn]
    return pd.DataFrame(rows)


def test_a_vector_must_differ_from_random_ones_and_the_instrument_must_work() -> None:
    drawn = [0.1, 0.12, 0.09, 0.11, 0.1, 0.12, 0.08, 0.11]
    assert judge(frame(0.6, drawn, 0.7), 1).phrase == "same direction"
    assert judge(frame(0.11, drawn, 0.7), 1).phrase == "no effect within the margin"
    assert judge(frame(0.6, drawn, 0.3), 1).phrase == (
        "not testable here, because the model repeats 90 % [30 to 100] of known words put in the same place"
    )


def test_random_vectors_come_out_in_the_same_direction_in_at_most_5_percent(model: Model, runs: Path) -> None:
    same: list[bool] = []
    for seed in range(12):
        vectors = toys.random(model, scale=1.0, layers=(0, 1, 2), seed=seed)
        run = SelfExplanation.at("quick", blocks=(0,), layers=0, seed=seed).run(
            model, vectors, out=runs, progress=False
        )
        # one byte a token: no known word is one token, so what is judged is as if the instrument worked
        rows: Any = run.frame[run.frame["part"] != "chosen"]
        works = pd.DataFrame([{"part": "chosen", "repeated": 1.0, "repeated_low": 1.0, "n": 12}])
        same += [judge(pd.concat([rows, works]), layer).phrase == "same direction" for layer in (0, 1, 2)]
        assert all("too few known words" in verdict["phrase"] for verdict in run.verdicts)
    assert np.mean(same) <= 0.05


@pytest.mark.slow
def test_on_the_embedded_model_every_part_is_measured(runs: Path) -> None:
    from interp import load_model

    embedded = load_model("smollm2-135m-instruct")
    row = torch.randn(1, embedded.d_model, generator=torch.Generator().manual_seed(0))
    vectors = toys.wrap(embedded, row, (12,))
    run = SelfExplanation.at("smoke").run(embedded, vectors, out=runs, progress=False)
    assert set(run.frame["part"]) == {"known", "chosen", "tokens", "specific"}
    assert all(verdict["phrase"].startswith("not testable here") for verdict in run.verdicts)
