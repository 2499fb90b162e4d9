"""Texts of strangers in HTML: nothing in them is markup, and nothing in them hides."""

from __future__ import annotations

import html
import unicodedata

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content-security policy of a page without scripts."""


def text(value: object) -> str:
    """Escape a value for HTML; characters that hide, reorder or cannot be encoded are written as escapes."""
    return html.escape(visible(str(value)), quote=True)


def visible(value: str) -> str:
    """Write control and format characters, lone surrogates and unassigned ones as escapes; line ends and tabs stay."""
    return "".join(map(_shown, value))


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\n\t" or category not in {"Cc", "Cf", "Cs", "Co", "Cn"}:
        return character
    return f"\\u{ord(character):04x}"
