"""Figures of adaptive scaling: a rank-1 adapter's strength at each token, by kind of word, and what accuracy needs.

Columns read (a tidy frame, `part` names the grain; c is in units of the median norm of the MLP's output):

- part "tokens": layer, example, index (0 = the row's first token), token, segment, word, c, cosine.
- part "words": vector, draw, word, relative, relative_low, relative_high, n.
- part "contrast": vector, draw, contrast, contrast_low, contrast_high, n.
- part "causal": vector, draw, applied, temperature, accuracy, accuracy_low, accuracy_high, n.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from figures.bars import Bar, Row, draw_bars, row_traces
from figures.controls import control_label, estimate_row
from figures.record import Record, count, drop, first, keep, numbers, part
from figures.style import BASE, CONTRAST, STEERED, Reference, dress, plain, written
from figures.tokens import plot_label, tokens_html

UNIT = "c / median |MLP output|"
_WIDTH = 14
_SCATTERED = 3000
_SEGMENT_COLOURS = {"problem": STEERED, "generated": CONTRAST, "example": BASE, "system": "#c9c9c9"}
_MARKS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]


def build(run: Record) -> go.Figure:
    """Draw c of one problem, layers by tokens, over c against cos(MLP output, b) for the tokens of all problems."""
    rows = part(run, "tokens")
    shown = keep(rows, "example", first(rows, "example"))
    layers = sorted({int(layer) for layer in shown["layer"]})
    height = max(150, 90 + 22 * len(layers))  # the colour bar's title is as long
    figure = make_subplots(rows=2, cols=1, vertical_spacing=150 / (height + 470), row_heights=[height, 250])
    threshold = _threshold(rows)
    own = keep(shown, "layer", layers[0]).sort_values("index")
    labels = [plot_label(str(token), limit=12)[1:-1] for token in own["token"]]
    figure.add_trace(_image(shown, layers, threshold), row=1, col=1)
    figure.update_xaxes(
        tickvals=list(range(len(labels))), ticktext=labels, tickangle=-90, tickfont={"size": 8}, showgrid=False, row=1
    )
    figure.update_yaxes(tickvals=list(range(len(layers))), ticktext=[str(layer) for layer in layers], row=1)
    figure.update_yaxes(title_text="layer", showgrid=False, autorange="reversed", row=1)
    _write_segments(figure, own)
    _add_scatter(figure, rows, threshold)
    figure.update_layout(coloraxis=_colours(shown, threshold, height / (height + 320)))
    title = f"Strength of the adapter at the tokens of {first(rows, 'example')}, and the MLP's output"
    return dress(figure, run.meta, title, n=_problems(rows), height=height + 470, gap=20, legend=True)


def build_tokens(run: Record) -> go.Figure:
    """Draw the tokens of one problem as text on the colour of c, a new line for each segment."""
    rows = _main_layer(run)
    shown = keep(rows, "example", first(rows, "example")).sort_values("index")
    threshold = _threshold(rows)
    lines, labels = _lines(shown)
    values = np.full((len(lines), _WIDTH), math.nan)
    texts = np.full((len(lines), _WIDTH), "", dtype=object)
    raw = np.full((len(lines), _WIDTH), math.nan)
    for at, line in enumerate(lines):
        raw[at, : len(line)] = _without_first(line)
        values[at, : len(line)] = symmetric_log(raw[at, : len(line)], threshold)
        texts[at, : len(line)] = [plot_label(str(token), limit=8)[1:-1] for token in line["token"]]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            text=texts,
            customdata=raw,
            texttemplate="%{text}",
            textfont={"size": 12},
            coloraxis="coloraxis",
            xgap=2,
            ygap=4,
            hoverongaps=False,
            hovertemplate="%{text}<br>" + plain(UNIT) + " %{customdata:.3g}<extra></extra>",
        )
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, autorange="reversed", showgrid=False)
    figure.update_yaxes(showline=False, ticks="")
    figure.update_layout(coloraxis=_colours(shown, threshold, 1.0))
    title = f"Strength of the adapter of layer {first(rows, 'layer')} at the tokens of problem {first(rows, 'example')}"
    return dress(figure, run.meta, title, n=1, unit="problem", height=200 + 34 * len(lines))


def tokens_view(run: Record, example: int = 0) -> str:
    """Return the tokens of one problem as coloured HTML, for a notebook; the first token of the row is left out.

    Args:
        run: a finished run.
        example: which of the run's problems.
    """
    rows = _main_layer(run)
    shown = keep(rows, "example", list(dict.fromkeys(rows["example"]))[example]).sort_values("index")
    shown = _inner(shown)
    values = symmetric_log(numbers(shown, "c"), _threshold(rows))
    return tokens_html([str(token) for token in shown["token"]], list(values), unit=f"symmetric log of {UNIT}")


def build_words(run: Record) -> go.Figure:
    """Draw |c| by kind of word, and the contrast of content and function words, beside random readers and shuffles."""
    rows, whole = part(run, "words"), part(run, "contrast")
    kinds = list(dict.fromkeys(str(word) for word in rows["word"]))
    drawn = [estimate_row(keep(rows, "word", kind), kind, "relative") for kind in kinds]
    figure = make_subplots(rows=1, cols=2, column_widths=[0.55, 0.45], horizontal_spacing=0.22)
    label, control = "adapter, 95 % interval", control_label(rows)
    unit = "|c| over the problem's mean |c|"
    for trace in row_traces(drawn, label=label, control=control, unit=unit, legend=True):
        figure.add_trace(trace, row=1, col=1)
    figure.add_vline(x=1, row=1, col=1)  # pyright: ignore[reportArgumentType]
    controls = list(dict.fromkeys(str(kind) for kind in drop(whole, "vector", "trained")["vector"]))
    sides = [Row(kind, math.nan, controls=numbers(keep(whole, "vector", kind), "contrast")) for kind in controls]
    sides.insert(0, estimate_row(keep(whole, "vector", "trained"), "adapter", "contrast"))
    for trace in row_traces(sides, label=label, control=control, unit="contrast", legend=False):
        figure.add_trace(trace, row=1, col=2)
    figure.add_vline(x=0, row=1, col=2)  # pyright: ignore[reportArgumentType]
    for column, names in ((1, kinds), (2, [row.label for row in sides])):
        labels = [plain(name) for name in names]
        ends = [len(labels) - 0.5, -0.5]
        figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, range=ends, row=1, col=column)
    figure.update_xaxes(title_text=f"{unit} (1 = no difference)", row=1, col=1)
    figure.update_xaxes(title_text="contrast (content \u2212 function) / sum", row=1, col=2)
    title = f"Is the adapter of layer {first(rows, 'layer')} stronger on content words than on function words?"
    return dress(figure, run.meta, title, n=count(whole), height=430, legend=True)


def build_causal(run: Record) -> go.Figure:
    """Draw accuracy with the adapter, with its strength at the mean, and with it off on a part or on random tokens."""
    rows = part(run, "causal")
    at = max(numbers(rows, "temperature"))
    rows = keep(rows, "temperature", at)
    bars = [_bar(own) for _, own in rows.groupby(["applied", "vector"], sort=False)]
    base = numbers(keep(rows, "vector", "base"), "accuracy")
    lines_at = [Reference("base", 100 * base[0])] if base else []
    figure = draw_bars(bars, x_title="", y_title="accuracy (%)", lines_at=lines_at, dots="one set of random tokens")
    figure.update_xaxes(ticktext=[bar.label for bar in bars])
    title = f"Accuracy by where the adapter acts, {'greedy' if at == 0 else f'T = {at:g}'}"
    return dress(figure, run.meta, title, n=count(rows), height=450, legend=any(len(bar.dots) > 1 for bar in bars))


def symmetric_log(values: ArrayLike, threshold: float) -> np.ndarray:
    """Return sign(v) log10(1 + |v| / threshold): linear below the threshold, logarithmic above."""
    array = np.asarray(values, float)
    return np.sign(array) * np.log10(1 + np.abs(array) / threshold)


def _inner(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the tokens without the row's first one: its norm is a hundred times that of the others."""
    return drop(rows, "index", 0)


