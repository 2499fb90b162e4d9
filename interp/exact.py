r"""Reads an answer that is a single number, in any usual notation and with any unit, as an exact fraction."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from interp.units import without_currency, without_unit

MOST_DIGITS = 2000
"""Digits, and powers of ten, of a number that is still read."""

_GROUPS = r"[1-9]\d{0,2}(?:(?P<separator>,|\{,\}|'| )\d{3})(?:(?P=separator)\d{3})*(?:\.\d+)?"
_INDIAN = r"[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?"
_EUROPEAN = r"[1-9]\d{0,2}(?:\.\d{3})(?:(?:\.\d{3})+(?:\{,\}\d+|,\d+)?|\{,\}\d+|,\d+)"
_PLAIN = r"\d+(?:\.\d*|\{,\}\d+)?|\.\d+"
_SIMPLE = re.compile(rf"(?P<sign>[+-]?)\s*(?:(?P<european>{_EUROPEAN})|(?P<digits>{_INDIAN}|{_GROUPS}|{_PLAIN}))")
_POWER = re.compile(
    r"\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{\s*([+-]?\d+)\s*\}|([+-]?\d+))|[eE]([+-]?\d+)(?![\d.])"
)
_TEN = re.compile(r"(?P<sign>[+-]?)\s*10\s*\^\s*(?:\{\s*([+-]?\d+)\s*\}|([+-]?\d+))")
_REPEATING = re.compile(r"(?P<sign>[+-]?)\s*(\d*)\.(\d*)\\overline\s*\{(\d+)\}")
_FACTORIAL = re.compile(r"(?P<sign>[+-]?)(\d{1,3})!(?!!)")
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<whole>\d+)??\s*\\frac\s*(?:\{(?P<top>[^{}]*(?:\{,\}[^{}]*)*)\}|(?P<top1>\d))\s*"
    r"(?:\{(?P<bottom>[^{}]*(?:\{,\}[^{}]*)*)\}|(?P<bottom1>\d))"
)
_SLASHED = re.compile(
    r"(?P<sign>[+-]?)\s*(?:(?P<whole>\d+)\s+)?(?P<top>[\d.,']+)\s*[/:]\s*(?P<bottom>[\d.,']*\d)(?![\d:])"
)
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:\\?%|percent)\s*\}|percent(?:age points?)?\b|pct\b)")


@dataclass(frozen=True)
class Exact:
    """A number as it was written.

    Attributes:
        value: the number.
        percent: whether a percent sign follows it.
        decimals: digits after the point; None where it is a fraction.
    """

    value: Fraction
    percent: bool = False
    decimals: int | None = None

    def equals(self, other: Exact) -> bool:
        """Whether both are the same number.

        As math-verify reads them, 50 % equals both 50 and 0.5. A decimal of six or more digits equals the fraction
        that it is rounded from; otherwise both must be exactly equal.
        """
        if self.percent == other.percent:
            return _close(self, other)
        percent, plain = (self, other) if self.percent else (other, self)
        return plain.value in (percent.value, percent.value / 100)


def exact(text: str) -> Exact | None:
    """Return the number that a cleaned answer is, or None where it is something else."""
    text = without_currency(text)
    for read in (_repeating, _fraction, _slashed, _factorial, _ten, _decimal):
        result = read(text)
        if result is not None:
            return _with_tail(result[0], text[result[1] :])
    return None


def _with_tail(number: Exact, tail: str) -> Exact | None:
    match = _PERCENT.match(tail)
    if match:
        number, tail = Exact(number.value, percent=True, decimals=number.decimals), tail[match.end() :]
    factor = without_unit(tail)
    return None if factor is None else Exact(number.value * factor, number.percent, number.decimals)


def _close(left: Exact, right: Exact) -> bool:
    if left.value == right.value:
        return True
    for decimal, fraction in ((left, right), (right, left)):
        if decimal.decimals is not None and decimal.decimals >= 6 and fraction.decimals is None:
            return round(fraction.value, decimal.decimals) == decimal.value
    return False


def _simple(text: str) -> tuple[Fraction, int, int] | None:
    """The value of a plain number at the start, its digits after the point, and where it ends."""
    match = _SIMPLE.match(text)
    if match is None or match.end() > MOST_DIGITS:
        return None
    digits = match["digits"] or match["european"].replace("{,}", ",").replace(".", "").replace(",", ".")
    grouped = re.fullmatch(r"[1-9]\d{0,2}(?:\{,\}\d{3})+(?:\.\d+)?", digits)
    digits = digits.replace("{,}", "" if grouped else ".")
    digits = re.sub(r"[,' ]", "", digits)
    value = Fraction(digits.rstrip(".") or "0")
    return -value if match["sign"] == "-" else value, len(digits.partition(".")[2]), match.end()


def _decimal(text: str) -> tuple[Exact, int] | None:
    simple = _simple(text)
    if simple is None:
        return None
    value, decimals, end = simple
    # a digit, a comma or a point that follows means a list or a number of another kind
    power = _POWER.match(text, end)
    if power:
        exponent, end = _integer(next(group for group in power.groups() if group is not None)), power.end()
        if exponent is None:
            return None
        value, decimals = value * Fraction(10) ** exponent, max(0, decimals - exponent)
    return Exact(value, decimals=decimals), end


def _ten(text: str) -> tuple[Exact, int] | None:
    match = _TEN.match(text)
    exponent = None if match is None else _integer(match[2] or match[3])
    if match is None or exponent is None:
        return None
    return _signed(match, Fraction(10) ** exponent, max(0, -exponent)), match.end()


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) < 6 and abs(int(digits)) <= MOST_DIGITS else None


def _repeating(text: str) -> tuple[Exact, int] | None:
    match = _REPEATING.match(text)
    if match is None or match.end() > MOST_DIGITS:
        return None
    whole, fixed, period = match[2] or "0", match[3], match[4]
    value = Fraction(int(whole + fixed + period) - int(whole + fixed), (10 ** len(period) - 1) * 10 ** len(fixed))
    return _signed(match, value), match.end()


def _factorial(text: str) -> tuple[Exact, int] | None:
    match = _FACTORIAL.match(text)
    return None if match is None else (_signed(match, Fraction(math.factorial(int(match[2]))), 0), match.end())


def _fraction(text: str) -> tuple[Exact, int] | None:
    match = _FRACTION.match(text)
    if match is None:
        return None
    return _ratio(match, match["top"] or match["top1"] or "", match["bottom"] or match["bottom1"] or "")


def _slashed(text: str) -> tuple[Exact, int] | None:
    match = _SLASHED.match(text)
    return None if match is None else _ratio(match, match["top"], match["bottom"])


def _ratio(match: re.Match[str], top: str, bottom: str) -> tuple[Exact, int] | None:
    above, below = plain_number(top), plain_number(bottom)
    if above is None or not below:
        return None
    value = above / below
    if match["whole"] is not None:
        if not 0 < value < 1 or len(match["whole"]) > MOST_DIGITS:
            return None  # 2 (5/3) may be a product
        value += int(match["whole"])
    return _signed(match, value), match.end()


def plain_number(text: str) -> Fraction | None:
    """Return the number that a cleaned text is without any unit, fraction or power; None where it is not."""
    simple = _simple(text.strip())
    return None if simple is None or simple[2] != len(text.strip()) else simple[0]


def _signed(match: re.Match[str], value: Fraction, decimals: int | None = None) -> Exact:
    return Exact(-value if match["sign"] == "-" else value, decimals=decimals)
