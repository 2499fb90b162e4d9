"""A digest of all weights, at the speed of memory."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

ROW = 8192
"""Words that are multiplied with the same numbers; 64 KiB of a tensor."""
PASS = {"cpu": 16}
"""Rows of one product, so that it stays in a processor's cache."""
ELSEWHERE = 1024
"""Rows of one product on other devices: 64 MiB, few launches and little memory."""


def checksum(values: Tensor) -> tuple[int, ...]:
    """Return a 64-bit sum over the bytes of a tensor, followed by the order of its dimensions in memory.

    The tensor is read as 64-bit words w[i, j] in the order of its memory, and the sum is sum_ij r[i] c[j] w[i, j]
    modulo 2^64 with pseudo-random odd r and c. One changed word always changes it, because an odd factor has an inverse
    modulo 2^64; a permutation or several changes escape it with a probability near 2^-64. It guards against accidents,
    not against a person who constructs a collision.

    A cryptographic hash reads 1 to 2 GB a second of a core, and a model has to be read again at every question,
    because writes through `.data` leave no trace. This sum takes 8 GB a second of a core (65 ms for the
    embedded model) and runs where the weights are, so that a model of 7B parameters on a GPU is not copied to the host.
    """
    order = sorted(range(values.ndim), key=lambda axis: (-values.stride(axis), axis))
    words = _words(values.detach().permute(order).contiguous())
    columns, total = _multipliers(ROW, words.device), 0
    rows = _multipliers(-(-len(words) // ROW), words.device)
    whole = len(words) // ROW
    table, step = words[: whole * ROW].view(whole, ROW), PASS.get(words.device.type, ELSEWHERE)
    for start in range(0, whole, step):
        part = table[start : start + step] * columns
        total += int((part.sum(1) * rows[start : start + len(part)]).sum())
    rest = words[whole * ROW :]
    if len(rest):
        total += int((rest * columns[: len(rest)]).sum() * rows[whole])
    return (total % 2**64, *order)


def _words(values: Tensor) -> Int[Tensor, " word"]:
    """The bytes as 64-bit words, the last one filled up with zeros."""
    raw = values.reshape(-1).view(torch.uint8)
    left = -len(raw) % 8
    if left or raw.storage_offset() % 8:
        raw = torch.cat([raw, raw.new_zeros(left)])
    return raw.view(torch.int64)


@lru_cache(maxsize=64)
def _multipliers(count: int, device: torch.device) -> Int[Tensor, " count"]:
    """Odd numbers that look random (splitmix64), the same on every machine."""
    x = torch.arange(1, count + 1, device=device) * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * _signed(factor)
    return x | 1


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
