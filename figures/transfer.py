"""Figures of transfer: points gained by each recipient with each donor's vectors, as rows of points and as a table.

Columns read (part "accuracy"): recipient, vector ("base" | "trained" | "donor" | a kind of control), draw, donor,
accuracy, gain, gain_low, gain_high, share, share_low, share_high, boxed, n.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.bars import Row, row_traces
from figures.controls import control_label
from figures.record import Record, count, drop, keep, numbers, part
from figures.style import dress, plain, written
from interp.numbers import shown

_NAMES = {"task-prompt": "its own prompt", "other-system-line": "other system line", "no-example": "no worked example"}
_DASH = "\u2013"
_LINES = {"color": "#e7e7e4"}


def build(run: Record) -> go.Figure:
    """Draw the points gained in each recipient, a panel each, by every donor, with control sets as marks."""
    rows = part(run, "accuracy")
    recipients = list(dict.fromkeys(str(name) for name in rows["recipient"]))
    donors = _donors(rows)
    titles = [_panel(keep(rows, "recipient", name), name) for name in recipients]
    figure = make_subplots(
        rows=1, cols=len(recipients), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=titles
    )
    controls = drop(rows, "vector", "base", "trained", "donor")
    kinds = sorted({str(kind) for kind in controls["vector"]})
    for column, name in enumerate(recipients, start=1):
        own = keep(rows, "recipient", name)
        drawn = [_row(keep(keep(own, "vector", vector), "donor", donor), label) for vector, donor, label in donors]
        drawn += [_marks(keep(own, "vector", kind), kind) for kind in kinds]
        named = control_label(keep(controls, "recipient", name))
        for trace in row_traces(drawn, label="gain, 95 % interval", control=named, unit="points", legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        figure.add_vline(x=0, row=1, col=column)  # pyright: ignore[reportArgumentType]
    labels = [plain(label) for _, _, label in donors] + [plain(kind) for kind in kinds]
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.5, -0.5])
    figure.update_xaxes(title_text="points gained", matches="x")
    figure.update_annotations(font={"size": 13})
    title = "What do the vectors give to other prompts and models?"
    return dress(figure, run.meta, title, n=count(rows), height=280 + 34 * len(labels), gap=44, legend=True)


def build_table(run: Record) -> go.Figure:
    """Draw the table: accuracy and gain of each recipient with each donor, and the share of its own vectors' gain."""
    rows = drop(part(run, "accuracy"), "draw", *range(1, 1000))
    kept = keep(rows, "vector", "base", "trained", "donor")
    names = [_recipient(str(name)) for name in kept["recipient"]]
    donors = [_label(str(vector), str(donor)) for vector, donor in zip(kept["vector"], kept["donor"], strict=True)]
    cells = [
        [plain(name) for name in names],
        [plain(donor) for donor in donors],
        _percent(kept, "accuracy"),
        _interval(kept, "gain", 1),
        _interval(kept, "share", 0),
        _percent(kept, "boxed"),
    ]
    heads = ["recipient", "vectors of", "accuracy (%)", "gain, points [95 %]", "share of own gain (%)", "boxed (%)"]
    table = go.Table(
        columnwidth=[1.2, 1.4, 0.9, 1.6, 1.3, 0.7],
        header={
            "values": [f"<b>{head}</b>" for head in heads],
            "align": "left",
            "fill": {"color": "#f4f2ee"},
            "line": _LINES,
        },
        cells={"values": cells, "align": "left", "height": 24, "fill": {"color": "rgba(0,0,0,0)"}, "line": _LINES},
    )
    title = "Transfer: accuracy of each recipient with each donor's vectors"
    return dress(go.Figure(table), run.meta, title, n=count(rows), height=190 + 26 * (len(kept) + 1))


def _donors(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    named = keep(rows, "vector", "trained", "donor")
    pairs = dict.fromkeys(zip(named["vector"].astype(str), named["donor"].astype(str), strict=True))
    return [(vector, donor, _label(vector, donor)) for vector, donor in pairs]


def _label(vector: str, donor: str) -> str:
    if vector == "base":
        return "none"
    return donor.rpartition("/")[2] if vector == "trained" else f"{donor} (own)" if donor == "own" else donor


def _recipient(name: str) -> str:
    return _NAMES.get(name, name.rpartition("/")[2])


def _panel(rows: pd.DataFrame, name: str) -> str:
    base = numbers(keep(rows, "vector", "base"), "accuracy")[0]
    return f"<b>{plain(_recipient(name))}</b><br>{shown(100 * base, '.0f')} % without vectors"


def _row(rows: pd.DataFrame, label: str) -> Row:
    if not len(rows):
        return Row(label, math.nan)
    return Row(label, *(100 * numbers(rows, name)[0] for name in ("gain", "gain_low", "gain_high")))  # pyright: ignore[reportArgumentType]


def _marks(rows: pd.DataFrame, kind: str) -> Row:
    return Row(kind, math.nan, controls=[100 * value for value in numbers(rows, "gain")])


def _percent(rows: pd.DataFrame, name: str) -> list[str]:
    return [shown(100 * value, ".1f") for value in numbers(rows, name)]


def _interval(rows: pd.DataFrame, name: str, digits: int) -> list[str]:
    ends = zip(*(numbers(rows, f"{name}{end}", drawn=False) for end in ("", "_low", "_high")), strict=True)
    bases = [vector == "base" for vector in rows["vector"]]
    return [
        _DASH if base or not math.isfinite(value) else
        "{} [{}, {}]".format(*(written(100 * end, f"z.{digits}f") for end in (value, low, high)))
        for base, (value, low, high) in zip(bases, ends, strict=True)
    ]  # fmt: skip
