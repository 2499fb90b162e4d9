"""Figures of persistence: what becomes of a vector's effect in later blocks, beside random vectors.

Columns read (a tidy frame, `part` names the grain, columns that do not apply are empty): text ("base" | "steered"),
stratum ("generated" | "prompt"), vector ("trained", else a kind of control), draw, statistic, value, low, high, n.

- part "pairs": layer (steered block, 0 = first), observed (later block); for the vector under study also random (mean
  of the random vectors), random_low, random_high, above, above_low, above_high.
- part "final": layer and observed are i < j of cos(D_i, D_j), D = mean change after the last block.
- part "final-mean": its mean over blocks that have random vectors.

All are cosines in [-1, 1] but the gain, a ratio of norms.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.bars import row_traces
from figures.controls import control_label, estimate_row
from figures.curve import Band, Line, traces
from figures.heatmap import draw_heatmap
from figures.record import Record, count, drop, first, keep, numbers, part
from figures.style import dress

_NAMES = {
    "self": "Self = cos(\u0394, s<sub>l</sub>)",
    "induced": "Induced = agreement of \u0394 \u2212 s<sub>l</sub>",
    "diff_diff_out": "agreement of \u0394 between tokens",
    "diff_vector": "Diff-Vector = mean cos(\u0394, s<sub>k</sub>)",
    "diff_diff": "Diff-Diff = mean cos(\u0394, mean \u0394)",
    "mean_diff": "Mean-Diff = cos(mean \u0394, s<sub>k</sub>)",
}
_DECIDING = {"self": "Self", "induced": "Induced", "diff_vector": "Diff-Vector"}
_OBSERVED, _STEERED = "observed block k", "steered block l"


def build(run: Record) -> go.Figure:
    """Draw Self, Induced and Diff-Vector of each pair of blocks, and what each has above random vectors."""
    names = _read(run, _DECIDING)
    panels = [(name, column) for column in ("value", "above") for name in names]
    titles = [_NAMES[name] + (",<br>minus random vectors" if column == "above" else "") for name, column in panels]
    title = "Does a vector's change keep its direction? Generated tokens"
    return _matrices(run, panels, titles, columns=len(names), title=title)


def build_paper(run: Record) -> go.Figure:
    """Draw the paper's three matrices; random vectors have nearly the same (see `build`)."""
    names = _read(run, ("diff_vector", "diff_diff", "mean_diff"))
    panels, titles = [(name, "value") for name in names], [_NAMES[name] for name in names]
    return _matrices(run, panels, titles, columns=len(names), title="The paper's matrices, without controls")


def build_controls(run: Record) -> go.Figure:
    """Draw the deciding statistics over later blocks with intervals, against the range of random vectors."""
    rows = keep(_rows(run, "pairs"), "vector", "trained")
    beside = rows.dropna(subset=["random"]) if "random" in rows.columns else rows.head(0)
    layers = sorted({int(layer) for layer in numbers(beside if len(beside) else rows, "layer")})
    titles, names = [f"steered block {layer}" for layer in layers], _read(run, _DECIDING)
    figure = make_subplots(
        rows=len(names),
        cols=len(layers),
        subplot_titles=titles,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=0.06,
    )
    for line, name in enumerate(names, start=1):
        for column, layer in enumerate(layers, start=1):
            mine = keep(keep(rows, "statistic", name), "layer", layer).sort_values("observed")
            for trace in _beside(mine, legend=line == column == 1):
                figure.add_trace(trace, row=line, col=column)
            figure.add_hline(y=0, row=line, col=column)  # pyright: ignore[reportArgumentType]
        figure.update_yaxes(title_text=f"{_DECIDING[name]} (cosine)", row=line, col=1)
    figure.update_xaxes(title_text=_OBSERVED, row=len(names))
    figure.update_annotations(font={"size": 12.5})
    n = count(beside, "above_n") or count(rows)
    title = "The change in later blocks beside that of random vectors, by steered block"
    return dress(figure, run.meta, title, n=n, height=192 + 176 * len(names), gap=26, legend=True)


def build_final(run: Record) -> go.Figure:
    """Draw cos(D_i, D_j) of the effects after the last block: the vectors, random vectors, and the means of both."""
    rows = _rows(run, "final")
    trained, drawn = keep(rows, "vector", "trained"), drop(rows, "vector", "trained", "negated", "other-block")
    blocks = sorted({int(one) for name in ("layer", "observed") for one in numbers(trained, name)})
    figure = make_subplots(
        rows=1,
        cols=3,
        subplot_titles=["the vectors", "mean of random vectors", "mean over blocks with controls"],
        horizontal_spacing=0.07,
    )
    for column, part_of in enumerate((trained, drawn), start=1):
        panel = _heatmap(_table(part_of, "value", blocks, blocks), blocks, blocks, "block j", "block i")
        _place(figure, panel, row=1, column=column)
    summary = _rows(run, "final-mean") if "final-mean" in set(run.frame["part"]) else rows.head(0)
    if len(summary):
        summary = drop(summary, "vector", "negated", "other-block")
        one = estimate_row(summary.rename(columns={"low": "value_low", "high": "value_high"}), "", "value")
        label = control_label(summary)
        for trace in row_traces([one], label="vectors, 95 % interval", control=label, unit="cosine", legend=True):
            figure.add_trace(trace, row=1, col=3)
    figure.update_xaxes(title_text="mean cos(D<sub>i</sub>, D<sub>j</sub>)", col=3)
    figure.update_yaxes(tickvals=[], range=[0.5, -0.5], col=3)
    figure.update_annotations(font={"size": 12.5})
    title = "Do vectors of different blocks have one effect after the last block?"
    return dress(figure, run.meta, title, n=count(trained), height=470, gap=26, legend=bool(len(summary)))


