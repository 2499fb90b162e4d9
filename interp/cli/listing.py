"""`interp list`: what is installed and from where; imports none of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from interp import registry
from interp.given import RESERVED, catalogue
from interp.registry import Row


@click.command("list")
@click.argument("group", required=False, metavar="[GROUP]")
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
def command(group: str | None, as_json: bool) -> None:
    """Show what is installed, and from which distribution."""
    rows = [row for row in registry.rows(group) if not (row.group == "vectors" and row.name in RESERVED)]
    sets = catalogue() if group in (None, "vectors", "interp.vectors") else {}
    if as_json:
        shown: list[dict[str, Any]] = [asdict(row) for row in rows]
        click.echo(
            json.dumps(
                [*shown, *({"group": "vectors", "name": one, "blocks": blocks} for one, blocks in sets.items())],
                indent=2,
            )
        )
        return
    for one in dict.fromkeys([row.group for row in rows] + (["vectors"] if sets else [])):
        click.echo(f"{one}")
        _table([row for row in rows if row.group == one], sets if one == "vectors" else {})
    for row in rows:
        if not row.ok:
            click.echo(f"interp: warning: {row.group} {row.name} of {row.distribution}: {row.status}", err=True)


def _table(rows: list[Row], sets: Mapping[str, Sequence[int]]) -> None:
    cells = [(row.name, row.distribution, row.target, "" if row.ok else row.status) for row in rows]
    for name, blocks in sets.items():
        cells.append((name, "small-vectors", f"one block each: {', '.join(map(str, blocks))}" if blocks else "", ""))
    widths = [max(len(cell[column]) for cell in cells) for column in range(3)]
    for cell in cells:
        columns = [text.ljust(width) for text, width in zip(cell[:3], widths, strict=True)]
        click.echo(f"  {'  '.join(columns)}  {cell[3]}".rstrip())
