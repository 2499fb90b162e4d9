"""An experiment: frozen settings, a grid of cells, and a measurement that turns cells into rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from interp.cell import Cell as Cell
from interp.declaration import Declaration
from interp.errors import UserError
from interp.settings import Count, Seed, Settings

if TYPE_CHECKING:
    from typing import Self  # unresolved at run time, where beartype refuses it outside of a class

    import pandas as pd

    from interp.context import Context
    from interp.run import Run
    from interp.summaries import Verdict

SCALES = ("smoke", "quick", "full")
DEFAULT_SCALE = "quick"


class Experiment(Settings):
    """Base of all experiments. Settings are fields, each with a docstring that becomes its help.

    A subclass says `columns` and `declaration` and defines `measure`; all else has a default. Whatever can change
    a number is a field, because the key of a run is made of the fields; results may not depend on how cells are
    grouped into chunks.

    Attributes:
        name: command-line name; from the class name (`LogitLens` is `logit-lens`) unless given.
        version: raise it when the meaning of the numbers changes.
        columns: column -> meaning with its unit; `measure` returns exactly these.
        declaration: the plan of the analysis.
        figures: names of figure builders (entry points `interp.figures`), the first one the default.
        scales: smoke, quick, full -> settings that differ from the fields' defaults.
        needs: what must be given to run it: "model", "vectors", "task".
        no_adapters: why rank-1 adapters cannot stand in place of vectors; empty where they can.
        prefers: names of the sets of vectors to take where none are given, the best first.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    columns: ClassVar[dict[str, str]] = {}
    declaration: ClassVar[Declaration]
    figures: ClassVar[tuple[str, ...]] = ()
    scales: ClassVar[dict[str, dict[str, Any]]] = {}
    needs: ClassVar[tuple[str, ...]] = ("model", "vectors", "task")
    no_adapters: ClassVar[str] = ""
    prefers: ClassVar[tuple[str, ...]] = ("all-layer",)

    n: Count = 64
    """Number of problems (or prompts)."""
    seed: Seed = 0
    """Seed of every random stream."""

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        """Take `abstract`, which Python would refuse."""
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse, at import, an experiment that does not say what it measures; `abstract=True` is a shared base."""
        if kwargs.get("abstract"):
            return
        if not cls.__dict__.get("name"):
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__).lower()
        if not isinstance(getattr(cls, "declaration", None), Declaration):
            raise TypeError(f"{cls.__name__} has no declaration: set declaration = Declaration(estimand=..., ...)")
        if not cls.columns:
            raise TypeError(f"{cls.__name__} has no columns: set columns = {{'kl': 'KL(steered || base), nats'}}")
        if cls.measure is Experiment.measure:
            raise TypeError(f"{cls.__name__} has no measure(self, ctx, cells)")
        _check_scales(cls)

    @classmethod
    def at(cls, scale: str = DEFAULT_SCALE, **overrides: object) -> Self:
        """The settings of a scale, some of them replaced.

        Raises:
            UserError: there is no such scale or setting, or a value does not fit.
        """
        if scale not in SCALES:
            raise UserError("no such scale", given=scale, works=f"use one of {', '.join(SCALES)}")
        return cls.model_validate({**cls.scales.get(scale, {}), **overrides})

    def settings(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        return self.model_dump(mode="json")

    def cells(self, ctx: Context) -> list[Cell]:  # noqa: ARG002  for those that override it
        """The grid; cheap, without touching the model's weights. One cell by default."""
        return [Cell()]

    def inputs(self, ctx: Context) -> dict[str, str]:  # noqa: ARG002  for those that override it
        """Digests, by name, of what else can change a number: vectors beside the run's own, say. Part of the key."""
        return {}

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Rows of some cells, with exactly the declared columns."""
        raise NotImplementedError

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:  # noqa: ARG002  for those that override it
        """What the finished frame says about the declared claim; none by default."""
        return []

    def run(
        self,
        model: Any = None,
        vectors: Any = None,
        task: Any = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        out: str | Path = "runs",
        memory: float | None = None,
        shard: tuple[int, int] | None = None,
        progress: bool = True,
    ) -> Run:
        """Run it, or recall it if these numbers exist already.

        Args:
            model: a Model, a HookedTransformer, or what `load_model` takes.
            vectors: an Intervention, or an alias or path of vectors.
            task: a Task, or an alias or path of one.
            n: replaces the setting `n`.
            seed: replaces the setting `seed`.
            out: folder of runs.
            memory: bound in GB on what generation may hold.
            shard: (i, count), 1 <= i <= count: only every count-th cell, starting at the i-th.
            progress: show progress and time left.
        """
        from interp.runner import run_experiment

        replaced = {name: value for name, value in (("n", n), ("seed", seed)) if value is not None}
        chosen = type(self).model_validate({**dict(self), **replaced})
        given = {"model": model, "vectors": vectors, "task": task}
        return run_experiment(chosen, given, out=out, memory=memory, shard=shard, progress=progress)


def _check_scales(cls: type[Experiment]) -> None:
    for scale, settings in cls.scales.items():
        strange = set(settings) - set(cls.model_fields)
        if scale not in SCALES or strange:
            raise TypeError(f"{cls.__name__}.scales: no scale {scale!r} or no settings {sorted(strange)}")
