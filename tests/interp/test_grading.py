"""Scorers agree with math-verify, read odd texts, and end on hostile ones."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_verify import parse, verify

from interp.errors import UserError
from interp.grading import (
    MAX_BOX,
    Choice,
    Function,
    Grade,
    LastBox,
    LastNumber,
    PlainBox,
    Regex,
    Scorer,
    boxes,
    equal,
    last_box,
    load_scorer,
)


@pytest.mark.parametrize(
    ("text", "boxed", "content"),
    [
        (r"so \boxed{7}.", True, "7"),
        (r"\boxed{3} or rather \boxed{ 7 }", True, "7"),
        (r"\boxed{\frac{1}{2}}", True, r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", True, "5"),
        (r"\boxed{\{1, 2\}}", True, r"\{1, 2\}"),
        (r"\boxed {7}", True, "7"),
        (r"\boxed{3} and then \boxed{4", True, "3"),
        (r"\boxed{4", False, None),
        (r"\boxed 4", False, None),
        ("boxed{4}", False, None),
        ("", False, None),
        (r"\boxed{}", True, ""),
        (r"\boxed{" + "9" * (MAX_BOX + 1) + "}", True, None),
        (r"\boxed{1} \boxed{" + "9" * (MAX_BOX + 1), True, "1"),
    ],
)
def test_the_last_closed_box(text: str, boxed: bool, content: str | None) -> None:
    assert last_box(text) == (boxed, content)
    assert LastBox()(text, None) == Grade(None, boxed, content)


@pytest.mark.parametrize(
    ("found", "answer", "right"),
    [
        ("7", "7", True),
        ("7", "8", False),
        ("0.5", r"\frac{1}{2}", True),
        (r"\frac12", "0.5", True),
        ("1,000", "1000", True),
        ("7.0", "7", True),
        (r"7 \text{ apples}", "7", True),
        (r"\$7", "7", True),
        ("x = 7", "7", True),
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        ("(1, 2)", "(1,2)", True),
        (r"\{2, 1\}", r"\{1, 2\}", True),
        (r"50\%", "0.5", True),
        ("2^{10}", "1024", True),
        ("y^2 + x^2", "x^2+y^2", True),
        ("(x-1)^2(x+1)^3", "(x+1)^3 (x-1)^2", True),
        ("e^{x^2}", "e^{x^{2}}", True),
        ("10^{4}", "10000", True),
        ("033", "33", True),
        ("27.0", "27", True),
        ("", "7", False),
        ("seven", "7", False),
        ("A", "A", True),
        ("-7", "7", False),
    ],
)
def test_answers_that_mean_the_same(found: str, answer: str, right: bool) -> None:
    assert equal(found, answer) is right
    assert LastBox()(rf"so \boxed{{{found}}}.", answer) == Grade(right, True, found)


@given(st.integers(-(10**6), 10**6), st.integers(-3, 3))
@settings(max_examples=60, deadline=None)
def test_the_fast_path_for_integers_agrees_with_math_verify(number: int, more: int) -> None:
    for left, right in ((number, number + more), (number, -number)):
        slow = verify(*(parse(rf"$\boxed{{{x}}}$", parsing_timeout=None) for x in (right, left)), timeout_seconds=None)  # pyright: ignore
        assert equal(str(left), str(right)) is slow


@given(st.text(alphabet=r"\boxed{}123 x^/,.$", max_size=80))
@settings(max_examples=150, deadline=None)
def test_no_text_breaks_a_scorer(text: str) -> None:
    for scorer in (LastBox(), PlainBox(), LastNumber(), Regex(r"(\d)"), Choice(("x", "12"))):
        grade = scorer(text, "12")
        assert grade.right in (True, False) and grade.boxed is any(True for _ in boxes(text))


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{9^{9^{9^{9}}}}",
        r"\boxed{9**9**9**9}",
        r"\boxed{9^{99999999}}",
        r"\boxed{9^9^9^9}",
        r"\boxed{9^{\frac{9^9}{1}}}",
        r"\boxed{((9^{999})^{999})^{999}}",
        r"\boxed{(9^{9})^{(9^{9})}}",
        r"\boxed{(10^{9})!}",
        r"\boxed{\sum_{k=1}^{99999999} \frac{1}{k}}",
        r"\boxed{\binom{99999999}{5000000}}",
        r"\boxed{" * 200_000,
        r"\boxed{1} " * 100_000 + "{" * 100_000,
        r"\boxed{" + "(" * 390 + "}",
        "9" * 1_000_000,
        "1," * 500_000,
        r"\boxed{" + "9" * 390 + "}",
    ],
)
def test_hostile_texts_are_graded_in_a_moment(text: str) -> None:
    begun = time.process_time()
    assert LastBox()(text, "12").right is False
    assert LastNumber()(text, "12").right is False
    assert time.process_time() - begun < 5


def test_grading_works_off_the_main_thread_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    grades: list[Grade] = []
    thread = threading.Thread(target=lambda: grades.append(LastBox()(r"\boxed{\frac{3}{6}}", "0.5")))
    thread.start()
    thread.join()
    assert grades == [Grade(True, True, r"\frac{3}{6}")]
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "answer", "grade"),
    [
        ("3 and 4 make 7.", "7", Grade(True, False, "7")),
        ("it costs $1,234.50", "1234.5", Grade(True, False, "1234.50")),
        ("minus -3", "-3", Grade(True, False, "-3")),
        ("5-3", "2", Grade(False, False, "3")),
        ("x = −3", "-3", Grade(True, False, "−3")),
        ("it is .5", "0.5", Grade(True, False, ".5")),
        ("1,00,000 rupees", "100000", Grade(True, False, "100000")),
        ("so 3/4", "4", Grade(False, False, "3/4")),
        ("so 3/4", "0.75", Grade(True, False, "3/4")),
        ("10{,}080", "#### 10,080 m", Grade(True, False, "10080")),
        (r"\boxed{7} of 9", "9", Grade(True, True, "9")),
        ("none", "9", Grade(False, False, None)),
        ("8", None, Grade(None, False, "8")),
    ],
)
def test_the_last_number(text: str, answer: str | None, grade: Grade) -> None:
    assert LastNumber()(text, answer) == grade


def test_a_regex_takes_its_first_group_of_the_last_match() -> None:
    scorer = Regex(r"Answer: (\w+)( kg)?")
    assert scorer("Answer: 3 kg. No. Answer: 007", "7") == Grade(True, False, "007")
    assert Regex(r"\d+")("a 5 b", "5").right and not scorer("5", "5").right
    with pytest.raises(UserError, match="not a regular expression"):
        Regex("(")


def test_a_choice_is_a_whole_word() -> None:
    scorer = Choice(("A", "AB", "no"))
    assert scorer("AB, not A", "AB") == Grade(True, False, "AB")
    assert scorer("Another noise: A", "A").right
    assert scorer("nothing", "A") == Grade(False, False, None)
    for wrong in ((), ("A",), ("A", "A"), ("A", "")):
        with pytest.raises(UserError, match="two or more"):
            Choice(wrong)


SOURCE = """
def contains(text, answer):
    return answer is not None and answer in text

