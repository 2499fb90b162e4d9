"""The table, on the terminal and in docs/performance.md."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Line, seconds

HEADER = ("comparison", "on", "by", "seconds", "times ours", "memory, MB", "values")
LIBRARIES = ("torch", "transformers", "transformer-lens", "nnsight", "repeng", "trl")
BEGIN, END = "<!-- table: begin, written by `make bench` -->", "<!-- table: end -->"


def cells(line: Line) -> tuple[str, ...]:
    """A line as text."""
    time = f"{line.seconds:.3g} ({line.fastest:.3g}-{line.slowest:.3g})"
    ratio = f"{line.ratio:.2g} ({line.ratio_low:.2g}-{line.ratio_high:.2g})" if line.ratio != 1 else "1"
    memory = "" if math.isnan(line.memory_mb) else f"{line.memory_mb:.0f}"
    return line.comparison, line.setting, line.name, time, ratio, memory, line.note


def show(lines: Sequence[Line], title: str) -> None:
    """Print the table."""
    table = Table(*HEADER, title=title)
    for one in lines:
        table.add_row(*cells(one))
    Console(width=200).print(table)


def machine(rounds: int) -> str:
    """What ran, in a sentence."""
    square = torch.randn(1024, 1024)
    speed = 2 * 1024**3 / min(seconds(lambda: square @ square) for _ in range(10)) / 1e9
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{platform.machine()}, {torch.get_num_threads()} threads, {speed:.0f} GFLOP/s in float32 on 1024 x 1024 "
        f"matrices; {libraries}; median of {rounds} rounds (fastest-slowest), contenders in turns, "
        "ratios within a round."
    )


def write(lines: Sequence[Line], about: str, file: Path, figure: Path | None) -> None:
    """Put the table, and the figure if there is one, into the document, between its two marks.

    Raises:
        SystemExit: the document has no marks.
    """
    text = file.read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{file} has no place for the table: it needs the lines {BEGIN} and {END}")
    rows = ["| " + " | ".join(row) + " |" for row in (HEADER, ["---"] * len(HEADER), *map(cells, lines))]
    shown = (
        [] if figure is None else [f"![Cost against blocks, positions and rows]({figure.relative_to(file.parent)})", ""]
    )
    table = "\n".join((BEGIN, "", about, "", *rows, "", *shown, END))
    file.write_text(text[: text.index(BEGIN)] + table + text[text.index(END) + len(END) :])
