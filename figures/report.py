"""One HTML page for many figures: opens from disk, loads nothing from anywhere, can be rewritten while runs finish."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from figures import style
from figures.captions import subject
from figures.export import IMAGE_KINDS, save_images
from figures.markup import embedded_json, table, text
from figures.origin import origin_of
from figures.paper import Entry
from figures.record import Record
from figures.sections import Section, body, contents_line, draw, verdict_rows
from interp.files import disk_errors, write_text

_HEAD = ("Figure", "Claim tested", "Verdict", "Estimate [95 %]", "Controls [95 %]", "Margin", "n")
_HOW_TO_READ = (
    "A verdict follows from the interval, the smallest effect of interest and the control vectors alone; what decides "
    "it was written down before the runs. \u201cInconclusive\u201d names the smallest effect that this n could have "
    "shown beside these controls."
)


def write_report(
    sections: Sequence[tuple[Entry, Sequence[Record]]],
    out: Path,
    *,
    title: str,
    problems: Mapping[str, str] | None = None,
    lead: str = "",
) -> Path:
    """Write `out/index.html`, with the data of every run in `out/data`.

    May be called again after each run: the page is replaced at once, entries without runs are marked.

    Args:
        sections: entries of the manifest, each with the runs that answer it (none while it is not run).
        out: the folder.
        title: of the page.
        problems: entry key -> why it could not be run.
        lead: HTML that stands before the verdicts.

    Returns:
        The path of the page.
    """
    failed = problems or {}
    shown = [Section(entry, tuple(runs), failed.get(entry.key, "")) for entry, runs in sections]
    return _write(shown, out, title, lead)


def write_paper(
    entries: Sequence[Entry],
    made: Mapping[str, Record],
    failed: Mapping[str, str],
    out: Path,
    *,
    scale: str,
    images: bool = False,
) -> Path:
    """Write the report of `interp paper`, with images beside it in `out/figures` where they are asked for.

    Args:
        entries: of the manifest.
        made: entry key -> its run.
        failed: entry key -> why it could not be run.
        out: the folder.
        scale: of the runs, for the title.
        images: write PNG, SVG and PDF of every figure too; the page is there by then.

    Returns:
        The path of the page.

    Raises:
        UserError: an image cannot be made.
    """
    runs = [(entry, [made[entry.key]] if entry.key in made else []) for entry in entries]
    title = f"Small Vectors, Big Effects: figures at scale {scale}"
    page = write_report(runs, out, title=title, problems=failed)
    if images:
        drawn = [(entry, name, run) for entry, shown in runs for run in shown for name in entry.figures]
        pairs = [
            (draw(name, run), out / "figures" / f"{entry.key}-{name}.{kind}")
            for entry, name, run in drawn
            for kind in IMAGE_KINDS
        ]
        save_images(pairs)
    return page


def write_run_report(runs: Sequence[Record], out: Path, *, title: str) -> Path:
    """Write a report of runs that belong to no figure of the paper.

    Args:
        runs: one section each.
        out: the folder.
        title: of the page.

    Returns:
        The path of the page.
    """
    return _write([Section(_own_entry(run), (run,)) for run in runs], out, title)


def _own_entry(run: Record) -> Entry:
    plan = run.meta.get("declaration") or {}
    name = str(run.meta.get("experiment") or "run")
    return Entry(
        key=f"{name}-{run.meta.get('key', '')}",
        title=name.replace("-", " ").capitalize(),
        claim=str(plan.get("claim") or ""),
        measures=str(plan.get("estimand") or ""),
        threshold=f"margin {plan['margin']:g} {plan.get('margin_unit', '')}".strip() if "margin" in plan else "",
        margin=float(plan.get("margin") or 0.0),
        experiment=name,
        figures=tuple(run.meta.get("figures") or ()),
        kept="own run",
        origin=origin_of(run),
    )


def _write(sections: Sequence[Section], out: Path, title: str, lead: str = "") -> Path:
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    plotly, script = get_plotlyjs(), _asset("report.js")
    shown = [section for section in sections if not section.absent]
    absent = [section for section in sections if section.absent]
    page = Template(_asset("report.html")).substitute(
        title=text(title),
        style=_asset("report.css"),
        hashes=f"{_hash(plotly)} {_hash(script)}",
        contents=_contents(shown, absent),
        lead=_lead(sections) + lead,
        verdicts=_verdicts(shown),
        sections="\n".join([*(body(section, out) for section in shown), _absent(absent)]),
        footer=f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. One file; it loads nothing from the network.",
        templates=_templates(),
        plotly=plotly,
        script=script,
    )
    write_text(out / "index.html", page)
    return out / "index.html"


def _lead(sections: Sequence[Section]) -> str:
    runs = [run for section in sections for run in section.runs]
    subjects = dict.fromkeys(subject(run) for run in runs)
    notes = dict.fromkeys(note for run in runs if (note := style.banner(run.meta)))
    lines = "".join(f"<p>{text(one)}</p>" for one in list(subjects)[:4] if one)
    return lines + "".join(f'<p class="banner">{text(note)}</p>' for note in notes)


def _verdicts(sections: Sequence[Section]) -> str:
    rows = [row for section in sections for row in verdict_rows(section)]
    made = table(_HEAD, rows, name="verdict-table")
    return f'<section class="first" id="verdicts"><h2>Verdicts</h2><p>{text(_HOW_TO_READ)}</p>{made}</section>'


def _contents(shown: Sequence[Section], absent: Sequence[Section]) -> str:
    verdicts = '<li><a href="#verdicts">Verdicts</a></li>'
    tail = '<li><a class="pending" href="#absent">Not in this version</a></li>' if absent else ""
    return verdicts + "".join(contents_line(section) for section in shown) + tail


def _absent(sections: Sequence[Section]) -> str:
    """List the entries whose experiment is not installed: what they claim and what would decide it."""
    if not sections:
        return ""
    entries = [section.entry for section in sections]
    rows = [[text(entry.label), text(entry.title), text(entry.claim), text(entry.threshold)] for entry in entries]
    made = table(("Figure", "Title", "Claim", "Would be decided by"), rows, name="absent-table")
    note = "The experiments of these entries are not installed."
    return f'<section id="absent"><h2>Not in this version</h2><p>{note}</p>{made}</section>'


def _templates() -> str:
    themes = {theme: style.template(theme).to_plotly_json() for theme in ("light", "dark")}
    for template in themes.values():
        template["layout"]["paper_bgcolor"] = "rgba(0,0,0,0)"  # the card behind shows its own colour
    return embedded_json(json.dumps(themes))


def _asset(name: str) -> str:
    return (files("figures") / "assets" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
