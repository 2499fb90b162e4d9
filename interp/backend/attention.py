"""Rotary embeddings and softmax attention; keys and values are never expanded to the query heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def rotate(
    x: Float[Tensor, "batch pos head d_head"], cos: Tensor, sin: Tensor, *, adjacent: bool
) -> Float[Tensor, "batch pos head d_head"]:
    """Rotate queries or keys by their positions; entries beyond the width of `cos` stay.

    Args:
        x: before.
        cos: of each position's angles.
        sin: likewise.
        adjacent: neighbouring entries form the pairs (GPT-J); else the halves do.
    """
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    if adjacent:
        flipped = torch.stack([-turned[..., 1::2], turned[..., ::2]], -1).flatten(-2)
    else:
        first, second = turned.chunk(2, -1)
        flipped = torch.cat([-second, first], -1)
    turned = turned * cos + flipped * sin
    return turned if rest.shape[-1] == 0 else torch.cat([turned, rest], -1)


def attend(
    q: Float[Tensor, "batch head query d_head"],
    k: Float[Tensor, "batch kv key d_head"],
    v: Float[Tensor, "batch kv key d_head"],
    mask: Bool[Tensor, "#batch 1 query key"],
    divisor: float,
    soft_cap: float,
) -> Float[Tensor, "batch head query d_head"]:
    """Softmax attention with grouped heads; keys and values are never expanded to the query heads.

    Args:
        q: rotated queries.
        k: rotated keys.
        v: values.
        mask: True = may attend.
        divisor: scores are divided by it (sqrt(d_head) in most models).
        soft_cap: tanh cap of the scores (Gemma-2); 0 or less = none.
    """
    if soft_cap <= 0 and q.shape[2] > 1:
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1 / divisor, enable_gqa=grouped)
    rows = pattern(q, k, mask, divisor, soft_cap).to(v.dtype)
    return (rows.reshape(q.shape[0], k.shape[1], -1, k.shape[2]) @ v).reshape(q.shape)


def pattern(
    q: Float[Tensor, "batch head query d_head"],
    k: Float[Tensor, "batch kv key d_head"],
    mask: Bool[Tensor, "#batch 1 query key"],
    divisor: float,
    soft_cap: float,
) -> Float[Tensor, "batch head query key"]:
    """Attention rows, float32; arguments as for `attend`."""
    batch, heads, queries, d_head = q.shape
    rows = q.reshape(batch, k.shape[1], -1, d_head)  # the query heads of a group, one below another
    scores = (rows @ k.transpose(2, 3) / divisor).reshape(batch, heads, queries, -1)
    if soft_cap > 0:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    return scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32)
