"""The sets that come with the package, by alias; torch-free.

Files lie under `pretrained/<model>/<set>@<seed>.safetensors`, or `pretrained/<model>/<set>/<layer>@<seed>.safetensors`
for a set whose layers were trained apart, each with its JSON card beside it. A folder `<set>@<seed>` is a PEFT adapter.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from interp.errors import UserError

PRETRAINED = Path(__file__).parent / "pretrained"
_ALIAS = re.compile(r"(?P<model>[\w.+-]+)/(?P<set>[\w.+-]+)(?:/(?P<layer>\d+))?(?:@(?P<seed>\d+))?")
_FILE = re.compile(r"(?P<stem>[\w.+-]+)@(?P<seed>\d+)\.safetensors")
_ADAPTER = re.compile(r"(?P<stem>[\w.+-]+)@(?P<seed>\d+)")
ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, order=True)
class Pretrained:
    """One set with one seed.

    Attributes:
        model: alias of the model.
        set: name of the set.
        seed: training seed.
        files: layer -> file for a set trained apart; -1 -> the one file, or PEFT folder, of a set trained together.
    """

    model: str
    set: str
    seed: int
    files: tuple[tuple[int, Path], ...]

    @property
    def alias(self) -> str:
        """`model/set@seed`."""
        return f"{self.model}/{self.set}@{self.seed}"

    @property
    def apart(self) -> bool:
        """True where each layer has its own file."""
        return self.files[0][0] >= 0


@dataclass(frozen=True)
class Choice:
    """What an alias stands for: a set, and one of its layers where the alias names one."""

    found: Pretrained
    layer: int | None


def list_pretrained(folder: Path = PRETRAINED) -> list[Pretrained]:
    """The sets under a folder, sorted by model, set and seed; reads names only."""
    files: dict[tuple[str, str, int], list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob("*/**/*.safetensors")):
        match = _FILE.fullmatch(path.name)
        parts = path.relative_to(folder).parts
        if match is None or len(parts) not in (2, 3):
            continue
        single = len(parts) == 3
        if single and not match["stem"].isdigit():
            continue
        key = parts[0], parts[1] if single else match["stem"], int(match["seed"])
        files.setdefault(key, []).append((int(match["stem"]) if single else -1, path))
    for config in folder.glob(f"*/*/{ADAPTER_CONFIG}"):
        if match := _ADAPTER.fullmatch(config.parent.name):
            files[config.parts[-3], match["stem"], int(match["seed"])] = [(-1, config.parent)]
    return sorted(Pretrained(*key, tuple(sorted(found))) for key, found in files.items())


def sets_in(folder: Path, name: str | None = None) -> list[Pretrained]:
    """The sets in the folder of one model, sorted by name and seed; reads names only.

    Args:
        folder: holds `<set>@<seed>.safetensors`, `<set>/<layer>@<seed>.safetensors` or adapters `<set>@<seed>/`.
        name: of the only set to look for.
    """
    files: dict[tuple[str, int], list[tuple[int, Path]]] = {}
    sets, layers = ("*", "*/*") if name is None else (f"{escape(name)}@*", f"{escape(name)}/*")
    for path in sorted((*folder.glob(f"{sets}.safetensors"), *folder.glob(f"{layers}.safetensors"))):
        match = _FILE.fullmatch(path.name)
        single = path.parent != folder
        if match is not None and (match["stem"].isdigit() or not single):
            key = path.parent.name if single else match["stem"], int(match["seed"])
            files.setdefault(key, []).append((int(match["stem"]) if single else -1, path))
    for config in folder.glob(f"{sets}/{ADAPTER_CONFIG}"):
        if match := _ADAPTER.fullmatch(config.parent.name):
            files[match["stem"], int(match["seed"])] = [(-1, config.parent)]
    return sorted(Pretrained(folder.name, *key, tuple(sorted(found))) for key, found in files.items())


def find(alias: str, folder: Path = PRETRAINED) -> Choice:
    """Resolve `model/set[/layer][@seed]`; without a seed, the lowest one.

    Raises:
        UserError: there is no such set, seed or layer.
    """
    sets = list_pretrained(folder)
    match = _ALIAS.fullmatch(alias)
    here = [one for one in sets if match and (one.model, one.set) == (match["model"], match["set"])]
    if match is None or not here:
        raise UserError("no such vectors", given=alias, works=_suggest(alias, sets))
    seed = here[0].seed if match["seed"] is None else int(match["seed"])
    chosen = next((one for one in here if one.seed == seed), None)
    if chosen is None:
        raise UserError("no such seed", given=alias, works=f"there are {', '.join(f'@{one.seed}' for one in here)}")
    layer = None if match["layer"] is None else int(match["layer"])
    layers = [index for index, _ in chosen.files]
    if layer is not None and chosen.apart and layer not in layers:
        raise UserError("no vector at this layer", given=alias, works=f"layers {', '.join(map(str, layers))}")
    return Choice(chosen, layer)


def _suggest(alias: str, sets: list[Pretrained]) -> str:
    names = sorted({f"{one.model}/{one.set}" for one in sets})
    if not names:
        return "no vectors come with this installation; give a file or folder"
    close = difflib.get_close_matches(alias.split("@")[0], names, n=3, cutoff=0.4)
    start = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{start}There are {', '.join(names)}; or give a file or folder"
