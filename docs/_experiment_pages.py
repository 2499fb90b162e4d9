"""Makes one page per experiment from its docstrings, its declaration and the manifest, so that none is kept by hand."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from figures import paper
from figures.captions import CAPTIONS
from figures.entry import Entry
from interp import registry
from interp.experiment import SCALES

TITLE = "Experiments"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages below the overview of experiments."""
    pages = [{_words(name): f"experiments/{name}.md"} for name in _names()]
    config.nav = [
        {TITLE: [item[TITLE], *pages]} if isinstance(item, dict) and TITLE in item else item
        for item in config.nav or []
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add `experiments/<name>.md` for each experiment."""
    for name in _names():
        text = page(name, registry.load("experiments", name))
        files.append(File.generated(config, f"experiments/{name}.md", content=text))
    return files


def page(name: str, experiment: Any) -> str:
    """The page of an experiment, as Markdown."""
    module = sys.modules[experiment.__module__]
    entries = [one for one in paper.manifest() if one.experiment == name]
    parts = [
        f"# {_words(name)}",
        _first_line(module.__doc__),
        inspect.getdoc(experiment) or "",
        _commands(name, experiment, entries),
        *(_claim(one) for one in entries),
        "## What is estimated\n\n" + _declaration(experiment.declaration),
        "## Settings\n\n" + _settings(experiment),
        "## Columns of the frame\n\n" + _table(("column", "meaning"), _coded(experiment.columns)),
        "## Figures\n\n" + _table(("name", "shows"), _coded({one: CAPTIONS[one] for one in experiment.figures})),
        f"API: [`{experiment.__name__}`][{experiment.__module__}.{experiment.__name__}].",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _names() -> list[str]:
    """The experiments of this repository; a plugin that is installed here documents its own."""
    return [name for name in registry.names("experiments") if "/" not in name and _ours(name)]


def _ours(name: str) -> bool:
    return registry.load("experiments", name).__module__.startswith("experiments.")


def _words(name: str) -> str:
    spoken = name.replace("-", " ")
    return spoken[:1].upper() + spoken[1:]


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


def _commands(name: str, experiment: Any, entries: Sequence[Entry]) -> str:
    shown = "".join(f"$ interp paper {one.key}  # {one.label}\n" for one in entries)
    needs = ", ".join(experiment.needs)
    python = f"from experiments import {experiment.__name__}\n\nrun = {experiment.__name__}.at('smoke').run({needs})\n"
    return (
        f"```console\n$ interp run {name}\n{shown}```\n\n```python\n{python}run.frame\nrun.figure()\n```"
        f"\n\nNeeds: {needs or 'nothing'}.{_adapters(experiment)}"
    )


def _adapters(experiment: Any) -> str:
    if "vectors" not in experiment.needs:
        return ""
    if experiment.no_adapters:
        return f" Takes no rank-1 adapters: {experiment.no_adapters}."
    return " Rank-1 adapters can stand in place of vectors."


def _claim(entry: Entry) -> str:
    rows = [
        ("Claim", entry.claim),
        ("Measured here", entry.measures),
        ("Decided by", entry.threshold),
        ("Last version", entry.fate),
    ]
    return f"## {entry.label}: {entry.title}\n\n" + _table(("", ""), rows)


def _declaration(plan: Any) -> str:
    margin = f"{plan.margin:g} {plan.margin_unit}".strip()
    rows = [
        ("Claim", plan.claim),
        ("Estimand", plan.estimand),
        ("Unit of analysis", plan.unit),
        ("Statistic", plan.statistic),
        ("Family of comparisons", plan.family),
        ("Controls", ", ".join(plan.controls)),
        ("Smallest effect of interest", margin),
    ]
    return _table(("", ""), [row for row in rows if row[1]])


def _settings(experiment: Any) -> str:
    rows: list[Sequence[str]] = []
    for name, field in experiment.model_fields.items():
        default = field.get_default(call_default_factory=True)
        scales = [_code(experiment.scales.get(scale, {}).get(name, default)) for scale in SCALES]
        rows.append((f"`--{name.replace('_', '-')}`", *scales, field.description or ""))
    return _table(("setting", *SCALES, "meaning"), rows)


def _code(value: object) -> str:
    if isinstance(value, tuple | list):
        value = ",".join(map(str, value)) or "none"
    return f"`{'none' if value in (None, '') else value}`"


def _coded(rows: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"`{name}`", text) for name, text in rows.items()]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
