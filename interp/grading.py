r"""Scorers: from the text of a completion to a grade.

The paper grades with math-verify on the last `\boxed{}` (arXiv:2509.06608 sec. 3); so does `LastBox`.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interp.equality import MAX_BOX, equal
from interp.errors import UserError
from interp.identity import kept_identity
from interp.registry import load_file, unknown

TRIES = 16
"""Openings of a box that are looked at, from the last: a completion may repeat one forever."""

_BOX = re.compile(r"\\boxed\s*\{")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


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


def boxes(text: str) -> Iterator[str | None]:
    r"""Contents of the closed `\boxed{}` from the last to the first; None for one that is longer than `MAX_BOX`.

    A box that never closes (a cut completion) is passed over. Escaped braces do not count. Only the last `TRIES`
    openings are looked at.
    """
    for match in reversed(deque(_BOX.finditer(text), TRIES)):
        depth, index = 1, match.end()
        stop = min(len(text), index + MAX_BOX + 1)
        while index < stop and depth:
            step = 2 if text[index] == "\\" else 1
            depth += (text[index] == "{") - (text[index] == "}")
            index += step
        if not depth:
            yield text[match.end() : index - 1]
        elif text.find("}", stop) >= 0:
            yield None


def last_box(text: str) -> tuple[bool, str | None]:
    """Whether there is a closed box, and what the last one holds (None where it is too long to be read)."""
    for content in boxes(text):
        return True, None if content is None else content.strip()
    return False, None


@dataclass(frozen=True)
class LastBox:
    r"""math-verify on the last `\boxed{}`: 1/2 equals 0.5, 1,000 equals 1000.

    math-verify's own time limit needs SIGALRM, which fails off the main thread, so it is off; instead boxes beyond
    `MAX_BOX` characters, towers of powers, factorials and the like are never evaluated (equal text still counts).
    """

    @property
    def spec(self) -> str:
        """last-box."""
        return "last-box"

    def __call__(self, text: str, answer: str | None) -> Grade:
        """Grade the last closed box."""
        boxed, found = last_box(text)
        if answer is None:
            return Grade(None, boxed, found)
        return Grade(found is not None and equal(found, answer), boxed, found)


@dataclass(frozen=True)
class LastNumber:
    """The last number in the text, compared as a decimal; thousands separators are read."""

    @property
    def spec(self) -> str:
        """last-number."""
        return "last-number"

    def __call__(self, text: str, answer: str | None) -> Grade:
        """Grade the last number."""
        found = None
        for match in _NUMBER.finditer(text):
            found = match.group().replace(",", "")
        return _grade(found, text, answer)


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


def _grade(found: str | None, text: str, answer: str | None) -> Grade:
    found = None if found is None else found.strip()
    right = None if answer is None else found is not None and _same(found, answer.strip())
    return Grade(right, last_box(text)[0], found)


def _same(found: str, answer: str) -> bool:
    """Equal as text or as decimal numbers."""
    if found == answer:
        return True
    try:
        return Decimal(found.replace(",", "")) == Decimal(answer.replace(",", ""))
    except InvalidOperation:
        return False


def load_scorer(name: str) -> Scorer:
    """A scorer by name: last-box, last-number, regex:PATTERN, choice:A|B|C, path/to/file.py:Name or module:Name.

    Raises:
        UserError: there is no such scorer, or what is found is not one.
    """
    plain: dict[str, Scorer] = {"last-box": LastBox(), "last-number": LastNumber()}
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


def _of_module(module: str, name: str) -> Any:
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a user's module may fail in any way when it is imported
        raise UserError(f"module {module} cannot be loaded: {type(error).__name__}: {error}") from error
    if not hasattr(found, name):
        raise UserError(f"no such name in {module}", given=name)
    return getattr(found, name)
