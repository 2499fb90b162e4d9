"""How a training run went: right answers, how completions end, entropy and norms over updates.

Columns read: step, right, boxed, ended, tokens, entropy, norm, gradient_norm, validation with its interval.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.record import Record, numbers
from figures.style import CONTRAST, INK, STEERED, dress

_SMOOTHED = 5
"""Updates behind a point of the running mean: a batch of 128 answers is noisy."""
_TRAINED = {
    "vector": "vectors",
    "rank1": "rank-1 adapters of down_proj",
    "lora": "LoRA of rank {rank} on down_proj",
    "full": "all weights",
}
_PANELS = {
    "tokens": "mean length (tokens)",
    "entropy": "entropy (nats a token)",
    "norm": "mean norm",
    "gradient_norm": "norm of the gradient",
}


def build(run: Record) -> go.Figure:
    """Draw the share of right answers in each batch and on validation problems, and five panels beside it."""
    rows = run.frame.sort_values("step")
    figure = make_subplots(rows=2, cols=3, horizontal_spacing=0.09, vertical_spacing=0.17, shared_xaxes=True)
    _add(figure, 0, _raw(rows, "right", 100.0, STEERED))
    _add(figure, 0, _line(rows, "right", 100.0, STEERED, "right in the training batch, T = 1"))
    _add(figure, 0, _validation(rows))
    _mark_kept(figure, run)
    for name, colour in (("boxed", CONTRAST), ("ended", INK)):
        _add(figure, 1, _line(rows, name, 100.0, colour, {"boxed": "with a box", "ended": "ended"}[name]))
    for panel, name in enumerate(_PANELS, start=2):
        _add(figure, panel, _raw(rows, name, 1.0, STEERED))
        _add(figure, panel, _line(rows, name, 1.0, STEERED, ""))
    titles = ["right answers (%)", "completions (%)", *_PANELS.values()]
    for panel, title in enumerate(titles):
        row, col = panel // 3 + 1, panel % 3 + 1
        figure.update_yaxes(title_text=title, rangemode="tozero", row=row, col=col)
        figure.update_xaxes(title_text="updates" if row == 2 else None, row=row, col=col)
    settings = run.meta["settings"]
    unit = f"completions an update, running mean of {_SMOOTHED} updates"
    n = settings["prompts"] * settings["samples"]
    return dress(figure, run.meta, _title(settings), n=n, unit=unit, height=560, gap=14, legend=True)


def _title(settings: dict[str, Any]) -> str:
    layers = settings["layers"]
    what = _TRAINED[settings["kind"]].format(rank=settings["rank"])
    where = f"block {layers[0]}" if len(layers) == 1 else f"{len(layers)} blocks"
    what = what.removesuffix("s") if len(layers) == 1 and settings["kind"] == "vector" else what
    return f"Training {what} at {where}, reward {settings['reward']}, seed {settings['seed']}"


def _add(figure: go.Figure, panel: int, trace: go.Scatter) -> None:
    figure.add_trace(trace, row=panel // 3 + 1, col=panel % 3 + 1)


def _raw(rows: pd.DataFrame, name: str, scale: float, colour: str) -> go.Scatter:
    return go.Scatter(
        x=numbers(rows, "step"),
        y=[scale * value for value in numbers(rows, name)],
        mode="markers",
        marker={"color": colour, "size": 4, "opacity": 0.35},
        showlegend=False,
        hovertemplate="update %{x}<br>%{y:.4g}<extra>one batch</extra>",
    )


def _line(rows: pd.DataFrame, name: str, scale: float, colour: str, label: str) -> go.Scatter:
    values, reach = numbers(rows, name), _SMOOTHED // 2
    windows = [values[max(0, at - reach) : at + reach + 1] for at in range(len(values))]
    return go.Scatter(
        x=numbers(rows, "step"),
        y=[scale * fmean(window) for window in windows],
        mode="lines",
        name=label,
        showlegend=bool(label),
        line={"color": colour, "width": 2},
        hovertemplate="update %{x}<br>%{y:.4g}<extra>running mean</extra>",
    )


def _validation(rows: pd.DataFrame) -> go.Scatter:
    seen = rows.dropna(subset=["validation"])
    value, low, high = ([100 * v for v in numbers(seen, f"validation{end}")] for end in ("", "_low", "_high"))
    return go.Scatter(
        x=numbers(seen, "step"),
        y=value,
        error_y={
            "type": "data",
            "array": [top - middle for top, middle in zip(high, value, strict=True)],
            "arrayminus": [middle - bottom for middle, bottom in zip(value, low, strict=True)],
            "thickness": 1.4,
        },
        mode="markers",
        name="right on validation problems, greedy",
        marker={"color": INK, "size": 8, "symbol": "diamond"},
        hovertemplate="update %{x}<br>%{y:.3g} %<extra>validation</extra>",
    )


def _mark_kept(figure: go.Figure, run: Record) -> None:
    kept = (run.meta.get("validation") or {}).get("step")
    if kept is not None:
        figure.add_vline(x=kept, line={"width": 1.2, "dash": "dot"}, row=1, col=1)  # pyright: ignore[reportArgumentType]
        place = {"xref": "x", "yref": "y domain", "yanchor": "bottom", "showarrow": False}
        figure.add_annotation(x=kept, y=1, text="kept", font={"size": 11}, **place)
