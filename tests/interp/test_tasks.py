"""Tasks from files, lists, the hub's layout and names; mistakes are one line that says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interp.errors import UserError
from interp.grading import Grade, LastBox, LastNumber, Regex
from interp.tasks import BENCHMARKS, Problem, Task, benchmark, from_hub, from_jsonl, from_prompts, load_task, task_names
from interp.tasks.benchmarks import TEMPERATURES, average
from interp.tasks.files import SYSTEM


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_jsonl(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        {"problem": "1+1?\u2028", "answer": 2},
        "",
        {"problem": "2+2?", "answer": 4.0},
        {"problem": "x?", "answer": "x", "id": "last", "template": "letters"},
    )
    task = from_jsonl(path)
    assert task.problems() == [
        Problem("1", "1+1?\u2028", "2"),
        Problem("3", "2+2?", "4"),
        Problem("last", "x?", "x", "letters"),
    ]
    assert (task.name, task.system, task.scorer) == ("mine", SYSTEM, LastBox())
    assert task.grade(task.problems()[0], r"\boxed{2}") == Grade(True, True, "2")
    assert load_task(path).digest == load_task(str(path)).digest == task.digest
    assert load_task(path, scorer="last-number").scorer == LastNumber()


def test_without_answers_nothing_is_graded(tmp_path: Path) -> None:
    task = from_jsonl(write(tmp_path / "free.jsonl", {"problem": "Tell a story."}))
    assert task.system is None
    assert task.grade(task.problems()[0], r"\boxed{2}").right is None
    lines = from_prompts(write(tmp_path / "free.txt", "  one ", "", "two"))
    assert [problem.problem for problem in lines.problems()] == ["one", "two"]
    assert load_task(tmp_path / "free.txt").digest == lines.digest


def test_splits_of_a_file(tmp_path: Path) -> None:
    rows = [{"problem": str(i), "answer": str(i), "split": split} for i, split in enumerate(["train", "test", "train"])]
    task = from_jsonl(write(tmp_path / "split.jsonl", *rows))
    assert [p.problem for p in task.problems("train")] == ["0", "2"]
    assert [p.problem for p in task.problems()] == ["1"]
    with pytest.raises(UserError, match="no validation problems, so nothing can be chosen on them"):
        task.problems("validation")
    with pytest.raises(UserError, match="no such split"):
        task.problems("dev")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['{"problem": "a"}', "{problem}"], "mine.jsonl, line 2: not JSON"),
        (['["a"]'], "line 1: not a JSON object"),
        (['{"question": "a"}'], 'line 1: "problem" must be a text'),
        (['{"problem": 3}'], 'line 1: "problem" must be a text'),
        (['{"problem": " "}'], 'line 1: "problem" must be a text'),
        (['{"problem": "a", "answer": true}'], 'line 1: "answer" must be a text or a number'),
        (['{"problem": "a", "answer": {"b": 1}}'], 'line 1: "answer" must be a text or a number'),
        (['{"problem": "a", "split": "dev"}'], 'line 1: no such "split"'),
        (['{"problem": "a", "id": 7}', '{"problem": "b", "id": "7"}'], 'line 2: this "id"'),
        ([""], "this file holds no problems"),
    ],
)
def test_mistakes_name_the_line(rows: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_task(write(tmp_path / "mine.jsonl", *rows))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_task(tmp_path / "missing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"problem": "é"}'.encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        load_task(tmp_path / "latin.jsonl")
    with pytest.raises(UserError, match="no prompts"):
        load_task(write(tmp_path / "empty.txt", " "))
    with pytest.raises(UserError, match="not a task file"):
        load_task(write(tmp_path / "data.csv", "a,b"))


def test_a_task_from_a_list() -> None:
    free = Task.of(["Hello", "Bye"])
    assert [problem.answer for problem in free.problems()] == [None, None]
    graded = Task.of([("1+1?", "2")], name="sums", scorer=Regex(r"(\d)"), system="Add.", example=[("0+1?", "1")])
    assert graded.grade(graded.problems()[0], "2").right
    assert graded.example == (("0+1?", "1"),)
    with pytest.raises(UserError, match="has 2 test problems"):
        free.problems(n=3)
    with pytest.raises(UserError, match="has 2 test problems"):
        free.problems(n=0)


BASE: dict[str, Any] = {"name": "a", "system": "s", "example": [("q", "a")], "max_new_tokens": 5, "scorer": LastBox()}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"},
        {"system": None},
        {"example": [("q", "b")]},
        {"max_new_tokens": 6},
        {"scorer": LastNumber()},
        {"scorer": Regex("x")},
    ],
)
def test_whatever_changes_a_grade_changes_the_digest(change: dict[str, Any]) -> None:
    problems = [("1", "2"), ("3", "4")]
    base = Task.of(problems, **BASE)
    assert Task.of(problems, **BASE).digest == base.digest
    assert Task.of(problems, **(BASE | change)).digest != base.digest
    assert Task.of([("1", "2"), ("3", "5")], **BASE).digest != base.digest


def test_tasks_of_a_file_of_code(tmp_path: Path) -> None:
    path = write(
        tmp_path / "own.py",
        "from interp.tasks import Task",
        "task = Task.of(['a'], name='own')",
        "def make():",
        "    return Task.of(['b'])",
        "other = 3",
    )
    assert load_task(f"{path}:task").name == "own"
    assert load_task(f"{path}:make").problems()[0].problem == "b"
    with pytest.raises(UserError, match="not a task"):
        load_task(f"{path}:other")


@pytest.mark.parametrize("name", ["word-problem", "aime2", "nothing at all"])
def test_unknown_names_list_the_known(name: str) -> None:
    with pytest.raises(UserError, match=r"no such task.*word-problems"):
        load_task(name)


def test_benchmarks_follow_the_protocol() -> None:
    assert [b.title for b in BENCHMARKS.values()] == [
        "AIME24",
        "AIME25",
        "AMC23",
        "MATH-500",
        "Minerva",
        "OlympiadBench",
    ]
    assert [benchmark(name).samples for name in BENCHMARKS] == [32, 32, 32, 1, 1, 1]
    assert TEMPERATURES == (1.0, 0.0)
    assert set(BENCHMARKS) < set(task_names())
    assert load_task("math-500").system == SYSTEM
    with pytest.raises(UserError, match="no such benchmark"):
        benchmark("gsm8k")


def test_the_average_is_unweighted() -> None:
    accuracy = dict(zip(BENCHMARKS, (1.0, 2.0, 3.0, 4.0, 5.0, 9.0), strict=True))
    assert average(accuracy) == 4.0
    with pytest.raises(UserError, match="aime24"):
        average({name: value for name, value in accuracy.items() if name != "aime24"})


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """A data set as the hub lays it out; `datasets` loads a folder like a repository."""
    folder = tmp_path / "olympiad"
    folder.mkdir()
    write(folder / "train.jsonl", {"question": "a?", "final_answer": ["1"]})
    write(
        folder / "test.jsonl", {"question": "b?", "final_answer": ["2", "3"]}, {"question": "c?", "final_answer": ["4"]}
    )
    return folder


def test_a_hub_data_set(hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    task = from_hub(str(hub_folder), name="olympiad")
    assert [(p.problem, p.answer, p.split) for s in ("train", "test") for p in task.problems(s)] == [
        ("a?", "1", "train"),
        ("b?", "2, 3", "test"),
        ("c?", "4", "test"),
    ]
    only = from_hub(str(hub_folder), split="train", question="question", answer="final_answer")
    assert [problem.problem for problem in only.problems("test")] == ["a?"]
    with pytest.raises(UserError, match="has no such split"):
        from_hub(str(hub_folder), split="dev").problems()
    with pytest.raises(UserError, match="has no column task"):
        from_hub(str(hub_folder), question="task").problems()


def test_offline_is_one_line() -> None:
    with pytest.raises(UserError, match=r"cannot be loaded from the hub .*math-500|MATH-500") as error:
        load_task("math-500").problems()
    assert "\n" not in str(error.value)
    assert load_task("someone/something:config").name == "someone/something"


def test_a_scorer_may_be_a_function_or_a_name() -> None:
    task = Task.of([("a", "b")], scorer=lambda text, answer: text == answer)
    (problem,) = task.problems()
    assert (task.grade(problem, "b").right, task.grade(problem, "c").right) == (True, False)
    by_number = Task.of([("a", "3")], scorer="last-number")
    assert by_number.grade(by_number.problems()[0], "it is 3").right