def broken(text, answer):
    return 1

class Strict:
    spec = "strict"
    def __call__(self, text, answer):
        from interp.grading import Grade
        return Grade(text == answer, False, text)

strict = Strict()
number = 3
"""


def test_scorers_by_name(tmp_path: Path) -> None:
    for scorer in (LastBox(), LastNumber(), Regex(r"a:(\d)"), Choice(("A", "B"))):
        assert load_scorer(scorer.spec) == scorer
        assert isinstance(scorer, Scorer)
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    mine = load_scorer(f"{path}:contains")
    assert mine("the 7 dwarfs", "7").right and not mine("six", "7").right
    assert mine.spec.startswith("contains@") and mine.spec == load_scorer(f"{path}:contains").spec
    other = tmp_path / "other.py"
    other.write_text(SOURCE.replace("answer in text", "answer == text"))
    assert load_scorer(f"{other}:contains").spec != mine.spec
    assert load_scorer(f"{path}:strict")("7", "7").right
    assert load_scorer("interp.grading:LastNumber") == LastNumber()
    with pytest.raises(UserError, match="True, False or a Grade"):
        load_scorer(f"{path}:broken")("x", "x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("last-bax", "no such scorer"),
        ("no_such_module:thing", "cannot be loaded"),
        ("math:no_such_name", "no such name"),
        ("{path}:missing", "no such name"),
        ("{path}:number", "not a scorer"),
        ("nowhere.py:name", "no such file"),
    ],
)
def test_a_wrong_scorer_is_one_line(name: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    with pytest.raises(UserError, match=message) as error:
        load_scorer(name.format(path=path))
    assert "\n" not in str(error.value)


def test_a_lambda_is_known_by_its_code() -> None:
    strict, lenient = Function(lambda text, answer: text == answer), Function(lambda text, answer: text in str(answer))
    assert strict.spec != lenient.spec
