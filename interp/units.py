r"""Units, currencies and words around a number, which a grade does not look at, and words that change it."""

from __future__ import annotations

import re

SCALES = {
    "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9,
    "trillion": 10**12,
}  # fmt: skip
"""Words that multiply the number before them."""


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SHORT = _listed(
    "m g s h l t c d o f j n w v k a in ft yd mi cm mm km nm dm kg mg lb lbs oz ml dl kl cc hr hrs min mins sec secs "
    "ms yr yrs am pm mph kph kmh kmph hz khz mhz ghz pa kpa kw kwh wh mv kv ma amp amps mol kj cal kcal ev gb mb kb tb "
    "rs usd eur gbp inr cad aud pts pt sq cu st nd rd th deg rad degc"
)
"""Abbreviations that follow a number."""

_FILLERS = _listed("of per by on the an at in for")
"""Small words between the words of a unit."""

_MATHEMATICS = _listed(
    "sin cos tan cot sec csc log ln exp sqrt pi inf infinity theta alpha beta gamma lambda phi max min mod gcd lcm det "
    "arcsin arccos arctan sinh cosh tanh or and to frac infty i e"
)
"""Words that are part of a formula."""

_CURRENCY = re.compile(
    r"(?P<sign>[+-]?)\s*(?:(?:US|A|C)?\s*\\?\$|[€£¥₹₩₽]|\\(?:pounds|euro)\s|\\text\{\s*\\?[$€£¥]\s*\}|"
    r"(?:USD|EUR|GBP|Rs\.?|INR)\s)\s*(?=[+\-.\d\\])"
)
_TOKEN = re.compile(
    r"\s*(?:\\text\s*\{(?P<text>[^{}\d]*)\}|(?P<half>[ap]\.\s?m\.?)|(?P<word>[A-Za-z]+(?:'s)?\.?)|"
    r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-z])|\\?[%$€£¥₹¢]|\\(?:cdot|times|mu|Omega|omega)(?![a-z])|[/.()*-]|\{\})"
    r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
)
_MACRO = re.compile(r"\\(?:begin|end)\{[^}]*\}|\\text\s*\{|\\[A-Za-z]+")
_WORDS = re.compile(r"[A-Za-z]{2,}")
_END = re.compile(
    r"(?<=[\d})])\s*(?P<tail>(?:\\text\s*\{[^{}\d]*\}|\s|[A-Za-z/.])+(?:\^\s*\{?\d\}?)?)$|"
    r"(?<=[a-z])(?P<after>\s+[A-Za-z/. ]+)$"
)


def without_currency(text: str) -> str:
    """Return a text without the sign of a currency in front, before or after a minus."""
    match = _CURRENCY.match(text)
    return text if match is None else match["sign"] + text[match.end() :]


def without_unit(tail: str) -> int | None:
    """Return the factor that the text after a number means (1 for units), or None where it is more than a unit."""
    factor, index = 1, 0
    while index < len(tail.rstrip()):
        match = _TOKEN.match(tail, index)
        if match is None or match.end() == index:
            return None
        spaced = index > 0 or tail[0].isspace()
        for word in _WORDS.findall(match["text"] or ""):
            factor *= SCALES.get(word.lower(), 1)
        word = (match["word"] or "").rstrip(".").removesuffix("'s")
        if word and not is_unit(word, spaced=spaced):
            return None
        factor *= SCALES.get(word.lower(), 1)
        index = match.end()
    return factor if tail.strip() not in ("*", "/", "-", "(", ".", "()") else None


def is_unit(word: str, *, spaced: bool) -> bool:
    """Whether a bare word after a number is a unit and no product of variables.

    Args:
        word: letters only.
        spaced: whether something stands between the number and the word.
    """
    lower = word.lower()
    if len(word) == 1:
        return lower in _SHORT
    if spaced and lower in _FILLERS:
        return True
    return lower in _SHORT or (is_word(word) and (spaced or len(word) > 3))


def is_word(letters: str) -> bool:
    """Whether a run of letters is a word of a language and no formula, such as `xyz` or `sin`."""
    lower = letters.lower()
    if lower in ("no", "yes", "am", "pm") or lower in SCALES:
        return True
    if len(lower) < 3 or lower in _MATHEMATICS:
        return False
    return not set(lower) <= set("abcdwxyz") and bool(set(lower) & set("aeiouy"))


def has_words(text: str) -> bool:
    """Whether a cleaned answer holds words, so that it is no formula."""
    return any(is_word(word) for word in _WORDS.findall(_MACRO.sub(" ", text)))


def without_final_unit(text: str) -> str:
    """Return a formula without the unit at its end."""
    match = _END.search(text)
    if match is None:
        return text
    tail = match["tail"] or match["after"] or ""
    rest = text[: match.start("tail" if match["tail"] else "after")].strip()
    return rest if rest and without_unit(" " + tail) == 1 else text
