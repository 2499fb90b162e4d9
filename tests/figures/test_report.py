"""The report opens from disk, loads nothing, says what it knows and cannot be broken by a text."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from figures import paper
from figures.captions import CAPTIONS, caption, interval, sentence
from figures.record import keep, numbers
from figures.report import write_paper, write_report, write_run_report
from interp import registry
from interp.errors import UserError
from interp.given import as_json
from interp.run import methods
from interp.store import RunFolder, RunRecord
from interp.summaries import bootstrap, control_range, verdict
from tests.figures.records import HOSTILE, META, Made, lens, substitution

VERDICT: dict[str, Any] = {
    "claim": "first-token-suffices",
    "phrase": "inconclusive (detectable >= 14)",
    "estimate": {"estimate": 5.0, "low": -4.0, "high": 14.0, "n": 48},
    "control": {"estimate": 0.5, "low": -3.0, "high": 4.0, "n": 8},
    "margin": 5.0,
    "detectable": 14.0,
    "because": "the interval covers the margin and zero",
}


class Page(HTMLParser):
    """Every element with its attributes, the visible text and the contents of scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += data


ABSENT = dataclasses.replace(paper.entry("13"), experiment="not-written-yet", claim="Nobody has measured this.")


def written(out: Path, run: Made, key: str = "3") -> Page:
    path = write_report([(paper.entry(key), [run]), (ABSENT, [])], out, title="Figures")
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    run = substitution(meta={**META, "verdicts": [VERDICT], "columns": {"u": "mean change of probability"}})
    return written(tmp_path_factory.mktemp("report"), run)


def test_nothing_is_loaded_from_outside(page: Page) -> None:
    for tag, attributes in page.elements:
        assert "src" not in attributes, f"{tag} loads {attributes['src']}"
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "img"}
        assert tag != "a" or not re.match(r"(https?:)?//|javascript:", attributes["href"] or "")


def test_only_its_own_two_scripts_may_run(page: Page) -> None:
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "Policy" in (a.get("http-equiv") or ""))
    assert policy is not None and policy.startswith("default-src 'none'")
    assert "unsafe" not in policy.split("script-src")[1].split(";")[0]
    kinds = [attributes.get("type") for tag, attributes in page.elements if tag == "script"]
    run = [script for script, kind in zip(page.scripts, kinds, strict=True) if kind != "application/json"]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in run]
    assert len(hashes) == 2 and all(f"'sha256-{one}'" in policy for one in hashes)


def test_each_figure_stands_in_the_page_as_json(page: Page) -> None:
    plots = [attributes["data-source"] for _, attributes in page.elements if "data-source" in attributes]
    scripts = [attributes.get("id") for tag, attributes in page.elements if tag == "script"]
    assert plots == ["data-3-0-0", "data-3-0-1", "data-3-0-2"]
    bars = json.loads(page.scripts[scripts.index("data-3-0-1")])
    assert bars["data"][0]["y"] == [25.0, 50.0, 37.5, 62.5]
    assert set(json.loads(page.scripts[scripts.index("templates")])) == {"light", "dark"}


def test_the_verdict_is_said_with_all_it_was_made_from(page: Page) -> None:
    for said in ("inconclusive (detectable >= 14)", "5 [−4, 14]", "0.5 [−3, 4]", "The interval covers the margin"):
        assert said in page.text
    assert "n = 8 problems" in page.text and "concerns this model only" in page.text
    assert "25.5" in page.text and "constant in the authors' plotting code" in page.text


def test_what_is_not_installed_is_listed_not_an_error(page: Page) -> None:
    assert not ABSENT.ready
    assert "Not in this version" in page.text and ABSENT.claim in page.text


