"""The controls of an experiment by name, drawn from `vectors.controls` for the vector of one block or a whole set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, TypeVar, cast

import torch
from pydantic import AfterValidator

from experiments.texts import Texts, places, steered_at, texts
from interp.context import Context
from interp.distributions import blocks, kl, log_probs
from interp.errors import UserError
from interp.files import as_path, exists
from interp.given import catalogue, check_paths
from interp.registry import unknown
from interp.settings import Names
from interp.summaries import Interval, control_range
from vectors import AdaptiveVectors, SteeringVectors
from vectors.controls import (
    matching_factor,
    other_layer,
    permuted,
    permuted_adapters,
    permuted_layers,
    random_adapters,
    random_covariance,
    random_isotropic,
)

KINDS = ("random-isotropic", "random-covariance", "random-effect-matched", "permuted", "negated", "other-block")
"""Every kind of control; "random-*" draw a direction, the others change the vector."""
SET_KINDS = (*(kind for kind in KINDS if kind != "other-block"), "permuted-layers")
"""Kinds of control of a set that is on together."""


def _known(kinds: Sequence[str]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    def check(names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in kinds:
                raise unknown("control", name, list(kinds))
        return names

    return check


Controls = Annotated[Names, AfterValidator(_known(KINDS))]
"""Controls of one block's vector, as a setting."""
SetControls = Annotated[Names, AfterValidator(_known(SET_KINDS))]
"""Controls of a set that is on together, as a setting."""


