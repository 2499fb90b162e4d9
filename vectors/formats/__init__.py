"""File formats, one module each, told apart by content."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path

from interp import registry
from interp.errors import UserError
from vectors.formats.base import Format, Options, Vectors
from vectors.formats.carried import with_carried

BUILT_IN = (
    "pickled",
    "own",
    "npy",
    "gguf_file",
    "svec",
    "refusal",
    "pyreft",
    "peft_lora",
    "checkpoint",
    "authors",
)
"""Modules of this package that hold a `FORMAT`; the first that matches reads a path."""


@lru_cache
def formats() -> tuple[Format, ...]:
    """The built-in formats and those of plugins (entry points `interp.formats`)."""
    own = tuple(import_module(f"vectors.formats.{name}").FORMAT for name in BUILT_IN)
    return own + tuple(one for one in registry.load_all("formats").values() if one not in own)


def find(name: str) -> Format:
    """The format of a name.

    Raises:
        UserError: there is none.
    """
    for one in formats():
        if one.name == name:
            return one
    works = ", ".join(one.name for one in formats() if one.write is not None)
    raise UserError("no such format", given=name, works=f"use one of {works}")


def detect(path: Path) -> Format:
    """The format of a file or folder, by its content.

    Raises:
        UserError: the path is missing, or no format knows it.
    """
    if not path.exists():
        raise UserError("no such file or folder", given=path)
    for one in formats():
        if one.matches(path):
            return one
    raise UserError("no known format of steering vectors", given=path.name, works=_known())


def read(path: Path, options: Options = Options()) -> Vectors:  # noqa: B008 - frozen
    """Read a file or folder in any known format, with the card that this package wrote alongside it."""
    return with_carried(detect(path).read(path, options), path)


def _known() -> str:
    return f"known are {', '.join(one.name for one in formats() if one.name != 'pickle')}"
