"""Activations for training: completions of training problems, streamed batch by batch and shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.bare_model import takes_model
from interp.edits import Edit
from interp.prompts import Prompt
from interp.sites import Site
from sae.passes import Layout, described, lay_out, streams

PROBLEMS_AT_ONCE = 48
"""Problems whose activations are computed together."""


@takes_model
def chunks(
    model: Any,
    prompts: Sequence[Prompt],
    keys: Sequence[str],
    edits: Sequence[Edit],
    site: Site,
    *,
    of: str,
    max_new_tokens: int,
    seed: int,
    samples: int = 1,
) -> Iterator[Float[Tensor, "token d_model"]]:
    """What the dictionary is to describe, at the tokens of each problem and of completions under the edits.

    The first token of a row, the system message, worked examples and template tokens are left out: their norm is a
    hundred times that of the others, and they are the same in every row.

    Args:
        model: a Model.
        prompts: of problems.
        keys: the problems' names, by which random streams are paired.
        edits: the intervention.
        site: where.
        of: "change" or "stream".
        max_new_tokens: of a completion.
        seed: of the completions.
        samples: completions of each problem.
    """
    for start in range(0, len(prompts), PROBLEMS_AT_ONCE):
        some = list(prompts[start : start + PROBLEMS_AT_ONCE])
        names = list(keys[start : start + PROBLEMS_AT_ONCE])
        said = model.generate(some, edits, max_new_tokens=max_new_tokens, samples=samples, seed=seed, keys=names)
        completions = [[row.ids for row, _ in said.of(index)] for index in range(len(some))]
        layout = lay_out(model, some, completions)
        heads = problem_tokens(model, some, layout)
        steered = streams(model, layout, edits, site)
        base = streams(model, layout, (), site) if of == "change" else steered
        parts = (described(of, base.heads, steered.heads)[heads], described(of, base.tails, steered.tails)[layout.said])
        yield torch.cat(parts).float()


@takes_model
def problem_tokens(model: Any, prompts: Sequence[Prompt], layout: Layout) -> Bool[Tensor, "prompt pos"]:
    """The tokens of the problems themselves among `Layout.heads`."""
    special = {*getattr(model.tokenizer, "all_special_ids", ()), *model.stop_ids}
    mask = torch.zeros_like(layout.heads.ids, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        first, stop = prompt.spans.get("problem", (0, 0))
        position, ids = layout.heads.position[row], layout.heads.ids[row]
        inside = (position >= max(first, 1)) & (position < stop)
        mask[row] = inside & ~torch.isin(ids, torch.tensor(sorted(special), device=ids.device))
    return mask


def again(stream: Iterator[Tensor], seed: int) -> Iterator[Tensor]:
    """The same chunks without end: as they come the first time, then from memory in random order."""
    kept: list[Tensor] = []
    for chunk in stream:
        kept.append(chunk)
        yield chunk
    generator = torch.Generator().manual_seed(seed)
    while kept:
        yield from (kept[index] for index in torch.randperm(len(kept), generator=generator).tolist())


def shuffled(stream: Iterator[Tensor], batch: int, buffer: int) -> Iterator[Float[Tensor, "batch d_model"]]:
    """Batches of rows from a buffer that mixes old and new chunks."""
    from sae_lens.training.mixing_buffer import mixing_buffer

    return mixing_buffer(buffer, batch, stream)
