"""A block's weights as plain matrices, and which models the engine can run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge

from interp.backend.products import linear, prefers_onednn

Hooked = HookedTransformer | TransformerBridge
"""What a Model can be made of: the class that goes in TransformerLens 4, and the one that stays."""

UNEMBEDDED = 1024
"""Columns of the unembedding that MKL multiplies at a time on a CPU: all at once take half as long again."""
SUPPORTED_NORMS = {"RMS", "RMSPre", "LN", "LNPre"}


@dataclass(frozen=True)
class Block:
    """What a block computes with. Matrices are [in, out] views of the HookedTransformer's own storage.

    Attributes:
        q, k, v, o, up, gate, down: weights; gate is None for a plain MLP.
        b_q, b_k, b_v, b_o, b_in, b_out: biases.
        module: the TransformerBlock, for its norms and activation function.
    """

    q: Float[Tensor, "d_model q_width"]
    k: Float[Tensor, "d_model kv_width"]
    v: Float[Tensor, "d_model kv_width"]
    o: Float[Tensor, "q_width d_model"]
    b_q: Float[Tensor, " q_width"]
    b_k: Float[Tensor, " kv_width"]
    b_v: Float[Tensor, " kv_width"]
    b_o: Float[Tensor, " d_model"]
    up: Float[Tensor, "d_model d_mlp"]
    gate: Float[Tensor, "d_model d_mlp"] | None
    down: Float[Tensor, "d_mlp d_model"]
    b_in: Float[Tensor, " d_mlp"]
    b_out: Float[Tensor, " d_model"]
    module: Any

    @classmethod
    def of(cls, module: Any) -> Block:
        """View a TransformerBlock's weights."""
        attn, mlp = module.attn, module.mlp
        grouped = hasattr(attn, "_W_K")
        k, v = (attn._W_K, attn._W_V) if grouped else (attn.W_K, attn.W_V)
        b_k, b_v = (attn._b_K, attn._b_V) if grouped else (attn.b_K, attn.b_V)
        return cls(
            q=_flat_in(attn.W_Q),
            k=_flat_in(k),
            v=_flat_in(v),
            o=attn.W_O.flatten(0, 1),
            b_q=attn.b_Q.flatten(),
            b_k=b_k.flatten(),
            b_v=b_v.flatten(),
            b_o=attn.b_O,
            up=mlp.W_in,
            gate=getattr(mlp, "W_gate", None),
            down=mlp.W_out,
            b_in=mlp.b_in,
            b_out=mlp.b_out,
            module=module,
        )


def _flat_in(weight: Float[Tensor, "head d_model d_head"]) -> Float[Tensor, "d_model width"]:
    """[head, d_model, d_head] -> [d_model, head * d_head]; a view when it came from a Hugging Face matrix."""
    return weight.transpose(1, 2).flatten(0, 1).T


def runs_functionally(hooked: Hooked) -> TypeGuard[HookedTransformer]:
    """Whether the engine computes this architecture; other ones run through their own hooks."""
    if isinstance(hooked, TransformerBridge):
        return False
    cfg: Any = hooked.cfg
    plain = not (
        cfg.parallel_attn_mlp or cfg.attn_only or cfg.load_in_4bit or cfg.use_attention_sinks or cfg.num_experts
    )
    usual = (
        cfg.clip_qkv is None and not cfg.use_logn_attn and not cfg.use_dynamic_ntk_rope and not cfg.post_embedding_ln
    )
    post_norm = str(cfg.original_architecture).startswith("Olmo")
    known = cfg.positional_embedding_type in ("rotary", "standard") and cfg.normalization_type in SUPPORTED_NORMS
    mlp = all(type(block.mlp).__name__ in ("MLP", "GatedMLP") for block in hooked.blocks)
    causal = cfg.attention_dir == "causal" and not cfg.is_layer_norm_activation()
    return bool(plain and usual and known and mlp and causal and not post_norm and (cfg.n_devices or 1) == 1)


def hooks_present(hooked: Hooked) -> bool:
    """Whether somebody else's hooks are on the model: then it must run as they expect."""
    return any(point.fwd_hooks or point.bwd_hooks for point in hooked.hook_dict.values())


def device_of(hooked: Hooked) -> torch.device:
    """Where the weights are."""
    if isinstance(hooked, TransformerBridge):
        return next(hooked.original_model.parameters()).device
    return hooked.unembed.W_U.device


def unembed(hooked: Hooked, normed: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
    """Logits before a soft cap; by MKL on a CPU without gradient a few columns at a time."""
    module: Any = hooked.unembed
    plain = isinstance(hooked, HookedTransformer) and not _hooked(module)
    if not plain or normed.device.type != "cpu" or torch.is_grad_enabled():
        return module(normed)
    if prefers_onednn(normed):
        return linear(normed, module.W_U.T, module.b_U)
    rows, weight, bias = normed.flatten(0, -2), module.W_U, module.b_U
    logits = rows.new_empty(len(rows), weight.shape[1])
    for start in range(0, weight.shape[1], UNEMBEDDED):
        some = slice(start, start + UNEMBEDDED)
        torch.addmm(bias[some], rows, weight[:, some], out=logits[:, some])
    return logits.unflatten(0, normed.shape[:-1])


def _hooked(module: Any) -> bool:
    return any(point.fwd_hooks or point.bwd_hooks for point in (module.hook_in, module.hook_out))
