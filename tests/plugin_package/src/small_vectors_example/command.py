"""A command that imports neither torch nor this package's other parts."""

import click


@click.command("example")
@click.argument("name", default="you")
def command(name: str) -> None:
    """Greet NAME."""
    click.echo(f"hello {name}")
