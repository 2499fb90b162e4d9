"""The causal test: accuracy with a vector only at the position that predicts the first token, and everywhere else."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from experiments.controls import Acting, control_interval, too_few
from experiments.graded import Condition, floor, gain_of
from interp.positions import Positions
from interp.summaries import FLOOR, Verdict, share, verdict

Applied = Literal["nowhere", "first", "all-but-first", "everywhere"]
APPLIED: tuple[Applied, ...] = get_args(Applied)

UNIT = "share of problems"


def where(applied: Applied, longest: int) -> Positions:
    """The positions, in prompts of at most `longest` tokens.

    The LAST PROMPT token is the one that predicts the first generated token.
    """
    if applied == "first":
        return Positions(prompt=-1, generated="none")
    if applied == "all-but-first":
        return Positions(prompt=range(-longest, -1))
    return Positions()


def placed(vector: str, draw: int, vectors: Acting, applied: Applied, longest: int) -> Condition:
    """The condition of a vector at some positions."""
    return Condition(vector, draw, vectors.edits(where(applied, longest)), {"applied": applied})


def add_share(summary: pd.DataFrame, rows: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """Add the share of the gain everywhere that each place gives; empty where the ratio may not be shown."""
    own: Any = rows[rows["vector"] == "trained"]
    gains = {
        str(applied): part["right"].to_numpy() - base["right"].to_numpy() for applied, part in own.groupby("applied")
    }
    for column in ("share", "share_low", "share_high"):
        summary[column] = np.nan
    for applied in ("first", "all-but-first"):
        ratio = share(gains[applied], gains["everywhere"], base["example"].to_numpy())
        here = (summary["vector"] == "trained") & (summary["applied"] == applied)
        if ratio is not None:
            summary.loc[here, ["share", "share_low", "share_high"]] = [ratio.estimate, ratio.low, ratio.high]
    return summary


def judge(frame: pd.DataFrame, margin: float) -> Verdict:
    """Whether the vector at the first position alone raises accuracy, by more than controls there do."""
    claim = "first-token-suffices"
    rows: Any = frame[frame["part"] == "causal"]
    if rows.empty:
        return verdict(None, claim=claim, margin=margin, testable="no completions were graded", unit=UNIT)
    rows = rows[rows["temperature"] == rows["temperature"].max()]
    trained = rows[rows["vector"] == "trained"].set_index("applied")
    first, everywhere = (gain_of(trained.loc[applied]) for applied in ("first", "everywhere"))
    reason = too_few(first.n) or floor(trained.loc["everywhere"])
    if reason is None and not everywhere.low >= FLOOR:
        reason = f"the vector added everywhere gains {everywhere.points()}, whose lower end is below {100 * FLOOR:.0f}"
    drawn = rows[(rows["applied"] == "first") & ~rows["vector"].isin(["trained", "base"])]
    control = control_interval(
        {str(kind): list(own["gain"]) for kind, own in drawn.groupby("vector")}, problems=first.n
    )
    reason = reason or (None if control else "there are no control draws to compare with")
    return verdict(first, control, margin, testable=reason, claim=claim, unit=UNIT)
