"""The forward pass, written as functions over a HookedTransformer's weights.

No hook points, so values can be taken, replaced and differentiated at every site, prefixes shared and blocks skipped.
Agrees with `HookedTransformer.forward` and with Hugging Face to float rounding (tests/interp/test_engine.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import HookedTransformer

from interp.backend.attention import pattern, rotate
from interp.backend.cache import Cache, Slot
from interp.backend.passes import Pass, Tap, untouched
from interp.backend.products import linear
from interp.backend.routes import Routes, routes_of
from interp.backend.weights import Block, device_of
from interp.paths import CLEAN, STEERED, BlockPaths, World
from interp.positions import Tokens
from interp.sites import Site


class Engine:
    """Runs the blocks of a HookedTransformer without its hook points.

    Args:
        hooked: a model for which `runs_functionally` holds; make an engine for each call, as weights may be copies.
    """

    def __init__(self, hooked: HookedTransformer) -> None:
        self.hooked = hooked
        self.cfg: Any = hooked.cfg
        self.blocks = [Block.of(block) for block in hooked.blocks]
        self.n_layers = len(self.blocks)
        self.device = device_of(hooked)
        self.kinds = {block.module.attn.attn_type for block in self.blocks}

    def new_cache(self, *, reserve: int = 0, grad: bool = False) -> Cache:
        """An empty cache with room for `reserve` tokens more than the first pass brings."""
        return Cache(reserve=reserve, grad=grad)

    def routes(self, patches: Sequence[tuple[BlockPaths, Sequence[int] | None]], n_rows: int) -> dict[int, Routes]:
        """Block -> routes of `n_rows` rows, from placed path patches and the rows of each (None = all)."""
        heads, kv_heads = int(self.cfg.n_heads), int(self.cfg.n_key_value_heads or self.cfg.n_heads)
        return routes_of(patches, n_rows, heads=heads, kv_heads=kv_heads, device=self.device)

    def forward(
        self,
        tokens: Tokens,
        *,
        tap: Tap,
        sites: set[Site],
        cache: Cache | None = None,
        resid: Float[Tensor, "batch pos d_model"] | None = None,
        start: int = 0,
        stop: int | None = None,
        routes: Mapping[int, Routes] | None = None,
        clean: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Run blocks `start` to `stop` (exclusive) over the new tokens.

        Args:
            tokens: the new tokens with their absolute positions.
            tap: called at `sites`, in the order of computation.
            sites: where to call it.
            cache: earlier tokens' keys and values; extended in place. Without, the new tokens are all there is.
            resid: resid_pre of block `start`; the embedding if not given.
            start: first block.
            stop: one past the last block; None = all.
            routes: blocks some of whose paths are clean.
            clean: resid_pre of block `start` without the edits at the output of the block below; `resid` if not given.

        Returns:
            The residual stream after the last block that ran.
        """
        known = tokens.position if cache is None else cache.advance(tokens.position)
        self.extend_rotations(tokens)
        shared = Pass(tokens, self.masks(tokens.position, known), cache, tap, sites, routes or {})
        x = self.embed(tokens) if resid is None else resid
        shared.clean[start] = x if clean is None else clean
        for layer in range(start, self.n_layers if stop is None else stop):
            if layer in shared.routes:
                x = self.routed_block(layer, x, shared.clean[layer], shared)
            else:
                x = self.block(layer, x, shared)
        return x

    def embed(self, tokens: Tokens) -> Float[Tensor, "batch pos d_model"]:
        """Token (and, where the model has them, position) embeddings."""
        x: Tensor = self.hooked.embed.W_E[tokens.ids]
        if self.cfg.positional_embedding_type == "standard":
            x = x + self.hooked.pos_embed.W_pos[tokens.position.clamp(min=0)]
        return x

    def block(self, layer: int, x: Float[Tensor, "batch pos d_model"], shared: Pass) -> Tensor:
        """One transformer block."""
        module = self.blocks[layer].module
        x = shared.visit(layer, "resid_pre", x)
        q, k, v = self.visit_heads(layer, *self.project(layer, shared.visit(layer, "ln1_out", module.ln1(x))), shared)
        z = shared.visit(layer, "z", self.mix(layer, q, k, v, shared))
        attn_out = shared.visit(layer, "attn_out", self.attention_output(layer, z))
        x = shared.visit(layer, "resid_mid", shared.narrow(x) + attn_out)
        return self.finish(layer, x, shared.visit(layer, "ln2_out", module.ln2(x)), shared)

    def routed_block(
        self,
        layer: int,
        steered: Float[Tensor, "batch pos d_model"],
        clean: Float[Tensor, "batch pos d_model"],
        shared: Pass,
    ) -> Float[Tensor, "batch pos d_model"]:
        """One block some of whose paths are clean, in each row others (arXiv:2509.06608 sec. 7).

        With x the stream without the edit below and x' the one with it, the output is
        r + W_O a + MLP(LN2(r_m + W_O a_m)); see `interp.paths.BlockPaths`.

        Args:
            layer: the block.
            steered: x'.
            clean: x.
            shared: of the pass, which holds the routes.
        """
        routes, rows, module = shared.routes[layer], shared.tokens.rows, self.blocks[layer].module
        ours, theirs = (self.project(layer, module.ln1(x)) for x in (steered, clean))
        masks = (mask[rows][:, None, :, None] for mask in (routes.q, routes.k, routes.v))
        q, k, v = (torch.where(mask, a, b) for mask, a, b in zip(masks, ours, theirs, strict=True))
        z = self.mix(layer, *self.visit_heads(layer, q, k, v, shared), shared)
        outputs: dict[World, Tensor] = {}
        if routes.needs_clean:
            z_clean = self.mix(layer, *theirs, shared, slot=(layer, "clean"))
            outputs[CLEAN] = self.attention_output(layer, z_clean)
            z = torch.where(routes.z[rows][:, None, :, None], z, z_clean)
        if routes.needs_steered:
            outputs[STEERED] = self.attention_output(layer, self.mix(layer, *ours, shared, slot=(layer, "steered")))
        followed = self.attention_output(layer, shared.visit(layer, "z", z))
        mid = routes.stream("resid", rows, steered, clean) + routes.attention("attn_to_resid", rows, followed, outputs)
        read = routes.stream("resid_to_mlp", rows, steered, clean)
        read = read + routes.attention("attn_to_mlp", rows, followed, outputs)
        return self.finish(layer, mid, shared.visit(layer, "ln2_out", module.ln2(read)), shared)

    def finish(
        self,
        layer: int,
        mid: Float[Tensor, "batch pos d_model"],
        read: Float[Tensor, "batch pos d_model"],
        shared: Pass,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The MLP and the stream after it.

        Args:
            layer: the block.
            mid: the stream that goes on.
            read: the MLP's normalised input.
            shared: of the pass.
        """
        mlp_out = self.mlp(layer, read, shared)
        if self.cfg.use_normalization_before_and_after:
            mlp_out = self.blocks[layer].module.ln2_post(mlp_out)
        if layer + 1 in shared.routes:
            shared.clean[layer + 1] = mid + mlp_out
        return shared.visit(layer, "resid_post", mid + shared.visit(layer, "mlp_out", mlp_out))

    def project(self, layer: int, x: Float[Tensor, "batch pos d_model"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values before the rotation, [batch, pos, head, d_head]."""
        w, d_head = self.blocks[layer], self.cfg.d_head
        return (
            linear(x, w.q.T, w.b_q).unflatten(-1, (-1, d_head)),
            linear(x, w.k.T, w.b_k).unflatten(-1, (-1, d_head)),
            linear(x, w.v.T, w.b_v).unflatten(-1, (-1, d_head)),
        )

    def visit_heads(self, layer: int, q: Tensor, k: Tensor, v: Tensor, shared: Pass) -> tuple[Tensor, Tensor, Tensor]:
        """Offer queries, keys and values to the tap."""
        return shared.visit(layer, "q", q), shared.visit(layer, "k", k), shared.visit(layer, "v", v)

    def mix(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, shared: Pass, *, slot: Slot | None = None
    ) -> Float[Tensor, "batch pos head d_head"]:
        """Norm, rotate, cache and attend; returns the heads' outputs before W_O.

        Args:
            layer: the block.
            q: queries before the rotation.
            k: keys before the rotation.
            v: values.
            shared: of the pass.
            slot: where the cache keeps these keys and values; the block's own place if not given.
        """
        heads, attn = self._rotated(layer, q, k, v, shared), self.blocks[layer].module.attn
        soft_cap, slot = self.cfg.attn_scores_soft_cap, layer if slot is None else slot
        return shared.attend(slot, attn.attn_type, heads, float(attn.attn_scale), soft_cap).transpose(1, 2)

    def whole(self, tokens: Tokens) -> Pass:
        """A pass over whole rows without cache, edits or reads."""
        self.extend_rotations(tokens)
        return Pass(tokens, self.masks(tokens.position, tokens.position), None, untouched, set())

    def pattern(
        self, layer: int, resid: Float[Tensor, "batch pos d_model"], tokens: Tokens
    ) -> Float[Tensor, "batch head query key"]:
        """Attention rows of a block, from its input over whole rows of tokens; those of padding mean nothing."""
        shared = self.whole(tokens)
        module = self.blocks[layer].module
        q, k, _ = self._rotated(layer, *self.project(layer, module.ln1(resid)), shared)
        attn = module.attn
        return pattern(q, k, shared.mask[attn.attn_type], float(attn.attn_scale), self.cfg.attn_scores_soft_cap)

    def attention_output(self, layer: int, z: Float[Tensor, "batch pos head d_head"]) -> Tensor:
        """W_O and, where the model has one, the norm after it."""
        w = self.blocks[layer]
        out = linear(z.flatten(2), w.o.T, w.b_o)
        return w.module.ln1_post(out) if self.cfg.use_normalization_before_and_after else out

    def _rotated(self, layer: int, q: Tensor, k: Tensor, v: Tensor, shared: Pass) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys normed and rotated; all three as [batch, head, pos, d_head]."""
        attn = self.blocks[layer].module.attn
        if self.cfg.use_qk_norm:
            q, k = attn._apply_qk_norm(q, attn.q_norm), attn._apply_qk_norm(k, attn.k_norm)
        if self.rotary:
            position, adjacent = shared.tokens.position.clamp(min=0), bool(self.cfg.rotary_adjacent_pairs)
            # Each block's own tables: somebody may have changed those of one.
            cos, sin = attn.rotary_cos[position][:, :, None], attn.rotary_sin[position][:, :, None]
            q, k = rotate(q, cos, sin, adjacent=adjacent), rotate(k, cos, sin, adjacent=adjacent)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def mlp(self, layer: int, x: Float[Tensor, "batch pos d_model"], shared: Pass) -> Tensor:
        """MLP of one block, from its normalised input to before the output norm."""
        w = self.blocks[layer]
        if w.gate is None:
            post = w.module.mlp.act_fn(linear(x, w.up.T, w.b_in))
        else:
            post = torch.addcmul(w.b_in, w.module.mlp.act_fn(linear(x, w.gate.T)), linear(x, w.up.T))
        return linear(shared.visit(layer, "mlp_post", post), w.down.T, w.b_out)

    @property
    def rotary(self) -> bool:
        """Whether queries and keys are rotated by their positions."""
        return self.cfg.positional_embedding_type == "rotary"

    def extend_rotations(self, tokens: Tokens) -> None:
        """Let the tables of angles reach the last of these tokens, as TransformerLens' own forward pass does."""
        if not self.rotary:
            return
        longest = int(tokens.position.max()) + 1
        for block in self.blocks:
            attn = block.module.attn
            if longest > attn.rotary_cos.shape[0]:
                attn._extend_rotary_embeddings(min(self.cfg.n_ctx, max(longest, 2 * attn.rotary_cos.shape[0])))

    def masks(
        self, query: Int[Tensor, "batch query"], key: Int[Tensor, "batch key"]
    ) -> dict[str, Bool[Tensor, "batch 1 query key"]]:
        """Which key each query may attend to; absolute positions decide, so padding may stand anywhere."""
        causal = (key[:, None] >= 0) & (key[:, None] <= query[:, :, None])
        masks: dict[str, Tensor] = {}
        for kind in self.kinds:
            mask = causal
            if kind == "local":
                mask = causal & (key[:, None] > query[:, :, None] - self.cfg.window_size)
            # A padding query sees everything, so that its softmax stays finite; nobody reads it.
            masks[kind] = (mask | (query[:, :, None] < 0))[:, None]
        return masks
