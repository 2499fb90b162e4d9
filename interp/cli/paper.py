"""`interp paper`: every figure and table of the paper's manifest, and one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from interp import registry
from interp.before_loading import check_call
from interp.cli.asking import asking_options, pop_asking
from interp.cli.options import COUNT, DEFAULT_MODEL, POSITIVE, add, jobs_option, reads_vectors
from interp.cli.plan import table
from interp.cli.suite import Given, run_all
from interp.costs import MACHINES
from interp.errors import UserError
from interp.experiment import SCALES
from interp.profiles import PROFILES, Profile
from interp.reading import Reading

SAE_EXPERIMENTS = ("feature-correctness", "sae-attribution")
"""They take `--sae`."""
ADAPTER_EXPERIMENTS = ("adaptive-scaling",)
"""They take `--adapters`: their subject is the strength of a rank-1 adapter."""


@add(jobs_option(), *asking_options(without=["tokens"]))
@click.command("paper")
@click.argument("figures", nargs=-1, metavar="[FIGURE ...]")
@click.option("--profile", metavar="|".join(PROFILES), default=DEFAULT_MODEL, show_default=True, help="Which model.")
@click.option("--model", metavar="M", help="Where the profile's weights are: a folder, in place of the hub's.")
@click.option("--task", metavar="T", help="Problems, in place of the profile's.")
@click.option("--vectors", metavar="V", help="Vectors to study; the model's own if not given.")
@click.option("--adapters", metavar="V", help="Rank-1 adapters for adaptive-scaling.")
@click.option("--sae", metavar="SAE", help="Autoencoder of the change by the vectors (see `interp sae train`).")
@click.option(
    "--scale", metavar="|".join(SCALES), help="Size of the runs. [default: quick; full on the paper's models]"
)
@click.option("--n", type=COUNT, metavar="N", help="Problems of every experiment, in place of the scale's.")
@click.option("--out", metavar="DIR", default="paper", show_default=True, help="Folder of the report and its runs.")
@click.option("--memory", type=POSITIVE, metavar="GB", help="Bound on what generation may hold.")
@click.option("--images", is_flag=True, help="Write PNG, SVG and PDF too (needs Chrome).")
@click.option("--dry-run", is_flag=True, help="Print completions, tokens, memory and hours; run nothing.")
@click.option("--gpu", metavar="|".join(MACHINES), help="For --dry-run: the device that hours are told for.")
@click.option("--tokens", type=COUNT, metavar="N", help="Longest completion; for --dry-run: the mean.")
@reads_vectors
def command(
    figures: tuple[str, ...],
    profile: str,
    model: str | None,
    task: str | None,
    vectors: str | None,
    adapters: str | None,
    sae: str | None,
    scale: str | None,
    n: int | None,
    out: str,
    memory: float | None,
    images: bool,
    dry_run: bool,
    gpu: str | None,
    tokens: int | None,
    jobs: int | None,
    reading: Reading,
    **asked: Any,
) -> int:
    """Make the paper's figures and tables, and a report with all of them."""
    known = _profile(profile)
    scale = known.scale if scale is None else scale
    if scale not in SCALES:
        raise UserError("no such scale", given=scale, works=f"use one of {', '.join(SCALES)}")
    if gpu is not None and gpu not in MACHINES:
        raise registry.unknown("device", gpu, list(MACHINES))
    named = {"model": model, "task": task, "vectors": vectors, "adapters": adapters, "sae": sae}
    check_call(named, out=out, memory=memory)
    asking = pop_asking({**asked, "tokens": tokens})
    entries = [_with(entry, n, sae) for entry in chosen(figures)]
    if vectors is None:
        reading.refuse(None)
    if dry_run:
        from interp.planned_model import planned

        about = planned(known, model, task)
        click.echo(table(entries, about, scale, machine=gpu or known.machine, tokens=tokens, vectors=vectors))
        return 0
    special = {str(name): adapters for name in ADAPTER_EXPERIMENTS} if adapters else dict[str, str]()
    source, problems = model or known.model, task or known.task
    common: dict[str, Any] = {"memory": memory, "jobs": jobs, "special": special, "reading": reading, "asking": asking}
    given = Given(source, vectors, Path(out), scale, problems, **common)
    write = partial(registry.load("reports", "write"), entries, out=Path(out), scale=scale)
    made, failed, code = run_all(entries, given, write)
    click.echo(write(made, failed, images=images))
    return code


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise registry.unknown("profile", name, list(PROFILES))
    return PROFILES[name]


def _with(entry: Any, n: int | None, sae: str | None) -> Any:
    """An entry with the settings of this call."""
    given: dict[str, Any] = {"n": n} if n is not None else {}
    if sae is not None and entry.experiment in SAE_EXPERIMENTS:
        given["sae"] = sae
    return replace(entry, settings={**entry.settings, **given}) if given else entry


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
