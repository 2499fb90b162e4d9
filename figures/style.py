"""Colours, template, title block and banner: one look for every figure.

The template is passed to each figure; no global default is ever set, so importing this changes nobody's plots.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

from interp.active_edits import active_vectors
from interp.numbers import shown

STEERED = "#F28E2B"
CONTRAST = "#56B4E9"
BASE = "#999999"
INK = "#1b1d20"
DIVERGING: tuple[tuple[float, str], ...] = (
    (0.0, "#1f6fa8"),
    (0.25, "#56B4E9"),
    (0.5, "#ffffff"),
    (0.75, "#F28E2B"),
    (1.0, "#b35806"),
)
SANS = "'Source Sans 3', 'Source Sans Pro', 'Segoe UI', 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
MONO = "'JetBrains Mono', 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"

EMBEDDED_MODEL = "smollm2-135m-instruct"
_BANNER = "SmolLM2-135M-Instruct (4-bit weights, dequantised), {task}: concerns this model only."
_DEFAULT_TASK = "synthetic word problems"
_THEMES = {
    "light": {"ink": INK, "soft": "#5b6066", "grid": "#e7e7e4", "paper": "#ffffff", "axis": "#8b9096"},
    "dark": {"ink": "#e9e7e2", "soft": "#a9adb3", "grid": "#33373d", "paper": "#17191d", "axis": "#7d838b"},
}
# pixels between the top of the figure and its panels: title, subtitle, and the banner where there is one
_TOP, _BANNER_HEIGHT, _SECOND_LINE = 78, 22, 17
_LINE = 110
"""Characters of a subtitle that fit beside each other in a figure of the usual width."""


@dataclass(frozen=True)
class Reference:
    """A dashed line at one value, such as the accuracy of the base model.

    Args:
        label: what the line stands for.
        value: where it stands, in the unit of the axis.
    """

    label: str
    value: float


def template(theme: Literal["light", "dark"] = "light") -> go.layout.Template:
    """Return the template of one theme; the ink of text, axes, references and outlines comes from here alone."""
    ink, soft, grid, paper, axis = (_THEMES[theme][key] for key in ("ink", "soft", "grid", "paper", "axis"))
    axes: dict[str, Any] = {
        "gridcolor": grid,
        "gridwidth": 1,
        "linecolor": axis,
        "showline": True,
        "mirror": False,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": axis,
        "tickfont": {"size": 12, "color": ink},
        "title": {"font": {"size": 13, "color": ink}, "standoff": 8},
        "automargin": True,
    }
    bar = {"title": {"font": {"size": 12.5, "color": ink}}, "tickfont": {"size": 11.5, "color": ink}}
    layout: dict[str, Any] = {
        "font": {"family": SANS, "size": 13, "color": ink},
        "title": {"font": {"size": 17, "color": ink}, "subtitle": {"font": {"size": 12.5, "color": soft}}},
        "paper_bgcolor": paper,
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": [STEERED, CONTRAST, BASE, "#009E73", "#CC79A7", "#0072B2"],
        "xaxis": axes,
        "yaxis": axes,
        "coloraxis": {"colorscale": [list(stop) for stop in DIVERGING], "colorbar": bar},
        "legend": {"font": {"size": 12, "color": ink}, "bgcolor": "rgba(0,0,0,0)"},
        "annotationdefaults": {"font": {"color": soft, "size": 12}, "showarrow": False},
        "shapedefaults": {"line": {"color": ink, "width": 1.2, "dash": "dash"}},
        "updatemenudefaults": {"bgcolor": paper, "bordercolor": axis, "font": {"color": ink}},
        "hoverlabel": {"font": {"family": SANS, "size": 12.5}, "align": "left"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": axis, "activecolor": ink},
    }
    return go.layout.Template(layout=layout)


def plain(text: object) -> str:
    """Escape a text for Plotly, which reads a small set of HTML tags and entities in every label."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def written(value: float, spec: str = "zg") -> str:
    """Format a number with a true minus sign; a rounding error and a negative zero are shown as 0."""
    return shown(value, spec).replace("infinity", "\u221e").replace("-", "\u2212")


