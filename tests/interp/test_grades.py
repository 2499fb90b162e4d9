"""Grades by hand: a table of pairs, numbers in every notation, and texts that must not stop a run."""

from __future__ import annotations

import time
from decimal import Decimal
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from math_verify import parse, verify

from interp.cli import app
from interp.equality import costly, equal
from interp.errors import UserError
from interp.given import as_task
from interp.grading import Choice, LastBox, LastNumber, PlainBox, Regex, last_box, load_scorer
from interp.step_limit import within
from interp.tasks import Task
from interp.tasks.asking import Asking
from interp.tasks.graders import graded_by

ROOT = Path(__file__).parents[2]


class Row(NamedTuple):
    """One pair with its two grades."""

    kind: str
    completion: str
    answer: str
    right: bool
    plain: bool


def _rows() -> list[Row]:
    lines = Path(__file__).with_name("grades.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    cells = [line.split("\t") for line in lines]
    return [Row(kind, text, answer, right == "1", plain == "1") for kind, text, answer, right, plain in cells]


ROWS = _rows()


def test_the_table_is_large_and_decides_both_ways() -> None:
    assert len(ROWS) >= 300
    assert sum(not row.right for row in ROWS) >= 80
    assert len({(row.completion, row.answer) for row in ROWS}) == len(ROWS)


def test_every_pair_gets_its_grade_by_hand() -> None:
    assert [row for row in ROWS if LastBox()(row.completion, row.answer).right is not row.right] == []


def test_plain_is_the_grade_of_math_verify() -> None:
    assert [row for row in ROWS if PlainBox()(row.completion, row.answer).right is not row.plain] == []


@pytest.mark.slow
def test_the_bound_changes_no_grade_of_math_verify() -> None:
    for row in ROWS:
        _, content = last_box(row.completion)
        if content is None or costly(content) or costly(row.answer):
            continue
        answer, target = (parse(rf"$\boxed{{{text}}}$", parsing_timeout=None) for text in (row.answer, content))  # pyright: ignore
        assert verify(answer, target, timeout_seconds=None) is row.plain, row


def test_the_documentation_states_a_difference_of_each_kind() -> None:
    page = (ROOT / "docs" / "grading.md").read_text(encoding="utf-8")
    shown = [line.split(" | ") for line in page.split("\n") if line.startswith("| `")]
    stated = {
        (line[0].strip("| `"), line[1].strip("` "), line[2] == "right", line[3].strip(" |") == "right")
        for line in shown
    }
    known = {(row.completion, row.answer, row.right, row.plain): row.kind for row in ROWS}
    assert stated <= set(known)
    assert {known[row] for row in stated} >= {row.kind for row in ROWS if row.right != row.plain} - {"mixed"}


def _notations(value: Fraction) -> list[str]:
    """A number as people and models write it."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    top, bottom = size.numerator, size.denominator
    fractions = [rf"\frac{{{top}}}{{{bottom}}}", rf"\dfrac{{{top}}}{{{bottom}}}", f"{top}/{bottom}"]
    whole, rest = divmod(size, 1)
    if whole and rest:
        part = rf"{rest.numerator}}}{{{rest.denominator}"
        fractions += [rf"{whole}\frac{{{part}}}", f"{whole} {rest.numerator}/{rest.denominator}"]
    signed = [sign + text for text in fractions if bottom > 1]
    decimal = _decimal(size)
    if decimal is not None:
        grouped = f"{decimal:,}"
        texts = [f"{decimal:f}", f"{decimal:f}0" if "." in f"{decimal:f}" else f"{decimal:f}.0", grouped]
        texts += [grouped.replace(",", mark) for mark in (r",\!", "{,}", r"\,", r"\;", "~", r"\ ", "'", "\u202f")]
        texts += [str(decimal).translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})]
        if decimal:
            texts += [
                rf"{decimal.scaleb(-7):f} \times 10^{{7}}",
                f"{decimal.scaleb(9):f}e-9",
                rf"{decimal.scaleb(2):f}\%",
            ]
        signed += [sign + text for text in texts]
    signed += [text.replace("-", "\u2212") for text in signed[:2] if sign]
    units = [r" \text{ cm}^2", " apples", r"\,\mathrm{km/h}", ".", r"^\circ", " dollars"]
    return [*signed, *(signed[0] + unit for unit in units), rf"\${signed[-1]}", f"x = {signed[0]}", f"#### {signed[0]}"]


def _decimal(value: Fraction) -> Decimal | None:
    for places in range(7):
        if (value * 10**places).denominator == 1:
            return Decimal((value * 10**places).numerator).scaleb(-places)
    return None


INTEGERS = st.integers(-(10**9), 10**9).map(Fraction)
DECIMALS = st.builds(
    lambda digits, places: Fraction(digits, 10**places), st.integers(-(10**7), 10**7), st.integers(0, 5)
)
RATIONALS = st.builds(Fraction, st.integers(-999, 999), st.integers(1, 99))
NUMBERS = st.one_of(INTEGERS, DECIMALS, RATIONALS)


@given(NUMBERS)
@example(Fraction(10080))
@example(Fraction(1_000_000))
@example(Fraction(-3, 2))
@settings(max_examples=12, deadline=None)
def test_a_number_equals_itself_in_every_notation(value: Fraction) -> None:
    texts = _notations(value)
    assert [pair for pair in combinations(texts, 2) if not equal(*pair)] == []


@given(NUMBERS, NUMBERS)
@example(Fraction(1000), Fraction(1))
@example(Fraction(3, 2), Fraction(11, 2))
@example(Fraction(1, 3), Fraction(3333, 10000))
@settings(max_examples=12, deadline=None)
def test_two_numbers_are_never_equal_in_any_notation(left: Fraction, right: Fraction) -> None:
    # 50 % equals both 50 and 0.5, as for math-verify
    if left in (right, right * 100, right / 100):
        return
    lefts, rights = _notations(left), _notations(right)
    pairs = [*product(lefts[:4], rights), *product(lefts, rights[:4])]
    assert [pair for pair in pairs if equal(*pair)] == []


@given(st.text(max_size=200), st.text(alphabet=r"\{}^_()[]123xy+-*/=,.:%! sqrtfacboxd", max_size=150))
@example("", "x" + "^{x" * 40)
@example("", r"\frac{1}{" * 30 + "2" + "}" * 30)
@example("", "(" * 9 + "1" + ")" * 9)
@example("", r"(x+y+z)^{99}(a+b)^{99}")
@example("", r"\sqrt{" * 20 + "x" + "}" * 20)
@example("", r"\int_0^1 \int_0^1 \sin(x^{y^2}) dx dy")
@example("", r"\binom{99999999}{5000000}")
@settings(max_examples=50, deadline=None)
def test_no_text_stops_a_run(prose: str, latex: str) -> None:
    for scorer in (LastBox(), PlainBox(), LastNumber(), Regex(r"(\d)"), Choice(("x", "12"))):
        begun = time.thread_time()
        scorer(rf"{prose} \boxed{{{latex}}}", "12")
        scorer(prose, "12")
        assert time.thread_time() - begun < 3  # the runtime checks of the tests slow it down


def test_the_bound_counts_calls_and_holds_where_exceptions_are_swallowed() -> None:
    def endless() -> bool:
        while True:
            try:
                str(Fraction(1, 3))
            except Exception:
                continue

    assert within(10_000, lambda: True)
    assert not within(10_000, endless)


@pytest.mark.parametrize("answer", ["", "  ", "####", "#### ", r"\boxed{}", "$$", "."])
def test_an_empty_answer_is_refused(answer: str) -> None:
    for scorer in (LastBox(), PlainBox(), LastNumber(), Regex("(.)"), Choice(("A", "B"))):
        with pytest.raises(UserError, match="empty answer"):
            scorer(r"\boxed{5}", answer)


def test_an_answer_that_can_never_be_right_is_refused() -> None:
    with pytest.raises(UserError, match="answers that are numbers"):
        LastNumber()("so 5", "x + 1")
    with pytest.raises(UserError, match="one of the choices"):
        Choice(("A", "B"))("A", "C")
    assert Choice(("A", "B"))("so B", "(B)").right


def test_a_pattern_compares_numbers_and_not_their_digits() -> None:
    scorer = Regex(r"is (\S+)")
    assert scorer("it is 1,000", "1000").right and scorer("it is 7.0", "7").right
    assert not scorer("it is 1,2", "12").right
    assert not scorer("it is 5m", "5").right


def test_the_grader_enters_the_digest() -> None:
    tasks = [Task.of([("1+1?", "2")], scorer=load_scorer(name)) for name in ("last-box", "plain", "last-number")]
    assert len({task.digest for task in tasks}) == 3
    assert load_scorer("plain") == PlainBox()


def test_the_flag_of_the_grader(tmp_path: Path) -> None:
    file = tmp_path / "sums.jsonl"
    file.write_text('{"problem": "1+1?", "answer": "2"}')
    assert Asking(grader="plain").apply(as_task(str(file))).scorer == PlainBox()
    assert Asking().apply(as_task(str(file))).scorer == LastBox()
    other = Task.of([("1+1?", "2")], scorer=LastNumber())
    with pytest.raises(UserError, match="graded by their last box"):
        graded_by(other, "plain")
    with pytest.raises(UserError, match="no such grader"):
        graded_by(other, "plian")


def test_each_command_with_a_task_has_the_flag() -> None:
    pending: list[tuple[str, click.Command]] = [("interp", app)]
    missing: list[str] = []
    with_task = 0
    while pending:
        name, command = pending.pop()
        flags = {flag for option in command.params for flag in option.opts}
        with_task += "--task" in flags
        if "--scorer" in flags and "--grader" not in flags:
            missing.append(name)
        if isinstance(command, click.Group):
            context = click.Context(command)
            # one experiment stands for all: their shared options are the same
            names = command.list_commands(context)[:1] if name == "interp run" else command.list_commands(context)
            pending += [(f"{name} {sub}", child) for sub in names if (child := command.get_command(context, sub))]
    assert not missing
    assert with_task >= 8
