"""Rows of feature correctness, and the verdicts on what the chosen feature marks and causes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.controls import control_interval, too_few
from experiments.feature_correctness_tests import Effect, Firing, effect
from interp.summaries import Interval, Verdict, control_range, difference, verdict

MARGIN = 0.05
UNIT = "share of completions"
MARKS, CAUSES = "features-mark-correct-completions", "taking-the-feature-out-lowers-accuracy"


def frequent(found: Firing, least: float) -> Firing:
    """The same with rare features silenced, so that their scores are 0."""
    rate = np.where(found.rate.mean(0) >= least, found.rate, 0.0)
    return Firing(rate, found.right, found.problem, found.covariates, found.sample)


def with_drop(summary: pd.DataFrame, rows: Any) -> pd.DataFrame:
    """Add what accuracy loses against the vectors as they are, paired by problem and random stream."""
    whole = rows[rows["vector"] == "trained"]
    ends: list[tuple[float, float, float]] = []
    for _, one in summary.iterrows():
        own = rows[(rows["vector"] == one["vector"]) & (rows["draw"] == one["draw"])]
        lost = difference(whole["right"], own["right"], whole["example"], share=True)
        ends.append((lost.estimate, lost.low, lost.high))
    told: Any = pd.DataFrame(ends, columns=["drop", "drop_low", "drop_high"], index=summary.index)
    return summary.join(told).assign(part="accuracy")


def counts_row(found: Firing, half: str) -> dict[str, Any]:
    """How many problems have both outcomes, and their accuracy."""
    accuracy = float(found.right.mean()) if len(found) else float("nan")
    return {"part": "completions", "vector": "trained", "half": half, "n": found.n, "accuracy": accuracy}


def feature_row(found: Firing, half: str, feature: int) -> dict[str, Any]:
    """One feature on one half of the problems."""
    one: Effect = effect(found, feature)
    rate, right = found.rate[:, feature], found.right > 0
    odds = None if one.odds is None else one.odds.interval
    return {
        "part": "features",
        "vector": "trained",
        "half": half,
        "feature": feature,
        "rate": float(rate.mean()),
        "rate_right": float(rate[right].mean()),
        "rate_wrong": float(rate[~right].mean()),
        "effect": one.difference.estimate,
        "effect_low": one.difference.low,
        "effect_high": one.difference.high,
        "odds_ratio": np.nan if odds is None else odds.estimate,
        "odds_ratio_low": np.nan if odds is None else odds.low,
        "odds_ratio_high": np.nan if odds is None else odds.high,
        "n": found.n,
    }


def judge_mark(frame: pd.DataFrame) -> Verdict:
    """What the chosen feature marks on problems that it was not chosen on; "opposite" = wrong completions."""
    rows: Any = frame[(frame["part"] == "features") & (frame["half"] == "held-out") & (frame["rank"] == 1)]
    drawn: Any = frame[(frame["part"] == "null") & (frame["vector"] == "permuted-labels")]
    if rows.empty or len(drawn) < 3:
        reason = "too few problems have right and wrong completions"
        return verdict(None, margin=MARGIN, claim=MARKS, unit=UNIT, testable=reason)
    one = rows.iloc[0]
    found = Interval(float(one["effect"]), float(one["effect_low"]), float(one["effect_high"]), int(one["n"]))
    control = control_range(np.asarray(drawn["effect"], float))
    return verdict(found, control, MARGIN, testable=too_few(found.n), claim=MARKS, unit=UNIT)


def judge_cause(frame: pd.DataFrame) -> Verdict:
    """Whether accuracy falls without the feature, by more than without random ones of the same rate.

    Of a feature that marks wrong completions a rise is expected.
    """
    rows: Any = frame[(frame["part"] == "accuracy")]
    own, drawn = rows[rows["vector"] == "ablated"], rows[rows["vector"] == "random-feature"]
    marks: Any = frame[(frame["part"] == "features") & (frame["half"] == "discovery") & (frame["rank"] == 1)]
    control = None if drawn.empty else _random(drawn)
    if own.empty or marks.empty or control is None:
        return verdict(None, margin=MARGIN, claim=CAUSES, unit=UNIT, testable="no feature was taken out")
    one = own.iloc[0]
    lost = Interval(float(one["drop"]), float(one["drop_low"]), float(one["drop_high"]), int(one["n"]))
    expected = 1 if float(marks["score"].iloc[0]) > 0 else -1
    reason = _nothing_to_lose(rows) or too_few(lost.n)
    return verdict(lost, control, MARGIN, expected=expected, testable=reason, claim=CAUSES, unit=UNIT)


def _random(drawn: Any) -> Interval | None:
    draws = {"random-feature": list(drawn["drop"])}
    return control_interval(draws, tuple(draws), problems=int(drawn["n"].iloc[0]))


def _nothing_to_lose(rows: Any) -> str | None:
    accuracy = float(rows.loc[rows["vector"] == "trained", "accuracy"].iloc[0])
    return None if accuracy > 0 else "no completion is right under the vectors"
