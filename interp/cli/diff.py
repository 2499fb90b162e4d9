"""`interp diff RUN RUN`: what differs between two runs, torch-free."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

import click

from interp.cli.show import find_run
from interp.numbers import shown

if TYPE_CHECKING:
    import pandas as pd

_ASIDE = ("frame", "columns", "declaration", "verdicts", "edits", "key", "started", "finished", "schema")
"""Entries of run.json that follow from others, or that always differ."""


@click.command("diff")
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@click.option("--out", metavar="DIR", default="runs", show_default=True, help="Folder of runs, for keys.")
def command(first: str, second: str, out: str) -> None:
    """Show what differs between two runs: settings, versions, and what came out."""
    a, b = find_run(first, out), find_run(second, out)
    click.echo(f"a  {a.path}\nb  {b.path}")
    lines = differences(a.meta, b.meta)
    click.echo("\nrecorded" + ("" if lines else ": no difference"))
    for name, (left, right) in lines.items():
        click.echo(f"  {name}: {left} -> {right}")
    click.echo("\nnumbers (mean over the rows)")
    for line in changes(a.frame, b.frame):
        click.echo(f"  {line}")
    for name, (left, right) in _verdicts(a.meta, b.meta).items():
        click.echo(f"  verdict on {name}: {left} -> {right}")


def differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[object, object]]:
    """Entries of run.json that differ, by dotted name."""
    left, right = _flat(a), _flat(b)
    names = [name for name in dict.fromkeys([*left, *right]) if left.get(name) != right.get(name)]
    return {name: (left.get(name, "absent"), right.get(name, "absent")) for name in names}


def changes(a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    """One line for each numeric column: mean of both, the change, and how many rows stand behind it."""
    lines = [f"rows: {len(a)} -> {len(b)}"] if len(a) != len(b) else []
    for name in [name for name in a.columns if name in b.columns and _is_number(a, name) and _is_number(b, name)]:
        left, right = _mean(a, name), _mean(b, name)
        equal = len(a) == len(b) and a[name].reset_index(drop=True).equals(b[name].reset_index(drop=True))
        lines.append(
            f"{name}: equal"
            if equal
            else f"{name}: {shown(left, '.4g')} -> {shown(right, '.4g')} ({shown(right - left, '+.3g')})"
        )
    only = sorted({*a.columns} ^ {*b.columns})
    return [*lines, *(f"{name}: only in {'a' if name in a.columns else 'b'}" for name in only)]


def _mean(frame: pd.DataFrame, name: str) -> float:
    """Mean of what is there; NaN where nothing is."""
    values = frame[name].dropna().astype(float).tolist()
    return fmean(values) if values else float("nan")


def _is_number(frame: pd.DataFrame, name: str) -> bool:
    return frame[name].dtype.kind in "iufb" and name != "example"


def _verdicts(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[object, object]]:
    left, right = ({str(one.get("claim")): one.get("phrase") for one in meta.get("verdicts", ())} for meta in (a, b))
    return {name: (left.get(name), right.get(name)) for name in {**left, **right} if left.get(name) != right.get(name)}


def _flat(meta: dict[str, Any], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in meta.items():
        if not prefix and name in _ASIDE:
            continue
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
