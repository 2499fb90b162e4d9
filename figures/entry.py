"""What an entry of the manifest says about one figure or table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from figures import published as p
from interp import registry
from interp.costs import Formula

_NO_SETTINGS: Mapping[str, object] = MappingProxyType({})

FATE = {
    "yes": "The abstract of the last version (v4) still makes this claim.",
    "in part": "The abstract of the last version (v4) makes part of this claim.",
    "no": "The abstract of the last version (v4) no longer makes this claim; that of v3 does.",
    "unknown": "No abstract says it, so whether the last version (v4) kept the figure is not known here.",
    "ours": "Not in the paper.",
}
"""What is known of a claim's fate, by `Entry.kept`."""


@dataclass(frozen=True)
class Entry:
    """One figure or table of the paper, or one of ours.

    Args:
        key: its name on the command line, such as "3" or "table-1".
        title: in the report.
        claim: what is claimed, in plain words.
        measures: what we measure for it.
        threshold: what decides the verdict, in words with its unit.
        margin: the smallest effect of interest, in the unit that `threshold` names.
        experiment: entry point of the experiment.
        figures: entry points of the figure builders, the first one the answer.
        settings: settings that differ from the experiment's own.
        covers: numbers of the paper's figures that it stands for; empty for ours.
        inferred: True where a number is our inference and not stated by our sources.
        kept: whether the abstract of the paper's last version (v4) still claims it: "yes", "in part", "no" (that of v3
            does), "unknown" (no abstract speaks of it), "ours", or "own run" for what stands in no manifest.
        published: the paper's numbers, shown in a table beside.
        origin: where an experiment comes from that stands in no manifest, such as "Plugin my-plugin".
        work: counts what it asks of a model, from its settings; None where that is not known.
    """

    key: str
    title: str
    claim: str
    measures: str
    threshold: str
    margin: float
    experiment: str
    figures: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=lambda: _NO_SETTINGS)
    covers: tuple[str, ...] = ()
    inferred: bool = False
    kept: Literal["yes", "in part", "no", "unknown", "ours", "own run"] = "unknown"
    published: tuple[p.Published, ...] = ()
    work: Formula | None = None
    origin: str = ""

    @property
    def ready(self) -> bool:
        """True where the experiment is installed."""
        return self.experiment in registry.names("experiments")

    @property
    def label(self) -> str:
        """Return how the paper calls it, "Figures 3, 19" or "Table 1"; "This project" for what is not in the paper."""
        if self.origin or not self.covers:
            return self.origin or "This project"
        if self.covers[0].startswith("table-"):
            return f"Table {self.covers[0].removeprefix('table-')}"
        if not self.covers[0].isdigit():
            return self.covers[0]
        word = "Figure" if len(self.covers) == 1 else "Figures"
        return f"{word} {', '.join(self.covers)}" + (" (number inferred)" if self.inferred else "")

    @property
    def fate(self) -> str:
        """Return whether the paper's last version still makes the claim; empty for one's own run."""
        return FATE.get(self.kept, "")