def _threshold(rows: pd.DataFrame) -> float:
    size = np.abs(numbers(_inner(rows), "c"))
    return float(np.median(size[size > 0])) if (size > 0).any() else 1.0


def _without_first(rows: pd.DataFrame) -> list[float]:
    """Return c with the row's first token empty."""
    pairs = zip(numbers(rows, "index"), numbers(rows, "c"), strict=True)
    return [math.nan if index == 0 else value for index, value in pairs]


def _main_layer(run: Record) -> pd.DataFrame:
    """Return the tokens of the layer that the run is about."""
    return keep(part(run, "tokens"), "layer", first(part(run, "contrast"), "layer"))


def _image(rows: pd.DataFrame, layers: Sequence[int], threshold: float) -> go.Heatmap:
    raw = [_without_first(keep(rows, "layer", layer).sort_values("index")) for layer in layers]
    tip = "layer %{y}, token %{x}<br>" + plain(UNIT) + " %{customdata:.3g}<extra></extra>"
    values = [symmetric_log(line, threshold) for line in raw]
    return go.Heatmap(z=values, customdata=raw, coloraxis="coloraxis", hoverongaps=False, hovertemplate=tip, xgap=0.5)


def _colours(rows: pd.DataFrame, threshold: float, length: float) -> dict[str, object]:
    largest = max((abs(value) for value in _without_first(rows) if value == value), default=1.0) or 1.0
    marks = [mark for mark in _MARKS if threshold / 3 < mark <= largest]
    ticks = [*(-mark for mark in reversed(marks)), 0.0, *marks]
    bound = float(symmetric_log([largest], threshold)[0])
    bar: dict[str, object] = {
        "title": {"text": plain(UNIT), "side": "right"},
        "tickvals": [float(value) for value in symmetric_log(ticks, threshold)],
        "ticktext": [written(tick) for tick in ticks],
        "thickness": 12,
        "outlinewidth": 0,
        "len": length,
        "y": 1,
        "yanchor": "top",
    }
    return {"cmin": -bound, "cmax": bound, "cmid": 0, "colorbar": bar}


