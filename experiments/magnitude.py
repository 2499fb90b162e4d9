"""Magnitude: is the trained scale of a vector near its best one?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from experiments.controls import MATCHED_POSITIONS, Acting, acting, control_interval, random_like, too_few
from experiments.graded import Condition, floor, gain_of, summarise
from experiments.sweeps import (
    BASE,
    MARGIN,
    SWEEP_COLUMNS,
    UNIT,
    Sweep,
    columns_of,
    interval_of,
    mean_of,
    paired,
    right_of,
    scaled,
    spread,
)
from experiments.texts import places, steered_at, texts
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.distributions import blocks, kl, log_probs
from interp.numbers import shown
from interp.settings import Block, Count, CountOrZero, FactorsOrNone
from interp.summaries import POSITIVE, Verdict, verdict

CONTROL = "random-isotropic"


class Magnitude(Sweep):
    """Accuracy, boxed and ended answers, and KL at multiples of a vector, beside random vectors at the same ones.

    At the trained scale every random draw meets every problem; at the other factors, where `mixed`, each problem meets
    another draw.
    """

    version: ClassVar[int] = 2
    figures: ClassVar[tuple[str, ...]] = ("magnitude", "magnitude-beside")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="accuracy on test problems at the factor that is best on validation problems, minus that at factor 1",
        unit="problem",
        statistic="paired difference of accuracies",
        family="one verdict; the factor is chosen on validation problems",
        controls=(CONTROL,),
        margin=MARGIN,
        claim="the trained scale is near the best one (no effect within the margin is what it predicts)",
        margin_unit=UNIT,
    )
    columns: ClassVar[dict[str, str]] = {
        **SWEEP_COLUMNS,
        "part": "summary (a condition), answers (a completion), kl (a vector at a factor), chosen",
        "layer": "block of the vector; -1 = all blocks of the set",
        "factor": "multiple of the trained vector (of a random vector of its norm)",
        "kl": "KL(steered || base) on the base's own completions, nats a token",
        "kl_low": "lower end of its 95 % interval over problems",
        "kl_high": "upper end",
        "loss": "accuracy at the chosen factor minus that at factor 1, paired by problem",
        "loss_low": "lower end of its 95 % interval over problems",
        "loss_high": "upper end",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "factors": (-1.0, 1.0, 4.0), "draws": 3, "validation_n": 2, "texts_n": 2, "kl_draws": 1},
        "quick": {"n": 28, "validation_n": 14},
        "full": {
            "n": 256,
            "factors": (-1.0, -0.5, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0),
            "temperatures": (1.0, 0.0),
            "samples": 4,
            "validation_n": 128,
            "texts_n": 64,
            "kl_draws": 8,
            "mixed": False,
        },
    }

    layer: Block | None = None
    """Block of the vector; None = all blocks of a set trained together, else the best one on validation problems."""
    blocks: CountOrZero = 8
    """Blocks to choose from, spread over those the set has, where it was trained apart; 0 = all."""
    factors: FactorsOrNone = (-1.0, 0.5, 1.0, 2.0, 4.0, 10.0)
    """Multiples of the vector; 1, the trained scale, is always among them."""
    texts_n: Count = 8
    """Problems whose base completions the KL is taken on."""
    kl_draws: CountOrZero = 2
    """Random draws whose KL is taken."""

    def cells(self, ctx: Context) -> list[Cell]:  # noqa: ARG002 - the grid follows from the settings
        """Each factor, what is chosen, and the references at each temperature; the KL at each factor."""
        found = [Cell.at(part="kl", factor=factor) for factor in self.grid]
        for temperature in self.temperatures:
            found += [Cell.at(part="factor", temperature=temperature, factor=factor) for factor in self.grid]
            found += [Cell.at(part=part, temperature=temperature) for part in ("chosen", "references")]
        return found

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Graded completions and KL at each factor."""
        vectors = self.subject(ctx)
        frames = [self._cell(ctx, vectors, cell) for cell in cells]
        layer = vectors.layers[0] if len(vectors.layers) == 1 else -1
        return pd.concat(frames, ignore_index=True).assign(layer=layer).reindex(columns=list(self.columns))

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """Whether the trained scale loses anything against the best one, where the vector gains anything at all."""
        return [judge(frame)]

    @property
    def grid(self) -> tuple[float, ...]:
        """The factors in order, the trained scale among them."""
        return tuple(sorted({*self.factors, 1.0}))

    def subject(self, ctx: Context) -> Acting:
        """What is scaled."""
        every = acting(ctx)
        if self.layer is not None:
            return every.only(self.layer)
        if every.card.trained != "apart":
            return every
        layers, temperature = spread(every.layers, self.blocks), max(self.temperatures)
        choose = partial(self.chosen_layer, ctx, every, layers, temperature)
        return every.only(ctx.once("chosen block", choose))

    def _cell(self, ctx: Context, vectors: Acting, cell: Cell) -> pd.DataFrame:
        if cell["part"] == "kl":
            return self._kl(ctx, vectors, float(cell["factor"]))
        temperature = float(cell["temperature"])
        if cell["part"] == "factor":
            factor = float(cell["factor"])
            conditions = [_times(vectors, factor), *self._random(ctx, vectors, factor)]
            return self.measured(ctx, conditions, temperature, ("factor",))
        if cell["part"] == "chosen":
            return self._chosen(ctx, vectors, temperature)
        return self.references(ctx, self.rows(ctx, [_times(vectors, 1.0)], temperature), temperature)

    def _draws(self, ctx: Context, vectors: Acting) -> Sequence[Acting]:
        return ctx.once("random vectors", partial(random_like, vectors, draws=self.draws, seed=self.seed))

    def _random(self, ctx: Context, vectors: Acting, factor: float) -> list[Condition]:
        drawn = [scaled(one, factor) for one in self._draws(ctx, vectors)]
        if factor == 1.0:
            return [Condition(CONTROL, draw, edits, {"factor": factor}) for draw, edits in enumerate(drawn)]
        return self.random(drawn, factor=factor)

    def _chosen(self, ctx: Context, vectors: Acting, temperature: float) -> pd.DataFrame:
        """Factor 1, the chosen one and random vectors at factor 1, on the problems on which nothing was chosen."""
        every = [_times(vectors, factor) for factor in self.grid]
        accuracy = right_of(self.choosing(ctx, every, temperature), len(every)).mean(0)
        # of equally good factors, the one nearest to the trained scale
        best = max(range(len(every)), key=lambda place: (accuracy[place], -abs(self.grid[place] - 1.0)))
        conditions = [BASE, every[best], _times(vectors, 1.0), *self._random(ctx, vectors, 1.0)]
        rows: Any = self.reporting(ctx, self.rows(ctx, conditions[:2], temperature))
        at_one: Any = self.reporting(ctx, self.rows(ctx, conditions[2:3], temperature))
        random: Any = self.reporting(ctx, self.rows(ctx, conditions[3:], temperature))
        base, chosen = rows[rows["vector"] == "base"], rows[rows["vector"] == "trained"]
        parts = [summarise(chosen, ("factor",), base=base).assign(**columns_of(paired(chosen, at_one), "loss"))]
        parts += [summarise(some, ("factor",), base=base) for some in (at_one.assign(vector="trained-scale"), random)]
        return pd.concat(parts, ignore_index=True).assign(part="chosen")

    def _kl(self, ctx: Context, vectors: Acting, factor: float) -> pd.DataFrame:
        said = ctx.once("base texts", partial(texts, ctx, n=min(self.texts_n, ctx.n), keep=[min(vectors.layers)]))
        at = places(said, "first", "generated", at_most=MATCHED_POSITIONS, seed=self.seed)
        subjects = [("trained", 0, vectors)]
        subjects += [(CONTROL, draw, one) for draw, one in enumerate(self._draws(ctx, vectors)[: self.kl_draws])]
        found: list[dict[str, Any]] = []
        example = [said.examples[row] for row in at.row.tolist()]
        for kind, draw, one in subjects:
            final, values = steered_at(said, factor * one, at.where, ctx), list[float]()
            for some in blocks(final, ctx.model.d_vocab):
                base = log_probs(ctx.model, said.forced.base[at.where][some])
                values += kl(log_probs(ctx.model, final[some]), base).tolist()
            n = len(said.examples)
            found.append({"vector": kind, "draw": draw, "n": n, **mean_of(np.asarray(values), example, "kl", POSITIVE)})
        return pd.DataFrame(found).assign(part="kl", factor=factor)


def judge(frame: pd.DataFrame) -> Verdict:
    """Whether the chosen factor beats the trained scale; tested only where it beats random vectors and nothing."""
    claim = "the-trained-scale-is-near-the-best"
    rows: Any = frame[frame["part"] == "chosen"]
    rows = rows[rows["temperature"] == rows["temperature"].max()]
    chosen = rows[rows["vector"] == "trained"].iloc[0]
    gain, loss = gain_of(chosen), interval_of(chosen, "loss")
    control = control_interval({CONTROL: list(rows[rows["vector"] == CONTROL]["gain"])}, problems=gain.n)
    reason = too_few(gain.n) or floor(chosen) or (None if control else "there are no control draws to compare with")
    if reason is None and control is not None and gain.low <= max(0.0, control.high):
        reason = (
            f"at its best factor, {chosen['factor']:g}, the vector gains {gain.points()}, no more "
            f"than random vectors may (up to {shown(100 * control.high, '.1f')})"
        )
    # a factor that beats the trained scale speaks against the claim
    return verdict(loss, None, MARGIN, expected=-1, testable=reason, claim=claim, unit=UNIT)


def _times(vectors: Acting, factor: float) -> Condition:
    return Condition("trained", edits=scaled(vectors, factor), at={"factor": factor})
