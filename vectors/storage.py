"""Our own file: safetensors, with the card beside it and once more in its metadata."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from interp.errors import UserError
from interp.files import file_to_write, write_bytes
from vectors.card import Card
from vectors.untrusted import CARD_BYTES, parsing, read_json, safetensors_metadata

KEY = "small_vectors_card"
_MEANING = ("kind", "site", "trained", "n_layers")
"""Fields that decide what the tensors do; the others may be edited in the JSON file."""


def write_tensors(path: str | Path, tensors: dict[str, Tensor], card: Card) -> Path:
    """Write `path.safetensors` and `path.json`, each under a temporary name first.

    The card also goes into the metadata: a file that lost its neighbour still knows that its vectors were
    trained apart.
    """
    path = _with_suffix(file_to_write(path), ".safetensors")
    text = card.model_dump_json(indent=1)
    write_bytes(path, save(tensors, metadata={KEY: text}))
    write_bytes(card_path(path), (text + "\n").encode())
    return path


def read_card(path: Path) -> Card | None:
    """The card of a safetensors file: the one beside it, else the one inside, else None.

    Raises:
        UserError: a card is there and is not valid.
    """
    beside = card_path(path)
    if beside.exists():
        return Card.parse(read_json(beside, "card", CARD_BYTES), where=beside.name)
    return _card_inside(path)


def check_inside(path: Path, card: Card) -> None:
    """Compare a card with the one inside the file.

    Raises:
        UserError: they differ in a field that decides what the tensors do.
    """
    inside = _card_inside(path)
    for name in _MEANING if inside is not None else ():
        if getattr(card, name) != getattr(inside, name):
            given = f"{path.name}: {name} is {getattr(inside, name)} inside and {getattr(card, name)} beside"
            raise UserError("the card beside this file contradicts the one inside", given=given)


def _card_inside(path: Path) -> Card | None:
    text = safetensors_metadata(path).get(KEY)
    if text is None:
        return None
    if len(text) > CARD_BYTES:
        raise UserError("this card is too large", given=path.name, works=f"at most {CARD_BYTES} bytes")
    with parsing(path, "card"):
        return Card.model_validate_json(text)


def card_path(path: Path) -> Path:
    """Where the card of a safetensors file lies."""
    return path.with_name(path.name.removesuffix(".safetensors") + ".json")


def _with_suffix(path: Path, suffix: str) -> Path:
    return path if path.name.endswith(suffix) else path.with_name(path.name + suffix)
