"""The report in a real browser: nothing on the console, every figure drawn in both themes, downloads that arrive."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from figures import paper
from figures.report import write_report, write_run_report
from tests.browser import Page
from tests.figures.records import META, lens, substitution

pytestmark = pytest.mark.slow

SEEN = """(async () => {
  for (const plot of document.querySelectorAll('.plot')) {
    plot.scrollIntoView({behavior: 'instant'});
    for (let i = 0; i < 100 && !plot.querySelector('.main-svg'); i++) await new Promise(done => setTimeout(done, 100));
  }
  return [...document.querySelectorAll('.plot')].filter(plot => !plot.querySelector('.main-svg')).map(plot => plot.id);
})()"""
INK = "getComputedStyle(document.querySelector('.plot .gtitle')).fill"
BANNERS = """[...document.querySelectorAll('.plot')].filter(
  plot => plot.textContent.includes('concerns this model only')).length"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [(paper.entry("3"), [substitution()]), (paper.entry("4"), [lens()]), (paper.entry("13"), [])]
    return write_report(runs, tmp_path_factory.mktemp("report"), title="Figures")


def test_the_report_in_light_dark_and_narrow(report: Path, tmp_path: Path) -> None:
    with Page(tmp_path / "profile") as page:
        inks: dict[str, str] = {}
        for scheme, width in (("light", 1440), ("dark", 1440), ("light", 400)):
            page.size(width, 1000)
            page.scheme(scheme)
            page.open(report.as_uri())
            plots = page.run("document.querySelectorAll('.plot').length")
            assert plots >= 4
            assert page.run(SEEN) == []
            assert page.run(BANNERS) == plots
            assert page.run("document.documentElement.scrollWidth") <= width
            assert page.run("document.documentElement.dataset.theme") == scheme
            inks[scheme] = page.run(INK)
            assert page.errors() == []
            assert {url.partition(":")[0] for url in page.requests()} <= {"file", "data", "blob"}
        assert inks["light"] != inks["dark"]
        page.run("document.getElementById('theme').click()")
        assert page.run(INK) == inks["dark"]
        assert page.errors() == []


def test_its_links_lead_somewhere_and_its_downloads_arrive(report: Path, tmp_path: Path) -> None:
    with Page(tmp_path / "profile") as page:
        got = tmp_path / "got"
        got.mkdir()
        page.open(report.as_uri())
        page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(got))
        inside = page.run("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))")
        assert len(inside) == 4
        assert page.run(f"{json.dumps(inside)}.filter(id => !document.getElementById(id.slice(1)))") == []
        links = page.run("[...document.querySelectorAll('a[download]')].map(a => a.getAttribute('href'))")
        assert len(links) == 4
        for link in links:
            page.run(f"document.querySelector('a[href=\"{link}\"]').click()")
            wanted = (report.parent / link).read_bytes()
            end = time.monotonic() + 60
            while time.monotonic() < end and not _same(got / Path(link).name, wanted):
                page.run("new Promise(done => setTimeout(done, 200))")
            assert _same(got / Path(link).name, wanted), link
        assert page.errors() == []


def test_a_broken_page_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<script>console.error('a'); no.such()</script>")
    with Page(tmp_path / "profile") as page:
        page.open((tmp_path / "page.html").as_uri())
        assert len(page.errors()) == 2


def test_a_run_of_its_own_is_drawn(tmp_path: Path) -> None:
    run = substitution(meta={**META, "figures": ["token-substitution-causal"]})
    with Page(tmp_path / "profile") as page:
        page.open(write_run_report([run], tmp_path / "mine", title="Mine").as_uri())
        assert page.run(SEEN) == []
        assert page.run("document.querySelectorAll('.plot').length") == 1
        assert page.errors() == []


def _same(file: Path, content: bytes) -> bool:
    return file.is_file() and file.read_bytes() == content
