"""What a model said, row by row, with what is needed to pair, grade and score it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice

from interp.editor import Fired
from interp.prompts import Prompt

SHOWN = 20
"""Rows that a notebook shows."""


@dataclass(frozen=True)
class Completion:
    """One sampled continuation.

    Attributes:
        prompt: index of its prompt.
        sample: index among the samples of that prompt.
        ids: generated tokens, the end token included.
        ended: the model ended by itself (else it was cut at `max_new_tokens`).
        log_prob: of each token, nats, under the sampling distribution (temperature 1 where greedy).
        entropy: of each token's distribution, nats, at the same temperature.
    """

    prompt: int
    sample: int
    ids: tuple[int, ...]
    ended: bool
    log_prob: tuple[float, ...]
    entropy: tuple[float, ...]


@dataclass(frozen=True)
class Completions:
    """All continuations of a list of prompts, ordered by prompt, then sample.

    Attributes:
        prompts: what was completed.
        rows: `samples` completions for each prompt.
        texts: decoded text of each row, special tokens left out.
        fired: how often each edit touched a token.
    """

    prompts: tuple[Prompt, ...]
    rows: tuple[Completion, ...]
    texts: tuple[str, ...]
    fired: tuple[Fired, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self):  # noqa: ANN204 - pairs of Completion and text
        return iter(zip(self.rows, self.texts, strict=True))

    def of(self, prompt: int) -> list[tuple[Completion, str]]:
        """The samples of one prompt."""
        return [(row, text) for row, text in self if row.prompt == prompt]

    @property
    def n_tokens(self) -> int:
        """Generated tokens, all rows together."""
        return sum(len(row.ids) for row in self.rows)

    def __repr__(self) -> str:
        return f"Completions({len(self.prompts)} prompts, {len(self)} rows, {self.n_tokens} tokens)"

    def _repr_html_(self) -> str:
        head = "<tr><th>prompt</th><th>sample</th><th>completion</th><th>tokens</th><th>ended</th></tr>"
        style = "white-space:pre-wrap;text-align:left"
        shown = "".join(
            f"<tr><td>{row.prompt}</td><td>{row.sample}</td><td style='{style}'>{escape(text)}</td>"
            f"<td>{len(row.ids)}</td><td>{'yes' if row.ended else 'cut'}</td></tr>"
            for row, text in islice(self, SHOWN)
        )
        left = f"<p>and {len(self) - SHOWN} more rows</p>" if len(self) > SHOWN else ""
        return f"<div><b>{escape(repr(self))}</b><table>{head}{shown}</table>{left}</div>"


def paired_rows(completions: Completions) -> tuple[Sequence[Prompt], Sequence[Sequence[int]]]:
    """Prompts and generated ids, one of each a row, for `Batch.of(*paired_rows(completions))`."""
    return [completions.prompts[row.prompt] for row in completions.rows], [row.ids for row in completions.rows]
