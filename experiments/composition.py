"""Composition: do vectors of two blocks add up (arXiv:2509.06608 Fig. 13)?"""

from __future__ import annotations

from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from experiments.composition_pairs import judge_best, judge_sum, pair_rows, whole_rows
from experiments.controls import acting, random_like
from experiments.graded import Condition
from experiments.sweeps import BASE, MARGIN, SWEEP_COLUMNS, UNIT, Sweep, right_of, scaled, spread
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.edits import Edit
from interp.settings import Blocks, CountOrZero, FactorsOrNone
from interp.summaries import Verdict


class Composition(Sweep):
    """Accuracy with the vectors of two blocks on, unscaled, against each of them alone.

    The interaction is I_ij = A_ij - A_i - A_j + A_0. What is chosen, the better single vector and its best factor, is
    chosen on one half of the problems and reported on the other.
    """

    version: ClassVar[int] = 2
    figures: ClassVar[tuple[str, ...]] = ("composition", "composition-controls")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="mean over pairs of the interaction A_ij - A_i - A_j + A_0 of two vectors trained apart",
        unit="problem",
        statistic="paired difference of differences of accuracies",
        family="all pairs, Benjamini-Hochberg; two verdicts on means over pairs",
        controls=("random partner of the same norm", "the better single vector at its best factor"),
        margin=MARGIN,
        claim="vectors trained apart add up when two of them are on (no effect within the margin is what it predicts)",
        margin_unit=UNIT,
    )
    columns: ClassVar[dict[str, str]] = {
        **SWEEP_COLUMNS,
        "part": "summary (a condition), answers (a completion), pairs, whole (means over pairs), draws (of partners)",
        "trained": "together, apart or unknown, as the vectors' card says",
        "layer": "block of a single vector",
        "factor": "multiple of a single vector",
        "i": "lower block of a pair",
        "j": "upper block of a pair",
        "interaction": "A_ij - A_i - A_j + A_0, share of problems (of random partners in part draws)",
        "interaction_low": "lower end of its 95 % interval over problems",
        "interaction_high": "upper end",
        "log_odds": "the same of log-odds, nats; counts are smoothed by 1/2",
        "log_odds_low": "lower end of its 95 % interval over problems",
        "log_odds_high": "upper end",
        "p": "two-sided p of no interaction, t test over problems",
        "q": "p adjusted over pairs (Benjamini-Hochberg)",
        "best": "block of the better single vector, chosen on one half",
        "best_factor": "its best factor, chosen on the same half",
        "beyond_best": "A_ij minus the better single vector's accuracy at its best factor, other half",
        "beyond_best_low": "lower end of its 95 % interval over problems",
        "beyond_best_high": "upper end",
        "beyond_random": "A_ij minus accuracy with a random vector of the same norm in place of j's",
        "beyond_random_low": "lower end of its 95 % interval over problems",
        "beyond_random_high": "upper end",
        "share": "(A_ij - B)/(P - B), B the better of the two alone (chosen on one half), P all layers, other half",
        "share_low": "lower end of its 95 % interval over problems",
        "share_high": "upper end",
        "alone": "accuracy of single vectors minus that of random ones at the same blocks, mean over blocks",
        "alone_low": "lower end of its 95 % interval over problems",
        "alone_high": "upper end",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "blocks": 2, "draws": 3, "validation_n": 2},
        "quick": {"n": 28, "blocks": 3},
        "full": {
            "n": 256,
            "blocks": 0,
            "factors": (0.5, 1.0, 1.5, 2.0, 3.0),
            "temperatures": (1.0, 0.0),
            "samples": 4,
            "mixed": False,
        },
    }

    layers: Blocks = ()
    """Blocks to pair; none = `blocks` of those the set has."""
    blocks: CountOrZero = 4
    """How many blocks, spread over those the set has; 0 = all."""
    factors: FactorsOrNone = (1.0, 2.0)
    """Factors among which the better single vector's best one is chosen; 1 is always among them."""

    def cells(self, ctx: Context) -> list[Cell]:
        """Each block, each pair, what is judged over all of them, and the references, at each temperature."""
        paired, found = self.paired_layers(ctx), list[Cell]()
        for temperature in self.temperatures:
            found += [Cell.at(part="single", temperature=temperature, layer=layer) for layer in paired]
            found += [Cell.at(part="pair", temperature=temperature, i=i, j=j) for i, j in combinations(paired, 2)]
            found += [Cell.at(part=part, temperature=temperature) for part in ("family", "references")]
        return found

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Graded completions of singles and pairs, with their interactions."""
        frame = pd.concat([self._cell(ctx, cell) for cell in cells], ignore_index=True)
        return frame.assign(trained=acting(ctx).card.trained).reindex(columns=list(self.columns))

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """One on the mean interaction, one on pairs against the better single vector."""
        return [judge_sum(frame), judge_best(frame)]

    def paired_layers(self, ctx: Context) -> tuple[int, ...]:
        """The blocks that are paired."""
        every = acting(ctx)
        return every.only(self.layers).layers if self.layers else spread(every.layers, self.blocks)

    @property
    def grid(self) -> tuple[float, ...]:
        """The factors in order, 1 among them."""
        return tuple(sorted({*self.factors, 1.0}))

    def _cell(self, ctx: Context, cell: Cell) -> pd.DataFrame:
        temperature = float(cell["temperature"])
        if cell["part"] == "single":
            layer = int(cell["layer"])
            conditions = [*(self._single(ctx, layer, factor) for factor in self.grid), *self._random(ctx, layer)]
            return self.measured(ctx, conditions, temperature, ("layer", "factor"))
        if cell["part"] == "pair":
            i, j = int(cell["i"]), int(cell["j"])
            return self.measured(ctx, [self._pair(ctx, i, j), *self._partner(ctx, i, j)], temperature, ("i", "j"))
        if cell["part"] == "family":
            return self._family(ctx, temperature)
        steered = [self._single(ctx, layer) for layer in self.paired_layers(ctx)]
        return self.references(ctx, self.rows(ctx, steered, temperature), temperature)

    def _single(self, ctx: Context, layer: int, factor: float = 1.0) -> Condition:
        edits = scaled(acting(ctx).only(layer), factor)
        return Condition("trained", edits=edits, at={"layer": layer, "factor": factor})

    def _pair(self, ctx: Context, i: int, j: int) -> Condition:
        every = acting(ctx)
        return Condition("trained", edits=(*every.only(i).edits(), *every.only(j).edits()), at={"i": i, "j": j})

    def _drawn(self, ctx: Context, layer: int) -> list[tuple[Edit, ...]]:
        drawn = random_like(acting(ctx).only(layer), draws=self.draws, seed=self.seed)
        return [one.edits() for one in drawn]

    def _random(self, ctx: Context, layer: int) -> list[Condition]:
        return self.random(self._drawn(ctx, layer), layer=layer, factor=1.0)

    def _partner(self, ctx: Context, i: int, j: int) -> list[Condition]:
        """The vector of block i with random ones of the norm of j's."""
        own = acting(ctx).only(i).edits()
        return self.random([(*own, *edits) for edits in self._drawn(ctx, j)], "random-partner", i=i, j=j)

    def _family(self, ctx: Context, temperature: float) -> pd.DataFrame:
        """Interactions of all pairs and their means, with the same of random partners."""
        layers = self.paired_layers(ctx)
        if len(layers) < 2:
            return pd.DataFrame([{"part": "whole", "vector": "trained", "draw": 0, "temperature": temperature, "n": 0}])
        base = self.rows(ctx, [BASE], temperature)
        right: dict[Any, np.ndarray] = {0: base["right"].to_numpy()}
        for layer in layers:
            for factor in self.grid:
                right[layer, factor] = self._right(ctx, [self._single(ctx, layer, factor)], temperature)[:, 0]
            right["random", layer] = self._right(ctx, self._random(ctx, layer), temperature)
        for i, j in combinations(layers, 2):
            right["pair", i, j] = self._right(ctx, [self._pair(ctx, i, j)], temperature)[:, 0]
            right["partner", i, j] = self._right(ctx, self._partner(ctx, i, j), temperature)
        whole = self.others(ctx).get("all-layer")
        if whole is not None:
            right["all"] = self._right(ctx, [Condition("all-layer", edits=whole.edits())], temperature)[:, 0]
        problems = [problem.id for problem in ctx.problems()]
        example = list(base["example"])
        pairs = pair_rows(right, layers, self.grid, example, problems, self.seed)
        means = whole_rows(right, layers, pairs, example, problems, self.draw_of(ctx, example), self.seed)
        return pd.concat([pairs, means], ignore_index=True).assign(temperature=temperature)

    def _right(self, ctx: Context, conditions: list[Condition], temperature: float) -> np.ndarray:
        """Whether each answer is right, [answers, conditions]."""
        return right_of(self.rows(ctx, conditions, temperature), len(conditions))
