"""Paired random streams: the same draw for the same problem, sample and position, whatever edits the model.

A steered and an unsteered run that draw the same numbers differ only by the edit, so their difference has far less
noise than that of two independent runs (common random numbers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import check_items, check_sampling
from interp.distributions import CACHED_ROWS
from interp.errors import UserError
from interp.finite import finite
from interp.selection import whole

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        max_new_tokens: a row that has not ended by then is cut.
        temperature: 0 = greedy.
        samples: completions of each prompt.
        seed: with the prompt's key and the sample's index it fixes every draw.
        keys: name of each prompt's problem; streams are paired by it. None = the digest of the prompt's ids.
        memory_gb: bound of what a batch may hold; None = 4 on a CPU, 60 % of what is free on a GPU.
    """

    max_new_tokens: int
    temperature: float = 1.0
    samples: int = 1
    seed: int = 0
    keys: Sequence[str] | None = None
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "samples", "seed"):
            object.__setattr__(self, name, whole(getattr(self, name), name))
        object.__setattr__(self, "temperature", finite(self.temperature, "the temperature"))
        if self.memory_gb is not None and not finite(self.memory_gb, "memory_gb") > 0:
            raise UserError("a batch needs some memory", given=self.memory_gb, works="memory_gb=4")
        if self.keys is not None:
            check_items(
                "keys", self.keys, lambda key: isinstance(key, str), 'keys=["problem-1"], a name of each prompt'
            )
        check_sampling(self.max_new_tokens, self.samples, self.temperature, self.seed)


def stream_seed(seed: int, problem: str, sample: int) -> int:
    """The 64-bit seed of one row's stream."""
    text = f"{seed}\x1f{problem}\x1f{sample}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def uniforms(seeds: Sequence[int], position: int) -> Float[Tensor, " row"]:
    """One number in [0, 1) per row for generated position `position` (SplitMix64, 24 bits, float32).

    A counter-based generator: the value depends on seed and position only, so that finished rows, batch sizes and
    the order of work cannot shift it.
    """
    with np.errstate(over="ignore"):
        z = np.array(seeds, dtype=np.uint64) + np.uint64(position + 1) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return torch.from_numpy((z >> np.uint64(40)).astype(np.float32) / np.float32(2**24))


def draw(
    logits: Float[Tensor, "row vocab"], temperature: float, u: Float[Tensor, " row"]
) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"], Float[Tensor, " row"]]:
    """Take a token per row by inverse CDF in float32.

    Args:
        logits: of the next token.
        temperature: divides the logits; 0 takes the most likely token.
        u: numbers in [0, 1).

    Returns:
        Token ids, their log-probability (nats) and the entropy (nats) of the distribution at this temperature
        (at temperature 1 where the choice is greedy).
    """
    at_once = CACHED_ROWS if logits.device.type == "cpu" else len(logits)
    parts = [
        _draw(*part, temperature)
        for part in zip(logits.split(at_once), u.to(logits.device).split(at_once), strict=True)
    ]
    token, chosen, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
    return token, chosen, entropy


def _draw(logits: Tensor, u: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits.float()
    log_p = (logits if temperature in (0, 1) else logits / temperature).log_softmax(-1)
    p = log_p.exp()
    if temperature == 0:
        token = log_p.argmax(-1)
    else:
        cumulative = p.cumsum(-1)
        # The last sum may fall short of 1 by rounding; scaling by it keeps every u inside.
        token = torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True)[:, 0]
        token = token.clamp(max=logits.shape[-1] - 1)
    chosen = log_p.gather(-1, token[:, None])[:, 0]
    entropy = -torch.linalg.vecdot(p, log_p.clamp_(min=-1e4))  # in place: 0 * -inf is no number
    return token, chosen, entropy
