"""The text of a chat template, freed from the clock and from chance: it renders the same on each day and machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from interp.errors import UserError

DATE = "26 Jul 2024"
"""The day on which each prompt is rendered, a Friday: the date that the templates of Llama-3 fall back to."""

_DAY = {
    "%d": "26", "%-d": "26", "%e": "26", "%m": "07", "%-m": "7", "%Y": "2024", "%y": "24", "%B": "July", "%b": "Jul",
    "%h": "Jul", "%A": "Friday", "%a": "Fri", "%j": "208", "%u": "5", "%w": "5", "%H": "00", "%-H": "0", "%I": "12",
    "%-I": "12", "%p": "AM", "%M": "00", "%S": "00", "%f": "000000", "%F": "2024-07-26", "%D": "07/26/24",
    "%T": "00:00:00", "%R": "00:00", "%x": "07/26/24", "%X": "00:00:00", "%c": "Fri Jul 26 00:00:00 2024",
    "%s": "1721952000", "%z": "+0000", "%Z": "UTC", "%V": "30", "%U": "29", "%W": "30", "%G": "2024", "%n": "\n",
    "%%": "%",
}  # fmt: skip
# transformers gives templates the clock of this machine as a global function; a macro of the same name hides it
_CLOCK = (
    "{%- macro strftime_now(format='%Y-%m-%d') -%}{%- set day = "
    + repr(_DAY)
    + " -%}{%- set at = namespace(skip=0) -%}"
    "{%- for letter in format -%}{%- if at.skip -%}{%- set at.skip = at.skip - 1 -%}"
    "{%- elif letter == '%' -%}"
    "{%- set size = 3 if format[loop.index0:loop.index0 + 3] in day else 2 -%}{%- set at.skip = size - 1 -%}"
    "{%- set name = format[loop.index0:loop.index0 + size] -%}{%- if name not in day -%}"
    "{{- raise_exception('no fixed date for ' ~ name) -}}{%- endif -%}{{- day[name] -}}"
    "{%- else -%}{{- letter -}}{%- endif -%}{%- endfor -%}{%- endmacro %}\n"
)
_CHANCE = re.compile(r"""\| random\b|\blipsum\b|\bmap \( ['"]random\b""")


def dateless(template: Any) -> str:
    """Return the text of a tokenizer's chat template, of several named ones the default one, with a fixed date.

    Raises:
        UserError: there are several templates and no default, it is no text, or it depends on chance.
    """
    if isinstance(template, list | tuple):
        template = {entry["name"]: entry["template"] for entry in cast("Sequence[Mapping[str, str]]", template)}
    if isinstance(template, Mapping):
        named = cast("Mapping[str, str]", template)
        if "default" not in named and len(named) != 1:
            works = "set tokenizer.chat_template to the text of one of them"
            names = ", ".join(named) or "none"
            raise UserError("this tokenizer has several chat templates and no default", given=names, works=works)
        template = named.get("default") or next(iter(named.values()))
    if not isinstance(template, str):
        raise UserError("a chat template is a text", given=type(template).__name__)
    if chance := _chance(template):
        raise UserError("this chat template draws at random", given=chance, works="take that out of it")
    return _CLOCK + template if "strftime_now" in template else template


@cache
def _chance(template: str) -> str:
    """The random function of Jinja that the template uses, or ""."""
    from jinja2 import Environment, TemplateError

    try:
        tokens = list(Environment().lex(template))
    except TemplateError:
        return ""  # rendering reports what is wrong with it
    words = " ".join(text for _, kind, text in tokens if kind in ("name", "operator", "string"))
    match = _CHANCE.search(words)
    return match.group().strip("| ") if match else ""
