"""`interp show` and `interp redraw`: a run or vectors, looked at without torch where no vectors are read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from interp.active_edits import active_vectors
from interp.cli.options import reads_vectors
from interp.errors import UserError
from interp.files import exists
from interp.origin import module_file
from interp.reading import Reading
from interp.store import RunRecord, Store

ROWS = 20
"""Rows of a frame that are shown."""


def find_run(text: str, out: str) -> RunRecord:
    """A run from its folder, or from the start of its key.

    Raises:
        UserError: there is none, or several keys start so.
    """
    if text and exists(Path(text)):
        return RunRecord.read(text)
    hits = [record for record in Store(Path(out)).records() if record.path.name.startswith(text)]
    if len(hits) == 1:
        return hits[0]
    works = f"give a folder such as {out}/<experiment>/<key>, or the start of a key"
    raise UserError("several runs have such a key" if hits else "no such run", given=text, works=works)


def stale(record: RunRecord) -> bool:
    """True where the experiment's source is known to differ from what the run was made with."""
    from interp.provenance import files_of

    module = str(record.meta.get("target", "")).partition(":")[0]
    if not module or module.endswith(".py") or "files" not in record.meta or module_file(module) is None:
        return False
    return files_of(module) != record.meta["files"]


@click.command("show")
@click.argument("what", metavar="RUN_OR_VECTORS")
@click.option("--out", metavar="DIR", default="runs", show_default=True, help="Folder of runs, for a key.")
@reads_vectors
def show(what: str, out: str, reading: Reading) -> None:
    """Show the card and the table of a run, or operation, norms and card of vectors."""
    if not what.strip():
        raise UserError("this name is empty", works="give a run's folder or key, or vectors")
    path = Path(what)
    if path.name == "run.json" or exists(path / "run.json") or Store(Path(out)).has(what):
        reading.refuse(what)
        _show_run(find_run(what, out))
    else:
        _show_vectors(what, reading)


@click.command("redraw")
@click.argument("run", metavar="RUN")
@click.option("--kind", metavar="FIGURE", help="A figure of this experiment; its first one by default.")
@click.option("--out", metavar="DIR", default="runs", show_default=True, help="Folder of runs, for a key.")
def redraw(run: str, kind: str | None, out: str) -> None:
    """Draw the figure of a run again from its frame, without torch."""
    from interp.run import save_figures

    record = find_run(run, out)
    _mark(record)
    save_figures(record, kind)
    click.echo(record.path / "figure.html")


def _mark(record: RunRecord) -> None:
    if record.partial:
        click.echo("interp: this run is partial: cells are missing", err=True)
    if stale(record):
        click.echo("interp: this run is stale: the experiment's source changed since; `interp run` redoes it", err=True)


def _show_run(record: RunRecord) -> None:
    from interp.cli.card import scores_text
    from interp.run import methods

    meta = record.meta
    _mark(record)
    scale = f", scale {meta['scale']}" if meta["scale"] else ""
    click.echo(f"{meta['experiment']} {meta['key']}  (version {meta['version']}{scale})")
    for line in card(meta):
        click.echo(f"  {line}")
    # a training run declares no estimate, and tests one
    click.echo(f"\n{methods(meta) if meta.get('declaration') else scores_text(meta.get('scores') or {}, _width())}\n")
    frame = record.frame
    click.echo(_printable(frame.head(ROWS).dropna(axis="columns", how="all").to_string(index=False)))
    if len(frame) > ROWS:
        click.echo(f"... {len(frame)} rows in {record.path / 'frame.parquet'}")


def card(meta: dict[str, Any]) -> list[str]:
    """The facts of a run, a line each."""
    settings = ", ".join(f"{name} = {value}" for name, value in meta["settings"].items())
    versions = ", ".join(f"{name} {version}" for name, version in meta.get("versions", {}).items())
    lines = [f"settings  {settings}"]
    for name in ("model", "vectors", "task"):
        described = meta.get(name)
        if described:
            facts = [f"{key} {value}" for key, value in described.items() if key not in ("name", "card")]
            lines.append(f"{name.ljust(8)}  {described['name']} ({', '.join(facts)})")
    lines += [f"on        {active_vectors(meta)}"] if meta.get("edits") else []
    lines += [f"edit      {_edited(edit)}" for edit in meta.get("edits", ())[:8]]
    more = len(meta.get("edits", ())) - 8
    lines += [f"edit      and {more} more; run.json lists all of them"] if more > 0 else []
    git = meta.get("git") or {}
    lines.append(f"made      {meta.get('started')} to {meta.get('finished')} on {meta.get('device') or 'no device'}")
    lines.append(f"with      {versions}; revision {git.get('revision')}{' (changed)' if git.get('changed') else ''}")
    return lines


def _edited(edit: dict[str, Any]) -> str:
    missed = edit.get("untouched", 0)
    note = f"; {missed} of {edit['rows']} rows have no such position" if missed else ""
    return f"{edit['edit']}: {edit['touched']} positions{note}"


def _printable(text: str) -> str:
    """Without control characters, which a token may hold and a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _show_vectors(what: str, reading: Reading) -> None:
    from interp.cli.card import card_text
    from interp.given import as_json, as_vectors, check_paths

    check_paths(vectors=what)
    vectors = as_vectors(what, reading=reading)
    operation = "add" if vectors.card.kind == "vector" else "adapter of down_proj"
    norms = ", ".join(f"{layer}: {norm:.4g}" for layer, norm in getattr(vectors, "norms", {}).items())
    facts = {"operation": operation, **as_json(vectors.card), "norms": norms}
    click.echo(_printable(card_text(repr(vectors), facts, _width())))


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns
