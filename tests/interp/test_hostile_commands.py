"""Hostile arguments: one line and exit 2, before a model is loaded, and nothing is left behind."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.cli import call
from interp.errors import UserError
from interp.files import as_path, check_file, check_out, write_text
from tests.interp import tiny

TOY = f"{Path(__file__).with_name('toy.py')}:Toy"
LONG = "x" * 300
NO_FOLDER = (
    "/proc/x",
    "/dev/null",
    "/dev/null/x",
    "pipe",
    LONG,
    f"a/{LONG}",
    "text.txt",
    "text.txt/x",
    "\0x",
    "\ud800",
)
"""Where no folder can be made."""
NO_FILE = ("/proc/x", "/dev/null", "/dev/full", "pipe", LONG, "folder", "text.txt/x", "\0x", "\ud800")
"""What no file can be written to."""
NOT_READ = ("nope", "./nope", "empty", "folder", "pipe", "/dev/null", LONG, "\0", "\ud800", "", " ", "~nobody-here/x")
"""What holds neither vectors nor completions nor a run."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything."""
    root = tmp_path_factory.mktemp("hostile")
    tiny.folder(root / "model")
    np.save(root / "v.npy", np.random.default_rng(0).normal(size=(3, 48)).astype("float32"))
    (root / "text.txt").write_text("hello\n")
    (root / "empty").write_text("")
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    lines = [json.dumps({"problem": f"{index} + 1", "answer": str(index + 1)}) for index in range(6)]
    (root / "task.jsonl").write_text("\n".join(lines))
    return root


