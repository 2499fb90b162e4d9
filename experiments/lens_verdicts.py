"""Verdicts of the logit lens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from experiments.class_effects import UNION_NAME
from experiments.controls import ENOUGH, RANDOM, control_interval, too_few
from experiments.vocabulary import NON_LATIN
from interp.summaries import UNBOUNDED, Interval, Verdict, bootstrap, verdict

MIDDLE = (1 / 3, 2 / 3)
"""Middle layers, as fractions of the depth."""


def judge_scripts(frame: pd.DataFrame, *, margin: float, minimum: int) -> Verdict:
    """Whether middle layers' effects push tokens of other scripts than Latin down.

    The effect is AUC - 0.5 at the middle layer where it is largest, with its interval over problems. It must be beyond
    the band of random directions, simultaneous over layers; and, where control vectors were propagated through the
    network, the layer is one of theirs and it must be beyond their range too.
    """
    claim, reason = "pushes-down-non-latin", None
    rows: Any = frame[(frame["part"] == "scripts") & (frame["script"] == NON_LATIN)]
    rows = rows[(rows["lens"] == "centred") & (rows["quantity"] == "propagated")]
    between = (rows["depth"] >= MIDDLE[0]) & (rows["depth"] <= MIDDLE[1])
    own, drawn = rows[between & (rows["vector"] == "trained")], rows[between & (rows["vector"] != "trained")]
    tokens = int(rows["n_tokens"].max()) if len(rows) else 0
    if tokens < minimum:
        reason = f"the vocabulary has {tokens} whole tokens of other scripts than Latin, fewer than {minimum}"
    elif own.empty:
        reason = "no vector of a middle layer was measured"
    if reason:
        return verdict(None, margin=margin, expected=-1, testable=reason, claim=claim, unit="AUC")
    if len(drawn):
        own = own[own["layer"].isin(set(drawn["layer"]))]
    one: Any = own.loc[(own["auc"] - 0.5).abs().idxmax()]
    estimate, low, high = (float(one[name]) - 0.5 for name in ("auc", "auc_low", "auc_high"))
    effect = Interval(estimate, low, high, int(one["n"]))
    control = _control(one, drawn[drawn["layer"] == one["layer"]])
    return verdict(effect, control, margin, expected=-1, testable=too_few(effect.n), claim=claim, unit="AUC")


def _control(one: Any, drawn: Any) -> Interval:
    """AUC - 0.5 of random directions, and of one more propagated draw of each kind of random control."""
    low, high, n = float(one["null_low"]), float(one["null_high"]), ENOUGH
    for kind, part in drawn.groupby("vector"):
        if kind in RANDOM and len(part) >= 3:
            ends = _new_draw(part["auc"].to_numpy())
            low, high, n = min(low, ends[0]), max(high, ends[1]), len(part)
    return Interval(0.0, low - 0.5, high - 0.5, n)


def _new_draw(aucs: NDArray[Any]) -> list[float]:
    """Where one more AUC falls with 95 % probability: the t prediction interval of the probits.

    The probit of an AUC is normal for random directions over two groups of normal scores, and unbounded, where a range
    for any law (`control_range`) would reach 0 and 1, so that nothing could pass it.
    """
    probits = stats.norm.ppf(aucs.clip(1e-4, 1 - 1e-4))
    n = len(probits)
    half = stats.t.ppf(0.975, n - 1) * probits.std(ddof=1) * np.sqrt(1 + 1 / n)
    return stats.norm.cdf([probits.mean() - half, probits.mean() + half]).tolist()


def judge_classes(frame: pd.DataFrame, *, margin: float) -> Verdict:
    """Whether process words and structure symbols, together, gain log-odds: more than with control vectors."""
    claim = "promotes-process-words"
    rows: Any = frame[(frame["part"] == "class-examples") & (frame["token_class"] == UNION_NAME)]
    rows = rows[rows["quantity"] == "propagated"]
    drawn = rows[rows["vector"] != "trained"]
    own = rows[(rows["vector"] == "trained") & rows["layer"].isin(set(drawn["layer"]))]
    means = drawn.groupby(["vector", "draw"])["log_odds"].mean()
    control = control_interval({str(kind): list(part) for kind, part in means.groupby(level="vector")})
    if own.empty or control is None:
        reason = "there are no control draws to compare with"
        return verdict(None, margin=margin, testable=reason, claim=claim, unit="nats")
    effect = bootstrap(own["log_odds"].to_numpy(), own["example"].to_numpy(), bounds=UNBOUNDED)
    return verdict(effect, control, margin, testable=too_few(effect.n), claim=claim, unit="nats")
