"""What a finished run of path patching says: attention's share, attention rows, and the gain without attention."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.controls import RANDOM, control_interval, too_few
from experiments.graded import floor, gain_of
from interp.numbers import shown
from interp.summaries import FLOOR, Interval, Verdict, verdict

MARGIN_SHARE = 0.1
MARGIN_ROWS = 0.05
MARGIN_GAIN = 0.05
UNIT_SHARE = "share of the distance between steered and base"
UNIT_ROWS = "total variation of an attention row"
UNIT_GAIN = "share of problems"
MATCHED = "random-effect-matched"
NO_DRAWS = "there are too few control draws to compare with"
SMALLEST_KL = 1e-4
"""A vector whose mean effect is smaller does too little for its parts to be told from rounding."""


def judge_share(frame: pd.DataFrame) -> Verdict:
    """Whether attention's Shapley share is below that of random vectors, which enter the same block."""
    claim = "attention-carries-less-than-for-random-vectors"
    rows = _of(frame, part="paths", path="attention", statistic="shapley")
    own = rows[rows["vector"] == "trained"]
    if own.empty:
        reason = "the factorial was not run"
        return verdict(None, margin=MARGIN_SHARE, claim=claim, unit=UNIT_SHARE, testable=reason)
    one = own.iloc[0]
    share = _interval(one, "share")
    reason = too_few(share.n)
    if not float(one["whole"]) >= SMALLEST_KL:
        reason = f"the vector moves the next token by {shown(float(one['whole']), '.2g')} only"
    return _against(share, _drawn(rows, "share", RANDOM), MARGIN_SHARE, claim, UNIT_SHARE, reason)


def judge_rows(frame: pd.DataFrame) -> Verdict:
    """Whether attention rows move less than under random vectors of equal effect; the first key is left out."""
    claim = "attention-rows-move-less-than-under-random-vectors"
    rows = _of(frame, part="attention", head=-1, keys="later", stratum="completion")
    own = rows[rows["vector"] == "trained"] if len(rows) else rows
    if own.empty:
        reason = "attention rows were not read"
        return verdict(None, margin=MARGIN_ROWS, claim=claim, unit=UNIT_ROWS, testable=reason)
    moved = _interval(own.iloc[0], "attention_tv")
    control = _drawn(rows, "attention_tv", (MATCHED,))
    return _against(moved, control, MARGIN_ROWS, claim, UNIT_ROWS, too_few(moved.n))


def judge_gain(frame: pd.DataFrame) -> Verdict:
    """Whether the gain in accuracy is there without the block's attention seeing the vector."""
    claim = "gain-without-attention"
    rows = _of(frame, part="accuracy")
    if rows.empty:
        reason = "no completions were graded"
        return verdict(None, margin=MARGIN_GAIN, claim=claim, unit=UNIT_GAIN, testable=reason)
    rows = rows[rows["temperature"] == rows.loc[rows["vector"] == "trained", "temperature"].max()]
    trained = rows[rows["vector"] == "trained"].set_index("patch")
    if not {"steered", "skip-attn"} <= set(trained.index):
        reason = "skip-attn is not among the patches"
        return verdict(None, margin=MARGIN_GAIN, claim=claim, unit=UNIT_GAIN, testable=reason)
    whole, left = gain_of(trained.loc["steered"]), gain_of(trained.loc["skip-attn"])
    reason = too_few(left.n) or floor(trained.loc["steered"])
    if reason is None and not whole.low >= FLOOR:
        reason = f"the whole vector gains {whole.points()}, whose lower end is below {100 * FLOOR:.0f}"
    drawn = rows[rows["vector"].isin(RANDOM) & (rows["patch"] == "skip-attn")]
    control = gain_of(drawn.iloc[0]) if len(drawn) else None
    return verdict(left, control, MARGIN_GAIN, testable=reason, claim=claim, unit=UNIT_GAIN)


def _against(
    effect: Interval, control: Interval | None, margin: float, claim: str, unit: str, reason: str | None
) -> Verdict:
    """An effect minus the mean of random vectors, expected to be negative."""
    reason = reason or (None if control else NO_DRAWS)
    return verdict(effect, control, margin, expected=-1, relative=True, testable=reason, claim=claim, unit=unit)


def _drawn(rows: Any, column: str, kinds: tuple[str, ...]) -> Interval | None:
    drawn = rows[rows["vector"].isin(kinds)].dropna(subset=[column])
    return control_interval({str(kind): list(own[column]) for kind, own in drawn.groupby("vector")}, kinds)


def _of(frame: pd.DataFrame, **wanted: object) -> Any:
    """Rows that hold these values, on the base's texts where there are several."""
    rows: Any = frame
    for column, value in wanted.items():
        if column not in rows.columns:
            return rows.iloc[:0]
        rows = rows[rows[column] == value]
    if "text" in rows.columns and rows["text"].notna().any():
        known = set(rows["text"].dropna())
        rows = rows[rows["text"] == ("base" if "base" in known else min(known))]
    return rows


def _interval(row: Any, name: str) -> Interval:
    return Interval(float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"]), int(row["n"]))
