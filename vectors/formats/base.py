"""What a file format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interp.reading import Placement
from vectors.adaptive import AdaptiveVectors
from vectors.steering import SteeringVectors

Vectors = SteeringVectors | AdaptiveVectors


@dataclass(frozen=True)
class Options:
    """Answers to what a file itself does not tell.

    Attributes:
        rows: whether row 0 of a matrix belongs to block 0 or to the embeddings, where the number of rows is
            ambiguous.
        trained: whether the layers of a file without a card were trained together or apart.
        seed: which run, in a folder that holds several.
        n_layers: number of blocks of the model, where it is known.
        site: stream at which a bare tensor is added.
        layer: block of a bare vector.
    """

    rows: Literal["blocks", "embeddings-first"] | None = None
    trained: Literal["together", "apart"] | None = None
    seed: int | None = None
    n_layers: int | None = None
    site: Placement | None = None
    layer: int | None = None


@dataclass(frozen=True)
class Format:
    """A way in which vectors lie on disk.

    Attributes:
        name: what `--to` takes.
        about: the layout in one line.
        matches: whether a path is of this format, by its content.
        read: reads it; refuses with a `UserError` what is damaged or not a set of vectors.
        write: writes it and returns the path; None where only reading makes sense.
        asks: options among `rows` and `seed` that the reader uses; the others are refused where they are given.
    """

    name: str
    about: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Options], Vectors]
    write: Callable[[Path, Vectors], Path] | None = None
    asks: frozenset[str] = frozenset({"rows", "seed"})
