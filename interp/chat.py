"""From turns to a tokenised prompt: the chat template is applied once, the result tokenised once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from interp.arguments import check_items
from interp.errors import UserError
from interp.prompts import Prompt

Turns = str | Sequence[Mapping[str, str]]
"""What the user says: one user message, or turns {"role": ..., "content": ...}."""

DATE = "26 Jul 2024"
"""Given to templates that write today's date (Llama-3): a prompt may not depend on the day it is rendered."""


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
class _Piece:
    part: str  # system, example, problem or assistant
    role: str
    text: str


_Render = Callable[[list[dict[str, str]], bool], str]


def render(
    tokenizer: Tokenizer, turns: Turns, *, system: str | None = None, example: Sequence[tuple[str, str]] = ()
) -> Prompt:
    """Render a conversation with the model's chat template and tokenise it, without a second BOS.

    Spans are token ranges of the contents: the system message, the worked examples (first to last, with the template
    tokens among them), the problem (the last user message); "header" is what the template writes directly before the
    problem, "assistant" the generation prompt. Other template tokens belong to no span, and where a template
    rewrites the contents there are no spans.

    A system message is always settled here: without one the template writes an empty message or none, whichever
    is shorter, and never a default of its own (SmolLM2 and Qwen2.5 have one). A template that refuses
    system messages (Gemma-2) gets it at the head of the first user message.

    A tokenizer without a chat template gets plain text: a single message stands as it is; with a system line or
    examples the text is "SYSTEM", then "Question: ..." and "Answer: ..." in turn, separated by empty lines.

    Args:
        tokenizer: a Hugging Face tokenizer.
        turns: one user message, or turns with the roles system (first), user and assistant; a final assistant turn is
            a prefill, appended to the generation prompt as it is.
        system: the system message.
        example: worked examples, shown as (user, assistant) turns before `turns`.

    Raises:
        UserError: roles are unknown or out of order, or two system messages are given.
    """
    if not isinstance(turns, str):
        check_items(
            "a conversation", turns, lambda one: isinstance(one, Mapping), '[{"role": "user", "content": "Hi"}]'
        )
    pieces, prefill = _pieces(turns, system, example)
    if any("\ud800" <= letter <= "\udfff" for text in (*(piece.text for piece in pieces), prefill) for letter in text):
        raise UserError("half a character (a lone surrogate) is no text", given=ascii(turns)[:80])
    if tokenizer.chat_template is None:
        return _tokenise(tokenizer, *_plain(pieces, prefill), special=True)
    from jinja2 import TemplateError

    template = partial(_apply, tokenizer)
    try:
        messages = _accepted(template, pieces)
        text = template(_messages(messages), True)
        spans = _spans(template, messages, text, prefill)
    except (TemplateError, TypeError, ValueError, KeyError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"the chat template of this tokenizer fails: {reason}") from error
    return _tokenise(tokenizer, text + prefill, spans, special=False)


def _pieces(turns: Turns, system: str | None, example: Sequence[tuple[str, str]]) -> tuple[list[_Piece], str]:
    """Contents in order, and the prefill."""
    said = [{"role": "user", "content": turns}] if isinstance(turns, str) else [dict(turn) for turn in turns]
    if said and said[0].get("role") == "system":
        if system is not None:
            raise UserError("two system messages", given=system, works="give system= or a system turn")
        system, said = said[0]["content"], said[1:]
    roles = [turn.get("role") for turn in said]
    prefill = str(said.pop()["content"]) if roles and roles[-1] == "assistant" else ""
    expected = ["user", "assistant"] * len(said)
    if not said or len(said) % 2 == 0 or [turn.get("role") for turn in said] != expected[: len(said)]:
        raise UserError("turns must alternate between user and assistant, user first", given=roles)
    shown = [
        _Piece("example", role, text)
        for pair in example
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    shown += [_Piece("example", str(turn["role"]), str(turn["content"])) for turn in said[:-1]]
    head = [] if system is None else [_Piece("system", "system", system)]
    return [*head, *shown, _Piece("problem", "user", str(said[-1]["content"]))], prefill


def _apply(tokenizer: Tokenizer, messages: list[dict[str, str]], generate: bool) -> str:
    return str(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate, date_string=DATE)
    )