def _rows(run: Record, name: str) -> pd.DataFrame:
    """Generated tokens of the first text."""
    rows = part(run, name)
    return keep(keep(rows, "text", first(rows, "text")), "stratum", "generated")


def _read(run: Record, names: Iterable[str]) -> list[str]:
    """Those statistics that there are: without a vector at a later block nothing is compared with s_k."""
    found = set(_rows(run, "pairs")["statistic"])
    return [name for name in names if name in found]


def _matrices(run: Record, panels: list[tuple[str, str]], titles: list[str], *, columns: int, title: str) -> go.Figure:
    rows = keep(_rows(run, "pairs"), "vector", "trained")
    steered = sorted({int(layer) for layer in numbers(rows, "layer")})
    observed = sorted({int(layer) for layer in numbers(rows, "observed")})
    lines = len(panels) // columns
    figure = make_subplots(
        rows=lines,
        cols=columns,
        subplot_titles=titles,
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=0.22,
    )
    for index, (name, column) in enumerate(panels):
        table = _table(keep(rows, "statistic", name), column, steered, observed)
        panel = _heatmap(table, steered, observed, _OBSERVED, _STEERED)
        _place(figure, panel, row=index // columns + 1, column=index % columns + 1)
    for index in range(len(panels)):
        if index % columns:
            figure.update_yaxes(title_text="", row=index // columns + 1, col=index % columns + 1)
    figure.update_annotations(font={"size": 12.5})
    height = 190 + lines * (90 + 24 * max(5, len(steered)))
    return dress(figure, run.meta, title, n=count(rows), height=height, gap=26)


def _table(rows: pd.DataFrame, column: str, steered: list[int], observed: list[int]) -> np.ndarray:
    """Lay means over draws out as steered by observed blocks; NaN where there is none."""
    table = np.full((len(steered), len(observed)), np.nan)
    if column not in rows.columns:
        return table
    means: Any = rows.groupby(["layer", "observed"])[column].mean()
    for (layer, later), value in means.items():
        if layer in steered and later in observed:
            table[steered.index(int(layer)), observed.index(int(later))] = value
    return table


def _heatmap(table: np.ndarray, steered: list[int], observed: list[int], x_title: str, y_title: str) -> go.Figure:
    return draw_heatmap(
        table,
        x_labels=[str(layer) for layer in observed],
        y_labels=[str(layer) for layer in steered],
        x_title=x_title,
        y_title=y_title,
        unit="cosine",
        limit=1.0,
    )


def _place(figure: go.Figure, panel: go.Figure, *, row: int, column: int) -> None:
    """Put a heatmap with its axes into a grid; all share one colour axis, -1 to 1."""
    figure.add_trace(panel.data[0], row=row, col=column)
    labels = list(panel.layout.xaxis.ticktext)
    step = -(-len(labels) // 10)
    axis: dict[str, Any] = {"tickvals": list(range(0, len(labels), step)), "ticktext": labels[::step], "ticks": ""}
    figure.update_xaxes(title_text=panel.layout.xaxis.title.text, showgrid=False, row=row, col=column, **axis)
    axis = {name: panel.layout.yaxis[name] for name in ("tickvals", "ticktext", "showgrid", "ticks", "autorange")}
    figure.update_yaxes(title_text=panel.layout.yaxis.title.text, row=row, col=column, **axis)
    # white is 0, so cells without a pair are tinted
    figure.update_layout(coloraxis=panel.layout.coloraxis, plot_bgcolor="rgba(128,128,128,0.09)")


def _beside(rows: pd.DataFrame, *, legend: bool) -> list[go.Scatter]:
    observed = numbers(rows, "observed")
    bands: list[Band] = []
    low, high = numbers(rows, "random_low"), numbers(rows, "random_high")
    if any(value == value for value in low):
        bands = [Band("random vectors, lowest to highest mean of a draw", observed, low, high)]
    line = Line("vector, 95 % interval", observed, numbers(rows, "value"), numbers(rows, "low"), numbers(rows, "high"))
    return traces([line], bands, legend=legend)
