"""Figures of the comparison with full tuning: accuracy and difference by kind of set, and whether they do the same.

Columns read (a tidy frame, `part` names the grain):

- part "accuracy": kind, temperature, accuracy, accuracy_low, accuracy_high, difference (to full), its ends, n, seeds.
- part "seeds": kind, seed, temperature, accuracy, source, rollouts.
- part "change": kind, seed, cosine, cosine_low, cosine_high, kl, kl_low, kl_high, n.
- part "overlap": kind, seed, temperature, jaccard, expected, expected_low, expected_high, n.
- part "missing": kind, reason.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.bars import Row, row_traces
from figures.record import Record, count, drop, first, keep, numbers
from figures.style import dress, plain

_NAMES = {
    "base": "base",
    "all-layer": "vectors, all layers",
    "lora-r1": "LoRA, rank 1",
    "lora-r4": "LoRA, rank 4",
    "full": "all weights",
}
_MARGIN = 5.0


def build(run: Record) -> go.Figure:
    """Draw accuracy by kind of set, seeds as dots, and the difference to full tuning with the margin of 5 points."""
    frame = drop(run.frame, "part", "answers")
    at = float(pd.Series(frame["temperature"]).max())
    frame = keep(frame, "temperature", at)
    rows, seeds = keep(frame, "part", "accuracy"), keep(frame, "part", "seeds")
    missing = keep(frame, "part", "missing")
    kinds = [kind for kind in _NAMES if kind in {*rows["kind"], *missing["kind"]}]
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06, column_widths=[0.55, 0.45])
    for column, name in ((1, "accuracy"), (2, "difference")):
        drawn = [
            _row(keep(rows, "kind", kind), kind, name, _dots(seeds, kind) if column == 1 else ()) for kind in kinds
        ]
        traces = row_traces(
            drawn, label="mean over seeds, 95 % interval", control="one training seed", unit="%", legend=column == 1
        )
        for trace in traces:
            figure.add_trace(trace, row=1, col=column)
    for value in (0.0, -_MARGIN):
        figure.add_vline(x=value, row=1, col=2)  # pyright: ignore[reportArgumentType]
    _write_missing(figure, kinds, missing)
    labels = [_label(kind, seeds) for kind in kinds]
    figure.update_yaxes(tickvals=list(range(len(kinds))), ticktext=labels, range=[len(kinds) - 0.5, -0.5])
    figure.update_xaxes(title_text="accuracy (%)", col=1)
    figure.update_xaxes(title_text="points over all weights; dashed: 0 and \u22125", col=2)
    title = f"Small trained sets against all weights, {'greedy' if at == 0 else f'T = {at:g}'}"
    return dress(figure, run.meta, title, n=count(rows), height=200 + 52 * len(kinds), legend=True)


def build_mechanism(run: Record) -> go.Figure:
    """Draw KL(full || set) per token, the cosine of the mean changes, and the overlap of flipped problems."""
    change, overlap = keep(run.frame, "part", "change"), keep(run.frame, "part", "overlap")
    overlap = keep(overlap, "temperature", max(numbers(overlap, "temperature"), default=math.nan))
    kinds = [kind for kind in _NAMES if kind in {*change["kind"], *overlap["kind"]}]
    figure = make_subplots(rows=1, cols=3, shared_yaxes=True, horizontal_spacing=0.05)
    random = numbers(keep(change, "kind", "random"), "cosine")
    panels = (
        ("KL(all weights || set), nats per token", [_first(change, kind, "kl") for kind in kinds]),
        ("cosine of the mean changes", [_first(change, kind, "cosine", random) for kind in kinds]),
        ("Jaccard overlap of flipped problems", [_overlap(overlap, kind) for kind in kinds]),
    )
    for column, (title, rows) in enumerate(panels, start=1):
        control = "random vectors; range of permuted flips"
        for trace in row_traces(rows, label="set, 95 % interval", control=control, unit=title, legend=column == 2):
            figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(title_text=plain(title), rangemode="tozero", row=1, col=column)
    if not len(change):
        _write_reason(figure, keep(run.frame, "part", "missing"))
    labels = [plain(_NAMES[kind]) for kind in kinds]
    figure.update_yaxes(tickvals=list(range(len(kinds))), ticktext=labels, range=[len(kinds) - 0.5, -0.5])
    title = "Do small sets do what full tuning does?"
    return dress(figure, run.meta, title, n=count(change), unit="texts", height=220 + 52 * len(kinds), legend=True)


def _row(rows: pd.DataFrame, kind: str, name: str, dots: list[float] | tuple[()]) -> Row:
    values = [numbers(rows, f"{name}{end}") for end in ("", "_low", "_high")]
    value, low, high = (100 * one[0] if one else math.nan for one in values)
    return Row(_NAMES[kind], value, low, high, controls=dots)


def _dots(seeds: pd.DataFrame, kind: str) -> list[float]:
    own = keep(seeds, "kind", kind)
    return [100 * value for value in numbers(own, "accuracy")] if len(own) > 1 else []


def _label(kind: str, seeds: pd.DataFrame) -> str:
    own = keep(seeds, "kind", kind)
    if not len(own):
        return plain(_NAMES[kind])
    count_ = f", {len(own)} seeds" if len(own) > 1 else ""
    return f"{plain(_NAMES[kind])}<br><sup>n = {count(own)}, {plain(first(own, 'source'))}{count_}</sup>"


def _write_missing(figure: go.Figure, kinds: list[str], missing: pd.DataFrame) -> None:
    for kind, reason in zip(missing["kind"], missing["reason"], strict=True):
        place = {"x": 0.02, "xref": "x domain", "y": kinds.index(str(kind)), "yref": "y", "xanchor": "left"}
        figure.add_annotation(text=plain(reason), font={"size": 11}, name="missing", **place)


def _write_reason(figure: go.Figure, missing: pd.DataFrame) -> None:
    """Say why there is nothing to draw."""
    reason = plain(first(keep(missing, "kind", "full"), "reason") or "")
    figure.add_annotation(text=reason, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 14}, name="missing")


def _first(rows: pd.DataFrame, kind: str, name: str, controls: list[float] | None = None) -> Row:
    own = keep(rows, "kind", kind)
    values = [numbers(own, f"{name}{end}") for end in ("", "_low", "_high")]
    value, low, high = (one[0] if one else math.nan for one in values)
    return Row(_NAMES[kind], value, low, high, controls=controls or ())


def _overlap(rows: pd.DataFrame, kind: str) -> Row:
    own = keep(rows, "kind", kind)
    value = numbers(own, "jaccard")
    ends = [*numbers(own, "expected_low")[:1], *numbers(own, "expected_high")[:1]]
    return Row(_NAMES[kind], value[0] if value else math.nan, controls=ends)