def log_ticks(values: Iterable[float]) -> dict[str, Any]:
    """Return ticks of a logarithmic axis: 1, 2 and 5 of each decade that positive values cover, written out."""
    seen = [value for value in values if 0 < value < math.inf] or [1.0]  # a vector without effect has no KL above 0
    decades = range(math.floor(math.log10(min(seen))), math.ceil(math.log10(max(seen))) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    return {"tickvals": ticks, "ticktext": [f"{tick:.12g}" for tick in ticks]}


def subtitle(meta: Mapping[str, Any], *, n: int | None = None, unit: str = "problems") -> str:
    """Return the second line of a title: model, what was on, n and scale; what the run does not name is left out."""
    count = n if n is not None else meta.get("n")
    names = [_name(meta.get("model")), active_vectors(meta, most=1)]
    parts = [*names, f"n = {count} {unit}" if count is not None else "", str(meta.get("scale") or "")]
    if meta.get("partial"):
        parts.append("unfinished run")
    shown = [plain(part) for part in parts if part]
    line = " · ".join(shown)
    if len(line) <= _LINE or len(shown) < 2:
        return line
    return f"{shown[0]} · {shown[1]}<br>{' · '.join(shown[2:])}"


def banner(meta: Mapping[str, Any]) -> str | None:
    """Return the sentence that every figure of the embedded model carries, or None for any other model."""
    if _name(meta.get("model")) != EMBEDDED_MODEL:
        return None
    task = _name(meta.get("task"))
    return _BANNER.format(task=_DEFAULT_TASK if not task or task.startswith("word-problems") else f"task {task}")


def dress(
    figure: go.Figure,
    meta: Mapping[str, Any],
    title: str,
    *,
    n: int | None = None,
    unit: str = "problems",
    height: int = 460,
    gap: int = 0,
    legend: bool = False,
) -> go.Figure:
    """Give a figure its template, title block, margins and, on the embedded model, the banner.

    Args:
        figure: changed in place and returned.
        meta: the contents of run.json; every key is optional.
        title: the first line; it is escaped here.
        n: the number of units behind the figure, where it is not the run's.
        unit: what n counts.
        height: of the whole figure, in pixels.
        gap: pixels kept free between the title block and the panels, for a menu or panel titles.
        legend: keep room for a legend at the bottom and put it there.
    """
    note, second = banner(meta), subtitle(meta, n=n, unit=unit)
    top = _TOP + (_SECOND_LINE if "<br>" in second else 0)
    figure.update_layout(
        template=template(),
        height=height + top - _TOP,
        margin={"t": top + gap + (_BANNER_HEIGHT if note else 0), "l": 64, "r": 24, "b": 96 if legend else 64},
        title={
            "text": f"<b>{plain(title)}</b>",
            "subtitle": {"text": second},
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 16},
        },
    )
    if legend:
        bottom = {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"}
        figure.update_layout(legend=bottom, showlegend=True)
    if note:
        _write_banner(figure, note, gap)
    return figure


def references(figure: go.Figure, lines: list[Reference], *, axis: Literal["x", "y"] = "y", panel: int = 1) -> None:
    """Draw dashed reference lines, each with its label and value at the end of the line.

    Args:
        figure: changed in place.
        lines: may be empty.
        axis: whether the value is read on x or y.
        panel: number of the subplot, counted from 1.
    """
    suffix = "" if panel == 1 else str(panel)
    for line, shift in zip(lines, _spread([line.value for line in lines]), strict=True):
        label = f"{plain(line.label)} {shown(line.value, '.3g')}"
        if axis == "y":
            ends = {"x0": 0, "x1": 1, "xref": f"x{suffix} domain", "y0": line.value, "y1": line.value}
            place = {"x": 1, "xref": f"x{suffix} domain", "y": line.value, "yref": f"y{suffix}", "xanchor": "right"}
            figure.add_shape(type="line", yref=f"y{suffix}", **ends)
        else:
            ends = {"y0": 0, "y1": 1, "yref": f"y{suffix} domain", "x0": line.value, "x1": line.value}
            place = {"y": 1, "yref": f"y{suffix} domain", "x": line.value, "xref": f"x{suffix}", "xanchor": "left"}
            figure.add_shape(type="line", xref=f"x{suffix}", **ends)
        figure.add_annotation(text=label, yanchor="bottom", yshift=shift, font={"size": 11}, **place)


def _spread(values: list[float]) -> list[int]:
    """Shift a label below its line where the next line is close above it."""
    span = (max(values) - min(values)) or 1.0 if values else 1.0
    close = [any(0 < other - value < 0.06 * span for other in values) for value in values]
    return [-16 if flag else 0 for flag in close]


def _write_banner(figure: go.Figure, note: str, gap: int) -> None:
    # anchored in pixels from the top of the plotting area, which the margins fix; an image export keeps it
    figure.add_annotation(
        name="banner",
        text=plain(note),
        x=0,
        xref="paper",
        xanchor="left",
        borderpad=0,
        y=1,
        yref="paper",
        yanchor="bottom",
        yshift=_BANNER_HEIGHT - 8 + gap,
        font={"size": 11.5},
        showarrow=False,
    )


def _name(value: object) -> str:
    if isinstance(value, Mapping):
        return str(value.get("name") or "")
    return str(value or "")
