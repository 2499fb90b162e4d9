"""Figure of prefix substitution: what writing one token first gains, beside the vector that raises this token.

Columns read (a tidy frame, `part` names the grain):

- part "accuracy": vector ("base" | "trained" | "prefix" | "opener" | a kind of control, whose rows are the tokens that
  its draws chose), draw, token_id, token, stratum ("all" | "opens with it" | "opens otherwise"), rank, temperature,
  accuracy, gain, gain_low, gain_high, share, share_low, share_high, n.
- part "references": vector ("matched-entropy" | "1-shot" | ...), gain, gain_low, gain_high.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from figures.bars import Row, row_traces
from figures.controls import control_label
from figures.record import Record, count, drop, first, keep, numbers, part
from figures.style import dress
from figures.tokens import plot_label
from interp.numbers import shown

_STRATA = {"opens with it": "base opens with it", "opens otherwise": "base opens otherwise"}


def build(run: Record) -> go.Figure:
    """Draw the points gained by the vector, by its token and by the base's likeliest openers, with controls."""
    rows = part(run, "accuracy")
    rows = keep(rows, "temperature", max(numbers(rows, "temperature")))
    whole = keep(rows, "stratum", "all")
    prefix, openers = keep(whole, "vector", "prefix"), keep(whole, "vector", "opener")
    controls = drop(whole, "vector", "base", "trained", "prefix", "opener")
    text = plot_label(str(first(prefix, "token")))
    drawn = [_row(keep(whole, "vector", "trained"), "the vector itself")]
    drawn += [_row(prefix, f"<b>{text} written first</b>", controls=[100 * gain for gain in numbers(controls, "gain")])]
    inside = keep(rows, "vector", "prefix")
    for stratum, words in _STRATA.items():
        some = keep(inside, "stratum", stratum)
        drawn += [_row(some, f"{text}, {words} (n = {count(some)})")] if len(some) else []
    ranked = openers.sort_values("gain", ascending=False)
    drawn += [
        _row(ranked.iloc[[at]], f"opener {plot_label(str(ranked['token'].iloc[at]))}") for at in range(len(ranked))
    ]
    drawn += _references(run)
    return _figure(run, drawn, whole, controls)


def _figure(run: Record, drawn: list[Row], whole: pd.DataFrame, controls: pd.DataFrame) -> go.Figure:
    figure = go.Figure()
    named = control_label(controls).replace("controls, one mark a draw", "tokens chosen by controls, one mark a draw")
    for trace in row_traces(drawn, label="gain, 95 % interval", control=named, unit="points", legend=True):
        figure.add_trace(trace)
    figure.add_vline(x=0)  # pyright: ignore[reportArgumentType]
    labels = [row.label for row in drawn]
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.5, -0.5])
    base = 100 * numbers(keep(whole, "vector", "base"), "accuracy")[0]
    figure.update_xaxes(title_text=f"accuracy gained over the base, which has {shown(base, '.1f')} % (points)")
    title = "Does writing the promoted token first do what the vector does?"
    return dress(figure, run.meta, title, n=count(whole), height=230 + 26 * len(drawn), legend=True)


def _row(rows: pd.DataFrame, label: str, controls: list[float] | None = None) -> Row:
    value, low, high = (100 * numbers(rows, column)[0] for column in ("gain", "gain_low", "gain_high"))
    share = [numbers(rows, column)[0] for column in ("share", "share_low", "share_high")]
    if math.isfinite(share[0]):
        kept, least, most = (shown(100 * end, ".0f") for end in share)
        label += f"<br>{kept} % [{least}, {most}] of the vector\u2019s gain"
    return Row(label, value, low, high, controls or ())


def _references(run: Record) -> list[Row]:
    if "references" not in set(run.frame["part"]):
        return []
    rows = keep(run.frame, "part", "references")
    named = {"matched-entropy": "base at the vector\u2019s entropy"}
    order = [str(name) for name in rows["vector"]]
    return [_row(keep(rows, "vector", name), named.get(name, f"{name} prompt")) for name in dict.fromkeys(order)]
