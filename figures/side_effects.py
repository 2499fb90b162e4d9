"""Figures of side effects: cost on neutral text against effect on the task, and what happens to answers.

Columns read (a tidy frame, `part` names the grain):

- part "effect": vector ("trained" | a kind of control), draw, dose, kl_neutral, kl_task, selectivity, each with _low
  and _high, perplexity_base, perplexity, n (texts).
- part "accuracy": vector ("base" too), draw, dose, broken, fixed, p, accuracy, n (problems).
- part "style": vector, draw, dose, repeated_change with _low and _high, distinct, ended, length, n (questions).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.bars import Row, row_traces
from figures.controls import control_label
from figures.curve import translucent
from figures.record import Record, count, drop, keep, numbers, part
from figures.style import BASE, CONTRAST, STEERED, dress, log_ticks, plain
from interp.summaries import wilson

_SYMBOLS = ("circle-open", "diamond-open", "square-open", "triangle-up-open", "x-thin-open", "cross-open")


def build(run: Record) -> go.Figure:
    """Draw KL on neutral text against KL on the task for each dose and control, and the log ratio of the two."""
    rows = part(run, "effect")
    trained = keep(rows, "vector", "trained").sort_values("dose")
    figure = make_subplots(rows=1, cols=2, column_widths=[0.56, 0.44], horizontal_spacing=0.14)
    for trace in [*_clouds(drop(rows, "vector", "trained")), _curve(trained), _equal(rows)]:
        figure.add_trace(trace, row=1, col=1)
    x, y = (log_ticks(_ends_of(rows, name)) for name in ("kl_task", "kl_neutral"))
    figure.update_xaxes(title_text="KL on the task's text (nats per token)", type="log", row=1, col=1, **x)
    figure.update_yaxes(title_text="KL on neutral text (nats per token)", type="log", row=1, col=1, **y)
    drawn = _selectivity(rows, trained)
    for trace in row_traces(drawn, label="95 % interval", control="one draw", unit="ln ratio", legend=False):
        figure.add_trace(trace, row=1, col=2)
    figure.add_vline(x=0, row=1, col=2)  # pyright: ignore[reportArgumentType]
    labels = [row.label for row in drawn]
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, row=1, col=2)
    figure.update_yaxes(range=[len(labels) - 0.5, -0.5], row=1, col=2)
    figure.update_xaxes(title_text="ln(KL on the task / KL on neutral text)", row=1, col=2)
    title = "What does the vector cost on text that is not its task?"
    return dress(figure, run.meta, title, n=count(trained), unit="neutral texts", height=520, legend=True)


def _ends_of(rows: pd.DataFrame, name: str) -> list[float]:
    return [value for end in ("", "_low", "_high") for value in numbers(rows, name + end)]


def _clouds(controls: pd.DataFrame) -> list[go.Scatter]:
    """One cloud a kind of control."""
    return [
        go.Scatter(
            x=numbers(own, "kl_task"),
            y=numbers(own, "kl_neutral"),
            mode="markers",
            name=plain(f"{kind} \u00d7 {len(own)}"),
            marker={"color": BASE, "size": 8, "symbol": symbol},
            hovertemplate="task %{x:.3g}, neutral %{y:.3g} nats<extra>" + plain(kind) + "</extra>",
        )
        for symbol, kind in zip(_SYMBOLS, sorted(set(controls["vector"])), strict=False)
        for own in [keep(controls, "vector", kind)]
    ]


def _curve(trained: pd.DataFrame) -> go.Scatter:
    x, y = numbers(trained, "kl_task"), numbers(trained, "kl_neutral")
    doses = [f"{dose:g}\u00d7" for dose in numbers(trained, "dose")]
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers+text",
        name="vector, by dose, 95 % intervals",
        text=doses,
        textposition="bottom right",
        line={"color": STEERED, "width": 2},
        marker={"color": STEERED, "size": 9},
        error_x=_ends(trained, "kl_task"),
        error_y=_ends(trained, "kl_neutral"),
        hovertemplate="task %{x:.3g}, neutral %{y:.3g} nats<extra>%{text}</extra>",
    )


def _equal(rows: pd.DataFrame) -> go.Scatter:
    """The line of equal KL on both."""
    seen = [value for value in numbers(rows, "kl_task") + numbers(rows, "kl_neutral") if value > 0]
    ends = [min(seen), max(seen)]
    line = {"color": "#1b1d20", "width": 1.2, "dash": "dash"}
    return go.Scatter(x=ends, y=ends, mode="lines", name="equal on both", line=line, hoverinfo="skip")


def _ends(rows: pd.DataFrame, name: str) -> dict[str, object]:
    value, low, high = (numbers(rows, f"{name}{end}") for end in ("", "_low", "_high"))
    up = [max(0.0, b - a) for a, b in zip(value, high, strict=True)]
    down = [max(0.0, a - b) for a, b in zip(value, low, strict=True)]
    sides: dict[str, object] = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    return sides | {"thickness": 1.4, "width": 4, "color": STEERED}


def _selectivity(rows: pd.DataFrame, trained: pd.DataFrame) -> list[Row]:
    """The vector at each dose, then each kind of control."""
    found = [
        Row(f"vector, {dose:g}\u00d7", value, low, high)
        for dose, value, low, high in zip(
            *(numbers(trained, name) for name in ("dose", "selectivity", "selectivity_low", "selectivity_high")),
            strict=True,
        )
    ]
    controls = drop(rows, "vector", "trained")
    for kind in sorted(set(controls["vector"])):
        values = numbers(keep(controls, "vector", kind), "selectivity")
        found.append(Row(plain(kind).replace("-", "-<br>", 1), math.nan, controls=values))
    return found


def build_answers(run: Record) -> go.Figure:
    """Draw problems broken and fixed by dose, and how much more off-task answers repeat themselves."""
    rows, style = part(run, "accuracy"), part(run, "style")
    trained = keep(rows, "vector", "trained").sort_values("dose")
    doses = numbers(trained, "dose")
    figure = make_subplots(rows=1, cols=2, column_widths=[0.5, 0.5], horizontal_spacing=0.13)
    for trace in _fates(trained, drop(rows, "vector", "base", "trained"), doses):
        figure.add_trace(trace, row=1, col=1)
    for trace in _repeated(keep(style, "vector", "trained"), drop(style, "vector", "base", "trained"), doses):
        figure.add_trace(trace, row=1, col=2)
    for column in (1, 2):
        figure.add_hline(y=0, row=1, col=column)  # pyright: ignore[reportArgumentType]
        ticks = [f"{dose:g}\u00d7" for dose in doses]
        figure.update_xaxes(title_text="dose", tickvals=list(range(len(doses))), ticktext=ticks, row=1, col=column)
    figure.update_yaxes(title_text="problems fixed (up) and broken (down), %", row=1, col=1)
    title = "longest run that an off-task answer repeats,<br>change (% of its tokens)"
    figure.update_yaxes(title_text=title, row=1, col=2)
    figure.update_layout(barmode="overlay")
    for place, p, fixed in zip(range(len(doses)), numbers(trained, "p"), numbers(trained, "fixed"), strict=True):
        high = 100 * wilson(int(fixed), max(1, count(trained) or 1)).high
        text = {"text": f"p = {p:.2g}", "yanchor": "bottom", "yshift": 4, "showarrow": False, "name": "p"}
        figure.add_annotation(x=place, y=high, row=1, col=1, **text)
    note = f"n = {count(trained)} problems and {count(style)} questions"
    dress(figure, run.meta, "What else happens to answers, on the task and off it?", height=500, legend=True)
    return figure.update_layout(title={"subtitle": {"text": _with_counts(figure, note)}})


def _with_counts(figure: go.Figure, note: str) -> str:
    """The subtitle with both counts in place of the run's one."""
    second = str(figure.layout.title.subtitle.text)  # pyright: ignore[reportAttributeAccessIssue]
    return re.sub(r"\bn = [^·<]*[^·< ]", note, second)


