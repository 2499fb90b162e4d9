"""Tokens as text: labels that cannot mislead or break a page, coloured text, and a coloured row.

A label is the token between double quotes, with newlines, control and invisible characters, lone surrogates and
backslashes written as escapes, so that two different tokens never look the same.
"""

from __future__ import annotations

import html
import itertools
import unicodedata
from collections.abc import Sequence

import plotly.graph_objects as go

from figures.style import DIVERGING, MONO, plain
from interp.errors import UserError
from interp.numbers import shown

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", '"': '\\"'}
# category letters of characters that draw nothing, reorder their neighbours or have no glyph
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_ISOLATE, _POP = "\u2068", "\u2069"


def visible(text: str) -> str:
    """Write every character that cannot be seen as an escape, as in a Python string."""
    shown = "".join(_visible(character) for character in text)
    # a combining mark at the start would join the quote before it
    return f"\u25cc{shown}" if shown and unicodedata.category(shown[0]).startswith("M") else shown


def token_label(text: str, *, limit: int = 24) -> str:
    """Return a token as a plain-text label.

    Args:
        text: the decoded token.
        limit: characters shown before the label is cut with an ellipsis.
    """
    cut = text[: limit - 1]
    shown = visible(text) if len(text) <= limit else f"{visible(cut)}\u2026"
    if any(unicodedata.bidirectional(character) in {"R", "AL", "AN"} for character in shown):
        shown = f"{_ISOLATE}{shown}{_POP}"
    return f'"{shown}"'


def plot_label(text: str, *, limit: int = 24) -> str:
    """Return a token label escaped for Plotly's own small HTML."""
    return plain(token_label(text, limit=limit))


def tokens_html(texts: Sequence[str], values: Sequence[float], *, unit: str, limit: float | None = None) -> str:
    """Return tokens as HTML, each on a background that shows its value; every text is escaped.

    Args:
        texts: the decoded tokens.
        values: one number a token, in `unit`; positive is orange, negative blue.
        unit: what the numbers are, named in the tooltip.
        limit: the absolute value that takes the full colour; the largest one by default.

    Raises:
        UserError: the two sequences differ in length.
    """
    _check(texts, values)
    bound = limit or max((abs(float(value)) for value in values), default=0.0) or 1.0
    spans = [_span(text, float(value), unit, bound) for text, value in zip(texts, values, strict=True)]
    return f'<div class="tokens" style="font-family:{html.escape(MONO)};line-height:1.9">{"".join(spans)}</div>'


def token_row(texts: Sequence[str], values: Sequence[float], *, unit: str) -> go.Figure:
    """Return tokens as one row of a heatmap, for a value at each position.

    Raises:
        UserError: the two sequences differ in length.
    """
    _check(texts, values)
    bound = max((abs(float(value)) for value in values), default=0.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=[[float(value) for value in values]],
            customdata=[[plot_label(text) for text in texts]],
            coloraxis="coloraxis",
            hovertemplate="%{customdata}<br>position %{x}<br>" + plain(unit) + " %{z:.4g}<extra></extra>",
            xgap=1,
        )
    )
    figure.update_xaxes(tickvals=list(range(len(texts))), ticktext=[plot_label(text, limit=14) for text in texts])
    figure.update_xaxes(tickangle=-60, showgrid=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(coloraxis={"cmin": -bound, "cmax": bound, "colorbar": {"title": {"text": plain(unit)}}})
    return figure


def _visible(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    category = unicodedata.category(character)
    if category not in _INVISIBLE and (category != "Zs" or character == " "):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _span(text: str, value: float, unit: str, bound: float) -> str:
    red, green, blue, ink = _shade(max(-1.0, min(1.0, value / bound)) if value == value else 0.0)
    # a line break after a newline token keeps the shape of the text
    tail = "<br>" * text.count("\n")
    style = f"background:rgb({red},{green},{blue});color:{ink};white-space:pre-wrap;border-radius:2px;padding:1px 0"
    tip = html.escape(f"{token_label(text)}  {unit} {shown(value, '.4g')}", quote=True)
    return f'<bdi title="{tip}" style="{style}">{html.escape(visible(text), quote=True)}</bdi>{tail}'


def _shade(position: float) -> tuple[int, int, int, str]:
    """Interpolate the diverging scale at a position in [-1, 1] and choose an ink that reads on it."""
    at = (position + 1) / 2
    for (left, first), (right, second) in itertools.pairwise(DIVERGING):
        if at <= right:
            share = (at - left) / (right - left)
            channels = [round(a + share * (b - a)) for a, b in zip(_rgb(first), _rgb(second), strict=True)]
            dark = 0.299 * channels[0] + 0.587 * channels[1] + 0.114 * channels[2] < 140
            return channels[0], channels[1], channels[2], "#ffffff" if dark else "#1b1d20"
    raise AssertionError("the scale ends at 1")


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _check(texts: Sequence[str], values: Sequence[float]) -> None:
    if len(texts) != len(values):
        raise UserError("one value a token is needed", given=f"{len(texts)} tokens, {len(values)} values")