def test_the_data_lie_beside_the_page(tmp_path: Path) -> None:
    run = substitution()
    page = written(tmp_path, run)
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a" and "download" in attributes]
    assert [Path(str(link)).suffix for link in links] == [".csv", ".parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / str(links[1])), run.frame)
    table = pd.read_csv(tmp_path / str(links[0]), keep_default_na=True)
    assert table["u"].tolist() == pytest.approx(run.frame["u"].tolist(), nan_ok=True)


def test_hostile_texts_make_no_element(tmp_path: Path) -> None:
    texts = " ".join(HOSTILE)
    named = {"model": {"name": texts}, "vectors": {"name": texts}, "task": {"name": texts}, "settings": {texts: texts}}
    verdict = {**VERDICT, "claim": texts, "phrase": texts, "because": texts}
    meta = {**META, **named, "columns": {texts: texts}, "verdicts": [verdict], "key": texts, "git": texts}
    tokens = tuple(token for token in HOSTILE if token != "\ud800")
    harmless, hostile = written(tmp_path / "a", substitution()), written(tmp_path / "b", substitution(tokens, meta))
    allowed = {tag for tag, _ in harmless.elements} | {"ul", "li", "span", "p", "td", "code", "table", "details"}
    assert {tag for tag, _ in hostile.elements} <= allowed
    assert not {name for _, names in hostile.elements for name in names if name.startswith("on")}
    assert len([1 for tag, _ in hostile.elements if tag == "script"]) == len(harmless.scripts)
    source = (tmp_path / "b" / "index.html").read_text(encoding="utf-8")
    assert "\u202e" not in source and "\x00" not in source
    assert {file.parent for file in (tmp_path / "b").rglob("*.csv")} == {tmp_path / "b" / "data"}


def test_a_figure_that_cannot_be_drawn_does_not_cost_the_report(tmp_path: Path) -> None:
    run = substitution()
    page = written(tmp_path, Made({**META, "partial": True}, keep(run.frame, "part", "positions")))
    assert "token-substitution cannot be drawn" in page.text and "not finished" in page.text
    assert len([1 for _, attributes in page.elements if "data-source" in attributes]) == 1


def test_the_report_grows_run_by_run(tmp_path: Path) -> None:
    entries = [paper.entry("3"), paper.entry("4")]
    first = Page(write_paper(entries, {}, {}, tmp_path, scale="smoke").read_text(encoding="utf-8"))
    assert first.text.count("not run yet") == 2
    made = {"4": lens()}
    second = Page(write_paper(entries, made, {}, tmp_path, scale="smoke").read_text(encoding="utf-8"))
    assert second.text.count("not run yet") == 1 and "Logit lens of the vectors" in second.text
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["index.html"]


def test_why_an_entry_could_not_be_run_is_said(tmp_path: Path) -> None:
    path = write_report([(paper.entry("3"), [])], tmp_path, title="t", problems={"3": "no vectors <here>"})
    assert "could not be run: no vectors <here>" in Page(path.read_text(encoding="utf-8")).text


def test_own_runs_get_a_report_without_the_manifest(tmp_path: Path) -> None:
    plan = {"claim": "It works", "estimand": "accuracy", "margin": 5.0, "margin_unit": "points", "controls": ["random"]}
    run = substitution(meta={**META, "declaration": plan, "figures": ["token-substitution-causal"]})
    page = Page(write_run_report([run], tmp_path, title="Mine").read_text(encoding="utf-8"))
    assert "It works" in page.text and "margin 5 points" in page.text and "Controls: random." in page.text
    assert "interp paper" not in page.text


def test_a_run_on_disk_brings_its_recipe(tmp_path: Path) -> None:
    made = substitution(meta={**META, "target": "experiments:TokenSubstitution", "settings": {"n": 8}})
    folder = RunFolder(tmp_path / "runs" / "token-substitution" / "key")
    folder.write_frame(made.frame)
    folder.write_meta(made.meta)
    path = write_report([(paper.entry("3"), [RunRecord.read(folder.path)])], tmp_path / "out", title="t")
    text = Page(path.read_text(encoding="utf-8")).text
    assert "interp paper 3" in text and "interp run token-substitution" in text
    assert "from experiments import TokenSubstitution" in text


def test_every_figure_of_the_paper_has_an_entry() -> None:
    covered = [number for entry in paper.manifest() for number in entry.covers]
    assert len(covered) == len(set(covered))
    assert {*map(str, range(1, 22)), "table-1"} <= set(covered)
    keys = [entry.key for entry in paper.manifest()]
    assert len(keys) == len(set(keys))
    assert all(entry.claim and entry.threshold and entry.margin > 0 for entry in paper.manifest())


@pytest.mark.parametrize("entry", paper.manifest(), ids=lambda entry: entry.key)
def test_an_entry_draws_and_decides_what_its_experiment_declares(entry: paper.Entry) -> None:
    experiment = registry.load("experiments", entry.experiment)
    assert set(entry.figures) == set(experiment.figures) <= set(CAPTIONS)
    plan = experiment.declaration
    points = 100 * plan.margin if plan.margin_unit.startswith("share of") else plan.margin
    assert f"{points:g}" in entry.threshold or f"{plan.margin:g}" in entry.threshold
    for number in re.findall(r"\d+\.\d+", plan.margin_unit):
        assert number in entry.threshold, "a second margin is not told"
    assert entry.work is not None
    assert bool(entry.covers) == (entry.kept != "ours")


def test_a_number_finds_the_entry_that_covers_it() -> None:
    assert paper.entry("19") is paper.entry("3") and paper.entry("Fig-16").key == "4"
    assert paper.entry("Table-1").experiment == "transfer"
    assert paper.entry("12").label == "Figure 12 (number inferred)"
    with pytest.raises(UserError, match="no such figure"):
        paper.entry("22")


def test_an_entry_without_its_experiment_is_one_line() -> None:
    line = paper.not_available(paper.entry("13"))
    assert line == (
        "Figure 13, Composition of vectors: not available in this version (experiment composition is not installed)"
    )


def test_an_interval_without_ends_is_written_as_one() -> None:
    equal = as_json(verdict(bootstrap([0.5] * 9), control_range([0.25] * 4), 0.1))
    assert (
        interval(equal["estimate"])
        == "0.5 [\u2212\u221e, \u221e]"
        == interval({"estimate": 0.5} | dict.fromkeys(("low", "high")))
    )
    assert "controls 0.25 [\u2212\u221e, \u221e]" in sentence(equal)
    assert interval({"estimate": 0.5, "low": 0.25, "high": None, "n": 8}) == "0.5 [0.25, \u221e]"
    assert interval({"estimate": 0.5}) == "0.5"
    meta = {"n": 9, "seed": 0, "verdicts": [equal]}
    assert "(0.5 [-infinity, infinity])" in methods(meta) and "?" not in methods(meta)


def test_a_caption_says_where_an_interval_has_no_end() -> None:
    frame = pd.DataFrame(
        {"value": [0.5, 0.25], "value_low": [0.1, -np.inf], "value_high": [0.75, np.inf], "below": "x"}
    )
    assert "has no end" in caption("magnitude", Made(META, frame))
    assert "has no end" not in caption("magnitude", Made(META, frame.head(1)))
    assert numbers(frame, "value_low")[1] != numbers(frame, "value_low")[1]
    assert numbers(frame, "value_low", drawn=False) == [0.1, -np.inf]
