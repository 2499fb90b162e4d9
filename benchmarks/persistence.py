"""(5) What a vector of each block does to the output of all later blocks, on the same texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.bench import Bench
from benchmarks.measure import Contender, Line, compare, differ
from interp import Add, Batch, Forced, Site

TOLERANCE = 1e-3
"""Largest difference of a stream, as a share of its norm."""

Norms = list[Tensor]


def persistence(bench: Bench) -> list[Line]:
    """Norms of the change of every later block; the same by whole passes of HookedTransformer."""
    model, vector = bench.model, bench.vector()
    prompts = bench.prompts(bench.size(4, 2), shared=False)
    batch = Batch.of(prompts)
    steered = range(0, model.n_layers - 1, bench.size(2, 10))

    def ours() -> Norms:
        forced = Forced(model, batch, keep=range(model.n_layers))
        found: Norms = []
        for layer in steered:
            later, _ = forced.steered_at([Add(Site(layer, "resid_post"), vector)], range(layer + 1, model.n_layers))
            found.append(torch.stack([(value - forced.base_at(k)).norm(dim=-1).mean() for k, value in later.items()]))
        return found

    def plain() -> Norms:
        base = _streams(bench, batch, None, vector)
        found: Norms = []
        for layer in steered:
            moved = _streams(bench, batch, layer, vector)
            later = range(layer + 1, model.n_layers)
            found.append(torch.stack([(moved[k] - base[k]).norm(dim=-1).mean() for k in later]))
        return found

    def same(mine: Norms, theirs: Norms) -> str:
        worst = max(float(((a - b) / b).abs().max()) for a, b in zip(mine, theirs, strict=True))
        if not worst < TOLERANCE:
            raise differ("changes of later blocks", worst)
        return f"changes within {worst:.0e} of each other"

    contenders = [Contender("small-vectors", ours), Contender("HookedTransformer, one batched pass a block", plain)]
    setting = f"{len(steered)} steered blocks, {len(prompts)} texts of {batch.ids.shape[1]} tokens"
    return compare("persistence", setting, contenders, same, bench.rounds)


def _streams(bench: Bench, batch: Batch, layer: int | None, vector: Tensor) -> list[Tensor]:
    """resid_post of every block by one pass without unembedding, the vector on at a block."""
    hooked: Any = bench.model.hooked
    names = [f"blocks.{k}.hook_resid_post" for k in range(bench.model.n_layers)]
    hooks = [] if layer is None else [(names[layer], lambda value, hook: value + vector)]  # noqa: ARG005 - as TransformerLens calls it
    with torch.no_grad(), hooked.hooks(fwd_hooks=hooks):
        _, cache = hooked.run_with_cache(
            batch.ids, return_type=None, stop_at_layer=len(names), names_filter=lambda name: name in names
        )
    return [cache[name] for name in names]
