"""The autoencoders that come with the package, by alias; torch-free."""

from __future__ import annotations

from pathlib import Path

PRETRAINED = Path(__file__).parent / "pretrained"


def list_pretrained(folder: Path = PRETRAINED) -> dict[str, Path]:
    """Alias (`model/set/change-20`) -> folder, sorted; reads names only."""
    found = sorted(path.parent for path in folder.glob("**/card.json"))
    return {path.relative_to(folder).as_posix(): path for path in found}


SMOLLM2_CHANGE_20 = PRETRAINED / "smollm2-135m-instruct" / "all-layer" / "change-20"
"""The change after block 20 by the all-layer set of the embedded model; an entry point that `interp list` shows."""
