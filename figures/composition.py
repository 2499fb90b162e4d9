"""Interactions of pairs of vectors (arXiv:2509.06608 Fig. 13), and each pair against its controls.

Columns read: part "pairs" (i, j, interaction, beyond_best, beyond_random, share, each with _low and _high; q, best,
best_factor, n, temperature), part "draws" (interaction and beyond_best of random partners).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.bars import Row, row_traces
from figures.heatmap import draw_heatmap
from figures.record import Record, count, keep, numbers, part
from figures.style import dress, written
from interp.numbers import shown

_PANELS = (
    ("interaction", "I = A<sub>ij</sub> \u2212 A<sub>i</sub> \u2212 A<sub>j</sub> + A<sub>0</sub><br>(points)"),
    ("beyond_best", "beyond the better one<br>at its best factor (points)"),
    ("beyond_random", "beyond a random partner<br>(points)"),
)


def build(run: Record) -> go.Figure:
    """Draw the interactions as an upper triangle; a star marks pairs that differ from 0 after adjustment."""
    rows = _pairs(run)
    layers = sorted({int(layer) for name in ("i", "j") for layer in rows[name]})
    # the last block is no lower one and the first no upper one
    size = len(layers) - 1
    values = np.full((size, size), np.nan)
    texts, told = ([[""] * size for _ in range(size)] for _ in range(2))
    for row in rows.to_dict("records"):
        at = layers.index(int(row["i"])), layers.index(int(row["j"])) - 1
        values[at] = 100 * row["interaction"]
        texts[at[0]][at[1]] = written(values[at], "+z.1f") + (" *" if row["q"] < 0.05 else "")
        told[at[0]][at[1]] = _hover(row)
    labels = [str(layer) for layer in layers]
    figure = draw_heatmap(
        values,
        x_labels=labels[1:],
        y_labels=labels[:-1],
        x_title="upper block j",
        y_title="lower block i",
        unit="interaction (points)",
        texts=texts,
    )
    figure.update_traces(customdata=np.array(told), hovertemplate="%{customdata}<extra></extra>")
    title = f"What a pair of vectors gains beyond the gains of both{_sampling(run)} (* q < 0.05)"
    return dress(figure, run.meta, title, n=count(rows), height=520)


def build_controls(run: Record) -> go.Figure:
    """Draw each pair's interaction, and its gain over the better single vector and over a random partner."""
    rows = _pairs(run)
    labels = [f"{int(i)} + {int(j)}" for i, j in zip(rows["i"], rows["j"], strict=True)]
    draws = keep(part(run, "draws"), "temperature", max(numbers(rows, "temperature")))
    figure = make_subplots(rows=1, cols=len(_PANELS), shared_yaxes=True, horizontal_spacing=0.035)
    for column, (name, title) in enumerate(_PANELS, start=1):
        ends = [[100 * v for v in numbers(rows, end)] for end in (name, f"{name}_low", f"{name}_high")]
        drawn = [Row(label, *three) for label, *three in zip(labels, *ends, strict=True)]
        whole = _whole(run, name, [100 * value for value in numbers(draws, name) if value == value])
        drawn += [whole] if whole else []
        control = "random partners, one mark a draw"
        for trace in row_traces(drawn, label="pair, 95 % interval", control=control, unit="points", legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        figure.add_vline(x=0, row=1, col=column)  # pyright: ignore[reportArgumentType]
        figure.update_xaxes(title_text=title, row=1, col=column)
    names = [*labels, "mean of pairs"]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.5])
    figure.update_yaxes(title_text="blocks of the pair", col=1)
    title = f"Pairs of vectors against their controls{_sampling(run)}"
    return dress(figure, run.meta, title, n=count(rows), height=270 + 30 * len(names), legend=True)


def _pairs(run: Record) -> pd.DataFrame:
    rows = part(run, "pairs")
    return keep(rows, "temperature", max(numbers(rows, "temperature")))


def _whole(run: Record, name: str, draws: list[float]) -> Row | None:
    """Return the mean over pairs with the draws of random partners; the partner itself has no such control."""
    if name == "beyond_random":
        return None
    rows = part(run, "whole")
    rows = keep(rows, "temperature", max(numbers(rows, "temperature")))
    value, low, high = (100 * numbers(rows, end)[0] for end in (name, f"{name}_low", f"{name}_high"))
    return Row("mean of pairs", value, low, high, draws)


def _hover(row: dict[Any, Any]) -> str:
    low, high = (100 * float(row[f"interaction_{end}"]) for end in ("low", "high"))
    said = [f"blocks {int(row['i'])} and {int(row['j'])}", f"{shown(100 * float(row['interaction']), '+.1f')} points"]
    said += [f"95 % interval [{low:+z.1f}, {high:+z.1f}]", f"q = {float(row['q']):.2g}"]
    said += [
        f"log-odds {shown(float(row['log_odds']), '+.2f')} nats",
        f"accuracy {100 * float(row['accuracy']):.1f} %",
    ]
    share = float(row.get("share", np.nan))
    said += [f"(A_ij \u2212 B)/(P \u2212 B) = {shown(share, '.2f')}"] if np.isfinite(share) else []
    return "<br>".join(said)


def _sampling(run: Record) -> str:
    most = max(numbers(part(run, "pairs"), "temperature"))
    return ", greedy" if most == 0 else f", T = {most:g}"
