"""Kinds of words in the text of a problem, by a rule that looks at the text alone."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import Any

from experiments.vocabulary import TokenClasses
from interp.bare_model import takes_model
from interp.prompts import Prompt

CLASSES = ("number", "asked quantity", "name", "function word", "other word", "mark")
"""Kinds of words; "mark" = punctuation and spaces."""
CONTENT = CLASSES[:3]
"""The kinds that the claim calls meaningful; they are read against function words."""

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_ASKED = re.compile(
    r"\b(?:how (?:many|much)|what (?:is|are|was|were|will be)|which|(?:find|compute|calculate|determine|evaluate))\b",
    re.IGNORECASE,
)
_NUMBER_WORDS = {
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty", "forty",
    "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million", "billion", "dozen", "half",
    "quarter", "twice", "thrice", "double", "triple",
}  # fmt: skip


def words(text: str) -> list[tuple[int, int, str]]:
    """Start, stop and kind of each word of an English text, in characters.

    A number has a digit or is a number word. The asked quantity is the first word that is no function word after "how
    many", "what is", "find" and the like, wherever it stands in the text, singular or plural. A name is a known first
    name, or a word written with a capital in the middle of a sentence, wherever it stands.
    """
    found = [(match.start(), match.end(), match[0]) for match in _WORD.finditer(text)]
    asked = {_singular(word) for word in _asked(text)}
    proper = {word for start, _, word in found if _inside_a_sentence(text, start) and _capital(word)}
    return [(start, stop, _kind(word, asked, proper)) for start, stop, word in found]


@takes_model
def token_kinds(model: Any, prompt: Prompt) -> list[str]:
    """Kind of the word that each token of a prompt's problem belongs to; "" outside of the problem."""
    start, stop = prompt.spans.get("problem", (0, 0))
    kinds = [""] * len(prompt)
    # text decoded up to each token: a token alone may be a piece of a character
    texts = [str(model.tokenizer.decode(list(prompt.ids[start:end]))) for end in range(start, stop + 1)]
    spans = words(texts[-1])
    for token, (before, upto) in enumerate(pairwise(texts), start=start):
        own = upto[len(before) :]
        first = len(upto) - len(own.lstrip())
        inside = (kind for left, right, kind in spans if left <= first < min(right, len(upto)))
        kinds[token] = next(inside, "mark")
    return kinds


def _kind(word: str, asked: set[str], proper: set[str]) -> str:
    known = _classes().of(word)
    if any(letter.isdigit() for letter in word) or word.lower() in _NUMBER_WORDS:
        return "number"
    if _singular(word) in asked:
        return "asked quantity"
    if known == "name" or word in proper:
        return "name"
    return "function word" if known == "function word" else "other word"


def _asked(text: str) -> list[str]:
    """The word asked for by each question or instruction."""
    found: list[str] = []
    for match in _ASKED.finditer(text):
        sentence = re.split(r"[.?!](?:\s|$)", text[match.end() :])[0]
        after = (word for word in _WORD.findall(sentence) if _classes().of(word) != "function word")
        found += [word for word in list(after)[:1] if not word.isdigit()]
    return found


def _capital(word: str) -> bool:
    return word[0].isupper() and word != "I" and _classes().of(word) != "function word"


def _inside_a_sentence(text: str, start: int) -> bool:
    before = text[:start].rstrip(" \t\"'(\u201c\u2018")
    return bool(before) and before[-1] not in ".?!:\n"


def _singular(word: str) -> str:
    lower = word.lower()
    return lower[:-1] if lower.endswith("s") and len(lower) > 3 else lower


@cache
def _classes() -> TokenClasses:
    return TokenClasses.load()