def _runs(rows: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Return each segment with its first token and the one after its last."""
    names = [str(name) for name in rows["segment"]]
    found: list[tuple[str, int, int]] = []
    for name, members in itertools.groupby(enumerate(names), key=lambda pair: pair[1]):
        places = [place for place, _ in members]
        found.append((name, places[0], places[-1] + 1))
    return found


def _write_segments(figure: go.Figure, rows: pd.DataFrame) -> None:
    for name, start, stop in _runs(rows):
        if not name:
            continue
        line = {"type": "line", "yref": "y domain", "y0": 0, "y1": 1.04, "line": {"dash": "solid", "width": 1}}
        figure.add_shape(x0=start - 0.5, x1=start - 0.5, xref="x", **line)
        if stop - start > 6:
            figure.add_annotation(
                x=(start + stop - 1) / 2, y=1.0, yref="y domain", xref="x", yanchor="bottom", text=plain(name)
            )


def _add_scatter(figure: go.Figure, rows: pd.DataFrame, threshold: float) -> None:
    rows = keep(_inner(rows), "segment", *_SEGMENT_COLOURS)
    step = max(1, len(rows) // _SCATTERED)
    for name, colour in _SEGMENT_COLOURS.items():
        own = keep(rows.iloc[::step], "segment", name)
        figure.add_trace(
            go.Scatter(
                x=symmetric_log(numbers(own, "c"), threshold),
                y=numbers(own, "cosine"),
                mode="markers",
                name=name,
                marker={"color": colour, "size": 4, "opacity": 0.6},
                text=[plot_label(str(token)) for token in own["token"]],
                hovertemplate="%{text}<br>cosine %{y:.3f}<extra></extra>",
            ),
            row=2,
            col=1,
        )
    bar: Any = _colours(rows, threshold, 1.0)["colorbar"]
    figure.update_xaxes(title_text=f"{plain(UNIT)} (symmetric log)", row=2)
    figure.update_xaxes(tickvals=bar["tickvals"], ticktext=bar["ticktext"], row=2)
    figure.update_yaxes(title_text="cos(MLP output, b)", row=2)


def _lines(rows: pd.DataFrame) -> tuple[list[pd.DataFrame], list[str]]:
    """Return lines of tokens, each segment from a new line, with its name before the first."""
    lines: list[pd.DataFrame] = []
    labels: list[str] = []
    for name, start, stop in _runs(rows):
        for at in range(start, stop, _WIDTH):
            lines.append(rows.iloc[at : min(at + _WIDTH, stop)])
            labels.append(plain(name) if at == start else "")
    return lines, labels


def _bar(rows: pd.DataFrame) -> Bar:
    applied, vector = str(first(rows, "applied")), str(first(rows, "vector"))
    values = [100 * value for value in numbers(rows, "accuracy")]
    low, high = (100 * float(np.mean(numbers(rows, f"accuracy_{end}"))) for end in ("low", "high"))
    colour = BASE if vector == "base" else STEERED if applied == "everywhere" else CONTRAST
    known = {"nowhere": "nowhere (base)", "everywhere": "everywhere", "mean": "everywhere,<br>at its mean"}
    label = known.get(applied, f"off on<br>{plain(applied.removeprefix('without '))}")
    if vector == "random-tokens":
        label, colour = f"off on as many<br>random tokens<br>as {plain(applied.removeprefix('without '))}", BASE
    return Bar(label, float(np.mean(values)), low, high, colour=colour, dots=values if len(values) > 1 else ())


def _problems(rows: pd.DataFrame) -> int:
    return len(set(rows["example"]))
