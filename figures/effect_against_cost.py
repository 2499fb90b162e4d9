"""Effect against cost: points gained on the task over the KL on neutral text, a dose curve for each set of vectors.

Columns read: part "summary": vector, draw, dose, gain with its interval, kl with its interval (nats), n.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from figures.curve import translucent
from figures.record import Record, count, drop, keep, numbers, part
from figures.style import BASE, CONTRAST, STEERED, dress, log_ticks, plain

RANDOM = "random-isotropic"
COLOURS = (STEERED, CONTRAST, "#59A14F", "#B07AA1", "#9C755F")
"""Of the sets, the vectors under study first; apart in lightness too."""


def build(run: Record) -> go.Figure:
    """Draw each set's doses as a curve with intervals on both axes, and random directions as a grey cloud."""
    rows = drop(part(run, "summary"), "vector", "base")
    figure = go.Figure(_cloud(keep(rows, "vector", RANDOM)))
    names = ["trained", *(str(name) for name in dict.fromkeys(rows["vector"]) if name not in ("trained", RANDOM))]
    for name, colour in zip(names, COLOURS, strict=False):
        figure.add_trace(_curve(keep(rows, "vector", name).sort_values("dose"), name, colour))
    figure.add_hline(y=0)  # pyright: ignore[reportArgumentType]
    figure.update_xaxes(title_text="cost: KL(steered || base) of a token of neutral text (nats)", type="log")
    figure.update_xaxes(log_ticks(value for end in ("", "_low", "_high") for value in numbers(rows, "kl" + end)))
    figure.update_yaxes(title_text="effect: accuracy gained on the task (points)")
    title = "Effect against cost: dose curves of vectors, and random directions"
    return dress(figure, run.meta, title, n=count(rows), height=520, legend=True)


def _cloud(rows: pd.DataFrame) -> go.Scatter:
    doses = ", ".join(f"{dose:g}" for dose in sorted(set(numbers(rows, "dose"))))
    return go.Scatter(
        x=numbers(rows, "kl"),
        y=[100 * gain for gain in numbers(rows, "gain")],
        mode="markers",
        name=plain(f"random directions, doses {doses}, one mark a draw"),
        marker={"color": translucent(BASE, 0.55), "size": 8},
        text=[f"dose {dose:g}" for dose in numbers(rows, "dose")],
        hovertemplate="%{y:.3g} points at %{x:.3g} nats, %{text}<extra>random</extra>",
    )


def _curve(rows: pd.DataFrame, name: str, colour: str) -> go.Scatter:
    label = "vectors under study" if name == "trained" else name
    gain, low, high = ([100 * x for x in numbers(rows, column)] for column in ("gain", "gain_low", "gain_high"))
    kl, kl_low, kl_high = (numbers(rows, column) for column in ("kl", "kl_low", "kl_high"))
    return go.Scatter(
        x=kl,
        y=gain,
        mode="lines+markers+text",
        name=plain(label),
        line={"color": colour, "width": 2},
        marker={"size": 8},
        text=[f"{dose:g}\u00d7" for dose in numbers(rows, "dose")],
        # the last one to the other side: large doses of a broken set lie close together
        textposition=["top left"] * (len(kl) - 1) + ["top right"],
        textfont={"size": 11, "color": colour},
        error_y=_whiskers(gain, low, high, colour),
        error_x=_whiskers(kl, kl_low, kl_high, colour),
        hovertemplate="%{y:.3g} points at %{x:.3g} nats, %{text}<extra>" + plain(label) + "</extra>",
    )


def _whiskers(values: list[float], low: list[float], high: list[float], colour: str) -> dict[str, object]:
    up = [b - a for a, b in zip(values, high, strict=True)]
    down = [a - b for a, b in zip(values, low, strict=True)]
    shade = translucent(colour, 0.45)
    return {
        "type": "data",
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "color": shade,
        "thickness": 1.2,
        "width": 3,
    }