@pytest.fixture(autouse=True)
def no_model(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail where a model is loaded, or a file is left behind."""

    def load(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a model is loaded before the arguments are checked")

    monkeypatch.setattr("interp.load.load_hooked", load)
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    yield
    assert sorted(place.rglob("*")) == before


def refused(*arguments: str) -> str:
    """The one line that refuses a command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = call(arguments)
    line = err.getvalue()
    assert (code, out.getvalue(), line.count("\n")) == (2, "", 1), (arguments, line)
    assert "Traceback" not in line and " object at 0x" not in line
    return line


WITH = ("--model", "model", "--task", "task.jsonl")
OUT: dict[str, tuple[str, ...]] = {
    "run": ("run", TOY, "--out"),
    "eval": ("eval", *WITH, "--out"),
    "audit": ("audit", "v.npy", *WITH, "--out"),
    "paper": ("paper", "1", "--model", "model", "--out"),
    "sae": ("sae", "train", *WITH, "--vectors", "v.npy", "--out"),
    "train": ("train", *WITH, "--out"),
    "install": ("train", *WITH, "--install"),
    "bake": ("vectors", "bake", "--model", "model", "v.npy"),
    "completions": ("completions", "export", "new.jsonl", *WITH, "--out"),
}
FILE: dict[str, tuple[str, ...]] = {
    "export": ("completions", "export", *WITH),
    "try": ("try", "v.npy", "hello", "--model", "model", "--html"),
}
IN: dict[str, tuple[str, ...]] = {
    "show": ("show",),
    "redraw": ("redraw",),
    "diff": ("diff", "nope"),
    "report": ("report",),
    "convert": ("vectors", "convert", "--to", "npy", "new.npy"),
    "push": ("vectors", "push"),
    "bake": ("vectors", "bake", "--model", "model"),
    "try": ("try", "--model", "model"),
    "eval": ("eval", *WITH, "--vectors"),
    "task": ("eval", "--model", "model", "--task"),
    "prompts": ("run", "logit-lens", "--model", "model", "--vectors", "v.npy", "--prompts"),
    "run": ("run", "logit-lens", *WITH, "--vectors"),
    "import": ("completions", "import", *WITH),
    "source": ("eval", *WITH, "--completions-from"),
    "run source": ("run", "logit-lens", *WITH, "--vectors", "v.npy", "--completions-from"),
    "sae": ("sae", "attribute", "hello", *WITH, "--vectors", "v.npy", "--sae"),
    "sae setting": ("run", "sae-attribution", *WITH, "--vectors", "v.npy", "--sae"),
    "audit": ("audit", "--model", "model"),
    "list": ("list",),
    "paper": ("paper",),
    "profile": ("paper", "--profile"),
    "device": ("paper", "--dry-run", "--gpu"),
    "experiment": ("run",),
    "fetch": ("fetch",),
}
AFTER = {"convert": ("new.npy",), "bake": ("new",), "push": ("a/b",), "try": ("hello",), "import": ("new.jsonl",)}


@pytest.mark.parametrize("name", OUT)
def test_a_folder_that_cannot_be_made_is_told_at_once(name: str) -> None:
    for folder in NO_FOLDER:
        refused(*OUT[name], folder)


@pytest.mark.parametrize("name", FILE)
def test_a_file_that_cannot_be_written_is_told_at_once(name: str) -> None:
    for file in NO_FILE:
        if name == "export":
            refused("completions", "export", file, *WITH)
        else:
            refused(*FILE[name], file)


@pytest.mark.parametrize("name", IN)
def test_what_cannot_be_read_is_told_at_once(name: str) -> None:
    for what in NOT_READ:
        if name == "list" and not what.strip():
            continue
        first = IN[name]
        if name == "convert":
            refused("vectors", "convert", what, "new.npy")
        else:
            refused(*first, what, *AFTER.get(name, ()))


NUMBERS = {
    ("eval", *WITH): ("--n", "--samples", "--temperature", "--tokens", "--seed", "--memory"),
    ("try", "v.npy", "hello", "--model", "model"): ("--scale", "--tokens", "--temperature", "--seed"),
    ("completions", "export", "new.jsonl", *WITH): ("--n", "--samples", "--temperature", "--tokens", "--seed"),
    ("paper", "1", "--model", "model"): ("--n", "--memory", "--jobs", "--tokens"),
    ("audit", "v.npy", "--model", "model"): ("--memory", "--jobs", "--scale"),
    ("run", TOY): ("--memory", "--shard", "--n", "--seed", "--scale", "--engine"),
    ("train", *WITH): ("--layers", "--rank", "--steps", "--prompts", "--samples", "--rate", "--seed", "--dtype"),
    ("sae", "train", *WITH): ("--layer", "--features", "--k", "--problems", "--steps", "--batch", "--rate", "--seed"),
    ("sae", "attribute", "hello", *WITH): ("--top", "--metric"),
}
BAD_NUMBERS = ("nan", "-inf", "x", "1;2", "1e400", "-" + "9" * 40)


@pytest.mark.parametrize(("command", "flag"), [(command, flag) for command, flags in NUMBERS.items() for flag in flags])
def test_numbers_that_are_none(command: tuple[str, ...], flag: str) -> None:
    for text in BAD_NUMBERS[: 5 if flag in ("--scale", "--layers") else None]:
        refused(*command, f"{flag}={text}")


def test_a_scale_is_given_once_and_is_a_number() -> None:
    for text in ("", ",", "1,1", "1,inf"):
        assert "different finite numbers" in refused("try", "v.npy", "hello", "--model", "model", "--scale", text)


def test_what_is_checked_leaves_nothing_and_no_device_is_replaced(place: Path) -> None:
    check_out("new/folder/below")
    check_out("folder")
    check_file("new/file.html")
    for path, check in product(("/dev/null", "pipe"), (check_file, lambda path: write_text(Path(path), "text"))):
        with pytest.raises(UserError, match="no regular file"):
            check(path)
    assert Path("/dev/null").is_char_device() and Path("pipe").is_fifo()
    with pytest.raises(UserError, match="home folder"):
        as_path("~nobody-here/x")


STREAMS = """
import sys, click, interp.cli as cli
text = "\\u2192 \\U0001f600 \\udcff " * 40
cli.app = click.Command("x", callback=lambda: [click.echo(text) for _ in range(int(sys.argv[1]))])
raise SystemExit(cli.call([]))
"""


def streamed(root: Path, tail: str, lines: int = 1, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command whose output goes where a shell's words say."""
    command = ["sh", "-c", f'"$0" -c "$1" {lines} {tail}', sys.executable, STREAMS]
    return subprocess.run(command, cwd=root, env={**os.environ, **environment}, capture_output=True)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_characters_that_a_terminal_lacks_are_escaped(root: Path, encoding: str) -> None:
    done = streamed(root, "", PYTHONIOENCODING=encoding, COLUMNS="1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (b"\\u2192" in done.stdout) == (encoding in ("cp1252", "latin-1"))  # click itself writes UTF-8 for ASCII


@pytest.mark.parametrize(
    ("tail", "code", "says"),
    [
        ("| head -c 0; exit 0", 0, b""),
        (">&-", 0, b""),
        (">/dev/full", 2, b"interp: no space left on device"),
        ("2>&-", 0, b""),
    ],
)
def test_readers_that_have_gone_and_streams_that_are_full(root: Path, tail: str, code: int, says: bytes) -> None:
    done = streamed(root, tail, lines=2000, LANG="C", LC_ALL="C", HOME="/nowhere")
    assert done.returncode == code
    assert done.stderr.startswith(says) and done.stderr.count(b"\n") == bool(says), done.stderr
