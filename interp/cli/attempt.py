"""`interp try`: base and steered completions of a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interp.cli.asking import PROMPT, asks
from interp.cli.options import DEFAULT_MODEL, reads_vectors
from interp.given import as_model, as_vectors, check_paths
from interp.reading import Reading

if TYPE_CHECKING:
    from interp.comparison import Comparison, Said

_STEPS = ("", "on #4a3520", "on #7a4d22", "on #b36a24", "on #f28e2b")
"""Backgrounds from no change to the largest one."""


@click.command("try")
@click.argument("vectors", metavar="V")
@click.argument("prompt")
@click.option("--model", metavar="M", default=DEFAULT_MODEL, show_default=True, help="Model.")
@click.option("--scale", "factors", metavar="A,B,...", default="1", show_default=True, help="Factors of the vectors.")
@click.option("--tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Longest completion.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 = greedy.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random stream, the same for all.")
@click.option("--foreign", is_flag=True, help="Allow vectors of other weights of the same shape.")
@click.option("--html", "html_file", metavar="FILE", help="Write a page with coloured tokens.")
@reads_vectors
@asks(*PROMPT)
def command(
    vectors: str,
    prompt: str,
    model: str,
    factors: str,
    tokens: int,
    temperature: float,
    seed: int,
    foreign: bool,
    html_file: str | None,
    reading: Reading,
    asking: Any,
) -> None:
    """Show base and steered completions of a prompt, tokens coloured by what the vectors changed."""
    check_paths(vectors=vectors, model=model)
    scales = parse_factors(factors)
    from interp.comparison import compare
    from interp.tasks import Task
    from interp.tasks.asking import prompt_note

    loaded = as_model(model)
    v = as_vectors(vectors, loaded, foreign=foreign, reading=reading)
    task = asking.apply(Task.of([prompt], name="this prompt"), v)
    if note := prompt_note(v, task, graded=False):
        click.echo(f"interp: warning: {note}", err=True)
    asked = task.prompt(loaded.tokenizer, prompt)
    named = {"base": None, **{f"{scale:g} v" if scale != 1 else "v": scale * v for scale in scales}}
    shown = compare(loaded, asked, named, max_new_tokens=tokens, temperature=temperature, seed=seed)
    if html_file is None:
        _print(shown)
    else:
        _write(shown, Path(html_file))
        click.echo(html_file)


def parse_factors(text: str) -> list[float]:
    """Numbers from "1,2,-1"."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise click.BadParameter(f"not numbers: {text}", param_hint="--scale") from None


def _write(shown: Comparison, file: Path) -> None:
    from interp.files import write_text
    from interp.markup import POLICY

    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    write_text(file, f'<!doctype html><meta charset="utf-8">{policy}<title>interp try</title>{shown.html()}')


def _print(shown: Comparison) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"{shown.rendered}\n", style="dim"))
    top = max((value for one in shown.said for value in one.kl), default=0.0)
    for one in shown.said:
        console.print(_line(one, top))
    console.print()
    for on in shown.on():
        console.print(f"{on}", markup=False, style="dim")
    if top > 0:
        console.print(f"colour: KL(edited || base) at each token, nats; brightest = {top:.2f}", markup=False)


def _line(said: Said, top: float) -> object:
    from rich.text import Text

    line = Text(f"{said.name}: ", style="bold")
    for token, value in zip(said.tokens, said.kl, strict=True):
        step = round((len(_STEPS) - 1) * value / top) if top > 0 else 0
        line.append(token, style=_STEPS[step] or "not bold")
    if not said.ended:
        line.append(" ... (cut)", style="dim not bold")
    return line
