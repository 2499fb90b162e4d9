"""Runs an experiment: recall, resume, chunks, shards, interruption. Written once, for all experiments."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.active_edits import active_vectors
from interp.before_loading import check_adapters, check_call, check_needs, check_shard
from interp.cell import Cell
from interp.context import Context, silent
from interp.errors import UserError
from interp.files import check_out
from interp.fired import check_touched, sum_edits
from interp.given import (
    as_asked,
    as_json,
    as_model,
    as_sources,
    as_task,
    as_vectors,
)
from interp.identity import UNSAVED
from interp.memory import halved, is_out_of_memory
from interp.parts import CellKey, Part
from interp.progress import Bar, bar, say_once, to_stderr
from interp.provenance import now
from interp.reading import NOTHING_SAID, Reading
from interp.registry import watching
from interp.run import Run
from interp.run_description import Measurable, describe
from interp.store import RunFolder, RunRecord, Store, merge
from interp.tasks.asking import prompt_note
from interp.used_plugins import changed, identities
from interp.zero_norm import refuse_zero

if TYPE_CHECKING:
    import pandas as pd

CHUNK_SECONDS = 20.0
"""A chunk grows while it takes less than half of this: a kill loses about so much work."""

Shard = tuple[int, int]


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
    asked: Mapping[str, Any] | None = None,
    reading: Reading = NOTHING_SAID,
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
        asked: what the command line was given, by flag, for the recipe of the run; from the other arguments if None.
        reading: answers to what a file of vectors leaves open.

    Returns:
        The run; partial if it was interrupted or other shards are missing.
    """
    check_call(given, memory=memory, shard=shard, completions_from=completions_from)
    common: dict[str, Any] = {"out": out, "memory": memory, "progress": progress, "scale": scale}
    ctx = open_context(experiment, given, **common, foreign=foreign, reading=reading)
    ctx.sources = as_sources(completions_from, ctx.vectors)
    options = {"out": str(out), "foreign": foreign, "completions_from": list(completions_from)}
    ctx.asked = as_asked({**ctx.names, **options} if asked is None else asked)
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
    reading: Reading = NOTHING_SAID,
) -> Context:
    """What an experiment runs in; arguments as for `run_experiment`."""
    check_needs(experiment, given)
    check_out(out)
    check_call(given, memory=memory)
    task = as_task(given.get("task"))
    model = as_model(given.get("model"))
    vectors = as_vectors(given.get("vectors"), model, task, foreign=foreign, keep=Path(out), reading=reading)
    check_adapters(experiment, vectors)
    refuse_zero(vectors, f"studied by {experiment.name}")
    ctx = Context(model, vectors, task, experiment.n, experiment.seed, Store(Path(out)), memory, scale, progress)
    ctx.say, ctx.recaller = (to_stderr if progress else silent), _recall
    ctx.names = {name: str(value) for name, value in given.items() if isinstance(value, str | Path)}
    if note := prompt_note(vectors, task):
        say_once(ctx.say, note)
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
        with watching() as used:
            work = _Work(ctx, experiment, folder, record.meta, used)
            interrupted = work.measure(shard)
            return Run(work.finish(), experiment, interrupted=interrupted)


def _recall(ctx: Context, experiment: Any) -> pd.DataFrame:
    run = run_in(ctx, experiment)
    if run.partial:
        raise KeyboardInterrupt  # the run that asked cannot go on either
    return run.frame


def _open(folder: RunFolder, meta: dict[str, Any], ctx: Context) -> RunRecord:
    """The run that is there already, finished or not, or a new one."""
    with folder.lock("meta"):
        record = folder.read()
        same = record is not None and record.meta.get("source") == meta["source"]
        plugin = changed(record.meta.get("plugins")) if record is not None and same else None
        if record is not None and same and plugin is None:
            return record
        if record is not None:
            why = "may have changed" if str(meta["source"]).startswith(UNSAVED) else "changed"
            what = plugin or "its source"
            ctx.say(f"{meta['experiment']}: {what} {why} since {folder.path} was written; computing it again")
        if plugin is not None:
            folder.clear()
        return folder.write_meta(meta)


@dataclass
class _Work:
    """A run under way."""

    ctx: Context
    experiment: Measurable
    folder: RunFolder
    meta: dict[str, Any]
    used: set[tuple[str, str]]

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
        self._note_plugins()
        cells = tuple((index, cell.key) for index, cell in chunk)
        self.folder.add_part(Part(cells, self.meta["source"], self.ctx.take_fired(), frame))

    def _note_plugins(self) -> None:
        """Note what was loaded by name before its numbers are kept."""
        known: dict[str, str] = self.meta.get("plugins") or {}
        new = {name: one for name, one in identities(self.used).items() if name not in known}
        if new:
            with self.folder.lock("meta"):
                record = self.folder.read()
                others = {} if record is None else record.meta.get("plugins") or {}
                self.meta["plugins"] = {**others, **known, **new}
                self.folder.write_meta(self.meta)

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
            plugins = {} if record is None else record.meta.get("plugins") or {}
            edits = sum_edits(edit for part in parts for edit in part.edits)
            meta = {**self.meta, "edits": edits, "plugins": {**plugins, **self.meta.get("plugins", {})}}
            if {cell.key for _, cell in self.grid()} - self.done():
                return self.folder.write_meta(meta)
            check_touched(self.experiment.name, edits, self.ctx.say)
            frame = merge(parts)
            meta |= {"on": active_vectors(meta), "verdicts": as_json(self.experiment.verdicts(frame))}
            self.folder.write_frame(frame)
            record = self.folder.write_meta({**meta, "finished": now(), "partial": False})
            self.folder.drop_parts()
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
