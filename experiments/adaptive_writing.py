"""What a rank-1 adapter writes on average, for experiments that read one direction of a block."""

from __future__ import annotations

from functools import partial

import torch

from experiments.adaptive_coefficients import Rows, Strength, rows_of, strengths
from experiments.controls import Acting
from interp.context import Context
from interp.numbers import shown
from vectors import AdaptiveVectors, SteeringVectors


def written(ctx: Context, vectors: Acting) -> SteeringVectors:
    """Steering vectors as they are; of adapters mean_t(c_t) b / |b| of each block, c_t = (a . m_t)|b|.

    (a, b) and (-a, -b) are the same adapter, so b alone has no sign; the mean strength gives it one, and a length. The
    mean is over each problem's generated tokens, then problems, on completions of the base model with no adapter on.
    How many tokens have the other sign is said: where it is near half of them, the direction's sign means little.

    Args:
        ctx: the run, whose problems are read.
        vectors: of the run's model; adapters act alone, however they were trained.
    """
    if isinstance(vectors, SteeringVectors):
        return vectors
    return ctx.once(f"written by {vectors.digest}", partial(_mean, ctx, vectors))


def _mean(ctx: Context, adapters: AdaptiveVectors) -> SteeringVectors:
    # with one adapter "on", nothing is on while strengths are read
    rows = rows_of(ctx, "test", ctx.n, adapters.only(adapters.layers[0]), text="base")
    directions: list[torch.Tensor] = []
    for layer, strength in strengths(ctx, rows, adapters, {}).items():
        mean, other = _sign(rows, strength)
        ctx.say(
            f"the adapter of block {layer} adds {shown(mean, '.3g')} along b; {other:.0%} of tokens have the other sign"
        )
        b = adapters.b[adapters.layers.index(layer)]
        directions.append(mean * b / b.norm().clamp(min=1e-30))
    recipe = {"operation": "mean addition", "of": [adapters.digest], "recipe": adapters.card.recipe}
    card = adapters.card.derive(f"mean addition of {adapters.name}"[:120], recipe)
    return SteeringVectors(torch.stack(directions), adapters.layers, card.model_copy(update={"kind": "vector"}))


def _sign(rows: Rows, strength: Strength) -> tuple[float, float]:
    """Mean strength over generated tokens, units of the residual stream, and the share of tokens of the other sign."""
    read = torch.as_tensor(rows.counted & (rows.segment == "generated"))
    means = [row[here].mean() for row, here in zip(strength.coefficient, read, strict=True) if here.any()]
    mean = float(torch.stack(means).mean()) if means else 0.0
    signs = strength.coefficient[read] * mean < 0
    return mean, float(signs.float().mean()) if len(signs) else 0.0
