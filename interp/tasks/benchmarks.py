"""The six benchmarks of the paper, as data (arXiv:2509.06608 sec. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from interp.errors import UserError
from interp.tasks.files import from_hub
from interp.tasks.task import Problem, Task

TEMPERATURES = (1.0, 0.0)
"""Evaluated at T = 1 and greedily."""


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark lives and how it is evaluated.

    Attributes:
        title: as in the paper.
        repository: hub id.
        split: its split on the hub.
        question: column of the problem.
        answer: column of the answer.
        problems: number of problems.
        samples: completions a problem at T = 1.
    """

    title: str
    repository: str
    split: str
    question: str
    answer: str
    problems: int
    samples: int


BENCHMARKS: dict[str, Benchmark] = {
    "aime24": Benchmark("AIME24", "HuggingFaceH4/aime_2024", "train", "problem", "answer", 30, 32),
    "aime25": Benchmark("AIME25", "math-ai/aime25", "test", "problem", "answer", 30, 32),
    "amc23": Benchmark("AMC23", "math-ai/amc23", "test", "question", "answer", 40, 32),
    "math-500": Benchmark("MATH-500", "HuggingFaceH4/MATH-500", "test", "problem", "answer", 500, 1),
    "minerva": Benchmark("Minerva", "math-ai/minervamath", "test", "question", "answer", 272, 1),
    "olympiad-bench": Benchmark("OlympiadBench", "math-ai/olympiadbench", "test", "question", "final_answer", 674, 1),
}
"""The paper does not say which copies on the hub it used; these have the numbers of problems it reports."""


ALL_BENCHMARKS = "paper-benchmarks"
"""Name of the six as one task."""
EACH = 30
"""Test problems of each benchmark in it: as many as the smallest has."""
TRAINING = "agentica-org/DeepScaleR-Preview-Dataset"
"""What the paper's vectors were trained on: the train and validation splits."""
TRAIN, VALIDATION = 2048, 512


def benchmark(name: str) -> Task:
    """A benchmark as a task; nothing is downloaded before its problems are needed.

    Raises:
        UserError: there is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise UserError("no such benchmark", given=name, works=f"use one of {', '.join(BENCHMARKS)}")
    data = BENCHMARKS[name]
    return from_hub(
        data.repository,
        split=data.split,
        question=data.question,
        answer=data.answer,
        name=name,
        samples=data.samples,
    )


def average(accuracy: Mapping[str, float]) -> float:
    """The paper's Average: the unweighted mean over the six benchmarks, in the unit given.

    Raises:
        UserError: one of the six is missing or there is another.
    """
    if set(accuracy) != set(BENCHMARKS):
        odd = sorted(set(accuracy) ^ set(BENCHMARKS))
        raise UserError("the Average is over exactly the six benchmarks", given=f"missing or extra: {', '.join(odd)}")
    return sum(accuracy.values()) / len(accuracy)


def all_benchmarks() -> Task:
    """The six benchmarks as one task for experiments: equally many problems of each, in turn.

    With a multiple of six problems the mean over problems is the paper's Average, the unweighted mean over benchmarks.
    Experiments choose on problems of the training set and not, as the paper does, on the benchmarks.
    """
    one = next(iter(BENCHMARKS))
    return replace(benchmark(one), name=ALL_BENCHMARKS, source=cache(_all_problems), samples=1, about=TRAINING)


def _all_problems() -> list[Problem]:
    tests = {name: benchmark(name).problems("test") for name in BENCHMARKS}
    train = from_hub(TRAINING, split="train", question="problem", answer="answer").problems("test", TRAIN + VALIDATION)
    return [*in_turn(tests, EACH), *_as_split(train[:TRAIN], "train"), *_as_split(train[TRAIN:], "validation")]


def in_turn(tests: Mapping[str, Sequence[Problem]], each: int) -> list[Problem]:
    """The first problem of each benchmark, the second of each, ...; those taken are spread evenly over a benchmark.

    Args:
        tests: benchmark -> its problems, at least `each`.
        each: how many to take of each.
    """
    return [
        replace(problems[place * len(problems) // each], id=f"{name}-{place}", template=name)
        for place in range(each)
        for name, problems in tests.items()
    ]


def _as_split(problems: Sequence[Problem], split: Literal["train", "validation"]) -> list[Problem]:
    return [replace(problem, id=f"{split}-{index}", split=split) for index, problem in enumerate(problems)]
