"""What a figure reads: a finished run, seen through three attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import pandas as pd

from interp.errors import UserError
from interp.numbers import ROUNDING
from interp.store import RunRecord


@runtime_checkable
class RecordLike(Protocol):
    """Anything with the attributes of a run on disk."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """The contents of run.json."""
        ...

    @property
    def frame(self) -> pd.DataFrame:
        """One row per measurement."""
        ...

    @property
    def path(self) -> Path:
        """The folder of the run."""
        ...


# a union, as type checkers take a cached property of RunRecord for no property of a protocol
Record = RunRecord | RecordLike


def part(run: Record, name: str) -> pd.DataFrame:
    """Return the rows of one part of a frame, without the columns that do not apply to it.

    Raises:
        UserError: the run has no such part.
    """
    frame = run.frame
    parts = sorted({str(value) for value in frame["part"]}) if "part" in frame.columns else []
    if name not in parts:
        raise UserError(
            f"this run has no rows of part {name!r}",
            given=run.meta.get("experiment"),
            works=f"parts of this run: {', '.join(parts) or 'none'}",
        )
    return keep(frame, "part", name).dropna(axis="columns", how="all")


def keep(rows: pd.DataFrame, column: str, *values: object) -> pd.DataFrame:
    """Return the rows whose column holds one of the values."""
    return cast("pd.DataFrame", rows[rows[column].isin(list(values))])


def drop(rows: pd.DataFrame, column: str, *values: object) -> pd.DataFrame:
    """Return the rows whose column holds none of the values."""
    return cast("pd.DataFrame", rows[~rows[column].isin(list(values))])


def numbers(rows: pd.DataFrame, column: str, *, drawn: bool = True) -> list[float]:
    """Return a column as floats, rounding errors as 0 and a column that the frame lacks as NaN.

    Args:
        rows: of a frame.
        column: its name.
        drawn: whether the numbers are drawn, so that an unbounded end is NaN, and not written.
    """
    if column not in rows.columns:
        return [float("nan")] * len(rows)
    # what is only rounding would stand in hover texts and on axes as -6.94e-18; an end that is unbounded is not drawn
    values = [float(value) for value in rows[column]]
    return [
        0.0 if abs(value) < ROUNDING else value if math.isfinite(value) or not drawn else math.nan for value in values
    ]


def first(rows: pd.DataFrame, column: str) -> object:
    """Return the value of the first row, or None where there is no row or no such column."""
    return rows[column].iloc[0] if len(rows) and column in rows.columns else None


def count(rows: pd.DataFrame, column: str = "n") -> int | None:
    """Return the first row's count as an integer, or None where it is absent."""
    value = first(rows, column)
    return None if value is None or value != value else int(cast("float", value))
