"""Association between measurements, each against its own null distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from interp.errors import UserError
from interp.summaries.widths import Interval, finite

Array = NDArray[Any]


@dataclass(frozen=True)
class Test:
    """A statistic against its null distribution.

    Attributes:
        statistic: what was observed.
        p: two-sided p-value, never 0: (1 + draws at least as extreme) / (1 + draws).
        low: 2.5 % quantile of the null distribution.
        high: 97.5 % quantile of the null distribution.
        draws: size of the null distribution.
    """

    __test__ = False  # pytest collects classes of this name

    statistic: float
    p: float
    low: float
    high: float
    draws: int


def against_null(observed: float, null: ArrayLike, *, centre: float | None = None) -> Test:
    """Compare a statistic with draws of it under the null hypothesis.

    Args:
        observed: the statistic.
        null: the same statistic under the null, [draws]; for a maximum over layers, maxima too.
        centre: distances are taken from here; the null's median by default, 0.5 for an AUC, 0 for a correlation.

    Raises:
        UserError: the null has no draws.
    """
    drawn, _ = finite(null), finite(observed)
    if drawn.ndim != 1 or not len(drawn):
        raise UserError("a null distribution is a non-empty list of numbers", given=drawn.shape)
    middle = float(np.median(drawn)) if centre is None else centre
    # equal up to rounding counts as equally extreme
    extreme = int((np.abs(drawn - middle) >= abs(observed - middle) - 1e-12).sum())
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Test(float(observed), (1 + extreme) / (1 + len(drawn)), float(low), float(high), len(drawn))


def benjamini_hochberg(p: ArrayLike) -> Array:
    """Adjusted p-values of one family; rejecting those below q keeps the false discovery rate below q."""
    from statsmodels.stats.multitest import multipletests

    # one that is NaN was never tested, and does not belong into the family
    values = finite(p)
    if not len(values):
        return values
    if not ((values >= 0) & (values <= 1)).all():
        raise UserError("p-values lie between 0 and 1", given=values[~((values >= 0) & (values <= 1))][0])
    return np.asarray(multipletests(values, method="fdr_bh")[1])


def auc(scores: ArrayLike, positive: ArrayLike) -> Array:
    """Probability that a positive item scores above a negative one, ties counting half (Mann-Whitney U / n1 n2).

    Args:
        scores: one score an item, [..., items]; leading dimensions (layers, null draws) stay.
        positive: which items are positive, bool [items].

    Returns:
        0 to 1, [...]; 0.5 means no association.
    """
    values, mask = finite(scores), np.asarray(positive, bool)
    if values.ndim < 1 or values.shape[-1:] != mask.shape:
        raise UserError("each score needs one label", given=f"scores {values.shape}, labels {mask.shape}")
    count = int(mask.sum())
    rest = len(mask) - count
    if not count or not rest:
        raise UserError("an AUC needs both positive and negative items", given=f"{count} positive, {rest} negative")
    ranks = stats.rankdata(values, axis=-1)
    return np.asarray((ranks[..., mask].sum(-1) - count * (count + 1) / 2) / (count * rest))


def mantel(
    x: ArrayLike,
    y: ArrayLike,
    partial: ArrayLike | None = None,
    *,
    method: Literal["spearman", "pearson"] = "spearman",
    permutations: int = 9999,
    seed: int = 0,
) -> Test:
    """Correlation of two symmetric matrices over their pairs i < j, by permuting rows and columns of `x` together.

    With `partial`, the correlation given a third matrix (such as |i - j|), as in Smouse, Long & Sokal (1986).

    Raises:
        UserError: a matrix is not square, not symmetric, not finite off the diagonal, or of another size.
    """
    matrices = [_symmetric(m) for m in (x, y, partial) if m is not None]
    size = len(matrices[0])
    if any(len(matrix) != size for matrix in matrices):
        raise UserError("matrices must have the same size", given=[len(matrix) for matrix in matrices])
    if size < 4:
        raise UserError("a Mantel test needs at least 4 rows", given=size)
    upper = np.triu_indices(size, 1)
    vectors = [matrix[upper] for matrix in matrices]
    if method == "spearman":
        vectors = [stats.rankdata(vector) for vector in vectors]
    first = np.zeros((size, size))
    first[upper] = vectors[0]
    first += first.T
    others = [_standard(vector) for vector in vectors[1:]]
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(size) for _ in range(permutations)]
    null = np.array([_correlation(first[np.ix_(order, order)][upper], others) for order in orders])
    return against_null(_correlation(vectors[0], others), null, centre=0.0)


def _symmetric(matrix: ArrayLike) -> Array:
    values = np.array(matrix, float)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise UserError("a Mantel test takes square matrices", given=values.shape)
    np.fill_diagonal(values, 0)
    if not np.isfinite(values).all() or not np.allclose(values, values.T):
        raise UserError("a Mantel test takes symmetric, finite matrices", works="fill both triangles")
    return values


def _standard(vector: Array) -> Array:
    centred = vector - vector.mean()
    norm = float(np.linalg.norm(centred))
    if norm <= 1e-12 * float(np.linalg.norm(vector)):
        raise UserError("a matrix without variation correlates with nothing")
    return centred / norm


def _correlation(vector: Array, others: list[Array]) -> float:
    """Correlation with the first of `others`, given the second where there is one."""
    first = _standard(vector)
    r = float(first @ others[0])
    if len(others) == 1:
        return r
    to_x, to_y = float(first @ others[1]), float(others[0] @ others[1])
    if 1 - to_y**2 < 1e-12:
        raise UserError("a matrix that the third one determines has no correlation of its own")
    # a first matrix that the third determines has nothing left to correlate
    return 0.0 if 1 - to_x**2 < 1e-12 else (r - to_x * to_y) / float(np.sqrt((1 - to_x**2) * (1 - to_y**2)))


@dataclass(frozen=True)
class OddsRatio:
    """A Mantel-Haenszel odds ratio.

    Attributes:
        interval: the pooled odds ratio; n = strata that carry information.
        p: of the hypothesis that it is 1.
    """

    interval: Interval
    p: float


def mantel_haenszel(feature: ArrayLike, outcome: ArrayLike, problem: ArrayLike) -> OddsRatio | None:
    """Odds ratio between a feature and an outcome, stratified by problem.

    Problems in which either does not vary carry no information and are left out.

    Args:
        feature: whether the feature is present, bool [rows].
        outcome: whether the completion is right, bool [rows].
        problem: the problem of each row.

    Returns:
        None where no problem has both feature values and both outcomes.
    """
    from statsmodels.stats.contingency_tables import StratifiedTable

    x, y, names = finite(feature) > 0, finite(outcome) > 0, np.asarray(problem)
    if not x.shape == y.shape == names.shape:
        raise UserError(
            "feature, outcome and problem must be of one length", given=f"{x.shape} {y.shape} {names.shape}"
        )
    tables = [_table(x[names == name], y[names == name]) for name in np.unique(names)]
    tables = [table for table in tables if (table.sum(0) > 0).all() and (table.sum(1) > 0).all()]
    if not tables:
        return None
    pooled = StratifiedTable(tables)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(cast(Any, pooled.oddsratio_pooled))
        low, high = (float(end) for end in pooled.oddsratio_pooled_confint())
        p = float(cast(Any, pooled.test_null_odds(correction=True)).pvalue)
    if not np.isfinite([low, high]).all():
        low, high = 0.0, float("inf")
    return OddsRatio(Interval(ratio, low, high, len(tables)), p)


def _table(x: Array, y: Array) -> Array:
    return np.array([[(x & y).sum(), (x & ~y).sum()], [(~x & y).sum(), (~x & ~y).sum()]], float)
