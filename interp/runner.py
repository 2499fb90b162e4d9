"""Runs an experiment: recall, resume, chunks, shards, interruption. Written once, for all experiments."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from interp.before_loading import check_adapters, check_call, check_needs, check_shard
from interp.cell import Cell
from interp.context import Context, silent
from interp.declaration import Declaration
from interp.errors import UserError
from interp.given import (
    as_json,
    as_model,
    as_sources,
    as_task,
    as_vectors,
    describe_model,
    describe_task,
    describe_vectors,
)
from interp.memory import halved, is_out_of_memory
from interp.parts import CellKey, Part
from interp.progress import Bar, bar, to_stderr
from interp.provenance import class_source, class_target, git_revision, machine, now, versions
from interp.run import Run
from interp.store import SCHEMA, RunFolder, RunRecord, Store, merge, run_key

if TYPE_CHECKING:
    import pandas as pd

CHUNK_SECONDS = 20.0
"""A chunk grows while it takes less than half of this: a kill loses about so much work."""

Shard = tuple[int, int]


@runtime_checkable
class Measurable(Protocol):
    """What the runner uses of an Experiment."""

    name: ClassVar[str]
    version: ClassVar[int]
    columns: ClassVar[dict[str, str]]
    declaration: ClassVar[Declaration]
    figures: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]]
    no_adapters: ClassVar[str]

    @property
    def n(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102

    def settings(self) -> dict[str, Any]: ...  # noqa: D102
    def cells(self, ctx: Context) -> list[Cell]: ...  # noqa: D102
    def inputs(self, ctx: Context) -> dict[str, str]: ...  # noqa: D102
    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame: ...  # noqa: D102
    def verdicts(self, frame: pd.DataFrame) -> Sequence[Any]: ...  # noqa: D102


def run_experiment(
    experiment: Measurable,
    given: Mapping[str, Any],
    *,
    out: str | Path = "runs",
    memory: float | None = None,
    shard: Shard | None = None,
    progress: bool = True,
    scale: str = "",
    foreign: bool = False,
    completions_from: Sequence[str] = (),
) -> Run:
    """Run an experiment, or recall it if its numbers exist already.

    Args:
        experiment: its settings.
        given: "model", "vectors" and "task": objects, aliases or paths; what is None is missing.
        out: folder of runs.
        memory: bound in GB on what generation may hold.
        shard: (i, count), 1 <= i <= count: only every count-th cell, starting at the i-th.
        progress: show progress and say what happens.
        scale: recorded in the run.
        foreign: allow vectors of other weights of the same shape.
        completions_from: servers and files that complete prompts in the model's place; see `as_sources`.

    Returns:
        The run; partial if it was interrupted or other shards are missing.
    """
    check_call(given, memory=memory, shard=shard, completions_from=completions_from)
    ctx = open_context(experiment, given, out=out, memory=memory, progress=progress, scale=scale, foreign=foreign)
    ctx.sources = as_sources(completions_from, ctx.vectors)
    return run_in(ctx, experiment, shard=shard)


def open_context(
    experiment: Measurable,
    given: Mapping[str, Any],
    *,
    out: str | Path = "runs",
    memory: float | None = None,
    progress: bool = True,
    scale: str = "",
    foreign: bool = False,
) -> Context:
    """What an experiment runs in; arguments as for `run_experiment`."""
    check_needs(experiment, given)
    check_call(given, out=out, memory=memory)
    task = as_task(given.get("task"))
    model = as_model(given.get("model"))
    vectors = as_vectors(given.get("vectors"), model, task, foreign=foreign, keep=Path(out))
    check_adapters(experiment, vectors)
    ctx = Context(model, vectors, task, experiment.n, experiment.seed, Store(Path(out)), memory, scale, progress)
    ctx.say, ctx.recaller = (to_stderr if progress else silent), _recall
    ctx.names = {name: value for name, value in given.items() if isinstance(value, str)}
    return ctx


def run_in(ctx: Context, experiment: Measurable, *, shard: Shard | None = None) -> Run:
    """Run an experiment in a context that is at hand."""
    check_shard(shard)
    meta = describe(experiment, ctx)
    ctx.folder = folder = ctx.store.folder(meta)
    name = "run" if shard is None else f"shard-{shard[0]}-of-{shard[1]}"
    waiting = f"another process works on {folder.path}; waiting for it"
    with folder.lock(name, on_wait=lambda: ctx.say(waiting)):
        record = _open(folder, meta, ctx)
        if not record.partial:
            return Run(record, experiment)
        work = _Work(ctx, experiment, folder, record.meta)
        interrupted = work.measure(shard)
        return Run(work.finish(), experiment, interrupted=interrupted)


def _recall(ctx: Context, experiment: Any) -> pd.DataFrame:
    run = run_in(ctx, experiment)
    if run.partial:
        raise KeyboardInterrupt  # the run that asked cannot go on either
    return run.frame


def describe(experiment: Measurable, ctx: Context) -> dict[str, Any]:
    """The run.json of a run before it starts, its key included."""
    cls = type(experiment)
    meta: dict[str, Any] = {
        "schema": SCHEMA,
        "experiment": experiment.name,
        "version": experiment.version,
        "scale": ctx.scale,
        "settings": experiment.settings(),
        "n": experiment.n,
        "seed": experiment.seed,
        "model": describe_model(ctx.model),
        "vectors": describe_vectors(ctx.vectors, ctx.names.get("vectors")),
        "task": describe_task(ctx.task),
        "inputs": experiment.inputs(ctx) | {f"completions {i}": one.digest for i, one in enumerate(ctx.sources)},
        "columns": dict(experiment.columns),
        "declaration": as_json(asdict(experiment.declaration)),
        "figures": list(experiment.figures),
        "target": class_target(cls),
        "source": class_source(cls) or f"unsaved-{uuid.uuid4().hex[:8]}",
        "device": None if ctx.model is None else str(ctx.model.device),
        "machine": machine(),
        "versions": versions(),
        "git": git_revision(),
        "started": now(),
        "finished": None,
        "partial": True,
        "edits": [],
        "verdicts": [],
    }
    return {**meta, "key": run_key(meta)}


def _open(folder: RunFolder, meta: dict[str, Any], ctx: Context) -> RunRecord:
    """The run that is there already, finished or not, or a new one."""
    with folder.lock("meta"):
        record = folder.read()
        if record is not None and record.meta.get("source") == meta["source"]:
            return record
        if record is not None:
            why = "is not saved, so it may have changed" if str(meta["source"]).startswith("unsaved") else "changed"
            ctx.say(f"{meta['experiment']}: its source {why} since {folder.path} was written; computing it again")
        return folder.write_meta(meta)


@dataclass
class _Work:
    """A run under way."""

    ctx: Context
    experiment: Measurable
    folder: RunFolder
    meta: dict[str, Any]

    def grid(self) -> list[tuple[int, Cell]]:
        cells = self.experiment.cells(self.ctx)
        if not cells:
            raise UserError(f"these settings of {self.experiment.name} select no cells")
        if len({cell.key for cell in cells}) < len(cells):
            raise ValueError(f"{self.experiment.name}.cells gives two cells the same key")
        return list(enumerate(cells))

    def measure(self, shard: Shard | None) -> bool:
        """Measure what is missing; True if interrupted."""
        grid = self.grid()
        mine = grid if shard is None else grid[shard[0] - 1 :: shard[1]]
        done = self.done()
        todo = [cell for cell in mine if cell[1].key not in done]
        name, before = self.experiment.name, len(mine) - len(todo)
        with bar(name, len(mine), done=before, shown=self.ctx.progress) as shown:
            try:
                self._chunks(todo, shown)
            except KeyboardInterrupt:
                self.ctx.say(f"{name}: interrupted; finished cells are kept in {self.folder.path}")
                return True
        return False

    def _chunks(self, todo: Sequence[tuple[int, Cell]], shown: Bar) -> None:
        size, limit = 1, len(todo)
        while todo:
            chunk = todo[:size]
            started = time.monotonic()
            try:
                self._chunk(chunk)
            except (MemoryError, RuntimeError) as error:
                size = limit = self._halved(len(chunk), error)
                continue
            if time.monotonic() - started < CHUNK_SECONDS / 2:
                size = max(1, min(2 * size, limit))
            todo = todo[len(chunk) :]
            shown.advance(len(chunk))

    def _chunk(self, chunk: Sequence[tuple[int, Cell]]) -> None:
        frame = self.experiment.measure(self.ctx, [cell for _, cell in chunk])
        frame = declared(frame, self.experiment)
        cells = tuple((index, cell.key) for index, cell in chunk)
        self.folder.add_part(Part(cells, self.meta["source"], self.ctx.take_fired(), frame))

    def _halved(self, size: int, error: Exception) -> int:
        """The chunk to try after a lack of memory; any other error goes on."""
        if not is_out_of_memory(error):
            raise error
        self.ctx.take_fired()
        if size == 1:
            works = "use fewer problems (--n), a smaller --memory or a smaller model"
            raise UserError(f"{self.experiment.name}: one cell alone does not fit into memory", works=works) from None
        return halved(size, f"cells of {self.experiment.name}", error)

    def done(self) -> set[CellKey]:
        return {key for part in self.folder.parts(self.meta["source"]) for _, key in part.cells}

    def finish(self) -> RunRecord:
        """Merge if no cell is missing."""
        with self.folder.lock("meta"):
            record = self.folder.read()
            if record is not None and not record.partial:
                return record  # another shard did
            parts = self.folder.parts(self.meta["source"])
            meta = {**self.meta, "edits": _sum_edits(parts)}
            if {cell.key for _, cell in self.grid()} - self.done():
                return self.folder.write_meta(meta)
            frame = merge(parts)
            meta["verdicts"] = as_json(self.experiment.verdicts(frame))
            self.folder.write_frame(frame)
            record = self.folder.write_meta({**meta, "finished": now(), "partial": False})
            self.folder.drop_parts()
        never = [edit["edit"] for edit in meta["edits"] if not edit["touched"]]
        if never:
            self.ctx.say(f"{self.experiment.name}: no position existed for this edit: {never[0]}")
        return record


def declared(frame: pd.DataFrame, experiment: Measurable) -> pd.DataFrame:
    """The frame with its columns in the declared order.

    A frame made of parts (a declared column `part`) may leave out columns that do not apply to it.

    Raises:
        ValueError: it has other columns than the declared ones.
    """
    extra = [name for name in frame.columns if name not in experiment.columns]
    lacking = [name for name in experiment.columns if name not in frame.columns]
    if extra or (lacking and "part" not in frame.columns):
        raise ValueError(f"{experiment.name}.measure: undeclared columns {extra}, missing columns {lacking}")
    return frame.reindex(columns=list(experiment.columns))


def _sum_edits(parts: Sequence[Part]) -> list[dict[str, Any]]:
    total: dict[str, dict[str, Any]] = {}
    for edit in (edit for part in parts for edit in part.edits):
        entry = total.setdefault(edit["edit"], {"edit": edit["edit"], "touched": 0, "rows": 0})
        entry["touched"] += edit["touched"]
        entry["rows"] += edit["rows"]
    return list(total.values())
