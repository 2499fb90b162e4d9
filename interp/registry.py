"""What is installed: models, vectors, tasks, experiments, figures ... found by entry point, loaded when asked for.

Entry points are the only way in which this package knows of the packages above it, the built-in ones included.
Looking at names imports nothing; `load` imports the one module it needs.
"""

from __future__ import annotations

import difflib
import importlib.metadata as metadata
import importlib.util
import re
import sys
import warnings
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from interp.errors import UserError
from interp.files import exists
from interp.origin import module_file, problem_of
from interp.source_files import LOADED_TEXT, PROJECT

GROUPS = (
    "commands",
    "models",
    "vectors",
    "saes",
    "tasks",
    "formats",
    "patches",
    "readouts",
    "experiments",
    "figures",
    "reports",
)
"""Groups of entry points, each written `interp.<group>` in a distribution's metadata."""

IN_FILE = "_interp_file_"
"""Begins the names of modules that were loaded from a bare file."""
_FILE_NAME = re.compile(r"(?P<path>.+\.py):(?P<name>\w+)")


@dataclass(frozen=True)
class Row:
    """One entry point.

    Attributes:
        group: group without the `interp.` prefix.
        name: name without its distribution.
        distribution: the distribution that offers it.
        target: `module:attribute`.
        status: "ok", or why it cannot be loaded.
    """

    group: str
    name: str
    distribution: str
    target: str
    status: str

    @property
    def ok(self) -> bool:
        """True where nothing speaks against loading it."""
        return self.status == "ok"


def names(group: str) -> list[str]:
    """Names of a group, sorted; `distribution/name` where two distributions offer the same one."""
    entries = _entries(group)
    offered = Counter(entry.name for entry in entries)
    return sorted(entry.name if offered[entry.name] == 1 else _qualified(entry) for entry in entries)


def offers(group: str, name: str) -> bool:
    """Whether something installed has this name, written with its distribution or without."""
    return any(name in (entry.name, _qualified(entry)) for entry in _entries(group))


def is_name(group: str, name: str) -> bool:
    """Whether `load` takes it: something installed has this name, or it is `path/to/file.py:Name`."""
    return bool(_FILE_NAME.fullmatch(name)) or offers(group, name)


def rows(group: str | None = None) -> list[Row]:
    """Every entry of a group (of all groups if None), with what is wrong with it; imports none of them."""
    groups = GROUPS if group is None else (_short(group),)
    return [
        Row(one, entry.name, _distribution(entry), entry.value, problem_of(entry) or "ok")
        for one in groups
        for entry in sorted(_entries(one), key=lambda entry: (entry.name, _distribution(entry)))
    ]


def load(group: str, name: str) -> Any:
    """The object behind a name of a group, or behind `path/to/file.py:Name`.

    Raises:
        UserError: there is no such name, two distributions offer it, a file shadows its module, or it cannot load.
    """
    in_file = file_and_name(name)
    if in_file is not None:
        _note(group, name)
        return load_file(*in_file)
    entry = find(group, name)
    if _distribution(entry) != PROJECT:
        _note(group, name)
    return _import(entry)


def file_and_name(name: str) -> tuple[Path, str] | None:
    """The two parts of `path/to/file.py:Name`; None for any other name."""
    in_file = _FILE_NAME.fullmatch(name)
    return (Path(in_file["path"]).expanduser(), in_file["name"]) if in_file else None


_watchers: list[set[tuple[str, str]]] = []


@contextmanager
def watching() -> Generator[set[tuple[str, str]]]:
    """Collect group and name of what is loaded meanwhile and does not come with this project."""
    seen: set[tuple[str, str]] = set()
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.pop()  # by place: two of them may be equal


def _note(group: str, name: str) -> None:
    for seen in _watchers:
        seen.add((_short(group), name))


