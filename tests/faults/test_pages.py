"""Hostile texts in a real browser: nothing in figures, reports and notebooks runs, and what should be drawn is."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from figures.export import save_figure
from figures.paper import entry
from figures.report import write_report, write_run_report
from figures.tokens import token_row, tokens_html
from interp.comparison import Comparison, Said
from interp.markup import text
from interp.run import Run
from interp.store import RunFolder
from tests.figures.records import HOSTILE, META, Made, substitution
from vectors import Card, SteeringVectors

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--virtual-time-budget=4000", "--dump-dom"),
]

MARK = "document.documentElement.dataset.broken=1"
ATTACKS = (
    f"<script>{MARK}</script>",
    f'"><img src=x onerror="{MARK}">',
    f"'><svg onload='{MARK}'>",
    f"</script><script>{MARK}</script>",
    f"</title></style></textarea><script>{MARK}</script>",
    f"<a href='javascript:{MARK}'>x</a>",
    f"<iframe srcdoc='<script>parent.{MARK}</script>'></iframe>",
    f"{{{{constructor.constructor('{MARK}')()}}}}",
    f"<!--><script>{MARK}</script>-->",
    "<b>" + "x" * 10_000 + "</b>",
    "\u202e\u2066gnp.exe\u2069\u2028\u0007\x1b[2J",
    *HOSTILE,
)


def opened(page: Path, profile: Path) -> str:
    """The document as Chromium has it after its scripts ran."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode("utf-8", "replace")


def broken(document: str) -> bool:
    return "data-broken" in document


def bare(path: Path, content: str) -> Path:
    """A page as a notebook shows it: no policy protects it, so that only escaping can."""
    path.write_text(f'<!doctype html><html><head><meta charset="utf-8"></head><body>{content}</body></html>', "utf-8")
    return path


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return tmp_path / "profile"


def named(extra: dict[str, Any]) -> dict[str, Any]:
    """A run.json whose every text is an attack."""
    every = " ".join(ATTACKS)
    names: dict[str, Any] = {one: {"name": every} for one in ("model", "vectors", "task")}
    verdict = {"claim": every, "phrase": every, "because": every, "unit": every, "margin": 1.0}
    plan = {"claim": every, "estimand": every, "controls": [every], "margin": 1.0, "margin_unit": every}
    return {
        **META,
        **names,
        "settings": {every: every},
        "columns": {every: every},
        "declaration": plan,
        "verdicts": [verdict],
        "versions": {every: every},
        "git": {"revision": every},
        "edits": [{"edit": every, "touched": 1, "rows": 1}],
        "target": f"{every}:x",
        "seed": 0,
        **extra,
    }


def test_the_attacks_work_where_nothing_is_escaped(tmp_path: Path, profile: Path) -> None:
    assert broken(opened(bare(tmp_path / "a.html", ATTACKS[0]), profile))
    assert broken(opened(bare(tmp_path / "b.html", f'<p title="{ATTACKS[1]}">'), profile))


def test_the_report_draws_its_figures_and_runs_nothing_else(
    tmp_path: Path, profile: Path, survived: Counter[str]
) -> None:
    tokens = tuple(one for one in ATTACKS if "\ud800" not in one)
    run = substitution(tokens, named({"key": ATTACKS[0]}))
    entries = [(dataclasses.replace(entry("3"), title=ATTACKS[0], claim=ATTACKS[1]), [run]), (entry("4"), [])]
    page = write_report(entries, tmp_path / "out", title=" ".join(ATTACKS), problems={"4": ATTACKS[3]})
    document = opened(page, profile)
    assert not broken(document)
    assert document.count("main-svg") >= 3, "the figures are not drawn"
    assert 'http-equiv="Content-Security-Policy"' in document
    assert not re.search(r"<(iframe|object|embed|form)\b", document)
    survived["hostile texts opened in Chromium"] += len(ATTACKS)


def test_the_policy_stops_a_script_that_got_in(tmp_path: Path, profile: Path) -> None:
    page = write_report([(entry("3"), [substitution()])], tmp_path, title="t")
    whole = page.read_text("utf-8")
    for attack in ATTACKS[:3]:
        page.write_text(whole.replace("<main>", f"<main>{attack}"), "utf-8")
        assert not broken(opened(page, profile))
    naked = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", whole)
    page.write_text(naked.replace("<main>", f"<main>{ATTACKS[0]}"), "utf-8")
    assert broken(opened(page, profile)), "without the policy the script runs, so it is the policy that stops it"


def test_a_report_of_somebody_elses_run(tmp_path: Path, profile: Path, survived: Counter[str]) -> None:
    made = substitution(tuple(one for one in ATTACKS if "\ud800" not in one))
    folder = RunFolder(tmp_path / "runs" / "token-substitution" / "key")
    folder.write_frame(made.frame)
    record = folder.write_meta(named({"figures": ["token-substitution", "token-substitution-causal"]}))
    document = opened(write_run_report([record], tmp_path / "out", title="t"), profile)
    assert not broken(document) and "main-svg" in document
    assert not broken(opened(bare(tmp_path / "run.html", Run(record)._repr_html_()), profile))
    survived["hostile texts opened in Chromium"] += 2 * len(ATTACKS)


def test_figures_and_notebook_tables(tmp_path: Path, profile: Path, survived: Counter[str]) -> None:
    values = [0.1 * index for index in range(len(ATTACKS))]
    said = Said(ATTACKS[0], ATTACKS, tuple(values), ended=True, text=" ".join(ATTACKS))
    card = Card(name=ATTACKS[1], base_model=" ".join(ATTACKS), d_model=2)
    import torch

    vectors = SteeringVectors(torch.ones(1, 2), (0,), card)
    shown = [
        Comparison(" ".join(ATTACKS), (said,))._repr_html_(),
        vectors._repr_html_(),
        tokens_html(ATTACKS, values, unit="nats"),
        text(" ".join(ATTACKS)),
    ]
    document = opened(bare(tmp_path / "cells.html", "".join(shown)), profile)
    assert not broken(document)
    assert len(re.findall("<bdi", document)) >= 2 * len(ATTACKS) - 2
    figure: go.Figure = token_row(ATTACKS, values, unit="nats")
    _, page = save_figure(figure, tmp_path / "figure")[:2]
    document = opened(page, profile)
    assert not broken(document) and "main-svg" in document
    survived["hostile texts opened in Chromium"] += 5 * len(ATTACKS)


def test_control_characters_do_not_reach_the_page(tmp_path: Path) -> None:
    page = write_report([(entry("3"), [Made(named({}), substitution().frame)])], tmp_path, title="t").read_text("utf-8")
    assert not set("\u202e\u2066\x07\x1b\x00") & set(page)
