"""From turns to a tokenised prompt: the chat template is applied once, the result tokenised once.

Each prompt is rendered on 26 July 2024, the date that Llama-3's template falls back to, whatever clock or date a
template asks for: a prompt is the same tomorrow. Templates that draw at random are refused. Switches such as
`enable_thinking` keep the template's own default; no tools are passed.

Contents are text: a system line, an example or a user text that holds a special token of the tokenizer or a
marker of the template would forge a turn, and is refused. A prefill is appended as it is.

A tokenizer without a chat template gets plain text: a single message stands as it is, special tokens included;
with a system line or examples the text is "SYSTEM", then "Question: ..." and "Answer: ..." in turn, separated by
empty lines.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from interp.chat_layout import Piece, Tokenizer, lay_out
from interp.chat_source import DATE
from interp.errors import UserError
from interp.prompts import Prompt

__all__ = ["DATE", "Tokenizer", "Turns", "render"]

Turns = str | Sequence[Mapping[str, str]]
"""What the user says: one user message, or turns {"role": ..., "content": ...}."""

_MARKER = re.compile(r"<[^<>\s]+>|\[/?\w+\]")


def render(
    tokenizer: Tokenizer, turns: Turns, *, system: str | None = None, example: Sequence[tuple[str, str]] = ()
) -> Prompt:
    """Render a conversation with the model's chat template and tokenise it, without a second BOS.

    Every content is in the prompt, once, in order and unchanged but for outer spaces that the template strips, or
    there is an error. Spans are token ranges of the contents: the system message, the worked examples (first to last,
    with the template tokens among them), the problem (the last user message); "header" is what the template writes
    directly before the problem, "assistant" the generation prompt. Other template tokens belong to no span. A token
    belongs to the part in which its first character that is no space stands.

    A system message is always settled here: without one the template writes an empty message or none, whichever is
    shorter, and no default of its own (SmolLM2 and Qwen2.5 have one); a template that writes its default even then is
    logged. A template without system messages (Gemma-2, older Mistral) gets it at the head of the first user message,
    which is logged too. Where a template does not open the assistant's turn, its opening is added and logged.

    Args:
        tokenizer: a Hugging Face tokenizer.
        turns: one user message, or turns with the roles system (first), user and assistant; a final assistant turn is
            a prefill, appended to the generation prompt as it is.
        system: the system message.
        example: worked examples, shown as (user, assistant) turns before `turns`.

    Raises:
        UserError: roles are unknown or out of order, two system messages are given, a content is no text or would
            forge a turn, or the template or the tokenizer changes a content.
    """
    pieces, prefill = _pieces(turns, system, example)
    if tokenizer.chat_template is None:
        if len(pieces) > 1:
            _check_markers(tokenizer, pieces, ("\nQuestion: ", "\nAnswer: "))
        prompt = _tokenise(tokenizer, *_plain(pieces, prefill), special=True)
    else:
        layout = lay_out(tokenizer, pieces)
        _check_markers(tokenizer, pieces, layout.literals)
        where = dict[str, tuple[int, int]]()
        for index, (piece, (start, stop)) in enumerate(zip(layout.pieces, layout.ranges, strict=True)):
            if piece.part == "problem":
                where["header"] = (start - len(layout.literals[index]), start)
            where[piece.part] = (where.get(piece.part, (start, 0))[0], stop)
        where["assistant"] = (len(layout.text) - layout.opening, len(layout.text) + len(prefill))
        prompt = _tokenise(tokenizer, layout.text + prefill, where, special=False)
    _check_tokens(tokenizer, prompt)
    return prompt


def _pieces(turns: Turns, system: str | None, example: Sequence[tuple[str, str]]) -> tuple[list[Piece], str]:
    """Contents in order, and the prefill."""
    rows = _rows(turns)
    if rows and rows[0]["role"] == "system":
        if system is not None:
            raise UserError("two system messages", given=system, works="give system= or a system turn")
        system, rows = rows[0]["content"], rows[1:]
    roles = [turn["role"] for turn in rows]
    prefill = rows.pop()["content"] if roles and roles[-1] == "assistant" else ""
    expected = ["user", "assistant"] * len(rows)
    if not rows or len(rows) % 2 == 0 or [turn["role"] for turn in rows] != expected[: len(rows)]:
        raise UserError("turns must alternate between user and assistant, user first", given=roles)
    shown = [
        Piece("example", role, _text(text, f"a worked example ({role} turn)"))
        for pair in example
        for role, text in zip(("user", "assistant"), _pair(pair), strict=True)
    ]
    shown += [Piece("example", turn["role"], turn["content"]) for turn in rows[:-1]]
    head = [] if system is None else [Piece("system", "system", _text(system, "a system message"))]
    return [*head, *shown, Piece("problem", "user", rows[-1]["content"])], prefill


def _rows(turns: object) -> list[dict[str, str]]:
    if isinstance(turns, str):
        return [{"role": "user", "content": _text(turns, "a user message")}]
    if not isinstance(turns, Sequence):
        raise UserError("a prompt is a text or a list of turns", given=repr(turns)[:60])
    return [_turn(turn) for turn in cast("Sequence[object]", turns)]


def _turn(turn: object) -> dict[str, str]:
    """A turn with exactly a role and a content."""
    fields = cast("Mapping[str, object]", turn) if isinstance(turn, Mapping) else {}
    if set(fields) != {"role", "content"}:
        raise UserError('a turn has a "role" and a "content", and nothing else', given=repr(turn)[:80])
    return {"role": _text(fields["role"], "a role"), "content": _text(fields["content"], "the content of a turn")}


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{what} must be a text", given=repr(value)[:60])
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{what} holds half a character (a lone surrogate)", given=ascii(value)[:60])
    return value


def _pair(pair: object) -> Sequence[object]:
    sides = cast("Sequence[object]", pair) if isinstance(pair, Sequence) and not isinstance(pair, str) else ()
    if len(sides) != 2:
        raise UserError("a worked example is a pair of a question and its answer", given=repr(pair)[:60])
    return sides


def _check_markers(tokenizer: Tokenizer, pieces: Sequence[Piece], literals: Sequence[str]) -> None:
    """Refuse contents that the tokenizer or the model would read as the template's own tokens.

    Raises:
        UserError: a content holds a special token, a marker of the template, or all of what it writes between turns.
    """
    markers = {marker for literal in literals for marker in _markers(literal)} | set(_special(tokenizer, literals))
    for piece in pieces:
        forged = next((marker for marker in sorted(markers) if marker in piece.text), None)
        if forged is not None:
            works = "write it in another way; it would be read as a token of the template, and not as text"
            raise UserError(f"{piece.name} holds {forged.strip()}, which would forge a turn", works=works)


def _markers(literal: str) -> Iterator[str]:
    """What would be read as the template's own: what it writes between two contents, and names in brackets."""
    yield from _MARKER.findall(literal)
    words = literal.strip()
    if len(words) > 1 and literal != words:
        yield literal
    if len(words) > 2 and not words.replace(" ", "").isalnum():
        yield words


