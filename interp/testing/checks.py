"""What a part of each kind must do, as functions that raise AssertionError with a sentence."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from interp.batch import Batch
from interp.edits import Edit, Intervention
from interp.errors import UserError
from interp.experiment import Experiment
from interp.given import as_vectors
from interp.model import Model
from interp.paths import BlockPaths
from interp.prompts import Prompt
from interp.readouts import Readout, Rows, readout
from interp.registry import load
from interp.run import Run
from interp.tasks import load_task

if TYPE_CHECKING:
    import pandas as pd

AT_MOST = 8
"""Shards that a run is cut into."""
TOLERANCE = 1e-4
"""By how much numbers may differ when rows are grouped in another way: float32 rounding, relative."""
WORDS = ("Tom has 3 apples.", "Add 2 and 2, then halve it.")


def check_command(name: str, found: Any) -> None:
    """A click command with a help text."""
    import click
    from click.testing import CliRunner

    assert isinstance(found, click.Command), f"{name} is no click command"
    shown = CliRunner().invoke(found, ["--help"])
    assert shown.exit_code == 0, f"{name} --help fails: {shown.output}"
    assert found.get_short_help_str().strip(), f"{name} has no help text"


def check_model(name: str, found: Any) -> None:
    """A name, path or model; a hub id is not fetched, anything else is loaded and run."""
    from interp.backend.embedded import aliases
    from interp.load import load_model

    made = found() if callable(found) and not isinstance(found, torch.nn.Module) else found
    assert isinstance(made, str | Path | torch.nn.Module), f"{name} gives a {type(made).__name__}"
    if isinstance(made, str) and made not in aliases() and not Path(made).expanduser().exists():
        assert made.count("/") == 1, f"{name} is no alias, no path and no hub id: {made}"
        return
    model = load_model(name)
    assert model.tokenizer is not None, f"{name} comes without a tokenizer"
    assert model.stop_ids, f"{name} has no end token, so completions are always cut"
    prompts = [model.prompt(text) for text in WORDS]
    _same_alone(name, model, prompts, ())


def check_vectors(name: str, model: Model, task: Any, folder: Path) -> None:
    """An intervention; computed vectors are computed from the given model and task."""
    found = load("vectors", name)
    computed = callable(found) and "model" in inspect.signature(found).parameters
    arguments: tuple[Any, ...] = (model, task) if computed else ()
    made, again = (as_vectors(name, *arguments, keep=folder / one) for one in ("first", "second"))
    assert isinstance(made, Intervention), f"{name} gives a {type(made).__name__}, not something with edits()"
    assert made.digest == again.digest, f"{name} gives other vectors the second time"
    apart: Any = made
    one = apart.only(apart.layers[:1]) if hasattr(made, "layers") else made
    assert one.edits(), f"{name} gives no edits"


def check_sae(name: str, found: Any) -> None:
    """A folder that sae-lens wrote, or an object that decomposes a stream."""
    if isinstance(found, str | Path):
        assert (Path(found) / "cfg.json").is_file(), f"{name} is no folder of sae-lens: it holds no cfg.json"
        return
    lacking = [part for part in ("site", "digest", "encode", "reconstruct", "check_fit") if not hasattr(found, part)]
    assert not lacking, f"{name} is no sae.Dictionary: it has no {', '.join(lacking)}"
    x = torch.randn(3, found.d_model, generator=torch.Generator().manual_seed(0))
    assert found.encode(x).shape == (3, found.width), f"{name}.encode does not give {found.width} features"
    assert found.reconstruct(x).shape == x.shape, f"{name}.reconstruct has another shape than what it is given"


def check_task(name: str, model: Model) -> None:
    """Unique ids, a stable digest, prompts, and grades."""
    task = load_task(name)
    assert load_task(name).digest == task.digest, f"{name} has other problems the second time"
    every = list(task.source())
    assert every, f"{name} has no problems"
    assert len({problem.id for problem in every}) == len(every), f"two problems of {name} have the same id"
    for problem in every[:AT_MOST]:
        assert task.prompt(model.tokenizer, problem).ids, f"{name}: the prompt of {problem.id} is empty"
        nothing = task.grade(problem, "").right
        if problem.answer is None:
            assert nothing is None, f"{name}: {problem.id} has no answer and is graded {nothing}"
            continue
        said = (problem.solution, rf"\boxed{{{problem.answer}}}", problem.answer)
        right = [task.grade(problem, text).right for text in said]
        assert True in right, f"{name}: neither the solution nor the answer of {problem.id} is graded right"
        assert nothing is False, f"{name}: saying nothing is graded {nothing} at {problem.id}"


def check_format(name: str, found: Any, vectors: Any, folder: Path) -> None:
    """Recognised by content, lossless, and safe against damage."""
    lacking = [part for part in ("name", "about", "matches", "read", "write") if not hasattr(found, part)]
    assert not lacking, f"{name} is no vectors.formats.base.Format: it has no {', '.join(lacking)}"
    assert found.name == name, f"the format {found.name} is installed as {name}"
    junk = folder / "junk"
    junk.write_bytes(bytes(range(256)) * 8)
    assert not found.matches(junk), f"{name} claims a file of any bytes"
    if found.write is None:
        return
    written = Path(found.write(folder / name, vectors))
    assert found.matches(written), f"{name} does not recognise {written.name}, which it wrote"
    read = load("vectors", "load")
    back = read(written)
    assert back.digest == vectors.digest, f"{name} does not give back what was written: is another format first?"
    for file in [written] if written.is_file() else sorted(p for p in written.rglob("*") if p.is_file()):
        _refuses_half(name, file, written, read, vectors.digest)


def check_patch(name: str, found: Any, model: Model, vectors: Any) -> None:
    """Fires, and rows do not depend on each other."""
    assert isinstance(found, BlockPaths | Edit), f"{name} is no BlockPaths and no Edit"
    assert found.digest == load("patches", name).digest, f"{name} has another digest when it is loaded again"
    edits: tuple[Any, ...] = (found,)
    if isinstance(found, BlockPaths):
        edits = (*vectors.only(vectors.layers[0]).edits(), found if found.layer else found.at(vectors.layers[0] + 1))
    _same_alone(name, model, [model.prompt(text) for text in WORDS], edits)


def check_readout(found: Any, name: str) -> None:
    """Columns as declared, a finite or missing value a row, and rows on their own."""
    made: Readout = found if not isinstance(found, type) and hasattr(found, "columns") else readout(name)
    draw = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    following = torch.tensor([3, 7, 1, 0, -1])
    values = made(Rows(draw[0], draw[1], following))
    assert set(values) == set(made.columns), f"{name} gives {sorted(values)}, declared are {sorted(made.columns)}"
    for column, meaning in made.columns.items():
        assert meaning.strip(), f"{name}: say what {column} means and its unit"
        assert len(values[column]) == 5, f"{name}: {len(values[column])} values of {column} for 5 rows"
    for row in range(5):
        one = slice(row, row + 1)
        alone = made(Rows(draw[0, one], draw[1, one], following[one]))
        for column in made.columns:
            assert _close(alone[column][0], values[column][row]), f"{name}: {column} depends on other rows"


def check_experiment(experiment: Experiment, given: Mapping[str, Any], folder: Path) -> None:
    """Documented, resumable, and independent of how its cells are grouped."""
    from pandas.testing import assert_frame_equal

    from interp.runner import declared, open_context

    name, cls = experiment.name, type(experiment)
    silent = [field for field, about in cls.model_fields.items() if not about.description]
    assert not silent, f"{name}: settings without a docstring below them: {', '.join(silent)}"
    vague = [column for column, meaning in cls.columns.items() if not meaning.strip()]
    assert not vague, f"{name}: columns without a meaning: {', '.join(vague)}"
    assert cls.model_validate(experiment.settings()) == experiment, f"{name}: settings do not survive run.json"
    needed = {key: value if key in cls.needs else None for key, value in given.items()}
    whole = run(experiment, needed, folder / "whole")
    assert len(whole.frame), f"{name} measures nothing"
    ctx = open_context(experiment, needed, out=folder / "once", progress=False)
    cells = experiment.cells(ctx)
    names = [coordinate for coordinate, _ in cells[0].key]
    at_once = _sorted(declared(experiment.measure(ctx, cells), experiment), names)
    expected = _sorted(whole.frame, names)
    assert_frame_equal(at_once, expected, rtol=TOLERANCE, atol=TOLERANCE, check_dtype=False)
    count = min(AT_MOST, len(cells))
    shards = [run(experiment, needed, folder / "shards", (i + 1, count)) for i in range(count)]
    assert not shards[-1].partial, f"{name}: {count} shards are not the whole"
    assert shards[-1].key == whole.key, f"{name}: the key changes from call to call"
    assert_frame_equal(_sorted(shards[-1].frame, names), expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert whole.figure().data, f"{name}: its figure shows nothing"
    assert name in whole.recipe().command, f"{name}: its recipe names another experiment"


def check_figure(name: str, experiment: Experiment, given: Mapping[str, Any], folder: Path) -> None:
    """Draws a run, with a title, from the record alone."""
    needed = {key: value if key in type(experiment).needs else None for key, value in given.items()}
    figure = run(experiment, needed, folder / "whole").figure(name)
    assert figure.data, f"{name} shows nothing"
    assert figure.layout.title.text, f"{name} has no title"


def run(experiment: Experiment, given: Mapping[str, Any], out: Path, shard: tuple[int, int] | None = None) -> Run:
    """Run an experiment without a word."""
    return experiment.run(**given, out=out, shard=shard, progress=False)


def _same_alone(name: str, model: Model, prompts: list[Prompt], edits: Any) -> None:
    together = model.run(Batch.of(prompts), edits).final[:, -1]
    assert bool(together.isfinite().all()), f"{name} gives values that are not finite"
    for row, prompt in enumerate(prompts):
        alone = model.run(Batch.of([prompt]), edits).final[0, -1]
        assert torch.allclose(alone, together[row], rtol=TOLERANCE, atol=TOLERANCE), f"{name}: rows differ in a batch"


def _refuses_half(name: str, file: Path, written: Path, read: Any, digest: str) -> None:
    """Half a file is an error in one line, or (where it was a comment) still the whole content."""
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    try:
        assert read(written).digest == digest, f"{name} reads half of {file.name} as other vectors"
    except UserError:
        pass
    finally:
        file.write_bytes(whole)


def _sorted(frame: pd.DataFrame, coordinates: list[str]) -> pd.DataFrame:
    """Rows in an order of their own: chunks may come in any order."""
    keys = [column for column in frame.columns if column in coordinates or frame[column].dtype.kind != "f"]
    return frame.sort_values(keys, kind="stable", key=lambda column: column.astype(str)).reset_index(drop=True)


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or abs(one - other) <= TOLERANCE * max(1.0, abs(other)) or (one != one and other != other)
    return bool(one == other)
