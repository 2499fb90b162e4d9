"""Sets as `interp train` leaves them, by path: a folder of sets, a set, one of its layers, or the run itself."""

from __future__ import annotations

import re
from pathlib import Path

from interp.errors import UserError
from vectors.catalogue import Choice, Pretrained, sets_in

_NAME = re.compile(r"(?P<name>.+?)(?:@(?P<seed>\d{1,9}))?")


def installed(path: Path, seed: int | None) -> Choice | None:
    """Return the set that a path stands for; None where it is no path of `interp train`.

    A set `S` in the folder `F` is named by `F/S[/layer][@seed]`; a folder that holds one set, and the folder of a
    training run, stand for their set.

    Args:
        path: as the user wrote it.
        seed: which training seed; must agree with the one in the path.

    Raises:
        UserError: the path leaves open which set or seed is meant, or names a layer that is not there.
    """
    try:
        return _installed(path.resolve() if path.name in ("", "..") else path, seed)
    except OSError:  # such a name cannot exist, or the system refuses it: whoever reads the path says so
        return None


def _installed(path: Path, seed: int | None) -> Choice | None:
    match = _NAME.fullmatch(path.name)
    if match is None or path.is_file() or (path / "adapter_config.json").is_file():
        return None
    named = None if match["seed"] is None else int(match["seed"])
    if named is not None and seed is not None and named != seed:
        raise UserError("the path names another seed", given=f"{path.name}, seed {seed}", works="give one of them")
    wanted, plain = (seed if named is None else named), path.with_name(match["name"])
    sets = sets_in(plain.parent, plain.name)
    if sets:
        return _choice(sets, wanted, None, plain)
    if plain.name.isdigit() and len(plain.name) < 6 and not plain.exists():
        sets = sets_in(plain.parent.parent, plain.parent.name)
        return _choice(sets, wanted, int(plain.name), plain.parent) if sets else None
    return _inside(plain, wanted) if plain.is_dir() else None


def _inside(folder: Path, seed: int | None) -> Choice | None:
    """The only set in a folder of sets or of a training run."""
    run = folder / "sets"
    folders = sorted(path for path in run.iterdir() if path.is_dir()) if (folder / "run.json").is_file() else [folder]
    sets = [found for each in folders for found in sets_in(each)]
    names = sorted({found.set for found in sets})
    if len(names) > 1:
        works = f"give {folder.name}/{names[0]} or another of {', '.join(names)}"
        raise UserError("this folder holds several sets of vectors", given=folder.name, works=works)
    return _choice(sets, seed, None, folder) if sets else None


def _choice(sets: list[Pretrained], seed: int | None, layer: int | None, path: Path) -> Choice:
    seeds = [found.seed for found in sets]
    if seed is None and len(seeds) > 1:
        shown = ", ".join(map(str, seeds))
        raise UserError("this set has several seeds", given=f"{path.name}: {shown}", works="add @SEED, or seed=")
    chosen = next((found for found in sets if seed in (None, found.seed)), None)
    if chosen is None:
        raise UserError("no such seed", given=seed, works=f"there are {', '.join(map(str, seeds))}")
    layers = [index for index, _ in chosen.files]
    if layer is not None and chosen.apart and layer not in layers:
        raise UserError("no vector at this layer", given=layer, works=f"layers {', '.join(map(str, layers))}")
    return Choice(chosen, layer)
