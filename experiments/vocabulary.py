"""What the tokens of a vocabulary are: the script they are written in, and the class of word or symbol."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import regex

from interp.bare_model import takes_model
from interp.errors import UserError

SCRIPTS = (
    "Latin", "Han", "Cyrillic", "Arabic", "Hangul", "Hiragana", "Katakana", "Greek", "Hebrew", "Thai", "Devanagari",
    "Bengali", "Tamil", "Telugu", "Kannada", "Malayalam", "Gujarati", "Gurmukhi", "Sinhala", "Armenian", "Georgian",
    "Ethiopic", "Khmer", "Lao", "Myanmar", "Tibetan", "Mongolian",
)  # fmt: skip
"""Unicode scripts by name; letters of all others are "other script". The ranges are the regex library's."""

NON_LATIN = "non-Latin"
"""All scripts but Latin together."""

_NAMED = "|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in SCRIPTS)
_LETTER = regex.compile(rf"(?=\p{{L}})(?:{_NAMED}|(?P<other>.))")


@lru_cache(maxsize=2**17)
def _script(letter: str) -> str:
    match = _LETTER.match(letter)
    if match is None:
        return ""
    return "other script" if match.lastgroup == "other" else str(match.lastgroup)


def script_of(text: str) -> str:
    """The script of a text's letters; "" where it has none, has letters of several scripts, or is a broken character.

    Byte-level vocabularies cut characters into tokens that are no text: they decode to U+FFFD and belong nowhere.
    """
    if "\ufffd" in text:
        return ""
    found = {script for script in map(_script, text) if script}
    return found.pop() if len(found) == 1 else ""


@takes_model
def token_texts(model: Any) -> list[str]:
    """Decoded text of every row of the unembedding; "" for rows that stand for no token, and for special tokens."""
    known = min(len(model.tokenizer), model.d_vocab)
    special: set[int] = set(getattr(model.tokenizer, "all_special_ids", ()))
    texts = ["" if token in special else model.token_text(token) for token in range(known)]
    return texts + [""] * (model.d_vocab - known)


class TokenClasses:
    """Classes of tokens, read from a data file that is fixed before any run.

    Attributes:
        names: in the order in which they are looked up; the last one takes what belongs to no other.

    Raises:
        UserError: two classes hold the same entry.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.names: tuple[str, ...] = tuple(data["order"])
        self._class: dict[str, str] = {}
        for name in self.names:
            for entry in data.get(name, ()):
                if entry in self._class:
                    raise UserError("an entry belongs to two classes", given=f"{entry!r}: {self._class[entry]}, {name}")
                self._class[entry] = name
        self._lower = {name for name in self.names if name != "name"}

    @classmethod
    def load(cls) -> TokenClasses:
        """The classes that come with the package."""
        return cls(json.loads((files("experiments") / "data" / "token_classes.json").read_text("utf-8")))

    def of(self, text: str) -> str:
        """The class of a token's text."""
        word = text.strip() or text.strip(" ")
        if word.isdigit():
            return "digit"
        exact = self._class.get(text.strip(" "), self._class.get(word))
        if exact is not None:
            return exact
        lower = self._class.get(word.lower())
        return lower if lower in self._lower else self.names[-1]

    def codes(self, texts: Iterable[str]) -> list[int]:
        """Index into `names` of each text's class."""
        index = {name: code for code, name in enumerate(self.names)}
        return [index[self.of(text)] for text in texts]


def by_script(texts: Sequence[str]) -> dict[str, list[int]]:
    """Ids of the tokens of each script, and of all but Latin together."""
    found: dict[str, list[int]] = {"Latin": [], NON_LATIN: []}
    for token, text in enumerate(texts):
        script = script_of(text)
        if script:
            found.setdefault(script, []).append(token)
            if script != "Latin":
                found[NON_LATIN].append(token)
    return found
