"""Tasks from files and from the hub: `.jsonl`, plain prompts, datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from interp.errors import UserError
from interp.files import as_path
from interp.grading import LastBox, Scorer
from interp.tasks.answers import answer_text
from interp.tasks.lines import read_lines, text_lines
from interp.tasks.task import SPLITS, Problem, Task

SYSTEM = r"Think step by step, then give the final answer in \boxed{}."
"""System line of tasks that are graded by the last box and bring none of their own."""

QUESTIONS = ("problem", "question", "prompt", "instruction")
ANSWERS = ("answer", "final_answer", "target", "label")
"""Columns of which a data set has one, where the caller names none."""

BESIDES = frozenset(
    {"id", "idx", "index", "uid", "uuid", "unique_id", "problem_id", "question_id", "split", "subset", "source"}
    | {"dataset", "url", "link", "year", "date", "category", "type", "topic", "subject", "subfield", "field", "level"}
    | {"difficulty", "language", "license", "author", "solution", "rationale", "explanation", "reasoning"}
)
"""Columns that say nothing of what is asked; a data set with others is read where the caller names its columns."""

LENGTH = 512
"""Tokens at which completions are cut, where neither a file nor the caller says so."""

NO_PROMPTS = frozenset(
    {".csv", ".tsv", ".json", ".parquet", ".arrow", ".xlsx", ".yaml", ".yml", ".xml", ".html", ".py", ".pdf"}
    | {".gz", ".zip", ".xz", ".bz2", ".zst", ".npy", ".npz", ".safetensors"}
)
"""Endings of files that are no plain prompts."""


def from_jsonl(path: str | Path, *, scorer: Scorer | None = None, max_new_tokens: int | None = None) -> Task:
    """A task from JSON lines, one problem each; the file is read, and its mistakes are reported, at once.

    A line has "problem" and may have "answer", "split", "template" and "id". How all problems are asked and graded
    stands on a first line without "problem", or equally on each line: "system" (the system line, or null for none),
    "example" (pairs of a question and its answer), "scorer" (see `interp.grading.load_scorer`) or "pattern" (a regular
    expression, whose first group is the answer) and "tokens" (where completions are cut). Other fields are refused.

    Without a "split" field every problem is in the test split; then nothing can be chosen on the task. A file that
    brings no "system" and is graded by the last box asks with `SYSTEM`.

    Args:
        path: the file.
        scorer: replaces the file's; the last box if neither is given.
        max_new_tokens: replaces the file's length of completions; 512 if neither is given.

    Raises:
        UserError: the file is missing, empty or has a wrong line; the message names the line.
    """
    file = as_path(path)
    settings, problems = read_lines(file)
    chosen = scorer or settings.scorer or LastBox()
    boxed = isinstance(chosen, LastBox) and any(problem.answer is not None for problem in problems)
    return Task(
        file.stem,
        lambda: problems,
        system=settings.system if settings.has_system else SYSTEM if boxed else None,
        example=settings.example,
        scorer=chosen,
        max_new_tokens=max_new_tokens or settings.tokens or LENGTH,
        about=f"{len(problems)} problems of a file",
    )


def from_prompts(path: str | Path, *, max_new_tokens: int | None = None) -> Task:
    """A task without answers: one prompt a line, or JSON lines where the name ends in .jsonl.

    Raises:
        UserError: the file is missing or empty, has a wrong line, or is a table, an archive or JSON.
    """
    file = as_path(path)
    if file.suffix == ".jsonl":
        return from_jsonl(file, max_new_tokens=max_new_tokens)
    if file.suffix.lower() in NO_PROMPTS:
        raise UserError(
            "no file of prompts", given=file, works="give a .txt file with a prompt on each line, or .jsonl"
        )
    prompts = [line.strip() for line in text_lines(file) if line.strip()]
    if not prompts:
        raise UserError("this file holds no prompts", given=file, works="write one prompt on each line")
    if all(line.startswith("{") and line.endswith("}") for line in prompts):
        raise UserError("these prompts are lines of JSON", given=file, works="give the file a name that ends in .jsonl")
    return Task.of(prompts, name=file.stem, max_new_tokens=max_new_tokens or LENGTH)


def with_scorer(task: Task, scorer: Scorer) -> Task:
    """The task with another scorer; the system line that asks for a box goes where no box is read."""
    system = None if task.system == SYSTEM and not isinstance(scorer, LastBox) else task.system
    return replace(task, scorer=scorer, system=system)


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

    Where the caller names no columns, the data set must be understood: one column of `QUESTIONS`, at most one of
    `ANSWERS`, and others of `BESIDES` alone. Choices, passages or inputs would change what is asked, and are refused.
    An answer that is the number of a class (`ClassLabel`) becomes the name of the class.

    Args:
        repository: hub id, such as "HuggingFaceH4/MATH-500".
        config: configuration of the data set.
        split: the one split to take, as the test split; by default all of train, validation and test.
        question: column of the problem; by default the one of `QUESTIONS` that exists.
        answer: column of the answer; by default the one of `ANSWERS` that exists.
        name: of the task; the repository by default.
        scorer: the last box by default.
        max_new_tokens: length of completions.
        samples: completions a problem in the task's protocol.
    """
    chosen = scorer or LastBox()
    return Task(
        name or repository,
        cache(partial(_hub_problems, repository, config, split, (question, answer))),
        system=SYSTEM if isinstance(chosen, LastBox) else None,
        scorer=chosen,
        max_new_tokens=max_new_tokens,
        samples=samples,
        about=f"https://huggingface.co/datasets/{repository}",
    )


