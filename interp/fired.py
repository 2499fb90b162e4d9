"""What an edit did in a call: the tokens that it touched, and the rows that it did not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp.errors import UserError


@dataclass(frozen=True)
class Fired:
    """What an edit did in a run.

    Attributes:
        edit: `Edit.describe()`.
        touched: token positions it was applied to, over all rows it belongs to.
        rows: how many rows of the batch it belongs to.
        untouched: how many of these rows it touched nowhere (a row that ended before `generated=5`, say).
        sites: streams that it reads or changes, as "resid_post[29]".
        positions: its positions in words.
        origin: name of the vectors that the edit is part of; empty where nobody named them.
    """

    edit: str
    touched: int
    rows: int
    untouched: int = 0
    sites: tuple[str, ...] = ()
    positions: str = ""
    origin: str = ""

    def plus(self, other: Fired) -> Fired:
        """Return the counts of two parts of a call together."""
        return replace(
            self,
            touched=self.touched + other.touched,
            rows=self.rows + other.rows,
            untouched=self.untouched + other.untouched,
        )


def fired_by(edit: Any, touched: int, rows: int, untouched: int) -> Fired:
    """Return what an edit did; arguments as the attributes of `Fired`."""
    sites, origin = tuple(map(str, edit.sites)), str(getattr(edit, "origin", ""))
    return Fired(edit.describe(), touched, rows, untouched, sites, edit.positions.words(), origin)


def summed(fired: Iterable[Fired]) -> tuple[Fired, ...]:
    """Return one entry per edit, from the counts of the parts of a call."""
    total: dict[tuple[str, str], Fired] = {}
    for count in fired:
        key = (count.edit, count.origin)
        total[key] = total[key].plus(count) if key in total else count
    return tuple(total.values())


def add_count(total: dict[tuple[str, str], dict[str, Any]], count: Mapping[str, Any]) -> None:
    """Add what an edit did, as run.json holds it, to the entry of the same edit."""
    key = (str(count["edit"]), str(count.get("origin", "")))
    entry = total.setdefault(key, {**count, "touched": 0, "rows": 0, "untouched": 0, "sites": list(count["sites"])})
    for name in ("touched", "rows", "untouched"):
        entry[name] += int(count.get(name, 0))


def sum_edits(edits: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per edit, from what run.json holds of the parts of a run."""
    total: dict[tuple[str, str], dict[str, Any]] = {}
    for edit in edits:
        add_count(total, {"sites": (), **edit})
    return list(total.values())


def check_touched(name: str, edits: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> None:
    """Report the rows of a run that an edit did not touch.

    Args:
        name: of the experiment.
        edits: what run.json says about them.
        say: tells the user something in one line.

    Raises:
        UserError: an edit touched no token in the whole run, whose numbers would be those of the base.
    """
    for edit in edits:
        if edit["rows"] and not edit["touched"]:
            raise untouched_error(f"{edit['edit']}, in {name}", edit["rows"])
    missed = [edit for edit in edits if edit.get("untouched")]
    for edit in missed[:3]:
        say(f"{name}: {edit['untouched']} of {edit['rows']} rows have no such position for this edit: {edit['edit']}")
    if len(missed) > 3:
        say(f"{name}: {len(missed) - 3} more edits left rows untouched; run.json counts them (edits, untouched)")


def refuse_untouched(fired: Iterable[Fired]) -> None:
    """Refuse a whole call in which an edit touched no token: its numbers would be the base's.

    Raises:
        UserError: an edit touched nothing.
    """
    for count in fired:
        if count.rows and not count.touched:
            raise untouched_error(count.edit, count.rows)


def untouched_error(edit: str, rows: int) -> UserError:
    """Return the error for an edit that touched no token in any of its rows."""
    where = "its row" if rows == 1 else f"any of its {rows} rows"
    works = (
        "select positions that exist; rows may be too short, completions may end earlier (the last token is never "
        'fed), and at("...") compares the text of single tokens'
    )
    return UserError(f"an edit touched no token in {where}, so that nothing was edited", given=edit, works=works)
