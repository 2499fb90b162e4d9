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
    "day m g s h l in ft yd mi cm mm km nm dm kg mg lb lbs oz ml dl kl cc hr hrs min mins sec secs "
    "ms yr yrs am pm mph kph kmh kmph hz khz mhz ghz pa kpa kw kwh wh kv amp amps mol kj cal kcal ev gb mb kb tb "
    "rs usd eur gbp inr cad aud pts pt sq cu st nd rd th deg rad degc"
)
"""Abbreviations that follow a number."""

_CAPITALS = _listed("L J N W V K A C F mA mV")
"""Abbreviations that are read after a space and in this case alone: 5 N is a force, and 5n a product."""

_POWERED = _listed("m cm mm km dm nm ft in yd mi")
"""Abbreviations whose powers are units: 25 cm^2 is an area, and 6s^2 a formula."""

_FILLERS = _listed("of per by on the a an at in for")
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
    r"\s*(?:\\text\s*\{(?P<text>(?:[^{}\d^]|\^(?:-?\d|\{-?\d\}))*)\}|(?P<half>[ap]\.\s?m\.?)|(?P<word>[A-Za-z]+(?:'s)?\.?)|"
    r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-z])|\\?[%$€£¥₹¢]|\\(?:cdot|times|mu|Omega|omega)(?![a-z])|[/.()*-]|\{\})"
    r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
)
_MACRO = re.compile(r"\\(?:begin|end)\{[^}]*\}|\\text\s*\{|\\[A-Za-z]+")
_WORDS = re.compile(r"[A-Za-z]{2,}")
_LETTERS = re.compile(r"[A-Za-z]")
_FINAL = re.compile(
    r"(?P<rest>.*?)(?<![A-Za-z\\])(?P<run>[A-Za-z]+)(?P<power>\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d+))?$", re.DOTALL
)
_END = re.compile(
    r"(?<=[\d})])\s*(?P<tail>(?:\\text\s*\{[^{}\d]*\}|\s|[A-Za-z/.])+(?:\^\s*\{?\d\}?)?)$|"
    r"(?<=[a-z])(?P<after>\s+[A-Za-z/. ]+|\s*(?:\\text\s*\{[^{}\d]*\}\s*)+)$"
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
        first, more = index == 0, bool(tail[match.end() :].strip())
        spaced = not first or tail[0].isspace()
        for word in _WORDS.findall(match["text"] or ""):
            factor *= SCALES.get(word.lower(), 1)
        word = (match["word"] or "").rstrip(".").removesuffix("'s")
        if word and not (is_unit(word, spaced=spaced, powered=first and "^" in match[0]) and (more or word != "a")):
            return None
        factor *= SCALES.get(word.lower(), 1)
        index = match.end()
    return factor if tail.strip() not in ("*", "/", "-", "(", ".", "()") else None


def is_unit(word: str, *, spaced: bool, powered: bool = False) -> bool:
    """Whether a bare word after a number is a unit and no product of variables.

    Args:
        word: letters only.
        spaced: whether something stands between the number and the word.
        powered: whether an exponent follows.
    """
    lower = word.lower()
    if powered:
        return lower in _POWERED or is_word(word)
    if spaced and (lower in _FILLERS or word in _CAPITALS):
        return True
    if len(word) == 1:
        return word in _SHORT
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
    """Return a formula without the unit at its end; a single letter is none where the formula has variables."""
    match = _END.search(text)
    if match is None:
        return text
    name = "tail" if match["tail"] else "after"
    start, tail = match.start(name), match[name].strip()
    rest = text[:start].strip()
    if not rest or (len(tail.partition("^")[0].strip()) == 1 and letters(rest)):
        return text
    return rest if without_unit(f"{' ' * text[:start].endswith(' ')}{tail}") == 1 else text


def letters(text: str) -> set[str]:
    """Return the letters of a formula that may be variables."""
    return set(_LETTERS.findall(_MACRO.sub(" ", text))) - {"e", "i"}


def final_variables(text: str) -> set[str]:
    """Return the variables at the end of a formula, as in 5n and 6s^2, which math-verify may take for a unit."""
    match = _FINAL.search(text)
    if match is None or not match["rest"].strip() or match["run"].lower() in _MATHEMATICS:
        return set()
    run, rest, powered = match["run"], match["rest"], match["power"] is not None
    unit = is_unit(run, spaced=rest[-1].isspace(), powered=powered) and (len(run) > 1 or not letters(rest))
    return set() if unit else letters(run)
