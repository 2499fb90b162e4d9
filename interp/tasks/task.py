"""A task: problems, how they are asked and how answers are graded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, cast, get_args

from interp.arguments import check_items, check_kind, check_whole
from interp.chat import Tokenizer, render
from interp.digest import digest
from interp.errors import UserError
from interp.grading import Function, Grade, LastBox, Scorer, as_scorer
from interp.identity import kept_identity
from interp.limits import MOST
from interp.prompts import Prompt
from interp.source_files import is_project
from interp.tasks.answers import answer_text

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        id: unique within its task.
        problem: what the user says.
        answer: the right answer as a scorer reads it, a number is written as text; None where nothing is graded.
        template: what the problem was made from, such as "1op/buy"; "" where there is no such thing.
        split: train, validation or test.
        operations: arithmetic operations needed; None where unknown.
        solution: a worked answer as an assistant would write it, for few-shot prompts; "" where there is none.

    Raises:
        UserError: the answer is blank; nothing could be graded right.
    """

    id: str
    problem: str
    answer: str | None = None
    template: str = ""
    split: Split = "test"
    operations: int | None = None
    solution: str = ""

    def __post_init__(self) -> None:
        if self.answer is not None:
            object.__setattr__(self, "answer", answer_text(self.answer, f"problem {self.id}"))


@dataclass(frozen=True, eq=False)
class Task:
    """Problems with their prompt and their scorer; equal tasks have equal digests.

    Attributes:
        name: as the command line knows it.
        source: makes all problems of all splits; called once, when they are first needed.
        version: raised whenever a prompt or a grade could change.
        system: the system message; None shows none (see `interp.chat.render`).
        example: worked examples shown as (user, assistant) turns, the same for every problem.
        scorer: grades a completion.
        max_new_tokens: length at which a completion is cut; a cut completion keeps its grade.
        samples: completions a problem in the task's own protocol (32 for AIME).
        about: one line on where the task comes from.
    """

    name: str
    source: Callable[[], Sequence[Problem]] = field(repr=False)
    version: int = 1
    system: str | None = None
    example: tuple[tuple[str, str], ...] = ()
    scorer: Scorer = field(default_factory=LastBox)
    max_new_tokens: int = 512
    samples: int = 1
    about: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scorer", as_scorer(self.scorer))
        check_whole("max_new_tokens", self.max_new_tokens)
        check_whole("samples", self.samples)
        check_kind("the name of a task", self.name, str, 'name="sums"')
        check_kind("a system line", self.system, str | None, 'system="Be brief."')
        object.__setattr__(self, "example", _examples(self.example))

    @classmethod
    def of(
        cls,
        problems: Sequence[str | tuple[str, object]],
        *,
        name: str = "list",
        system: str | None = None,
        example: Sequence[tuple[str, str]] = (),
        scorer: Scorer | Callable[[str, str | None], object] | str | None = None,
        max_new_tokens: int = 512,
    ) -> Task:
        """A task from prompts, or from (problem, answer) pairs; all of it is the test split.

        An answer is a text, a number or a list of these; a prompt that nothing is graded on stands alone. The scorer
        may be a function `(text, answer) -> bool`, or the name of one (see `interp.grading.load_scorer`).

        Raises:
            UserError: a problem is no text or empty, or an answer is something else (None, true, bytes).
        """
        check_items("problems", problems, lambda _: True, '[("1 + 1?", "2")]')  # a text alone is no list
        made = [_problem(index, item) for index, item in enumerate(problems)]
        return cls(
            name,
            lambda: made,
            system=system,
            example=_examples(example),
            scorer=LastBox() if scorer is None else as_scorer(scorer),
            max_new_tokens=max_new_tokens,
        )

    @cached_property
    def _splits(self) -> dict[str, list[Problem]]:
        every = list(self.source())
        return {split: [problem for problem in every if problem.split == split] for split in SPLITS}

    @cached_property
    def _checked(self) -> dict[str, list[Problem]]:
        """The problems by split, if each of them can be named and asked."""
        seen = set[str]()
        for problem in self.source():
            if problem.id in seen:
                raise UserError(f"task {self.name} has two problems of one id", given=problem.id)
            if problem.split not in SPLITS:
                works = f"use one of {', '.join(SPLITS)}"
                raise UserError(f"problem {problem.id} is in no known split", given=problem.split, works=works)
            _question(problem.problem, f"problem {problem.id}")
            seen.add(problem.id)
        return self._splits

    def problems(self, split: str = "test", n: int | None = None) -> list[Problem]:
        """The first `n` problems of a split (all by default); their order is fixed and part of the digest.

        Args:
            split: train, validation or test.
            n: number of problems.

        Raises:
            UserError: the task has no such split, fewer problems than asked for, two problems of one id, or a problem
                that asks nothing.
        """
        if split not in SPLITS:
            raise UserError("no such split", given=split, works=f"use one of {', '.join(SPLITS)}")
        found = self._checked[split]
        if not found:
            works = 'choose on another task, or give each problem a "split" field: train, validation or test'
            raise UserError(f"task {self.name} has no {split} problems, so nothing can be chosen on them", works=works)
        if n is not None:
            check_whole("n", n, least=-MOST, most=10**40)
        if n is not None and not 0 < n <= len(found):
            raise UserError(f"task {self.name} has {len(found)} {split} problems", given=f"n={n}")
        return found[:n]

    def prompt(self, tokenizer: Tokenizer, problem: Problem | str) -> Prompt:
        """The tokenised prompt of a problem; system line and examples are the same tokens for all problems."""
        text = problem if isinstance(problem, str) else problem.problem
        return render(tokenizer, text, system=self.system, example=self.example)

    def grade(self, problem: Problem, text: str) -> Grade:
        """Grade a completion; `right` is None where the problem has no answer."""
        return self.scorer(text, problem.answer)

    @property
    def digest(self) -> str:
        """Content hash of everything that can change a prompt or a grade: problems, system, example, scorer, length.

        The scorer of a user is looked at anew each time; see `interp.identity`.
        """
        if type(self.scorer) is Function:
            return self._hashed(self.scorer.spec)
        if is_project(type(self.scorer)):
            return self._digest
        return self._hashed(self.scorer.spec, kept_identity(self.scorer, type(self.scorer).__qualname__))

    @cached_property
    def _digest(self) -> str:
        return self._hashed(self.scorer.spec)

    def _hashed(self, spec: str, *code: str) -> str:
        every = [(p.id, p.problem, p.answer, p.template, p.split) for split in SPLITS for p in self._splits[split]]
        settings = self.name, self.version, self.system, self.example, spec, self.max_new_tokens
        return digest(settings, every, *code)


def _problem(index: int, item: object) -> Problem:
    """A problem from a prompt or a pair."""
    where = f"problem {index}"
    if isinstance(item, str):
        return Problem(str(index), _question(item, where))
    pair = list(cast("Sequence[object]", item)) if isinstance(item, tuple | list) else []
    if len(pair) != 2:
        works = "give a prompt, or a pair of a problem and its answer"
        raise UserError(f"{where} is neither a text nor a pair", given=repr(item)[:60], works=works)
    return Problem(str(index), _question(pair[0], where), answer_text(pair[1], where))


def _examples(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    works = '[("2 + 2?", "4")], a question and its answer'
    check_items("example", pairs, lambda pair: isinstance(pair, tuple | list) and len(pair) == 2, works)
    return tuple((question, answer) for question, answer in pairs)


def _question(text: object, where: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where} asks nothing: it must be a text", given=repr(text)[:60])
    return text
