"""The manifest: every figure and table of the paper and of ours, by key or by the paper's number."""

from __future__ import annotations

from figures.entries import ENTRIES
from figures.entry import Entry as Entry
from interp import registry


def manifest() -> tuple[Entry, ...]:
    """Return every entry in the order of the report."""
    return ENTRIES


def entry(key: str) -> Entry:
    """Return the entry of a key or of one of the paper's figure numbers.

    Raises:
        UserError: there is no such figure.
    """
    wanted = key.lower().removeprefix("figure-").removeprefix("fig-").strip()
    for one in ENTRIES:
        if wanted == one.key or wanted in one.covers:
            return one
    raise registry.unknown("figure", key, [one.key for one in ENTRIES])


def not_available(one: Entry) -> str:
    """Return the line for an entry whose experiment is not installed."""
    return f"{one.label}, {one.title}: not available in this version (experiment {one.experiment} is not installed)"
