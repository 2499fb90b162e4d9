"""What experiments that sweep one thing about vectors share: layers, factors, places, pairs.

All variants are completed on the same problems with the same random streams, so that every difference is paired by
problem; what is chosen is chosen on validation problems and reported on test problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from scipy import stats

from experiments.controls import Acting, Sets, draw_controls, halves, named_sets, training_texts
from experiments.graded import COLUMNS, Condition, answers, references, summarise
from interp.context import Context
from interp.digest import digest
from interp.edits import Edit
from interp.errors import UserError
from interp.experiment import Experiment
from interp.identity import identity_of
from interp.settings import Count, Temperatures
from interp.summaries import UNBOUNDED, Bounds, Interval, bootstrap, difference
from interp.tasks.task import Split
from vectors import AdaptiveVectors, SteeringVectors

MARGIN = 0.05
"""Smallest difference of interest, as share of problems: 5 points."""
UNIT = "share of problems"
BASE = Condition()
SWEEP_COLUMNS: dict[str, str] = {
    "part": "grain of the row",
    **COLUMNS,
    "draw": "draw of a control; -1 = each problem met another draw",
}
"""Columns that all sweeps have."""


class Sweep(Experiment, abstract=True):
    """Settings and steps that all sweeps share."""

    prefers: ClassVar[tuple[str, ...]] = ("single-layer", "all-layer")

    temperatures: Temperatures = (1.0,)
    """Temperatures; 0 = greedy."""
    samples: Count = 1
    """Completions of each problem."""
    draws: Count = 8
    """Draws of each kind of random control."""
    train_n: Count = 8
    """Training problems on which a control's covariance or effect is taken."""
    validation_n: Count = 24
    """Validation problems on which something is chosen."""
    mixed: bool = True
    """Away from the main comparison each problem meets another random draw, which costs no more than one draw."""
    beside: Sets = ("all-layer", "random-reward", "format-reward")
    """Other sets of the same model that are shown beside, where they come with it."""

    def others(self, ctx: Context) -> dict[str, Acting]:
        """The sets beside, by name; the run's own is none of them."""
        found = named_sets(ctx, self.beside)
        return {
            name: one
            for name, one in found.items()
            if isinstance(one, SteeringVectors | AdaptiveVectors) and one.digest != ctx.vectors.digest
        }

    def inputs(self, ctx: Context) -> dict[str, str]:
        """Digests of the sets beside."""
        return {name: one.digest for name, one in self.others(ctx).items()}

    def rows(
        self, ctx: Context, conditions: Sequence[Condition], temperature: float, split: Split = "test"
    ) -> pd.DataFrame:
        """Rows of `answers` for each condition; what another cell of the run has asked for is not completed again.

        Raises:
            UserError: the task's problems have no answers.
        """
        n = self.validation_n if split != "test" else None
        if any(problem.answer is None for problem in ctx.problems(split, n)):
            raise UserError(f"task {ctx.task.name} has problems without answers", works="accuracy needs answers")
        kept: dict[str, Any] = ctx.once("graded answers", dict[str, Any])
        names = [_name(one, temperature, split) for one in conditions]
        missing = {name: one for name, one in zip(names, conditions, strict=True) if name not in kept}
        if missing:
            asked = [replace(one, vector="", draw=index, at={}) for index, one in enumerate(missing.values())]
            found = answers(ctx, asked, temperature=temperature, samples=self.samples, split=split, n=n)
            for index, name in enumerate(missing):
                kept[name] = found[found["draw"] == index].drop(columns=["vector", "draw"])
        made = [kept[name].assign(**one.coordinates) for name, one in zip(names, conditions, strict=True)]
        return pd.concat(made, ignore_index=True)

    def measured(
        self, ctx: Context, conditions: Sequence[Condition], temperature: float, by: Sequence[str]
    ) -> pd.DataFrame:
        """Parts "summary" and "answers" of some conditions, with gains over the base."""
        self.rows(ctx, [BASE, *conditions], temperature)  # the base is completed in the same batch
        rows, base = self.rows(ctx, conditions, temperature), self.rows(ctx, [BASE], temperature)
        lacking: dict[str, Any] = {column: np.nan for column in by if column not in rows.columns}
        rows = rows.assign(**lacking)
        summary = summarise(rows, by, base=base)
        return pd.concat([summary.assign(part="summary"), rows.assign(part="answers")], ignore_index=True)

    def drawn(
        self, ctx: Context, every: Acting, layer: int, kinds: Sequence[str], draws: int | None = None
    ) -> Mapping[str, Sequence[Acting]]:
        """Controls of the vector of one block, made once for all cells."""
        wanted = self.draws if draws is None else draws
        make = partial(training_texts, ctx, self.train_n, [layer])
        make_all = partial(draw_controls, ctx, every, tuple(kinds), layer=layer, draws=wanted, trained_on=make)
        return ctx.once(f"controls {every.digest} {layer} {tuple(kinds)} {wanted}", make_all)

    def random(self, drawn: Sequence[tuple[Edit, ...]], kind: str = "random-isotropic", **at: Any) -> list[Condition]:
        """Random draws: one condition in which each problem meets another one (draw -1), or one for each of them."""
        if self.mixed:
            return [Condition(kind, -1, at=at, rotation=tuple(drawn))]
        return [Condition(kind, draw, edits, at) for draw, edits in enumerate(drawn)]

    def draw_of(self, ctx: Context, example: Sequence[str]) -> np.ndarray | None:
        """The draw that each answer met in a condition of mixed draws; None where every draw met every problem."""
        problems = [problem.id for problem in ctx.problems()]
        return np.array([problems.index(name) % self.draws for name in example]) if self.mixed else None

    def references(self, ctx: Context, steered: pd.DataFrame, temperature: float) -> pd.DataFrame:
        """The base, the other sets that are whole, the base as sharp as the steered model, and few-shot prompts.

        Args:
            ctx: the run.
            steered: rows of `answers` of the steered model, whose entropy is matched.
            temperature: of the sweep; greedy has no entropy to match, and few-shot prompts are sampled.
        """
        sets = {name: one for name, one in self.others(ctx).items() if one.card.trained != "apart"}
        conditions = [BASE, *(Condition(name, edits=one.edits()) for name, one in sets.items())]
        found = self.measured(ctx, conditions, temperature, ())
        if not temperature:
            return found
        base = self.rows(ctx, [BASE], temperature)
        entropy = float(np.mean(steered["entropy"].to_numpy()))
        sharp = references(ctx, base, entropy=entropy, temperature=temperature, samples=self.samples)
        return pd.concat([found, sharp.assign(part="summary")], ignore_index=True)

    def choosing(self, ctx: Context, conditions: Sequence[Condition], temperature: float) -> pd.DataFrame:
        """Rows on the problems on which something is chosen."""
        split = choosing_split(ctx)
        rows = self.rows(ctx, conditions, temperature, split)
        return rows if split != "test" else _of_half(ctx, rows, "choosing")

    def reporting(self, ctx: Context, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows on which a choice is reported: all test problems, or the half that was not chosen on."""
        return rows if choosing_split(ctx) != "test" else _of_half(ctx, rows, "reporting")

    def chosen_layer(self, ctx: Context, every: Acting, layers: Sequence[int], temperature: float) -> int:
        """The block whose vector alone has the highest accuracy on the choosing problems; the first of equals."""
        if len(layers) == 1:
            return layers[0]
        rows = self.choosing(ctx, [alone(every, layer) for layer in layers], temperature)
        accuracy = right_of(rows, len(layers)).mean(0)
        return layers[int(accuracy.argmax())]


def alone(every: Acting, layer: int, **at: Any) -> Condition:
    """The vector of one block, the others off."""
    return Condition("trained", edits=every.only(layer).edits(), at={"layer": layer, **at})


def scaled(vectors: Acting, factor: float) -> tuple[Edit, ...]:
    """The edits of a multiple; at 1 those of the vectors themselves, whose completions may be there already."""
    return vectors.edits() if factor == 1.0 else (factor * vectors).edits()


def spread(layers: Sequence[int], at_most: int) -> tuple[int, ...]:
    """At most so many of some layers, evenly spread, first and last among them; 0 = all."""
    if not at_most or at_most >= len(layers):
        return tuple(layers)
    if at_most == 1:
        return (layers[len(layers) // 2],)
    return tuple(layers[round(index * (len(layers) - 1) / (at_most - 1))] for index in range(at_most))


def choosing_split(ctx: Context) -> Literal["validation", "train", "test"]:
    """The split to choose on; "test" (of which one half is then chosen on) where the task has no other."""

    def find() -> Literal["validation", "train", "test"]:
        for split in ("validation", "train"):
            try:
                ctx.problems(split, 1)
            except UserError:
                continue
            return split
        ctx.say(f"{ctx.task.name} has test problems only: choices are made on one half and reported on the other")
        return "test"

    return ctx.once("split to choose on", find)


def _of_half(ctx: Context, rows: pd.DataFrame, which: Literal["choosing", "reporting"]) -> pd.DataFrame:
    names = [problem.id for problem in ctx.problems()]
    half = halves(len(names), ctx.seed)[0 if which == "choosing" else 1]
    found: Any = rows[rows["example"].isin([names[index] for index in half])]
    return found.reset_index(drop=True)


def _name(one: Condition, temperature: float, split: str) -> str:
    edits = [[identity_of(edit) for edit in edits] for edits in (one.edits, *one.rotation)]
    return digest(split, float(temperature), edits, list(one.prefix), one.shots)


def paired(treated: pd.DataFrame, base: pd.DataFrame) -> Interval:
    """Difference of two accuracies with its interval over problems; the rows are in the same order."""
    return difference(treated["right"], base["right"], treated["example"], share=True)


def right_of(rows: pd.DataFrame, conditions: int) -> np.ndarray:
    """Whether each answer is right, [answers, conditions], of rows that are ordered by condition."""
    return rows["right"].to_numpy().reshape(conditions, -1).T


def p_beyond(own: np.ndarray, controls: np.ndarray, example: Sequence[str], draw_of: np.ndarray | None = None) -> float:
    """Two-sided p of a vector being one more draw of its controls; NaN with fewer than three draws.

    The variance of the difference between the vector's accuracy and the mean of the controls is that over problems
    plus that over draws; the quotient is read from a t distribution with draws - 1 degrees of freedom. Where every
    problem met one draw, the means over the problems of a draw hold both.

    Args:
        own: 1 where right, [answers].
        controls: the same of each draw, [answers, draws]; of mixed draws, [answers, 1].
        example: problem of each answer.
        draw_of: draw that each answer met, where draws are mixed; None where every draw met every problem.
    """
    if draw_of is not None:
        return p_of_mean(own - controls[:, 0], draw_of) if len(set(draw_of)) >= 3 else float("nan")
    draws = controls.shape[1]
    if draws < 3:
        return float("nan")
    excess = problem_means(own - controls.mean(1), example)
    variance = excess.var(ddof=1) / len(excess) + controls.mean(0).var(ddof=1) * (1 + 1 / draws)
    if variance <= 1e-18 * float(excess.mean() ** 2):
        # without any variance only the rank among the draws is known
        return 1.0 if abs(excess.mean()) < 1e-12 else 1 / (draws + 1)
    return float(2 * stats.t.sf(abs(excess.mean()) / np.sqrt(variance), draws - 1))


def p_of_mean(values: np.ndarray, cluster: Sequence[str] | np.ndarray) -> float:
    """Two-sided p of a mean being 0, a t test over clusters: problems, or draws that had problems of their own."""
    means = problem_means(values, cluster)
    if len(means) < 2 or means.std() <= 1e-9 * abs(means.mean()):
        # equal means have no variance; under the hypothesis each could have had either sign
        return 1.0 if abs(means.mean()) < 1e-12 else 2.0 ** (1 - len(means))
    return float(2 * stats.t.sf(abs(means.mean()) / (means.std(ddof=1) / np.sqrt(len(means))), len(means) - 1))


def problem_means(values: np.ndarray, cluster: Sequence[str] | np.ndarray) -> np.ndarray:
    """Mean of the values of each problem or other cluster, [clusters]."""
    names, code = np.unique(np.asarray(cluster), return_inverse=True)
    return np.bincount(code, values, len(names)) / np.bincount(code, minlength=len(names))


def mean_of(values: np.ndarray, example: Sequence[str], name: str, bounds: Bounds = UNBOUNDED) -> dict[str, float]:
    """A mean with its interval over problems as columns `name`, `name_low`, `name_high`.

    Args:
        values: one row a measurement.
        example: problem of each row.
        name: of the columns.
        bounds: what a single row can be.
    """
    found = bootstrap(values, np.asarray(example), bounds=bounds)
    return columns_of(found, name)


def columns_of(found: Interval | None, name: str) -> dict[str, float]:
    """An interval as columns; empty where there is none."""
    numbers = (found.estimate, found.low, found.high) if found else (np.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))


def interval_of(row: Any, name: str) -> Interval:
    """An interval from columns `name`, `name_low`, `name_high` and `n`."""
    return Interval(float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"]), int(row["n"]))
