"""`interp vectors`: vector files from one format into another, into a checkpoint, or onto the hub."""

from __future__ import annotations

from pathlib import Path

import click

from interp import registry
from interp.before_loading import check_call
from interp.cli.options import DEFAULT_MODEL, SEED, reads_vectors
from interp.errors import UserError
from interp.files import check_out
from interp.reading import Reading


@click.group("vectors")
def command() -> None:
    """Convert files of steering vectors, bake them into a checkpoint, or push them to the hub."""


@command.command("convert")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--to", "to", metavar="FORMAT", help="Format to write (see `interp list formats`); from OUT's suffix.")
@click.option("--seed", type=SEED, help="Which run of a folder that holds several.")
@reads_vectors
@click.option("--layers", metavar="A,B,...", help="Blocks to write [default: all that IN has].")
def convert(source: str, target: str, to: str | None, seed: int | None, layers: str | None, reading: Reading) -> None:
    """Read vectors in any known format and write them in another."""
    chosen = to or _by_suffix(target)
    if not registry.is_name("formats", chosen):
        raise registry.unknown("format", chosen, registry.names("formats"))
    check_call({"vectors": source})
    blocks = None if layers is None else _blocks(layers)
    write = registry.load("vectors", "convert")
    click.echo(write(source, target, chosen, seed=seed, layers=blocks, **reading.arguments))


def _blocks(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UserError("--layers takes numbers of blocks", given=text, works="for instance --layers 4,8,12")
    return [int(part) for part in parts]


def _by_suffix(target: str) -> str:
    suffix = target.rpartition(".")[2].lower()
    return suffix if suffix in registry.names("formats") else "safetensors"


@command.command("push")
@click.argument("vectors", metavar="V")
@click.argument("repository", metavar="USER/NAME")
@click.option("--public", is_flag=True, help="Whoever likes may see a repository that is made here.")
@reads_vectors
def push(vectors: str, repository: str, public: bool, reading: Reading) -> None:
    """Upload vectors and their card to the Hugging Face hub; `hf://USER/NAME` loads them."""
    check_call({"vectors": vectors})
    click.echo(registry.load("vectors", "load")(vectors, **reading.arguments).push(repository, private=not public))


@command.command("bake")
@click.argument("vectors", metavar="V")
@click.argument("out", metavar="OUT")
@click.option("--model", metavar="M", default=DEFAULT_MODEL, show_default=True, help="Model to bake into.")
@click.option("--foreign", is_flag=True, help="Allow vectors of other weights of the same shape.")
@click.option("--together", is_flag=True, help="Bake in all layers of vectors that were trained apart.")
@reads_vectors
def bake(vectors: str, out: str, model: str, foreign: bool, together: bool, reading: Reading) -> None:
    """Write a plain Hugging Face checkpoint with the vectors inside, for any engine."""
    check_call({"vectors": vectors, "model": model})
    if Path(out).exists():
        raise UserError("this folder exists", given=out, works="name a new one")
    check_out(out)
    loaded = registry.load("vectors", "load")(vectors, **reading.arguments)
    click.echo(registry.load("vectors", "bake")(loaded.together() if together else loaded, model, out, foreign=foreign))
