"""The command line: what it says, with which exit code, and what it does not import."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
import torch

from figures.paper import manifest
from interp.cli import call, main
from interp.cli.diff import differences
from interp.cli.options import given_settings, setting_options
from interp.cli.run import parse_shard
from interp.errors import UserError
from interp.given import as_vectors
from interp.store import RunRecord
from tests.interp import tiny
from tests.interp.toy import Toy

TOY = f"{Path(__file__).with_name('toy.py')}:Toy"


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def interp(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call the command line in process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def say(*arguments: str) -> Said:
        capsys.readouterr()
        code = call(arguments)
        said = capsys.readouterr()
        return Said(code, str(said.out), str(said.err))

    return say


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local Hugging Face folder of a tiny random model."""
    return tiny.folder(tmp_path_factory.mktemp("qwen2"), "qwen2")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vector at each block, in the authors' format."""
    file = tmp_path_factory.mktemp("vectors") / "v.npy"
    np.save(file, 3 * torch.randn(3, 48, generator=torch.Generator().manual_seed(0)).numpy())
    return file


MISTAKES = {
    "unknown command": (("lst",), "did you mean list"),
    "unknown experiment": (("run", "logit-lense"), "did you mean logit-lens"),
    "misspelt setting": (("run", TOY, "--sise", "3"), "--size"),
    "value of a setting": (("run", TOY, "--size", "many"), "setting size: Input should be a valid integer"),
    "unknown scale": (("run", TOY, "--scale", "quik"), "smoke, quick, full"),
    "missing vectors": (("run", TOY, "--vectors", "none.npy"), "no such file or folder (given: none.npy)"),
    "missing task": (("eval", "--task", "./none.jsonl"), "no such file or folder (given: ./none.jsonl)"),
    "missing model": (("try", "v.npy", "hello", "--model", "./nowhere"), "no such file or folder"),
    "missing file": (("run", "none.py:Toy"), "no such file"),
    "model for nothing": (("run", TOY, "--model", "gpt2"), "uses no model"),
    "shard": (("run", TOY, "--shard", "5/4"), "1 <= i <= n"),
    "unknown figure": (("paper", "99"), "no such figure (given: 99)"),
    "unknown profile": (("paper", "--profile", "qwen2.5-math"), "did you mean qwen2.5-math-7b"),
    "unknown device": (("paper", "--dry-run", "--gpu", "h100-80"), "did you mean h100-80gb"),
    "unknown group": (("list", "vektors"), "did you mean vectors"),
    "no run": (("show", "runs/none"), "runs/none"),
    "no run to redraw": (("redraw", "abcd"), "no such run (given: abcd)"),
    "unknown format": (("vectors", "convert", ".", "out", "--to", "npz"), "did you mean npy"),
    "missing argument": (("show",), "Missing argument"),
}


