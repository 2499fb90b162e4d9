"""Finished chunks of a run that is still under way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.digest import digest
from interp.errors import UserError
from interp.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

CellKey = tuple[tuple[str, str | int | float], ...]
"""The key of a cell: its coordinates by name."""

_META = b"interp.part"


@dataclass(frozen=True)
class Part:
    """A chunk of measured cells.

    Attributes:
        cells: (place in the grid, key) of each cell, in the order of the grid.
        source: digest of the source code that measured them.
        edits: what was edited and how often each edit fired.
        data: the rows, or the file that holds them.
    """

    cells: tuple[tuple[int, CellKey], ...]
    source: str
    edits: tuple[dict[str, Any], ...] = ()
    data: Any = field(default=None, compare=False)

    def frame(self) -> pd.DataFrame:
        """The rows."""
        return read_frame(self.data) if isinstance(self.data, Path) else self.data

    @property
    def name(self) -> str:
        """The digest of its cells."""
        return digest(self.source, [key for _, key in self.cells])


def write_part(folder: Path, part: Part) -> None:
    """Write a part; what it covers stands inside the same file, so that the two cannot disagree."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(part.frame(), preserve_index=False)
    about = {"cells": part.cells, "source": part.source, "edits": part.edits}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _META: json.dumps(about).encode()})
    file = folder / f"{part.name}.parquet"
    write_atomically(file, lambda temporary: pq.write_table(table, temporary, write_page_checksum=True))


def read_part(file: Path) -> Part | None:
    """The part in a file, its rows not yet read; None where the file is no part of ours."""
    import pyarrow.parquet as pq

    try:
        described = json.loads((pq.read_schema(file).metadata or {})[_META])
        cells = tuple((int(index), tuple((name, value) for name, value in key)) for index, key in described["cells"])
        return Part(cells, described["source"], tuple(described["edits"]), file)
    except Exception:  # another process merged it, a disk fault, or somebody else's file
        return None


def read_frame(file: Path) -> pd.DataFrame:
    """A frame from parquet, its pages held against their checksums.

    Raises:
        UserError: the file is missing or damaged.
    """
    import pandas as pd

    try:
        return pd.read_parquet(file, page_checksum_verification=True)
    except Exception as error:  # pyarrow and pandas raise a dozen classes on a damaged file
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        works = "remove it: the run measures again what is missing"
        raise UserError(f"{file} cannot be read: {reason}", works=works) from error


def write_frame(file: Path, frame: pd.DataFrame) -> None:
    """Write a frame with checksums of its pages, atomically."""
    write_atomically(file, lambda temporary: frame.to_parquet(temporary, index=False, write_page_checksum=True))


def choose(parts: Sequence[Part]) -> list[Part]:
    """Parts that cover no cell twice (two processes may have measured one), in the order of the grid."""
    covered: set[CellKey] = set()
    chosen: list[Part] = []
    for part in parts:
        keys = {key for _, key in part.cells}
        if keys and not keys & covered:
            covered |= keys
            chosen.append(part)
    return sorted(chosen, key=lambda part: part.cells[0][0])
