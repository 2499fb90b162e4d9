"""Hidden states under path patches at the positions that are read, and how far each is from the steered run.

In the last block only the positions that are read need an MLP and an output: queries, keys and values of the two
streams are made once for all patches, so a patch costs little more than its unembedding. A patch of any other block
runs through the model (tests/experiments/test_patched_block.py holds the two against each other).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from experiments.controls import Acting
from experiments.patches import placed
from experiments.texts import Texts
from interp.backend.engine import Engine
from interp.context import Context
from interp.distributions import blocks, by_rows, kl, log_probs, total_variation
from interp.editor import Editor
from interp.edits import Edit
from interp.paths import CLEAN, FOLLOW, STEERED, BlockPaths, Heads, Slice, World
from interp.sites import Site
from vectors import AdaptiveVectors

Readout = Literal["kl", "tv", "delta_p"]
BESIDE: tuple[Readout, ...] = ("kl", "tv", "delta_p")
Heads3 = tuple[Tensor, Tensor, Tensor]


class PatchedBlock:
    """The block above a vector, on texts, ready to be patched.

    Args:
        ctx: the run; counts what the vector touched.
        said: texts, with the output of the vector's block kept.
        vectors: the vector of one block.
        where: the positions that are read.
    """

    def __init__(self, ctx: Context, said: Texts, vectors: Acting, where: Bool[Tensor, "row pos"]) -> None:
        self.ctx, self.model, self.said, self.vectors, self.where = ctx, ctx.model, said, vectors, where
        self.layer = vectors.layers[-1] + 1
        self.clean, self.moved = streams(ctx, said, vectors)
        path: Any = said.forced.path
        fast = isinstance(path, Engine) and self.layer == said.forced.last
        self._last = _LastBlock(path, said, self.layer, self.clean, self.moved, where) if fast else None
        self.base = said.forced.base[where]
        self.steered = self.final(BlockPaths())

    def final(self, patch: Edit) -> Float[Tensor, "place d_model"]:
        """Hidden states after the last block under a patch, at the positions that are read."""
        one = placed(patch, self.layer)
        if self._last is not None and isinstance(one, BlockPaths):
            with torch.no_grad():
                return self._last.final(one)
        final, fired = self.said.forced.steered([*self.vectors.edits(), one])
        if not isinstance(one, BlockPaths):
            self.ctx.fired([count for count in fired if count.edit == one.describe()])
        return final[self.where]


def streams(
    ctx: Context, said: Texts, vectors: Acting
) -> tuple[Float[Tensor, "row pos d_model"], Float[Tensor, "row pos d_model"]]:
    """What enters the block above a vector, without it and with it."""
    forced, layer = said.forced, vectors.layers[-1]
    clean = forced.base_at(layer)
    if isinstance(vectors, AdaptiveVectors):  # acts inside its block, which runs again
        found, fired = forced.steered_at(vectors.edits(), [layer])
        ctx.fired(fired)
        return clean, found[layer]
    editor = Editor(vectors.edits(), n_rows=len(forced.batch), n_layers=ctx.model.n_layers)
    moved = editor(Site(layer, "resid_post"), clean, forced.whole)
    ctx.fired(editor.fired())
    return clean, moved


class _LastBlock:
    """The last block at some positions of some rows; keys and values of these rows in both worlds, kept."""

    def __init__(
        self, engine: Engine, said: Texts, layer: int, clean: Tensor, moved: Tensor, where: Bool[Tensor, "row pos"]
    ) -> None:
        rows = where.any(1).nonzero()[:, 0]
        self.engine, self.layer, self.where = engine, layer, where[rows]
        self.shared = engine.whole(said.forced.whole.take(rows))
        self.module = engine.blocks[layer].module
        with torch.no_grad():
            self.heads: dict[World, Heads3] = {
                world: engine.project(layer, self.module.ln1(x[rows]))
                for world, x in ((CLEAN, clean), (STEERED, moved))
            }
        self.resid = {CLEAN: clean[where], STEERED: moved[where]}
        self._mixed: dict[tuple[Slice, Slice, Slice], Tensor] = {}

    def final(self, patch: BlockPaths) -> Float[Tensor, "place d_model"]:
        patched = self._choose(patch.z, self.mixed(CLEAN, CLEAN, CLEAN), self.mixed(patch.q, patch.k, patch.v))
        to_mlp, to_resid = (self._attention(world, patched) for world in (patch.attn_to_mlp, patch.attn_to_resid))
        read = self.module.ln2(self.resid[patch.resid_to_mlp][None] + to_mlp)
        return self.engine.finish(self.layer, self.resid[patch.resid][None] + to_resid, read, self.shared)[0]

    def _attention(self, world: World, patched: Tensor) -> Float[Tensor, "one place d_model"]:
        z = patched if world is FOLLOW else self.mixed(world, world, world)
        return self.engine.attention_output(self.layer, z[None])

    def mixed(self, q: Slice, k: Slice, v: Slice) -> Float[Tensor, "place head d_head"]:
        """Outputs of the heads for queries, keys and values from these worlds, made once."""
        if (q, k, v) not in self._mixed:
            clean, moved = self.heads[CLEAN], self.heads[STEERED]
            ours, keys, values = map(self._choose, (q, k, v), clean, moved)
            self._mixed[q, k, v] = self.engine.mix(self.layer, ours, keys, values, self.shared)[self.where]
        return self._mixed[q, k, v]

    def _choose(self, which: Slice, clean: Tensor, moved: Tensor) -> Tensor:
        """Heads, the last dimension but one, from the world that each is in."""
        if not isinstance(which, Heads):
            return clean if which is CLEAN else moved
        named = torch.zeros(clean.shape[-2], 1, dtype=torch.bool, device=clean.device)
        named[list(which.heads)] = True
        return torch.where(named if which.world is STEERED else ~named, moved, clean)


@dataclass(frozen=True)
class Distances:
    """What patches leave of a vector's effect, by position.

    Attributes:
        whole: distance between the steered run and the base.
        left: distance between the steered run and each patched one; 0 = the patch keeps everything.
        kl: KL(patched || base), nats.
        tv: total variation between patched and base.
        max_dp: largest change of a token's probability between patched and base, in absolute value.
    """

    whole: Float[Tensor, " place"]
    left: Float[Tensor, "place patch"]
    kl: Float[Tensor, "place patch"]
    tv: Float[Tensor, "place patch"]
    max_dp: Float[Tensor, "place patch"]


def distances(
    block: PatchedBlock, patches: Sequence[Edit], readout: Readout = "kl", *, beside: bool = True
) -> Distances:
    """Distances of next-token distributions under patches from the steered run, and from the base.

    Args:
        block: the patched block.
        patches: any number of them.
        readout: kl = KL(steered || other), nats; tv = total variation; delta_p = largest change of a probability.
        beside: whether the distances from the base are wanted too; NaN where not.
    """
    model, n = block.model, len(block.base)
    finals = [block.final(patch) for patch in patches]
    whole = torch.zeros(n)
    table = torch.full((n, len(patches), 4), torch.nan)

    def measured(logits: Tensor, steered: Tensor, base: Tensor) -> Tensor:
        patched = logits.log_softmax(-1)
        found = [distance(steered, patched, readout)]
        found += [distance(patched, base, name) for name in BESIDE] if beside else []
        return torch.stack(found, -1)

    with torch.no_grad():
        for some in blocks(block.base, model.d_vocab):
            steered, base = log_probs(model, block.steered[some]), log_probs(model, block.base[some])
            whole[some] = distance(steered, base, readout).cpu()
            for index, final in enumerate(finals):
                found = by_rows(measured, model.unembed(final[some]).float(), steered, base)
                table[some, index, : found.shape[1]] = found.cpu()
    return Distances(whole, *table.unbind(-1))


def distance(
    log_p: Float[Tensor, "row vocab"], log_q: Float[Tensor, "row vocab"], readout: Readout
) -> Float[Tensor, " row"]:
    """Distance of q from p: KL(p || q) in nats, total variation, or the largest |change| of a probability."""
    if readout == "kl":
        return kl(log_p, log_q)
    if readout == "tv":
        return total_variation(log_p, log_q)
    return by_rows(lambda p, q: (p.exp() - q.exp()).abs().amax(-1), log_p, log_q)
