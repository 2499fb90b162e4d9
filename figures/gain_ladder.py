"""The gain ladder: accuracy from the base through simpler explanations to trained vectors and adapters.

Columns read: part "summary": vector (the rung), seed, detail, draw, temperature, accuracy with its interval, n.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from figures.bars import Row, row_traces
from figures.record import Record, count, first, keep, numbers, part
from figures.style import dress, plain

RUNGS = {
    "base": "base",
    "matched-entropy": "base, as sharp as the steered model",
    "1-shot": "base, 1 worked example",
    "3-shot": "base, 3 worked examples",
    "5-shot": "base, 5 worked examples",
    "prefix": "base, the promoted token written first",
    "first-position": "last vector, first position only",
    "random-isotropic": "random directions, mean of draws",
    "random-reward": "vectors, random reward",
    "format-reward": "vectors, reward for format",
    "one-layer": "best vector of one layer",
    "trained": "vectors under study",
    "lora-r1": "LoRA, rank 1",
    "lora-r4": "LoRA, rank 4",
    "full": "all weights",
}
"""Rung -> label, from the simplest explanation to the most trained."""


def build(run: Record) -> go.Figure:
    """Draw a row a rung: accuracy with its interval over problems, ticks for seeds and draws, the base dashed."""
    summary = part(run, "summary")
    sampled = max(numbers(keep(summary, "vector", "trained"), "temperature"))
    sharp = keep(summary, "vector", "matched-entropy")
    rows = pd.concat([keep(summary, "temperature", sampled), sharp]).drop_duplicates()
    drawn = [_row(keep(rows, "vector", name), label) for name, label in RUNGS.items() if name in set(rows["vector"])]
    figure = go.Figure()
    for trace in row_traces(
        drawn, label="accuracy, 95 % interval over problems", control="one seed or one draw", unit="%", legend=True
    ):
        figure.add_trace(trace)
    figure.add_vline(x=drawn[0].value)  # pyright: ignore[reportArgumentType]
    figure.update_yaxes(
        tickvals=list(range(len(drawn))), ticktext=[row.label for row in drawn], range=[len(drawn) - 0.5, -0.5]
    )
    how = "greedy" if sampled == 0 else f"T = {sampled:g}"
    figure.update_xaxes(title_text=f"accuracy (%), {how}", rangemode="tozero")
    title = "The gain ladder: what simpler explanations reach"
    return dress(figure, run.meta, title, n=count(rows), height=230 + 27 * len(drawn), legend=True)


def _row(rows: pd.DataFrame, label: str) -> Row:
    """The first seed's accuracy; of random directions the mean, without an interval over problems."""
    if "seed" in rows.columns:
        rows = rows.assign(seed=rows["seed"].fillna(0)).sort_values(["seed", "draw"])
    values, low, high = (
        [100 * x for x in numbers(rows, name)] for name in ("accuracy", "accuracy_low", "accuracy_high")
    )
    detail = first(rows, "detail")
    text = label if detail is None or detail != detail else f"{label} ({detail})"
    if first(rows, "vector") == "random-isotropic":
        return Row(plain(text), sum(values) / len(values), controls=values)
    return Row(plain(text), values[0], low[0], high[0], controls=values if len(values) > 1 else ())
