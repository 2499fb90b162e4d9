"""Files of completions: JSON lines that ask, that answer, and that are read in place of generation.

A line is one sample of one problem: what was asked (`problem`, `prompt`, `prompt_ids`, `sample`, `temperature`,
`max_new_tokens`, `stop_ids`), under what (`model`, `edits`: digests), and the answer (`text`, `ids`, `ended`,
`log_prob`, `entropy`), which is absent where nobody gave one yet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from interp.bare_model import takes_model
from interp.completion_cache import Request, kept
from interp.completion_sources import Said, scored
from interp.completions import Completion
from interp.digest import digest
from interp.errors import UserError
from interp.files import regular_file, write_atomically
from interp.identity import identity_of
from interp.model import Model

Line = dict[str, Any]
_ASKED = ("prompt_ids", "model", "edits", "temperature", "max_new_tokens", "stop_ids")
"""What must agree before a line stands in for a completion."""
_NAMES = {*_ASKED, "problem", "sample", "prompt", "text", "ids", "ended", "log_prob", "entropy"}


@dataclass(frozen=True)
class FileSource:
    """Completions read from a file, in place of generation.

    Attributes:
        path: the file.
        digest: of its contents.
        lines: what was asked -> its answers by sample.
    """

    path: Path
    digest: str
    lines: Mapping[str, list[Line]] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> FileSource:
        """Read a file that `interp completions import` or `export` wrote.

        Raises:
            UserError: there is no such file, or a line is no JSON object of the right kind.
        """
        lines: dict[str, list[Line]] = {}
        for line in read_lines(path):
            if not {"edits", "prompt_ids", "sample"} <= set(line):
                works = "interp completions import"
                raise UserError("this file does not say what its completions are of", given=path.name, works=works)
            if line.get("ids"):
                lines.setdefault(_asked(line), []).append(line)
        if not lines:
            raise UserError("this file holds no completions", given=path.name, works="interp completions import")
        found = {key: sorted(samples, key=lambda line: line["sample"]) for key, samples in lines.items()}
        return cls(path, sha256(path.read_bytes()).hexdigest()[:16], found)

    @takes_model
    def answers(self, model: Model, request: Request) -> list[int]:
        """Rows of which the file has enough samples."""
        asks = self._asks(model, request)
        return [row for row, key in enumerate(asks) if len(self.lines.get(key, ())) >= request.samples]

    @takes_model
    def say(self, model: Model, request: Request) -> list[list[Said]]:
        """The first samples of each prompt."""
        found = [self.lines[key][: request.samples] for key in self._asks(model, request)]
        return [[_said(line, model) for line in samples] for samples in found]

    def _asks(self, model: Model, request: Request) -> list[str]:
        return [_asked(line) for line in asking(model, replace(request, samples=1))]


@takes_model
def asking(model: Model, request: Request, problems: Sequence[str] | None = None) -> list[Line]:
    """What a request asks, a line for each prompt and sample."""
    fingerprint = model.fingerprint  # reads all weights: once
    return [
        {
            "problem": None if problems is None else problems[row],
            "sample": sample,
            "prompt": prompt.text,
            "prompt_ids": list(prompt.ids),
            "temperature": float(request.temperature),
            "max_new_tokens": request.max_new_tokens,
            "stop_ids": list(model.stop_ids),
            "model": fingerprint,
            "edits": [identity_of(edit) for edit in edits],
        }
        for row, (prompt, edits) in enumerate(zip(request.prompts, request.row_edits(), strict=True))
        for sample in range(request.samples)
    ]


@takes_model
def export(model: Model, request: Request, problems: Sequence[str], folder: Path, out: Path) -> tuple[int, int]:
    """Write what a request asks, with the completions that are kept; generate nothing.

    Returns:
        How many lines have a completion, and how many lines there are.
    """
    lines = asking(model, request, problems)
    found: list[tuple[Completion, str] | None] = []
    for samples in kept(model, request, folder):
        found += [*samples, *[None] * (request.samples - len(samples))]
    for line, one in zip(lines, found, strict=True):
        if one is not None:
            line |= _answer(*one)
    _write(out, lines)
    return sum(one is not None for one in found), len(lines)


@takes_model
def import_lines(model: Model, request: Request, problems: Sequence[str], given: Path, out: Path) -> int:
    """Check completions that were made elsewhere, and write them as `--completions-from` reads them.

    Args:
        model: what they are of.
        request: what was asked; decides about vectors, temperature and length.
        problems: id of each prompt's problem.
        given: lines with `problem` and `text` or `ids`; optional `sample`, `ended`, `log_prob` (at temperature 1).
        out: the new file.

    Returns:
        Number of completions.

    Raises:
        UserError: a line names no problem of the task, a prompt or weights differ, or nothing answers.
    """
    asks = asking(model, replace(request, samples=1), problems)
    said = _answers(read_lines(given), asks, model)
    if not any(said):
        raise UserError("this file holds no completions", given=given.name, works='lines with "problem" and "text"')
    rows = [row for row, samples in enumerate(said) if samples]
    made = scored(model, request.only(rows), [said[row] for row in rows])
    lines = [asks[rows[row.prompt]] | {"sample": row.sample, **_answer(row, text)} for row, text in made]
    _write(out, lines)
    return len(lines)


def _answers(lines: Sequence[Line], asks: Sequence[Line], model: Model) -> list[list[Said]]:
    """The answers to each of what is asked."""
    place = {ask["problem"]: row for row, ask in enumerate(asks)}
    said: list[list[Said]] = [[] for _ in asks]
    for line in lines:
        name = str(line.get("problem"))
        if "text" not in line and "ids" not in line:
            continue
        if name not in place:
            works = f"ask for more than n = {len(asks)}"
            raise UserError("a completion of no problem that was asked", given=name, works=works)
        for part in _ASKED:
            if part in line and line[part] != asks[place[name]][part]:
                raise UserError(f"a completion that was asked for otherwise: {part} differs", given=f"problem {name}")
        said[place[name]].append(_said(line, model))
    return said


def read_lines(path: Path) -> list[Line]:
    """The objects of a file of JSON lines.

    Raises:
        UserError: there is no such file, or a line is no JSON object.
    """
    try:
        # not splitlines(): JSON strings of other writers may hold U+2028 or U+0085 as they are
        texts = regular_file(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise UserError("this file of completions is no UTF-8 text", given=path) from None
    found: list[Line] = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict):
            raise UserError("not a line of JSON with names", given=f"{path.name}, line {number}")
        if line:
            _check_line(line, f"{path.name}, line {number}")
            found.append(line)
    return found


def _check_line(line: Line, where: str) -> None:
    """Refuse a name that is not read, such as a setting of the sampler, and values of a wrong kind."""
    unknown = sorted(set(line) - _NAMES)
    if unknown:
        works = f"a line has some of {', '.join(sorted(_NAMES))}"
        raise UserError("a completion with a field that is not understood", given=f"{where}: {unknown[0]}", works=works)
    for name in ("ids", "prompt_ids", "stop_ids"):
        values = line.get(name)
        if values is not None and not (isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)):
            raise UserError("token ids are a list of numbers from 0", given=f"{where}: {name}")
    sample = line.get("sample", 0)
    if type(sample) is not int or sample < 0:
        raise UserError("a sample is a number from 0", given=f"{where}: {sample}")


def _said(line: Line, model: Model) -> Said:
    """The answer of a line; log-probabilities are compared only where they are at temperature 1."""
    ids = line.get("ids")
    at_one = line.get("log_prob") if line.get("temperature", 1.0) in (0.0, 1.0) else None
    text = line.get("text")
    if ids is not None and max(ids, default=0) >= model.d_vocab:
        raise UserError("a token that the model does not have", given=max(ids))
    return Said(
        str(text or ""),
        line.get("ended"),
        None if ids is None else tuple(map(int, ids)),
        None if at_one is None else tuple(map(float, at_one)),
    )


def _answer(row: Completion, text: str) -> Line:
    return {
        "text": text,
        "ids": list(row.ids),
        "ended": row.ended,
        "log_prob": list(row.log_prob),
        "entropy": list(row.entropy),
    }


def _asked(line: Line) -> str:
    return digest([line.get(name) for name in _ASKED])


def _write(out: Path, lines: Sequence[Line]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)  # in ASCII: no reader breaks a line within a text
    write_atomically(out, lambda file: file.write_text(text, encoding="ascii"))
