"""Bars with intervals, and rows of points with intervals; single draws as dots, references as dashed lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from figures.curve import translucent
from figures.style import BASE, STEERED, Reference, plain, references


@dataclass(frozen=True)
class Bar:
    """One estimate with its interval.

    Args:
        label: below the bar.
        value: in the unit of the axis; NaN draws no bar.
        low: lower end of the 95 % interval, or NaN.
        high: upper end, or NaN.
        n: units behind the estimate, written under the label, or None.
        colour: of the bar.
        dots: single seeds or draws.
    """

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int | None = None
    colour: str = STEERED
    dots: Sequence[float] = ()


@dataclass(frozen=True)
class Row:
    """Estimates that share one horizontal row: the vector under study and its controls.

    Args:
        label: left of the row.
        value: the estimate of the vector under study.
        low: lower end of its 95 % interval, or NaN.
        high: upper end, or NaN.
        controls: the same statistic of each control draw.
    """

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    controls: Sequence[float] = ()


def draw_bars(
    rows: Sequence[Bar],
    *,
    x_title: str,
    y_title: str,
    lines_at: Sequence[Reference] = (),
    digits: int = 1,
    dots: str = "one random vector",
) -> go.Figure:
    """Draw vertical bars from zero, with intervals and the value written above each.

    Args:
        rows: the bars, left to right.
        x_title: of the horizontal axis.
        y_title: of the vertical axis, with the unit.
        lines_at: dashed horizontal references.
        digits: decimals of the written values.
        dots: what a dot is, for the legend.
    """
    figure = go.Figure()
    figure.add_trace(
        go.Bar(
            x=list(range(len(rows))),
            y=[row.value for row in rows],
            marker={"color": [translucent(row.colour, 0.82) for row in rows], "line": {"width": 0}},
            error_y=_whiskers([(row.value, row.low, row.high) for row in rows]),
            width=0.58,
            hovertemplate="%{y:.4g}<extra></extra>",
            showlegend=False,
        )
    )
    for index, row in enumerate(rows):
        _write_value(figure, index, row, digits)
    _add_dots(figure, rows, dots)
    labels = [plain(row.label) + (f"<br>n = {row.n}" if row.n is not None else "") for row in rows]
    figure.update_xaxes(title_text=plain(x_title), tickvals=list(range(len(rows))), ticktext=labels, showgrid=False)
    figure.update_yaxes(title_text=plain(y_title), rangemode="tozero")
    references(figure, list(lines_at))
    # the labels of references stand right of the last bar
    figure.update_xaxes(range=[-0.5, len(rows) - 0.5 + (0.6 if lines_at else 0.0)])
    return figure


def row_traces(rows: Sequence[Row], *, label: str, control: str, unit: str, legend: bool) -> list[go.Scatter]:
    """Return the traces of a panel of rows, first row at y = 0: control draws in grey, then estimates with intervals.

    Args:
        rows: top to bottom.
        label: of the vector under study in the legend.
        control: of the control draws in the legend.
        unit: in the tooltip.
        legend: whether this panel's traces stand in the legend.
    """
    spots = [(value, float(at)) for at, row in enumerate(rows) for value in row.controls]
    traces: list[go.Scatter] = []
    if spots:
        traces.append(
            go.Scatter(
                x=[value for value, _ in spots],
                y=[at for _, at in spots],
                mode="markers",
                name=plain(control),
                legendgroup="controls",
                showlegend=legend,
                marker={"color": translucent(BASE, 0.6), "size": 6, "symbol": "line-ns", "line": _tick(BASE)},
                hovertemplate=f"%{{x:.4g}} {plain(unit)}<extra>{plain(control)}</extra>",
            )
        )
    traces.append(
        go.Scatter(
            x=[row.value for row in rows],
            y=[float(at) for at in range(len(rows))],
            mode="markers",
            name=plain(label),
            legendgroup="trained",
            showlegend=legend,
            marker={"color": STEERED, "size": 9},
            error_x=_whiskers([(row.value, row.low, row.high) for row in rows], STEERED),
            hovertemplate=f"%{{x:.4g}} {plain(unit)}<extra>{plain(label)}</extra>",
        )
    )
    return traces


def _tick(colour: str) -> dict[str, object]:
    return {"color": colour, "width": 1.5}


def _whiskers(triples: Sequence[tuple[float, float, float]], colour: str | None = None) -> dict[str, object]:
    # error bars take distances from the estimate; a missing interval is drawn as none
    up = [_gap(high - value) for value, _, high in triples]
    down = [_gap(value - low) for value, low, _ in triples]
    bars: dict[str, object] = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    return bars | {"thickness": 1.6, "width": 5} | ({"color": colour} if colour else {})


def _gap(distance: float) -> float:
    return max(0.0, float(distance)) if math.isfinite(distance) else 0.0


def _write_value(figure: go.Figure, index: int, row: Bar, digits: int) -> None:
    if not math.isfinite(row.value):
        return
    above = [row.value, row.high, 0.0, *row.dots]
    figure.add_annotation(
        x=index,
        y=max(value for value in above if math.isfinite(value)),
        yanchor="bottom",
        yshift=4,
        text=f"{row.value:.{digits}f}",
        font={"size": 12},
        showarrow=False,
        name="value",
    )


def _add_dots(figure: go.Figure, rows: Sequence[Bar], label: str) -> None:
    spots: list[tuple[float, float]] = []
    for index, row in enumerate(rows):
        # a fixed fan, so that the same numbers always give the same picture
        last = max(1, len(row.dots) - 1)
        fan = [0.3 * (at / last - 0.5) if len(row.dots) > 1 else 0.0 for at in range(len(row.dots))]
        spots += [(index + offset, value) for offset, value in zip(fan, row.dots, strict=True)]
    if not spots:
        return
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in spots],
            y=[y for _, y in spots],
            mode="markers",
            name=plain(label),
            marker={"color": "#ffffff", "size": 6, "line": {"color": "#5b6066", "width": 1.2}},
            hovertemplate="%{y:.4g}<extra>one draw</extra>",
        )
    )
