"""Next-token distributions from hidden states, in float32, a few rows at a time.

No [batch, pos, vocab] array ever exists: callers get blocks of rows and keep what they compute from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.bare_model import takes_model

CHUNK_VALUES = {"cpu": 2**21, "cuda": 2**24}
"""Values of one [row, vocab] array at a time; 8 MB in float32 on a CPU. Results do not depend on it."""
CACHED_ROWS = 4
"""Rows of the vocabulary that a core's cache holds."""
_SMALLEST = -1e-7
"""Log-probability nearest to 0 that log-odds are taken of: about float32's rounding of a probability of 1."""


@runtime_checkable
class Unembeds(Protocol):
    """What turns hidden states into logits; `interp.model.Model` does."""

    cfg: Any

    def unembed(self, resid: Tensor) -> Tensor: ...  # noqa: D102 - see Model


@takes_model
def log_probs(model: Unembeds, resid: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """Next-token log-probabilities of hidden states after the last block, nats, float32."""
    with torch.no_grad():
        return model.unembed(resid).float().log_softmax(-1)


def blocks(resid: Float[Tensor, "row d_model"], d_vocab: int) -> Iterator[slice]:
    """Rows to unembed together."""
    n_rows, size = len(resid), max(1, CHUNK_VALUES.get(resid.device.type, 2**24) // d_vocab)
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def kl(log_p: Float[Tensor, "row vocab"], log_q: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """KL(p || q), nats; never below 0, where rounding would put it."""
    return by_rows(lambda p, q: (p.exp() * (p - q)).sum(-1), log_p, log_q).clamp(min=0)


def total_variation(log_p: Float[Tensor, "row vocab"], log_q: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """1/2 sum |p - q|, in [0, 1]."""
    return by_rows(lambda p, q: 0.5 * (p.exp() - q.exp()).abs().sum(-1), log_p, log_q)


def entropy(log_p: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """Entropy, nats."""
    return by_rows(lambda p: -(p.exp() * p).sum(-1), log_p)


def by_rows(of: Callable[..., Tensor], *arrays: Float[Tensor, "row vocab"]) -> Float[Tensor, "row ..."]:
    """What is computed of each row; on a CPU a few rows at a time, so that what lies between stays in its cache."""
    if arrays[0].device.type != "cpu" or not len(arrays[0]):
        return of(*arrays)
    return torch.cat([of(*rows) for rows in zip(*(array.split(CACHED_ROWS) for array in arrays), strict=True)])


def log_odds(log_p: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """log(p / (1 - p)) of log-probabilities, nats; at most 16.1, where float32 cannot tell p from 1."""
    clipped = log_p.clamp(max=_SMALLEST)
    return clipped - torch.log(-torch.expm1(clipped))
