"""The tokens that an experiment measures on: a task's problems with completions of the model, in strata.

Position 0 is the LAST PROMPT position, which predicts the first generated token; the prompt's own positions are
negative. Strata: "first" = position 0; "generated" = a generated token is the input; "template" = a token of the chat
template is the input; "prompt" = a token of the problem. The first token of a row, whose residual norm is a hundred
times that of the others, belongs to none, and neither do the system message and the worked example, which are the
same for all problems.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.bare_model import takes_model
from interp.batch import Batch
from interp.completions import Completions, paired_rows
from interp.context import Context
from interp.forced import Forced
from interp.positions import Positions
from interp.scoring import following, positions_of
from vectors import AdaptiveVectors, SteeringVectors

STRATA = ("first", "generated", "template", "prompt")


@dataclass(frozen=True)
class Texts:
    """Prompts with completions, one row each.

    Attributes:
        examples: the problem of each row, by its id.
        batch: the rows.
        stratum: index into STRATA of each token; -1 = in none.
        forced: the rows run without edits.
    """

    examples: tuple[str, ...]
    batch: Batch
    stratum: Int[Tensor, "row pos"]
    forced: Forced

    @property
    def position(self) -> Int[Tensor, "row pos"]:
        """0 = the last prompt token."""
        return self.batch.position - self.batch.prompt_len[:, None] + 1

    def where(self, *strata: str) -> Bool[Tensor, "row pos"]:
        """The tokens of some strata."""
        wanted = torch.tensor([STRATA.index(name) for name in strata], device=self.stratum.device)
        return torch.isin(self.stratum, wanted)


def texts(
    ctx: Context,
    *,
    split: Literal["train", "validation", "test"] = "test",
    n: int | None = None,
    edits: Any = (),
    keep: Iterable[int] = (),
) -> Texts:
    """Problems completed at temperature 1, run without edits.

    Args:
        ctx: the run.
        split: of the task.
        n: number of problems; the run's by default.
        edits: what the completions are drawn under; the base model by default, so that no vector is favoured.
        keep: blocks whose output is kept, see `Forced`.
    """
    said = completed(ctx, split=split, n=n, edits=edits)
    return said.run(ctx.model, keep)


@dataclass(frozen=True)
class Said:
    """Prompts with completions, one row each, not run yet; attributes as of `Texts`."""

    examples: tuple[str, ...]
    batch: Batch
    stratum: Int[Tensor, "row pos"]

    def __getitem__(self, rows: slice) -> Said:
        """Some of the rows, without the padding that none of them needs."""
        batch = self.batch.rows(rows)
        return Said(self.examples[rows], batch, self.stratum[rows][:, -batch.ids.shape[1] :])

    @takes_model
    def run(self, model: Any, keep: Iterable[int] = ()) -> Texts:
        """Run them without edits; `keep` as for `Forced`."""
        return Texts(self.examples, self.batch, self.stratum, Forced(model, self.batch, keep))


def completed(
    ctx: Context,
    *,
    split: Literal["train", "validation", "test"] = "test",
    n: int | None = None,
    edits: Any = (),
) -> Said:
    """What `texts` runs: problems completed at temperature 1."""
    problems = ctx.problems(split, n)
    said = ctx.completions(ctx.prompts(problems), edits, temperature=1.0, keys=[problem.id for problem in problems])
    batch = Batch.of(*paired_rows(said), device=ctx.model.device)
    return Said(tuple(problem.id for problem in problems), batch, strata(ctx.model, said, batch))


@takes_model
def strata(model: Any, said: Completions, batch: Batch) -> Int[Tensor, "row pos"]:
    """Index into STRATA of each token; -1 where it belongs to none."""
    device = batch.ids.device
    parts = torch.full_like(batch.ids, -1)
    starts = (~batch.mask).sum(1).tolist()
    for row, completion in enumerate(said.rows):
        names = said.prompts[completion.prompt].parts
        codes = [STRATA.index("prompt") if name == "problem" else -1 for name in names]
        codes = [
            STRATA.index("template") if name == "assistant" else code for name, code in zip(names, codes, strict=True)
        ]
        parts[row, starts[row] : starts[row] + len(codes)] = torch.tensor(codes, device=device)
    special = torch.isin(batch.ids, torch.tensor(sorted(special_ids(model)), device=device))
    parts[batch.in_completion] = STRATA.index("generated")
    parts[special & (batch.in_completion | (parts == STRATA.index("prompt")))] = STRATA.index("template")
    parts[batch.position == batch.prompt_len[:, None] - 1] = STRATA.index("first")
    readable = positions_of(model, batch, Positions()) & (batch.position > 0)
    return parts.masked_fill(~readable, -1)


@takes_model
def special_ids(model: Any) -> set[int]:
    """Tokens of the template: the tokenizer's special ones and the model's end tokens."""
    return {*getattr(model.tokenizer, "all_special_ids", ()), *model.stop_ids}


@dataclass(frozen=True)
class Places:
    """Some positions of some texts, flat.

    Attributes:
        where: the positions in the batch, in row-major order.
        row: row of each.
        position: 0 = the last prompt token.
        stratum: index into STRATA.
        following: the next token; -1 at the end of a row.
    """

    where: Bool[Tensor, "row pos"]
    row: Int[Tensor, " place"]
    position: Int[Tensor, " place"]
    stratum: Int[Tensor, " place"]
    following: Int[Tensor, " place"]

    def __len__(self) -> int:
        return len(self.row)


def places(said: Texts, *strata: str, at_most: int, seed: int = 0) -> Places:
    """Positions of some strata; of each row at most `at_most` generated ones, drawn at random, the same for all edits.

    Args:
        said: texts.
        strata: names of strata.
        at_most: generated positions of a row; 0 = all.
        seed: of the draw.
    """
    where = said.where(*strata)
    if at_most and "generated" in strata:
        generated = said.where("generated")
        for row in range(len(said.examples)):
            columns = generated[row].nonzero()[:, 0].tolist()
            drawn = np.random.default_rng([seed, row]).permutation(len(columns))[at_most:]
            where[row, [columns[i] for i in drawn]] = False
    rows = where.nonzero(as_tuple=True)[0]
    return Places(where, rows, said.position[where], said.stratum[where], following(said.batch)[where])


def steered_at(
    said: Texts, vectors: SteeringVectors | AdaptiveVectors, where: Bool[Tensor, "row pos"], ctx: Context | None = None
) -> Float[Tensor, "place d_model"]:
    """Hidden states after the last block under vectors, at some positions; counted in the run where `ctx` is given."""
    final, fired = said.forced.steered(vectors.edits())
    if ctx is not None:
        ctx.fired(fired)
    return final[where]


def mean_by_row(
    values: Float[Tensor, "place width"], row: Int[Tensor, " place"], n_rows: int
) -> Float[Tensor, "row width"]:
    """Mean over each row's places; NaN where a row has none."""
    sums = values.new_zeros(n_rows, values.shape[1]).index_add(0, row, values)
    counts = torch.bincount(row, minlength=n_rows).to(values)
    return sums / counts[:, None]
