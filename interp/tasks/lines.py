"""The lines of a `.jsonl` task: every field is understood or refused, with the number of its line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from interp.errors import UserError
from interp.files import regular_file
from interp.grading import Regex, Scorer, load_scorer
from interp.tasks.answers import answer_text
from interp.tasks.task import SPLITS, Problem

FIELDS = ("problem", "answer", "split", "template", "id")
"""Of a problem."""

SETTINGS = ("system", "example", "scorer", "pattern", "tokens")
"""Of the whole task: how its problems are asked and graded."""

_MEANT = {
    **dict.fromkeys(("question", "prompt", "instruction", "query", "input", "text"), "problem"),
    **dict.fromkeys(("final_answer", "target", "label", "gold", "output", "expected", "answers"), "answer"),
    **dict.fromkeys(("system_prompt", "system_message"), "system"),
    **dict.fromkeys(("examples", "few_shot", "fewshot", "shots"), "example"),
    **dict.fromkeys(("max_tokens", "max_new_tokens", "length"), "tokens"),
    **{name: name for name in (*FIELDS, *SETTINGS)},
}
"""What the fields of other formats are called here."""


@dataclass(frozen=True)
class FileSettings:
    """How a file wants its problems asked and graded.

    Attributes:
        system: the system line; None shows none.
        has_system: whether the file says so at all.
        example: worked examples, as (question, answer).
        scorer: None where the file names none.
        tokens: where completions are cut; None where the file does not say so.
    """

    system: str | None = None
    has_system: bool = False
    example: tuple[tuple[str, str], ...] = ()
    scorer: Scorer | None = None
    tokens: int | None = None


def text_lines(file: Path) -> list[str]:
    """The lines of a text file, UTF-8 with or without a byte order mark.

    Raises:
        UserError: it cannot be read, or a line is not UTF-8; the message names the line.
    """
    try:
        raw = regular_file(file).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        packed = raw[:2] == b"\x1f\x8b"
        works = "unpack it" if packed else "save it as UTF-8"
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file.name}, line {line}: this file is not UTF-8 text", given=file, works=works) from None
    # not splitlines(): JSON strings may hold U+2028 as it is
    return text.replace("\r\n", "\n").split("\n")


def read_lines(file: Path) -> tuple[FileSettings, list[Problem]]:
    """The settings and the problems of a `.jsonl` file.

    Raises:
        UserError: the file cannot be read or has a wrong line; the message names the line.
    """
    rows = [
        (f"{file.name}, line {number}", number, _row(line, f"{file.name}, line {number}"))
        for number, line in enumerate(text_lines(file), start=1)
        if line.strip()
    ]
    if not rows:
        raise UserError("this file holds no problems", given=file, works='write one {"problem": ...} a line')
    settings = {name: value for name, value in rows[0][2].items() if name in SETTINGS}
    read, apart = _settings(settings, rows[0][0]), "problem" not in rows[0][2] and bool(settings)
    problems, seen = list[Problem](), set[str]()
    for where, number, row in rows[1:] if apart else rows:
        stated = {name: value for name, value in row.items() if name in SETTINGS}
        if stated != ({} if apart else settings):
            works = "put what all problems share on a first line without a problem, or equally on each line"
            odd = next(name for name in SETTINGS if (name in stated, stated.get(name)) != _at(settings, name, apart))
            raise UserError(f'{where}: "{odd}" is not that of the first line', given=_short(row.get(odd)), works=works)
        problems.append(_problem(row, where, number, seen))
    if not problems:
        raise UserError("this file holds no problems", given=file, works='write one {"problem": ...} a line')
    return read, problems


def _at(settings: Mapping[str, Any], name: str, apart: bool) -> tuple[bool, Any]:
    return (False, None) if apart else (name in settings, settings.get(name))


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row: object = json.loads(line, object_pairs_hook=_without_repeats)
        halved = _halved(row)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        message = str(error).split(":")[0].lower()
        raise UserError(f"{where}: not JSON ({message})", given=line.strip()[:60]) from None
    if not isinstance(row, dict):
        raise UserError(f'{where}: not a JSON object with a "problem"', given=line.strip()[:60])
    fields = cast("dict[str, Any]", row)
    odd = next((name for name in fields if name not in (*FIELDS, *SETTINGS)), None)
    if odd is not None:
        works = f"{_advice(odd)}use {', '.join(FIELDS)}; for the whole file {', '.join(SETTINGS)}"
        what = "no such field" if "problem" in fields else '"problem" must be a text, and there is no such field'
        raise UserError(f"{where}: {what}", given=ascii(odd)[1:-1][:60], works=works)
    if halved:
        raise UserError(f"{where}: half a character (a lone surrogate) is no text", given=ascii(line.strip())[1:61])
    return fields


def _advice(name: str) -> str:
    """What to write in place of a field that has another name, or another form, elsewhere."""
    if name.lower() in ("choices", "options"):
        return 'write the choices into the problem, and "scorer": "choice:A|B" on a first line; '
    meant = _MEANT.get(name.lower())
    return "" if meant is None else f'call it "{meant}"; '


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise UserError("a field stands twice", given=next(name for name in names if names.count(name) > 1)[:60])
    return fields


def _halved(value: object) -> bool:
    """Whether a lone surrogate stands anywhere in a decoded value."""
    return any("\ud800" <= letter <= "\udfff" for letter in json.dumps(value, ensure_ascii=False))


def _short(value: object) -> str:
    return json.dumps(value)[:60]


def _settings(row: Mapping[str, Any], where: str) -> FileSettings:
    system, example, tokens = row.get("system"), row.get("example", []), row.get("tokens")
    if system is not None and not isinstance(system, str):
        raise UserError(f'{where}: "system" must be a text, or null for none', given=_short(system))
    pairs = [example] if isinstance(example, list) and example and isinstance(example[0], str) else example  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in cast("list[object]", pairs)):
        works = '[["question", "answer"], ...]'
        raise UserError(f'{where}: "example" must be pairs of texts', given=_short(example), works=works)
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1):
        raise UserError(f'{where}: "tokens" must be a whole number of at least 1', given=_short(tokens))
    shown = tuple((str(pair[0]), str(pair[1])) for pair in cast("list[list[str]]", pairs))
    return FileSettings(system, "system" in row, shown, _scorer(row, where), tokens)


def _is_pair(pair: object) -> bool:
    texts = cast("list[object]", pair) if isinstance(pair, list) else []
    return len(texts) == 2 and all(isinstance(text, str) and text.strip() for text in texts)


def _scorer(row: Mapping[str, Any], where: str) -> Scorer | None:
    named = {name: row[name] for name in ("scorer", "pattern") if name in row}
    if len(named) == 2:
        raise UserError(f'{where}: "scorer" and "pattern" exclude each other', given=_short(named))
    for name, value in named.items():
        if not isinstance(value, str) or not value:
            raise UserError(f'{where}: "{name}" must be a text', given=_short(value))
        try:
            return Regex(value) if name == "pattern" else load_scorer(value)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return None


def _problem(row: Mapping[str, Any], where: str, number: int, seen: set[str]) -> Problem:
    text, split, template = row.get("problem"), row.get("split", "test"), row.get("template", "")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f'{where}: "problem" must be a text', given=_short(text))
    if split not in SPLITS:
        raise UserError(f'{where}: no such "split"', given=_short(split), works=f"use one of {', '.join(SPLITS)}")
    if not isinstance(template, str):
        raise UserError(f'{where}: "template" must be a text', given=_short(template))
    name = row.get("id", number)
    if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
        raise UserError(f'{where}: "id" must be a text or a whole number', given=_short(name))
    if str(name) in seen:
        raise UserError(f'{where}: this "id" stands on an earlier line too', given=name)
    seen.add(str(name))
    answer = answer_text(row["answer"], where) if "answer" in row else None
    return Problem(str(name), text, answer, template, split)
