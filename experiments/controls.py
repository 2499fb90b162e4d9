"""The controls of an experiment by name, drawn from `vectors.controls` for the vector of one block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from experiments.texts import Texts, places, steered_at, texts
from interp.context import Context
from interp.distributions import blocks, kl, log_probs
from interp.errors import UserError
from interp.summaries import Interval, control_range
from vectors import AdaptiveVectors, SteeringVectors
from vectors.controls import (
    effect_matched,
    matching_factor,
    negated,
    other_layer,
    permuted,
    permuted_adapters,
    random_adapters,
    random_covariance,
    random_isotropic,
)

KINDS = ("random-isotropic", "random-covariance", "random-effect-matched", "permuted", "negated", "other-block")
"""Every kind of control; "random-*" draw a direction, the others change the vector."""
RANDOM = ("random-isotropic", "random-covariance", "random-effect-matched", "permuted")
"""Kinds whose draws make a control's range: one more draw of them is what the vector may not look like."""
ENOUGH = 8
"""Problems from which an interval over problems can decide anything."""
MATCHED_POSITIONS = 6
"""Generated positions of a training problem on which effects are matched."""


FOR_ADAPTERS = (
    "adapters are studied by adaptive-scaling, token-substitution, prefix-substitution, accuracy-by-layer, magnitude, "
    "composition, side-effects, gain-ladder, effect-against-cost and path-patching"
)
"""What a user may do with adapters where an experiment cannot."""

Acting = SteeringVectors | AdaptiveVectors
"""What experiments that only switch vectors on can study."""


def acting(ctx: Context) -> Acting:
    """The run's vectors or rank-1 adapters, for experiments that switch them on and read what follows.

    Raises:
        UserError: they are neither, or do not fit the model.
    """
    return adaptive(ctx) if isinstance(ctx.vectors, AdaptiveVectors) else steering(ctx)


def adaptive(ctx: Context) -> AdaptiveVectors:
    """The run's rank-1 adapters.

    Raises:
        UserError: they are no rank-1 adapters, or do not fit the model.
    """
    vectors = ctx.vectors
    if not isinstance(vectors, AdaptiveVectors):
        works = "train some with `interp train --kind rank1 --layers 12`, or give a LoRA of rank 1 on down_proj"
        raise UserError("this experiment needs adaptive vectors", given=type(vectors).__name__, works=works)
    found = vectors.a.shape[1], vectors.d_model
    if found != (ctx.model.cfg.d_mlp, ctx.model.d_model) or max(vectors.layers) >= ctx.model.n_layers:
        given = f"d_mlp {found[0]}, d_model {found[1]}, layers up to {max(vectors.layers)}"
        raise UserError("these adapters do not fit the model", given=given)
    return vectors


def random_like(vectors: Acting, *, draws: int, seed: int) -> Sequence[Acting]:
    """Random vectors, or adapters with random a and b, of the same norms: the control "random-isotropic"."""
    if isinstance(vectors, AdaptiveVectors):
        return random_adapters(vectors, draws=draws, seed=seed)
    return random_isotropic(vectors, draws=draws, seed=seed)


def acting_controls(
    ctx: Context,
    every: Acting,
    layer: int,
    kinds: Sequence[str],
    *,
    draws: int,
    trained_on: Callable[[], Texts],
) -> Mapping[str, Sequence[Acting]]:
    """Controls of the vector or adapter of one block; arguments and errors as for `draw_controls`."""
    if not isinstance(every, AdaptiveVectors):
        return draw_controls(ctx, every, layer, kinds, draws=draws, trained_on=trained_on)
    _refuse_strange(kinds)
    return adapter_controls(ctx, every.only(layer), kinds, draws=draws, trained_on=trained_on)


