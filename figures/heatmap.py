"""A heatmap with diverging colours centred on zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from figures.style import plain
from interp.errors import UserError


def draw_heatmap(
    values: ArrayLike,
    *,
    x_labels: Sequence[str],
    y_labels: Sequence[str],
    x_title: str,
    y_title: str,
    unit: str,
    texts: Sequence[Sequence[str]] | None = None,
    limit: float | None = None,
    upper: bool = False,
) -> go.Figure:
    """Draw a matrix, first row at the top.

    Args:
        values: rows by columns, in `unit`; NaN cells stay empty.
        x_labels: one a column.
        y_labels: one a row.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        unit: title of the colour bar.
        texts: a text for each cell, or None.
        limit: the absolute value at both ends of the colours; the largest one by default.
        upper: show only cells right of the diagonal, for a symmetric quantity of pairs.

    Raises:
        UserError: labels and values differ in number.
    """
    matrix = _matrix(values, (len(y_labels), len(x_labels)), upper)
    cells = go.Heatmap(
        z=matrix,
        text=None if texts is None else [[plain(cell) for cell in row] for row in texts],
        texttemplate=None if texts is None else "%{text}",
        textfont={"size": 11},
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate=f"{plain(y_title)} %{{y}}<br>{plain(x_title)} %{{x}}<br>%{{z:.4g}}<extra></extra>",
    )
    return go.Figure(cells).update_layout(
        xaxis=_axis(x_title, x_labels),
        yaxis={**_axis(y_title, y_labels), "autorange": "reversed"},
        coloraxis=_colours(matrix, unit, limit),
    )


def _matrix(values: ArrayLike, shape: tuple[int, int], upper: bool) -> np.ndarray:
    matrix = np.array(values, dtype=float)
    if matrix.shape != shape:
        raise UserError("a heatmap needs one label a row and a column", given=f"values {matrix.shape}, labels {shape}")
    if upper:
        matrix[np.tril_indices_from(matrix)] = np.nan
    return matrix


def _axis(title: str, labels: Sequence[str]) -> dict[str, object]:
    # numbers with texts on them, not categories: equal labels must not merge two rows
    texts = [plain(label) for label in labels]
    return {"title": plain(title), "showgrid": False, "ticks": "", "tickvals": [*range(len(labels))], "ticktext": texts}


def _colours(matrix: np.ndarray, unit: str, limit: float | None = None) -> dict[str, object]:
    finite = np.abs(matrix[np.isfinite(matrix)])
    bound = limit or (float(finite.max()) if finite.size else 0.0) or 1.0
    bar = {"title": {"text": plain(unit), "side": "right"}, "thickness": 12, "outlinewidth": 0, "len": 0.9}
    return {"cmin": -bound, "cmax": bound, "cmid": 0, "colorbar": bar}
