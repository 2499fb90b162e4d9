"""A plot for runs without a figure builder of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.errors import UserError
from interp.markup import text
from interp.store import RunRecord

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def plain_figure(record: RunRecord) -> go.Figure:
    """Means of the last numeric column over the first one, a trace for each value of the first text column.

    Raises:
        UserError: the frame has no numbers.
    """
    import plotly.graph_objects as go

    frame, columns = record.frame, record.meta["columns"]
    numeric = [name for name in frame.columns if frame[name].dtype.kind in "iufb" and name != "example"]
    texts = [name for name in frame.columns if name not in numeric and name != "example"]
    if not numeric:
        raise UserError("this run has no numbers to plot", works=f"its columns: {', '.join(frame.columns)}")
    x, y = (numeric[0] if len(numeric) > 1 else (texts or numeric)[0]), numeric[-1]
    group = texts[0] if texts and texts[0] != x else None
    parts = [(text(value), rows) for value, rows in frame.groupby(group, sort=False)] if group else [("", frame)]
    figure = go.Figure([_trace(rows, x, y, name) for name, rows in parts])
    n = record.meta["n"]
    figure.update_layout(
        template="plotly_white",
        title=f"{text(record.meta['experiment'])}: mean of {text(y)}, n = {n}",
        xaxis_title=text(columns.get(x, x)),
        yaxis_title=text(columns.get(y, y)),
        showlegend=group is not None,
    )
    return figure


def _trace(rows: pd.DataFrame, x: str, y: str, name: str) -> go.Scatter:
    """Means with bars of one standard error over the rows."""
    import plotly.graph_objects as go

    places = list(dict.fromkeys(sorted(rows[x])))
    values = [rows.loc[rows[x] == place, y].astype(float) for place in places]
    error = [float(value.sem()) if len(value) > 1 else 0.0 for value in values]
    bars = {"type": "data", "array": error}
    mean = [float(value.mean()) for value in values]
    return go.Scatter(x=places, y=mean, error_y=bars, mode="lines+markers", name=name)
