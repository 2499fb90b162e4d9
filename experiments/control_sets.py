"""Controls for a whole set of vectors that is switched on together, as `experiments.controls` draws them for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from experiments.controls import Acting, adapter_controls, mean_kl
from experiments.texts import Texts
from interp.context import Context
from interp.errors import UserError
from vectors import AdaptiveVectors, SteeringVectors
from vectors.controls import effect_matched, negated, permuted, permuted_layers, random_covariance, random_isotropic

SET_KINDS = (
    "random-isotropic", "random-covariance", "random-effect-matched", "permuted", "permuted-layers", "negated"
)  # fmt: skip
"""Kinds of control for a set; "permuted-layers" needs several layers."""
TOLERANCE = 0.2
"""Relative difference of effects that counts as equal: a set is run through the whole model at every try."""


def acting_set_controls(
    ctx: Context,
    vectors: Acting,
    kinds: Sequence[str],
    *,
    draws: int,
    trained_on: Callable[[], Texts],
) -> Mapping[str, Sequence[Acting]]:
    """Control sets of vectors or adapters; arguments and errors as for `draw_set_controls`."""
    if not isinstance(vectors, AdaptiveVectors):
        return draw_set_controls(ctx, vectors, kinds, draws=draws, trained_on=trained_on)
    _refuse_strange(kinds)
    return adapter_controls(ctx, vectors, kinds, draws=draws, trained_on=trained_on, tolerance=TOLERANCE)


def draw_set_controls(
    ctx: Context,
    vectors: SteeringVectors,
    kinds: Sequence[str],
    *,
    draws: int,
    trained_on: Callable[[], Texts],
) -> dict[str, list[SteeringVectors]]:
    """Control sets of each kind: every layer's vector is replaced.

    Args:
        ctx: the run.
        vectors: the set, allowed to be on together.
        kinds: names in SET_KINDS.
        draws: of each kind; "negated" has one.
        trained_on: makes texts of training problems, with the output of all layers of the set kept.

    Raises:
        UserError: there is no such kind.
    """
    _refuse_strange(kinds)
    seed = ctx.seed
    makers: dict[str, Callable[[], list[SteeringVectors]]] = {
        "random-isotropic": lambda: random_isotropic(vectors, draws=draws, seed=seed),
        "random-covariance": lambda: _covariance(vectors, trained_on(), draws, seed),
        "random-effect-matched": lambda: _matched(ctx, vectors, trained_on(), draws, seed),
        "permuted": lambda: permuted(vectors, draws=draws, seed=seed),
        "permuted-layers": lambda: permuted_layers(vectors, draws=draws, seed=seed) if len(vectors.layers) > 1 else [],
        "negated": lambda: [negated(vectors)],
    }
    return {kind: made for kind in kinds if (made := makers[kind]())}


def _refuse_strange(kinds: Sequence[str]) -> None:
    strange = [kind for kind in kinds if kind not in SET_KINDS]
    if strange:
        raise UserError("no such control of a set", given=strange[0], works=f"use some of {', '.join(SET_KINDS)}")


def _covariance(vectors: SteeringVectors, said: Texts, draws: int, seed: int) -> list[SteeringVectors]:
    where = said.where("prompt", "generated")
    tokens = {layer: said.forced.base_at(layer)[where] for layer in vectors.layers}
    return random_covariance(vectors, tokens, draws=draws, seed=seed)


def _matched(ctx: Context, vectors: SteeringVectors, said: Texts, draws: int, seed: int) -> list[SteeringVectors]:
    """Other isotropic directions than "random-isotropic", scaled together to the set's mean KL."""
    target = mean_kl(ctx, said, vectors)
    found: list[SteeringVectors] = []
    for candidate in random_isotropic(vectors, draws=draws, seed=seed + 1):

        def effect(one: SteeringVectors, factor: float) -> float:
            return target if one.digest == vectors.digest else mean_kl(ctx, said, one, factor)

        try:
            found += effect_matched(vectors, effect, [candidate], tolerance=TOLERANCE)
        except UserError as error:
            ctx.say(f"a random set is left out of the effect-matched controls: {error}")
    return found
