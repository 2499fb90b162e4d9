"""How far a vector moves the attention rows of the block above it: total variation, per head and token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from experiments.controls import Acting
from experiments.patched_block import streams
from experiments.texts import Texts
from interp.context import Context
from interp.errors import UserError

ROWS = 8
"""Texts whose attention rows are held at once."""


@dataclass(frozen=True)
class RowChange:
    """Change of attention rows, for each text, head and token.

    Attributes:
        all_keys: total variation between the rows without and with the vector, in [0, 1].
        later_keys: the same among the keys after the text's first token, which takes most of the attention of many
            heads and hides what the others do; 0 where there is no later key.
        first_key: attention that the first token receives without the vector.
    """

    all_keys: Float[Tensor, "row head pos"]
    later_keys: Float[Tensor, "row head pos"]
    first_key: Float[Tensor, "row head pos"]


def attention_change(ctx: Context, said: Texts, vectors: Acting) -> RowChange:
    """Compare the attention rows of the block above a vector on the same tokens.

    Args:
        ctx: the run.
        said: texts, with the output of the vector's block kept.
        vectors: the vector of one block.

    Raises:
        UserError: the model runs through its own hooks, so that no attention rows are computed.
    """
    path: Any = said.forced.path
    if not hasattr(path, "pattern"):
        raise UserError("attention rows need the engine, and this model runs through its own hooks")
    clean, moved = streams(ctx, said, vectors)
    tokens, layer = said.forced.whole, vectors.layers[-1] + 1
    found: list[RowChange] = []
    for start in range(0, len(clean), ROWS):
        some = torch.arange(start, min(start + ROWS, len(clean)), device=clean.device)
        with torch.no_grad():
            rows = [path.pattern(layer, x[some], tokens.take(some)) for x in (clean, moved)]
        found.append(change(rows[0], rows[1], said.batch.position[some] == 0))
    return RowChange(*(torch.cat([getattr(one, name) for one in found]) for name in RowChange.__dataclass_fields__))


def change(
    clean: Float[Tensor, "row head query key"],
    moved: Float[Tensor, "row head query key"],
    first: Bool[Tensor, "row key"],
) -> RowChange:
    """Total variation of attention rows, over all keys and over those that are not `first`, renormalised."""
    later = [pattern * ~first[:, None, None] for pattern in (clean, moved)]
    later = [pattern / pattern.sum(-1, keepdim=True).clamp(min=1e-30) for pattern in later]
    sink = (clean * first[:, None, None]).sum(-1)
    return RowChange(_variation(clean, moved), _variation(later[0], later[1]), sink)


def _variation(p: Float[Tensor, "row head query key"], q: Float[Tensor, "row head query key"]) -> Tensor:
    return (p - q).abs().sum(-1) / 2
