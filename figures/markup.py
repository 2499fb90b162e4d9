"""Text, JSON and small pieces of HTML that cannot break out of their page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from interp.markup import text as text


def embedded_json(source: str) -> str:
    """Make JSON safe inside a script element: no tag can end it, and no comment can start."""
    safe = source.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return safe.encode("utf-8", "backslashreplace").decode("utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, name: str = "") -> str:
    """Return an HTML table; the cells are HTML already."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    parts = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{text(name)}">{parts}</table></div>'


def folded(title: str, content: str) -> str:
    """Return a part that is folded until it is clicked; the content is HTML already."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def anchor(key: str) -> str:
    """Return a key as the id of an element."""
    return "".join(character if character.isalnum() and character.isascii() else "-" for character in key)
