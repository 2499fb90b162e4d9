"""Placement: does it matter where in the block a vector is added (arXiv:2509.06608 App. C)?"""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from typing import Any, ClassVar

import pandas as pd

from experiments.controls import Sets, steering, too_few
from experiments.graded import Condition, summarise
from experiments.sweeps import (
    BASE,
    MARGIN,
    SWEEP_COLUMNS,
    UNIT,
    Sweep,
    columns_of,
    interval_of,
    p_of_mean,
    paired,
    right_of,
    spread,
)
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.errors import UserError
from interp.settings import Block
from interp.summaries import Verdict, benjamini_hochberg, verdict
from vectors import SteeringVectors
from vectors.catalogue import PRETRAINED, list_pretrained
from vectors.controls import random_isotropic

PLACES = ("ln1_out", "attn_out", "ln2_out", "mlp_out")
"""Places of the paper, in the order of the block."""
SAME = {"resid_post": "mlp_out"}
"""A vector added to the block's output is one added to its MLP's output."""


class Placement(Sweep):
    """Accuracy with one vector of one block, trained and added at each of four places of that block."""

    version: ClassVar[int] = 2
    no_adapters: ClassVar[str] = "they add to the MLP's output only, so there is no other place to compare with"
    figures: ClassVar[tuple[str, ...]] = ("placement",)
    declaration: ClassVar[Declaration] = Declaration(
        estimand="accuracy on test problems at the place that is best on validation problems, minus that at the worst",
        unit="problem",
        statistic="paired difference of accuracies",
        family="all pairs of places, Benjamini-Hochberg; one verdict on the best and the worst",
        controls=("random-isotropic",),
        margin=MARGIN,
        claim="the place inside the block matters little (no effect within the margin is what it predicts)",
        margin_unit=UNIT,
    )
    columns: ClassVar[dict[str, str]] = {
        **SWEEP_COLUMNS,
        "part": "summary (a condition), answers (a completion), pairs (two places), spread (best and worst place)",
        "layer": "block",
        "place": "where the vector is added: ln1_out, attn_out, ln2_out, mlp_out",
        "other": "the place it is compared with",
        "difference": "accuracy at `place` minus that at `other`, paired by problem",
        "difference_low": "lower end of its 95 % interval over problems",
        "difference_high": "upper end",
        "excess": "accuracy of the vector minus that of random vectors at the same place, paired by problem",
        "excess_low": "lower end of its 95 % interval over problems",
        "excess_high": "upper end",
        "p": "two-sided p of no difference, t test over problems",
        "q": "p adjusted over pairs (Benjamini-Hochberg)",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "draws": 3, "validation_n": 2},
        "quick": {"n": 28, "validation_n": 14},
        "full": {"n": 256, "temperatures": (1.0, 0.0), "samples": 4, "validation_n": 128, "mixed": False},
    }

    sets: Sets = ()
    """Vectors at other places, as aliases or paths; none = those of the catalogue, at the block with most places."""
    layer: Block | None = None
    """Block; None = the one with vectors at most places."""

    def placed(self, ctx: Context) -> dict[str, SteeringVectors]:
        """The vectors of one block by place, in the order of the block; the run's own are among them."""
        found = [steering(ctx), *(self._load(ctx, name) for name in self.sets or catalogued(ctx.model.name))]
        layers = [layer for one in found[1:] for layer in one.layers] or list(spread(found[0].layers, 1))
        # of the blocks with equally many places, the first
        layer = min(layers, key=lambda one: (-Counter(layers)[one], one)) if self.layer is None else self.layer
        here: dict[str, SteeringVectors] = {}
        for one in found:
            if layer in one.layers:
                here.setdefault(SAME.get(one.card.site, one.card.site), one.only(layer))
        if not here:
            raise UserError("no vector at this block", given=layer, works=f"layer={min(layers)}")
        return dict(sorted(here.items(), key=lambda item: PLACES.index(item[0]) if item[0] in PLACES else -1))

    def inputs(self, ctx: Context) -> dict[str, str]:
        """Digests of the vectors at every place and of the sets beside."""
        return {**super().inputs(ctx), **{place: one.digest for place, one in self.placed(ctx).items()}}

    def cells(self, ctx: Context) -> list[Cell]:
        """Each place, what is judged over all of them, and the references, at each temperature."""
        found: list[Cell] = []
        for temperature in self.temperatures:
            found += [Cell.at(part="place", temperature=temperature, place=place) for place in self.placed(ctx)]
            found += [Cell.at(part=part, temperature=temperature) for part in ("family", "references")]
        return found

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Graded completions with a vector at each place."""
        placed = ctx.once("vectors by place", lambda: self.placed(ctx))
        (layer,) = next(iter(placed.values())).layers
        frames = [self._cell(ctx, placed, cell) for cell in cells]
        return pd.concat(frames, ignore_index=True).assign(layer=layer).reindex(columns=list(self.columns))

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """One, on the best and the worst place."""
        return [judge(frame)]

    def _load(self, ctx: Context, name: str) -> SteeringVectors:
        found = ctx.related(name)
        if not isinstance(found, SteeringVectors):
            raise UserError("no such steering vectors", given=name, works="give aliases or paths of vectors")
        return found

    def _cell(self, ctx: Context, placed: dict[str, SteeringVectors], cell: Cell) -> pd.DataFrame:
        temperature = float(cell["temperature"])
        if cell["part"] == "place":
            place = str(cell["place"])
            conditions = [_at(place, placed[place]), *self._random(place, placed[place])]
            return self.measured(ctx, conditions, temperature, ("place",))
        if cell["part"] == "family":
            return self._family(ctx, placed, temperature)
        steered = self.rows(ctx, [_at(place, one) for place, one in placed.items()], temperature)
        return self.references(ctx, steered, temperature)

    def _random(self, place: str, vectors: SteeringVectors) -> list[Condition]:
        drawn = random_isotropic(vectors, draws=self.draws, seed=self.seed)
        return self.random([one.edits() for one in drawn], place=place)

    def _family(self, ctx: Context, placed: dict[str, SteeringVectors], temperature: float) -> pd.DataFrame:
        """All pairs of places, and the best against the worst on problems on which they were not chosen."""
        conditions = [_at(place, one) for place, one in placed.items()]
        rows = {one.at["place"]: self.rows(ctx, [one], temperature) for one in conditions}
        found = [
            {"part": "pairs", "place": a, "other": b, **columns_of(paired(rows[a], rows[b]), "difference"),
             "p": p_of_mean((rows[a]["right"] - rows[b]["right"]).to_numpy(), list(rows[a]["example"]))}
            for a, b in combinations(rows, 2)
        ]  # fmt: skip
        for row, q in zip(found, benjamini_hochberg([row["p"] for row in found]), strict=True):
            row["q"] = float(q)
        frame = pd.DataFrame([*found, self._spread(ctx, placed, conditions, temperature)])
        n = ctx.once("number of problems", lambda: len(ctx.problems()))
        return frame.assign(vector="trained", draw=0, temperature=temperature).fillna({"n": n})

    def _spread(
        self, ctx: Context, placed: dict[str, SteeringVectors], conditions: list[Condition], temperature: float
    ) -> dict[str, Any]:
        accuracy = right_of(self.choosing(ctx, conditions, temperature), len(conditions)).mean(0)
        best, worst = conditions[int(accuracy.argmax())], conditions[int(accuracy.argmin())]
        place = str(best.at["place"])
        random = self._random(place, placed[place])
        base, high, low, drawn = (
            self.reporting(ctx, self.rows(ctx, some, temperature)) for some in ([BASE], [best], [worst], random)
        )
        # the mean over draws of each answer: one draw an answer where they are mixed
        drawn = high.assign(right=right_of(drawn, len(random)).mean(1))
        return {
            "part": "spread",
            "other": worst.at["place"],
            **summarise(high, ("place",), base=base).iloc[0].to_dict(),
            **columns_of(paired(high, low), "difference"),
            **columns_of(paired(high, drawn), "excess"),
        }


def catalogued(model: str) -> list[str]:
    """Aliases of single vectors of a model that come with the package and are added elsewhere than at the output."""
    found: list[str] = []
    for one in list_pretrained(PRETRAINED):
        for layer, path in one.files if one.model == model and one.apart else ():
            card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if card.get("kind") == "vector" and card.get("site") in PLACES:
                found.append(f"{one.model}/{one.set}/{layer}@{one.seed}")
    return found


def judge(frame: pd.DataFrame) -> Verdict:
    """Whether the best place beats the worst; tested only where there are two and the best beats random vectors."""
    claim = "the-place-matters-little"
    # the base at matched entropy may be sampled warmer than the places
    spreads: Any = frame[frame["part"] == "spread"]
    row = spreads.loc[spreads["temperature"].idxmax()]
    rows: Any = frame[frame["temperature"] == row["temperature"]]
    places = list(dict.fromkeys(rows[rows["part"] == "summary"]["place"].dropna()))
    difference, excess = interval_of(row, "difference"), interval_of(row, "excess")
    reason = too_few(difference.n)
    if len(places) < 2:
        reason = f"block {int(row['layer'])} has a vector at {places[0]} only"
    elif reason is None and not excess.low > 0:
        reason = f"at the best place, {row['place']}, the vector is {excess.points()} better than random vectors"
    # a place that beats another speaks against the claim
    return verdict(difference, None, MARGIN, expected=-1, testable=reason, claim=claim, unit=UNIT)


def _at(place: str, vectors: SteeringVectors) -> Condition:
    return Condition("trained", edits=vectors.edits(), at={"place": place})
