"""What the documentation promises has a test, and what it lists is what is installed."""

from __future__ import annotations

import importlib.metadata as metadata
import re
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from interp.readouts import BUILT_IN, Choice, LogitDiff, LogOdds, Readout

GIVEN: dict[str, Readout] = {
    "(28,)": LogOdds((28,)),
    "28, 29": LogitDiff(28, 29),
    '{"yes": 28, "no": 29}': Choice({"yes": 28, "no": 29}),
}
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises(root: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each row of the tables of docs/reliability.md, with the tests that it names."""
    lines = (root / "docs" / "reliability.md").read_text("utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| promise")]
    return [(row, _TEST.findall(row)) for row in rows]


def test_each_promise_names_tests_that_exist(root: Path) -> None:
    found = promises(root)
    assert len(found) >= 20
    for row, tests in found:
        assert tests, f"no test is named: {row}"
        for file, name in tests:
            assert re.search(rf"^def {name}\(", (root / file).read_text("utf-8"), re.M), f"{file} has no {name}"


def test_the_plugin_guide_lists_each_readout_with_its_columns(root: Path) -> None:
    text = (root / "docs" / "plugins.md").read_text("utf-8")
    section = text.partition("## What a readout gives")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", section, re.M)
    listed = {name: re.findall("`([^`]+)`", columns) for name, columns in rows}
    examples = {f"{type(one).__name__}({about})": one for about, one in GIVEN.items()}
    given = {type(one) for one in GIVEN.values()}
    named = {name: kind() for name, kind in BUILT_IN.items() if kind not in given}
    found = {name: list(one.columns) for name, one in {**named, **examples}.items()}
    assert found == listed


def licence(name: str) -> str:
    """The licence that a distribution states."""
    told: Any = metadata.metadata(name)
    classes = [one.split(" :: ")[-1] for one in told.get_all("Classifier") or [] if one.startswith("License ::")]
    return told.get("License-Expression") or ", ".join(classes) or (told.get("License") or "").split("\n")[0]


def closure(name: str) -> set[str]:
    """A distribution's dependencies, theirs included, as they are installed here."""
    found: set[str] = set()
    waiting = [Requirement(one) for one in metadata.requires(name) or ()]
    while waiting:
        one = waiting.pop()
        known = re.sub(r"[-_.]+", "-", one.name).lower()
        if known in found or not (one.marker is None or one.marker.evaluate({"extra": ""})):
            continue
        found.add(known)
        waiting += map(Requirement, metadata.requires(one.name) or ())
    return found


def test_the_licence_of_every_dependency_is_listed(root: Path) -> None:
    listed = dict(re.findall(r"^\| ([\w-]+) \| (.+) \|$", (root / "docs" / "licences.md").read_text("utf-8"), re.M))
    installed = closure("small-vectors")
    of_cuda = {name for name in installed if name.startswith(("nvidia", "cuda", "triton"))}  # torch's builds differ
    wanted = {name: licence(name) for name in sorted(installed - of_cuda)}
    assert len(wanted) > 50
    assert {name: listed.get(name) for name in wanted} == wanted
