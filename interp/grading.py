r"""Scorers: from the text of a completion to a grade.

The paper grades with math-verify on the last `\boxed{}` (arXiv:2509.06608 sec. 3); so does `PlainBox`. `LastBox` reads
more notations and fewer coincidences, as docs/grading.md states pair by pair.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interp.arguments import check_kind, shown
from interp.boxes import boxes as boxes
from interp.boxes import closed_boxes, last_box
from interp.equality import MAX_BOX as MAX_BOX
from interp.equality import equal, plainly_equal
from interp.errors import UserError
from interp.exact import exact, plain_number
from interp.identity import kept_identity
from interp.notation import clean, gold
from interp.registry import load_file, unknown

_PERCENT = re.compile(r"\s*(?:\$|\\\))?\s*\\?%")
_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|[1-9]\d?(?:,\d{2})+,\d{3}(?!\d)|\d+)"
# a hyphen after a digit or a bracket is a subtraction or a range
_NUMBER = re.compile(rf"(?:(?<![\w)\]}}])[-\u2212])?(?:\d+/\d+|{_DIGITS}(?:\.\d+)?(?:[eE][+-]?\d+)?|(?<![\w.])\.\d+)")


@dataclass(frozen=True)
class Grade:
    r"""The grade of one completion.

    Attributes:
        right: whether the answer is right; None where the problem has no answer.
        boxed: whether the completion contains a closed `\boxed{}`, whatever the scorer.
        answer: the answer as the scorer read it; None where it found none.
    """

    right: bool | None
    boxed: bool
    answer: str | None


@runtime_checkable
class Scorer(Protocol):
    """Grades a completion against an answer."""

    @property
    def spec(self) -> str:
        """Name and settings, part of a task's digest; `load_scorer` reads the built-in ones back."""
        ...

    def __call__(self, text: str, answer: str | None) -> Grade:
        """Grade `text`; `right` is None where `answer` is."""
        ...


@dataclass(frozen=True)
class LastBox:
    r"""The last `\boxed{}`: numbers exactly, in any notation and with any unit; formulas by math-verify.

    1/2 equals 0.5, `10,\!080` equals 10080, `25 \text{ cm}^2` equals 25, and 50 % equals 50 and 0.5. Words are compared
    as words, times as times. A reference answer may have a mark (`#### 72`), a box or prose around it.

    What may take long is never evaluated: towers of powers, huge factorials, more than `MOST_CALLS` calls in
    math-verify. Such a pair counts as unequal (unless its text is equal).

    Raises:
        UserError: when called with an empty reference answer.
    """

    @property
    def spec(self) -> str:
        """last-box."""
        return "last-box"

    def __call__(self, text: str, answer: str | None) -> Grade:
        """Grade the last closed box."""
        content, end = next(closed_boxes(text), (None, -1))
        boxed, found = end >= 0, None if content is None else content.strip()
        if answer is None:
            return Grade(None, boxed, found)
        _reference(answer)
        return Grade(found is not None and self._right(found, answer, text[end:]), boxed, found)

    def _right(self, found: str, answer: str, after: str) -> bool:
        # a sign behind the box belongs to the number: $\boxed{50}\%$
        return equal(found, answer) or bool(_PERCENT.match(after) and equal(rf"{found}\%", answer))


@dataclass(frozen=True)
class PlainBox(LastBox):
    r"""math-verify's own grade of the last `\boxed{}`, for numbers that compare with those of the paper.

    Use `LastBox` elsewhere: math-verify calls `1\,000` different from 1000, and `listen` equal to `silent`. Its time
    limit needs SIGALRM, which fails off the main thread, so the limits of `LastBox` hold in its place.
    """

    @property
    def spec(self) -> str:
        """Plain."""
        return "plain"

    def _right(self, found: str, answer: str, after: str) -> bool:  # noqa: ARG002
        return plainly_equal(found, answer)


@dataclass(frozen=True)
class LastNumber:
    """The last number in the text, compared exactly; thousands separators and fractions such as 3/4 are read.

    Raises:
        UserError: when called with a reference answer that is not a number.
    """

    @property
    def spec(self) -> str:
        """last-number."""
        return "last-number"

    def __call__(self, text: str, answer: str | None) -> Grade:
        """Grade the last number."""
        found = None
        for match in _NUMBER.finditer(text.replace(r"\!", "").replace("{,}", ",")):
            found = match.group().replace(",", "")
        if answer is None:
            return Grade(None, last_box(text)[0], found)
        reference = exact(_reference(answer))
        if reference is None:
            works = "grade with the scorer last-box, or give answers that are numbers"
            raise UserError("the scorer last-number needs answers that are numbers", given=answer, works=works)
        number = None if found is None or len(found) > MAX_BOX else exact(clean(found))
        return Grade(number is not None and number.equals(reference), last_box(text)[0], found)