def _fates(trained: pd.DataFrame, controls: pd.DataFrame, doses: Sequence[float]) -> list[go.Bar | go.Scatter]:
    n = max(1, count(trained) or 1)
    up = [100 * value / n for value in numbers(trained, "fixed")]
    down = [-100 * value / n for value in numbers(trained, "broken")]
    places = list(range(len(doses)))
    bars: list[go.Bar | go.Scatter] = [
        go.Bar(
            x=places, y=up, name="fixed by the vector", marker={"color": STEERED}, width=0.5,
            error_y=_wilson(numbers(trained, "fixed"), n),
        ),
        go.Bar(
            x=places, y=down, name="broken by the vector", marker={"color": CONTRAST}, width=0.5,
            error_y=_wilson(numbers(trained, "broken"), n, sign=-1),
        ),
    ]  # fmt: skip
    at = [place for place, dose in zip(places, doses, strict=True) if dose == 1]
    if not len(controls) or not at:
        return bars
    values = [100 * value / n for value in numbers(controls, "fixed")]
    values += [-100 * value / n for value in numbers(controls, "broken")]
    named = control_label(controls).replace("one mark a draw", "dose 1, one mark a draw")
    return [*bars, _draws([at[0] + 0.36] * len(values), values, named)]


def _wilson(counts: Sequence[float], n: int, sign: int = 1) -> dict[str, object]:
    """Error bars of counts out of n, in %; `sign` = -1 where the bars hang down."""
    found = [wilson(int(value), n) for value in counts]
    up = [100 * (one.high - one.estimate) for one in found]
    down = [100 * (one.estimate - one.low) for one in found]
    sides = (up, down) if sign > 0 else (down, up)
    bars: dict[str, object] = {"type": "data", "symmetric": False, "array": sides[0], "arrayminus": sides[1]}
    return bars | {"thickness": 1.4, "width": 4}


def _repeated(trained: pd.DataFrame, controls: pd.DataFrame, doses: Sequence[float]) -> list[go.Scatter]:
    own = trained.sort_values("dose")
    scaled = own.assign(**{f"r{end}": 100 * own[f"repeated_change{end}"] for end in ("", "_low", "_high")})
    points = go.Scatter(
        x=list(range(len(own))),
        y=numbers(scaled, "r"),
        error_y=_ends(scaled, "r"),
        mode="markers",
        name="vector, 95 % interval",
        marker={"color": STEERED, "size": 9},
        hovertemplate="%{y:.3g} % of tokens<extra></extra>",
    )
    at = [place for place, dose in enumerate(doses) if dose == 1]
    values = [100 * value for value in numbers(controls, "repeated_change")]
    return [points, *([_draws([at[0] + 0.2] * len(values), values)] if at and values else [])]


def _draws(x: list[float], y: list[float], named: str = "") -> go.Scatter:
    marker = {"color": translucent(BASE, 0.7), "size": 8, "symbol": "circle", "line": {"color": "#5b6066", "width": 1}}
    return go.Scatter(
        x=x, y=y, mode="markers", name=plain(named), marker=marker, showlegend=bool(named),
        hovertemplate="%{y:.3g}<extra>one draw</extra>",
    )  # fmt: skip
