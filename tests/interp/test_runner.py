"""Runs resume, shard, recall, halve and stop as promised."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest

from interp import run as run_module
from interp import runner
from interp.cell import Cell
from interp.context import Context
from interp.errors import UserError
from interp.experiment import Experiment
from interp.provenance import file_source
from interp.runner import declared
from interp.store import RunFolder, RunRecord, Store
from tests.interp.toy import PLAN, Toy, measured

_SCRIPT = (
    "from tests.interp.toy import Toy; Toy(size={size}, log={log!r}, pause={pause}).run(out={out!r}, progress=False)"
)


def start(root: Path, runs: Path, log: Path, *, pause: float, size: int = 6) -> subprocess.Popen[bytes]:
    code = _SCRIPT.format(log=str(log), pause=pause, out=str(runs), size=size)
    return subprocess.Popen([sys.executable, "-c", code], cwd=root)


def wait_for(log: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while len(measured(log)) < lines:
        assert time.monotonic() < deadline, "the other process measured nothing"
        time.sleep(0.02)


def test_frame_is_the_measurement_in_grid_order(runs: Path) -> None:
    run = Toy(size=3).run(out=runs, progress=False)
    expected = [(x, kind, e, 1.5 * x + e) for x in range(3) for kind in "ab" for e in range(2)]
    assert list(run.frame.itertuples(index=False, name=None)) == expected
    assert not run.partial
    assert list(run.frame.columns) == list(Toy.columns)


def test_second_run_measures_nothing(runs: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = Toy(log=str(log)).run(out=runs, progress=False)
    before = measured(log)
    second = Toy(log=str(log)).run(out=runs, progress=False)
    assert measured(log) == before
    assert second.record.path == first.record.path
    pd.testing.assert_frame_equal(second.frame, first.frame)


def test_killed_run_goes_on_from_its_parts(root: Path, runs: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(root, runs, log, pause=0.15)
    wait_for(log, 8)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (record,) = Store(runs).records()
    assert record.partial
    kept = {key for part in RunFolder(record.path).parts(record.meta["source"]) for _, key in part.cells}
    assert kept
    torn = record.path / "parts" / ".torn.parquet.1.tmp"
    torn.write_bytes(b"PAR1 half a part")
    before = len(measured(log))
    again = Toy(size=6, log=str(log), pause=0.15).run(out=runs, progress=False)
    whole = Toy(size=6).run(out=runs, progress=False)
    pd.testing.assert_frame_equal(again.frame, whole.frame)
    assert len(measured(log)) - before == 12 - len(kept)


def test_second_process_waits_and_recalls(root: Path, runs: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(root, runs, log, pause=0.1, size=3)
    wait_for(log, 1)
    run = Toy(size=3, log=str(log), pause=0.1).run(out=runs, progress=False)
    process.wait()
    assert process.returncode == 0
    assert len(measured(log)) == 6, "a cell was measured twice"
    assert len(run.frame) == 12


def test_shards_together_are_the_whole(runs: Path, tmp_path: Path) -> None:
    whole = Toy(size=5).run(out=runs, progress=False)
    first = Toy(size=5).run(out=tmp_path, shard=(1, 3), progress=False)
    assert len(first.frame) == 2 * 4  # cells 0, 3, 6, 9
    parts = [first, *(Toy(size=5).run(out=tmp_path, shard=(i, 3), progress=False) for i in (2, 3))]
    assert [part.partial for part in parts] == [True, True, False]
    pd.testing.assert_frame_equal(parts[1].frame, whole.frame)  # read after the last shard was done
    pd.testing.assert_frame_equal(parts[-1].frame, whole.frame)
    assert parts[-1].key == whole.key


def test_shard_out_of_range(runs: Path) -> None:
    with pytest.raises(UserError, match="1 <= i <= n"):
        Toy().run(out=runs, shard=(4, 3), progress=False)


def test_changed_source_is_computed_again(runs: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run = Toy(log=str(log)).run(out=runs, progress=False)
    RunFolder(run.record.path).write_meta({**run.record.meta, "source": "another"})
    Toy(log=str(log)).run(out=runs, progress=False)
    assert len(measured(log)) == 16


def test_source_counts_what_it_imports_of_its_package(tmp_path: Path) -> None:
    for name, text in {
        "one": "from pack.two import x\nimport os",
        "two": "import pack.sub.three",
        "sub/three": "",
        "four": "",
    }.items():
        file = tmp_path / "pack" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    one = tmp_path / "pack" / "one.py"
    before = file_source(one, "pack.one")
    (tmp_path / "pack" / "four.py").write_text("x = 1")
    assert file_source(one, "pack.one") == before
    (tmp_path / "pack" / "sub" / "three.py").write_text("x = 1")
    assert file_source(one, "pack.one") != before


class Stops(Toy):
    """Interrupted at its fourth cell, the first time."""

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        stopped = Path(f"{self.log}-stopped")
        if any(cell["x"] == 2 for cell in cells) and not stopped.exists():
            stopped.touch()
            raise KeyboardInterrupt
        return super().measure(ctx, cells)


def test_interrupt_returns_what_is_done(runs: Path, tmp_path: Path) -> None:
    experiment = Stops(log=str(tmp_path / "log"))
    run = experiment.run(out=runs, progress=False)
    assert run.partial
    assert run.interrupted
    assert set(run.frame["x"]) <= {0, 1}
    assert len(run.frame) >= 4
    again = experiment.run(out=runs, progress=False)
    assert not again.partial
    assert len(again.frame) == 16


class Hungry(Toy):
    """Fits two cells into memory, no more."""

    fits: ClassVar[int] = 2
    seen: ClassVar[list[int]] = []

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        self.seen.append(len(cells))
        if len(cells) > self.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return super().measure(ctx, cells)


def test_out_of_memory_halves_the_chunk(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hungry, "seen", [])
    with pytest.warns(UserWarning, match="out of memory with 4 cells of hungry at a time; going on with 2"):
        run = Hungry().run(out=runs, progress=False)
    assert not run.partial
    assert Hungry.seen == [1, 2, 4, 2, 2, 1]
    monkeypatch.setattr(Hungry, "fits", 0)
    with pytest.raises(UserError, match="does not fit into memory"):
        Hungry(size=2).run(out=runs, progress=False)


def test_other_errors_go_on(runs: Path) -> None:
    class Broken(Toy):
        def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Broken().run(out=runs, progress=False)


def test_result_does_not_depend_on_the_chunk(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = Toy(size=5).run(out=runs, progress=False)
    monkeypatch.setattr(runner, "CHUNK_SECONDS", 0.0)  # chunks stay at one cell
    single = Toy(size=5).run(out=tmp_path / "single", progress=False)
    pd.testing.assert_frame_equal(single.frame, grown.frame)


def test_columns_are_exactly_the_declared() -> None:
    good = pd.DataFrame({"y": [1.0], "x": [0], "kind": ["a"], "example": [0]})
    assert list(declared(good, Toy()).columns) == ["x", "kind", "example", "y"]
    with pytest.raises(ValueError, match=r"undeclared columns \['z'\]"):
        declared(good.assign(z=1), Toy())
    with pytest.raises(ValueError, match=r"missing columns \['kind'\]"):
        declared(good.drop(columns="kind"), Toy())


def test_recall_runs_another_experiment_once(runs: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"

    class Outer(Experiment):
        columns: ClassVar = {"total": "sum of y, points"}
        declaration = PLAN
        needs = ()

        def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
            return pd.DataFrame({"total": [ctx.recall(Toy(log=str(log)))["y"].sum()]})

    run = Outer().run(out=runs, progress=False)
    Outer(seed=1).run(out=runs, progress=False)
    assert run.frame["total"].item() == 2 * 2 * 1.5 * 6 + 8
    assert len(measured(log)) == 8


def test_a_missing_declaration_is_an_error_at_import() -> None:
    with pytest.raises(TypeError, match="has no declaration"):
        type("NoPlan", (Experiment,), {"columns": {"y": "points"}, "__module__": __name__})
    with pytest.raises(TypeError, match="has no columns"):
        type("NoColumns", (Experiment,), {"declaration": PLAN, "__module__": __name__})
    with pytest.raises(TypeError, match="has no measure"):
        type("NoMeasure", (Experiment,), {"columns": {"y": "points"}, "declaration": PLAN, "__module__": __name__})


def test_settings_from_scale() -> None:
    assert (Toy.at("smoke").size, Toy.at("quick").size, Toy.at("full").size) == (1, 4, 9)
    assert Toy.at("smoke", size=3).size == 3
    assert Toy.name == "toy"
    with pytest.raises(UserError, match="did you mean layers"):
        Toy.at("quick", layer=(1,))
    with pytest.raises(UserError, match="did you mean size"):
        Toy(siez=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(UserError, match="setting size: Input should be a valid integer"):
        Toy.at("quick", size="many")
    with pytest.raises(UserError, match="smoke, quick, full"):
        Toy.at("quik")


def test_what_is_missing_is_named(runs: Path) -> None:
    class NeedsAll(Toy):
        needs = ("model", "vectors", "task")

    with pytest.raises(UserError, match="needs model and vectors and task"):
        NeedsAll().run(out=runs, progress=False)


def test_run_figure_recipe_methods_and_html(runs: Path) -> None:
    run = Toy(layers=(3, 5), deep=True).run(out=runs, progress=False)
    figure: Any = run.figure()
    assert [trace.name for trace in figure.data] == ["a", "b"]
    assert list(figure.data[0].y) == [0.5, 2.0, 3.5, 5.0]
    assert figure.layout.yaxis.title.text == "value, points"
    assert "--layers 3,5 --deep" in run.recipe().command
    scope: dict[str, object] = {}
    exec(run.recipe().python.replace(".run()", f".run(out={str(runs)!r}, progress=False)"), scope)
    assert scope["run"].key == run.key  # pyright: ignore
    assert "The unit of analysis is the problem" in run.methods()
    assert len(run.example(1)) == 8
    with pytest.raises(UserError, match="no such example"):
        run.example(7)
    run.save_figures()
    page = (run.record.path / "figure.html").read_text()
    assert "value, points" in page
    assert not re.search(r"(src|href)=.https?:", page), "the page needs a network"
    assert (runs / "plotly.min.js").is_file()
    assert '"data"' in (run.record.path / "figure.json").read_text()


def test_html_is_escaped(runs: Path) -> None:
    class Evil(Toy):
        columns: ClassVar = {"text": "token"}

        def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
            return pd.DataFrame({"text": ["<script>alert(1)</script>"]})

    html = Evil().run(out=runs, progress=False)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_run_opens_from_its_folder(runs: Path) -> None:
    run = Toy().run(out=runs, progress=False)
    again = run_module.open_run(run.record.path)
    assert again.key == run.key
    pd.testing.assert_frame_equal(again.frame, run.frame)


def test_provenance_names_no_place(runs: Path, root: Path) -> None:
    run = Toy().run(out=runs, progress=False)
    text = (run.record.path / "run.json").read_text()
    assert str(root) not in text.replace(run.settings["log"] or "\0", "")
    assert run.provenance["versions"]["pandas"] == pd.__version__
    assert isinstance(run.record, RunRecord)
