"""`interp try`: base and steered completions of a prompt."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interp.before_loading import check_call
from interp.cli.asking import PROMPT, asks
from interp.cli.options import COUNT, DEFAULT_MODEL, SEED, TEMPERATURE, reads_vectors
from interp.errors import UserError
from interp.files import check_file
from interp.given import as_model, as_vectors
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
@click.option("--tokens", type=COUNT, default=64, show_default=True, help="Longest completion.")
@click.option("--temperature", type=TEMPERATURE, default=0.0, show_default=True, help="0 = greedy.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Random stream, the same for all.")
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
    scales = parse_factors(factors)
    check_call({"vectors": vectors, "model": model})
    if html_file is not None:
        check_file(html_file)
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
    """Return the numbers in "1,2,-1".

    Raises:
        UserError: there is none, one is not finite, or one is repeated.
    """
    try:
        scales = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        scales = []
    if not scales or not all(map(math.isfinite, scales)) or len(set(scales)) < len(scales):
        raise UserError("--scale takes different finite numbers", given=text, works="--scale 1,2,-1")
    return scales


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
