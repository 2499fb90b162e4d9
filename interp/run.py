"""A finished (or interrupted) run, as one uses it in a notebook."""

from __future__ import annotations

import inspect
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.active_edits import active_vectors
from interp.errors import UserError
from interp.markup import text, visible
from interp.numbers import shown
from interp.registry import load
from interp.store import RunRecord

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


READING = ("site", "layer", "rows", "trained")
"""Flags of a file of vectors that a recipe repeats; see `interp.reading`."""
ASKING = ("prompt_of", "system", "example", "no_example", "scorer", "pattern", "grader", "tokens")
"""Flags of a task that a recipe repeats; see `interp.tasks.asking`."""


@dataclass(frozen=True)
class Recipe:
    """How to get a run again.

    Attributes:
        command: for a shell.
        python: for a notebook.
    """

    command: str
    python: str

    def __str__(self) -> str:
        return f"{self.command}\n\n{self.python}"


@dataclass(frozen=True)
class Run:
    """A run and what can be made of it.

    Attributes:
        record: its folder on disk.
        experiment: the experiment with its settings; None where the run was read from disk.
        interrupted: True if this process was stopped before its cells were done.
    """

    record: RunRecord
    experiment: Any = None
    interrupted: bool = False

    @property
    def key(self) -> str:
        """Digest of everything that can change its numbers."""
        return str(self.record.meta["key"])

    @property
    def partial(self) -> bool:
        """True while cells are missing."""
        return self.record.partial

    @property
    def settings(self) -> dict[str, Any]:
        """The experiment's settings, n and seed among them."""
        return dict(self.record.meta["settings"])

    @property
    def frame(self) -> pd.DataFrame:
        """One row per measurement; units stand in `columns`."""
        return self.record.frame

    @property
    def columns(self) -> dict[str, str]:
        """Column -> meaning with its unit."""
        return dict(self.record.meta["columns"])

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """What the frame says about the declared claims."""
        return list(self.record.meta["verdicts"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, revision, machine, device and times."""
        names = ("versions", "git", "machine", "device", "started", "finished", "source")
        return {name: self.record.meta.get(name) for name in names}

    def figure(self, kind: str | None = None) -> go.Figure:
        """A figure of the run.

        Args:
            kind: a figure of this experiment or any installed one; its first one by default, else a plain plot.
        """
        return draw(self.record, kind)

    def example(self, i: int) -> pd.DataFrame:
        """The rows of one example (problem).

        Raises:
            UserError: the run has no examples, or not this one.
        """
        if "example" not in self.frame.columns:
            raise UserError("this run has no examples", works=f"its columns: {', '.join(self.frame.columns)}")
        rows = self.frame.loc[self.frame["example"] == i]
        if rows.empty:
            raise UserError("no such example", given=i, works=f"use one of {sorted(set(self.frame['example']))[:20]}")
        return rows

    def recipe(self) -> Recipe:
        """The command and the Python that make this run again."""
        return Recipe(_command(self.record.meta), _python(self.record.meta))

    def methods(self) -> str:
        """A paragraph for a paper: what was estimated, on what, with which controls."""
        return methods(self.record.meta)

    def save_figures(self) -> None:
        """Write figure.html and figure.json beside the frame; a figure that cannot be drawn is one warning."""
        try:
            save_figures(self.record)
        except (UserError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"no figure for {self.record.path}: {error}", stacklevel=2)

    def __repr__(self) -> str:
        state = ", partial" if self.partial else ""
        return f"Run({self.record.meta['experiment']}, {self.key}, {len(self.frame)} rows{state})"

    def _repr_html_(self) -> str:
        meta = self.record.meta
        title = f"{text(meta['experiment'])} <code>{text(self.key)}</code>{' (partial)' if self.partial else ''}"
        said = "".join(f"<li>{text(_sentence(verdict))}</li>" for verdict in self.verdicts)
        shown = self.frame.head(8).map(lambda value: visible(value) if isinstance(value, str) else value)
        table = shown.rename(columns=visible).to_html(index=False, escape=True, border=0)
        return f"<div><b>{title}</b><p>{text(self.methods())}</p><ul>{said}</ul>{table}</div>"


def open_run(path: str | Path) -> Run:
    """A run from its folder.

    Raises:
        UserError: it is not the folder of a run.
    """
    return Run(RunRecord.read(path))


def draw(record: RunRecord, kind: str | None = None) -> go.Figure:
    """The figure of a run on disk; needs neither torch nor the experiment's module."""
    own = record.meta.get("figures") or []
    name = kind or (own[0] if own else None)
    if name is None:
        from interp.plain_figure import plain_figure

        return plain_figure(record)
    if kind is None and ".py:" in name:
        # run.json may come from a stranger: what it names is looked up, never run from a file
        raise UserError("this run names a figure in a file", given=name, works="give it yourself with --kind")
    builder: Any = load("figures", name)
    if not hasattr(builder, "__call__"):  # noqa: B004 - `callable` narrows the type to one that returns an object
        raise UserError("this is no figure", given=name, works="name a function of a run record")
    first = next(iter(inspect.signature(builder).parameters), "run")
    try:
        drawn: Any = builder([record]) if first == "runs" else builder(record)
        return drawn
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"the figure {name} cannot be drawn from this run: {reason}", given=record.path) from error


def save_figures(record: RunRecord, kind: str | None = None) -> None:
    """Draw a run and write figure.html, which needs no network, and figure.json.

    Raises:
        UserError: the run has no rows yet.
    """
    if record.frame.empty:
        raise UserError("this run has no rows yet", given=record.path)
    save = load("reports", "figure")
    save(draw(record, kind), record.path, bundle=record.path.parent.parent)  # one plotly.js for all runs


def methods(meta: Mapping[str, Any]) -> str:
    """A paragraph: what was estimated, on what, with which controls, and what came out."""
    plan, model, vectors, task = (meta.get(name) or {} for name in ("declaration", "model", "vectors", "task"))
    subject = [str(model["name"])] if model else []
    subject += [f"vectors {active_vectors(meta)}"] if vectors else []
    subject += [f"task {task['name']}"] if task else []
    margin = f"{plan.get('margin')} {plan.get('margin_unit', '')}".strip()
    said = [
        f"We estimate {plan.get('estimand')} ({', '.join([*subject, 'n = ' + str(meta['n'])])}, seed {meta['seed']}).",
        f"The unit of analysis is the {plan.get('unit')}, the statistic {plan.get('statistic')}, "
        f"compared with {', '.join(plan.get('controls') or ()) or 'nothing'}; comparisons: {plan.get('family')}.",
        f"The smallest effect of interest is {margin}.",
    ]
    return " ".join([*said, *(_sentence(verdict) for verdict in meta.get("verdicts") or ())])


def _sentence(verdict: Mapping[str, Any]) -> str:
    interval = verdict.get("estimate") or {}
    numbers = ""
    if interval.get("estimate") is not None:
        # JSON has no infinity, so that null is an end that is unbounded
        low, high = ("infinity" if interval.get(end) is None else shown(interval[end]) for end in ("low", "high"))
        numbers = f" ({shown(interval['estimate'])} [{'-' * (low == 'infinity')}{low}, {high}])"
    return f"{verdict.get('claim')}: {verdict.get('phrase')}{numbers}."


def _command(meta: Mapping[str, Any]) -> str:
    asked = _asked(meta)
    words = ["interp", "run", str(asked.pop("experiment"))]
    for name, value in asked.items():
        for one in value if isinstance(value, list) else [value]:
            texts = one if isinstance(one, list) else [] if one is True else [str(one)]
            flag = f"vector-{name}" if name in READING else name.replace("_", "-")  # settings may have the same name
            words += [f"--{flag}", *texts]
    for name, value in meta["settings"].items():
        words += _flag(name, value)
    return shlex.join(words)


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if value is None:
        return [f"--{flag}", "none"]
    return [f"--{flag}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]


def _asked(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What was given to the run, by flag: paths and names where they are known, else the names of the objects."""
    target = str(meta["target"])
    known = {"experiment": target if ".py:" in target else str(meta["experiment"])}
    known |= {name: str(meta[name]["name"]) for name in ("model", "vectors", "task") if meta.get(name)}
    asked: dict[str, Any] = dict(meta.get("asked") or {})
    if "prompts" in asked:
        del known["task"]
    return {**known, **asked}


def _python(meta: Mapping[str, Any]) -> str:
    module, _, name = str(meta["target"]).rpartition(":")
    asked = _asked(meta)
    settings = ", ".join(f"{key}={value!r}" for key, value in meta["settings"].items())
    given = {part: repr(asked[part]) for part in ("model", "vectors", "task") if part in asked}
    lines = [f"from {module} import {name}"]
    if module.endswith(".py"):
        lines = ["from interp.registry import load", "", f"{name} = load('experiments', {asked['experiment']!r})"]
    if "prompts" in asked:
        lines.insert(0, "from interp.tasks import from_prompts")
        given["task"] = f"from_prompts({asked['prompts']!r})"
    lines += _changed(asked, given)
    more = {part: repr(asked[part]) for part in ("out", "foreign", "completions_from") if part in asked}
    if set(more) <= {"out"}:
        return "\n".join([*lines, "", f"run = {name}({settings}).run({_arguments(given | more)})"])
    lines.insert(0, "from interp.runner import run_experiment")
    inputs = ", ".join(f"{part!r}: {value}" for part, value in given.items())
    return "\n".join([*lines, "", f"run = run_experiment({name}({settings}), {{{inputs}}}, {_arguments(more)})"])


def _changed(asked: Mapping[str, Any], given: dict[str, str]) -> list[str]:
    """Put into `given` what flags changed about vectors and task, and return the imports that this needs."""
    lines: list[str] = []
    reading = {name: repr(asked[name]) for name in READING if name in asked}
    if reading:
        lines.append("from vectors import load_vectors")
        given["vectors"] = f"load_vectors({given['vectors']}, {_arguments(reading)})"
    asking = {name: repr(asked[name]) for name in ASKING if name in asked}
    if asking:
        lines.append("from interp.tasks.asking import Asking")
        if "prompts" not in asked:
            lines.append("from interp.tasks import load_task")
            given["task"] = f"load_task({given['task']})"
        vectors = f", load_vectors({given['vectors']})" if asked.get("prompt_of") == "vectors" else ""
        if vectors and reading:
            vectors = f", {given['vectors']}"
        elif vectors:
            lines.append("from vectors import load_vectors")
        given["task"] = f"Asking({_arguments(asking)}).apply({given['task']}{vectors})"
    return lines


def _arguments(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