def _hub_problems(
    repository: str, config: str | None, split: str | None, columns: tuple[str | None, str | None]
) -> list[Problem]:
    parts = _download(repository, config)
    if split is not None and split not in parts:
        raise UserError(f"{repository} has no such split", given=split, works=f"use one of {', '.join(parts)}")
    wanted = {split: "test"} if split is not None else {name: name for name in SPLITS if name in parts}
    if not wanted and len(parts) == 1:
        wanted = {next(iter(parts)): "test"}
    if not wanted:
        works = "load it with interp.tasks.from_hub(..., split=)"
        raise UserError(f"{repository} has none of the splits {', '.join(SPLITS)}", given=", ".join(parts), works=works)
    return [problem for name, ours in wanted.items() for problem in _rows(repository, parts[name], ours, columns)]


def _rows(
    repository: str, rows: Iterable[Mapping[str, Any]], split: str, columns: tuple[str | None, str | None]
) -> Iterable[Problem]:
    features: Mapping[str, Any] = getattr(rows, "features", None) or {}
    for index, row in enumerate(rows):
        question, answer = _columns(repository, tuple(row), columns)
        where = f"{repository}, {split} row {index}"
        text, value = row[question], None if answer is None else row[answer]
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: {question} must be a text", given=repr(text)[:60])
        classes = getattr(features.get(answer or ""), "names", None)
        if classes is not None and isinstance(value, int):
            value = classes[value] if 0 <= value < len(classes) else None
        graded = None if value is None else answer_text(value, where)
        yield Problem(f"{split}-{index}", text, graded, "", split)  # pyright: ignore[reportArgumentType]


@cache
def _columns(repository: str, names: tuple[str, ...], columns: tuple[str | None, str | None]) -> tuple[str, str | None]:
    """The columns of the problem and of the answer.

    Raises:
        UserError: one is missing, several would do, or the data set has columns that are not understood.
    """
    works = f"it has {', '.join(names)}; load it with interp.tasks.from_hub(..., question=, answer=)"
    chosen: list[str | None] = []
    for column, known in zip(columns, (QUESTIONS, ANSWERS), strict=True):
        hits = [name for name in (known if column is None else (column,)) if name in names]
        if len(hits) > 1:
            raise UserError(f"{repository} has several columns of one meaning", given=", ".join(hits), works=works)
        if not hits and (column is not None or known is QUESTIONS):
            raise UserError(f"{repository} has no column {column or ' or '.join(known)}", works=works)
        chosen.append(hits[0] if hits else None)
    odd = sorted(set(names) - {*chosen} - BESIDES)
    if odd and None in columns:
        raise UserError(f"{repository} has columns that are not understood", given=", ".join(odd), works=works)
    return str(chosen[0]), chosen[1]


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
