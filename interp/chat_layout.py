"""How a chat template lays out a conversation: each content is in the text, once, in order and at a known place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Protocol, runtime_checkable

from interp.chat_source import DATE, dateless
from interp.errors import UserError

_AS_IT_IS = ("'type': 'text'", '"type": "text"')
_SYSTEM_MARK, _REPLY_MARK = "\ue000system\ue001", "\ue000reply\ue001"

log = logging.getLogger(__name__)


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that rendering needs."""

    chat_template: Any

    @property
    def is_fast(self) -> bool:
        """Whether it knows the offsets of its tokens."""
        ...

    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any:
        """Render turns to text."""
        ...

    def __call__(self, text: str, **settings: Any) -> Any:
        """Tokenise text."""
        ...


@dataclass(frozen=True)
class Piece:
    """A content of a conversation: its part (system, example or problem), its role and its text."""

    part: str
    role: str
    text: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return {"system": "the system line", "example": f"an earlier {self.role} turn"}.get(self.part, "the user text")


@dataclass(frozen=True)
class Layout:
    """A rendered conversation.

    Attributes:
        text: all of it, with the generation prompt.
        pieces: the contents, in order.
        ranges: [start, stop) of each content in `text`, characters; without outer spaces that the template strips.
        literals: what the template writes before, between and after the contents.
        opening: characters of the generation prompt, at the end of `text`.
    """

    text: str
    pieces: tuple[Piece, ...]
    ranges: tuple[tuple[int, int], ...]
    literals: tuple[str, ...]
    opening: int


_Template = Callable[[Sequence[Piece], bool], str]


def lay_out(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> Layout:
    """Render the contents with the tokenizer's chat template and locate each of them.

    Contents are tried as text and then as lists of parts ({"type": "text", ...}). A system line is tried in a turn of
    its own and then at the head of the first user message, which is logged. Without a system line, the template gets
    an empty one or none, whichever is shorter.

    Raises:
        UserError: in no form does the template write each content once, in order and unchanged.
    """
    source = dateless(tokenizer.chat_template)
    as_text, as_parts = (partial(_apply, tokenizer, source, as_parts=as_parts) for as_parts in (False, True))
    system = pieces[0].text if pieces[0].part == "system" else None
    rest = pieces if system is None else pieces[1:]
    turn, head = ([Piece("system", role, system or ""), *rest] for role in ("system", "user"))
    reason = ""
    for form in (turn, head if system else rest):
        for template in (as_text, as_parts):
            layout = _located(template, form)
            if isinstance(layout, Layout):
                return _settled(template, layout, rest, system, source)
            reason = layout if template is as_text else reason
    works = "set tokenizer.chat_template to another template, or to None for plain text"
    raise UserError(f"the chat template of this tokenizer {reason}", works=works)


def _settled(template: _Template, layout: Layout, rest: Sequence[Piece], system: str | None, source: str) -> Layout:
    """Of an empty system message and none the shorter; what the reader should know of this template is logged."""
    if system is None and layout.pieces != tuple(rest):
        without = _located(template, rest)
        if isinstance(without, Layout) and len(without.text) <= len(layout.text):
            layout = without
    first = layout.pieces[0]
    if system and first.role == "user":
        _log_once(source, "this chat template has no system turn, so the system line heads the first user message")
    if system is None and (default := _own_system(template, rest, empty=first.part == "system")):
        _log_once(source, f"this chat template writes a system text although it is given none: {default[:80]!r}")
    if layout.opening == 0 and (missing := _missing_opening(template, layout)):
        _log_once(source, f"this chat template opens no assistant turn, so {missing!r} is added to the prompt")
        return replace(layout, text=layout.text + missing, opening=len(missing))
    return layout


@cache
def _log_once(source: str, text: str) -> None:  # noqa: ARG001 - once for each template
    log.warning(text)


def _apply(tokenizer: Tokenizer, source: str, pieces: Sequence[Piece], generate: bool, *, as_parts: bool) -> str:
    messages: list[dict[str, Any]] = []
    for piece in pieces:
        if messages and messages[-1]["role"] == piece.role:
            messages[-1]["content"] += "\n\n" + piece.text
        else:
            messages.append({"role": piece.role, "content": piece.text})
    if as_parts:
        messages = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in messages]
    return str(
        tokenizer.apply_chat_template(
            messages, chat_template=source, tokenize=False, add_generation_prompt=generate, date_string=DATE
        )
    )


