"""Runs several experiments on one model, for one report that grows as they finish.

On CPUs, experiments run side by side in processes of one thread each: small matrices gain little from more threads.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import click

from interp import registry
from interp.cli.options import read_task
from interp.errors import DiskError, UserError
from interp.given import default_vectors
from interp.reading import NOTHING_SAID, Reading
from interp.store import RunRecord

Write = Callable[[Mapping[str, Any], Mapping[str, str]], object]
"""Writes the report, from the run record of each finished entry and the reason why another could not be run."""

MOST_JOBS = 4
"""Processes, each with its own copy of the model's weights."""


@dataclass(frozen=True)
class Given:
    """What the experiments of a report share, as it was given on the command line.

    Attributes:
        model: as `--model`.
        vectors: as `--vectors`; None = what each experiment prefers.
        out: folder of the report, whose runs lie in `out/runs`.
        scale: of the runs.
        task: as `--task`.
        prompts: as `--prompts`.
        foreign: allow vectors of other weights of the same shape.
        memory: bound in GB on what generation may hold, all processes together.
        jobs: processes side by side; None = one for each core, at most four, and one where there is CUDA.
        special: experiment -> vectors that it takes instead.
        reading: what `vectors` leaves open, if it is a file.
        asking: how the problems are asked and graded, an `Asking`; None = as the task says.
    """

    model: str
    vectors: str | None
    out: Path
    scale: str
    task: str | None = None
    prompts: str | None = None
    foreign: bool = False
    memory: float | None = None
    jobs: int | None = None
    special: Mapping[str, str] = field(default_factory=dict[str, str])
    reading: Reading = NOTHING_SAID
    asking: Any = None


class Shared:
    """Model, task, and vectors by name, loaded once a process."""

    def __init__(self, given: Given) -> None:
        from interp.given import as_model

        self.given, self.model = given, as_model(given.model)
        self.task = read_task(given.task, given.prompts, given.asking, given.vectors, given.reading)
        self._known: dict[str, Any] = {}

    def named(self, name: str) -> Any:
        """Vectors by name."""
        from interp.given import as_vectors

        if name not in self._known:
            keep = self.given.out / "runs"
            reading = self.given.reading if name == self.given.vectors else NOTHING_SAID
            self._known[name] = as_vectors(
                name, self.model, self.task, foreign=self.given.foreign, keep=keep, reading=reading
            )
        return self._known[name]

    def run(self, name: str, settings: Mapping[str, object], *, progress: bool) -> Any:
        """One experiment on the vectors that were named, or on those that it prefers."""
        from interp.runner import run_experiment

        given, experiment = self.given, registry.load("experiments", name).at(self.given.scale, **settings)
        wanted = given.special.get(name) or given.vectors
        vectors = self.named(wanted or default_vectors(given.model, experiment.prefers))
        parts = {"model": self.model, "vectors": vectors, "task": self.task}
        out, memory = given.out / "runs", given.memory and given.memory / (given.jobs or 1)
        run = run_experiment(experiment, parts, out=out, memory=memory, scale=given.scale, progress=progress)
        if not run.partial:
            run.save_figures()
        return run


@dataclass(frozen=True)
class Outcome:
    """How an experiment ended.

    Attributes:
        kind: "done", "left out" (a user's error), "no disk" (the others would fail too), "bug" or "interrupted".
        text: the run's folder, or what went wrong.
        seconds: wall time.
    """

    kind: Literal["done", "left out", "no disk", "bug", "interrupted"]
    text: str
    seconds: float = 0.0


def run_all(entries: Sequence[Any], given: Given, write: Write) -> tuple[dict[str, Any], dict[str, str], int]:
    """Run what is installed; the report is written anew after each.

    An experiment that fails is left out of the report, so that one bug does not take the other figures along.

    Returns:
        The run record of each entry, the reason why others could not be run, and the exit code.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    made, failed, code = dict[str, Any](), dict[str, str](), 0
    ready = [entry for entry in entries if entry.ready]
    with closing(_outcomes(ready, given)) as outcomes:
        for entry, outcome in outcomes:
            if outcome.kind == "interrupted":
                return made, failed, 130
            if outcome.kind == "no disk":
                raise UserError(outcome.text)
            if outcome.kind == "done":
                made[entry.key] = RunRecord.read(outcome.text)
                click.echo(f"{entry.label}: {entry.title}: {outcome.seconds:.0f} s", err=True)
            elif outcome.kind == "left out":
                failed[entry.key] = outcome.text
                click.echo(f"interp: {entry.label} is left out: {outcome.text}", err=True)
            else:
                failed[entry.key], code = "a bug; see the output of the command", 1
                click.echo(outcome.text, err=True)
            write(made, failed)
    return made, failed, code


def _outcomes(entries: Sequence[Any], given: Given) -> Generator[tuple[Any, Outcome]]:
    """Each entry with its outcome, as they come."""
    jobs = min(_jobs(given), len(entries))
    if jobs <= 1:
        shared = Shared(given)
        for entry in entries:
            click.echo(f"{entry.label}: {entry.title}", err=True)
            yield entry, _outcome(shared, entry.experiment, dict(entry.settings), progress=True)
        return
    click.echo(f"{len(entries)} experiments, {jobs} at a time", err=True)
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start, initargs=(given,)) as pool:
        work = {pool.submit(_work, entry.experiment, dict(entry.settings)): entry for entry in entries}
        try:
            for future in as_completed(work):
                yield work[future], future.result()
        except (KeyboardInterrupt, GeneratorExit, BrokenProcessPool) as stop:
            for child in active_children():
                child.kill()  # what is done is on the disk, written whole
            if isinstance(stop, GeneratorExit):
                raise
            if isinstance(stop, BrokenProcessPool):
                works = "give the same command again, with --jobs 1 or a smaller --memory; finished cells are kept"
                raise UserError("a process was ended from outside, perhaps for lack of memory", works=works) from None
            yield entries[0], Outcome("interrupted", "")


def _jobs(given: Given) -> int:
    if given.jobs is not None:
        return given.jobs
    import torch

    return 1 if torch.cuda.is_available() else min(len(os.sched_getaffinity(0)), MOST_JOBS)


def _outcome(shared: Shared, name: str, settings: Mapping[str, object], *, progress: bool) -> Outcome:
    began = time.monotonic()
    try:
        run = shared.run(name, settings, progress=progress)
    except DiskError as error:
        return Outcome("no disk", str(error))
    except UserError as error:
        return Outcome("left out", str(error))
    except KeyboardInterrupt:
        return Outcome("interrupted", "")
    except Exception:
        return Outcome("bug", traceback.format_exc())
    if run.interrupted:
        return Outcome("interrupted", "")
    return Outcome("done", str(run.record.path), time.monotonic() - began)


_here: list[Shared] = []
"""What a worker process has loaded."""


def _start(given: Given) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends an interrupt to all; the parent acts on it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _here.append(Shared(given))


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its workers, which would keep their models in memory for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(name: str, settings: Mapping[str, object]) -> Outcome:
    return _outcome(_here[0], name, settings, progress=False)
