"""Whether features fire more in right completions: stratified by problem, adjusted, and against permuted labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import UserError
from interp.summaries import GAIN, Interval, OddsRatio, bootstrap, mantel_haenszel

Array = NDArray[Any]
COVARIATES = ("length", "ended", "boxed")
"""What is held fixed beside the problem: tokens before the answer, ended by itself, has a closed box."""


@dataclass(frozen=True)
class Firing:
    """Completions of some problems, each of which has right and wrong ones.

    Attributes:
        rate: share of a completion's tokens before the answer at which each feature fires, [completion, feature].
        right: graded right, [completion].
        problem: name of the problem, [completion].
        covariates: of COVARIATES, [completion, 3].
        sample: index of the completion among those of its problem.
    """

    rate: Array
    right: Array
    problem: Array
    covariates: Array
    sample: Array

    def __len__(self) -> int:
        return len(self.right)

    @property
    def n(self) -> int:
        """Problems."""
        return len(set(self.problem.tolist()))

    def mixed(self) -> Firing:
        """The problems that have both outcomes; the others say nothing about what tells them apart."""
        shares = {name: float(self.right[self.problem == name].mean()) for name in set(self.problem.tolist())}
        keep = np.array([0 < shares[name] < 1 for name in self.problem.tolist()], bool)
        return Firing(*(values[keep] for values in (self.rate, self.right, self.problem, self.covariates, self.sample)))

    def relabelled(self, rng: np.random.Generator) -> Firing:
        """Labels permuted within each problem."""
        right = self.right.copy()
        for name in np.unique(self.problem):
            rows = np.flatnonzero(self.problem == name)
            right[rows] = right[rng.permutation(rows)]
        return Firing(self.rate, right, self.problem, self.covariates, self.sample)


def centred(values: Array, problem: Array) -> Array:
    """Less the mean of each problem."""
    _, code = np.unique(problem, return_inverse=True)
    sums = np.zeros((code.max() + 1, *values.shape[1:]))
    np.add.at(sums, code, values.astype(float))
    counts = np.bincount(code).reshape(-1, *[1] * (values.ndim - 1))
    return values - (sums / counts)[code]


def adjusted_rates(firing: Firing) -> Array:
    """Firing rates within problem, less what the covariates predict by least squares, [completion, feature]."""
    rate, beside = (centred(values, firing.problem) for values in (firing.rate, firing.covariates))
    fitted, *_ = np.linalg.lstsq(beside, rate, rcond=None)
    return rate - beside @ fitted


def scores(adjusted: Array, right: Array, problem: Array) -> Array:
    """Score of each feature: sum of rate x outcome within problem, in units of its deviation under permutation.

    Args:
        adjusted: of `adjusted_rates`.
        right: outcomes, [completion], or [draw, completion] of permuted ones.
        problem: of each completion.

    Returns:
        [feature] or [draw, feature]; 0 where a feature never varies.
    """
    outcomes = np.atleast_2d(right).astype(float)
    within = np.stack([centred(one, problem) for one in outcomes])
    variance = np.zeros(adjusted.shape[1])
    for name in np.unique(problem):
        rows = problem == name
        part = adjusted[rows] - adjusted[rows].mean(0)
        # the variance of sum r_i y_i over permutations of y; permuting leaves the spread of y as it is
        variance += (part**2).sum(0) * (within[0][rows] ** 2).sum() / max(int(rows.sum()) - 1, 1)
    found = within @ adjusted / np.sqrt(np.maximum(variance, 1e-12))
    found[:, variance < 1e-9] = 0.0
    return found if np.ndim(right) == 2 else found[0]


def screen(firing: Firing, *, permutations: int, seed: int) -> tuple[Array, Array]:
    """Score of each feature and its p-value against the largest |score| of all features under permuted labels.

    Raises:
        UserError: no problem has both outcomes.
    """
    if not len(firing):
        raise UserError("no problem has right and wrong completions", works="more samples, or other problems")
    rng = np.random.default_rng(seed)
    adjusted = adjusted_rates(firing)
    own = scores(adjusted, firing.right, firing.problem)
    drawn = np.stack([firing.relabelled(rng).right for _ in range(permutations)])
    largest = np.abs(scores(adjusted, drawn, firing.problem)).max(1)
    p = (1 + (largest[:, None] >= np.abs(own)[None] - 1e-12).sum(0)) / (1 + permutations)
    return own, p


@dataclass(frozen=True)
class Effect:
    """What a feature's firing says about the outcome.

    Attributes:
        difference: accuracy where it fires more than in the median completion of the problem less accuracy where it
            does not, with the covariates held fixed, share of completions.
        odds: Mantel-Haenszel odds ratio, stratified by problem, not adjusted; None where no problem informs it.
    """

    difference: Interval
    odds: OddsRatio | None


def exposed(firing: Firing, feature: int) -> Array:
    """Completions in which a feature fires more than in the median completion of the same problem, [completion].

    The split knows nothing of labels or of other problems, and is about even wherever the feature varies.
    """
    rate, found = firing.rate[:, feature], np.zeros(len(firing), bool)
    for name in np.unique(firing.problem):
        rows = firing.problem == name
        found[rows] = rate[rows] > np.median(rate[rows]) + 1e-12
    return found


def effect(firing: Firing, feature: int, *, interval: bool = True) -> Effect:
    """What a feature's firing says about the outcome of given completions.

    Args:
        firing: completions.
        feature: index.
        interval: whether to bootstrap over problems and compute the odds ratio; else the estimate alone.
    """
    more = exposed(firing, feature)
    design = np.column_stack([more.astype(float), firing.covariates])
    x, y = centred(design, firing.problem), centred(firing.right.astype(float), firing.problem)
    names = np.unique(firing.problem)
    products = np.stack([_products(x[firing.problem == name], y[firing.problem == name]) for name in names])
    if not interval:
        value = _coefficient(products)
        return Effect(Interval(value, value, value, len(names)), None)
    found = bootstrap(products, statistic=_coefficient, bounds=GAIN)
    return Effect(found, mantel_haenszel(more, firing.right > 0, firing.problem))


def _products(x: Array, y: Array) -> Array:
    return np.concatenate([(x.T @ x).ravel(), x.T @ y])


def _coefficient(products: Array) -> float:
    """Least squares from sums of products; 0 where the feature does not vary."""
    total = products.sum(0)
    width = int((np.sqrt(1 + 4 * len(total)) - 1) / 2)
    gram, moment = total[: width * width].reshape(width, width), total[width * width :]
    return float((np.linalg.pinv(gram, rcond=1e-9) @ moment)[0])


def null_effects(discovery: Firing, held_out: Firing, *, draws: int, seed: int) -> list[tuple[int, float]]:
    """The whole procedure with labels permuted within problem: the feature chosen, and its held-out difference."""
    adjusted, found = adjusted_rates(discovery), list[tuple[int, float]]()
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        labels = discovery.relabelled(rng)
        feature = int(np.abs(scores(adjusted, labels.right, labels.problem)).argmax())
        one = effect(held_out.relabelled(rng), feature, interval=False)
        found.append((feature, one.difference.estimate))
    return found


def of_same_rate(rate: Array, feature: int, *, draws: int, seed: int) -> list[int]:
    """Random other features that fire about as often: drawn from the 4 x `draws` nearest in mean rate.

    Args:
        rate: mean firing rate of each feature.
        feature: which to match.
        draws: how many, or as many as there are.
        seed: of the draw.
    """
    others = [index for index in np.argsort(np.abs(rate - rate[feature]), kind="stable") if index != feature]
    near = [int(index) for index in others if rate[index] > 0][: 4 * draws]
    order = np.random.default_rng(seed).permutation(len(near))[:draws]
    return [near[index] for index in order]


def rates_of(active: Sequence[Array]) -> Array:
    """Share of each completion's tokens at which each feature is active, [completion, feature]."""
    return np.stack([one.mean(0) if len(one) else np.zeros(one.shape[1]) for one in active])
