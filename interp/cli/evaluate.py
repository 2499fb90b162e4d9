"""`interp eval`: graded accuracy with its interval."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from interp.before_loading import check_call
from interp.cli.options import COUNT, DEFAULT_MODEL, DEFAULT_TASK, POSITIVE, SEED, TEMPERATURE
from interp.given import as_model, as_sources, as_task, as_vectors, plain_name


@click.command("eval")
@click.option("--model", metavar="M", default=DEFAULT_MODEL, show_default=True, help="Model.")
@click.option("--vectors", metavar="V", help="Vectors; without, the model as it is.")
@click.option("--foreign", is_flag=True, help="Allow vectors of other weights of the same shape.")
@click.option("--task", metavar="T", default=DEFAULT_TASK, show_default=True, help="Task with answers.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--n", type=COUNT, default=64, show_default=True, help="Problems.")
@click.option("--samples", type=COUNT, default=1, show_default=True, help="Completions of each.")
@click.option("--temperature", type=TEMPERATURE, default=1.0, show_default=True, help="0 = greedy.")
@click.option("--tokens", type=COUNT, help="Longest completion; the task's own by default.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the random streams.")
@click.option("--memory", type=POSITIVE, metavar="GB", help="Bound on what generation may hold.")
@click.option("--completions-from", multiple=True, metavar="URL|FILE", help="What completes in the model's place.")
@click.option("--out", metavar="DIR", default="runs", show_default=True, help="Where completions are kept.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    model: str,
    vectors: str | None,
    foreign: bool,
    task: str,
    split: str,
    n: int,
    samples: int,
    temperature: float,
    tokens: int | None,
    seed: int,
    memory: float | None,
    completions_from: tuple[str, ...],
    out: str,
    as_json: bool,
) -> None:
    """Grade a model's completions, with vectors or without, and give the accuracy with its interval."""
    given = {"model": model, "vectors": vectors, "task": task}
    check_call(given, out=out, memory=memory, completions_from=completions_from)
    from interp.context import Context
    from interp.evaluation import evaluate
    from interp.store import Store

    problems = as_task(task)
    problems = problems if tokens is None else replace(problems, max_new_tokens=tokens)
    loaded = as_model(model)
    steered = as_vectors(vectors, loaded, problems, foreign=foreign, keep=Path(out))
    ctx = Context(loaded, steered, problems, n=n, seed=seed, store=Store(Path(out)), memory=memory)
    ctx.sources = as_sources(completions_from, steered)
    found = evaluate(ctx, split=split, temperature=temperature, samples=samples)
    about = {"model": plain_name(model), "vectors": plain_name(vectors) if vectors else None, "task": problems.name}
    if as_json:
        click.echo(json.dumps({**found.as_dict(), **about, "seed": seed}))
        return
    how = "greedy" if temperature == 0 else f"T = {temperature:g}"
    click.echo(f"{about['model']}, vectors {about['vectors'] or 'none'}, {about['task']} {split}, n = {found.n}, {how}")
    click.echo(f"accuracy  {found.accuracy:.1%}  [{found.low:.1%}, {found.high:.1%}]")
    click.echo(f"boxed {found.boxed:.1%}  ended {found.ended:.1%}  length {found.length:.1f} tokens", nl=False)
    click.echo(f"  entropy {found.entropy:.2f} nats")
    for name, share in found.templates.items():
        click.echo(f"  {name}  {share:.1%}")