def _messages(pieces: Sequence[_Piece]) -> list[dict[str, str]]:
    """Pieces as chat turns; neighbours of one role become one turn."""
    messages: list[dict[str, str]] = []
    for piece in pieces:
        if messages and messages[-1]["role"] == piece.role:
            messages[-1]["content"] += "\n\n" + piece.text
        else:
            messages.append({"role": piece.role, "content": piece.text})
    return messages


def _accepted(template: _Render, pieces: list[_Piece]) -> list[_Piece]:
    """The pieces with a system message that this template takes, or without one."""
    from jinja2 import TemplateError

    given = pieces[0].part == "system"
    with_system = pieces if given else [_Piece("system", "system", ""), *pieces]
    try:
        explicit = template(_messages(with_system), True)
    except TemplateError:
        return [_Piece("system", "user", pieces[0].text), *pieces[1:]] if given else pieces
    if given or len(explicit) < len(template(_messages(pieces), True)):
        return with_system
    return pieces


def _spans(template: _Render, pieces: Sequence[_Piece], text: str, prefill: str) -> dict[str, tuple[int, int]]:
    """Character ranges of the parts, found by rendering marks in place of the contents."""
    marks = [f"\ue000{index}\ue001" for index in range(len(pieces))]
    marked = [_Piece(piece.part, piece.role, mark) for piece, mark in zip(pieces, marks, strict=True)]
    rest, closed = template(_messages(marked), True), template(_messages(marked), False)
    opening = len(rest) - len(closed) if rest.startswith(closed) else 0
    where: dict[str, tuple[int, int]] = {}
    cursor, problem = 0, pieces[-1]
    for piece, mark in zip(pieces, marks, strict=True):
        literal, _, rest = rest.partition(mark)
        start = cursor + len(literal)
        content = piece.text if text.startswith(piece.text, start) else piece.text.strip()
        if text[cursor:start] != literal or not text.startswith(content, start):
            return {}
        if piece is problem:
            where["header"] = (cursor, start)
        cursor = start + len(content)
        where[piece.part] = (where.get(piece.part, (start, 0))[0], cursor)
    if text[cursor:] != rest:
        return {}
    where["assistant"] = (len(text) - opening, len(text) + len(prefill))
    return where


def _plain(pieces: Sequence[_Piece], prefill: str) -> tuple[str, dict[str, tuple[int, int]]]:
    """The fallback for models without a chat template."""
    if len(pieces) == 1:
        text, stop = pieces[0].text + prefill, len(pieces[0].text)
        return text, {"problem": (0, stop), "assistant": (stop, len(text))}
    text, where = "", dict[str, tuple[int, int]]()
    for piece in pieces:
        head = "" if piece.part == "system" else {"user": "Question: ", "assistant": "Answer: "}[piece.role]
        start = len(text) + len(head)
        if piece is pieces[-1]:
            where["header"] = (len(text), start)
        text += head + piece.text
        where[piece.part] = (where.get(piece.part, (start, 0))[0], len(text))
        text += "\n" if piece.role == "user" else "\n\n"
    where["assistant"] = (len(text) - 1, len(text) + len("Answer:") + len(prefill))
    return text + "Answer:" + prefill, where


def _tokenise(tokenizer: Tokenizer, text: str, where: Mapping[str, tuple[int, int]], *, special: bool) -> Prompt:
    """Tokenise once; a token belongs to the part in which its first character stands."""
    bos = getattr(tokenizer, "bos_token", None)
    special = special and not (bos and text.startswith(str(bos)))
    if not tokenizer.is_fast:  # only the Rust tokenizers know offsets
        return Prompt(tuple(tokenizer(text, add_special_tokens=special)["input_ids"]), {}, text)
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    starts = [start if stop > start else -1 for start, stop in encoded["offset_mapping"]]
    spans: dict[str, tuple[int, int]] = {}
    for part, (low, high) in where.items():
        inside = [index for index, start in enumerate(starts) if low <= start < high]
        if inside:
            spans[part] = (inside[0], inside[-1] + 1)
    return Prompt(tuple(encoded["input_ids"]), spans, text)
