"""A block's weights as plain matrices, and which models the engine can run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.typed_module_list import TypedModuleList

from interp.backend.foreign import KNOWN, head_survey
from interp.backend.products import linear, prefers_onednn
from interp.errors import UserError

Hooked = HookedTransformer | TransformerBridge
"""What a Model can be made of: the class that goes in TransformerLens 4, and the one that stays."""

UNEMBEDDED = 1024
"""Columns of the unembedding that MKL multiplies at a time on a CPU: all at once take half as long again."""
SUPPORTED_NORMS = {"RMS", "RMSPre", "LN", "LNPre"}
ENGINE = KNOWN | {TypedModuleList}
"""Classes of modules that the engine computes."""


@dataclass(frozen=True)
class Block:
    """What a block computes with, as [in, out] matrices.

    They are views of the HookedTransformer's own storage where it came from a Hugging Face checkpoint. Where one was
    built by TransformerLens, whose [head, d_model, d_head] cannot be viewed so, queries, keys and values are copies:
    a block is made for one call and never kept, so that a changed weight is what the next call computes with.

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


def runs_functionally(hooked: Hooked, kinds: frozenset[type]) -> TypeGuard[HookedTransformer]:
    """Whether the engine computes this architecture; other ones run through their own hooks.

    Args:
        hooked: the model.
        kinds: classes of its modules, from a survey.
    """
    if isinstance(hooked, TransformerBridge) or not kinds <= ENGINE:
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
    causal = cfg.attention_dir == "causal" and not cfg.is_layer_norm_activation()
    causal = causal and all(block.attn._attention_dir_override is None for block in hooked.blocks)  # pyright: ignore
    return bool(plain and usual and known and causal and not post_norm and (cfg.n_devices or 1) == 1)


def device_of(hooked: Hooked) -> torch.device:
    """Where the weights are."""
    return _first(hooked).device


def dtype_of(hooked: Hooked) -> torch.dtype:
    """Of the embedding, as it is now; a config keeps the dtype that it was made with."""
    return _first(hooked).dtype


def refuse_other_dtype(hooked: Hooked) -> None:
    """Refuse weights of another dtype than the norms return, with which the model's own forward pass fails.

    Raises:
        UserError: the dtypes differ, as after `hooked.half()`.
    """
    if isinstance(hooked, TransformerBridge) or hooked.cfg.normalization_type is None:
        return
    for block in hooked.blocks:
        weight = getattr(getattr(block, "attn", None), "W_Q", None)
        if isinstance(weight, Tensor) and weight.is_floating_point() and weight.dtype != hooked.cfg.dtype:
            given, works = f"{weight.dtype} and {hooked.cfg.dtype}", f"hooked.to({weight.dtype}) changes both"
            raise UserError("the weights have another dtype than the config says", given=given, works=works)


def rows_of(hooked: Hooked) -> int:
    """Rows of the embedding."""
    if isinstance(hooked, TransformerBridge):
        inside: Any = hooked.original_model
        return int(inside.get_input_embeddings().weight.shape[0])
    table = getattr(hooked.embed, "W_E", None)
    return int(hooked.cfg.d_vocab) if table is None else len(table)


def _first(hooked: Hooked) -> Tensor:
    root: Any = hooked.original_model if isinstance(hooked, TransformerBridge) else hooked
    table = getattr(getattr(root, "embed", None), "W_E", None)
    return next(root.parameters()) if table is None else table


def unembed(hooked: Hooked, normed: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
    """Logits before a soft cap; by MKL on a CPU without gradient a few columns at a time."""
    module: Any = hooked.unembed
    plain = isinstance(hooked, HookedTransformer) and not head_survey(hooked)
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
