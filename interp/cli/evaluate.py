"""`interp eval`: graded accuracy with its interval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interp.before_loading import check_call
from interp.cli.asking import asked, asks
from interp.cli.options import COUNT, DEFAULT_MODEL, DEFAULT_TASK, POSITIVE, SEED, TEMPERATURE, reads_vectors
from interp.given import as_model, as_sources, as_task, as_vectors, plain_name
from interp.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interp.evaluation import Evaluation


_CONTROL = dict.fromkeys([*range(32), *range(127, 160)], "\ufffd") | {9: "\t"}
"""What a completion may not do to a terminal."""


@click.command("eval")
@click.option("--model", metavar="M", default=DEFAULT_MODEL, show_default=True, help="Model.")
@click.option("--vectors", metavar="V", help="Vectors; without, the model as it is.")
@click.option("--foreign", is_flag=True, help="Allow vectors of other weights of the same shape.")
@click.option("--task", metavar="T", default=DEFAULT_TASK, show_default=True, help="Task with answers.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--n", type=COUNT, default=64, show_default=True, help="Problems.")
@click.option("--samples", type=COUNT, default=1, show_default=True, help="Completions of each.")
@click.option("--temperature", type=TEMPERATURE, default=1.0, show_default=True, help="0 = greedy.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the random streams.")
@click.option("--memory", type=POSITIVE, metavar="GB", help="Bound on what generation may hold.")
@click.option("--completions-from", multiple=True, metavar="URL|FILE", help="What completes in the model's place.")
@click.option("--out", metavar="DIR", default="runs", show_default=True, help="Where completions are kept.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@reads_vectors
@asks()
def command(
    model: str,
    vectors: str | None,
    foreign: bool,
    task: str,
    split: str,
    n: int,
    samples: int,
    temperature: float,
    seed: int,
    memory: float | None,
    completions_from: tuple[str, ...],
    out: str,
    as_json: bool,
    reading: Reading,
    asking: Any,
) -> None:
    """Grade a model's completions, with vectors or without, and give the accuracy with its interval.

    Shows the prompt as the model gets it, a completion that is graded right and one that is graded wrong.
    """
    given = {"model": model, "vectors": vectors, "task": task}
    check_call(given, out=out, memory=memory, completions_from=completions_from)
    from interp.context import Context
    from interp.evaluation import evaluate
    from interp.store import Store
    from interp.tasks.asking import prompt_note

    problems = asked(as_task(task), asking, vectors, reading)
    loaded = as_model(model)
    steered = as_vectors(vectors, loaded, problems, foreign=foreign, keep=Path(out), reading=reading)
    note = prompt_note(steered, problems)
    if note:
        click.echo(f"interp: warning: {note}", err=True)
    ctx = Context(loaded, steered, problems, n=n, seed=seed, store=Store(Path(out)), memory=memory)
    ctx.sources = as_sources(completions_from, steered)
    found = evaluate(ctx, split=split, temperature=temperature, samples=samples)
    about = {"model": plain_name(model), "vectors": plain_name(vectors) if vectors else None, "task": problems.name}
    about |= {"warning": note} if note else {}
    if as_json:
        click.echo(json.dumps({**found.as_dict(), **about, "seed": seed}))
        return
    click.echo(f"{about['model']}, vectors {about['vectors'] or 'none'}, {about['task']} {split}, ", nl=False)
    for line in _lines(found):
        click.echo(line)


def _lines(result: Evaluation) -> Iterator[str]:
    """Write the accuracy, the prompt and the completions that are shown with their grades."""
    how = "greedy" if result.temperature == 0 else f"T = {result.temperature:g}"
    yield f"n = {result.n}, {how}\naccuracy  {result.accuracy:.1%}  [{result.low:.1%}, {result.high:.1%}]"
    yield (
        f"boxed {result.boxed:.1%}  ended {result.ended:.1%}  length {result.length:.1f} tokens"
        f"  entropy {result.entropy:.2f} nats"
    )
    yield from (f"  {name}  {share:.1%}" for name, share in result.templates.items())
    yield f"\nprompt of the first problem, as the model gets it:\n{_indented(result.prompt)}"
    for completion in result.shown:
        read = "nothing" if completion.read is None else " ".join(completion.read.split())
        yield f"\ngraded {'right' if completion.right else 'wrong'} (read: {read}; answer: {completion.answer}):"
        yield f"{_indented(completion.problem)}\n{_indented(completion.text, '  > ')}"


def _indented(text: str, head: str = "  ") -> str:
    return "\n".join(f"{head}{line.translate(_CONTROL)}" for line in text.splitlines() or [""])
