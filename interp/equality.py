"""Whether two answers in LaTeX mean the same: numbers and words exactly, formulas by math-verify with a bound."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

from interp.exact import exact, plain_number
from interp.notation import clean, gold
from interp.step_limit import within
from interp.units import final_variables, has_words, letters, without_final_unit

MAX_BOX = 400
"""Characters inside a box that are still read; a longer box counts as boxed and wrong."""

MAX_DEPTH = 10
"""Brackets within brackets that are still read."""

MAX_POWER = 100_000
"""Product of all exponents that is still evaluated."""

MOST_CALLS = 700_000
"""Python calls that math-verify may take over a pair, somewhat less than a second; then the pair counts as unequal."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")
_COSTLY = re.compile(
    r"\*\*.*\*\*|\^\s*[^{\s]\s*\^|\d{3}\s*!|[)}\]!]\s*!|\\(?:sum|prod|int|lim)|\\[dt]?binom\s*\{?[^}]*\d{4}|\d{40}",
    re.DOTALL,
)
_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(\s+-]*(\d+)")
_POWER_OF_NUMBERS = re.compile(r"[\d)}\]]\s*\^")
_CHOICE = re.compile(r"\(?\s*(?:\\text\{)?\s*\(?([A-Za-z])\)?\s*\}?\s*\)?[.:]?")
_MARKED_CHOICE = re.compile(
    r"(?:\\text\{)?\s*(?:\(([A-Za-z])\)\s*\}?[\s.:]|([A-Za-z])(?:[.)]\s|[.)]\}|\s*\}[.)])).*", re.DOTALL
)
_TIME = re.compile(r"(\d{1,2})\s*:\s*(\d{2})(?:\s*:\s*(\d{2}))?\s*(?:([ap])\.?\s*m\.?)?\s*(?:o'clock)?", re.IGNORECASE)
_RANGE = re.compile("(.*[\\d)}%])\\s*(\u2013|--|-|\\\\text\\{ ?to ?\\}| to )\\s*([\\d.$\\\\].*)")
_BASE = re.compile(r"([0-9A-F]+)\s*_\s*(?:\{\s*)?(\d+)\s*\}?|([0-9A-F]+)")
_MODULUS = re.compile(r"\(?\\(?:pmod|bmod|mod)(?![a-z])\s*\{?\s*(\w+)\s*\}?\)?")
_SPACES = re.compile(r"(?<=[^\w\s.])\s+|\s+(?=[^\w\s.])")
_DOTS = re.compile(r"\\[lc]?dots(?![a-z])|\.\.\.|…")
_CAPITALS = re.compile(r"[A-Z]{3,}")
_EQUATION = re.compile(r"([^=<>!]*[A-Za-z][^=<>!]*[^=<>!\\]|[A-Za-z])=\s*([^=<>]+)")


def equal(found: str, answer: str) -> bool:
    """Whether two answers mean the same; `answer` may be a reference text with a mark, a box or prose around it."""
    if _INTEGER.fullmatch(found) and _INTEGER.fullmatch(answer):
        return found == answer or int(found) == int(answer)
    return _same(clean(found), clean(gold(answer)))


def plainly_equal(found: str, answer: str) -> bool:
    """Whether math-verify alone calls two answers equal; what may take it minutes counts as unequal."""
    if found == answer and _INTEGER.fullmatch(found):
        return True
    return not costly(found) and not costly(answer) and _verify(found, answer)


def _same(left: str, right: str) -> bool:
    if left == right:
        return bool(left)
    for special in (_moduli, _sides, _choices, _times, _ranges, _bases, _ratios, _sequences):
        decided = special(left, right)
        if decided is not None:
            return decided
    numbers = exact(left), exact(right)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0].equals(numbers[1])
    if _tight(left) == _tight(right):
        return True  # 100,200,300 and 100, 200, 300
    if bool(_DOTS.search(left)) is not bool(_DOTS.search(right)):
        return False
    plain = without_final_unit(left), without_final_unit(right)
    if any(map(has_words, plain)):
        first, second = (sorted(map(_words, text.split(","))) for text in plain)
        return first == second
    if final_variables(left) - letters(right) or final_variables(right) - letters(left):
        return False
    return any(not costly(one) and not costly(two) and _verify(one, two) for one, two in {(left, right): 0, plain: 0})


def _moduli(left: str, right: str) -> bool | None:
    """Compare congruences modulus by modulus, which math-verify does not look at."""
    moduli = [_MODULUS.findall(text) for text in (left, right)]
    if not moduli[0] or not moduli[1]:
        return None
    rest = [clean(_MODULUS.sub(" ", text)) for text in (left, right)]
    return [one.strip() for one in moduli[0]] == [one.strip() for one in moduli[1]] and _same(rest[0], rest[1])


def _sides(left: str, right: str) -> bool | None:
    """Compare `x = 5` with `5`, or two equations for the same name side by side."""
    sides = [_EQUATION.fullmatch(text) for text in (left, right)]
    if sides[0] is not None and sides[1] is not None:
        same = _words(sides[0][1]) == _words(sides[1][1])
        return _same(clean(sides[0][2]), clean(sides[1][2])) if same else None
    for match, other in ((sides[0], right), (sides[1], left)):
        if match is not None and "=" not in other:
            return _same(clean(match[2]), other) if match is sides[0] else _same(other, clean(match[2]))
    return None


