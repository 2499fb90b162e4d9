"""Accuracy with the vector of one block on, over blocks (arXiv:2509.06608 Figs 1, 9-11).

Columns read: part "curve" (layer, accuracy, band_low, band_high, q, temperature), part "summary" (vector, draw, layer,
seed, temperature, accuracy with its interval, boxed, ended, right_if_boxed, length, entropy), part "chosen" (layer).
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.curve import Line, traces
from figures.record import Record, count, drop, keep, numbers, part
from figures.style import BASE, CONTRAST, STEERED, Reference, dress, references
from figures.sweeps import NOT_RANDOM, beside_panels, control_marks, named_axis, reference_panel


def build(run: Record) -> go.Figure:
    """Draw accuracy over blocks with a band that covers all of them at once, control draws, and references."""
    curves, summary = part(run, "curve"), part(run, "summary")
    layers = sorted({int(layer) for layer in curves["layer"]})
    figure = make_subplots(rows=1, cols=2, column_widths=[0.74, 0.26], shared_yaxes=True, horizontal_spacing=0.03)
    most = max(numbers(curves, "temperature"))
    at_most = keep(summary, "temperature", most)
    drawn = drop(at_most, "vector", *NOT_RANDOM)
    for trace in control_marks(drawn, "layer", "accuracy", 100.0, layers, legend=True):
        figure.add_trace(trace, row=1, col=1)
    temperatures = sorted(set(numbers(curves, "temperature")), reverse=True)
    for temperature, colour in zip(temperatures, (STEERED, CONTRAST, BASE), strict=False):
        own, rows = (keep(frame, "temperature", temperature) for frame in (curves, summary))
        for trace in traces([_line(own, rows, layers, temperature, colour)], ()):
            figure.add_trace(trace, row=1, col=1)
        figure.add_trace(_marked(own, layers, colour), row=1, col=1)
    references(figure, [Reference(label, value) for label, value in _lines(at_most)])
    reference_panel(figure, pd.concat([at_most, keep(summary, "vector", "matched-entropy")]), 2)
    named_axis(figure, layers, 1)
    figure.update_xaxes(title_text=f"block whose vector is on{_caveat(run)}", row=1, col=1)
    figure.update_yaxes(title_text="accuracy (%)", rangemode="tozero", row=1, col=1)
    title = "Accuracy with the vector of one block"
    return dress(figure, run.meta, title, n=count(curves), height=520, legend=True)


def build_beside(run: Record) -> go.Figure:
    """Draw what stands beside the accuracies: boxed, ended, right among boxed, length, entropy."""
    summary = part(run, "summary")
    rows = keep(summary, "temperature", max(numbers(part(run, "curve"), "temperature")))
    layers = sorted({int(layer) for layer in keep(rows, "vector", "trained")["layer"]})
    figure = beside_panels(rows, "layer", "block", layers)
    title = "Beside the accuracy, by block (dashed: base)"
    return dress(figure, run.meta, title, n=count(rows), height=410, gap=20, legend=True)


def _line(curve: pd.DataFrame, rows: pd.DataFrame, layers: list[int], temperature: float, colour: str) -> Line:
    sampling = "greedy" if temperature == 0 else f"T = {temperature:g}"
    curve = curve.sort_values("layer")
    y, low, high = ([100 * value for value in numbers(curve, name)] for name in ("accuracy", "band_low", "band_high"))
    return Line(
        f"trained vector, {sampling}, band over all blocks",
        [float(layers.index(int(layer))) for layer in curve["layer"]],
        y,
        low,
        high,
        _seeds(rows, layers),
        colour,
    )


def _seeds(rows: pd.DataFrame, layers: list[int]) -> list[tuple[float, float]]:
    """Return the points of single seeds, where there are several."""
    own = keep(rows, "vector", "trained")
    if len(set(numbers(own, "seed"))) < 2:
        return []
    return [
        (float(layers.index(int(layer))), 100 * value)
        for layer, value in zip(own["layer"], numbers(own, "accuracy"), strict=True)
        if int(layer) in layers
    ]


def _marked(curve: pd.DataFrame, layers: list[int], colour: str) -> go.Scatter:
    """Return rings around the blocks that differ from random draws after adjustment over blocks."""
    own = keep(curve.assign(sure=[q < 0.05 for q in numbers(curve, "q")]), "sure", True)
    return go.Scatter(
        x=[float(layers.index(int(layer))) for layer in own["layer"]],
        y=[100 * value for value in numbers(own, "accuracy")],
        mode="markers",
        name="q < 0.05 against random draws",
        marker={"size": 15, "color": "rgba(0,0,0,0)", "line": {"color": colour, "width": 2}},
        hoverinfo="skip",
    )


def _lines(rows: pd.DataFrame) -> list[tuple[str, float]]:
    named = (("base", "base"), ("all-layer", "vectors of all layers"))
    return [
        (label, 100 * numbers(own, "accuracy")[0]) for name, label in named if len(own := keep(rows, "vector", name))
    ]


def _caveat(run: Record) -> str:
    card = (run.meta.get("vectors") or {}).get("card") or {}
    return " (trained together, each shown alone)" if card.get("trained") == "together" else ""
