"""Figures of attribution to sparse features: agreement with ablation, what each node carries, and the vector itself.

Columns read (a tidy frame, `part` names the grain; effects in nats per predicted token):

- part "features": dictionary ("sae" | "pca"), metric, vector ("trained" | "random-direction"), example, feature,
  attribution, ablation, tokens.
- part "summary": dictionary, metric, vector ("trained" | "shuffled-attribution"), statistic ("rank_correlation" |
  "slope" | "explained" | "attribution" | "ablation", the last two by node), node, value, low, high, n.
- part "vector": vector ("trained" | "random-isotropic"), draw, layer, cosine, response.

`quality` says in every row why the autoencoder is not good enough; it is empty where it is.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.curve import Band, Line, traces, translucent
from figures.record import Record, drop, first, keep, numbers, part
from figures.style import BASE, CONTRAST, STEERED, dress, plain
from interp.numbers import shown

_NAMES = {"sae": "sparse features", "pca": "principal components, same L0"}
_METRICS = {
    "kl": "KL(steered || base)",
    "log_prob": "log-probability of the right completion",
    "logit_diff": "logit difference",
}
_STATISTICS = {"rank_correlation": "rank correlation", "slope": "slope", "explained": "explained variance"}
_READINGS = {
    "cosine": "largest |cosine|<br>with a decoder direction",
    "response": "largest rise<br>of a feature's activation",
}
_SMALL = 12.5
_NODES = {"features": "features", "error": "error", "bias": "bias", "whole": "whole<br>change"}


def quality_note(run: Record) -> str:
    """Return why the autoencoder is not good enough, for a title; empty where it is."""
    told = str(first(run.frame, "quality") or "") if "quality" in run.frame.columns else ""
    return f" (autoencoder not good enough: {told})" if told and told != "nan" else ""


def build(run: Record) -> go.Figure:
    """Draw attribution against exact ablation, a point a feature and text, for each dictionary in KL."""
    rows = keep(part(run, "features"), "metric", "kl")
    shown = [name for name in _NAMES if name in set(rows["dictionary"])]
    titles = [_panel_title(run, name) for name in shown]
    figure = make_subplots(rows=1, cols=len(shown), horizontal_spacing=0.09, subplot_titles=titles)
    for column, name in enumerate(shown, start=1):
        _scatter(figure, keep(rows, "dictionary", name), column)
    figure.update_annotations(font_size=_SMALL)
    figure.update_xaxes(title_text="attribution: gradient times activation (nats per token)", exponentformat="power")
    figure.update_yaxes(title_text="effect of taking it out (nats per token)", col=1)
    figure.update_yaxes(exponentformat="power")
    title = f"Does attribution predict what taking a feature out does to the KL?{quality_note(run)}"
    return dress(figure, run.meta, title, n=len(set(rows["example"])), height=520, gap=52, legend=True)


def _scatter(figure: go.Figure, rows: pd.DataFrame, column: int) -> None:
    features, random = keep(rows, "vector", "trained"), keep(rows, "vector", "random-direction")
    values = [abs(value) for value in (*numbers(features, "attribution"), *numbers(features, "ablation"))]
    bound = 1.05 * max((value for value in values if math.isfinite(value)), default=1.0)
    line = {"color": BASE, "width": 1.2, "dash": "dash"}
    figure.add_shape(type="line", x0=-bound, y0=-bound, x1=bound, y1=bound, line=line, row=1, col=column)
    for some, name, colour, symbol in (
        (random, "random direction of the same size", BASE, "x-thin"),
        (features, "feature of a text", STEERED, "circle"),
    ):
        marker = {"size": 6, "symbol": symbol, "color": translucent(colour, 0.55)}
        figure.add_trace(
            go.Scatter(
                x=numbers(some, "attribution"),
                y=numbers(some, "ablation"),
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                marker=marker | ({"line": {"color": colour, "width": 1.2}} if symbol == "x-thin" else {}),
                customdata=[f"feature {shown(feature, '.0f')}" for feature in numbers(some, "feature")],
                hovertemplate="%{customdata}<br>attribution %{x:.3g}<br>ablation %{y:.3g}<extra></extra>",
            ),
            row=1,
            col=column,
        )
    figure.update_xaxes(range=[-bound, bound], row=1, col=column)
    figure.update_yaxes(range=[-bound, bound], row=1, col=column)


def _panel_title(run: Record, name: str) -> str:
    told = [f"<b>{_NAMES[name]}</b>"]
    for statistic in _STATISTICS:
        rows = keep(keep(part(run, "summary"), "dictionary", name), "statistic", statistic)
        rows = rows if statistic == "explained" else keep(rows, "metric", "kl")
        if len(rows := keep(rows, "vector", "trained")):
            value, low, high = (numbers(rows, column)[0] for column in ("value", "low", "high"))
            told.append(f"{_STATISTICS[statistic]} {shown(value, '.2f')} [{shown(low, '.2f')}, {shown(high, '.2f')}]")
    return "<br>".join([told[0], ", ".join(told[1:3]), *told[3:]])


def build_nodes(run: Record) -> go.Figure:
    """Draw what features, error and bias carry of each scalar, by attribution and by taking them out."""
    rows = part(run, "summary")
    rows = keep(rows, "statistic", "attribution", "ablation")
    shown = [metric for metric in _METRICS if metric in set(rows["metric"])]
    sizes = {metric: int(max(numbers(keep(rows, "metric", metric), "n"))) for metric in shown}
    titles = [f"<b>{plain(_METRICS[metric])}</b><br>n = {sizes[metric]}" for metric in shown]
    figure = make_subplots(rows=1, cols=len(shown), subplot_titles=titles, horizontal_spacing=0.07)
    figure.update_annotations(font_size=_SMALL)
    drawn = [
        ("sae", "ablation", STEERED, 0.9, "sparse features: taken out"),
        ("sae", "attribution", STEERED, 0.4, "sparse features: attribution"),
        ("pca", "ablation", CONTRAST, 0.9, "principal components: taken out"),
        ("pca", "attribution", CONTRAST, 0.4, "principal components: attribution"),
    ]
    for column, metric in enumerate(shown, start=1):
        for name, statistic, colour, opacity, label in drawn:
            some = keep(keep(keep(rows, "metric", metric), "dictionary", name), "statistic", statistic)
            if len(some):
                figure.add_trace(_node_bars(some, label, translucent(colour, opacity), column == 1), 1, column)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(title_text="effect (nats per token)", col=1)
    title = f"What do features, error and bias carry of the vector's effect?{quality_note(run)}"
    return dress(figure, run.meta, title, n=max(sizes.values()), height=490, gap=36, legend=True)


def _node_bars(rows: pd.DataFrame, label: str, colour: str, legend: bool) -> go.Bar:
    ordered = [keep(rows, "node", node) for node in _NODES]
    value, low, high = ([numbers(one, name)[0] for one in ordered if len(one)] for name in ("value", "low", "high"))
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [top - at for top, at in zip(high, value, strict=True)],
        "arrayminus": [at - bottom for bottom, at in zip(low, value, strict=True)],
        "thickness": 1.3,
        "width": 3,
    }
    return go.Bar(
        x=[words for node, words in _NODES.items() if node in set(rows["node"])],
        y=value,
        error_y=bars,
        name=label,
        legendgroup=label,
        showlegend=legend,
        marker={"color": colour, "line": {"width": 0}},
        hovertemplate="%{x}: %{y:.3g}<extra>" + label + "</extra>",
    )


def build_vector(run: Record) -> go.Figure:
    """Draw, over layers, how near the vectors are to a decoder direction and how much they excite one feature."""
    rows = part(run, "vector")
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    for column, (name, title) in enumerate(_READINGS.items(), start=1):
        own, random = keep(rows, "vector", "trained"), drop(rows, "vector", "trained")
        layers = sorted(set(numbers(own, "layer")))
        ranges = [numbers(keep(random, "layer", layer), name) for layer in layers]
        line = Line("the set's vectors", layers, [numbers(keep(own, "layer", at), name)[0] for at in layers])
        draws = len(set(random["draw"])) if len(random) else 0
        label = f"random vectors of the same norm, range of {draws}"
        band = Band(label, layers, [min(some) for some in ranges], [max(some) for some in ranges]) if draws else None
        for trace in traces([line], [band] if band else [], legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        figure.update_yaxes(title_text=title, rangemode="tozero", row=1, col=column)
    figure.update_xaxes(title_text="block of the vector (0 = first)")
    title = f"Does the autoencoder know the vectors themselves?{quality_note(run)}"
    return dress(figure, run.meta, title, height=430, legend=True)
