"""Accuracy with a vector at each place of a block (arXiv:2509.06608 App. C).

Columns read: part "summary" (vector, draw, place, temperature, accuracy with its interval), part "spread" (layer).
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from figures.bars import Bar, draw_bars
from figures.record import Record, count, keep, numbers, part
from figures.style import BASE, STEERED, Reference, dress

_PLACES = {
    "ln1_out": "after the<br>input norm",
    "attn_out": "after<br>attention",
    "ln2_out": "after the<br>second norm",
    "mlp_out": "after<br>the MLP",
}


def build(run: Record) -> go.Figure:
    """Draw a bar a place, random vectors at the same place beside it; a place without a vector stays empty."""
    summary, spread = part(run, "summary"), part(run, "spread")
    most = max(numbers(spread, "temperature"))
    rows = keep(summary, "temperature", most)
    bars: list[Bar] = []
    for place in _PLACES:
        own = keep(rows, "place", place)
        bars.append(_bar(keep(own, "vector", "trained"), place, STEERED))
        bars.append(_bar(keep(own, "vector", "random-isotropic"), "random", BASE))
    named = (("base", "base"), ("all-layer", "vectors of all layers"))
    found = [(label, numbers(keep(rows, "vector", name), "accuracy")) for name, label in named]
    lines = [Reference(label, 100 * values[0]) for label, values in found if values]
    x_title = (
        f"place in block {numbers(spread, 'layer')[0]:g} where the vector is added (grey: random vectors of its norm)"
    )
    figure = draw_bars(bars, x_title=x_title, y_title="accuracy (%)", lines_at=lines)
    labels = [text for place, name in _PLACES.items() for text in _labels(rows, place, name)]
    figure.update_xaxes(ticktext=labels)
    sampling = "greedy" if most == 0 else f"T = {most:g}"
    title = f"Accuracy by the place of the vector, {sampling}"
    return dress(figure, run.meta, title, n=count(keep(rows, "vector", "base")), height=480)


def _bar(rows: pd.DataFrame, label: str, colour: str) -> Bar:
    if not len(rows):
        return Bar(label, math.nan, colour=colour)
    # draws that meet all problems: their mean, and each one as a dot
    several = [100 * value for value in numbers(rows, "accuracy")]
    ends = [100 * numbers(rows, name)[0] for name in ("accuracy_low", "accuracy_high")]
    low, high = ends if len(several) == 1 else (math.nan, math.nan)
    mean = sum(several) / len(several)
    return Bar(label, mean, low, high, colour=colour, dots=several if len(several) > 1 else ())


def _labels(rows: pd.DataFrame, place: str, text: str) -> tuple[str, str]:
    return (text, "random") if len(keep(rows, "place", place)) else (f"{text}<br>(no vector)", "")
