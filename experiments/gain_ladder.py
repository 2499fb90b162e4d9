"""GainLadder: how much of the gain do simpler explanations reach, rung by rung?

Sharpening, worked examples, one written token, the vector at the first position only, and vectors trained with a reward
for format or with a random one stand below the vectors under study; adapters stand beside them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import pandas as pd

from experiments.controls import Acting, Sets, acting, named_sets, random_like, too_few
from experiments.graded import Condition, reference_answers, summarise
from experiments.openers import Openers
from experiments.sweeps import BASE, MARGIN, SWEEP_COLUMNS, UNIT, Sweep, paired, spread
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.positions import Positions
from interp.settings import Count, CountOrZero
from interp.summaries import Verdict, verdict

SIMPLE = (
    "matched-entropy",
    "1-shot",
    "3-shot",
    "5-shot",
    "prefix",
    "first-position",
    "random-reward",
    "format-reward",
)
"""Rungs that need no vector trained for right answers, or only one token of it."""


class GainLadder(Sweep):
    """Accuracy of the base, of simpler explanations of a gain, and of trained vectors and adapters, on one ladder."""

    version: ClassVar[int] = 2
    prefers: ClassVar[tuple[str, ...]] = ("all-layer",)
    figures: ClassVar[tuple[str, ...]] = ("gain-ladder",)
    declaration: ClassVar[Declaration] = Declaration(
        estimand="accuracy of the vectors minus that of the best simpler rung",
        unit="problem",
        statistic="paired difference of accuracies",
        family="one verdict; the simpler rung is chosen on one half of the problems, the difference taken on the other",
        controls=(*SIMPLE, "random-isotropic"),
        margin=MARGIN,
        claim="the vectors gain more than sharpening, examples, one token, format or chance do",
        margin_unit=UNIT,
    )
    columns: ClassVar[dict[str, str]] = {
        **SWEEP_COLUMNS,
        "part": "summary (a rung), answers (a completion)",
        "vector": "rung: base, a simpler explanation, one-layer, trained (the vectors under study), a set beside",
        "seed": "training seed, where a rung has several",
        "detail": "the layer, the written token, or the temperature of a rung",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "draws": 3, "validation_n": 2, "train_n": 2, "blocks": 2},
        "quick": {"n": 28, "draws": 8, "validation_n": 14},
        "full": {"n": 256, "temperatures": (1.0, 0.0), "samples": 4, "validation_n": 64, "blocks": 0, "train_n": 64},
    }

    beside: Sets = ("single-layer", "random-reward", "format-reward", "lora-r1", "lora-r4")
    """Other sets of the same model that are rungs, where they come with it."""
    seeds: Sets = ("all-layer@1", "all-layer@2")
    """Sets of other training seeds of the vectors under study."""
    blocks: CountOrZero = 6
    """Single-layer vectors among which the best one is chosen on validation problems; 0 = all."""
    train_n: Count = 32
    """Training problems on which the written token is chosen."""

    def cells(self, ctx: Context) -> list[Cell]:  # noqa: ARG002
        """One for each temperature."""
        return [Cell.at(temperature=temperature) for temperature in self.temperatures]

    def inputs(self, ctx: Context) -> dict[str, str]:
        """Digests of the rungs' sets."""
        return {name: one.digest for name, one in self._sets(ctx).items()}

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Graded completions of every rung."""
        return pd.concat([self._rungs(ctx, float(cell["temperature"])) for cell in cells], ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """Whether the vectors beat the best simpler rung."""
        return [judge(frame)]

    def _sets(self, ctx: Context) -> dict[str, Any]:
        """Every set on the ladder but the run's own, by name; adapters of any rank are edits like the others."""
        found: dict[str, Any] = named_sets(ctx, (*self.beside, *self.seeds))
        strange = [
            name for name in self.seeds if not isinstance(found.get(name), type(ctx.vectors))
        ]  # not the same kind
        return {name: one for name, one in found.items() if name not in strange and one.digest != ctx.vectors.digest}

    def _rungs(self, ctx: Context, temperature: float) -> pd.DataFrame:
        sets = self._sets(ctx)
        single = sets.get("single-layer", acting(ctx))
        conditions = [*self._single(ctx, single, temperature), Condition("trained", edits=ctx.vectors.edits())]
        for name, one in sets.items():
            seed = int(name.partition("@")[2] or 0)
            if name != "single-layer":
                vector = "trained" if name in self.seeds else name
                conditions.append(Condition(vector, edits=one.edits(), at={"seed": seed}))
        for draw, one in enumerate(random_like(acting(ctx), draws=self.draws, seed=ctx.seed)):
            conditions.append(Condition("random-isotropic", draw, one.edits()))
        found = self.measured(ctx, [BASE, *conditions], temperature, ("seed", "detail"))
        if not temperature:
            return found.reindex(columns=list(self.columns))
        own = self.rows(ctx, [Condition("trained", edits=ctx.vectors.edits())], temperature)
        return pd.concat([found, self._sharpened(ctx, own, temperature)], ignore_index=True).reindex(
            columns=list(self.columns)
        )

    def _single(self, ctx: Context, single: Acting, temperature: float) -> list[Condition]:
        """What the last vector's token and first position do, and the best vector of one layer."""
        last = single.only(max(single.layers))
        choose = partial(Openers.of, ctx, self.train_n, last.layers[0])
        token, _ = ctx.once("openers", choose).raised(last)
        first = last.edits(Positions(prompt=-1, generated="none"))
        layers = spread(single.layers, self.blocks)
        best = self.chosen_layer(ctx, single, layers, temperature)
        return [
            Condition("prefix", prefix=(token,), at={"detail": repr(ctx.model.token_text(token))}),
            Condition("first-position", edits=first, at={"detail": f"layer {last.layers[0]}"}),
            Condition("one-layer", edits=single.only(best).edits(), at={"detail": f"layer {best}"}),
        ]

    def _sharpened(self, ctx: Context, own: Any, temperature: float) -> pd.DataFrame:
        """The base as sharp as the steered model, and with worked examples, as answers and summaries."""
        entropy, base = float(own["entropy"].mean()), self.rows(ctx, [BASE], temperature)
        rows = reference_answers(ctx, entropy=entropy, temperature=temperature, samples=self.samples)
        summary = summarise(rows, base=base)
        summary["detail"] = [f"T = {value:g}" for value in summary["temperature"]]
        return pd.concat([summary.assign(part="summary"), rows.assign(part="answers")], ignore_index=True)


def judge(frame: pd.DataFrame) -> Verdict:
    """The vectors against the simpler rung that is best on one half of the problems, on the other half."""
    claim = "more-than-simpler-explanations"
    answers: Any = frame[(frame["part"] == "answers") & frame["seed"].fillna(0).eq(0)]
    sampled = answers[answers["temperature"] > 0]
    answers = sampled if len(sampled) else answers
    examples = sorted(set(answers["example"]))
    if too_few(len(examples)):
        return verdict(None, margin=MARGIN, claim=claim, unit=UNIT, testable=too_few(len(examples)))
    choosing = answers[answers["example"].isin(examples[::2])]
    accuracy = choosing[choosing["vector"].isin(SIMPLE)].groupby("vector")["right"].mean()
    rest = answers[answers["example"].isin(examples[1::2])]
    pair = [rest[rest["vector"] == name] for name in ("trained", str(accuracy.idxmax()))]
    return verdict(paired(*pair), margin=MARGIN, claim=claim, unit=UNIT)
