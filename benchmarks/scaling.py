"""What a sweep and a decoding step cost as layers, positions and rows grow, as a figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.bench import Bench
from benchmarks.machine import median_seconds, products
from benchmarks.measure import seconds
from interp import Node, PatchSweep, Prompt, Site

STEPS = 10
"""Decoding steps between the two lengths whose difference is timed."""
ORANGE, GREY = "#F28E2B", "#999999"


def draw(bench: Bench, file: Path) -> None:
    """Measure and write an SVG with three panels."""
    titles = ("all positions of one block", "all blocks and positions", "one decoding step")
    figure = make_subplots(1, 3, subplot_titles=titles)
    curves = (_blocks(bench), _positions(bench), _rows(bench))
    for column, (axis, unit, lines) in enumerate(curves, 1):
        for name, colour, points in lines:
            x, low, middle, high = zip(*points, strict=True)
            error = {
                "type": "data",
                "array": [h - m for h, m in zip(high, middle, strict=True)],
                "arrayminus": [m - one for m, one in zip(middle, low, strict=True)],
            }
            trace = go.Scatter(x=x, y=middle, error_y=error, name=name, line_color=colour, showlegend=column == 3)
            figure.add_trace(trace, 1, column)
        figure.update_xaxes(title=axis, row=1, col=column)
        figure.update_yaxes(title=unit, rangemode="tozero", row=1, col=column)
    title = f"{bench.model.name}: median of {bench.rounds} rounds, bars from fastest to slowest"
    figure.update_layout(template="simple_white", width=1100, height=380, title=title)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.write_image(file)


Point = tuple[int, float, float, float]
Points = list[Point]
Curve = tuple[str, str, list[tuple[str, str, Points]]]


def _blocks(bench: Bench) -> Curve:
    length = bench.size(20, 6)
    sweep = PatchSweep(bench.model, *bench.pair(length, 0), streams=("resid_post",))
    points: Points = []
    for layer in (0, 7, 14, 21, 29):
        nodes = [Node(Site(layer, "resid_post"), position) for position in range(length)]
        points.append((layer, *_milliseconds(lambda nodes=nodes: sweep.final(nodes), bench, len(nodes))))
    return "patched block", "ms a patch", [("patch sweep", ORANGE, points)]


def _positions(bench: Bench) -> Curve:
    points: Points = []
    for length in (8, 16, bench.size(32, 24)):
        sweep = PatchSweep(bench.model, *bench.pair(length, 0))
        nodes = sweep.nodes[:: bench.size(4, 60)]
        points.append((length, *_milliseconds(lambda s=sweep, n=nodes: s.final(n), bench, len(nodes))))
    return "tokens in the row", "ms a patch", [("patch sweep", ORANGE, points)]


def _rows(bench: Bench) -> Curve:
    whole, alone = list[Point](), list[Point]()
    for rows in (1, 4, 16, bench.size(64, 8)):
        prompts = bench.prompts(rows, shared=False)

        def step(prompts: Sequence[Prompt] = tuple(prompts)) -> float:
            """Seconds of a decoding step; long and short follow each other, so that a disturbance meets both."""
            long, short = (
                seconds(partial(bench.model.generate, prompts, max_new_tokens=length, temperature=0.0))
                for length in (STEPS + 2, 2)
            )
            return (long - short) / STEPS

        taken = sorted(1e3 * step() / rows for _ in range(bench.rounds))
        whole.append((rows, taken[0], statistics.median(taken), taken[-1]))
        middle, low, high = median_seconds(products(bench, rows, unembed=True), bench.rounds)
        alone.append((rows, 1e3 * low / rows, 1e3 * middle / rows, 1e3 * high / rows))
    return "rows", "ms a row", [("whole step", ORANGE, whole), ("matrix products alone", GREY, alone)]


def _milliseconds(work: object, bench: Bench, n: int) -> tuple[float, float, float]:
    middle, low, high = median_seconds(work, bench.rounds)  # pyright: ignore[reportArgumentType]
    return 1e3 * low / n, 1e3 * middle / n, 1e3 * high / n