def _known_sets(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, none of which is misspelt: a set that a model lacks is left out, which a typing error would be too."""
    sets = {alias.partition("@")[0].partition("/")[2] for alias in catalogue()}
    known = sorted(sets | {name.removeprefix("all-layer-") for name in sets})
    for name in names:
        check_paths(vectors=name)
        stem, _, rest = name.partition("@")[0].partition("/")
        if stem not in known and not exists(as_path(name)) and (not rest or rest.isdigit()):
            raise unknown("set of vectors", name, known)
    return names


Sets = Annotated[Names, AfterValidator(_known_sets)]
"""Further sets of vectors, as a setting: names of sets that come with a model, aliases or paths."""
RANDOM = ("random-isotropic", "random-covariance", "random-effect-matched", "permuted")
"""Kinds whose draws make a control's range: one more draw of them is what the vector may not look like."""
ARBITRARY = "fraction_of_median_norm"
"""What the recipe of a baseline calls the norm that it was given."""
ENOUGH = 8
"""Problems from which an interval over problems can decide anything."""
MATCHED_POSITIONS = 6
"""Generated positions of a training problem on which effects are matched."""
TOLERANCE = 0.1
"""Relative difference of effects that counts as equal."""
SET_TOLERANCE = 0.2
"""The same for a set, which is run through the whole model at every try."""

Acting = SteeringVectors | AdaptiveVectors
"""What experiments can study that set no `no_adapters`."""
Studied = TypeVar("Studied", bound=Acting)


def acting(ctx: Context) -> Acting:
    """The run's vectors or rank-1 adapters, for experiments that switch them on and read what follows.

    Raises:
        UserError: they are neither, or do not fit the model.
    """
    return adaptive(ctx) if isinstance(ctx.vectors, AdaptiveVectors) else steering(ctx)


def beside(ctx: Context, other: Acting) -> Acting:
    """Another set, allowed to be on together with its layers.

    A baseline's norm is nobody's choice, and a third of the stream's norm added at every block leaves no model: its
    directions are taken at the norms of the vectors under study.
    """
    ours = ctx.vectors
    if isinstance(other, SteeringVectors) and isinstance(ours, SteeringVectors) and ARBITRARY in other.card.recipe:
        shared = {layer: norm for layer, norm in ours.norms.items() if layer in other.layers}
        other = other.with_norms(shared) if shared else other
    return other.together()


def set_and_seed(alias: str) -> tuple[str, int | None]:
    """`model/set` and the training seed of an alias, "" and None where a name is none."""
    stem, _, seed = alias.partition("@")
    parts = stem.split("/")
    return ("/".join(parts[:2]), int(seed)) if len(parts) > 1 and seed.isdigit() else ("", None)


def named_sets(ctx: Context, names: Sequence[str]) -> dict[str, object]:
    """The sets of these names that come with the model; those that do not are said."""
    found = {name: ctx.related(name) for name in names}
    for name in (name for name, one in found.items() if one is None):
        ctx.once(f"no {name}", partial(ctx.say, f"{ctx.model.name} has no set {name}: it is left out"))
    return {name: one for name, one in found.items() if one is not None}


def other_seeds(ctx: Context) -> tuple[str, ...]:
    """Aliases in the catalogue of the run's set, trained with other seeds."""
    stem, own = set_and_seed(ctx.vectors.name)
    named = {alias: set_and_seed(alias) for alias in catalogue()}
    return tuple(alias for alias, (one, seed) in named.items() if stem and one == stem and seed != own)


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


def steering(ctx: Context) -> SteeringVectors:
    """The run's vectors.

    Raises:
        UserError: they are no steering vectors, or not of this model's width.
    """
    vectors = ctx.vectors
    if isinstance(vectors, AdaptiveVectors):
        what = "this experiment needs steering vectors: an adapter adds no fixed vector, its strength is the token's"
        raise UserError(what, given="rank-1 adapters", works="steering vectors, or another experiment")
    if not isinstance(vectors, SteeringVectors):
        raise UserError("this experiment needs steering vectors", given=type(vectors).__name__)
    if vectors.d_model != ctx.model.d_model or max(vectors.layers) >= ctx.model.n_layers:
        given = f"d_model {vectors.d_model}, layers up to {max(vectors.layers)}"
        works = f"d_model {ctx.model.d_model}, layers 0 to {ctx.model.n_layers - 1}"
        raise UserError("these vectors do not fit the model", given=given, works=works)
    return vectors


def draw_controls(
    ctx: Context,
    every: Studied,
    kinds: Sequence[str],
    *,
    layer: int | None = None,
    draws: int,
    trained_on: Callable[[], Texts],
) -> dict[str, list[Studied]]:
    """Controls of each kind for the vector of one block, or for a set that is on together.

    Adapters lack some kinds, which is said: a reads the neurons of its own block, so there is no adapter of another
    block to put in its place, and no covariance of the stream to draw it from.

    Args:
        ctx: the run.
        every: all vectors or adapters of the set.
        kinds: names in KINDS, or for a set in SET_KINDS; those for several layers are left out where there is one.
        layer: the block; None = the whole set, every layer of which is replaced.
        draws: of each kind; "negated" has one.
        trained_on: makes the texts of training problems, with the outputs of the blocks concerned kept, for covariance
            and effects.

    Raises:
        UserError: there is no such kind.
    """
    known = SET_KINDS if layer is None else KINDS
    strange = [kind for kind in kinds if kind not in known]
    if strange:
        raise UserError("no such control", given=strange[0], works=f"use some of {', '.join(known)}")
    makers = _makers(ctx, every, layer, draws, trained_on)
    lacking = ", ".join(kind for kind in kinds if kind not in makers)
    if lacking:
        ctx.once(f"said of adapters: {lacking}", lambda: ctx.say(f"adapters have no control of kind {lacking}"))
    found = {kind: list(made) for kind in kinds if kind in makers and (made := makers[kind]())}
    return cast("dict[str, list[Studied]]", found)  # controls are of the kind of what they stand against


def _makers(
    ctx: Context, every: Acting, layer: int | None, draws: int, trained_on: Callable[[], Texts]
) -> dict[str, Callable[[], Sequence[Acting]]]:
    seed, tolerance = ctx.seed, SET_TOLERANCE if layer is None else TOLERANCE
    chosen = every if layer is None else every.only(layer)
    found: dict[str, Callable[[], Sequence[Acting]]] = {
        "random-isotropic": lambda: random_like(chosen, draws=draws, seed=seed),
        "random-effect-matched": lambda: _matched(ctx, chosen, trained_on(), draws, tolerance),
        "negated": lambda: [-chosen],
    }
    if isinstance(every, AdaptiveVectors) or isinstance(chosen, AdaptiveVectors):
        adapters = cast("AdaptiveVectors", chosen)
        return found | {"permuted": lambda: permuted_adapters(adapters, draws=draws, seed=seed)}
    several = len(every.layers) > 1
    return found | {
        "random-covariance": lambda: _covariance(chosen, trained_on(), draws, seed),
        "permuted": lambda: permuted(chosen, draws=draws, seed=seed),
        "permuted-layers": lambda: permuted_layers(chosen, draws=draws, seed=seed) if several else [],
        "other-block": lambda: other_layer(every, int(layer or 0), draws=draws, seed=seed) if several else [],
    }


def training_texts(ctx: Context, n: int, layers: Sequence[int]) -> Texts:
    """Training problems, or the reported ones where the task has no training problems (nothing is chosen there)."""

    def make() -> Texts:
        try:
            return texts(ctx, split="train", n=n, keep=layers)
        except UserError:
            ctx.say(f"{ctx.task.name} has no training problems: controls are scaled on the problems of the run")
            return texts(ctx, n=n, keep=layers)

    return ctx.once(f"training texts {n} {list(layers)}", make)


def _covariance(vectors: SteeringVectors, said: Texts, draws: int, seed: int) -> list[SteeringVectors]:
    where = said.where("prompt", "generated")
    tokens = {layer: said.forced.base_at(layer)[where] for layer in vectors.layers}
    return random_covariance(vectors, tokens, draws=draws, seed=seed)


def _matched(ctx: Context, vectors: Acting, said: Texts, draws: int, tolerance: float) -> list[Acting]:
    """Other draws than "random-isotropic", scaled to the vectors' mean KL on training problems.

    The KL of a random direction has a ceiling, which strong vectors may exceed: such draws are left out, and said.
    """
    target = mean_kl(ctx, said, vectors)
    found: list[Acting] = []
    if not target > 0:
        ctx.say("vectors without effect have no effect-matched controls")
        return found
    for candidate in random_like(vectors, draws=draws, seed=ctx.seed + 1):
        try:
            found.append(matching_factor(partial(mean_kl, ctx, said, candidate), target, tolerance) * candidate)
        except UserError as error:
            ctx.say(f"a random draw is left out of the effect-matched controls: {error}")
    return found


def mean_kl(ctx: Context, said: Texts, vectors: Acting, factor: float = 1.0) -> float:
    """Mean KL(steered || base) over the positions that predict a completion, nats per token."""
    at = places(said, "first", "generated", at_most=MATCHED_POSITIONS)
    base, steered = said.forced.base[at.where], steered_at(said, vectors * factor, at.where)
    total = 0.0
    for some in blocks(base, ctx.model.d_vocab):
        total += float(kl(log_probs(ctx.model, steered[some]), log_probs(ctx.model, base[some])).sum())
    return total / len(at)


def control_interval(
    draws: Mapping[str, Sequence[float]], kinds: Sequence[str] = RANDOM, *, problems: int | None = None
) -> Interval | None:
    """Where one more draw of any kind of random control would fall: the union of the kinds' prediction ranges.

    Args:
        draws: the statistic of each draw, by kind.
        kinds: the kinds that count; those with fewer than three draws do not.
        problems: behind each draw, where the statistic is a share of problems; see `control_range`.

    Returns:
        None where no kind has three draws.
    """
    counted = [values for kind, values in draws.items() if kind in kinds and len(values) >= 3]
    ranges = [control_range(values, problems=problems) for values in counted]
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
