"""Tasks from files and from the hub: `.jsonl`, plain prompts, datasets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from interp.errors import UserError
from interp.files import as_path, regular_file
from interp.grading import LastBox, Scorer
from interp.tasks.task import SPLITS, Problem, Task

SYSTEM = r"Think step by step, then give the final answer in \boxed{}."
"""System line of tasks that are graded by the last box and bring none of their own."""

QUESTIONS = ("problem", "question", "prompt", "instruction")
ANSWERS = ("answer", "final_answer", "target", "label")
"""Columns tried in this order where a data set does not say which to take."""


def from_jsonl(path: str | Path, *, scorer: Scorer | None = None, max_new_tokens: int = 512) -> Task:
    """A task from JSON lines: "problem", and optionally "answer", "split", "template" and "id".

    Without a "split" field every problem is in the test split; then nothing can be chosen on the task.
    Other fields are ignored. The file is read, and its mistakes found, at once.

    Args:
        path: the file.
        scorer: the last box by default.
        max_new_tokens: length of completions.

    Raises:
        UserError: the file is missing, empty or has a wrong line; the message names the line.
    """
    file = as_path(path)
    seen: set[str] = set()
    problems = [
        _problem(_json(line, file, number), file, number, seen)
        for number, line in enumerate(_lines(file), start=1)
        if line.strip()
    ]
    if not problems:
        raise UserError("this file holds no problems", given=file, works='write one {"problem": ...} a line')
    return _task(file.stem, problems, scorer, max_new_tokens, f"{len(problems)} problems of a file")


def from_prompts(path: str | Path, *, max_new_tokens: int = 512) -> Task:
    """A task without answers: one prompt a line, or JSON lines where the name ends in .jsonl.

    Raises:
        UserError: the file is missing or empty, or has a wrong line.
    """
    file = as_path(path)
    if file.suffix == ".jsonl":
        return from_jsonl(file, max_new_tokens=max_new_tokens)
    prompts = [line.strip() for line in _lines(file) if line.strip()]
    if not prompts:
        raise UserError("this file holds no prompts", given=file, works="write one prompt on each line")
    return Task.of(prompts, name=file.stem, max_new_tokens=max_new_tokens)


def from_hub(
    repository: str,
    *,
    config: str | None = None,
    split: str | None = None,
    question: str | None = None,
    answer: str | None = None,
    name: str | None = None,
    scorer: Scorer | None = None,
    max_new_tokens: int = 3072,
    samples: int = 1,
) -> Task:
    """A task from a data set on the Hugging Face hub; downloaded when its problems are first needed.

    Args:
        repository: hub id, such as "HuggingFaceH4/MATH-500".
        config: configuration of the data set.
        split: the one split to take, as the test split; by default all of train, validation and test.
        question: column of the problem; by default the first of `QUESTIONS` that exists.
        answer: column of the answer; by default the first of `ANSWERS` that exists.
        name: of the task; the repository by default.
        scorer: the last box by default.
        max_new_tokens: length of completions.
        samples: completions a problem in the task's protocol.
    """
    columns = (QUESTIONS if question is None else (question,), ANSWERS if answer is None else (answer,))
    chosen = scorer or LastBox()
    return Task(
        name or repository,
        cache(partial(_hub_problems, repository, config, split, columns)),
        system=SYSTEM if isinstance(chosen, LastBox) else None,
        scorer=chosen,
        max_new_tokens=max_new_tokens,
        samples=samples,
        about=f"https://huggingface.co/datasets/{repository}",
    )


def _task(name: str, problems: Sequence[Problem], scorer: Scorer | None, max_new_tokens: int, about: str) -> Task:
    chosen = scorer or LastBox()
    boxed = isinstance(chosen, LastBox) and any(problem.answer is not None for problem in problems)
    system = SYSTEM if boxed else None
    return Task(name, lambda: problems, system=system, scorer=chosen, max_new_tokens=max_new_tokens, about=about)


def _lines(file: Path) -> list[str]:
    try:
        # not splitlines(): JSON strings may hold U+2028 as it is
        return regular_file(file).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError("this file is not UTF-8 text", given=file) from None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None


def _json(line: str, file: Path, number: int) -> dict[str, Any]:
    try:
        row: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        message = str(error).split(":")[0].lower()
        raise UserError(f"{file.name}, line {number}: not JSON ({message})", given=line.strip()[:60]) from None
    if not isinstance(row, dict):
        raise UserError(f'{file.name}, line {number}: not a JSON object with a "problem"', given=line.strip()[:60])
    return cast("dict[str, Any]", row)


def _problem(row: Mapping[str, Any], file: Path, number: int, seen: set[str]) -> Problem:
    where = f"{file.name}, line {number}"
    text = row.get("problem")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f'{where}: "problem" must be a text', given=json.dumps(text)[:60])
    if any("\ud800" <= letter <= "\udfff" for part in row.values() for letter in str(part)):
        raise UserError(f"{where}: half a character (a lone surrogate) is no text", given=json.dumps(text)[:60])
    split = row.get("split", "test")
    if split not in SPLITS:
        raise UserError(
            f'{where}: no such "split"', given=json.dumps(split)[:60], works=f"use one of {', '.join(SPLITS)}"
        )
    name = str(row.get("id", number))
    if name in seen:
        raise UserError(f'{where}: this "id" stands on an earlier line too', given=name)
    seen.add(name)
    return Problem(name, text, _answer(row.get("answer"), where), str(row.get("template", "")), split)


def _answer(value: object, where: str) -> str | None:
    """An answer as text; lists (OlympiadBench) are joined."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | list):
        raise UserError(f'{where}: "answer" must be a text or a number', given=json.dumps(value)[:60])
    if isinstance(value, list):
        return ", ".join(str(item) for item in cast("list[object]", value))
    return str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)


def _hub_problems(
    repository: str, config: str | None, split: str | None, columns: tuple[tuple[str, ...], tuple[str, ...]]
) -> list[Problem]:
    found = _download(repository, config)
    if split is not None and split not in found:
        raise UserError(f"{repository} has no such split", given=split, works=f"use one of {', '.join(found)}")
    if split is None:
        wanted = {name: name for name in SPLITS if name in found} or {next(iter(found)): "test"}
    else:
        wanted = {split: "test"}
    return [problem for name, ours in wanted.items() for problem in _rows(repository, found[name], ours, columns)]


def _rows(
    repository: str, rows: Iterable[Mapping[str, Any]], split: str, columns: tuple[tuple[str, ...], tuple[str, ...]]
) -> Iterable[Problem]:
    for index, row in enumerate(rows):
        question = next((row[name] for name in columns[0] if name in row), None)
        if not isinstance(question, str):
            works = f"it has {', '.join(row)}; load it with interp.tasks.files.from_hub(..., question=, answer=)"
            raise UserError(f"{repository} has no column {' or '.join(columns[0])}", works=works)
        answer = next((row[name] for name in columns[1] if name in row), None)
        where = f"{repository}, row {index}"
        yield Problem(f"{split}-{index}", question, _answer(answer, where), "", split)  # pyright: ignore[reportArgumentType]


def _download(repository: str, config: str | None) -> Mapping[str, Iterable[Mapping[str, Any]]]:
    # datasets takes seconds to import and is needed for this alone
    import datasets

    try:
        return cast(Any, datasets.load_dataset(repository, config))
    except Exception as error:  # offline, gated, missing, damaged: the library raises a dozen types
        reason = str(error).strip().split("\n")[0][:160]
        works = "check the id and the network, or give a .jsonl file"
        raise UserError(
            f"the data set cannot be loaded from the hub ({reason})", given=repository, works=works
        ) from None
