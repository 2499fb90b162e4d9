"""File formats, one module each, told apart by content."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path

from interp import registry
from interp.errors import UserError
from interp.files import exists
from vectors.card import Card
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
    "bare",
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
    if not registry.is_name("formats", name):
        raise UserError("no such format", given=name, works=f"use one of {works}")
    named = registry.load("formats", name)
    if not isinstance(named, Format):
        raise UserError("this is no format", given=name, works="name a vectors.formats.base.Format")
    return named


def detect(path: Path) -> Format:
    """The format of a file or folder, by its content.

    Raises:
        UserError: the path is missing, or no format knows it.
    """
    if not exists(path):
        raise UserError("no such file or folder", given=path)
    for one in formats():
        if one.matches(path):
            return one
    raise UserError("no known format of steering vectors", given=path.name, works=_known())


def read(path: Path, options: Options = Options()) -> Vectors:  # noqa: B008 - frozen
    """Read a file or folder in any known format, with the card that this package wrote alongside it.

    Raises:
        UserError: no format knows it, it is damaged, or an option contradicts what it states.
    """
    known = detect(path)
    for name in ("rows", "seed"):
        if getattr(options, name) is not None and name not in known.asks:
            what = f"{name} says nothing about vectors of the format {known.name}"
            raise UserError(what, given=getattr(options, name), works="leave it out")
    vectors = with_carried(known.read(path, options), path)
    agree(vectors.card, vectors.layers, options)
    return vectors


def agree(card: Card, layers: tuple[int, ...], options: Options) -> None:
    """Refuse answers that contradict what a file states.

    Args:
        card: of the vectors that were read.
        layers: their blocks.
        options: what the caller said.

    Raises:
        UserError: site, layer or the way of training differ.
    """
    if options.site is not None and options.site != card.site:
        raise UserError(f"these vectors are placed at {card.site} by their file", given=f"site {options.site}")
    if options.layer is not None and layers != (options.layer,):
        shown = ", ".join(map(str, layers))
        works = "leave layer out; only(layer), or NAME/LAYER for a set, selects a block"
        raise UserError(f"this file states its layers: {shown}", given=f"layer {options.layer}", works=works)
    if options.trained is not None and options.trained != card.trained:
        works = "together() switches layers that were trained apart on at once"
        raise UserError(
            f"these vectors were trained {card.trained}, says their card", given=options.trained, works=works
        )


def _known() -> str:
    names = ", ".join(known.name for known in formats() if known.name != "pickle")
    return f"known are {names}; a bare tensor (npy, torch.save, safetensors) needs --site and --layer"
