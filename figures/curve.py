"""Curves over layers: intervals, control bands, seeds as dots, references as dashed lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from figures.style import BASE, STEERED, Reference, plain, references


@dataclass(frozen=True)
class Line:
    """One measured curve.

    Args:
        label: its name in the legend.
        x: layers (0 = first block).
        y: values.
        low: lower ends of its band, or empty.
        high: upper ends of its band, or empty.
        dots: (x, y) of single seeds or draws.
        colour: of line, band and dots.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dots: Sequence[tuple[float, float]] = ()
    colour: str = STEERED


@dataclass(frozen=True)
class Band:
    """The range of controls over layers.

    Args:
        label: its name in the legend, with the number of draws.
        x: layers.
        low: lower ends.
        high: upper ends.
        colour: of its area.
    """

    label: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    colour: str = BASE


def draw_curve(
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    bands: Sequence[Band] = (),
    lines_at: Sequence[Reference] = (),
) -> go.Figure:
    """Draw curves with simultaneous bands over the range of controls.

    Args:
        lines: each with its own band and dots.
        x_title: of the horizontal axis.
        y_title: of the vertical axis, with the unit.
        bands: control ranges, drawn below everything in grey.
        lines_at: dashed horizontal references.
    """
    figure = go.Figure()
    for trace in traces(lines, bands):
        figure.add_trace(trace)
    references(figure, list(lines_at))
    figure.update_xaxes(title_text=plain(x_title))
    figure.update_yaxes(title_text=plain(y_title))
    return figure


def traces(lines: Sequence[Line], bands: Sequence[Band], *, legend: bool = True) -> list[go.Scatter]:
    """Return the traces of a panel: control bands first, then bands, lines and dots."""
    drawn = [_band(band.label, band.x, band.low, band.high, band.colour, legend) for band in bands]
    for line in lines:
        if len(line.low):
            drawn.append(_band(f"{line.label}, 95 % band", line.x, line.low, line.high, line.colour, legend=False))
        drawn.append(_line(line, legend))
        if len(line.dots):
            drawn.append(_dots(line))
    return drawn


def _line(line: Line, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=list(line.x),
        y=list(line.y),
        name=plain(line.label),
        legendgroup=plain(line.label),
        showlegend=legend,
        mode="lines+markers",
        line={"color": line.colour, "width": 2},
        marker={"color": line.colour, "size": 6},
        hovertemplate="layer %{x}<br>%{y:.4g}<extra>" + plain(line.label) + "</extra>",
    )


def _dots(line: Line) -> go.Scatter:
    return go.Scatter(
        x=[x for x, _ in line.dots],
        y=[y for _, y in line.dots],
        name=plain(f"{line.label}, single seeds"),
        legendgroup=plain(line.label),
        showlegend=False,
        mode="markers",
        marker={"color": "rgba(0,0,0,0)", "size": 6, "line": {"color": line.colour, "width": 1.2}},
        hovertemplate="layer %{x}<br>%{y:.4g}<extra>one seed</extra>",
    )


def _band(
    label: str, x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str, legend: bool
) -> go.Scatter:
    ends = [(at, *pair) for at, *pair in zip(x, low, high, strict=True) if all(map(math.isfinite, pair))]
    return go.Scatter(
        x=[at for at, _, _ in [*ends, *reversed(ends)]],
        y=[*(top for _, _, top in ends), *(bottom for _, bottom, _ in reversed(ends))],
        name=plain(label),
        showlegend=legend,
        mode="lines",
        # a band of one layer has no area
        line={"width": 6 if len(ends) == 1 else 0, "color": translucent(colour, 0.4)},
        fill="toself",
        fillcolor=translucent(colour, 0.22),
        hoverinfo="skip",
    )


def translucent(colour: str, opacity: float) -> str:
    """Return a `#rrggbb` colour as rgba; the grid stays visible through a band."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