@pytest.mark.parametrize(("arguments", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_exit_2(interp: Any, arguments: tuple[str, ...], says: str) -> None:
    said = interp(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert says in said.err


def test_debug_shows_the_traceback(interp: Any) -> None:
    with pytest.raises(UserError, match="no such figure"):
        interp("paper", "99", "--debug")


class Slow(threading.Timer):
    """A timer on a busy machine: it has fired before `start` returns."""

    def start(self) -> None:
        super().start()
        type(self).slowed += 1
        time.sleep(0.2 if self.slowed == 1 else 0)

    slowed = 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handler: a job that a script starts in the background ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_ignored_interrupt_stays_ignored(root: Path) -> None:
    code = (
        "import signal, click, interp.cli as cli;"
        "cli.app = click.Command('x', callback=lambda: (signal.raise_signal(signal.SIGINT), click.echo('went on')));"
        "raise SystemExit(cli.call([]))"
    )
    command = ["sh", "-c", 'trap \'\' INT; exec "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("timer", [threading.Timer, Slow])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_inside_a_destructor_still_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, timer: type[threading.Timer]
) -> None:
    monkeypatch.setattr(threading, "Timer", timer)

    class Held:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def command() -> None:
        held = [Held()]
        held.clear()
        time.sleep(10)

    monkeypatch.setattr("interp.cli.app", click.Command("held", callback=command))
    began = time.monotonic()
    assert call([]) == 130
    assert time.monotonic() - began < 5


def test_main_leaves_with_the_code() -> None:
    with pytest.raises(SystemExit) as left:
        main(["run", "no-such-experiment"])
    assert left.value.code == 2


def heavy_after(root: Path, *arguments: str) -> tuple[set[str], float]:
    """Which heavy modules a command leaves in memory, and the CPU seconds it takes, in a fresh process."""
    code = (
        "import sys; from interp.cli import call; call(sys.argv[1:]);"
        "print('HEAVY', *sorted({'torch', 'pandas', 'transformers', 'plotly', 'numpy'} & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return set(done.stdout.splitlines()[-1].split()[1:]), seconds


def test_list_is_fast_and_light(root: Path) -> None:
    heavy, first = heavy_after(root, "list")
    _, second = heavy_after(root, "list", "vectors")
    assert heavy == set()
    assert min(first, second) < 1.0


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("run", "no-such"), ("paper", "99")])
def test_help_and_mistakes_do_without_torch(root: Path, arguments: tuple[str, ...]) -> None:
    heavy, _ = heavy_after(root, *arguments)
    assert not {"torch", "transformers"} & heavy


def test_list_shows_commands_with_their_distribution(interp: Any) -> None:
    rows = json.loads(interp("list", "commands", "--json").out)
    assert {"list", "run", "show", "diff", "fetch", "doctor", "eval", "try", "vectors", "paper", "audit", "sae"} <= {
        row["name"] for row in rows if row["distribution"] == "small-vectors"
    }


def test_run_show_diff_redraw(interp: Any, root: Path) -> None:
    first = interp("run", TOY, "--size", "2", "--layers", "3,5", "--deep", "--scale", "smoke")
    assert first.code == 0, first.err
    path = first.out.strip()
    record = RunRecord.read(path)
    assert record.meta["settings"] | {"size": 2, "layers": [3, 5], "deep": True} == record.meta["settings"]
    assert record.meta["scale"] == "smoke"
    assert (Path(path) / "figure.html").is_file()
    second = interp("run", TOY, "--size", "2", "--layers", "3,5", "--seed", "1").out.strip()

    shown = interp("show", Path(path).name[:8])
    assert "layers = [3, 5]" in shown.out
    assert "We estimate mean y" in shown.out

    said = interp("diff", path, second)
    assert "settings.seed: 0 -> 1" in said.out
    assert "y: equal" in said.out

    page = Path(interp("report", path, second).out.strip())
    assert page.read_text().count(Path(path).name) >= 1

    (Path(path) / "figure.html").unlink()
    heavy, _ = heavy_after(root, "redraw", str(Path(path).resolve()))
    assert "torch" not in heavy
    assert (Path(path) / "figure.html").is_file()


def test_show_marks_stale_and_partial(interp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Toy(size=1).run(out="runs", progress=False)
    assert "stale" not in interp("show", str(run.record.path)).err
    meta = {**run.record.meta, "files": "another"}
    (run.record.path / "run.json").write_text(json.dumps(meta))
    assert "stale" in interp("show", str(run.record.path)).err
    meta["partial"] = True
    (run.record.path / "run.json").write_text(json.dumps(meta))
    assert "partial" in interp("show", str(run.record.path)).err


def test_shards_from_the_command_line(interp: Any) -> None:
    whole = interp("run", TOY, "--out", "whole").out.strip()
    for i in (1, 2):
        last = interp("run", TOY, "--out", "shards", "--shard", f"{i}/2").out.strip()
    assert RunRecord.read(last).frame.equals(RunRecord.read(whole).frame)


def test_recipe_of_a_run_is_a_command(interp: Any) -> None:
    path = interp("run", TOY, "--size", "2", "--layers", "7").out.strip()
    from interp import open_run

    words = shlex.split(open_run(path).recipe().command)
    assert words[:2] == ["interp", "run"]
    again = interp("run", TOY, *words[3:])
    assert again.out.strip() == path


def test_flags_become_settings() -> None:
    fields = Toy.model_fields
    given = given_settings(fields, {"layers": "1, 2,3", "deep": False, "size": "7", "log": None})
    assert Toy.at("quick", **given) == Toy(layers=(1, 2, 3), deep=False, size=7)
    helps = {option.name: option.help for option in setting_options(fields)}
    assert helps["layers"] == "Blocks. [default: 0,1]"
    assert parse_shard("2/3") == (2, 3)
    assert parse_shard(None) is None


def test_diff_finds_nested_settings() -> None:
    a = {"settings": {"n": 1, "seed": 0}, "started": "x", "model": {"dtype": "float32"}}
    b = {"settings": {"n": 2, "seed": 0}, "started": "y", "model": {"dtype": "bfloat16"}}
    assert differences(a, b) == {"settings.n": (1, 2), "model.dtype": ("float32", "bfloat16")}


def test_paper_plan_names_every_entry(interp: Any) -> None:
    said = interp("paper", "3", "13", "--dry-run", "--scale", "smoke")
    assert said.code == 0
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["figure", "3", "13", "all"]
    assert lines[1].split()[1:3] == ["token-substitution", "4"]
    assert "hours on one cpu-core" in said.out


@pytest.mark.parametrize("profile", ["qwen2.5-math-7b", "llama-3.1-8b-instruct"])
def test_paper_plan_of_a_profile_needs_no_weights(interp: Any, profile: str) -> None:
    said = interp("paper", "--profile", profile, "--dry-run", "--gpu", "h200", "--n", "24")
    assert said.code == 0
    assert "hours on one h200" in said.out
    assert " ? " not in said.out
    assert {line.split()[0] for line in said.out.splitlines()} >= {entry.key for entry in manifest()}


def test_audit_plan_names_its_experiments(interp: Any, vectors: Path) -> None:
    said = interp("audit", str(vectors), "--dry-run")
    assert said.code == 0
    assert "interp run side-effects --scale quick" in said.out


def test_eval_of_a_tiny_model(interp: Any, folder: Path, vectors: Path) -> None:
    task = Path("sums.jsonl")
    task.write_text("".join(json.dumps({"problem": f"{i} + 1", "answer": str(i + 1)}) + "\n" for i in range(6)))
    flags = ("--model", str(folder), "--task", str(task), "--n", "6", "--tokens", "8", "--json")
    said = interp("eval", *flags)
    assert said.code == 0, said.err
    base = json.loads(said.out)
    assert base["n"] == 6
    assert base["low"] <= base["accuracy"] <= base["high"]
    assert set(base) >= {"boxed", "ended", "entropy"}
    assert json.loads(interp("eval", *flags).out) == base
    steered = json.loads(interp("eval", *flags, "--vectors", str(vectors)).out)
    assert steered["entropy"] != base["entropy"]
    greedy = [json.loads(interp("eval", *flags, "--temperature", "0", "--seed", seed).out) for seed in ("1", "2")]
    assert greedy[0]["entropy"] == greedy[1]["entropy"]
    assert not any(str(folder) in str(value) for value in base.values())


def test_try_shows_base_and_steered(interp: Any, folder: Path, vectors: Path) -> None:
    said = interp("try", str(vectors), "<b>Hi</b>", "--model", str(folder), "--tokens", "4", "--scale", "1,2")
    assert said.code == 0, said.err
    heads = [line.split(":")[0] for line in said.out.splitlines() if line.startswith(("base", "v", "2 v"))]
    assert heads == ["base", "v", "2 v", "v", "2 v"]  # the texts, then what was on in each
    interp("try", str(vectors), "<b>Hi</b>", "--model", str(folder), "--tokens", "4", "--html", "page.html")
    page = Path("page.html").read_text()
    assert "<b>Hi" not in page
    assert "&lt;b&gt;Hi&lt;/b&gt;" in page


def test_convert_keeps_the_numbers(interp: Any, vectors: Path) -> None:
    assert interp("vectors", "convert", str(vectors), "v.svec", "--trained", "together").code == 0
    assert interp("vectors", "convert", "v.svec", "v.safetensors").code == 0
    assert np.array_equal(as_vectors("v.safetensors").directions.numpy(), np.load(vectors))


def test_show_of_vectors_is_their_card(interp: Any, vectors: Path) -> None:
    said = interp("show", str(vectors))
    assert said.code == 0, said.err
    assert "48" in said.out


def test_doctor_finds_parity(interp: Any, folder: Path) -> None:
    said = interp("doctor", "--model", str(folder))
    assert "hooks           ok" in said.out
    assert "parity          ok" in said.out


def test_python_dash_m(root: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "interp", "--version"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("interp, version")
    assert os.linesep in done.stdout
