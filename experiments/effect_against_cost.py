"""EffectAgainstCost: points gained on the task against the KL that the same vectors cost on neutral text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pandas as pd

from experiments.controls import Sets, acting, beside, control_interval, random_like, too_few
from experiments.graded import Condition, floor, gain_of
from experiments.neutral import cost, passages
from experiments.sweeps import BASE, MARGIN, SWEEP_COLUMNS, UNIT, Sweep, mean_of
from experiments.texts import places
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.settings import Count, Factors
from interp.summaries import POSITIVE, Verdict, verdict

CONTROL = "random-isotropic"


class EffectAgainstCost(Sweep):
    """Dose curves of sets of vectors: accuracy gained against KL(steered || base) on neutral text, random ones beside.

    A vector that acts on the task alone lies up and to the left; random directions show what any push of the residual
    stream costs and gains.
    """

    version: ClassVar[int] = 3
    prefers: ClassVar[tuple[str, ...]] = ("all-layer",)
    figures: ClassVar[tuple[str, ...]] = ("effect-against-cost",)
    declaration: ClassVar[Declaration] = Declaration(
        estimand="accuracy gained by the vectors at their trained scale, beside random directions at every dose",
        unit="problem (gain), neutral text (cost)",
        statistic="paired difference of accuracies; mean KL of a token",
        family="one verdict on the vectors under study",
        controls=(CONTROL,),
        margin=MARGIN,
        claim="no dose of a random direction gains what the vectors gain, whatever it costs",
        margin_unit=UNIT,
    )
    columns: ClassVar[dict[str, str]] = {
        **SWEEP_COLUMNS,
        "part": "summary (gain and cost of a dose), answers (a completion)",
        "vector": "base, trained (the vectors under study), a set beside, or the control",
        "dose": "factor on the vectors; 1 = as trained, a baseline at the norms of the vectors under study",
        "kl": "mean KL(steered || base) of a token of neutral text, nats",
        "kl_low": "lower end of its 95 % interval over texts",
        "kl_high": "upper end",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "doses": (1.0,), "random_doses": (1.0,), "draws": 3, "n_texts": 4, "length": 12},
        "quick": {"n": 28, "draws": 4, "beside": ("mean-difference",)},
        "full": {"n": 256, "doses": (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0), "n_texts": 60, "length": 64, "samples": 4},
    }

    beside: Sets = ("single-layer/12", "mean-difference", "random-reward", "format-reward")
    """Other sets of the same model, where they come with it."""
    doses: Factors = (0.5, 1.0, 2.0)
    """Factors on each set."""
    random_doses: Factors = (1.0, 3.0)
    """Factors on random directions of the norms of the vectors under study."""
    n_texts: Count = 20
    """Neutral texts."""
    length: Count = 24
    """Tokens of a neutral text at most."""

    def cells(self, ctx: Context) -> list[Cell]:
        """Each set, and the random directions."""
        return [Cell.at(vector=name) for name in ("trained", *self.others(ctx), CONTROL)]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Gain and cost at each dose."""
        frames = [self._curve(ctx, str(cell["vector"])) for cell in cells]
        return pd.concat(frames, ignore_index=True).reindex(columns=list(self.columns))

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """Whether the vectors gain more than random directions at any dose."""
        return [judge(frame)]

    def _curve(self, ctx: Context, vector: str) -> pd.DataFrame:
        named = self._doses(ctx, vector)
        temperature = max(self.temperatures)
        conditions = [Condition(vector, draw, one.edits(), {"dose": dose}) for draw, dose, one in named]
        found = self.measured(ctx, conditions, temperature, ("dose",))
        said, _ = ctx.once("neutral passages", lambda: passages(ctx, self.n_texts, self.length))
        read = cost(ctx, said, places(said, "generated", at_most=0), [one for _, _, one in named])
        costs = [
            {"draw": draw, "dose": dose, **mean_of(rows["kl"].to_numpy(), rows["example"].tolist(), "kl", POSITIVE)}
            for (draw, dose, _), rows in zip(named, read, strict=True)
        ]
        summary: Any = found[found["part"] == "summary"]
        graded: Any = found[found["part"] == "answers"]
        frames = [summary.merge(pd.DataFrame(costs), on=["draw", "dose"]), graded]
        if vector == "trained":
            frames.append(self.measured(ctx, [BASE], temperature, ()))
        joined: pd.DataFrame = pd.concat(frames, ignore_index=True)
        return joined

    def _doses(self, ctx: Context, vector: str) -> Sequence[tuple[int, float, Any]]:
        if vector == CONTROL:
            drawn = random_like(acting(ctx), draws=self.draws, seed=ctx.seed)
            return [(draw, dose, dose * one) for draw, one in enumerate(drawn) for dose in self.random_doses]
        chosen = acting(ctx).together() if vector == "trained" else beside(ctx, self.others(ctx)[vector])
        return [(0, dose, chosen if dose == 1 else dose * chosen) for dose in self.doses]


def judge(frame: pd.DataFrame) -> Verdict:
    """The vectors at their trained scale against random directions at every dose."""
    claim = "gain-beyond-random-directions"
    rows: Any = frame[frame["part"] == "summary"]
    row = rows[(rows["vector"] == "trained") & (rows["dose"] == 1)].iloc[0]
    gain = gain_of(row)
    drawn = rows[rows["vector"] == CONTROL]
    draws = {f"dose {dose:g}": list(own["gain"]) for dose, own in drawn.groupby("dose")}
    control = control_interval(draws, list(draws), problems=gain.n)
    reason = too_few(gain.n) or floor(row) or (None if control else "there are no control draws to compare with")
    return verdict(gain, control, MARGIN, testable=reason, claim=claim, unit=UNIT)
