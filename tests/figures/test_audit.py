"""The steering-vector card."""

from __future__ import annotations

from pathlib import Path

from figures.audit import KEYS, card, entries, write_audit
from figures.paper import manifest

ABOUT = {
    "name": "<b>theirs</b>",
    "model": "toy",
    "fit": "origin unknown",
    "kind": "vector",
    "norms": {3: 1.25, 7: 10.0},
    "digest": "0123456789abcdef",
    "card": {
        "base_model": "toy",
        "trained": "apart",
        "site": "resid_post",
        "trials": [{}, {}],
        "recipe": {"rate": 0.1},
    },
}


def test_entries_are_those_of_the_manifest() -> None:
    assert {entry.key for entry in entries()} <= {entry.key for entry in manifest()}
    assert [entry.key for entry in entries()] == [key for key in KEYS if key in {one.key for one in entries()}]


def test_the_card_says_what_is_known_and_escapes_it() -> None:
    made = card(ABOUT, "quick")
    assert "&lt;b&gt;theirs&lt;/b&gt; (vector), digest 0123456789abcdef" in made
    assert "3: 1.25, 7: 10" in made
    assert "2 recorded" in made
    assert "how it was made" in made and "<td>rate</td><td>0.1</td>" in made


def test_the_page_leads_with_the_card(tmp_path: Path) -> None:
    page = write_audit(entries(), {}, {"magnitude": "no answers"}, tmp_path, about=ABOUT, scale="smoke")
    text = page.read_text(encoding="utf-8")
    assert text.index("Card</th>") < text.index("<h2>Verdicts")
    assert "Could not be run: no answers" in text
    assert "<b>theirs" not in text