def load_all(group: str) -> dict[str, Any]:
    """Every object of a group by name; an entry that cannot load is one warning."""
    found: dict[str, Any] = {}
    for name in names(group):
        try:
            found[name] = load(group, name)
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def find(group: str, name: str) -> metadata.EntryPoint:
    """The entry point of a name, not yet loaded.

    Raises:
        UserError: there is no such name, or two distributions offer it.
    """
    entries = _entries(group)
    # a distribution's name costs a parse of its metadata, so it is asked for where a name may hold one only
    hits = [entry for entry in entries if name == entry.name or ("/" in name and name == _qualified(entry))]
    if len(hits) == 1:
        return hits[0]
    kind = _short(group).removesuffix("s")
    if hits:
        both = " or ".join(sorted(_qualified(entry) for entry in hits))
        raise UserError(f"two distributions offer this {kind}", given=name, works=f"use {both}")
    raise unknown(kind, name, names(group))


def unknown(kind: str, name: str, known: list[str]) -> UserError:
    """The error for a name that is not among the known ones: the closest names first, then all of them."""
    if not known:
        return UserError(f"no such {kind}", given=name, works=f"no {kind} is installed; use path/to/file.py:Name")
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return UserError(f"no such {kind}", given=name, works=f"{hint}known: {', '.join(known)}")


def load_file(path: Path, name: str) -> Any:
    """An object of a Python file that belongs to no package.

    Raises:
        UserError: there is no such file, it fails when run, or it defines no such name.
    """
    if not exists(path) or not path.is_file():
        raise UserError("no such file", given=path, works="give path/to/file.py:Name")
    module = _module_of(path)
    if not hasattr(module, name):
        public = [one for one in vars(module) if not one.startswith("_")]
        raise unknown(f"name in {path.name}", name, public)
    return getattr(module, name)


def _module_of(path: Path) -> ModuleType:
    """The module of a file as it is now: a file that was edited since it was last asked for is run again."""
    text = path.read_bytes()
    about = sha256(str(path.resolve()).encode() + b"\0" + text).hexdigest()[:8]
    module_name = f"{IN_FILE}{path.stem}_{about}"
    if module_name not in sys.modules:
        _run_file(path, text, module_name)
    return sys.modules[module_name]


def _run_file(path: Path, text: bytes, module_name: str) -> None:
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None  # a path that ends in .py always has a loader
    module = importlib.util.module_from_spec(spec)
    vars(module)[LOADED_TEXT] = text
    sys.modules[module_name] = module  # annotations of classes in the file are looked up there
    try:
        # not by the loader, whose bytecode may be of a file of the same size that was written in the same second
        exec(compile(text, str(spec.origin), "exec", dont_inherit=True), vars(module))
    except UserError:
        del sys.modules[module_name]
        raise
    except Exception as error:
        del sys.modules[module_name]
        raise UserError(f"{path} fails when run: {type(error).__name__}: {error}") from error


def _import(entry: metadata.EntryPoint) -> Any:
    problem = problem_of(entry)
    offer = f"{_distribution(entry)}'s {entry.group.removeprefix('interp.').removesuffix('s')} {entry.name}"
    if problem:
        raise UserError(f"{offer} cannot be loaded: {problem}", works=_remedy(problem, entry))
    try:
        return entry.load()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{offer} cannot be loaded: {type(error).__name__}: {error}", given=entry.value) from error


def _remedy(problem: str, entry: metadata.EntryPoint) -> str:
    if problem.startswith("shadowed"):
        return f"rename {module_file(entry.module.partition('.')[0]) or 'it'} or work in another folder"
    return f"reinstall {_distribution(entry)}"


def _short(group: str) -> str:
    short = group.removeprefix("interp.")
    if short not in GROUPS:
        raise unknown("group", group, list(GROUPS))
    return short


def _entries(group: str) -> tuple[metadata.EntryPoint, ...]:
    return _all_entries(tuple(sys.path)).get(f"interp.{_short(group)}", ())


@lru_cache(maxsize=4)
def _all_entries(search_path: tuple[str, ...]) -> dict[str, tuple[metadata.EntryPoint, ...]]:  # noqa: ARG001  the key
    found = metadata.entry_points()
    return {group: tuple(found.select(group=group)) for group in found.groups if group.startswith("interp.")}


def _distribution(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown"


def _qualified(entry: metadata.EntryPoint) -> str:
    return f"{_distribution(entry)}/{entry.name}"
