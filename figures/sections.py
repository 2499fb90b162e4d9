"""The parts of a report that belong to one figure of the paper: verdicts, plots, recipe, data, provenance."""

from __future__ import annotations

import csv
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from figures import published
from figures.captions import caption, interval, sentence, subject, tone
from figures.markup import anchor, embedded_json, folded, table, text
from figures.paper import Entry
from figures.record import Record
from interp import registry
from interp.errors import UserError
from interp.files import write_atomically
from interp.run import Run
from interp.store import RunRecord

_PROVENANCE = ("key", "model", "vectors", "task", "settings", "seed", "edits", "versions", "git", "machine", "device")
_TIMES = ("started", "finished", "source", "version")


@dataclass(frozen=True)
class Section:
    """An entry of the manifest with the runs that answer it.

    Args:
        entry: what is claimed.
        runs: none while it is not run yet.
        problem: why it could not be run, or empty.
    """

    entry: Entry
    runs: tuple[Record, ...]
    problem: str = ""

    @property
    def state(self) -> str:
        """Return "shown", or the words for why nothing is shown."""
        if self.runs:
            return "shown"
        if self.problem:
            return f"could not be run: {self.problem}"
        return "not available in this version" if self.absent else "not run yet"

    @property
    def absent(self) -> bool:
        """True where the experiment is not installed and nothing was run."""
        return not self.runs and not self.problem and not self.entry.ready

    @property
    def verdicts(self) -> list[tuple[Record, Mapping[str, Any]]]:
        """Every verdict with its run."""
        return [(run, verdict) for run in self.runs for verdict in run.meta.get("verdicts") or ()]


def contents_line(section: Section) -> str:
    """Return the section's line of the table of contents."""
    entry, pending = section.entry, "" if section.runs else ' class="pending"'
    label = f'<span class="label">{text(entry.label)}</span>'
    return f'<li><a{pending} href="#{anchor(entry.key)}">{label}{text(entry.title)}</a></li>'


def verdict_rows(section: Section) -> list[list[str]]:
    """Return the section's rows of the verdict table, as HTML cells."""
    entry = section.entry
    link = f'<a href="#{anchor(entry.key)}">{text(entry.label if entry.covers else entry.title)}</a>'
    if not section.verdicts:
        state = section.state if not section.runs else "no verdict: this run describes"
        return [[link, text(entry.claim), f'<span class="pending-note">{text(state)}</span>', "", "", "", ""]]
    rows: list[list[str]] = []
    for run, verdict in section.verdicts:
        phrase = str(verdict.get("phrase"))
        numbers = verdict.get("estimate") or {}
        unit = str(verdict.get("unit") or (run.meta.get("declaration") or {}).get("margin_unit") or "")
        margin = verdict.get("margin")
        rows.append(
            [
                link,
                text(str(verdict.get("claim") or entry.claim).replace("-", " ")),
                f'<span class="phrase {tone(phrase)}">{text(phrase)}</span>',
                text(interval(verdict.get("estimate"))),
                text(interval(verdict.get("control"))),
                text(f"{margin:g} {unit}" if isinstance(margin, int | float) else "\u2013"),
                text(numbers.get("n") or run.meta.get("n") or "\u2013"),
            ]
        )
    return rows


def body(section: Section, out: Path) -> str:
    """Return the section as HTML and write its data files beside the report.

    Args:
        section: to show.
        out: the folder of the report; data go to `out/data`.
    """
    entry = section.entry
    parts = [
        f'<section id="{anchor(entry.key)}"><div class="label">{text(entry.label)}</div>',
        f'<h2>{text(entry.title)}</h2><p class="claim">{text(entry.claim)}</p>',
        f"<p>Measured here: {text(entry.measures)}.</p>" if entry.measures else "",
        f"<p>Decided by: {text(entry.threshold)}.</p>" if entry.threshold else "",
        f"<p>{text(entry.fate)}</p>" if entry.covers else "",
    ]
    if not section.runs:
        parts.append(f'<p class="pending-note">{text(section.state[:1].upper() + section.state[1:])}.</p>')
    parts.append(_verdict_list(section))
    for number, run in enumerate(section.runs):
        parts += _run(entry, run, number, out)
    parts.append(_published(entry.published))
    return "\n".join(part for part in parts if part) + "</section>"


def _verdict_list(section: Section) -> str:
    items = [
        f'<li class="{tone(str(verdict.get("phrase")))}">{text(sentence(verdict))}</li>'
        for _, verdict in section.verdicts
    ]
    return f'<ul class="verdicts">{"".join(items)}</ul>' if items else ""


def _run(entry: Entry, run: Record, number: int, out: Path) -> list[str]:
    names = entry.figures or tuple(run.meta.get("figures") or ())
    plots = [_figure(f"{anchor(entry.key)}-{number}-{index}", name, run) for index, name in enumerate(names)]
    note = '<p class="pending-note">This run is not finished; its numbers will change.</p>'
    return [note if run.meta.get("partial") else "", *plots, _recipe(entry, run), _downloads(run, out), _origin(run)]


