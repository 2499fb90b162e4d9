"""Figures of the logit lens: tokens of each layer, scripts against Latin, token classes.

Columns read (a tidy frame, `part` names the grain, columns that do not apply are empty):

- part "tokens": vector, draw, layer, quantity ("raw" = s_l | "propagated" = D_l), lens ("centred" | "cosine" |
  "tuned"), side ("top" | "bottom"), rank (1 = most extreme), token_id, token, score (signed).
- part "scripts": vector, draw, layer, quantity, lens, script, auc ([0, 1], .5 = no shift), auc_low, auc_high (95 %
  over problems, of effects), null_low, null_high
  (simultaneous over layers, from random directions), p, n_tokens, n_matched, testable.
- part "classes": vector, draw, layer, quantity, token_class, delta_p, delta_p_low, delta_p_high (probability, summed
  over the class), log_odds, log_odds_low, log_odds_high (nats), n (problems).

`layer` is the block of the vector, 0 = first; `vector` is "trained" for the vector under study, else a kind of control.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.bars import row_traces
from figures.controls import control_label, estimate_row
from figures.curve import Band, Line, traces
from figures.heatmap import draw_heatmap
from figures.record import Record, count, first, keep, numbers, part
from figures.style import CONTRAST, STEERED, dress, plain
from figures.tokens import token_label

_LENS = {
    "centred": "centred logit lens (logits)",
    "cosine": "cosine with the unembedding",
    "tuned": "tuned lens (logits)",
}
_UNIT = {"cosine": "cosine"}
_QUANTITY = {"raw": "the vector itself", "propagated": "its effect after the last block"}
_A_SIDE = 6
_SCRIPTS = 6


def build(run: Record) -> go.Figure:
    """Draw the most promoted and most suppressed tokens of each layer, coloured by score.

    A menu changes lens and quantity; an exported image shows the first: the centred lens of the vector itself.
    """
    rows = keep(part(run, "tokens"), "vector", "trained")
    layers = sorted({int(layer) for layer in numbers(rows, "layer")})
    ranks = range(1, _A_SIDE + 1)
    panels: list[go.Figure] = []
    views = _views(rows)
    for quantity, lens in views:
        scores, texts = _table(keep(keep(rows, "quantity", quantity), "lens", lens), layers)
        panel = draw_heatmap(
            scores,
            x_labels=[f"+{rank}" for rank in ranks] + [f"\u2212{rank}" for rank in reversed(ranks)],
            y_labels=[str(layer) for layer in layers],
            x_title="rank among promoted tokens (+), rank among suppressed tokens (\u2212)",
            y_title="layer of the vector",
            unit=_UNIT.get(lens, "logits"),
            texts=texts,
        )
        panels.append(panel)
    figure = panels[0]
    for panel in panels[1:]:
        figure.add_trace(panel.data[0].update(visible=False))
    title = "Tokens that each layer's vector promotes and suppresses"
    dress(figure, run.meta, title, height=216 + 25 * max(4, len(layers)), gap=34)
    figure.add_vline(x=_A_SIDE - 0.5, line={"width": 2, "dash": "solid"})
    _add_menu(figure, views, [panel.layout.coloraxis for panel in panels])
    return figure


def build_scripts(run: Record) -> go.Figure:
    """Draw the rank statistic of each script over layers against the null band of random directions."""
    rows = part(run, "scripts")
    lens = "centred" if "centred" in set(rows["lens"]) else str(first(rows, "lens"))
    rows = keep(keep(rows, "lens", lens), "vector", "trained")
    names = {str(name) for name in rows["script"]}
    scripts = sorted(names, key=lambda name: (name != "non-Latin", -_tokens(rows, name), name))[:_SCRIPTS]
    columns = min(3, len(scripts))
    lines = math.ceil(len(scripts) / columns)
    figure = make_subplots(
        rows=lines,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=[_script_title(rows, script) for script in scripts],
        horizontal_spacing=0.04,
        vertical_spacing=0.3 / lines,
    )
    for index, script in enumerate(scripts):
        _add_script(figure, keep(rows, "script", script), index, columns)
    figure.update_yaxes(title_text="AUC against Latin", col=1)
    figure.update_xaxes(title_text="layer of the vector")
    figure.update_annotations(font={"size": 12.5})
    title = "Does each layer's vector push a script's tokens down? (AUC below 0.5 = down)"
    layers = len(set(rows["layer"]))
    return dress(figure, run.meta, title, n=layers, unit="layers", height=210 + 230 * lines, gap=26, legend=True)


def build_classes(run: Record) -> go.Figure:
    """Draw the change of each token class at the last layer measured: probability and log-odds side by side."""
    rows = keep(part(run, "classes"), "quantity", "propagated")
    layer = int(max(numbers(keep(rows, "vector", "trained"), "layer")))
    rows = keep(rows, "layer", layer)
    trained = keep(rows, "vector", "trained").sort_values("log_odds", ascending=False)
    names = [str(name) for name in trained["token_class"]]
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    panels = (("delta_p", "summed \u0394P of the class (probability)"), ("log_odds", "change of log-odds (nats)"))
    for column, (statistic, title) in enumerate(panels, start=1):
        drawn = [estimate_row(keep(rows, "token_class", name), name, statistic) for name in names]
        label, control = "vector, 95 % interval", control_label(rows)
        for trace in row_traces(drawn, label=label, control=control, unit=title, legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        figure.add_vline(x=0, row=1, col=column)  # pyright: ignore[reportArgumentType]
        figure.update_xaxes(title_text=title, row=1, col=column)
    figure.update_yaxes(tickvals=list(range(len(names))), range=[len(names) - 0.5, -0.5])
    figure.update_yaxes(ticktext=[plain(name) for name in names], col=1)
    title = f"Token classes that the vector of layer {layer} promotes"
    return dress(figure, run.meta, title, n=count(trained), height=240 + 34 * len(names), legend=True)


def _views(rows: pd.DataFrame) -> list[tuple[str, str]]:
    present = set(zip(rows["quantity"], rows["lens"], strict=True))
    return [pair for lens in _LENS for quantity in _QUANTITY if (pair := (quantity, lens)) in present]


def _table(rows: pd.DataFrame, layers: list[int]) -> tuple[np.ndarray, list[list[str]]]:
    """Lay scores and labels out as layers by ranks: promoted from the left, suppressed to the right end."""
    scores = np.full((len(layers), 2 * _A_SIDE), np.nan)
    texts = [[""] * (2 * _A_SIDE) for _ in layers]
    columns = (rows[name] for name in ("layer", "side", "rank", "token", "score"))
    for layer, side, rank, token, score in zip(*columns, strict=True):
        if int(rank) <= _A_SIDE:
            column = int(rank) - 1 if side == "top" else 2 * _A_SIDE - int(rank)
            at = layers.index(int(layer))
            scores[at, column] = float(score)
            texts[at][column] = token_label(str(token), limit=9)
    return scores, texts


def _add_menu(figure: go.Figure, views: list[tuple[str, str]], scales: list[Any]) -> None:
    if len(views) < 2:
        return
    buttons = [
        {
            "label": f"{plain(_LENS[lens])}: {plain(_QUANTITY[quantity])}",
            "method": "update",
            "args": [
                {"visible": [other == index for other in range(len(views))]},
                {
                    "coloraxis.cmin": scale.cmin,
                    "coloraxis.cmax": scale.cmax,
                    "coloraxis.colorbar.title.text": scale.colorbar.title.text,
                },
            ],
        }
        for index, ((quantity, lens), scale) in enumerate(zip(views, scales, strict=True))
    ]
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 6}}
    figure.update_layout(updatemenus=[{"buttons": buttons, "showactive": True, "font": {"size": 11.5}} | place])


def _tokens(rows: pd.DataFrame, script: str) -> int:
    return count(keep(rows, "script", script), "n_tokens") or 0


def _script_title(rows: pd.DataFrame, script: str) -> str:
    mine = keep(rows, "script", script)
    tested = "testable" not in mine.columns or bool(mine["testable"].astype(bool).all())
    return f"<b>{plain(script)}</b>, {_tokens(rows, script)} tokens" + ("" if tested else ": too few to test")


def _add_script(figure: go.Figure, rows: pd.DataFrame, index: int, columns: int) -> None:
    bands: list[Band] = []
    lines: list[Line] = []
    for quantity, colour in (("propagated", CONTRAST), ("raw", STEERED)):
        mine = keep(rows, "quantity", quantity).sort_values("layer")
        if mine.empty:
            continue
        layers = numbers(mine, "layer")
        low, high = numbers(mine, "null_low"), numbers(mine, "null_high")
        if any(value == value for value in low):
            bands = [Band("random directions, 95 % over all layers", layers, low, high)]
        line = Line(_QUANTITY[quantity], layers, numbers(mine, "auc"), colour=colour)
        if "auc_low" in mine.columns and mine["auc_low"].notna().to_numpy().any():  # a vector itself has no interval
            line = replace(line, low=numbers(mine, "auc_low"), high=numbers(mine, "auc_high"))
        lines.append(line)
    row, column = divmod(index, columns)
    for trace in traces(lines, bands, legend=index == 0):
        figure.add_trace(trace, row=row + 1, col=column + 1)
    figure.add_hline(y=0.5, row=row + 1, col=column + 1)  # pyright: ignore[reportArgumentType]
