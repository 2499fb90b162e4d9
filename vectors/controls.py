"""Untrained controls: what any vector of this size, spread or effect would do.

Each draw is a value like the vectors it stands against, with a card that names control, draw and seed. Draw i does
not depend on how many draws are made. One isotropic random vector is no control: take several, of several kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from scipy.optimize import root_scalar
from torch import Tensor

from interp.digest import digest
from interp.errors import UserError
from interp.selection import whole
from interp.zero_norm import refuse_zero
from vectors.adaptive import AdaptiveVectors
from vectors.steering import SteeringVectors

DRAWS = 8
Effect = Callable[[SteeringVectors, float], float]
_LARGEST_FACTOR = 2.0**12


def random_isotropic(vectors: SteeringVectors, *, draws: int = DRAWS, seed: int = 0) -> list[SteeringVectors]:
    """Directions uniform on the sphere, with the norm of each layer's vector."""
    _check_draws(vectors, draws)
    found: list[SteeringVectors] = []
    for draw in range(draws):
        rows = [
            torch.randn(vectors.d_model, generator=_generator("random_isotropic", seed, draw, layer))
            for layer in vectors.layers
        ]
        found.append(_drawn(vectors, torch.stack(rows), "random_isotropic", draw, seed))
    return found


def random_covariance(
    vectors: SteeringVectors,
    activations: Mapping[int, Float[Tensor, "n d_model"]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[SteeringVectors]:
    """Gaussian directions with the covariance of the residual stream, with the norm of each layer's vector.

    Args:
        vectors: what the controls stand against.
        activations: layer -> residual stream after that block, a row for each token; leave out position 0 and
            template tokens, whose norms would dominate.
        draws: number of controls.
        seed: of the random directions.

    Raises:
        UserError: a layer has no activations, too few, or of another width.
    """
    _check_draws(vectors, draws)
    spreads = {layer: _centred(activations, layer, vectors.d_model) for layer in vectors.layers}
    found: list[SteeringVectors] = []
    for draw in range(draws):
        rows: list[Tensor] = []
        for layer, spread in spreads.items():
            # A Gaussian mixture of the centred rows has exactly their covariance; no d x d matrix is needed.
            weights = torch.randn(len(spread), generator=_generator("random_covariance", seed, draw, layer))
            rows.append(weights @ spread)
        found.append(_drawn(vectors, torch.stack(rows), "random_covariance", draw, seed))
    return found


def permuted(vectors: SteeringVectors, *, draws: int = DRAWS, seed: int = 0) -> list[SteeringVectors]:
    """The same values at permuted coordinates: norm and outliers stay, the direction goes."""
    _check_draws(vectors, draws)
    found: list[SteeringVectors] = []
    for draw in range(draws):
        rows = [
            row[torch.randperm(vectors.d_model, generator=_generator("permuted", seed, draw, layer))]
            for layer, row in zip(vectors.layers, vectors.directions, strict=True)
        ]
        found.append(_labelled(vectors, torch.stack(rows), "permuted", draw, seed))
    return found


def permuted_layers(vectors: SteeringVectors, *, draws: int = DRAWS, seed: int = 0) -> list[SteeringVectors]:
    """The same vectors at shuffled layers, each with the norm of the vector it replaces.

    Raises:
        UserError: there is one layer only.
    """
    _check_draws(vectors, draws)
    n = len(vectors.layers)
    if n < 2:
        raise UserError("one layer cannot be shuffled", given=vectors.name, works="use other_layer")
    found: list[SteeringVectors] = []
    for draw in range(draws):
        generator = _generator("permuted_layers", seed, draw, 0)
        order = torch.randperm(n, generator=generator)
        while bool((order == torch.arange(n)).all()):
            order = torch.randperm(n, generator=generator)
        found.append(_drawn(vectors, vectors.directions[order], "permuted_layers", draw, seed))
    return found


def negated(vectors: SteeringVectors) -> SteeringVectors:
    """-s."""
    return _labelled(vectors, -vectors.directions, "negated", 0, 0)


def other_layer(vectors: SteeringVectors, block: int, *, draws: int = DRAWS, seed: int = 0) -> list[SteeringVectors]:
    """Vectors of other blocks, moved to this one and scaled to the norm of its own vector.

    Args:
        vectors: a set with several layers; for single-layer sets, all of them in one value.
        block: where the controls are placed.
        draws: how many other blocks at most; all, where there are fewer.
        seed: which blocks.

    Raises:
        UserError: there is no vector at this block, or none elsewhere.
    """
    _check_draws(vectors, draws)
    here = vectors.only(block)
    others = [layer for layer in vectors.layers if layer != block]
    if not others:
        raise UserError("there is no vector of another block", given=vectors.name, works="load the whole set")
    order = torch.randperm(len(others), generator=_generator("other_layer", seed, 0, block)).tolist()
    return [
        _drawn(here, vectors[others[index]][None], "other_layer", draw, seed, source=others[index])
        for draw, index in enumerate(order[:draws])
    ]


def effect_matched(
    vectors: SteeringVectors,
    effect: Effect,
    candidates: Sequence[SteeringVectors] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    tolerance: float = 0.05,
) -> list[SteeringVectors]:
    """Random directions, each scaled until its effect equals that of the vectors.

    Args:
        vectors: what the controls stand against.
        effect: (vectors, factor) -> effect of factor * vectors, positive and growing with the factor; in the
            experiments the mean KL to the base model in nats per token, on TRAINING prompts.
        candidates: the directions to scale; by default isotropic ones.
        draws: number of isotropic directions, where no candidates are given.
        seed: of the isotropic directions.
        tolerance: largest accepted relative difference of the effects.

    Raises:
        UserError: the vectors have no effect, or no factor up to 4096 gives a direction that effect.
    """
    _check_draws(vectors, draws)
    target = effect(vectors, 1.0)
    if not target > 0:
        raise UserError("vectors without effect cannot be matched", given=f"effect {target:.3g}")
    chosen = random_isotropic(vectors, draws=draws, seed=seed) if candidates is None else candidates
    found: list[SteeringVectors] = []
    for draw, candidate in enumerate(chosen):
        factor = matching_factor(lambda x, one=candidate: effect(one, x), target, tolerance)
        label = f"effect_matched {candidate.card.recipe.get('control', 'given')}"
        told = {"factor": factor, "effect": target, "tolerance": tolerance, "direction": candidate.digest}
        found.append(_labelled(vectors, factor * candidate.directions, label, draw, seed, **told))
    return found


def matching_factor(effect: Callable[[float], float], target: float, tolerance: float) -> float:
    """The factor at which a growing effect reaches a target, to a relative tolerance in the effect.

    Raises:
        UserError: the target is not reached for factors between 1/4096 and 4096.
    """

    def excess(factor: float) -> float:
        ratio = effect(factor) / target - 1
        return 0.0 if abs(ratio) <= tolerance else ratio  # an exact zero ends the search

    low = high = 1.0
    at_one = at_low = at_high = excess(1.0)
    while at_high < 0 and high < _LARGEST_FACTOR:
        low, at_low, high = high, at_high, high * 2
        at_high = excess(high)
    while at_low > 0 and low > 1 / _LARGEST_FACTOR:
        high, at_high, low = low, at_low, low / 2
        at_low = excess(low)
    if at_low > 0 or at_high < 0:
        given = f"effect {(at_one + 1) * target:.3g} at factor 1, wanted {target:.3g}"
        raise UserError("no scale gives this direction the wanted effect", given=given)
    if at_low == 0 or at_high == 0:
        return low if at_low == 0 else high
    return float(root_scalar(excess, bracket=(low, high), method="brentq", xtol=1e-6 * low).root)


def random_adapters(vectors: AdaptiveVectors, *, draws: int = DRAWS, seed: int = 0) -> list[AdaptiveVectors]:
    """Adapters that read and write directions uniform on the sphere, with the norms of each layer's a and b."""
    _check_draws(vectors, draws)
    found: list[AdaptiveVectors] = []
    for draw in range(draws):
        sides: dict[str, Tensor] = {}
        for side, own in (("a", vectors.a), ("b", vectors.b)):
            name = f"random_adapters {side}"
            rows = [
                torch.randn(own.shape[1], generator=_generator(name, seed, draw, layer)) for layer in vectors.layers
            ]
            drawn = torch.stack(rows)
            sides[side] = drawn / drawn.norm(dim=1, keepdim=True) * own.norm(dim=1, keepdim=True)
        found.append(_adapter(vectors, "random_adapters", draw, seed, **sides))
    return found


def permuted_adapters(vectors: AdaptiveVectors, *, draws: int = DRAWS, seed: int = 0) -> list[AdaptiveVectors]:
    """The same values of a and of b at permuted coordinates."""
    _check_draws(vectors, draws)
    found: list[AdaptiveVectors] = []
    for draw in range(draws):
        sides: dict[str, Tensor] = {}
        for side, own in (("a", vectors.a), ("b", vectors.b)):
            name = f"permuted_adapters {side}"
            orders = [torch.randperm(own.shape[1], generator=_generator(name, seed, draw, at)) for at in vectors.layers]
            sides[side] = torch.stack([row[order] for row, order in zip(own, orders, strict=True)])
        found.append(_adapter(vectors, "permuted_adapters", draw, seed, **sides))
    return found


def _adapter(vectors: AdaptiveVectors, control: str, draw: int, seed: int, *, a: Tensor, b: Tensor) -> AdaptiveVectors:
    recipe = {"control": control, "draw": draw, "seed": seed, "of": vectors.digest}
    card = vectors.card.derive(f"{control} {draw} of {vectors.name}", recipe)
    return replace(vectors, a=a, b=b, card=card.model_copy(update={"origin": "control"}))


def _check_draws(vectors: SteeringVectors | AdaptiveVectors, draws: int) -> None:
    """Refuse to draw no control, or controls for a vector of norm 0, which would all be equal to it.

    Raises:
        UserError: there are no draws, or a norm is 0.
    """
    if whole(draws, "the number of draws") < 1:
        raise UserError("at least one control is drawn", given=f"draws={draws}", works="draws=8")
    refuse_zero(vectors, "compared with controls of its norm")


def _centred(activations: Mapping[int, Tensor], layer: int, d_model: int) -> Float[Tensor, "n d_model"]:
    if layer not in activations:
        raise UserError("no activations of this layer", given=layer)
    rows = activations[layer].detach().to("cpu", torch.float32)
    if rows.shape[1] != d_model or len(rows) < 2:
        raise UserError(f"activations [n >= 2, {d_model}] are needed", given=f"layer {layer}: {list(rows.shape)}")
    return rows - rows.mean(0)


def _drawn(
    vectors: SteeringVectors,
    rows: Float[Tensor, "layer d_model"],
    control: str,
    draw: int,
    seed: int,
    **told: Any,
) -> SteeringVectors:
    """Rows scaled to the norms of the vectors they stand against."""
    norms = vectors.directions.norm(dim=1, keepdim=True)
    return _labelled(vectors, rows / rows.norm(dim=1, keepdim=True) * norms, control, draw, seed, **told)


def _labelled(
    vectors: SteeringVectors,
    rows: Float[Tensor, "layer d_model"],
    control: str,
    draw: int,
    seed: int,
    **told: Any,
) -> SteeringVectors:
    recipe = {"control": control, "draw": draw, "seed": seed, "of": vectors.digest, **told}
    card = vectors.card.derive(f"{control} {draw} of {vectors.name}", recipe)
    return replace(vectors, directions=rows, card=card.model_copy(update={"origin": "control"}))


def _generator(control: str, seed: int, draw: int, layer: int) -> torch.Generator:
    number = int(digest("control", control, seed, draw, layer), 16) % 2**63
    return torch.Generator().manual_seed(number)
