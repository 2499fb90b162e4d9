"""Vectors that may not be used as they are: trained apart, and switched on together."""

from __future__ import annotations

from collections.abc import Iterable

from interp.errors import UserError
from vectors.card import Card


def refuse_together(card: Card, layers: tuple[int, ...], permitted: bool) -> None:
    """Refuse to switch on several vectors that were trained with the others off.

    Raises:
        UserError: the card says `apart`, there are several layers, and nobody permitted it.
    """
    if card.trained == "apart" and len(layers) > 1 and not permitted:
        raise UserError(
            "these vectors were trained apart, each with the others off",
            given=f"layers {listed(layers)}",
            works="use each(), only(layer), or together() to switch them all on",
        )


def listed(layers: Iterable[int]) -> str:
    """Return layers as one text, for messages."""
    return ",".join(str(layer) for layer in layers)
