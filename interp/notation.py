r"""From the many ways to typeset an answer to one: signs of Unicode, spaces of LaTeX, units, prose around it."""

from __future__ import annotations

import re
import unicodedata

_SIGNS = {
    **dict.fromkeys("\u2212\ufe63\uff0d\u2010\u2011", "-"),
    **dict.fromkeys("\u00a0\u2007\u2008\u2009\u200a\u202f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    **dict.fromkeys("\u2018\u2019\u02bc", "'"),
    "\u3001": ",", "\u3002": ".", "\u00d7": r"\times ", "\u00f7": "/", "\u2215": "/", "\u22c5": r"\cdot ",
    "\u00b7": r"\cdot ", "\u00b0": r"^\circ ", "\u2103": r"^\circ C", "\u2109": r"^\circ F", "\u03c0": r"\pi ",
    "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ", "\u222a": r"\cup ",
    "\u2229": r"\cap ", "\u2205": r"\emptyset ", "\u00b1": r"\pm ", "\u2208": r"\in ", "\u2013": "\u2013",
    "\u2014": "\u2013", "\u2012": "\u2013", "\u2015": "\u2013",
}  # fmt: skip

_COMMANDS = [
    (re.compile(r"\\!\s*"), ""),
    (re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?"), ""),
    (re.compile(r"\\(?:display|text|script)style(?![a-zA-Z])\s*"), ""),
    (re.compile(r"\\(?:[dtc]|nice|s)frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"(?<!\\)\\(?:[,;:> ]|(?:q?quad|thinspace|medspace|thickspace|enspace)(?![a-zA-Z]))"), " "),
    (re.compile(r"\\[hv]space\*?\{[^{}]*\}|~"), " "),
    (re.compile(r"\\varnothing"), r"\\emptyset"),
    (re.compile(r"\{:\}"), ":"),
    (re.compile(r"(?<=\d)\s*\^\s*\{\s*(?:\\(?:text|mathrm|rm)\s*)?\{?\s*(st|nd|rd|th)\s*\}?\s*\}"), r"\1"),
    (re.compile(r"\\(?:math(?:rm|bf|it|sf)|text(?:rm|bf|it|sf|normal)|mbox|boldsymbol|bold)\s*(?=\{)"), r"\\text"),
    (re.compile(r"\{\s*\\(?:rm|bf|it)\s+([^{}]*)\}"), r"\\text{\1}"),
]  # fmt: skip

_ROOT = re.compile("\u221a\\s*(\\d+|[a-z]|\\([^()]*\\))")
_SUPERSCRIPTS = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+")
_GROUPED = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?:\{,\}\d{3})+)(?!\d)")
_DASH_AS_MINUS = re.compile("(^|[=(\\[{,;<>+*/])\\s*\u2013\\s*(?=[\\d.\\\\$])")
_WRAPPED = re.compile(
    r"\\(?:boxed|fbox|text|ensuremath|underline)\s*\{(.*)\}|\$\$?(.*?)\$?\$|\\\((.*)\\\)|\\\[(.*)\\\]|\*\*(.*)\*\*|\{(.*)\}",
    re.DOTALL,
)
_ANNOUNCED = re.compile(r"\banswer(?:\s+is|\s*:|\s*=)\s*:?\s*(?!.*\banswer\b)(.+)$", re.IGNORECASE | re.DOTALL)
_INTRODUCED = re.compile(r"\\text\s*\{[^{}\d]*(?:\b(?:is|are|about|approximately|equals)|:|=)\s*\}\s*(?=.)", re.DOTALL)
_MARK = "####"


def clean(latex: str) -> str:
    r"""Return an answer with plain digits, signs and spaces, without outer wrappers and final punctuation.

    A dash between two numbers stays a dash: it means a range and no difference.
    """
    text = _plain_commands(_plain_signs(latex))
    before = None
    while text != before:
        before = text
        text = _INTRODUCED.sub("", _unwrapped(text.strip().lstrip("=").rstrip(" \t\n.,;:\\")), count=1)
    return text


def gold(answer: str) -> str:
    r"""Return the answer inside a reference text: after the last `####`, in the last box, or after "answer is"."""
    if _MARK in answer:
        answer = answer.rpartition(_MARK)[2]
    start = answer.rfind("\\boxed")
    if start >= 0:
        brace = answer.find("{", start)
        content = None if brace < 0 else _group(answer, brace)
        answer = answer if content is None else content
    announced = _ANNOUNCED.search(answer)
    return announced[1] if announced else answer


def _plain_signs(text: str) -> str:
    text = _SUPERSCRIPTS.sub(
        lambda match: "^{" + unicodedata.normalize("NFKC", match[0]).replace("\u2212", "-") + "}", text
    )
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1].strip('()')}}}", text)
    return "".join(_SIGNS.get(sign) or _compatible(sign) for sign in text if _SIGNS.get(sign) != "")


def _compatible(sign: str) -> str:
    """One character as ASCII where it has such a form: full-width signs, digits of other scripts, fractions."""
    if sign.isascii():
        return sign
    if unicodedata.category(sign) == "Nd":
        return str(unicodedata.digit(sign))
    normal = unicodedata.normalize("NFKC", sign)
    if "\u2044" in normal:
        top, _, bottom = normal.partition("\u2044")
        return rf"\frac{{{top}}}{{{bottom}}}" if top and bottom else sign
    return normal if "\uff00" <= sign <= "\uffef" and normal.isascii() else sign


def _plain_commands(text: str) -> str:
    for pattern, plain in _COMMANDS:
        text = pattern.sub(plain, text)
    text = _GROUPED.sub(lambda match: match[1].replace("{,}", ""), text)
    return _DASH_AS_MINUS.sub(r"\1-", text)


def _unwrapped(text: str) -> str:
    match = _WRAPPED.fullmatch(text)
    if match is None:
        return text
    inside = next(group for group in match.groups() if group is not None)
    depth = 0
    for index, sign in enumerate(inside):
        escaped = index > 0 and inside[index - 1] == "\\"
        depth += 0 if escaped else (sign == "{") - (sign == "}")
        if depth < 0 or (sign == "$" and not escaped):
            return text
    # an empty box or text is kept, so that it stays different from a blank
    return inside if inside.strip() else text


def _group(text: str, brace: int) -> str | None:
    """What stands between the brace at this place and its partner."""
    depth = 0
    for index in range(brace, len(text)):
        escaped = index > 0 and text[index - 1] == "\\"
        depth += 0 if escaped else (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return text[brace + 1 : index]
    return None
