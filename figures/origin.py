"""Where an experiment comes from, as its run tells: a figure of the paper, this project, a plugin or a file."""

from __future__ import annotations

from figures.paper import manifest
from figures.record import Record

PROJECT = "small-vectors"
_PACKAGES = ("experiments", "vectors", "sae", "interp")


def origin_of(run: Record) -> str:
    """Return what heads a run in a report: "Figures 5, 6, 20, 21", "This project", "Plugin x" or "File mine.py"."""
    maker = str(run.meta.get("offered_by") or _maker_of(str(run.meta.get("target") or "")))
    if maker != PROJECT:
        return maker[:1].upper() + maker[1:]
    entries = [entry for entry in manifest() if entry.experiment == run.meta.get("experiment")]
    return entries[0].label if entries else "This project"


def _maker_of(target: str) -> str:
    """Return the maker as far as `module:Name` tells it, for runs that do not say it."""
    module = target.partition(":")[0] if ".py:" not in target else target.rpartition(":")[0]
    if module.endswith(".py"):
        return f"file {module.rpartition('/')[2]}"
    top = module.partition(".")[0]
    if top in _PACKAGES:
        return PROJECT
    return "notebook" if top in ("", "__main__") else f"package {top}"
