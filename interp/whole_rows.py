"""Sampling without a cache: every step runs whole rows, as somebody else's hooks expect to see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.backend.foreign import head_survey
from interp.backend.hook_path import HookPath
from interp.editor import Editor
from interp.positions import Tokens
from interp.prompts import Prompt
from interp.sampling import draw, uniforms


@runtime_checkable
class RunsWholeRows(Protocol):
    """What is needed of a model; `interp.model.Model` has it."""

    stop_ids: tuple[int, ...]

    def unembed(self, resid: Tensor) -> Tensor: ...  # noqa: D102 - see Model
    def logits(self, final: Tensor) -> Tensor: ...  # noqa: D102
    def tokens(  # noqa: D102
        self, ids: Tensor, position: Tensor, prompt_len: Tensor, rows: Tensor, weight: Tensor | None = None
    ) -> Tokens: ...


@dataclass
class Row:
    """A completion under way."""

    prompt: int
    sample: int
    stream: int
    ids: list[int] = field(default_factory=list)
    log_prob: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    ended: bool = False


def extend(
    rows: Sequence[Row], logits: Float[Tensor, "row vocab"], step: int, temperature: float, stop: set[int]
) -> Int[Tensor, " row"]:
    """Draw each row's next token, by its own random stream, and append it to the rows that have not ended."""
    u = uniforms([row.stream for row in rows], step)
    token, log_p, entropy = draw(logits, temperature, u)
    for row, t, lp, h in zip(rows, token.tolist(), log_p.tolist(), entropy.tolist(), strict=True):
        if not row.ended:
            row.ids.append(t)
            row.log_prob.append(lp)
            row.entropy.append(h)
            row.ended = t in stop
    return token


@dataclass(frozen=True)
class WholeRows:
    """Completes rows by one pass over all of their tokens for each new one.

    Rows of equal length run together, without padding, so that a foreign hook meets every row as the caller's own
    `hooked(ids)` would show it: the first token at position 0, the last one at -1.

    Attributes:
        model: a Model.
        path: through the model's own hooks.
        prompts: of the call.
        editor: its edits.
        temperature: of sampling; 0 = greedy.
        length: most new tokens.
    """

    model: RunsWholeRows
    path: HookPath
    prompts: Sequence[Prompt]
    editor: Editor
    temperature: float
    length: int

    def complete(self, rows: Sequence[Row]) -> None:
        """Extend rows until each has ended or is cut."""

        def by_length(row: Row) -> int:
            return len(self.prompts[row.prompt])

        for _, group in groupby(sorted(rows, key=by_length), by_length):
            self._complete(list(group))

    def _complete(self, rows: Sequence[Row]) -> None:
        before, stop, active = self.editor.counts(), set(self.model.stop_ids), list(rows)
        for step in range(self.length):
            final = self._run(active, [row.ids for row in active])
            self.editor.take_back(before)  # the next step, or the last pass below, counts these tokens
            # A foreign hook on the unembedding sees whole rows too; without one, the last tokens are enough.
            whole = bool(head_survey(self.path.hooked))
            logits = self.model.logits(final)[:, -1] if whole else self.model.unembed(final[:, -1])
            extend(active, logits, step, self.temperature, stop)
            active = [row for row in active if not row.ended]
            if not active:
                break
        if self.editor.sites:
            self._count(rows)

    def _count(self, rows: Sequence[Row]) -> None:
        """Count what edits touch in the finished rows; the last token of a row was never fed."""
        for _, group in groupby(sorted(rows, key=lambda row: len(row.ids)), lambda row: len(row.ids)):
            same = list(group)
            self._run(same, [row.ids[:-1] for row in same])

    def _run(self, rows: Sequence[Row], tails: Sequence[Sequence[int]]) -> Float[Tensor, "row pos d_model"]:
        device = self.path.device
        ids = torch.tensor(
            [[*self.prompts[row.prompt].ids, *tail] for row, tail in zip(rows, tails, strict=True)], device=device
        )
        index = torch.tensor([row.prompt for row in rows], device=device)
        prompt_len = torch.full_like(index, len(self.prompts[rows[0].prompt]))
        position = torch.arange(ids.shape[1], device=device)[None].expand(len(ids), -1)
        return self.editor.run(self.path, self.model.tokens(ids, position, prompt_len, index))
