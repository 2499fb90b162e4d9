"""Which source files stand behind a module: those of its author in full, installed libraries by their version.

Modules are resolved without importing them. A file counts as its author's where it lies outside the standard library
and outside site-packages, or belongs to a distribution that is a plugin of this project.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata as metadata
import platform
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from interp.errors import UserError
from interp.origin import module_file

PROJECT = "small-vectors"
PACKAGES = ("interp", "vectors", "sae", "experiments", "figures")
"""Packages of this project: identified by its version, like any library."""
LOADED_TEXT = "__interp_text__"
"""Attribute of a module that was loaded from a bare file: the text that was run."""

_INSTALLED = ("site-packages", "dist-packages")
_STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_CHECKOUT = Path(__file__).resolve().parents[1]


def library(module: str) -> str | None:
    """Return the name and version of what ships a module; None for a module of the user or of a plugin."""
    top, file = module.partition(".")[0], file_of(module)
    if top == "__main__":
        return None
    if top in sys.stdlib_module_names and (file is None or _is_standard(file)):
        return f"python {platform.python_version()}"
    if top in PACKAGES and file is not None and file.resolve().is_relative_to(_CHECKOUT):
        return f"{PROJECT} {_version(PROJECT)}"
    if file is None or not _is_installed(file):
        return None
    distribution = _distribution(top)
    return None if _normal(distribution) in _plugins(tuple(sys.path)) else f"{distribution} {_version(distribution)}"


def file_of(module: str) -> Path | None:
    """Return the file of a module, loaded or not; None where there is none, as in a notebook."""
    loaded = sys.modules.get(module)
    if loaded is None:
        try:
            return module_file(module)
        except (ImportError, AttributeError, ValueError, OSError):
            return None
    file = getattr(loaded, "__file__", None)
    return Path(file) if isinstance(file, str) and Path(file).is_file() else None


def sources(module: str) -> set[str]:
    """Return what a module is made of, itself and all that it imports, directly or not.

    Returns:
        Names of the user's modules with the digests of their texts, and libraries with their versions. Empty for a
        notebook.

    Raises:
        UserError: a file changed after it was imported, so that it no longer tells what runs.
    """
    result: set[str] = set()
    waiting, seen = [module], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        version = library(name)
        if version is not None:
            result.add(version)
            continue
        text = _text(name)
        if text is not None:
            result.add(f"{_label(name)} {hashlib.sha256(text).hexdigest()}")
            waiting += _modules_in(text, name)
    return result


def sources_of_file(file: Path) -> set[str]:
    """Return what a file is made of that belongs to no package, as `sources` does, without running it."""
    text = file.read_bytes()
    parts = [sources(name) for name in _modules_in(text, "")]
    return {f"{file.name} {hashlib.sha256(text).hexdigest()}"}.union(*parts)


@lru_cache(maxsize=1024)
def is_project(kind: type) -> bool:
    """Tell whether a class belongs to this project."""
    return (library(kind.__module__) or "").partition(" ")[0] == PROJECT


def _text(module: str) -> bytes | None:
    loaded = sys.modules.get(module)
    kept = getattr(loaded, LOADED_TEXT, None)
    if isinstance(kept, bytes):
        return kept
    file = file_of(module)
    if file is None or not file.is_file():
        return None
    text = file.read_bytes()
    # an import hook (pytest, beartype) changes what it loads, so its code does not tell whether the file changed
    if loaded is not None and type(getattr(loaded, "__loader__", None)) is SourceFileLoader:
        _check_unchanged(loaded, text, file)
    return text


_SEEN: dict[str, tuple[object, bytes]] = {}
"""Import and text of each module of the user when it was first looked at."""


def _check_unchanged(module: ModuleType, text: bytes, file: Path) -> None:
    """Compare the file with what it was when it was first seen, and its functions with those in memory."""
    seen = _SEEN.setdefault(module.__name__, (module.__spec__, text))
    if seen[0] is not module.__spec__:  # it was imported again
        seen = _SEEN[module.__name__] = (module.__spec__, text)
    try:
        compiled = compile(text, str(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        compiled = None
    known = set(() if compiled is None else _codes(compiled))
    if seen[1] != text or any(function.__code__ not in known for function in _functions(module, str(file))):
        works = "start Python again, so that it runs what the file says"
        raise UserError(f"{file.name} changed after it was imported", works=works)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _functions(module: ModuleType, file: str) -> Iterator[FunctionType]:
    """Functions and methods that a module defines in its file."""
    for value in list(vars(module).values()):
        members = vars(value).values() if isinstance(value, type) and value.__module__ == module.__name__ else (value,)
        for member in members:
            function: Any = getattr(member, "__func__", member)
            if isinstance(function, FunctionType) and function.__code__.co_filename == file:
                yield function


def _label(module: str) -> str:
    """Name a module without the folders of this machine."""
    file = file_of(module)
    bare = module == "__main__" or hasattr(sys.modules.get(module), LOADED_TEXT)
    return file.name if bare and file is not None else module


def _modules_in(text: bytes, module: str) -> list[str]:
    """Return the modules that a text imports, and the packages around them."""
    try:
        names = _imports(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    file = file_of(module)
    inside = file is not None and file.name == "__init__.py"
    package = module if inside else module.rpartition(".")[0]
    wanted = [package] if package else []
    for level, name in names:
        above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
        full = ".".join([*above, name] if name else above)
        wanted += [".".join(full.split(".")[: count + 1]) for count in range(full.count(".") + 1)]
    return [name for name in dict.fromkeys(wanted) if name and _exists(name)]


@lru_cache(maxsize=1024)
def _imports(text: bytes) -> tuple[tuple[int, str], ...]:
    """Return level and dotted name of each import; of `from a import b` both a and a.b."""
    result: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            result += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            result.append((node.level, start))
            result += [(node.level, f"{start}.{alias.name}".strip(".")) for alias in node.names if alias.name != "*"]
    return tuple(dict.fromkeys(result))


def _exists(module: str) -> bool:
    """Tell whether a dotted name is a module and not a name inside one."""
    top = module.partition(".")[0]
    if module in sys.modules or top in sys.stdlib_module_names:
        return module in sys.modules or module == top
    return file_of(module) is not None


def _is_standard(file: Path) -> bool:
    """Tell a file of the standard library from a file of the user that hides it."""
    return any(file.resolve().is_relative_to(folder) for folder in _STANDARD)


def _is_installed(file: Path) -> bool:
    return any(part in _INSTALLED for part in file.resolve().parts)


@lru_cache(maxsize=256)
def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(distribution), "__version__", "unknown"))


@lru_cache(maxsize=256)
def _distribution(top: str) -> str:
    """Return the distribution that installs a top-level module; the common case is that they share a name."""
    try:
        return str(metadata.distribution(top).name)
    except (metadata.PackageNotFoundError, ValueError):
        return next(iter(_by_top().get(top, ())), top)


@lru_cache(maxsize=1)
def _by_top() -> dict[str, list[str]]:
    return {top: sorted(names) for top, names in metadata.packages_distributions().items()}


@lru_cache(maxsize=4)
def _plugins(search_path: tuple[str, ...]) -> frozenset[str]:  # noqa: ARG001  the key
    """Return the installed distributions that add something to this project: their files count as the user's."""
    known = metadata.entry_points()
    entries = [entry for group in known.groups if group.startswith("interp.") for entry in known.select(group=group)]
    return frozenset(_normal(entry.dist.name) for entry in entries if entry.dist is not None)


def _normal(distribution: str) -> str:
    return distribution.lower().replace("_", "-")