@dataclass(frozen=True)
class Regex:
    """The first group of the last match (the whole match where there is no group), compared as text or number.

    Raises:
        UserError: the pattern is not a regular expression.
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(f"not a regular expression ({error})", given=self.pattern) from error

    @property
    def spec(self) -> str:
        """regex:PATTERN."""
        return f"regex:{self.pattern}"

    def __call__(self, text: str, answer: str | None) -> Grade:
        """Grade the last match."""
        found = None
        for match in re.finditer(self.pattern, text):
            found = match.group(1) if match.re.groups else match.group()
        return _grade(found, text, answer)


@dataclass(frozen=True)
class Choice:
    """Given choices, such as ("A", "B", "C", "D"); a readout compares their log-probabilities.

    A generated text is graded by the choice that it names first, as a whole word.

    Raises:
        UserError: fewer than two choices, or a choice named twice.
    """

    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.choices) < 2 or len(set(self.choices)) < len(self.choices) or not all(self.choices):
            raise UserError("choices must be two or more different words", given="|".join(self.choices))

    @property
    def spec(self) -> str:
        """choice:A|B|C."""
        return f"choice:{'|'.join(self.choices)}"

    def __call__(self, text: str, answer: str | None) -> Grade:
        """Grade the choice that is named first."""
        longest_first = sorted(self.choices, key=len, reverse=True)
        if answer is not None and answer not in self.choices:
            answer = clean(_reference(answer)).strip("()")
            if answer not in self.choices:
                raise UserError("an answer must be one of the choices", given=answer, works="|".join(self.choices))
        match = re.search(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", text)
        return _grade(match.group() if match else None, text, answer)


@dataclass(frozen=True)
class Function:
    """A function of one's own, `(text, answer) -> bool`, or `-> Grade` for full control.

    Its digest follows everything that can change a grade; see `interp.identity`.
    """

    function: Callable[[str, str | None], Any]

    @property
    def spec(self) -> str:
        """Name and identity, as they are now."""
        return f"{self._name}@{kept_identity(self.function, self._name)}"

    @property
    def _name(self) -> str:
        return str(getattr(self.function, "__qualname__", type(self.function).__qualname__))

    def __call__(self, text: str, answer: str | None) -> Grade:
        """Call the function."""
        result = self.function(text, answer)
        if isinstance(result, Grade):
            return result
        if not isinstance(result, bool):
            given = f"{self._name} returned {type(result).__name__}"
            raise UserError("a scorer must return True, False or a Grade", given=given)
        return Grade(None if answer is None else result, last_box(text)[0], None)


def _reference(answer: str) -> str:
    """The answer inside a reference text, refused where nothing is in it: nothing could ever be right."""
    inside = clean(gold(answer))
    if not inside.strip("$. "):
        works = "give each problem an answer, or leave the field out where nothing is graded"
        raise UserError("a problem has an empty answer", given=answer, works=works)
    return inside


def _grade(found: str | None, text: str, answer: str | None) -> Grade:
    found = None if found is None else found.strip()
    if answer is not None:
        _reference(answer)
    right = None if answer is None else found is not None and _same(found, answer.strip())
    return Grade(right, last_box(text)[0], found)


def _same(found: str, answer: str) -> bool:
    """Equal as text or as decimal numbers."""
    if found == answer:
        return True
    number = plain_number(clean(found))
    return number is not None and number == plain_number(clean(gold(answer)))


def load_scorer(name: str) -> Scorer:
    """A scorer by name: last-box, plain, last-number, regex:PATTERN, choice:A|B|C, path/to/file.py:Name or module:Name.

    Raises:
        UserError: there is no such scorer, or what is found is not one.
    """
    check_kind("a scorer", name, str, "its name, such as last-number")
    plain: dict[str, Scorer] = {"last-box": LastBox(), "plain": PlainBox(), "last-number": LastNumber()}
    if name in plain:
        return plain[name]
    head, colon, rest = name.partition(":")
    if not colon:
        raise unknown("scorer", name, [*plain, "regex:PATTERN", "choice:A|B|C", "path/to/file.py:Name", "module:Name"])
    if head in ("regex", "choice"):
        return Regex(rest) if head == "regex" else Choice(tuple(rest.split("|")))
    head, _, rest = name.rpartition(":")
    found = load_file(Path(head).expanduser(), rest) if head.endswith(".py") else _of_module(head, rest)
    made = found() if isinstance(found, type) else found
    if isinstance(made, Scorer):
        return made
    if not callable(made):
        raise UserError("not a scorer", given=name, works="name a function (text, answer) -> bool")
    return Function(made)


def as_scorer(scorer: object) -> Scorer:
    """Return a scorer from one, its name, or a function `(text, answer) -> bool`.

    Raises:
        UserError: it is something else, or there is no scorer of this name.
    """
    if isinstance(scorer, str):
        return load_scorer(scorer)
    if isinstance(scorer, Scorer) and not isinstance(scorer, type):
        return scorer
    if isinstance(scorer, type) or not callable(scorer):
        raise UserError("this is no scorer", given=shown(scorer), works="last-number, or a function (text, answer)")
    return Function(scorer)


def _of_module(module: str, name: str) -> Any:
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a user's module may fail in any way when it is imported
        raise UserError(f"module {module} cannot be loaded: {type(error).__name__}: {error}") from error
    if not hasattr(found, name):
        raise UserError(f"no such name in {module}", given=name)
    return getattr(found, name)
