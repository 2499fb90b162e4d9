"""How numbers are shown to a reader: one place, so that a rounding error is never shown as a number."""

from __future__ import annotations

import math

ROUNDING = 1e-12
"""What is smaller is a rounding error of sums of numbers near 1, and shown as 0."""


def shown(value: float, spec: str = ".3g") -> str:
    """Return a number for a reader: a rounding error and a negative zero as 0, infinity as a word.

    Do not use it for numbers that may really be tiny, such as p-values: format these yourself.

    Args:
        value: the number.
        spec: of `format`, such as ".3g", "+.1f" or ".1%".
    """
    if math.isnan(value):
        return "?"
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    plain = 0.0 if abs(value) < ROUNDING else value
    kind = spec[-1:] if spec[-1:].isalpha() or spec[-1:] == "%" else ""
    # "z" turns what is rounded to -0.0 into 0.0; it stands after the sign
    return format(plain, _with_z(spec) if kind in ("e", "f", "g", "%", "E", "F", "G") else spec)


def _with_z(spec: str) -> str:
    place = 1 if spec[:1] in ("+", "-", " ") else 0
    return spec if "z" in spec else f"{spec[:place]}z{spec[place:]}"
