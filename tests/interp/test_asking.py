"""How problems are asked and graded: by a file, by flags, and as in the training of the vectors under study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import registry
from interp.cli import app, call
from interp.cli.asking import PROMPT, asking_options
from interp.errors import UserError
from interp.grading import LastBox, LastNumber, Regex
from interp.tasks import Problem, Task, from_jsonl, load_task, task_names
from interp.tasks.asking import Asking, Prompting, prompt_note, training_of
from interp.tasks.files import LENGTH, SYSTEM
from interp.tasks.lines import FIELDS, SETTINGS
from interp.tasks.task import _problem
from interp.testing.tiny import tokenizer
from tests.interp import tiny
from vectors import Card, SteeringVectors, list_pretrained, load_vectors

SUM = {"problem": "1+1?", "answer": 2}


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


STATED: dict[str, Any] = {
    "system": "Add.",
    "example": [["0+1?", "1"], ["0+2?", "2"]],
    "scorer": "last-number",
    "pattern": r"= (\d+)",
    "tokens": 7,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_a_file_is_a_first_line_or_stands_on_each(name: str, tmp_path: Path) -> None:
    stated, other = {name: STATED[name]}, {"problem": "2+2?", "answer": 4}
    first = from_jsonl(write(tmp_path / "t.jsonl", "", stated, SUM, other))
    each = from_jsonl(write(tmp_path / "t.jsonl", {**SUM, **stated}, {**other, **stated}))
    bare = from_jsonl(write(tmp_path / "t.jsonl", SUM, other))
    assert [p.problem for p in first.problems()] == [p.problem for p in each.problems()] == ["1+1?", "2+2?"]
    assert Prompting.from_task(first) == Prompting.from_task(each) and first.max_new_tokens == each.max_new_tokens
    assert each.digest != bare.digest
    flags: dict[str, Any] = {name: tuple(map(tuple, STATED[name])) if name == "example" else STATED[name]}
    assert Asking(**flags).apply(bare).digest == each.digest
    for rows in ([{**SUM, **stated}, other], [SUM, {**other, **stated}], [stated, {**SUM, **stated}, other], [stated]):
        with pytest.raises(UserError, match=r"is not that of the first line|holds no problems"):
            from_jsonl(write(tmp_path / "t.jsonl", *rows))


def test_what_a_file_states_is_what_is_asked(tmp_path: Path) -> None:
    stated = {**STATED, "example": ["0+1?", "1"]}
    del stated["scorer"]
    task = from_jsonl(write(tmp_path / "t.jsonl", stated, SUM))
    assert (task.system, task.example, task.max_new_tokens) == ("Add.", (("0+1?", "1"),), 7)
    assert task.scorer == Regex(r"= (\d+)")
    text = task.prompt(tokenizer(), task.problems()[0]).text
    assert [text.find(part) for part in ("Add.", "0+1?", "1+1?")] == sorted(map(text.find, ("Add.", "0+1?", "1+1?")))
    none = from_jsonl(write(tmp_path / "t.jsonl", {**SUM, "system": None}))
    assert none.system is None
    boxed, number = from_jsonl(write(tmp_path / "t.jsonl", SUM)), from_jsonl(tmp_path / "t.jsonl", scorer=LastNumber())
    assert (boxed.system, boxed.max_new_tokens) == (SYSTEM, LENGTH)
    assert number.system is None and load_task(tmp_path / "t.jsonl", scorer="last-number").digest == number.digest


WRONG: list[tuple[Any, str]] = [
    ({**SUM, "system": 3}, '"system" must be a text'),
    ({**SUM, "example": "q"}, '"example" must be pairs'),
    ({**SUM, "example": [["q"]]}, '"example" must be pairs'),
    ({**SUM, "example": [["q", 3]]}, '"example" must be pairs'),
    ({**SUM, "example": {"q": "a"}}, '"example" must be pairs'),
    ({**SUM, "example": None}, '"example" must be pairs'),
    ({**SUM, "scorer": "last-bix"}, "no such scorer"),
    ({**SUM, "scorer": None}, '"scorer" must be a text'),
    ({**SUM, "pattern": "("}, "not a regular expression"),
    ({**SUM, "pattern": "x", "scorer": "last-box"}, "exclude each other"),
    ({**SUM, "tokens": 0}, '"tokens" must be a whole number'),
    ({**SUM, "tokens": "9"}, '"tokens" must be a whole number'),
    ({**SUM, "tokens": True}, '"tokens" must be a whole number'),
    ({**SUM, "answer": None}, '"answer" must be a text or a number'),
    ({**SUM, "answer": ""}, "the answer is empty"),
    ({**SUM, "answer": []}, "a list of these"),
    ({**SUM, "answer": [["1"]]}, "a list of these"),
    ({**SUM, "answer": [True]}, '"answer" must be a text or a number'),
    ('{"problem": "a", "answer": NaN}', "the answer is not finite"),
    ('{"problem": "a", "answer": -Infinity}', "the answer is not finite"),
    ('{"problem": "a", "answer": 1, "answer": 2}', "a field stands twice"),
    ('{"problem": "a", "answer": 1e999}', "the answer is not finite"),
    ({**SUM, "id": None}, '"id" must be'),
    ({**SUM, "id": True}, '"id" must be'),
    ({**SUM, "id": ""}, '"id" must be'),
    ({**SUM, "template": None}, '"template" must be a text'),
    ({**SUM, "split": ["test"]}, 'no such "split"'),
    ({**SUM, "system_prompt": "x"}, "no such field (given: system_prompt)"),
    ({"question": "1 + 1?", "answer": 2}, 'call it "problem"'),
    ({**SUM, "max_tokens": 5}, 'call it "tokens"'),
    ({**SUM, "choices": ["A", "B"]}, '"scorer": "choice:A|B"'),
    ("[" * 5000, "not JSON"),
    ('{"problem": ' + "[" * 900 + "]" * 900 + "}", '"problem" must be a text'),
    ("{" + '"problem": "a", "answer": ' + "9" * 5000 + "}", "line 2"),
]


@pytest.mark.parametrize("row", range(len(WRONG)))
def test_a_wrong_line_is_named(row: int, tmp_path: Path) -> None:
    line, message = WRONG[row]
    with pytest.raises(UserError) as error:
        from_jsonl(write(tmp_path / "t.jsonl", "", line))
    assert "line 2" in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=12).filter(lambda name: name not in (*FIELDS, *SETTINGS)))
def test_a_field_that_is_not_known_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    with pytest.raises(UserError) as error:
        from_jsonl(write(tmp_path_factory.mktemp("t") / "t.jsonl", SUM, {"problem": "x", name: "y"}))
    assert "line 2" in str(error.value)
    assert "surrogate" in str(error.value) or all(field in str(error.value) for field in (*FIELDS, *SETTINGS))


def test_files_of_other_kinds_and_encodings(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    rows = [json.dumps(SUM), "", json.dumps({"problem": "é\u2028?", "answer": "x"}, ensure_ascii=False)]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    assert [p.problem for p in from_jsonl(file).problems()] == ["1+1?", "é\u2028?"]
    for raw, message in (
        ("\n".join(rows).encode("latin-1", "replace"), "line 3: this file is not UTF-8"),
        ("\n".join(rows).encode("utf-16"), "line 1: this file is not UTF-8"),
        (b"\x1f\x8b\x08\x00" + bytes(range(60, 90)), "unpack it"),
        (b"\x00" * 40, "line 1: not JSON"),
    ):
        file.write_bytes(raw)
        with pytest.raises(UserError, match=message):
            from_jsonl(file)
    file.write_text(json.dumps({"problem": "x" * 3_000_000, "answer": 1}))
    assert len(from_jsonl(file).problems()[0].problem) == 3_000_000
    for name in ("t.csv", "t.json", "t.jsonl.gz", "t.parquet"):
        (tmp_path / name).write_text("a,b\n1,2\n")
        for read in (load_task, load_prompts):
            with pytest.raises(UserError, match=r"not a task file|no file of prompts"):
                read(tmp_path / name)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError, match="not a regular file"):
        load_task(tmp_path / "folder.jsonl")
    with pytest.raises(UserError, match="lines of JSON"):
        load_prompts(write(tmp_path / "t.txt", SUM, SUM))


def hub(monkeypatch: pytest.MonkeyPatch, rows: Any, **splits: Any) -> Task:
    monkeypatch.setattr("interp.tasks.files._download", lambda repository, config: splits or {"test": rows})
    return load_task("someone/something")


def test_a_data_set_whose_columns_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    rows = [{"question": "a?", "answer": 3, "subject": "x", "id": 1, "solution": "2 + 1"}]
    assert [(p.problem, p.answer) for p in hub(monkeypatch, rows).problems()] == [("a?", "3")]
    assert hub(monkeypatch, [{"prompt": "a"}]).problems()[0].answer is None
    classes = Features({"question": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    named = Dataset.from_dict({"question": ["a?", "b?"], "label": [1, 0]}, features=classes)
    assert [p.answer for p in hub(monkeypatch, named).problems()] == ["pos", "neg"]
    assert hub(monkeypatch, None, main=rows).problems()[0].problem == "a?"
    assert len(hub(monkeypatch, None, train=rows, test=rows, other=rows).problems("train")) == 1


ODD: list[tuple[dict[str, Any], str]] = [
    ({"question": "a?", "choices": ["1", "2"], "answer": 1}, "not understood (given: choices)"),
    ({"instruction": "a?", "input": "x", "output": "y"}, "not understood (given: input, output)"),
    ({"question": "a?", "passage": "x", "answer": "1"}, "not understood (given: passage)"),
    ({"problem": "a?", "question": "b?", "answer": "1"}, "several columns of one meaning (given: problem, question)"),
    ({"problem": "a?", "answer": "1", "label": "2"}, "several columns of one meaning (given: answer, label)"),
    ({"text": "a?", "answer": "1"}, "has no column problem or question"),
    ({"problem": "a?", "system": "s"}, "not understood (given: system)"),
    ({"problem": " ", "answer": "1"}, "test row 0: problem must be a text"),
    ({"problem": "a?", "answer": True}, 'test row 0: "answer" must be'),
    ({"problem": "a?", "answer": ""}, "test row 0: the answer is empty"),
]


@pytest.mark.parametrize("index", range(len(ODD)))
def test_a_data_set_that_is_not_is_refused(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    row, message = ODD[index]
    with pytest.raises(UserError) as error:
        hub(monkeypatch, [row]).problems()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_splits_that_are_not_known_are_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="none of the splits"):
        hub(monkeypatch, None, first=[SUM], second=[SUM]).problems()


def load_prompts(path: Path) -> Task:
    from interp.tasks import from_prompts

    return from_prompts(path)


NUMBERS: list[tuple[Any, str]] = [
    (4, "4"),
    (4.0, "4"),
    (-0.0, "0"),
    (0.5, "0.5"),
    (1e16, "10000000000000000"),
    (10**40, str(10**40)),
    (np.int64(7), "7"),
    (np.float32(0.5), "0.5"),
    (Fraction(1, 2), "1/2"),
    (Decimal("0.10"), "0.10"),
    (["2", 3], "2, 3"),
    ((1,), "1"),
]
NO_ANSWERS = [
    None,
    True,
    False,
    np.True_,
    b"4",
    {},
    {"a": 1},
    [],
    [[1]],
    [None],
    1j,
    float("nan"),
    float("inf"),
    object(),
]


@pytest.mark.parametrize("index", range(len(NUMBERS)))
def test_an_answer_is_a_text_or_a_number(index: int) -> None:
    answer, text = NUMBERS[index]
    task = Task.of([("2+2?", answer)])
    (problem,) = task.problems()
    assert problem.answer == text and type(problem.answer) is str
    assert task.digest == Task.of([("2+2?", text)]).digest
    assert Task.of([("2+2?", 4)]).grade(Task.of([("2+2?", 4)]).problems()[0], r"\boxed{4}").right


@pytest.mark.parametrize("index", range(len(NO_ANSWERS)))
def test_anything_else_is_no_answer(index: int) -> None:
    with pytest.raises(UserError, match=r"problem 1: .*answer"):
        Task.of([("1+1?", 2), ("2+2?", NO_ANSWERS[index])])


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    )
)
def test_files_and_lists_read_an_answer_alike(tmp_path_factory: pytest.TempPathFactory, answer: Any) -> None:
    def read(make: Any) -> str | None:
        try:
            return make().problems()[0].answer
        except UserError as error:
            assert "answer" in str(error) or "surrogate" in str(error)
            return None

    file = write(tmp_path_factory.mktemp("t") / "t.jsonl", {"problem": "x", "answer": answer})
    text = read(lambda: Task.of([("x", answer)]))
    assert read(lambda: from_jsonl(file)) == text
    assert text is None or (text.strip() and not isinstance(answer, bool | dict) and answer is not None)


def test_a_list_of_problems_is_read_as_meant() -> None:
    for wrong in ("one text", [""], [("  ", 1)]):
        with pytest.raises(UserError):
            Task.of(wrong)
    for item in (3, ("a", "1", "x"), ("a",), None, b"a", {"problem": "a"}, (3, "a")):
        with pytest.raises(UserError, match="problem 0"):
            _problem(0, item)
    with pytest.raises(UserError, match="problem a: the answer is empty"):
        Problem("a", "1?", " ")
    twice = Task("t", lambda: [Problem("a", "1?"), Problem("a", "2?")])
    moved = Problem("b", "2?")
    object.__setattr__(moved, "split", "dev")
    lost = Task("t", lambda: [Problem("a", "1?"), moved])
    for task, message in ((twice, "two problems of one id"), (lost, "in no known split")):
        with pytest.raises(UserError, match=message):
            task.problems()


CHANGES: dict[str, Any] = {
    "prompt_of": "word-problems",
    "system": "none",
    "example": (("q", "a"),),
    "no_example": True,
    "scorer": "last-number",
    "pattern": "x",
    "grader": "plain",
    "tokens": 3,
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_flag_enters_the_digest(name: str) -> None:
    assert set(CHANGES) == {field.name for field in fields(Asking)}
    task = Task.of([("1+1?", 2)], system="s", example=[("a", "b")])
    assert Asking().apply(task).digest == task.digest
    assert Asking(**{name: CHANGES[name]}).apply(task).digest != task.digest


def test_a_prompt_of_another_task_keeps_questions_and_grades() -> None:
    words, task = load_task("word-problems"), Task.of([("1+1?", 2)], scorer=LastNumber(), max_new_tokens=9)
    like = Asking(prompt_of="word-problems").apply(task)
    assert like.prompt(tokenizer(), "1+1?") == words.prompt(tokenizer(), "1+1?")
    assert (like.scorer, like.max_new_tokens, like.problems()) == (LastNumber(), 9, task.problems())
    assert Asking(prompt_of="word-problems", system="none", no_example=True).apply(task).prompt(
        tokenizer(), "1+1?"
    ) == task.prompt(tokenizer(), "1+1?")
    wrongs: list[dict[str, Any]] = [
        {"scorer": "last-box", "pattern": "x"},
        {"example": (("a", "b"),), "no_example": True},
    ]
    for wrong in wrongs:
        with pytest.raises(UserError, match="exclude each other"):
            Asking(**wrong)


def test_every_shipped_set_knows_the_prompt_of_its_training() -> None:
    words = load_task("word-problems")
    file = Task.of([("1+1?", 2)], name="mine", system=SYSTEM)
    for shipped in list_pretrained():
        vectors = registry.load("vectors", "intervention")(shipped.alias)
        training = training_of(vectors)
        assert training is not None and training[2] == Prompting.from_task(words), shipped.alias
        assert prompt_note(vectors, words) is None
        note = prompt_note(vectors, file)
        assert note is not None and "another system line and other worked examples" in note and "\n" not in note
        assert Asking(prompt_of="vectors").apply(file, vectors).example == words.example


def test_the_prompt_goes_with_what_is_computed_from_vectors() -> None:
    v, other = (load_vectors(f"smollm2-135m-instruct/all-layer@{seed}") for seed in (0, 1))
    norms = dict.fromkeys(v.layers, 1.0)
    assert isinstance(v, SteeringVectors) and isinstance(other, SteeringVectors)
    for computed in (2 * v, -v, v + other, v - other, v.only(3), 2 * v.only([3, 4]), v.with_norms(norms), v.together()):
        assert training_of(computed) == training_of(v)
    foreign = v.card.model_copy(update={"recipe": {"task": {"name": "mine", "digest": "1"}}})
    mixed = v + SteeringVectors(v.directions, v.layers, foreign)
    assert training_of(mixed) is None and prompt_note(mixed, load_task("word-problems")) is None


def card(recipe: dict[str, Any]) -> Any:
    import torch

    return SteeringVectors(torch.ones(1, 4), (0,), Card(d_model=4, recipe=recipe))


def test_a_note_says_what_differs_and_what_to_do() -> None:
    task = Task.of([("1+1?", 2)], name="mine", system="s")
    asked = Prompting.from_task(task).as_dict()
    same = {"name": "x", "digest": "0"}
    assert prompt_note(card({"task": {**same, **asked}}), task) is None
    assert prompt_note(card({"task": "x", "task_digest": "0", "prompt": asked}), task) is None
    assert (
        prompt_note(card({}), task) is None and prompt_note(None, task) is None and prompt_note(card({}), None) is None
    )
    graded = prompt_note(card({"task": {**same, **asked, "scorer": "last-number"}}), task)
    assert graded is not None and "--scorer 'last-number'" in graded and "--prompt-of" not in graded
    assert prompt_note(card({"task": {**same, **asked, "scorer": "last-number"}}), task, graded=False) is None
    unknown = prompt_note(card({"task": same}), task)
    assert unknown is not None and "does not hold" in unknown
    assert prompt_note(card({"task": {"name": "x", "digest": task.digest}}), task) is None
    for bare in (None, card({}), card({"task": same})):
        with pytest.raises(UserError, match=r"needs vectors|does not hold the prompt"):
            Asking(prompt_of="vectors").apply(task, bare)


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that can be called, an experiment for all."""
    if not isinstance(group, click.Group):
        yield path, group
        return
    context = click.Context(group)
    names = ["logit-lens"] if path == ("run",) else group.list_commands(context)
    for name in names:
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, (*path, name))