def _marked(pieces: Sequence[Piece]) -> list[Piece]:
    return [replace(piece, text=f"\ue000{index}\ue001") for index, piece in enumerate(pieces)]


def _located(template: _Template, pieces: Sequence[Piece]) -> Layout | str:
    """Lay out these pieces, or return why the template cannot."""
    marked = _marked(pieces)
    try:
        text, shown, closed = template(pieces, True), template(marked, True), template(marked, False)
    except Exception as error:  # a template is a program of its writer and may fail in any way
        return f"fails: {' '.join(str(error).split())[:160] or type(error).__name__}"
    literals, rest = list[str](), shown
    for piece, mark in zip(pieces, (piece.text for piece in marked), strict=True):
        if shown.count(mark) != 1 or mark not in rest:
            how = "loses" if mark not in shown else "repeats" if shown.count(mark) > 1 else "reorders"
            return f"{how} {piece.name}"
        literal, _, rest = rest.partition(mark)
        literals.append(literal)
    literals.append(rest)
    if any(sign in literal for sign in _AS_IT_IS for literal in literals):
        return "takes no parts"  # it writes the list as Python shows it
    ranges = _ranges(text, pieces, literals)
    if isinstance(ranges, str):
        return ranges
    opening = len(shown) - len(closed) if shown.startswith(closed) else 0
    return Layout(text, tuple(pieces), ranges, tuple(literals), opening)


def _ranges(text: str, pieces: Sequence[Piece], literals: Sequence[str]) -> tuple[tuple[int, int], ...] | str:
    """Character ranges of the contents, which stand as they are or without outer spaces; else what is wrong."""
    if not text.startswith(literals[0]):
        return f"rewrites {pieces[0].name}"
    cursor, ranges = len(literals[0]), list[tuple[int, int]]()
    for piece, literal in zip(pieces, literals[1:], strict=True):
        content = next((form for form in _stripped(piece.text) if text.startswith(form + literal, cursor)), None)
        if content is None:
            return f"rewrites {piece.name}"
        ranges.append((cursor, cursor + len(content)))
        cursor += len(content) + len(literal)
    return tuple(ranges) if cursor == len(text) else f"rewrites {pieces[-1].name}"


def _stripped(text: str) -> Iterator[str]:
    yield text
    for letters in (None, "\n"):
        yield from (text.strip(letters), text.lstrip(letters), text.rstrip(letters))


def _missing_opening(template: _Template, layout: Layout) -> str:
    """What the template writes before an assistant's message, where it does not know `add_generation_prompt`."""
    marked = _marked(layout.pieces)
    try:
        if template(marked, True) != template(marked, False):
            return ""
        shown = template([*marked, Piece("reply", "assistant", _REPLY_MARK)], False)
    except Exception:  # it takes no assistant turn, so what opens one is unknown
        return ""
    before, mark, _ = shown.partition(marked[-1].text)[2].partition(_REPLY_MARK)
    tail = layout.literals[-1]
    missing = before.removeprefix(tail) if mark and before.startswith(tail) else ""
    return missing if missing.strip() else ""


def _own_system(template: _Template, rest: Sequence[Piece], *, empty: bool) -> str:
    """A system text that the template writes where it is given an empty one, or none."""
    marked = _marked(rest)
    try:
        without = template([Piece("system", "system", ""), *marked] if empty else marked, True)
        shown = template([Piece("system", "system", _SYSTEM_MARK), *marked], True)
    except Exception:  # a template that takes no system message has no default in its place
        return ""
    start = _shared(without, shown)
    stop = _shared(without[start:][::-1], shown[start:][::-1])
    return without[start : len(without) - stop].strip() if _SYSTEM_MARK in shown else ""


def _shared(first: str, second: str) -> int:
    """Characters that both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(first), len(second)))
