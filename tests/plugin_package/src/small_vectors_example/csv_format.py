"""Vectors as text: a first line `# small-vectors example`, then one of `layer,value,value,...` for each block."""

from __future__ import annotations

from pathlib import Path

import torch

from interp import UserError
from vectors import Card, SteeringVectors
from vectors.formats.base import Format, Options, Vectors

MARK = b"# small-vectors example, "


def matches(path: Path) -> bool:
    return path.is_file() and path.open("rb").read(len(MARK)) == MARK


def read(path: Path, options: Options) -> SteeringVectors:
    """The values are written in full, so reading gives back what was written.

    Raises:
        UserError: the file is damaged.
    """
    first, *rows = path.read_text().splitlines()
    try:
        if len(rows) != int(first.rpartition(" ")[2]):
            raise ValueError("it ends early")
        table = [(int(row.split(",")[0]), [float.fromhex(x) for x in row.split(",")[1:]]) for row in rows]
        card = Card(name=path.stem, d_model=len(table[0][1]), trained=options.trained or "together")
        return SteeringVectors(torch.tensor([values for _, values in table]), tuple(one for one, _ in table), card)
    except (ValueError, IndexError) as error:
        raise UserError(f"this table cannot be read: {error}", given=path.name) from error


def write(path: Path, vectors: Vectors) -> Path:
    if not isinstance(vectors, SteeringVectors):
        raise UserError("a table holds steering vectors only", given=vectors.name)
    lines = [f"{MARK.decode()}rows: {len(vectors.layers)}"]
    for layer, row in zip(vectors.layers, vectors.directions.tolist(), strict=True):
        lines.append(",".join([str(layer), *(value.hex() for value in row)]))
    path.write_text("\n".join(lines) + "\n")
    return path


FORMAT = Format("example-csv", "a table with a line for each block", matches, read, write)
