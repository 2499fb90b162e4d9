"""Answers as a scorer reads them: a text from a text, a number, or a list of these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from numbers import Rational, Real
from typing import cast

from interp.errors import UserError

_WORKS = "give a text, a number or a list of these; leave the answer out where nothing is graded"


def answer_text(value: object, where: str) -> str:
    """Return an answer as text; the entries of a list (OlympiadBench) are joined by commas.

    Args:
        value: a text, a number or a list of these.
        where: names the problem, for the message.

    Raises:
        UserError: it is something else (true, false, None, bytes, a list of lists), empty or not finite.
    """
    if isinstance(value, list | tuple):
        entries = cast("Sequence[object]", value)
        if not entries or any(isinstance(entry, list | tuple) for entry in entries):
            raise UserError(
                f"{where}: the answer must be a text, a number or a list of these", given=repr(entries)[:60]
            )
        return ", ".join(_entry(entry, where) for entry in entries)
    return _entry(value, where)


def _entry(value: object, where: str) -> str:
    if isinstance(value, str):
        if not value.strip():
            raise UserError(f"{where}: the answer is empty", works=_WORKS)
        return value
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise UserError(f'{where}: "answer" must be a text or a number', given=repr(value)[:60], works=_WORKS)
    if not math.isfinite(value):
        raise UserError(f"{where}: the answer is not finite", given=value)
    whole = math.floor(value)
    if value == whole:
        return _digits(int(whole), where)
    return str(value) if isinstance(value, Rational | Decimal) else str(float(value))


def _digits(value: int, where: str) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes 4,300 digits and no more
        raise UserError(f"{where}: the answer has too many digits") from None
