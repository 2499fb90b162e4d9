"""Our card alongside a file of another format, which has no place for it.

Without it a set that was trained apart, or for another model, would come back as one of unknown origin.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from interp.errors import UserError
from interp.files import write_text
from vectors.card import Card
from vectors.formats.base import Vectors
from vectors.untrusted import CARD_BYTES, parsing, read_json

log = logging.getLogger(__name__)

V = TypeVar("V", bound=Vectors)

FOLDER_CARD = "card.json"
"""Name of the card in a folder of files."""


def carried_path(path: Path) -> Path:
    """Return where the card of a file or folder of another format lies: `x.npy.json`, `folder/card.json`."""
    return path / FOLDER_CARD if path.is_dir() else path.with_name(path.name + ".json")


def write_carried(path: Path, vectors: Vectors) -> Path:
    """Write the card alongside what a format has just written, and return the path of that.

    Args:
        path: the file or folder.
        vectors: as the reader of this format gives them back.
    """
    warn_apart(vectors, path)
    write_text(carried_path(path), vectors.card.model_dump_json(indent=1) + "\n")
    return path


def warn_apart(vectors: Vectors, path: Path) -> None:
    """Log that programs without our card apply all layers at once, if the set was trained apart."""
    if vectors.card.trained == "apart" and len(vectors.layers) > 1:
        text = "other programs apply all %d vectors of %s at once, although each was trained with the others off"
        log.warning(text, len(vectors.layers), path.name)


def with_carried(vectors: V, path: Path) -> V:
    """Return vectors with the card that lies alongside their file, if there is one.

    Raises:
        UserError: the card is damaged, or belongs to other tensors.
    """
    known = carried_path(path)
    if path.suffix == ".safetensors" or not known.is_file():
        return vectors
    card = Card.parse(read_json(known, "card", CARD_BYTES), where=known.name)
    if card.kind == "lora" and vectors.card.kind == "rank1":  # of LoRA, so the digest is of other tensors
        return replace(vectors, card=card.model_copy(update={"kind": "rank1", "digest": ""}))
    return with_card(vectors, card, path)


def parse_carried(text: str, path: Path) -> Card:
    """Return the card in a text from inside a file.

    Raises:
        UserError: it is too large, or no card.
    """
    if len(text) > CARD_BYTES:
        raise UserError("this card is too large", given=path.name, works=f"at most {CARD_BYTES} bytes")
    with parsing(path, "card"):
        return Card.model_validate_json(text)


def with_card(vectors: V, card: Card, path: Path) -> V:
    """Return vectors with another card, which must be that of the same tensors.

    Raises:
        UserError: its digest is not that of the vectors.
    """
    if (card.kind, card.site, card.d_model) == (vectors.card.kind, vectors.card.site, vectors.card.d_model):
        result = replace(vectors, card=card)
        if result.digest == card.digest:
            return result
    raise UserError("the tensors are not those of the card", given=path.name, works="take both from one place")
