"""Vectors of norm 0: an edit may be one, since `0 * v` is the model as it is; a result may not depend on one."""

from __future__ import annotations

from typing import Any

from interp.errors import UserError


def refuse_zero(vectors: Any, why: str) -> None:
    """Refuse vectors of norm 0 where a result depends on them.

    Args:
        vectors: an Intervention; one without `norms` (layer -> norm) passes.
        why: what they are needed for, to end the sentence "a vector of norm 0 cannot be ...".

    Raises:
        UserError: the vector of a layer has norm 0.
    """
    norms: Any = getattr(vectors, "norms", None)
    zero = [layer for layer, norm in norms.items() if norm == 0] if isinstance(norms, dict) else []
    if zero:
        origin = str(getattr(vectors.card, "origin", "") or "unknown")
        given = f"{vectors.name}, layers {','.join(map(str, zero))}, origin: {origin}"
        works = "leave these layers out with only(...), or train them until they move"
        raise UserError(f"a vector of norm 0 cannot be {why}", given=given, works=works)
