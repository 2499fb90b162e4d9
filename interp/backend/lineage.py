"""Which base model these weights belong to, whatever the dtype and however they were tuned: the weaker identity."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.backend.weights import Hooked

ROWS = 64
"""Number of embedding rows that enter the hash."""


def lineage(hooked: Hooked) -> str:
    """Return 16 hex characters of SHA-256 over bfloat16-rounded weights: first `ln_final.w`, then 64 embedding rows.

    This tells whether vectors fit a model, and nothing else: a merged adapter or a second quantisation has the lineage
    of its base. What recalls results uses `interp.backend.fingerprint`.

    The rows are tokens `i * d_vocab // 64` in increasing order (all of them in a smaller vocabulary).
    Rounding makes a float32 and a bfloat16 load of one checkpoint agree. Gemma scales its embedding when it
    is converted, so its rows come from the unembedding, which is the same matrix unscaled. Its norms hold
    1 + w: a float32 Gemma checkpoint (the published ones are bfloat16) loaded in bfloat16 is rounded twice and
    may hash differently.

    Returns:
        The hash; empty where the final norm was folded into the unembedding, because its weights are gone.
    """
    if isinstance(hooked, TransformerBridge):
        return _of_bridge(hooked)
    norm = getattr(getattr(hooked, "ln_final", None), "w", None)
    if norm is None:
        return ""
    scaled = (hooked.cfg.original_architecture or "").startswith("Gemma")
    return lineage_of_tensors(norm, hooked.unembed.W_U.T if scaled else hooked.embed.W_E)


def _of_bridge(bridge: TransformerBridge) -> str:
    """From the Hugging Face model inside, as a HookedTransformer of it would have; empty where Gemma's norms hold w."""
    norm = getattr(getattr(bridge.ln_final, "original_component", None), "weight", None)
    if norm is None or (bridge.cfg.architecture or "").startswith("Gemma"):
        return ""
    inside: Any = bridge.original_model
    return lineage_of_tensors(norm, inside.get_input_embeddings().weight)


def lineage_of_tensors(norm: Float[Tensor, " d_model"], table: Float[Tensor, "vocab d_model"]) -> str:
    """Return the lineage of a final norm's weights and an embedding matrix, as a checkpoint holds them."""
    count = table.shape[0]
    tokens = sorted({i * count // ROWS for i in range(ROWS)})
    return sha256(_bytes(norm) + _bytes(table[tokens])).hexdigest()[:16]


def _bytes(values: Tensor) -> bytes:
    rounded = values.detach().to("cpu", torch.bfloat16).contiguous()
    return rounded.view(torch.uint8).numpy().tobytes()
