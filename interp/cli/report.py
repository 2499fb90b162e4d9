"""`interp report RUN ...`: one page of one's own runs, torch-free."""

from __future__ import annotations

from pathlib import Path

import click

from interp import registry
from interp.cli.show import find_run
from interp.files import check_out


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN ...")
@click.option("--title", metavar="TEXT", default="Runs", show_default=True, help="Title of the page.")
@click.option("--out", metavar="DIR", default="report", show_default=True, help="Folder to write to.")
@click.option("--runs-in", metavar="DIR", default="runs", show_default=True, help="Folder of runs, for keys.")
def command(runs: tuple[str, ...], title: str, out: str, runs_in: str) -> None:
    """Write one page with the figures, methods and tables of runs."""
    check_out(out)
    records = [find_run(run, runs_in) for run in runs]
    click.echo(registry.load("reports", "runs")(records, Path(out), title=title))
