"""Figures of the geometry of vectors: norms, cosines between blocks, cosines with other sets.

Columns read (a tidy frame, `part` names the grain, columns that do not apply are empty):

- part "norms": layer (0 = first block), norm, residual_norm (median of the stream), relative = their ratio.
- part "between": layer < other_layer, cosine.
- part "rank": vector ("trained", else a kind of random rows), matrix ("as given" | "unit rows"), stable_rank (1 to the
  number of rows), stable_rank_low, stable_rank_high (of random rows).
- part "against": set, relation, layer, cosine, isotropic_high (95 % of isotropic random |cos| are below),
  covariance_low, covariance_high (95 % of random directions with the stream's covariance).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.curve import Band, Line, traces
from figures.heatmap import draw_heatmap
from figures.record import Record, first, keep, numbers, part
from figures.style import CONTRAST, STEERED, dress, plain
from interp.numbers import shown

_COLOURS = (STEERED, CONTRAST, "#009E73", "#CC79A7", "#0072B2", "#b35806")
_ISOTROPIC = "#5b6066"
_RELATION = {
    "seed": "another seed",
    "apart-together": "trained apart / together",
    "mean-difference": "mean difference, right minus wrong",
    "probe": "probe, right against wrong",
}


def build(run: Record) -> go.Figure:
    """Draw each block's norm against the stream's, and the cosines between blocks."""
    rows = part(run, "norms").sort_values("layer")
    layers = [int(layer) for layer in numbers(rows, "layer")]
    titles = ["norm of the vector / median norm of the stream", _rank_title(run)]
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.12)
    line = Line("vector", layers, numbers(rows, "relative"))
    figure.add_trace(traces([line], [])[0], row=1, col=1)
    figure.update_xaxes(title_text="block", row=1, col=1)
    figure.update_yaxes(title_text="ratio of norms", rangemode="tozero", row=1, col=1)
    if "between" in set(run.frame["part"]):
        _add_cosines(figure, part(run, "between"), layers)
    figure.update_annotations(font={"size": 12.5})
    title = "Norms of the vectors, and cosines between blocks"
    return dress(figure, run.meta, title, n=len(layers), unit="blocks", height=480, gap=44).update_layout(
        showlegend=False
    )


def build_sets(run: Record) -> go.Figure:
    """Draw the cosine with each other set, block by block, against random directions."""
    rows = part(run, "against")
    names = list(dict.fromkeys(str(name) for name in rows["set"]))
    widest = max((keep(rows, "set", name) for name in names), key=len).sort_values("layer")
    layers = numbers(widest, "layer")
    high = numbers(widest, "isotropic_high")
    bands = [
        Band(
            "random directions with the stream\u2019s covariance, 95 %",
            layers,
            numbers(widest, "covariance_low"),
            numbers(widest, "covariance_high"),
        ),
        Band("isotropic random directions, 95 %", layers, [-value for value in high], high, _ISOTROPIC),
    ]
    lines = [_line(keep(rows, "set", name).sort_values("layer"), name, index) for index, name in enumerate(names)]
    figure = go.Figure(traces(lines, bands))
    # a penalised probe on few completions comes close to the mean difference, and would hide it
    figure.update_traces(line_dash="dot", marker_symbol="circle-open", selector={"name": _RELATION["probe"]})
    figure.add_hline(y=0)
    figure.update_xaxes(title_text="block")
    figure.update_yaxes(title_text="cosine of the two vectors of a block")
    title = "Do vectors found in other ways point the same way?"
    return dress(figure, run.meta, title, n=len(set(rows["layer"])), unit="blocks", height=500, legend=True)


def _line(rows: pd.DataFrame, name: str, index: int) -> Line:
    relation = str(first(rows, "relation"))
    label = _RELATION.get(relation, "another set")
    label = label if relation == name else f"{label} ({name.rpartition('/')[2]})"
    return Line(label, numbers(rows, "layer"), numbers(rows, "cosine"), colour=_COLOURS[index % len(_COLOURS)])


def _add_cosines(figure: go.Figure, rows: pd.DataFrame, layers: list[int]) -> None:
    table = np.full((len(layers), len(layers)), np.nan)
    for one, other, value in zip(*(numbers(rows, name) for name in ("layer", "other_layer", "cosine")), strict=True):
        table[layers.index(int(one)), layers.index(int(other))] = value
    labels = [str(layer) for layer in layers]
    about = {"x_title": "block j", "y_title": "block i", "unit": "cosine"}
    panel = draw_heatmap(table, x_labels=labels, y_labels=labels, limit=1.0, upper=True, **about)
    figure.add_trace(panel.data[0], row=1, col=2)
    step = math.ceil(len(labels) / 10)
    ticks: dict[str, Any] = {"tickvals": list(range(0, len(labels), step)), "ticktext": labels[::step]}
    figure.update_xaxes(title_text="block j", ticks="", showgrid=False, row=1, col=2, **ticks)
    figure.update_yaxes(title_text="block i", ticks="", showgrid=False, autorange="reversed", row=1, col=2, **ticks)
    figure.update_layout(coloraxis=panel.layout.coloraxis)


def _rank_title(run: Record) -> str:
    if "rank" not in set(run.frame["part"]):
        return ""
    rows = keep(part(run, "rank"), "matrix", "unit rows")
    said: list[str] = []
    for name, kind in (("vectors", "trained"), ("isotropic", "random-isotropic"), ("covariance", "random-covariance")):
        own = keep(rows, "vector", kind)
        ends = [numbers(own, f"stable_rank_{end}")[0] for end in ("low", "high")]
        ends_text = f" [{shown(ends[0], '.1f')}, {shown(ends[1], '.1f')}]" if ends[0] == ends[0] else ""
        said.append(f"{name} {shown(numbers(own, 'stable_rank')[0], '.1f')}{ends_text}")
    return f"stable rank of unit rows: {plain(said[0])};<br>random rows: {plain(', '.join(said[1:]))}"
