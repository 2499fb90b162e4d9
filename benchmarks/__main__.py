"""`make bench`: the comparisons of docs/performance.md, which it rewrites."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import click

DOCUMENT, FIGURE = Path("docs/performance.md"), Path("docs/images/performance.svg")


@click.command()
@click.option("--only", default="", help="Comma-separated: residual, heads, steered, layers, persistence, rloo, ...")
@click.option("--rounds", default=5, show_default=True, help="Timed rounds of each comparison.")
@click.option("--small", is_flag=True, help="Sizes that only show that everything runs.")
@click.option("--write", is_flag=True, help=f"Write the table and the figure into {DOCUMENT} and {FIGURE}.")
def main(only: str, rounds: int, small: bool, write: bool) -> None:
    """Compare values, then times, with other libraries; print a table."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")  # the peers'
    logging.disable(logging.WARNING)
    from benchmarks import generation, machine, patching, persistence, report, rloo, scaling
    from benchmarks.bench import Bench
    from benchmarks.measure import Line

    every: dict[str, Callable[[Bench], list[Line]]] = {
        "start": machine.start_up,
        "residual": patching.residual,
        "heads": patching.heads,
        "steered": generation.steered,
        "layers": generation.layers,
        "persistence": persistence.persistence,
        "rloo": rloo.rloo,
        "share": machine.shares,
    }
    chosen = only.split(",") if only else [*every, "figure"]
    unknown = set(chosen) - {*every, "figure"}
    if unknown:
        raise click.UsageError(f"no such comparison: {min(unknown)}; there are {', '.join(every)}, figure")
    bench, lines, begun = Bench(rounds, small), list[Line](), time.perf_counter()
    for name in every:
        if name in chosen:
            found = every[name](bench)
            lines += found
            report.show(found, f"{bench.model.name}, {rounds} rounds; {(time.perf_counter() - begun) / 60:.1f} min")
    if "figure" in chosen and (write or only):
        scaling.draw(bench, FIGURE if write else Path("runs/performance.svg"))
    if write:
        report.write(lines, report.machine(rounds), DOCUMENT, FIGURE if "figure" in chosen else None)
    click.echo(f"{(time.perf_counter() - begun) / 60:.1f} minutes", err=True)


if __name__ == "__main__":
    main()
