"""Accuracy, boxed and ended answers and KL at multiples of a vector, beside random vectors at the same ones.

Columns read: part "summary" (vector, draw, factor, temperature, accuracy and what stands beside it), part "kl"
(vector, factor, kl with its interval), part "chosen" (factor).
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.curve import translucent
from figures.record import Record, count, drop, keep, numbers, part
from figures.style import BASE, CONTRAST, INK, STEERED, dress, log_ticks
from figures.sweeps import NOT_RANDOM, beside_panels, named_axis, reference_panel


def build(run: Record) -> go.Figure:
    """Draw accuracy against the factor with intervals, the trained scale and the chosen one marked, and KL."""
    summary, kl = part(run, "summary"), part(run, "kl")
    most = max(numbers(part(run, "chosen"), "temperature"))
    rows = pd.concat([keep(summary, "temperature", most), keep(summary, "vector", "matched-entropy")])
    factors = sorted({float(factor) for factor in kl["factor"]})
    widths = [0.42, 0.2, 0.38]
    figure = make_subplots(rows=1, cols=3, column_widths=widths, horizontal_spacing=0.075)
    for trace in _curves(rows, factors, "accuracy", 100.0, "%", legend=True):
        figure.add_trace(trace, row=1, col=1)
    reference_panel(figure, rows, 2)
    figure.update_yaxes(matches="y", row=1, col=2)
    for trace in _curves(kl, factors, "kl", 1.0, "nats", legend=False):
        figure.add_trace(trace, row=1, col=3)
    base = numbers(keep(rows, "vector", "base"), "accuracy")
    for value in base[:1]:
        figure.add_hline(y=100 * value, row=1, col=1)  # pyright: ignore[reportArgumentType]
    chosen = numbers(keep(keep(part(run, "chosen"), "temperature", most), "vector", "trained"), "factor")
    for column in (1, 3):
        named_axis(figure, factors, column)
        figure.update_xaxes(title_text="factor (1 = trained scale)", row=1, col=column)
        _mark(figure, float(factors.index(1.0)), "trained", column)
    if chosen and chosen[0] != 1.0:
        _mark(figure, float(factors.index(chosen[0])), "best on other problems", 1)
    figure.update_yaxes(title_text="accuracy (%)", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="KL to the base (nats a token)", type="log", row=1, col=3)
    ends = [value for end in ("", "_low", "_high") for value in numbers(kl, "kl" + end)]
    figure.update_yaxes(log_ticks(ends), row=1, col=3)
    sampling = "greedy" if most == 0 else f"T = {most:g}"
    title = f"Accuracy and KL by the scale of the vector, {sampling} (dashed: base)"
    return dress(figure, run.meta, title, n=count(keep(rows, "vector", "trained")), height=500, gap=18, legend=True)


def build_beside(run: Record) -> go.Figure:
    """Draw boxed, ended, right among boxed, length and entropy against the factor."""
    summary = part(run, "summary")
    rows = keep(summary, "temperature", max(numbers(part(run, "chosen"), "temperature")))
    factors = sorted({float(factor) for factor in keep(rows, "vector", "trained")["factor"]})
    figure = beside_panels(rows, "factor", "factor", factors)
    return dress(figure, run.meta, "Beside the accuracy, by factor (dashed: base)", height=410, gap=20, legend=True)


def _curves(
    rows: pd.DataFrame, factors: list[float], name: str, scale: float, unit: str, *, legend: bool
) -> list[go.Scatter]:
    """Return the curves of the vector and of the mean random vector with intervals, and single random draws."""
    random = keep(drop(rows, "vector", *NOT_RANDOM), "vector", "random-isotropic")
    mixed = keep(random, "draw", -1)
    found = [_dots(drop(random, "draw", -1), factors, name, scale, unit, legend)]
    if len(mixed):
        found.append(_curve(mixed, factors, (name, scale, unit), "random vectors, one a problem", BASE, legend))
    trained = keep(rows, "vector", "trained")
    return [*found, _curve(trained, factors, (name, scale, unit), "trained vector", STEERED, legend)]


def _curve(
    rows: pd.DataFrame, factors: list[float], what: tuple[str, float, str], label: str, colour: str, legend: bool
) -> go.Scatter:
    name, scale, unit = what
    rows = rows.sort_values("factor")
    y, low, high = ([scale * v for v in numbers(rows, column)] for column in (name, f"{name}_low", f"{name}_high"))
    bars = {"type": "data", "symmetric": False, "thickness": 1.4, "width": 4, "color": colour}
    return go.Scatter(
        x=[float(factors.index(float(factor))) for factor in rows["factor"]],
        y=y,
        mode="lines+markers",
        name=label,
        legendgroup=label,
        showlegend=legend,
        line={"color": colour, "width": 2},
        marker={"size": 7},
        error_y=bars | {"array": _less(high, y), "arrayminus": _less(y, low)},
        hovertemplate=f"%{{y:.4g}} {unit}<extra>{label}</extra>",
    )


def _dots(rows: pd.DataFrame, factors: list[float], name: str, scale: float, unit: str, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=[factors.index(float(factor)) + 0.12 for factor in rows["factor"]],
        y=[scale * value for value in numbers(rows, name)],
        mode="markers",
        name="random vectors, one mark a draw",
        showlegend=legend,
        marker={"color": translucent(BASE, 0.6), "size": 6},
        hovertemplate=f"%{{y:.4g}} {unit}<extra>random vector</extra>",
    )


def _mark(figure: go.Figure, at: float, label: str, column: int) -> None:
    colour = INK if label == "trained" else CONTRAST
    line = {"color": colour, "width": 1.2, "dash": "dot"}
    figure.add_vline(x=at, line=line, row=1, col=column)  # pyright: ignore[reportArgumentType]
    axis = "" if column == 1 else str(column)
    place = {"xref": f"x{axis}", "yref": f"y{axis} domain", "yanchor": "bottom", "showarrow": False}
    figure.add_annotation(x=at, y=1, text=label, font={"size": 11}, **place)


def _less(left: list[float], right: list[float]) -> list[float]:
    return [max(0.0, one - other) for one, other in zip(left, right, strict=True)]
