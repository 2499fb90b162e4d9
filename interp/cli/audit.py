"""`interp audit`: the control suite on anyone's vectors, as a one-page card."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import click

from interp import registry
from interp.before_loading import check_call
from interp.cli.asking import asks
from interp.cli.options import (
    add,
    foreign_option,
    jobs_option,
    memory_option,
    model_option,
    out_option,
    prompts_option,
    reads_vectors,
    task_option,
)
from interp.cli.suite import Given, Shared, run_all
from interp.errors import UserError
from interp.experiment import DEFAULT_SCALE, SCALES
from interp.given import describe_vectors
from interp.reading import Reading


@add(model_option(), foreign_option(), task_option(), prompts_option())
@add(memory_option(), jobs_option(), out_option("audit"))
@click.command("audit")
@click.argument("vectors", metavar="V")
@click.option("--scale", metavar="|".join(SCALES), default=DEFAULT_SCALE, show_default=True, help="Size of the runs.")
@click.option("--dry-run", is_flag=True, help="Say what would be run.")
@reads_vectors
@asks()
def command(
    vectors: str,
    model: str,
    foreign: bool,
    task: str | None,
    prompts: str | None,
    memory: float | None,
    jobs: int | None,
    out: str,
    scale: str,
    dry_run: bool,
    reading: Reading,
    asking: Any,
) -> int:
    """Measure what vectors gain, what they cost and how they act, beside controls: one page."""
    if scale not in SCALES:
        raise UserError("no such scale", given=scale, works=f"use one of {', '.join(SCALES)}")
    check_call({"vectors": vectors, "model": model, "task": task, "prompts": prompts}, out=out, memory=memory)
    entries = registry.load("reports", "audit")()
    if dry_run:
        named = {"model": model, "vectors": vectors, "task": task, "prompts": prompts}
        flags = shlex.join(f"--{name}={value}" for name, value in named.items() if value is not None)
        for entry in entries:
            click.echo(f"{entry.title}: interp run {entry.experiment} --scale {scale} {flags}")
        return 0
    common: dict[str, Any] = {"prompts": prompts, "foreign": foreign, "memory": memory, "jobs": jobs}
    given = Given(model, vectors, Path(out), scale, task, **common, reading=reading, asking=asking)
    about = _about(Shared(given), vectors)
    write = partial(registry.load("reports", "write-audit"), entries, out=Path(out), about=about, scale=scale)
    made, failed, code = run_all(entries, given, write)
    click.echo(write(made, failed))
    return code


def _about(shared: Shared, name: str) -> dict[str, Any]:
    """What is known of the vectors before anything is measured."""
    from interp.tasks.asking import prompt_note

    vectors = shared.named(name)
    if note := prompt_note(vectors, shared.task):
        click.echo(f"interp: warning: {note}", err=True)
    fit = registry.load("vectors", "check-fit")(vectors, shared.model, foreign=shared.given.foreign)
    norms = getattr(vectors, "norms", {})
    kind = str(getattr(vectors.card, "kind", type(vectors).__name__))
    described = describe_vectors(vectors, name) or {}
    return {**described, "model": shared.model.name, "fit": fit, "kind": kind, "norms": norms}