def adapter_controls(
    ctx: Context,
    vectors: AdaptiveVectors,
    kinds: Sequence[str],
    *,
    draws: int,
    trained_on: Callable[[], Texts],
    tolerance: float = 0.1,
) -> dict[str, list[AdaptiveVectors]]:
    """Controls of adapters: random a and b, also at equal effect, permuted coordinates, and the negated adapters.

    Other kinds are left out, and said: a reads the neurons of its own block, so there is no adapter of another block to
    put in its place, and no covariance of the stream to draw it from.
    """
    makers: dict[str, Callable[[], list[AdaptiveVectors]]] = {
        "random-isotropic": lambda: random_adapters(vectors, draws=draws, seed=ctx.seed),
        "random-effect-matched": lambda: _matched_adapters(ctx, vectors, trained_on(), draws, tolerance),
        "permuted": lambda: permuted_adapters(vectors, draws=draws, seed=ctx.seed),
        "negated": lambda: [-vectors],
    }
    lacking = ", ".join(kind for kind in kinds if kind not in makers)
    if lacking:
        ctx.once(f"said of adapters: {lacking}", lambda: ctx.say(f"adapters have no control of kind {lacking}"))
    return {kind: made for kind in kinds if kind in makers and (made := makers[kind]())}


def _matched_adapters(
    ctx: Context, vectors: AdaptiveVectors, said: Texts, draws: int, tolerance: float
) -> list[AdaptiveVectors]:
    """Other random adapters than "random-isotropic", scaled to the adapters' mean KL on training problems."""
    target = mean_kl(ctx, said, vectors)
    found: list[AdaptiveVectors] = []
    if not target > 0:
        ctx.say("adapters without effect have no effect-matched controls")
        return found
    for candidate in random_adapters(vectors, draws=draws, seed=ctx.seed + 1):
        try:
            found.append(matching_factor(partial(mean_kl, ctx, said, candidate), target, tolerance) * candidate)
        except UserError as error:
            ctx.say(f"a random adapter is left out of the effect-matched controls: {error}")
    return found


def steering(ctx: Context) -> SteeringVectors:
    """The run's vectors.

    Raises:
        UserError: they are no steering vectors, or not of this model's width.
    """
    vectors = ctx.vectors
    if isinstance(vectors, AdaptiveVectors):
        what = "this experiment needs steering vectors: an adapter adds no fixed vector, its strength is the token's"
        raise UserError(what, given="rank-1 adapters", works=FOR_ADAPTERS)
    if not isinstance(vectors, SteeringVectors):
        raise UserError("this experiment needs steering vectors", given=type(vectors).__name__)
    if vectors.d_model != ctx.model.d_model or max(vectors.layers) >= ctx.model.n_layers:
        given = f"d_model {vectors.d_model}, layers up to {max(vectors.layers)}"
        works = f"d_model {ctx.model.d_model}, layers 0 to {ctx.model.n_layers - 1}"
        raise UserError("these vectors do not fit the model", given=given, works=works)
    return vectors


def draw_controls(
    ctx: Context,
    every: SteeringVectors,
    layer: int,
    kinds: Sequence[str],
    *,
    draws: int,
    trained_on: Callable[[], Texts],
) -> dict[str, list[SteeringVectors]]:
    """Control vectors of each kind for the vector of one block.

    Args:
        ctx: the run.
        every: all vectors of the set; the others' directions serve as "other-block".
        layer: the block.
        kinds: names in KINDS; "other-block" is left out where the set has one block.
        draws: of each kind; "negated" has one.
        trained_on: makes the texts of training problems, with the block's output kept, for covariance and effects.

    Raises:
        UserError: there is no such kind.
    """
    _refuse_strange(kinds)
    vectors, seed = every.only(layer), ctx.seed
    makers: dict[str, Callable[[], list[SteeringVectors]]] = {
        "random-isotropic": lambda: random_isotropic(vectors, draws=draws, seed=seed),
        "random-covariance": lambda: _covariance(vectors, layer, trained_on(), draws, seed),
        "random-effect-matched": lambda: _matched(ctx, vectors, trained_on(), draws, seed),
        "permuted": lambda: permuted(vectors, draws=draws, seed=seed),
        "negated": lambda: [negated(vectors)],
        "other-block": lambda: other_layer(every, layer, draws=draws, seed=seed) if len(every.layers) > 1 else [],
    }
    return {kind: made for kind in kinds if (made := makers[kind]())}


