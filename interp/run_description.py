"""The run.json of a run before it starts: what was asked, of what, by which code, and its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.given import as_json, describe_model, describe_task, describe_vectors
from interp.identity import identity_of
from interp.provenance import class_source, class_target, files_of, git_revision, machine, maker_of, now, versions
from interp.store import SCHEMA, run_key

if TYPE_CHECKING:
    import pandas as pd


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
        "inputs": experiment.inputs(ctx) | {f"completions {i}": identity_of(one) for i, one in enumerate(ctx.sources)},
        "columns": dict(experiment.columns),
        "declaration": as_json(asdict(experiment.declaration)),
        "figures": list(experiment.figures),
        "target": class_target(cls),
        "offered_by": maker_of(cls),
        "source": class_source(cls),
        "files": files_of(cls.__module__),
        "asked": dict(ctx.asked),
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
