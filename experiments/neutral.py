"""Text that has nothing to do with the task: passages read under vectors, and questions answered under them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import pandas as pd
import torch

from experiments.controls import Acting
from experiments.texts import STRATA, Places, Texts, steered_at
from interp.batch import Batch
from interp.context import Context
from interp.distributions import blocks, kl, log_probs
from interp.errors import UserError
from interp.forced import Forced
from interp.prompts import Prompt


@cache
def sample() -> dict[str, Any]:
    """Passages with their kind (prose, code, list) and questions, written for this project, CC0."""
    return json.loads((files("experiments") / "data" / "neutral.json").read_text("utf-8"))


def passages(ctx: Context, n: int, length: int) -> tuple[Texts, list[str]]:
    """The first n passages as plain text without a chat template, and the kind of each.

    All tokens but the first of a row, whose residual norm is a hundred times that of the others, are "generated".

    Args:
        ctx: the run.
        n: passages.
        length: tokens of a passage at most.

    Raises:
        UserError: there are fewer passages.
    """
    chosen = sample()["texts"][:n]
    if len(chosen) < n:
        raise UserError(f"there are {len(chosen)} neutral texts", given=n)
    rows = [tuple(ctx.model.tokenizer(one["text"])["input_ids"][:length]) for one in chosen]
    batch = Batch.of([Prompt(row) for row in rows], device=ctx.model.device)
    stratum = torch.where(batch.mask & (batch.position > 0), STRATA.index("generated"), -1)
    names = tuple(f"text {index}" for index in range(n))
    return Texts(names, batch, stratum, Forced(ctx.model, batch)), [one["kind"] for one in chosen]


def questions(ctx: Context, n: int) -> list[Prompt]:
    """The first n questions, asked with the chat template and without a system line.

    Raises:
        UserError: there are fewer questions.
    """
    chosen = sample()["questions"][:n]
    if len(chosen) < n:
        raise UserError(f"there are {len(chosen)} questions", given=n)
    return [ctx.model.prompt(text) for text in chosen]


def cost(ctx: Context, said: Texts, at: Places, every: Sequence[Acting]) -> list[pd.DataFrame]:
    """What vectors change on given tokens: one frame for each, one row for each text.

    Args:
        ctx: the run.
        said: the texts.
        at: the positions that are read.
        every: the vectors.

    Returns:
        Columns example, kl (mean KL(steered || base) of a token, nats), nll_base and nll (mean surprise of the token
        that follows without and with the vectors, nats).
    """
    finals = [steered_at(said, vectors, at.where, ctx) for vectors in every]
    base, follows = said.forced.base[at.where], at.following
    values = torch.zeros(len(every), 3, len(at))
    for some in blocks(base, ctx.model.d_vocab):
        log_base = log_probs(ctx.model, base[some])
        for index, final in enumerate(finals):
            log_steered = log_probs(ctx.model, final[some])
            token = follows[some].clamp(min=0)[:, None]
            surprise = [-log_p.gather(1, token)[:, 0] for log_p in (log_base, log_steered)]
            values[index, :, some] = torch.stack([kl(log_steered, log_base), *surprise]).cpu()
    values[:, 1:, (follows < 0).cpu()] = torch.nan
    names = [said.examples[row] for row in at.row.tolist()]
    found: list[pd.DataFrame] = []
    for one in values:
        columns: dict[str, Any] = dict(zip(("kl", "nll_base", "nll"), one.numpy(), strict=True))
        each: Any = pd.DataFrame({"example": names, **columns}).groupby("example", sort=False)
        found.append(each.mean().reset_index())
    return found


def repetition(ids: Sequence[int]) -> dict[str, float]:
    """How much a completion repeats itself.

    Returns:
        distinct: different pairs of neighbouring tokens, as a share of all such pairs; repeated: length of the longest
        run of tokens that occurs twice (overlap allowed), as a share of all tokens. 1 and 0 where nothing can repeat.
    """
    tokens = tuple(ids)
    pairs = list(pairwise(tokens))
    longest = 0
    for length in range(1, len(tokens)):
        runs = [tokens[start : start + length] for start in range(len(tokens) - length + 1)]
        if len(set(runs)) == len(runs):
            break
        longest = length
    return {
        "distinct": len(set(pairs)) / len(pairs) if pairs else 1.0,
        "repeated": longest / len(tokens) if tokens else 0.0,
    }