def _refuse_strange(kinds: Sequence[str]) -> None:
    strange = [kind for kind in kinds if kind not in KINDS]
    if strange:
        raise UserError("no such control", given=strange[0], works=f"use some of {', '.join(KINDS)}")


def training_texts(ctx: Context, n: int, layers: Sequence[int]) -> Texts:
    """Training problems, or the reported ones where the task has no training problems (nothing is chosen there)."""

    def make() -> Texts:
        try:
            return texts(ctx, split="train", n=n, keep=layers)
        except UserError:
            ctx.say(f"{ctx.task.name} has no training problems: controls are scaled on the problems of the run")
            return texts(ctx, n=n, keep=layers)

    return ctx.once(f"training texts {n} {list(layers)}", make)


def _covariance(vectors: SteeringVectors, layer: int, said: Texts, draws: int, seed: int) -> list[SteeringVectors]:
    tokens = said.forced.base_at(layer)[said.where("prompt", "generated")]
    return random_covariance(vectors, {layer: tokens}, draws=draws, seed=seed)


def _matched(ctx: Context, vectors: SteeringVectors, said: Texts, draws: int, seed: int) -> list[SteeringVectors]:
    """Other isotropic directions than "random-isotropic", scaled to the vector's mean KL on training problems.

    The KL of a random direction has a ceiling, which a strong vector may exceed: such draws are left out, and said.
    """
    target = mean_kl(ctx, said, vectors)
    found: list[SteeringVectors] = []
    for candidate in random_isotropic(vectors, draws=draws, seed=seed + 1):

        def effect(one: SteeringVectors, factor: float) -> float:
            return target if one.digest == vectors.digest else mean_kl(ctx, said, one, factor)

        try:
            found += effect_matched(vectors, effect, [candidate], tolerance=0.1)
        except UserError as error:
            ctx.say(f"a random direction is left out of the effect-matched controls: {error}")
    return found


def mean_kl(ctx: Context, said: Texts, vectors: Acting, factor: float = 1.0) -> float:
    """Mean KL(steered || base) over the positions that predict a completion, nats per token."""
    at = places(said, "first", "generated", at_most=MATCHED_POSITIONS)
    base, steered = said.forced.base[at.where], steered_at(said, vectors * factor, at.where)
    total = 0.0
    for some in blocks(len(at), ctx.model.d_vocab):
        total += float(kl(log_probs(ctx.model, steered[some]), log_probs(ctx.model, base[some])).sum())
    return total / len(at)


def control_interval(draws: Mapping[str, Sequence[float]], kinds: Sequence[str] = RANDOM) -> Interval | None:
    """Where one more draw of any kind of random control would fall: the union of the kinds' prediction ranges.

    Args:
        draws: the statistic of each draw, by kind.
        kinds: the kinds that count; those with fewer than three draws do not.

    Returns:
        None where no kind has three draws.
    """
    ranges = [control_range(values) for kind, values in draws.items() if kind in kinds and len(values) >= 3]
    if not ranges:
        return None
    mean = sum(one.estimate for one in ranges) / len(ranges)
    return Interval(mean, min(r.low for r in ranges), max(r.high for r in ranges), min(r.n for r in ranges))


def too_few(n: int) -> str | None:
    """Why a claim cannot be tested on n problems; None where there are enough."""
    return None if n >= ENOUGH else f"{n} problems are too few, {ENOUGH} is the least"


def halves(n: int, seed: int) -> tuple[list[int], list[int]]:
    """Two random halves of n problems: one to choose on, one to report on.

    Raises:
        UserError: there are fewer than two problems.
    """
    if n < 2:
        raise UserError("two halves need at least two problems", given=f"n={n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(order[: n // 2]), sorted(order[n // 2 :])
