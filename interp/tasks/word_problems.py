r"""The task `word-problems`, version 1: short arithmetic problems that a 135M model can learn.

Half of the problems need one operation, half two. Two templates, one of each kind, occur in the test split only.
Within a template, splits share no combination of numbers, in any order. Everything follows from SHA-256 of a
counter, so no library's random state matters. FROZEN: vectors in `vectors/pretrained` were trained on this text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count, product

from interp.grading import LastBox
from interp.tasks.task import Problem, Split, Task

VERSION = 1

SYSTEM = r"Reason step by step in one short sentence and put the final number in \boxed{}."

EXAMPLE = (
    ("Lucy has 4 pears and finds 3 more. How many pears does Lucy have now?", r"Lucy has 4 + 3 = 7 pears. \boxed{7}"),
)

SIZES: dict[Split, int] = {"train": 6144, "validation": 256, "test": 512}
"""Problems a split; train and validation over 12 templates, test over 14, in turn."""

NAMES = (
    "Anna", "Ben", "Carla", "Daniel", "Emma", "Felix", "Grace", "Henry", "Iris", "Jack", "Karen", "Leo", "Maria",
    "Noah", "Olivia", "Paul", "Rosa", "Sam", "Tina", "Victor", "Wendy", "Adam", "Bella", "Chris", "Diana", "Eric",
    "Fiona", "George", "Hannah", "Ivan", "Julia", "Kevin", "Laura", "Martin", "Nina", "Oscar", "Peter", "Ruth",
    "Simon", "Tom",
)  # fmt: skip

THINGS = (
    "apples", "pencils", "marbles", "stickers", "books", "cookies", "shells", "coins", "cards", "balloons",
    "buttons", "flowers", "stamps", "beads", "oranges", "pens", "stones", "candies", "ribbons", "plums", "crayons",
    "badges", "muffins", "lemons",
)  # fmt: skip


@dataclass(frozen=True)
class Template:
    """One wording; `numbers` are the values it may take and `answer` what it asks for.

    `{n}`, `{m}`, `{k}` are three names, `{things}` the objects, `{a}`, `{b}`, `{c}` the numbers; `working` is the
    arithmetic as one writes it.
    """

    id: str
    text: str
    numbers: tuple[tuple[int, ...], ...]
    answer: Callable[..., int]
    working: str

    @property
    def operations(self) -> int:
        """One or two."""
        return int(self.id[0])


def _grid(*ranges: range, where: Callable[..., bool] | None = None) -> tuple[tuple[int, ...], ...]:
    return tuple(numbers for numbers in product(*ranges) if where is None or where(*numbers))


_ADD = _grid(range(2, 16), range(2, 11))
_TAKE = _grid(range(4, 19), range(2, 11), where=lambda a, b: a - b >= 2)
_TIMES = _grid(range(2, 12), range(2, 11))
_SHARE = _grid(range(4, 111), range(2, 11), where=lambda a, b: a % b == 0 and 2 <= a // b <= 11)
_ADD_TAKE = _grid(range(3, 13), range(2, 10), range(2, 10), where=lambda a, b, c: a + b - c >= 2)
_TIMES_ADD = _grid(range(2, 7), range(2, 9), range(2, 10))
_TIMES_TAKE = _grid(range(2, 7), range(2, 9), range(2, 10), where=lambda a, b, c: a * b - c >= 2)
_ADD_SHARE = _grid(
    range(2, 17), range(2, 17), range(2, 6), where=lambda a, b, c: (a + b) % c == 0 and (a + b) // c >= 2
)
_TAKE_TAKE = _grid(range(6, 21), range(2, 9), range(2, 9), where=lambda a, b, c: a - b - c >= 2)
_ADD_ADD = _grid(range(2, 11), range(2, 10), range(2, 10))
_SHARE_ADD = _grid(range(6, 41), range(3, 6), range(2, 10), where=lambda a, b, _: a % b == 0 and 2 <= a // b <= 8)

TEMPLATES = (
    Template(
        "1op/buy",
        "{n} has {a} {things} and buys {b} more. How many {things} does {n} have now?",
        _ADD,
        lambda a, b: a + b,
        "{a} + {b}",
    ),
    Template(
        "2op/buy-give",
        "{n} has {a} {things}. {n} buys {b} more and then gives {c} to {m}. How many {things} does {n} have now?",
        _ADD_TAKE,
        lambda a, b, c: a + b - c,
        "{a} + {b} - {c}",
    ),
    Template(
        "1op/give",
        "{n} has {a} {things} and gives {b} of them to {m}. How many {things} does {n} have left?",
        _TAKE,
        lambda a, b: a - b,
        "{a} - {b}",
    ),
    Template(
        "2op/boxes-buy",
        "{n} has {a} boxes with {b} {things} in each box and buys {c} more {things}. "
        "How many {things} does {n} have now?",
        _TIMES_ADD,
        lambda a, b, c: a * b + c,
        "{a} * {b} + {c}",
    ),
    Template(
        "1op/boxes",
        "{n} has {a} boxes with {b} {things} in each box. How many {things} does {n} have?",
        _TIMES,
        lambda a, b: a * b,
        "{a} * {b}",
    ),
    Template(
        "2op/together-share",
        "{n} has {a} {things} and {m} has {b} {things}. They put them together and share them equally among "
        "{c} children. How many {things} does each child get?",
        _ADD_SHARE,
        lambda a, b, c: (a + b) // c,
        "({a} + {b}) / {c}",
    ),
    Template(
        "1op/share",
        "{n} shares {a} {things} equally among {b} friends. How many {things} does each friend get?",
        _SHARE,
        lambda a, b: a // b,
        "{a} / {b}",
    ),
    Template(
        "2op/give-give",
        "{n} has {a} {things}. {n} gives {b} of them to {m} and {c} of them to {k}. "
        "How many {things} does {n} have left?",
        _TAKE_TAKE,
        lambda a, b, c: a - b - c,
        "{a} - {b} - {c}",
    ),
    Template(
        "1op/together",
        "{n} has {a} {things} and {m} has {b} {things}. How many {things} do they have together?",
        _ADD,
        lambda a, b: a + b,
        "{a} + {b}",
    ),
    Template(
        "2op/buy-buy",
        "{n} has {a} {things}. {n} buys {b} more on Monday and {c} more on Tuesday. "
        "How many {things} does {n} have now?",
        _ADD_ADD,
        lambda a, b, c: a + b + c,
        "{a} + {b} + {c}",
    ),
    Template(
        "1op/basket",
        "There are {a} {things} in a basket. {n} takes {b} of them out. How many {things} are left in the basket?",
        _TAKE,
        lambda a, b: a - b,
        "{a} - {b}",
    ),
    Template(
        "2op/share-buy",
        "A group of {b} friends shares {a} {things} equally. One of them, {n}, then buys {c} more. "
        "How many {things} does {n} have now?",
        _SHARE_ADD,
        lambda a, b, c: a // b + c,
        "{a} / {b} + {c}",
    ),
    Template(
        "1op/fewer",
        "{n} has {a} {things}. {m} has {b} fewer {things} than {n}. How many {things} does {m} have?",
        _TAKE,
        lambda a, b: a - b,
        "{a} - {b}",
    ),
    Template(
        "2op/boxes-give",
        "{n} has {a} boxes with {b} {things} in each box and gives {c} of the {things} to {m}. "
        "How many {things} does {n} have left?",
        _TIMES_TAKE,
        lambda a, b, c: a * b - c,
        "{a} * {b} - {c}",
    ),
)

HELD_OUT = ("1op/fewer", "2op/boxes-give")
"""Templates of the test split only."""


def _draw(*key: str | int) -> int:
    """64 bits that depend on the key alone."""
    text = "/".join(map(str, ("word-problems", VERSION, *key)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _allot(template: Template) -> dict[Split, list[tuple[int, ...]]]:
    """Give each combination of numbers to one split; orders of the same numbers stay together.

    Test and validation get enough that no combination is used twice there; train gets the rest.
    """
    groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for numbers in template.numbers:
        groups.setdefault(tuple(sorted(numbers)), []).append(numbers)
    shuffled = sorted(groups, key=lambda group: _draw("group", template.id, *group))
    alloted: dict[Split, list[tuple[int, ...]]] = {"test": [], "validation": [], "train": []}
    for group in shuffled:
        split: Split = "train"
        if len(alloted["test"]) < 37:
            split = "test"
        elif len(alloted["validation"]) < 22:
            split = "validation"
        alloted[split] += groups[group]
    return alloted


def _three(items: tuple[str, ...], *key: str | int) -> list[str]:
    rest = list(items)
    return [rest.pop(_draw(*key, index) % len(rest)) for index in range(3)]


def _text(template: Template, values: tuple[int, ...], *key: str | int) -> str:
    """The template with these numbers, and names and objects drawn by the key."""
    n, m, k = _three(NAMES, "names", *key)
    things = THINGS[_draw("things", *key) % len(THINGS)]
    return template.text.format(n=n, m=m, k=k, things=things, **dict(zip("abc", values, strict=False)))


def _split(split: Split) -> Iterator[Problem]:
    """The problems of a split: templates in turn, numbers in a fixed shuffled order, no text twice."""
    templates = [template for template in TEMPLATES if split == "test" or template.id not in HELD_OUT]
    numbers = {
        template.id: sorted(_allot(template)[split], key=lambda n: _draw("order", template.id, *n))
        for template in templates
    }
    seen: set[str] = set()
    for index in range(SIZES[split]):
        template, turn = templates[index % len(templates)], index // len(templates)
        values = numbers[template.id][turn % len(numbers[template.id])]
        texts = (_text(template, values, split, template.id, turn, attempt) for attempt in count())
        text = next(text for text in texts if text not in seen)
        seen.add(text)
        answer = str(template.answer(*values))
        working = template.working.format(**dict(zip("abc", values, strict=False)))
        solution = rf"That is {working} = {answer}. \boxed{{{answer}}}"
        yield Problem(f"{split}-{index:04d}", text, answer, template.id, split, template.operations, solution)


@cache
def problems() -> tuple[Problem, ...]:
    """All problems of all splits; about a second, once a process."""
    return tuple(problem for split in SIZES for problem in _split(split))


def word_problems() -> Task:
    """The task `word-problems`."""
    return Task(
        "word-problems",
        problems,
        version=VERSION,
        system=SYSTEM,
        example=EXAMPLE,
        scorer=LastBox(),
        max_new_tokens=40,
        about="one- and two-operation arithmetic word problems, made here; SmolLM2-135M-Instruct can learn them",
    )