def _special(tokenizer: Tokenizer, literals: Sequence[str]) -> Iterator[str]:
    """Texts that the tokenizer takes for one of its special tokens, or for another token that the template writes."""
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    for token in added.values():
        text = str(token)
        if text.strip() and (getattr(token, "special", True) or any(text in literal for literal in literals)):
            yield text


def _plain(pieces: Sequence[Piece], prefill: str) -> tuple[str, dict[str, tuple[int, int]]]:
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
    """Tokenise once; a token belongs to the part in which its first character that is no space stands."""
    bos = getattr(tokenizer, "bos_token", None)
    special = special and not (bos and text.startswith(str(bos)))
    if not tokenizer.is_fast:  # only the Rust tokenizers know offsets
        return Prompt(tuple(tokenizer(text, add_special_tokens=special)["input_ids"]), {}, text)
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    while special and ids and offsets[-1][0] == offsets[-1][1] and ids[-1] == getattr(tokenizer, "eos_token_id", None):
        ids, offsets = ids[:-1], offsets[:-1]  # a completion cannot follow an end token
    starts = [_first_letter(text, start, stop) for start, stop in offsets]
    spans: dict[str, tuple[int, int]] = {}
    for part, (low, high) in where.items():
        inside = [index for index, start in enumerate(starts) if low <= start < high]
        if inside:
            spans[part] = (inside[0], inside[-1] + 1)
    return Prompt(tuple(ids), spans, text)


def _first_letter(text: str, start: int, stop: int) -> int:
    """Where the text of a token begins, after its spaces; -1 for a token without text."""
    words = text[start:stop].lstrip()
    return -1 if stop <= start else start if not words else stop - len(words)


def _check_tokens(tokenizer: Tokenizer, prompt: Prompt) -> None:
    """Refuse a tokenizer that cannot write the text back: characters without a token would be lost silently.

    Raises:
        UserError: decoded, the tokens are another text, even if spaces, case and Unicode's forms do not count.
    """
    decode = getattr(tokenizer, "decode", None)
    if decode is None:
        return
    text = str(decode(list(prompt.ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
    unknown = str(getattr(tokenizer, "unk_token", None) or "")
    ends = {str(getattr(tokenizer, name, None)) for name in ("bos_token", "eos_token")}
    lacking = unknown not in ("", *ends) and text.count(unknown) > prompt.text.count(unknown)  # GPT-2 has one for all
    if lacking or _folded(prompt.text) not in _folded(text):
        lost = next((letter for letter in prompt.text if _folded(letter) not in _folded(text)), "")
        shown = repr(lost) if lost else None
        raise UserError("this tokenizer cannot write this prompt: decoded, its tokens are another text", given=shown)


def _folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
