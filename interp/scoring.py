"""Readouts over a batch: a tidy frame with a row for each position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.arguments import check_items, check_kind
from interp.bare_model import takes_model
from interp.batch import Batch, as_batch
from interp.distributions import blocks, log_probs
from interp.edits import Edits
from interp.errors import UserError
from interp.forced import Forced, Runs
from interp.positions import Positions
from interp.readouts import Readout, Rows, readout

if TYPE_CHECKING:
    import pandas as pd

PREDICTING = Positions(prompt=-1, generated="all")
"""The positions that predict a completion: the last prompt token and all generated ones."""


@runtime_checkable
class Scores(Runs, Protocol):
    """What scoring needs of a model; `interp.model.Model` has it."""

    cfg: Any
    stop_ids: tuple[int, ...]

    @property
    def d_vocab(self) -> int: ...  # noqa: D102 - see Model

    def check(self, batch: Batch) -> None: ...  # noqa: D102
    def unembed(self, resid: Tensor) -> Tensor: ...  # noqa: D102
    def token_text(self, token: int) -> str: ...  # noqa: D102


@takes_model
def score(
    model: Scores,
    batch: Batch | Tensor,
    edits: Edits,
    readouts: Sequence[str | Readout],
    *,
    at: Positions = PREDICTING,
) -> pd.DataFrame:
    """Compare the next-token distributions with and without edits, on the same tokens.

    Args:
        model: a Model.
        batch: prompts with what was said after them, or [batch, pos] token ids without padding (all of it prompt).
        edits: one sequence for all rows, or `per_row([...])`.
        readouts: names ("kl", "tv", "delta_p", "entropy", "argmax", "top_tokens", "log_prob") or readouts.
        at: where to read. Positions after a completion's end token, where nothing follows, are left out.

    Returns:
        A row for each position: `row` of the batch; `position`, 0 = the LAST PROMPT token, which predicts the first
        generated one, prompt tokens before it negative; `phase`: prompt, first (= position 0) or generated;
        `token_id` and `token`, the input there; then the readouts' columns.
    """
    import pandas as pd

    batch = as_batch(batch)
    check_kind("at", at, Positions, "Positions(...)")
    model.check(batch)
    chosen = chosen_readouts(readouts)
    where = positions_of(model, batch, at)
    if not bool(where.any()):
        raise UserError("there is nothing to read at these positions", given=at, works="score(..., at=Positions())")
    forced = Forced(model, batch)
    final, _ = forced.steered(edits)
    values = read(model, chosen, forced.base[where], final[where], following(forced.batch)[where])
    return pd.DataFrame({**place(model, forced.batch, where), **values})


@takes_model
def positions_of(model: Scores, batch: Batch, at: Positions) -> Bool[Tensor, "batch pos"]:
    """Where to read, without the end token of a completion."""
    batch = Batch(*(t.to(model.path.device) for t in (batch.ids, batch.mask, batch.prompt_len)))
    rows = torch.arange(len(batch), device=batch.ids.device)
    selected = at.mask(model.tokens(batch.ids, batch.position, batch.prompt_len, rows))
    ended = torch.isin(batch.ids, torch.tensor(model.stop_ids, device=batch.ids.device)) & batch.in_completion
    return selected & batch.mask & ~ended


def following(batch: Batch) -> Int[Tensor, "batch pos"]:
    """The next token of each position; -1 at a row's last one."""
    return torch.cat([batch.ids[:, 1:], torch.full_like(batch.ids[:, :1], -1)], 1)


def chosen_readouts(readouts: Sequence[str | Readout]) -> list[Readout]:
    """Readouts, those given by name with their default settings.

    Raises:
        UserError: there are none, or something else is among them.
    """
    check_items("readouts", readouts, lambda one: isinstance(one, str) or hasattr(one, "columns"), '["kl", "entropy"]')
    if not len(readouts):
        raise UserError("readouts are a sequence of at least one", given=repr(readouts), works='readouts=("kl",)')
    return [readout(one) if isinstance(one, str) else one for one in readouts]


@takes_model
def read(
    model: Scores,
    readouts: Sequence[Readout],
    base: Float[Tensor, "#row d_model"],
    steered: Float[Tensor, "row d_model"],
    next_ids: Int[Tensor, " row"],
) -> dict[str, list[Any]]:
    """The readouts' columns for hidden states after the last block, a row each; one base may stand for all rows.

    Raises:
        UserError: two readouts have a column of the same name.
    """
    names = [name for one in readouts for name in one.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError("two readouts have the same column", given=twice[0], works="score them one after the other")
    values: dict[str, list[Any]] = {name: [] for name in names}
    common = log_probs(model, base) if len(base) == 1 else None
    for some in blocks(steered, model.d_vocab):
        changed = log_probs(model, steered[some])
        same = log_probs(model, base[some]) if common is None else common.expand_as(changed)
        rows = Rows(same, changed, next_ids[some], model.token_text)
        for one in readouts:
            _extend(values, one(rows))
    return values


def _extend(values: dict[str, list[Any]], found: Mapping[str, Sequence[Any]]) -> None:
    for name, column in found.items():
        values[name].extend(column)


@takes_model
def place(model: Scores, batch: Batch, where: Bool[Tensor, "batch pos"]) -> dict[str, list[Any]]:
    """Row, position, phase and input token of each selected position."""
    row, column = where.nonzero(as_tuple=True)
    position = (batch.position - batch.prompt_len[:, None] + 1)[where].tolist()
    ids = batch.ids[row, column].tolist()
    return {
        "row": row.tolist(),
        "position": position,
        "phase": ["first" if p == 0 else "generated" if p > 0 else "prompt" for p in position],
        "token_id": ids,
        "token": [model.token_text(token) for token in ids],
    }
