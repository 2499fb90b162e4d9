"""The steering-vector card: what is known of anyone's vectors, and the control suite run on them, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from figures.markup import folded, table, text
from figures.paper import Entry, manifest
from figures.record import Record
from figures.report import write_report
from interp.cli.card import recipe_facts

KEYS = ("gain-ladder", "magnitude", "side-effects", "geometry", "3", "5", "2", "4")
"""Entries of the manifest that an audit runs: what the vectors gain and cost first, then how they act."""


def entries() -> list[Entry]:
    """The entries of an audit, in the order of the page; those that are not installed are left out."""
    known = {entry.key: entry for entry in manifest()}
    return [known[key] for key in KEYS if key in known and known[key].ready]


def write_audit(
    chosen: Sequence[Entry],
    made: Mapping[str, Record],
    failed: Mapping[str, str],
    out: Path,
    *,
    about: Mapping[str, Any],
    scale: str,
) -> Path:
    """Write the card and the runs behind it.

    Args:
        chosen: entries of the manifest.
        made: entry key -> its run.
        failed: entry key -> why it could not be run.
        out: the folder.
        about: name, model, fit, kind, norms (layer -> norm), digest, and card (as its JSON).
        scale: of the runs.

    Returns:
        The path of the page.
    """
    runs = [(entry, [made[entry.key]] if entry.key in made else []) for entry in chosen]
    title = f"Steering-vector card: {about['name']}"
    return write_report(runs, out, title=title, problems=failed, lead=card(about, scale))


def card(about: Mapping[str, Any], scale: str) -> str:
    """What is known before anything is measured, as a table."""
    known: Mapping[str, Any] = about.get("card") or {}
    norms = about.get("norms") or {}
    rows = [
        ("Vectors", f"{about['name']} ({about['kind']}), digest {about['digest']}"),
        ("Measured on", f"{about['model']}: {about['fit']}"),
        ("Made for", f"{known.get('base_model')}, {known.get('architecture') or 'architecture unknown'}"),
        ("Trained", f"{known.get('trained')}, added at {known.get('site')}; origin: {known.get('origin')}"),
        ("Trials", f"{len(known.get('trials') or [])} recorded, the kept one among them"),
        ("Norm by layer", ", ".join(f"{layer}: {norm:.3g}" for layer, norm in norms.items())),
        ("Scale of the runs", scale),
    ]
    cells = [[text(name), text(value)] for name, value in rows if value]
    if recipe := [[text(name), text(value)] for name, value in recipe_facts(known.get("recipe") or {})]:
        cells.append(["Recipe", folded("how it was made", table(("Field", "Value"), recipe))])
    return table(("Card", ""), cells, name="card-table")
