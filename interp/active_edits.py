"""What was on in a run, in one sentence: which blocks of which vectors, at which stream and positions.

Read from what the edits of the run recorded about themselves, so that a set of which one vector was used is not named
as the set. Needs no torch: figures are drawn without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CONTROL = "control"
"""Begins the origin of an edit that stands beside the vectors under study."""
_SITE = re.compile(r"(\w+)\[(\d+)\]")
_MOST = 3
"""Sets of positions that are listed in texts; blocks: twice as many."""


def active_vectors(meta: Mapping[str, Any], *, most: int = _MOST) -> str:
    """Return what was on in a run: "block 29 of smollm2-135m-instruct/all-layer, resid_post, all positions".

    Args:
        meta: the contents of run.json; every key is optional.
        most: sets of positions that are listed; of more, the first is and the others are counted.

    Returns:
        The name of the vectors alone where the run recorded no edit; empty where it had no vectors.
    """
    name = _name(meta.get("vectors"))
    edits = [edit for edit in meta.get("edits") or () if edit.get("touched") and _places(edit)]
    studied = [edit for edit in edits if _comes_from(edit, meta.get("vectors"))]
    if studied:
        return f"{_blocks(studied)} of {name}, {_streams(studied)}, {_positions(studied, most)}"
    unnamed = [edit for edit in edits if not edit.get("origin")]
    if not name or not unnamed:
        return name
    return f"{name} ({_blocks(unnamed)}, {_streams(unnamed)}, {_positions(unnamed, most)})"


def active_now(edits: Iterable[Any]) -> str:
    """Return what is on in one call: `active_vectors` for edits instead of a run.

    Args:
        edits: the edits of the call.
    """
    known = [
        {
            "edit": edit.describe(),
            "sites": list(map(str, edit.sites)),
            "positions": edit.positions.words(),
            "origin": getattr(edit, "origin", ""),
        }
        for edit in edits
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for edit in known:
        if _places(edit):
            groups.setdefault(str(edit["origin"]), []).append(edit)
    parts = [
        f"{_blocks(group)}{f' of {origin}' if origin else ''}, {_streams(group)}, {_positions(group, _MOST)}"
        for origin, group in groups.items()
    ]
    return "; ".join(parts) or "no edit"


def _comes_from(edit: Mapping[str, Any], vectors: Any) -> bool:
    """Tell whether an edit is part of the vectors under study, or of vectors computed from them."""
    origin = str(edit.get("origin") or "")
    if not origin or origin.startswith(CONTROL) or not isinstance(vectors, Mapping):
        return False
    card: Any = vectors.get("card")
    names = [card.get("name") if isinstance(card, Mapping) else None, vectors.get("name"), vectors.get("digest")]
    known = [re.escape(str(name)) for name in names if name]
    return any(re.search(rf"(?<![\w./@-]){name}(?![\w.@-])", origin) for name in known)


def _places(edit: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the stream and block that an edit changes: its last site, as its line may name a reading site first."""
    sites = edit.get("sites") or [str(edit.get("edit"))]
    match = _SITE.search(str(sites[-1]))
    return None if match is None else (match[1], int(match[2]))


def _blocks(edits: Sequence[Mapping[str, Any]]) -> str:
    layers = sorted({place[1] for edit in edits if (place := _places(edit))})
    if len(layers) == 1:
        return f"block {layers[0]}"
    if layers == list(range(layers[0], layers[-1] + 1)):
        return f"blocks {layers[0]} to {layers[-1]}"
    if len(layers) <= 2 * _MOST:
        return f"blocks {', '.join(map(str, layers))}"
    return f"{len(layers)} blocks from {layers[0]} to {layers[-1]}"


def _streams(edits: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(dict.fromkeys(place[0] for edit in edits if (place := _places(edit))))


def _positions(edits: Sequence[Mapping[str, Any]], most: int) -> str:
    words = list(dict.fromkeys(str(edit.get("positions") or _positions_of_line(edit)) for edit in edits))
    if len(words) <= most:
        return " or ".join(words)
    others = len(words) - 1
    return f"{words[0]} or {others} other set{'s' if others > 1 else ''} of positions"


def _positions_of_line(edit: Mapping[str, Any]) -> str:
    """Return the positions from an edit's line, for runs that did not record them apart."""
    return str(edit.get("edit")).rpartition("], ")[2].replace("everywhere", "all positions")


def _name(value: object) -> str:
    return str(value.get("name") or "") if isinstance(value, Mapping) else str(value or "")
