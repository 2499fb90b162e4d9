"""AccuracyByLayer: how much does the vector of one block recover alone (arXiv:2509.06608 Figs 1, 9-11)?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from experiments.controls import (
    RANDOM,
    Acting,
    Controls,
    Sets,
    acting,
    control_interval,
    other_seeds,
    set_and_seed,
    too_few,
)
from experiments.graded import Condition, floor, gain_of, summarise
from experiments.sweeps import (
    BASE,
    MARGIN,
    SWEEP_COLUMNS,
    UNIT,
    Sweep,
    alone,
    columns_of,
    p_beyond,
    right_of,
    spread,
)
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.settings import Blocks, CountOrZero
from interp.summaries import Verdict, band, benjamini_hochberg, share, verdict


class AccuracyByLayer(Sweep):
    """Accuracy with only the vector of one block on, block by block.

    Vectors that were trained together are shown one by one too; what one of them does alone is then not what it was
    trained to do, and the figure says so.
    """

    version: ClassVar[int] = 3
    figures: ClassVar[tuple[str, ...]] = ("accuracy-by-layer", "accuracy-by-layer-beside")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="accuracy gained on test problems by the vector of the block that is best on validation problems",
        unit="problem",
        statistic="paired difference of accuracies",
        family="all blocks, Benjamini-Hochberg; one verdict on the chosen block",
        controls=("random-isotropic", "permuted", "negated", "random-reward", "format-reward"),
        margin=MARGIN,
        claim="one trained vector in one layer recovers much of the gain of vectors in all layers",
        margin_unit=UNIT,
    )
    columns: ClassVar[dict[str, str]] = {
        **SWEEP_COLUMNS,
        "part": "summary (a condition), answers (a completion), curve (a block), chosen (the chosen one and controls)",
        "layer": "block of the vector, 0 = first; empty where all are on or none",
        "seed": "training seed, where the set has several",
        "band_low": "lower edge of the accuracies' band, which covers all blocks at once with probability 0.95",
        "band_high": "upper edge",
        "p": "two-sided p of the vector being one more random draw, at this block or the nearest with controls",
        "q": "p adjusted over blocks (Benjamini-Hochberg)",
        "share": "gain divided by that of all-layer vectors; empty where the latter's lower bound is below 5 points",
        "share_low": "lower end of its 95 % interval over problems",
        "share_high": "upper end",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "blocks": 2, "control_blocks": 1, "draws": 3, "validation_n": 2, "train_n": 2},
        "quick": {"n": 28, "validation_n": 14, "control_blocks": 2},
        "full": {
            "n": 256,
            "blocks": 0,
            "control_blocks": 0,
            "temperatures": (1.0, 0.0),
            "samples": 4,
            "controls": RANDOM,
            "train_n": 32,
            "validation_n": 64,
            "permuted_draws": 8,
            "mixed": False,
        },
    }

    layers: Blocks = ()
    """Blocks to measure; none = `blocks` of those the set has."""
    blocks: CountOrZero = 8
    """How many blocks, spread over those the set has; 0 = all."""
    control_blocks: CountOrZero = 4
    """Blocks with random controls, mixed draws if `mixed`, spread over the measured ones; 0 = all. The chosen block
    has each draw on every problem besides."""
    controls: Controls = ("random-isotropic",)
    """Kinds of random control."""
    permuted_draws: CountOrZero = 1
    """Draws of permuted coordinates at the chosen block, where -s stands too."""
    seeds: Sets | None = None
    """Sets of other training seeds, as aliases or paths; None = those of the catalogue."""

    def cells(self, ctx: Context) -> list[Cell]:
        """Each block, what is judged over all of them, and the references, at each temperature."""
        found: list[Cell] = []
        for temperature in self.temperatures:
            found += [
                Cell.at(part="layer", temperature=temperature, layer=layer) for layer in self.measured_layers(ctx)
            ]
            found += [Cell.at(part=part, temperature=temperature) for part in ("family", "references")]
        return found

    def inputs(self, ctx: Context) -> dict[str, str]:
        """Digests of the sets beside and of other seeds."""
        seeds = {f"seed {seed}": one.digest for seed, one in self.other_seeds(ctx).items()}
        return {**super().inputs(ctx), **seeds}

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Graded completions of each condition."""
        return pd.concat([self._cell(ctx, cell) for cell in cells], ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """One, on the block that was chosen on other problems, at the highest temperature."""
        return [judge(frame)]

    def measured_layers(self, ctx: Context) -> tuple[int, ...]:
        """The blocks on the curve."""
        every = acting(ctx)
        return every.only(self.layers).layers if self.layers else spread(every.layers, self.blocks)

    def other_seeds(self, ctx: Context) -> dict[int, Acting]:
        """Sets of other training seeds than the run's own."""
        found = other_seeds(ctx) if self.seeds is None else self.seeds
        sets = {set_and_seed(alias)[1] or index + 1: ctx.related(alias) for index, alias in enumerate(found)}
        return {seed: one for seed, one in sets.items() if isinstance(one, type(acting(ctx)))}

    def _cell(self, ctx: Context, cell: Cell) -> pd.DataFrame:
        temperature = float(cell["temperature"])
        if cell["part"] == "layer":
            found = self.measured(ctx, self._at(ctx, int(cell["layer"])), temperature, ("layer", "seed"))
        elif cell["part"] == "family":
            found = self._family(ctx, temperature)
        else:
            best = alone(acting(ctx), self._chosen(ctx, temperature))
            found = self.references(ctx, self.rows(ctx, [best], temperature), temperature)
        return found.reindex(columns=list(self.columns))

    def _chosen(self, ctx: Context, temperature: float) -> int:
        choose = partial(self.chosen_layer, ctx, acting(ctx), self.measured_layers(ctx), temperature)
        return ctx.once(f"chosen block at {temperature}", choose)

    def _control_layers(self, ctx: Context) -> tuple[int, ...]:
        return spread(self.measured_layers(ctx), self.control_blocks)

    def _at(self, ctx: Context, layer: int) -> list[Condition]:
        """The vectors of a block: of each seed, of other rewards, random ones."""
        every = acting(ctx)
        sets = {set_and_seed(ctx.vectors.name)[1] or 0: every, **self.other_seeds(ctx)}
        found = [alone(one, layer, seed=seed) for seed, one in sets.items() if layer in one.layers]
        for name, one in self.others(ctx).items():
            if one.card.trained == "apart" and layer in one.layers:
                found.append(replace(alone(one, layer), vector=name))
        return found + (self._random(ctx, layer) if layer in self._control_layers(ctx) else [])

    def _random(self, ctx: Context, layer: int) -> list[Condition]:
        drawn = self.drawn(ctx, acting(ctx), layer, self.controls)
        return [
            one
            for kind, some in drawn.items()
            for one in self.random([vectors.edits() for vectors in some], kind, layer=layer)
        ]

    def _each_draw(self, ctx: Context, layer: int) -> list[Condition]:
        return _conditions(self.drawn(ctx, acting(ctx), layer, self.controls), layer)

    def _family(self, ctx: Context, temperature: float) -> pd.DataFrame:
        """The curve with its band over all blocks, and the chosen block with every control."""
        every, layers, chosen = acting(ctx), self.measured_layers(ctx), self._chosen(ctx, temperature)
        extra = dict(self.drawn(ctx, every, chosen, ("permuted",), self.permuted_draws))
        extra |= self.drawn(ctx, every, chosen, ("negated",))
        beside = [one for one in _conditions(extra, chosen) if one.vector not in self.controls]
        controls = {layer: self._random(ctx, layer) for layer in self._control_layers(ctx)}
        drawn = self._each_draw(ctx, chosen)
        late = [*beside, *(drawn if self.mixed or chosen not in controls else [])]
        controls[chosen] = drawn
        found = [self.measured(ctx, late, temperature, ("layer",))] if late else []
        trained = self.rows(ctx, [alone(every, layer) for layer in layers], temperature)
        rows = {layer: self.rows(ctx, some, temperature) for layer, some in controls.items() if some}
        draw_of = self.draw_of(ctx, list(trained["example"][: len(trained) // len(layers)]))
        found.append(
            curve(trained, layers, {layer: (own, len(controls[layer])) for layer, own in rows.items()}, draw_of)
        )
        whole = [one for some in controls.values() for one in some if one.draw >= 0]
        found.append(self._report(ctx, chosen, whole, temperature))
        return pd.concat(found, ignore_index=True).assign(temperature=temperature)

    def _report(self, ctx: Context, chosen: int, controls: list[Condition], temperature: float) -> pd.DataFrame:
        """The chosen block and every random control on the problems on which nothing was chosen."""
        best = alone(acting(ctx), chosen)
        rows: Any = self.reporting(ctx, self.rows(ctx, [BASE, best, *controls], temperature))
        base = rows[rows["vector"] == "base"]
        summary = summarise(rows[rows["vector"] != "base"], ("layer",), base=base).assign(part="chosen")
        whole = self.others(ctx).get("all-layer")
        ratio = None
        if whole is not None:
            own = rows[rows["vector"] == "trained"]
            every = self.reporting(ctx, self.rows(ctx, [Condition("all-layer", edits=whole.edits())], temperature))
            gains = [part["right"].to_numpy() - base["right"].to_numpy() for part in (own, every)]
            ratio = share(gains[0], gains[1], base["example"].to_numpy())
        for name, value in columns_of(ratio, "share").items():
            summary[name] = np.where(summary["vector"] == "trained", value, np.nan)
        return summary


def curve(
    trained: pd.DataFrame,
    layers: tuple[int, ...],
    controls: dict[int, tuple[pd.DataFrame, int]],
    draw_of: np.ndarray | None = None,
) -> pd.DataFrame:
    """A row a block: accuracy with its simultaneous band, p against the nearest block's controls, and q.

    Args:
        trained: rows of each block's vector, in the order of `layers`.
        layers: the blocks.
        controls: block -> rows of its random controls, and how many conditions they are.
        draw_of: draw that each answer met in a single condition of mixed draws.
    """
    right, example = right_of(trained, len(layers)), trained["example"].to_numpy()[: len(trained) // len(layers)]
    found = band(right, example)
    p = [1.0] * len(layers)
    for place, layer in enumerate(layers):
        if controls:
            rows, conditions = controls[min(controls, key=lambda one: (abs(one - layer), one))]
            mixed = draw_of if conditions == 1 else None
            p[place] = p_beyond(right[:, place], right_of(rows, conditions), list(example), mixed)
    known = not np.isnan(p).any() and bool(controls)
    return pd.DataFrame(
        {
            "part": "curve",
            "vector": "trained",
            "draw": 0,
            "layer": layers,
            "accuracy": found.estimate,
            "band_low": np.clip(found.low, 0, 1),
            "band_high": np.clip(found.high, 0, 1),
            "p": p if known else np.nan,
            "q": benjamini_hochberg(p) if known else np.nan,
            "n": found.n,
        }
    )


def judge(frame: pd.DataFrame) -> Verdict:
    """Whether the chosen block's vector gains more than random vectors do, where each draw has all problems."""
    claim = "one-layer-gains"
    rows: Any = frame[frame["part"] == "chosen"]
    rows = rows[rows["temperature"] == rows["temperature"].max()]
    row = rows[rows["vector"] == "trained"].iloc[0]
    gain = gain_of(row)
    drawn = rows[rows["vector"] != "trained"]
    draws = {f"{kind} {layer}": list(own["gain"]) for (kind, layer), own in drawn.groupby(["vector", "layer"])}
    control = control_interval(draws, list(draws), problems=gain.n)
    reason = too_few(gain.n) or floor(row) or (None if control else "there are no control draws to compare with")
    return verdict(gain, control, MARGIN, testable=reason, claim=claim, unit=UNIT)


def _conditions(drawn: Mapping[str, Sequence[Acting]], layer: int) -> list[Condition]:
    return [
        Condition(kind, draw, one.edits(), {"layer": layer})
        for kind, some in drawn.items()
        for draw, one in enumerate(some)
    ]
