"""Means, intervals and verdicts of side effects; no model here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from experiments.controls import control_interval, too_few
from interp.summaries import GAIN, POSITIVE, UNBOUNDED, Interval, Verdict, bootstrap, difference, verdict, wilson

MARGIN_SELECTIVITY = 0.5
MARGIN_REPETITION = 0.05
CONTROLLED = "random-effect-matched"
NO_DRAWS = "there are too few control draws to compare with"
BY = ["vector", "draw", "dose"]


def spread(rows: Any) -> pd.DataFrame:
    """One row: mean KL on neutral text and on the task, their log ratio, and the change of surprise.

    The interval of a difference of two independent estimates is made of both intervals (Zou and Donner 2008): each end
    lies as far from the difference as the root of the sum of squares of the two distances it adds.

    Args:
        rows: of `neutral.cost` with `kind`, one a text.
    """
    neutral, task = rows[rows["kind"] != "task"], rows[rows["kind"] == "task"]
    means = {"kl_neutral": bootstrap(neutral["kl"], bounds=POSITIVE), "kl_task": bootstrap(task["kl"], bounds=POSITIVE)}
    change = difference(neutral["nll"], neutral["nll_base"], bounds=UNBOUNDED)
    values = {
        name: float(np.exp(neutral[of].mean())) for name, of in (("perplexity", "nll"), ("perplexity_base", "nll_base"))
    }
    found: dict[str, Any] = values | {"n": len(neutral)}
    for name, one in {
        **means,
        "selectivity": log_ratio(means["kl_task"], means["kl_neutral"]),
        "nll_change": change,
    }.items():
        found |= {name: one.estimate, f"{name}_low": one.low, f"{name}_high": one.high}
    return pd.DataFrame([found])


def log_ratio(top: Interval, bottom: Interval) -> Interval:
    """ln(top / bottom) of independent positive estimates; infinite ends where an interval reaches 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (np.log(np.maximum([one.low, one.estimate, one.high], 0)) for one in (top, bottom))
        middle = float(a[1] - b[1])
        low = middle - float(np.hypot(a[1] - a[0], b[2] - b[1]))
        high = middle + float(np.hypot(a[2] - a[1], b[1] - b[0]))
    return Interval(middle, low, high, min(top.n, bottom.n))


def style(rows: Any) -> pd.DataFrame:
    """Means of off-task answers, and the change of repetition against the base's, paired by question."""
    base = rows[rows["vector"] == "base"]
    found: list[dict[str, Any]] = []
    for key, own in rows.groupby(BY, sort=False):
        change = difference(own["repeated"].to_numpy(), base["repeated"].to_numpy(), bounds=GAIN)
        means = {name: float(own[name].mean()) for name in ("distinct", "repeated", "ended", "length", "entropy")}
        ends = {
            "repeated_change": change.estimate,
            "repeated_change_low": change.low,
            "repeated_change_high": change.high,
        }
        found.append({**dict(zip(BY, key, strict=True)), **means, **ends, "n": len(own)})
    return pd.DataFrame(found).assign(temperature=rows["temperature"].iloc[0])


def damage(found: Any, rows: Any, base: Any) -> pd.DataFrame:
    """Add to accuracies how many problems broke and how many were fixed, with McNemar's exact test."""
    before = base["right"].to_numpy() > 0
    added: list[dict[str, Any]] = []
    for _, row in found.iterrows():
        own = rows[(rows[BY] == row[BY]).all(axis=1)]
        after = own["right"].to_numpy() > 0
        broken, fixed = int((before & ~after).sum()), int((~before & after).sum())
        share = wilson(broken, int(before.sum())) if before.any() else Interval(np.nan, np.nan, np.nan, 0)
        added.append(
            {
                "broken": broken,
                "fixed": fixed,
                "broken_share": share.estimate,
                "broken_low": share.low,
                "broken_high": share.high,
                "fixed_share": fixed / max(1, int((~before).sum())),
                "p": float(binomtest(broken, broken + fixed).pvalue) if broken + fixed else 1.0,
            }
        )
    return pd.concat([found.reset_index(drop=True), pd.DataFrame(added)], axis=1)


def judge_selectivity(frame: Any) -> Verdict:
    """Whether neutral text is moved less than by random vectors that move the task's text as much."""
    claim, unit = "confined-to-its-task", "ln(KL on the task / KL on neutral text), minus that of controls"
    rows = frame[(frame["part"] == "effect") & (frame["dose"] == 1)]
    own = _interval(rows[rows["vector"] == "trained"], "selectivity")
    drawn = rows[rows["vector"] == CONTROLLED]
    drawn = drawn if len(drawn) >= 3 else rows[rows["vector"] != "trained"]
    control = control_interval({str(kind): list(part["selectivity"]) for kind, part in drawn.groupby("vector")})
    n_task = int(frame[(frame["part"] == "texts") & (frame["kind"] == "task")]["example"].nunique())
    reason = too_few(min(own.n, n_task)) or (None if control else NO_DRAWS)
    if reason is None:
        reason = None if own.finite else "the vectors move one of the two kinds of text not at all"
    return verdict(own, control, MARGIN_SELECTIVITY, relative=True, testable=reason, claim=claim, unit=unit)


def judge_repetition(frame: Any) -> Verdict:
    """Whether off-task answers repeat themselves more than those of the base do, and than under controls."""
    claim, unit = "repeats-itself-off-task", "share of an answer's tokens"
    rows = frame[(frame["part"] == "style") & (frame["dose"] == 1)]
    own = _interval(rows[rows["vector"] == "trained"], "repeated_change")
    drawn = rows[rows["vector"] != "trained"]
    control = control_interval({str(kind): list(part["repeated_change"]) for kind, part in drawn.groupby("vector")})
    reason = too_few(own.n) or (None if control else NO_DRAWS)
    return verdict(own, control, MARGIN_REPETITION, testable=reason, claim=claim, unit=unit)


def _interval(rows: Any, name: str) -> Interval:
    row = rows.iloc[0]
    return Interval(float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"]), int(row["n"]))
