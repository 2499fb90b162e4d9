"""Figures of path patching: what each patch keeps of a vector's effect, shares of paths and heads, attention rows.

Columns read (a tidy frame, `part` names the grain). Effects are distances between next-token distributions (`readout`:
KL in nats, total variation, or the largest change of a probability); a share is what is recovered of the whole.

- part "patches": vector, draw, text, patch, whole, value, share, each of the last two with _low and _high, n.
- part "paths": vector, draw, text, path, statistic ("alone" | "shapley" | "last" | "interaction"), value, share, n.
- part "sweep": vector, draw, text, family, head, head_share with _low and _high, n.
- part "attention": vector, draw, text, head (-1 = mean), stratum, keys ("all" | "later"), attention_tv, n.
- part "accuracy": vector, draw, patch, temperature, accuracy and gain with _low and _high, n.

`vector` is "trained" for the vector under study, "base" for none, else a kind of control.
"""

from __future__ import annotations

import math
from statistics import fmean

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.bars import Bar, draw_bars, row_traces
from figures.controls import control_label, estimate_row
from figures.heatmap import draw_heatmap
from figures.record import Record, count, drop, first, keep, numbers, part
from figures.style import BASE, CONTRAST, STEERED, Reference, dress, plain, written

PATCHES = {
    "steered": "all paths",
    "skip-attn": "all but<br>attention",
    "skip-layer": "only past<br>the block",
    "skip-mlp": "all but<br>the MLP",
    "only-attn": "only<br>attention",
}
_PATHS = {
    "q": "queries",
    "k": "keys",
    "v": "values",
    "attn-to-mlp": "attention to MLP",
    "resid-to-mlp": "stream to MLP",
    "resid": "stream past the block",
    "attention": "<b>attention</b>, the first four",
}
_STATISTICS = {"alone": "alone", "shapley": "Shapley value", "last": "as the last one"}
_REFERENCES = {"matched-entropy": "at this<br>entropy", "1-shot": "1-shot", "3-shot": "3-shot", "5-shot": "5-shot"}
_EFFECT = {"kl": "KL", "tv": "total variation", "delta_p": "largest change of probability"}


def build(run: Record) -> go.Figure:
    """Draw the share of the effect that each patch keeps, beside random vectors under the same patch."""
    rows = _on_one_text(part(run, "patches"))
    bars = [_share_bar(keep(rows, "patch", name), str(name)) for name in _names(rows)]
    kinds = control_label(rows).removeprefix("controls, one mark a draw ")
    figure = draw_bars(
        bars,
        x_title="paths into the next block that see the vector",
        y_title=f"share of the effect kept ({_unit(rows)})",
        lines_at=[Reference("whole effect", 1.0)],
        digits=2,
        dots=f"control vectors, one circle a draw {kinds}",
    )
    figure.update_xaxes(ticktext=[_label(name) for name in _names(rows)])
    title = f"What is left of block {_layer(rows)}\u2019s vector when paths of block {_layer(rows) + 1} do not see it"
    return dress(figure, run.meta, title, n=count(keep(rows, "vector", "trained")), height=480, legend=True)


