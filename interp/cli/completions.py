"""`interp completions`: what a model was asked and said, to a file and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from interp.before_loading import check_call
from interp.cli.asking import asked, asks
from interp.cli.options import COUNT, DEFAULT_MODEL, DEFAULT_TASK, SEED, TEMPERATURE, reads_vectors
from interp.errors import UserError
from interp.files import check_file
from interp.given import as_model, as_task, as_vectors
from interp.reading import Reading


def _asked(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what was asked; those of `interp eval`."""
    options = [
        click.option("--model", metavar="M", default=DEFAULT_MODEL, show_default=True, help="Model."),
        click.option("--vectors", metavar="V", help="Vectors; without, the model as it is."),
        click.option("--foreign", is_flag=True, help="Allow vectors of other weights of the same shape."),
        click.option("--task", metavar="T", default=DEFAULT_TASK, show_default=True, help="Task."),
        click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True),
        click.option("--n", type=COUNT, default=64, show_default=True, help="Problems."),
        click.option("--samples", type=COUNT, default=1, show_default=True, help="Samples of each."),
        click.option("--temperature", type=TEMPERATURE, default=1.0, show_default=True, help="0 = greedy."),
        click.option("--seed", type=SEED, default=0, show_default=True, help="Of the random streams."),
        click.option("--out", metavar="DIR", default="runs", show_default=True, help="Where completions are kept."),
    ]
    for option in reversed(options):
        command = option(command)
    return reads_vectors(asks()(command))


@click.group("completions")
def command() -> None:
    """Write completions, or only what is to be completed, to a file; check those that were made elsewhere."""


@command.command("export")
@click.argument("file", metavar="FILE")
@_asked
def export(file: str, out: str, **asked: Any) -> None:
    """Write a line of JSON for each sample: what was asked, and what was said where it is kept."""
    check_file(file)
    from interp.completion_file import export as write

    model, request, problems = _request(out, **asked)
    there, all_lines = write(model, request, problems, Path(out) / "completions", Path(file))
    click.echo(f"{file}: {there} of {all_lines} lines have a completion", err=True)
    click.echo(file)


@command.command("import")
@click.argument("given", metavar="IN")
@click.argument("file", metavar="FILE")
@_asked
def import_(given: str, file: str, out: str, **asked: Any) -> None:
    """Check completions made elsewhere and write them for `--completions-from FILE`.

    A line of IN has "problem" (its id) and "text" or "ids", perhaps "ended"; `interp completions export` writes such
    lines without an answer.
    """
    check_file(file)
    from interp.completion_file import import_lines, read_lines

    if not any({"text", "ids"} & line.keys() for line in read_lines(Path(given))):
        raise UserError("this file holds no completions", given=given, works='lines with "problem" and "text"')

    model, request, problems = _request(out, **asked)
    count = import_lines(model, request, problems, Path(given), Path(file))
    click.echo(f"{file}: {count} completions", err=True)
    click.echo(file)


def _request(
    out: str,
    *,
    model: str,
    vectors: str | None,
    foreign: bool,
    task: str,
    split: str,
    n: int,
    samples: int,
    temperature: float,
    seed: int,
    reading: Reading,
    asking: Any,
) -> tuple[Any, Any, list[str]]:
    """Model, request and the problems' ids."""
    check_call({"model": model, "vectors": vectors, "task": task}, out=out)
    from interp.context import Context
    from interp.tasks.asking import prompt_note

    problems = asked(as_task(task), asking, vectors, reading)
    loaded = as_model(model)
    steered = as_vectors(vectors, loaded, problems, foreign=foreign, keep=Path(out), reading=reading)
    if note := prompt_note(steered, problems):
        click.echo(f"interp: warning: {note}", err=True)
    ctx = Context(loaded, steered, problems, n=n, seed=seed)
    chosen = ctx.problems(split)  # pyright: ignore[reportArgumentType] - one of the choices
    names = [problem.id for problem in chosen]
    edits = () if steered is None else steered.edits()
    return loaded, ctx.request(ctx.prompts(chosen), edits, temperature=temperature, samples=samples, keys=names), names
