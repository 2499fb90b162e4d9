"""Panels that sweeps share: what stands beside every accuracy, and references with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.bars import Row, row_traces
from figures.curve import translucent
from figures.record import drop, keep, numbers
from figures.style import BASE, CONTRAST, STEERED, plain, written

BESIDE: tuple[tuple[str, str, float], ...] = (
    ("boxed", "answers in a box (%)", 100.0),
    ("ended", "ended by themselves (%)", 100.0),
    ("right_if_boxed", "right among boxed (%)", 100.0),
    ("length", "length (tokens)", 1.0),
    ("entropy", "entropy (nats a token)", 1.0),
)
"""Columns that stand beside every accuracy: name, panel title with unit, factor."""
REFERENCES = {
    "base": "base",
    "matched-entropy": "base, same entropy",
    "1-shot": "base, 1 example",
    "3-shot": "base, 3 examples",
    "5-shot": "base, 5 examples",
    "all-layer": "vectors of all layers",
    "random-reward": "random reward",
    "format-reward": "format reward",
}
"""What a sweep is compared with, as the figures call it."""
NOT_RANDOM = ("trained", *REFERENCES)


def beside_panels(rows: pd.DataFrame, x: str, x_title: str, positions: Sequence[object]) -> go.Figure:
    """Draw P(boxed), P(ended), P(right | boxed), length and entropy against a coordinate, the base dashed.

    Args:
        rows: part "summary" at one temperature.
        x: the coordinate's column.
        x_title: its axis title.
        positions: its values, left to right; they are spaced evenly.
    """
    titles = [title for _, title, _ in BESIDE]
    figure = make_subplots(rows=1, cols=len(BESIDE), subplot_titles=titles, horizontal_spacing=0.045)
    figure.update_annotations(font_size=12)
    for column, (name, _, factor) in enumerate(BESIDE, start=1):
        for trace in points(rows, x, name, factor, positions, legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        base = numbers(keep(rows, "vector", "base"), name)
        if base and base[0] == base[0]:
            figure.add_hline(y=factor * base[0], row=1, col=column)  # pyright: ignore[reportArgumentType]
        figure.update_yaxes(rangemode="tozero", row=1, col=column)
        figure.update_xaxes(title_text=x_title, row=1, col=column)
        named_axis(figure, positions, column)
    return figure


def points(
    rows: pd.DataFrame, x: str, name: str, factor: float, positions: Sequence[object], *, legend: bool
) -> list[go.Scatter]:
    """Return the vector's curve over a coordinate and every control draw as a grey mark."""
    trained, drawn = keep(rows, "vector", "trained"), drop(rows, "vector", *NOT_RANDOM)
    trained = trained.groupby(x, as_index=False, sort=False).first()
    curve = go.Scatter(
        x=_places(trained, x, positions),
        y=[factor * value for value in numbers(trained, name)],
        mode="lines+markers",
        name="trained vector",
        legendgroup="trained",
        showlegend=legend,
        line={"color": STEERED, "width": 2},
        marker={"size": 6},
        hovertemplate="%{y:.4g}<extra>trained vector</extra>",
    )
    return [*control_marks(drawn, x, name, factor, positions, legend=legend), curve]


def control_marks(
    drawn: pd.DataFrame, x: str, name: str, factor: float, positions: Sequence[object], *, legend: bool
) -> list[go.Scatter]:
    """Return the marks of each kind of control: grey for random draws, blue for -s and permuted coordinates.

    A ring is a mean over draws of which each problem met one.
    """
    found: list[go.Scatter] = []
    for kind in dict.fromkeys(str(kind) for kind in drawn["vector"]):
        own = keep(drawn, "vector", kind)
        random = kind.startswith("random")
        colour, symbol = (BASE, "circle") if random else (CONTRAST, "x-thin" if kind == "negated" else "diamond-open")
        own = own.assign(mixed=[draw < 0 for draw in numbers(own, "draw")])
        several = len(set(own["draw"])) > 1
        for rows, mark, told in (
            (keep(own, "mixed", False), symbol, ", one mark a draw" if several else ""),
            (keep(own, "mixed", True), "circle-open", ", one a problem"),
        ):
            if not len(rows):
                continue
            found.append(
                go.Scatter(
                    x=[at + 0.12 for at in _places(rows, x, positions)],
                    y=[factor * value for value in numbers(rows, name)],
                    mode="markers",
                    name=plain(kind.replace("-", " ", 1) + told),
                    legendgroup=kind + told,
                    showlegend=legend,
                    cliponaxis=False,
                    marker={
                        "color": translucent(colour, 0.55),
                        "size": 6,
                        "symbol": mark,
                        "line": {"color": colour, "width": 0 if random and mark == symbol else 1.6},
                    },
                    hovertemplate="%{y:.4g}<extra>" + plain(kind + told) + "</extra>",
                )
            )
    return found


def named_axis(figure: go.Figure, positions: Sequence[object], column: int) -> None:
    """Write the values of an evenly spaced coordinate below its axis."""
    figure.update_xaxes(
        tickvals=list(range(len(positions))),
        ticktext=[written(value) if isinstance(value, int | float) else plain(value) for value in positions],
        range=[-0.5, len(positions) - 0.5],
        row=1,
        col=column,
    )


def reference_panel(figure: go.Figure, rows: pd.DataFrame, column: int) -> None:
    """Draw the references' accuracies with intervals into a panel that shares the accuracy axis."""
    found = [(name, label) for name, label in REFERENCES.items() if name != "base" and name in set(rows["vector"])]
    for at, (name, label) in enumerate(found):
        own = keep(rows, "vector", name)
        low, value, high = (100 * numbers(own, end)[0] for end in ("accuracy_low", "accuracy", "accuracy_high"))
        figure.add_trace(
            go.Scatter(
                x=[at],
                y=[value],
                mode="markers",
                showlegend=False,
                marker={"color": BASE if name not in ("all-layer",) else CONTRAST, "size": 9},
                error_y={"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low]},
                hovertemplate="%{y:.4g} %<extra>" + plain(label) + "</extra>",
            ),
            row=1,
            col=column,
        )
    figure.update_xaxes(
        tickvals=list(range(len(found))),
        ticktext=[label for _, label in found],
        tickangle=-35,
        range=[-0.6, len(found) - 0.4],
        showgrid=False,
        row=1,
        col=column,
    )


def interval_rows(labels: Sequence[str], rows: pd.DataFrame, name: str, factor: float, unit: str) -> list[go.Scatter]:
    """Return rows of estimates with intervals, one a row of a frame."""
    ends = [[factor * value for value in numbers(rows, column)] for column in (name, f"{name}_low", f"{name}_high")]
    drawn = [Row(label, *three) for label, *three in zip(labels, *ends, strict=True)]
    return row_traces(drawn, label="95 % interval", control="controls", unit=unit, legend=False)


def _places(rows: pd.DataFrame, x: str, positions: Sequence[object]) -> list[float]:
    order = {value: float(at) for at, value in enumerate(positions)}
    return [order[value] for value in rows[x].tolist()]