def _choices(left: str, right: str) -> bool | None:
    """Compare letters of choices: A, (A), (a); and `(A) 5` with `A`."""
    letters = [_CHOICE.fullmatch(text) for text in (left, right)]
    marked = [_MARKED_CHOICE.fullmatch(text) for text in (left, right)]
    picked = [letter or mark for letter, mark in zip(letters, marked, strict=True)]
    if picked[0] is None or picked[1] is None or letters == [None, None]:
        return None
    first, second = (next(filter(None, match.groups())) for match in picked if match is not None)
    return first.upper() == second.upper()


def _times(left: str, right: str) -> bool | None:
    """Compare times of day; one without a.m. or p.m. equals both."""
    times = [_TIME.fullmatch(re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip()) for text in (left, right)]
    if times[0] is None or times[1] is None:
        return None
    clocks = [tuple(int(part or 0) for part in time.groups()[:3]) for time in times if time is not None]
    halves = {(time[4] or "").lower() for time in times if time is not None} - {""}
    return clocks[0] == clocks[1] and len(halves) < 2


def _ranges(left: str, right: str) -> bool | None:
    """Compare ranges end by end; a hyphen counts as one only where the other side has a dash or "to"."""
    ends = [_RANGE.fullmatch(text) for text in (left, right)]
    if all(end is None or end[2] == "-" for end in ends):
        return None
    if ends[0] is None or ends[1] is None:
        return False
    return all(_same(clean(ends[0][part]), clean(ends[1][part])) for part in (1, 3))


def _bases(left: str, right: str) -> bool | None:
    """Compare numbers with their bases, 1010_2; the base of one may be left out."""
    numbers = [_BASE.fullmatch(text) for text in (left, right)]
    if numbers[0] is None or numbers[1] is None or not (numbers[0][2] or numbers[1][2]):
        return None
    digits = [number[1] or number[3] for number in numbers if number is not None]
    bases = {int(number[2]) for number in numbers if number is not None and number[2]}
    return digits[0] == digits[1] and len(bases) == 1


def _ratios(left: str, right: str) -> bool | None:
    """Compare ratios of three and more numbers, 1:2:3; math-verify does not look at their order."""
    parts = [[plain_number(part) for part in text.split(":")] for text in (left, right)]
    numbers = [[number for number in side if number is not None] for side in parts]
    if any(len(side) < 3 for side in numbers) or numbers != parts or len(parts[0]) != len(parts[1]):
        return None
    first, second = numbers
    return all(a * second[0] == b * first[0] for a, b in zip(first, second, strict=True)) and any(first) == any(second)


def _sequences(left: str, right: str) -> bool | None:
    """Compare runs of capitals, HTH or ABC, letter by letter and not as products."""
    return left == right if _CAPITALS.fullmatch(left) and _CAPITALS.fullmatch(right) else None


def _tight(text: str) -> str:
    """A text without the spaces that mean nothing: beside a sign, and not between two words or numbers."""
    return _SPACES.sub("", text)


def _words(text: str) -> str:
    """Words alone, in lower case, without commands of LaTeX that only set them."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    return " ".join(re.sub(r"[\s.,;:\"']+", " ", text.lower().replace("\\", " \\")).split())


def costly(latex: str) -> bool:
    """Whether a computer algebra system might take minutes in a single call: towers of powers, huge factorials."""
    depth = deepest = 0
    for character in latex:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if len(latex) > MAX_BOX or deepest > MAX_DEPTH or _COSTLY.search(latex):
        return True
    power = math.prod(int(digits[:9]) for digits in _EXPONENT.findall(latex))
    return power > MAX_POWER or any(_POWER_OF_NUMBERS.search(group) for group in _exponents(latex))


def _exponents(latex: str) -> Iterator[str]:
    """Contents of the groups ^{...}."""
    for match in re.finditer(r"\^\s*\{", latex):
        depth, index = 1, match.end()
        while index < len(latex) and depth:
            depth += (latex[index] == "{") - (latex[index] == "}")
            index += 1
        yield latex[match.end() : index - 1]


@lru_cache(maxsize=4096)
def _verify(found: str, answer: str) -> bool:
    # math-verify brings sympy, a second of import, which a command that grades nothing should not pay
    from math_verify import verify

    _warm_up()

    def compared() -> bool:
        # lists, since math-verify takes a tuple for one answer with several parts
        target, reference = _parse(found), _parse(answer)
        return bool(reference) and bool(target) and bool(verify(reference, target, timeout_seconds=None))

    return within(MOST_CALLS, compared)


def _parse(latex: str) -> list[Any]:
    from math_verify import parse

    return list(parse(rf"$\boxed{{{latex}}}$", parsing_timeout=None))  # pyright: ignore[reportArgumentType]


@cache
def _warm_up() -> None:
    """Silence math-verify about its own limits, and let it build the tables of its grammar outside of the bound."""
    for name in ("math_verify.grader", "math_verify.parser"):
        logging.getLogger(name).addFilter(lambda record: not record.getMessage().startswith("Timeout is disabled"))
    _parse(r"\frac{1}{2} + x^{2}")
