"""`interp paper`: every figure and table of the paper's manifest, and one report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from interp import registry
from interp.cli.options import DEFAULT_MODEL, add, jobs_option
from interp.cli.suite import Given, run_all
from interp.errors import UserError
from interp.experiment import DEFAULT_SCALE, SCALES
from interp.given import check_paths

PROFILES = (DEFAULT_MODEL, "qwen2.5-math-7b", "llama-3.1-8b-instruct")
"""Profile -> model."""


@add(jobs_option())
@click.command("paper")
@click.argument("figures", nargs=-1, metavar="[FIGURE ...]")
@click.option("--profile", metavar="|".join(PROFILES), default=DEFAULT_MODEL, show_default=True, help="Which model.")
@click.option("--vectors", metavar="V", help="Vectors to study; the model's own if not given.")
@click.option("--scale", metavar="|".join(SCALES), default=DEFAULT_SCALE, show_default=True, help="Size of the runs.")
@click.option("--out", metavar="DIR", default="paper", show_default=True, help="Folder of the report and its runs.")
@click.option("--memory", type=float, metavar="GB", help="Bound on what generation may hold.")
@click.option("--images", is_flag=True, help="Write PNG, SVG and PDF too (needs Chrome).")
@click.option("--dry-run", is_flag=True, help="Say what would be run.")
def command(
    figures: tuple[str, ...],
    profile: str,
    vectors: str | None,
    scale: str,
    out: str,
    memory: float | None,
    images: bool,
    dry_run: bool,
    jobs: int | None,
) -> int:
    """Make the paper's figures and tables, and a report with all of them."""
    if scale not in SCALES:
        raise UserError("no such scale", given=scale, works=f"use one of {', '.join(SCALES)}")
    if profile not in PROFILES:
        raise registry.unknown("profile", profile, list(PROFILES))
    check_paths(vectors=vectors)
    entries = chosen(figures)
    if dry_run:
        for entry in entries:
            click.echo(_plan(entry, scale))
        return 0
    given = Given(profile, vectors, Path(out), scale, memory=memory, jobs=jobs)
    write = partial(registry.load("reports", "write"), entries, out=Path(out), scale=scale)
    made, failed, code = run_all(entries, given, write)
    click.echo(write(made, failed, images=images))
    return code


def chosen(names: Sequence[str]) -> list[Any]:
    """Entries of the manifest by key or by the paper's figure number; all of them if none is named.

    Raises:
        UserError: there is no such figure.
    """
    entries = list(registry.load("reports", "paper")())
    if not names:
        return entries
    found: list[Any] = []
    for name in names:
        hits = [entry for entry in entries if name.lower() == entry.key or name.lower() in entry.covers]
        if not hits:
            raise registry.unknown("figure", name, [entry.key for entry in entries])
        found += [entry for entry in hits if entry not in found]
    return found


def _plan(entry: Any, scale: str) -> str:
    settings = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in entry.settings.items())
    what = f"interp run {entry.experiment} --scale {scale} {settings}".rstrip()
    return f"{entry.label}: {entry.title}: {what if entry.ready else 'not available in this version'}"
