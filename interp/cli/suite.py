"""Runs several experiments on one model, for one report that grows as they finish."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from interp import registry
from interp.errors import UserError
from interp.given import default_vectors

Write = Callable[[Mapping[str, Any], Mapping[str, str]], object]
"""Writes the report, from the run record of each finished entry and the reason why another could not be run."""


class Shared:
    """What the experiments of a report share, loaded once: the model, the task, and vectors by name.

    Args:
        model: as `--model`.
        vectors: as `--vectors`; None = what each experiment prefers.
        task: as `--task`.
        out: folder of the report, whose runs lie in `out/runs`.
        foreign: allow vectors of other weights of the same shape.
    """

    def __init__(self, model: str, vectors: str | None, task: Any, out: Path, *, foreign: bool = False) -> None:
        from interp.given import as_model, as_task

        self.name, self.vectors, self.out, self.foreign = model, vectors, out, foreign
        self.model, self.task = as_model(model), as_task(task)
        self._known: dict[str, Any] = {}

    def given(self, cls: Any) -> dict[str, Any]:
        """Model, vectors and task of an experiment: the vectors that were named, or those that it prefers."""
        return {"model": self.model, "vectors": self.named(self.vectors or self.preferred(cls)), "task": self.task}

    def preferred(self, cls: Any) -> str:
        """The name of the vectors that an experiment takes where none are named."""
        return default_vectors(self.name, cls.prefers)

    def named(self, name: str) -> Any:
        """Vectors by name."""
        from interp.given import as_vectors

        if name not in self._known:
            keep = self.out / "runs"
            self._known[name] = as_vectors(name, self.model, self.task, foreign=self.foreign, keep=keep)
        return self._known[name]


def run_all(
    entries: Sequence[Any], shared: Shared, write: Write, *, scale: str, memory: float | None = None
) -> tuple[dict[str, Any], dict[str, str], int]:
    """Run what is installed; the report is written anew after each.

    An experiment that fails is left out of the report, so that one bug does not take the other figures along.

    Returns:
        The run record of each entry, the reason why others could not be run, and the exit code.
    """
    made, failed, code = dict[str, Any](), dict[str, str](), 0
    for entry in (entry for entry in entries if entry.ready):
        click.echo(f"{entry.label}: {entry.title}", err=True)
        try:
            run = _run_one(entry, shared, scale=scale, memory=memory)
        except UserError as error:
            click.echo(f"interp: {entry.label} is left out: {error}", err=True)
            failed[entry.key] = str(error)
        except Exception as error:
            click.echo(traceback.format_exc(), err=True)
            failed[entry.key], code = f"{type(error).__name__}, a bug", 1
        else:
            if run.interrupted:
                return made, failed, 130
            made[entry.key] = run.record
        write(made, failed)
    return made, failed, code


def _run_one(entry: Any, shared: Shared, *, scale: str, memory: float | None) -> Any:
    from interp.runner import run_experiment

    experiment = registry.load("experiments", entry.experiment).at(scale, **entry.settings)
    given = shared.given(type(experiment))
    run = run_experiment(experiment, given, out=shared.out / "runs", memory=memory, scale=scale)
    if not run.partial:
        run.save_figures()
    return run
