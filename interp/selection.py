"""Whole numbers that select something: positions, layers, heads, features, tokens.

NumPy and torch integers count as integers, and lists, sets, ranges, arrays and tensors as collections of them. Whatever
could be read in two ways (True, 3.0, a mask of booleans) is refused, because it would select nothing or something else.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from interp.errors import UserError

_LARGEST = 2**62
"""Larger numbers do not fit into a tensor of indices."""


def whole(value: object, what: str, *, works: str = "give a whole number") -> int:
    """Return an integer of any type (Python, NumPy, torch) as a Python int.

    Args:
        value: what a caller gave.
        what: the thing that is selected, with its article: "a layer".
        works: what would work instead.

    Raises:
        UserError: it is a boolean, no integer, or too large for an index.
    """
    scalar: Any = value
    dtype = str(getattr(scalar, "dtype", ""))
    refused = isinstance(value, bool) or "bool" in dtype or getattr(scalar, "ndim", 0) != 0
    try:
        number = None if refused else operator.index(scalar)
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None:
        raise UserError(f"{what} is a whole number", given=brief(value), works=works)
    if abs(number) > _LARGEST:
        raise UserError(f"{what} is too large", given=number, works=works)
    return number


def whole_numbers(values: object, what: str, *, works: str = "give whole numbers") -> tuple[int, ...]:
    """Return the integers of a list, tuple, set, range, array or tensor in their order; a set's in rising order.

    Args:
        values: what a caller gave; one integer counts as a collection of itself.
        what: the thing that is selected, with its article: "a layer".
        works: what would work instead.

    Raises:
        UserError: it is no flat collection of integers, or it is empty.
    """
    if not is_collection(values):
        return (whole(values, what, works=works),)
    items = sorted(values, key=str) if isinstance(values, set | frozenset) else list(_iterated(values))
    if not items:
        raise UserError(f"nothing is selected: {what} is missing", given=brief(values), works=works)
    numbers = tuple(whole(item, what, works=works) for item in items)
    return tuple(sorted(numbers)) if isinstance(values, set | frozenset) else numbers


def distinct(numbers: tuple[int, ...], what: str) -> tuple[int, ...]:
    """Return the numbers, which select different things.

    Raises:
        UserError: a number stands there twice.
    """
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        raise UserError(f"{what} is selected twice", given=twice)
    return numbers


def is_collection(values: object) -> bool:
    """Tell whether a value holds several items; texts and mappings do not count."""
    if isinstance(values, str | bytes | Mapping) or getattr(values, "ndim", 1) == 0:
        return False
    return isinstance(values, Iterable)


def brief(value: object) -> str:
    """Return a value as text that fits into one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _iterated(values: Any) -> Iterable[object]:
    return values.tolist() if hasattr(values, "tolist") else values
