"""Path patches written out on a Hugging Face model: two explicit streams, one head at a time, no cache, no batch.

A second implementation to hold the engine against. It knows nothing of the engine: it takes the model's own modules
for projections, norms and rotary angles, and a patch only as data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from interp.paths import CLEAN, FOLLOW, BlockPaths, Heads

Rows = dict[str, Tensor]


class Brute:
    """Log-probabilities of one row of tokens under vectors, with the paths of one block patched.

    Args:
        hf: a Llama-, Qwen2- or Gemma2-like causal model.
    """

    def __init__(self, hf: Any) -> None:
        self.hf, self.inner = hf, hf.model
        self.post_norms = hasattr(self.inner.layers[0], "pre_feedforward_layernorm")

    def log_probs(
        self, ids: Tensor, added: Mapping[int, Tensor], patch: BlockPaths | None = None, where: Tensor | None = None
    ) -> Tensor:
        """[pos, vocab]; `added` are vectors by block, added to its output at the positions `where` (all if None)."""
        with torch.no_grad():
            return self._run(ids, added, patch, torch.ones(len(ids)) if where is None else where.float())

    def _run(self, ids: Tensor, added: Mapping[int, Tensor], patch: BlockPaths | None, where: Tensor) -> Tensor:
        x = self.inner.embed_tokens(ids)
        for layer in range(len(self.inner.layers)):
            steered = x + where[:, None] * added.get(layer - 1, torch.zeros(x.shape[1]))
            clean = x if patch is not None and patch.layer == layer else steered
            x = self.block(layer, clean, steered, patch if patch is not None and patch.layer == layer else None)
        x = x + where[:, None] * added.get(len(self.inner.layers) - 1, torch.zeros(x.shape[1]))
        logits = self.hf.lm_head(self.inner.norm(x))
        cap = getattr(self.hf.config, "final_logit_softcapping", None)
        logits = cap * torch.tanh(logits / cap) if cap else logits
        return logits.log_softmax(-1)

    def block(self, layer: int, clean: Tensor, steered: Tensor, patch: BlockPaths | None) -> Tensor:
        """r + W_O a + MLP(LN2(r_m + W_O a_m)) of the two streams that enter."""
        patch = patch or BlockPaths()
        of_clean, of_steered = self.project(layer, clean), self.project(layer, steered)
        whole = {"clean": self.mix(layer, of_clean), "steered": self.mix(layer, of_steered)}
        chosen = {name: pick(getattr(patch, name), of_clean[name], of_steered[name]) for name in ("q", "k", "v")}
        patched = pick(patch.z, whole["clean"], self.mix(layer, chosen))
        heard = {world: patched if world is FOLLOW else whole[world.value] for world in type(FOLLOW)}
        r_m = clean if patch.resid_to_mlp is CLEAN else steered
        r = clean if patch.resid is CLEAN else steered
        to_mlp, to_resid = (self.write(layer, heard[one]) for one in (patch.attn_to_mlp, patch.attn_to_resid))
        return r + to_resid + self.mlp(layer, r_m + to_mlp)

    def project(self, layer: int, x: Tensor) -> Rows:
        """Queries, keys and values of one stream, rotated, [pos, head, d_head]."""
        block = self.inner.layers[layer]
        attn, normed = block.self_attn, block.input_layernorm(x)
        position = torch.arange(len(x))[None]
        cos, sin = (table[0][:, None] for table in self.inner.rotary_emb(x[None], position))
        q, k, v = (getattr(attn, f"{name}_proj")(normed).unflatten(-1, (-1, attn.head_dim)) for name in ("q", "k", "v"))
        return {"q": q * cos + half_turned(q) * sin, "k": k * cos + half_turned(k) * sin, "v": v}

    def mix(self, layer: int, rows: Rows) -> Tensor:
        """Outputs of the heads, [pos, head, d_head], one head after the other."""
        attn = self.inner.layers[layer].self_attn
        q, k, v = rows["q"], rows["k"], rows["v"]
        group = q.shape[1] // k.shape[1]
        index = torch.arange(len(q))
        allowed = index[None] <= index[:, None]
        if getattr(attn, "sliding_window", None):
            allowed &= index[None] > index[:, None] - attn.sliding_window
        heads: list[Tensor] = []
        for head in range(q.shape[1]):
            scores = q[:, head] @ k[:, head // group].T * attn.scaling
            cap = getattr(attn, "attn_logit_softcapping", None)
            scores = cap * torch.tanh(scores / cap) if cap else scores
            heads.append(scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v[:, head // group])
        return torch.stack(heads, 1)

    def write(self, layer: int, heads: Tensor) -> Tensor:
        """What heads add to the stream."""
        block = self.inner.layers[layer]
        out = block.self_attn.o_proj(heads.flatten(1))
        return block.post_attention_layernorm(out) if self.post_norms else out

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """What the MLP adds to the stream for the stream that it reads."""
        block = self.inner.layers[layer]
        if self.post_norms:
            return block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(x)))
        return block.mlp(block.post_attention_layernorm(x))


def pick(which: Any, clean: Tensor, steered: Tensor) -> Tensor:
    """The values of each head, [pos, head, d_head], from the world it is in."""
    if not isinstance(which, Heads):
        return clean if which is CLEAN else steered
    named, rest = (clean, steered) if which.world is CLEAN else (steered, clean)
    return torch.stack([(named if head in which.heads else rest)[:, head] for head in range(clean.shape[1])], 1)


def half_turned(x: Tensor) -> Tensor:
    """The second half of the last dimension, negated, before the first half."""
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)