def test_every_command_with_a_task_has_the_flags() -> None:
    wanted = {option.name for option in asking_options()}
    with_task = {path: command for path, command in commands(app) if any(p.name == "task" for p in command.params)}
    assert {path[0] for path in with_task} >= {"run", "eval", "audit", "completions", "train", "paper", "sae"}
    for path, command in with_task.items():
        needs = {*PROMPT, "tokens"} if path == ("sae", "attribute") else wanted
        assert needs <= {option.name for option in command.params}, path
        assert len({flag for option in command.params for flag in option.opts}) == sum(
            len(option.opts) for option in command.params
        ), f"{path} has a flag twice"
    attempt = dict(commands(app))[("try",)]
    assert {*PROMPT} <= {option.name for option in attempt.params}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("qwen2"), "qwen2")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Vectors whose card says that they were trained under a prompt."""
    import torch

    prompt: dict[str, Any] = {"system": "Add.", "example": [["0+1?", "It is 1."]], "scorer": "last-box"}
    about = Card(d_model=48, recipe={"task": {"name": "sums", "digest": "0", **prompt}})
    return SteeringVectors(torch.ones(3, 48), (0, 1, 2), about).save(tmp_path / "v.safetensors")


def test_an_evaluation_shows_its_prompt_and_two_grades(
    folder: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.jsonl", *({"problem": f"{i} + 1?", "answer": str(i)} for i in range(4)))
    base = ("eval", "--model", str(folder), "--task", "t.jsonl", "--tokens", "4", "--vectors", str(trained))
    always = write(tmp_path / "even.py", "def grade(text, answer):", "    return int(answer) % 2 == 0")
    assert call([*base, "--scorer", f"{always}:grade"]) == 0
    shown = capsys.readouterr()
    assert "another system line and other worked examples" in shown.err and "--prompt-of vectors" in shown.err
    assert "graded right" in shown.out and "graded wrong" in shown.out
    assert shown.out.count("<|im_start|>user") == 1 and "0 + 1?<|im_end|>" in shown.out
    assert call([*base, "--prompt-of", "vectors", "--json"]) == 0
    output = capsys.readouterr()
    assert output.err == "" and "warning" not in json.loads(output.out)
    prompt = json.loads(output.out)["prompt"]
    assert [prompt.index(part) for part in ("Add.", "0+1?", "It is 1.", "0 + 1?")] == sorted(
        prompt.index(part) for part in ("Add.", "0+1?", "It is 1.", "0 + 1?")
    )
    assert [shown["right"] for shown in json.loads(output.out)["shown"]] == [False]
    assert call([*base, "--system", "Say.", "--example", "q?", "a.", "--pattern", "(.)", "--json"]) == 0
    assert "Say." in json.loads(capsys.readouterr().out)["prompt"]


def test_a_try_shows_its_prompt(folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("try", str(trained), "2+2?", "--model", str(folder), "--tokens", "2")
    assert call([*flags, "--prompt-of", "vectors"]) == 0
    output = capsys.readouterr()
    assert output.err == "" and output.out.startswith("<|im_start|>system\nAdd.<|im_end|>")
    assert call([*flags, "--system", "x"]) == 0
    assert "another system line" in capsys.readouterr().err


def test_a_task_of_an_installed_name_is_not_opened_elsewhere() -> None:
    assert "word-problems" in task_names()
    unknown = training_of(card({"task": {"name": "word-problems", "digest": "0"}}))
    assert unknown is not None and unknown[2] is None  # another version of it
    assert isinstance(load_task("word-problems").scorer, LastBox)
