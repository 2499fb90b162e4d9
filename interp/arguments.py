"""Checks of arguments at the public functions: a value of another type is one line, not a traceback from below."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Integral, Real
from types import UnionType
from typing import Any

from interp.errors import UserError
from interp.limits import HIGHEST_SEED, MOST


def check_whole(name: str, value: Any, *, least: int = 1, most: int = MOST) -> None:
    """Raise where a value is no whole number within bounds.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise UserError(f"{name} is a whole number from {least} to {most}", given=shown(value))


def check_number(name: str, value: Any, *, least: float = 0.0) -> None:
    """Raise where a value is no number within bounds.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= float(value) <= MOST:  # NaN is neither
        raise UserError(f"{name} is a number from {least:g} to {MOST}", given=shown(value))


def check_sampling(max_new_tokens: Any, samples: Any, temperature: Any, seed: Any) -> None:
    """Raise where completions cannot be sampled so.

    Raises:
        UserError: a value is no number, or out of bounds.
    """
    check_whole("max_new_tokens", max_new_tokens)
    check_whole("samples", samples)
    check_number("temperature", temperature)
    check_whole("seed", seed, least=-HIGHEST_SEED, most=HIGHEST_SEED)


def check_kind(name: str, value: Any, kind: type | UnionType | tuple[type, ...], works: str) -> None:
    """Raise where a value is of another kind.

    Args:
        name: what it stands for, with its article: "a model".
        value: what a caller gave.
        kind: as for `isinstance`.
        works: what would work instead.

    Raises:
        UserError: it is.
    """
    if not isinstance(value, kind):
        raise UserError(f"{name} is something else", given=shown(value), works=works)


def check_items(name: str, values: Any, fits: Callable[[Any], bool], works: str) -> None:
    """Raise where values are no sequence, or one of them is of another kind.

    Raises:
        UserError: they are not, or it is.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise UserError(f"{name} is a sequence", given=shown(values), works=works)
    for value in values:
        if not fits(value):
            raise UserError(f"{name} holds something else", given=shown(value), works=works)


def shown(value: object) -> str:
    """A value as a user would write it; of an object, what it is."""
    plain = value is None or isinstance(value, str | bytes | int | float)
    return repr(value)[:80] if plain else f"an object of type {type(value).__name__}"