def build_factorial(run: Record) -> go.Figure:
    """Draw the share of each path alone, as Shapley value, and as the last one to join, beside random vectors."""
    rows = drop(_on_one_text(part(run, "paths")), "statistic", "interaction")
    shown = [path for path in _PATHS if path in set(rows["path"])]
    figure = make_subplots(rows=1, cols=len(_STATISTICS), shared_yaxes=True, horizontal_spacing=0.035)
    for column, (statistic, title) in enumerate(_STATISTICS.items(), start=1):
        here = keep(rows, "statistic", statistic)
        drawn = [estimate_row(own, path, "share") for path in shown if len(own := keep(here, "path", path))]
        label, unit = "vector, 95 % interval", "share"
        for trace in row_traces(drawn, label=label, control=control_label(rows), unit=unit, legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        figure.add_vline(x=0, row=1, col=column)  # pyright: ignore[reportArgumentType]
        figure.update_xaxes(title_text=f"{title} (share of {_unit(rows)})", row=1, col=column)
    figure.update_yaxes(tickvals=list(range(len(shown))), ticktext=[_PATHS[path] for path in shown])
    figure.update_yaxes(range=[len(shown) - 0.5, -0.5])
    title = f"Share of each path into block {_layer(rows) + 1}, over all 64 coalitions of paths"
    return dress(figure, run.meta, title, n=count(keep(rows, "vector", "trained")), height=430, legend=True)


def build_interactions(run: Record) -> go.Figure:
    """Draw what pairs of paths recover together beyond what each adds (Shapley interaction index)."""
    rows = keep(keep(_on_one_text(part(run, "paths")), "statistic", "interaction"), "vector", "trained")
    names = [path for path in _PATHS if path != "attention"]
    values = dict(zip((str(path) for path in rows["path"]), numbers(rows, "share"), strict=True))
    table = [[values.get(f"{a} \u00d7 {b}", math.nan) for b in names] for a in names]
    texts = [[written(value, "z.2f") if value == value else "" for value in row] for row in table]
    labels = [_PATHS[name] for name in names]
    unit = f"share of {_unit(rows)}"
    figure = draw_heatmap(
        table, x_labels=labels, y_labels=labels, x_title="path", y_title="path", unit=unit, texts=texts, upper=True
    )
    title = "What two paths recover together beyond what each adds"
    return dress(figure, run.meta, title, n=count(rows), height=470)


def build_heads(run: Record) -> go.Figure:
    """Draw the share that each head accounts for, below it the mean of random vectors."""
    rows = _on_one_text(part(run, "sweep"))
    families = list(dict.fromkeys(str(name) for name in rows["family"]))
    heads = range(int(max(numbers(rows, "head"))) + 1)
    table: list[list[float]] = []
    texts: list[list[str]] = []
    labels: list[str] = []
    for family in families:
        own = keep(rows, "family", family)
        trained, drawn = keep(own, "vector", "trained"), drop(own, "vector", "trained")
        cells = [_cell(keep(trained, "head", head), keep(drawn, "head", head)) for head in heads]
        table.append([value for value, _, _ in cells])
        texts.append([_percent(value) + ("*" if outside else "") for value, _, outside in cells])
        labels.append(family)
        if len(drawn):
            table.append([mean for _, mean, _ in cells])
            texts.append([_percent(mean) for _, mean, _ in cells])
            labels.append("random")
    names = [str(head) for head in heads]
    unit = f"share of {_unit(rows)}"
    figure = draw_heatmap(
        table, x_labels=names, y_labels=labels, x_title="head", y_title="patch", unit=unit, texts=texts
    )
    title = f"Share that each head of block {_layer(rows) + 1} accounts for, in percent"
    height = 200 + 24 * len(labels)
    return dress(figure, run.meta, title, n=count(keep(rows, "vector", "trained")), height=height)


def build_attention(run: Record) -> go.Figure:
    """Draw how far attention rows move, by head, with and without the first token as a key."""
    rows = _on_one_text(part(run, "attention"))
    heads = sorted(set(numbers(rows, "head")))
    panels = [(stratum, keys) for stratum in ("completion", "prompt") for keys in ("all", "later")]
    figure = make_subplots(rows=1, cols=len(panels), shared_yaxes=True, horizontal_spacing=0.025)
    for column, (stratum, keys) in enumerate(panels, start=1):
        here = keep(keep(rows, "stratum", stratum), "keys", keys)
        drawn = [estimate_row(keep(here, "head", head), str(head), "attention_tv") for head in heads]
        label = "vector, 95 % interval"
        for trace in row_traces(drawn, label=label, control=control_label(rows), unit="TV", legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        spoken = "all keys" if keys == "all" else "without the first token"
        figure.update_xaxes(title_text=f"{stratum} tokens,<br>{spoken}", rangemode="tozero", row=1, col=column)
    figure.update_yaxes(tickvals=list(range(len(heads))), range=[len(heads) - 0.5, -0.5])
    figure.update_yaxes(ticktext=["<b>mean</b>" if head < 0 else f"head {head:.0f}" for head in heads])
    title = f"Change of attention rows in block {_layer(rows) + 1} (total variation, 0 to 1)"
    height = 250 + 24 * len(heads)
    return dress(figure, run.meta, title, n=count(keep(rows, "vector", "trained")), height=height, legend=True)


def build_accuracy(run: Record) -> go.Figure:
    """Draw accuracy with each patch on in every token, beside the base, references and random vectors."""
    rows = part(run, "accuracy")
    at = max(numbers(keep(rows, "vector", "trained"), "temperature"))
    ours = keep(keep(rows, "temperature", at), "vector", "base", "trained")
    base = keep(ours, "vector", "base")
    bars = [_accuracy_bar(base, "base", BASE)]
    trained = keep(ours, "vector", "trained")
    for name in _names(trained):
        colour = STEERED if name == "steered" else CONTRAST
        bars.append(_accuracy_bar(keep(trained, "patch", name), _label(name), colour))
    drawn = drop(keep(rows, "temperature", at), "vector", "base", "trained", *_REFERENCES)
    bars += [_accuracy_bar(keep(drawn, "patch", name), f"random,<br>{plain(name)}", BASE) for name in _names(drawn)]
    beside = [name for name in _REFERENCES if name in set(rows["vector"])]
    bars += [_accuracy_bar(keep(rows, "vector", name), f"base,<br>{_REFERENCES[name]}", BASE) for name in beside]
    figure = draw_bars(
        bars,
        x_title="paths into the next block that see the vector",
        y_title="accuracy (%)",
        lines_at=[Reference("base", bars[0].value)],
    )
    figure.update_xaxes(ticktext=[bar.label for bar in bars])
    sampling = "greedy" if at == 0 else f"T = {at:g}"
    title = f"Accuracy with paths of block {_layer(rows) + 1} patched in every token, {sampling}"
    dress(figure, run.meta, title, n=count(trained), height=470)
    return figure.update_layout(margin={"b": 92})


def _share_bar(rows: pd.DataFrame, name: str) -> Bar:
    own = estimate_row(rows, name, "share")
    colour = STEERED if name == "steered" else CONTRAST
    return Bar(name, own.value, own.low, own.high, colour=colour, dots=() if name == "steered" else own.controls)


def _accuracy_bar(rows: pd.DataFrame, label: str, colour: str) -> Bar:
    value, low, high = (100 * numbers(rows, f"accuracy{end}")[0] for end in ("", "_low", "_high"))
    return Bar(label, value, low, high, colour=colour)


def _cell(trained: pd.DataFrame, drawn: pd.DataFrame) -> tuple[float, float, bool]:
    """Return the share of a head, the mean of random vectors, and whether the interval leaves all of their draws."""
    if not len(trained):
        return math.nan, math.nan, False
    value, low, high = (numbers(trained, f"head_share{end}")[0] for end in ("", "_low", "_high"))
    others = [number for number in numbers(drawn, "head_share") if number == number]
    if not others:
        return value, math.nan, False
    return value, fmean(others), low > max(others) or high < min(others)


def _percent(value: float) -> str:
    return written(100 * value, "z.1f") if value == value else ""


def _on_one_text(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows read on the base's texts, or on the only ones there are."""
    return keep(rows, "text", "base" if "base" in set(rows["text"]) else first(rows, "text"))


def _names(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(str(name) for name in rows["patch"].dropna()))


def _label(name: str) -> str:
    return f"{name}<br>({PATCHES[name]})" if name in PATCHES else plain(name)


def _unit(rows: pd.DataFrame) -> str:
    return _EFFECT.get(str(first(rows, "readout")), str(first(rows, "readout")))


def _layer(rows: pd.DataFrame) -> int:
    return int(numbers(rows, "layer")[0])