def _figure(name: str, builder: str, run: Record) -> str:
    try:
        figure = draw(builder, run)
    except (UserError, KeyError, ValueError, IndexError, TypeError) as error:
        # one figure that cannot be drawn, of an unfinished run or a plugin, must not cost the report
        problem = f"The figure {builder} cannot be drawn: {type(error).__name__}: {error}"
        return f'<p class="pending-note">{text(problem)}</p>'
    figure.update_layout(template=None)
    layout: Any = figure.layout
    height = int(layout.height or 460)
    said = caption(builder, run)
    source = embedded_json(str(figure.to_json()))
    return (
        f'<figure><div class="canvas"><div class="plot" id="plot-{name}" data-source="data-{name}" '
        f'style="min-height:{height}px" role="img" aria-label="{text(_spoken(figure))}"></div></div>'
        f"<figcaption>{text(said)}</figcaption></figure>"
        f'<script type="application/json" id="data-{name}">{source}</script>'
    )


def draw(builder: str, run: Record) -> go.Figure:
    """Build a figure by the name of its entry point.

    Raises:
        UserError: there is no such builder, or it does not return a Plotly figure.
    """
    if ".py:" in builder:
        # the name may stand in the run.json of a stranger: it is looked up, never run from a file
        raise UserError("a report takes installed figures only", given=builder, works="interp redraw RUN --kind FIGURE")
    build = registry.load("figures", builder)
    # a builder whose parameter is called `runs` takes several records, as in interp.run.draw
    figure = build([run]) if next(iter(inspect.signature(build).parameters), "") == "runs" else build(run)
    if not isinstance(figure, go.Figure):
        raise UserError("a figure builder returns a plotly Figure", given=type(figure).__name__)
    return figure


def _spoken(figure: go.Figure) -> str:
    layout: Any = figure.layout
    return re.sub("<[^>]*>", "", str(layout.title.text or "figure"))


def _recipe(entry: Entry, run: Record) -> str:
    lines = "".join(f"<pre>{text(line)}</pre>" for line in _recipes(entry, run))
    return folded("How to get this again", lines)


def _recipes(entry: Entry, run: Record) -> list[str]:
    again = [f"interp paper {entry.key}"] if entry.covers or entry.kept == "ours" else []
    if not isinstance(run, RunRecord):
        return again
    recipe = Run(run).recipe()
    return [*again, recipe.command, recipe.python]


def _downloads(run: Record, out: Path) -> str:
    stem = f"{anchor(str(run.meta.get('experiment') or 'run'))}-{anchor(str(run.meta.get('key') or 'frame'))}"
    frame, folder = run.frame, out / "data"
    written = [(folder / f"{stem}.csv", "CSV"), (folder / f"{stem}.parquet", "Parquet")]
    if run.meta.get("partial") or not all(file.is_file() for file, _ in written):
        # numbers stay bare; texts are quoted, so that a token like "\n" or "," cannot shift a row
        quoted = csv.QUOTE_NONNUMERIC
        write_atomically(
            written[0][0], lambda file: frame.to_csv(file, index=False, quoting=quoted, errors="backslashreplace")
        )
        write_atomically(written[1][0], lambda file: frame.to_parquet(file, index=False))
    links = ", ".join(
        f'<a href="data/{text(file.name)}" download>{kind}</a> ({file.stat().st_size / 1024:.0f} kB)'
        for file, kind in written
    )
    return f'<p class="downloads">Data of {text(subject(run))}: {links}, {len(frame)} rows.</p>'


def _origin(run: Record) -> str:
    pairs = [(name, run.meta[name]) for name in (*_PROVENANCE, *_TIMES) if run.meta.get(name) not in (None, "", [], {})]
    items = "".join(f"<dt>{text(name)}</dt><dd>{text(_plain(value))}</dd>" for name, value in pairs)
    columns = run.meta.get("columns") or {}
    meaning = table(["Column", "Meaning"], [[f"<code>{text(k)}</code>", text(v)] for k, v in columns.items()])
    return folded("Provenance", f"<dl>{items}</dl>") + (folded("Columns of the data", meaning) if columns else "")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _published(rows: Sequence[published.Published]) -> str:
    if not rows:
        return ""
    cells = [
        [
            text(row.model),
            text(row.setting),
            *(text("?" if value is None else value) for value in (row.sampled, row.greedy)),
        ]
        for row in rows
    ]
    head = ["Model", "Setting", "T = 1", "Greedy"]
    note = f"<p>{text(published.UNIT)}. Each number: {text(published.SOURCE)}; ? = not there.</p>"
    return folded("The paper's numbers (other models, other tasks)", table(head, cells) + note)
