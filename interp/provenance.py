"""Where numbers come from: versions, platform, revision. No paths, no host or user names."""

from __future__ import annotations

import importlib.metadata as metadata
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interp.digest import digest
from interp.errors import UserError
from interp.given import portable
from interp.identity import UNSAVED, kept_identity
from interp.origin import module_file
from interp.registry import IN_FILE, rows
from interp.source_files import PROJECT, is_project, library, sources

LIBRARIES = (
    "small-vectors",
    "torch",
    "transformer-lens",
    "transformers",
    "sae-lens",
    "safetensors",
    "tokenizers",
    "numpy",
    "scipy",
    "pandas",
    "plotly",
    "math-verify",
)
"""Distributions whose version may explain a difference between two runs."""


def versions() -> dict[str, str]:
    """Installed versions of the libraries that matter, and of Python; imports none of them."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Platform and, where torch is in memory already, its device and threads."""
    found: dict[str, Any] = {"platform": platform.system(), "machine": platform.machine()}
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return found


def git_revision(folder: Path | None = None) -> dict[str, Any] | None:
    """Revision of the checkout that holds this code, and whether files differ from it; None outside a checkout."""
    top = (folder or Path(__file__).parent).resolve()
    revision = _git(top, "rev-parse", "HEAD")
    if revision is None or _git(top, "ls-files", "--error-unmatch", ".") is None:
        return None  # site-packages inside somebody else's repository is no checkout of ours
    return {"revision": revision, "changed": bool(_git(top, "status", "--porcelain", "--untracked-files=no"))}


def now() -> str:
    """This moment in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def class_source(cls: type) -> str:
    """Digest of what a class does; begins with `unsaved-` where that cannot be told, and is another one each time then.

    Of a class of this project, its module and the modules of its package that this one imports. Of a user's class, see
    `interp.identity`, and the modules of the classes of this project that it extends. Formatting counts: telling a
    comment from code is not worth a wrong recall.
    """
    parts = [file_source(file, module) for module in _project_modules(cls) if (file := module_file(module)) is not None]
    if is_project(cls):
        return parts[0]
    known = kept_identity(cls, cls.__qualname__, strict=False)
    return known if known.startswith(UNSAVED) or not parts else digest(known, parts)


def _project_modules(cls: type) -> list[str]:
    """Modules above the base package in which a class and the classes that it extends are defined."""
    homes = dict.fromkeys(base.__module__ for base in cls.__mro__ if is_project(base))
    return [module for module in homes if is_project(cls) or not module.startswith("interp.")]


def files_of(module: str) -> str:
    """Digest of the source files behind a module, without importing it; empty where they cannot be told."""
    file = module_file(module)
    if (library(module) or "").startswith(PROJECT):
        return "" if file is None else file_source(file, module)
    try:
        return digest(sorted(sources(module)))
    except UserError:
        return ""


def class_target(cls: type) -> str:
    """Where a class is found again: `module:Name`, or `path/to/file.py:Name` for one that was loaded from a file."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if cls.__module__.startswith(IN_FILE) and file:
        return f"{portable(str(file))}:{cls.__qualname__}"
    return f"{cls.__module__}:{cls.__qualname__}"


def maker_of(cls: type) -> str:
    """Who offers an experiment: small-vectors, "plugin NAME", "file NAME", "package NAME" or "notebook"."""
    target = class_target(cls)
    if is_project(cls):
        return PROJECT
    if cls.__module__.startswith(IN_FILE):
        return f"file {target.rpartition(':')[0].rpartition('/')[2]}"
    offers = [row.distribution for row in rows("experiments") if row.target == target]
    top = cls.__module__.partition(".")[0]
    return f"plugin {offers[0]}" if offers else "notebook" if top == "__main__" else f"package {top}"


def file_source(file: Path, module: str = "") -> str:
    """Digest of a source file and of the modules of its package that it imports, directly or not.

    Args:
        file: the file.
        module: its dotted name; without a dot it belongs to no package.
    """
    package, _, rest = module.partition(".")
    root = file.resolve().parents[rest.count(".")] if rest else file.parent
    found: dict[str, str] = {}
    waiting = [file.resolve()]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix() if rest else path.name
        if name not in found:
            found[name] = path.read_text(encoding="utf-8")
            waiting += _imported(found[name], package, root) if rest else []
    return digest(found)


def _imported(source: str, package: str, root: Path) -> list[Path]:
    """Files of a package that a module of it imports by absolute name."""
    import ast

    named: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            named += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
    inside = [name.split(".")[1:] for name in named if name.startswith(f"{package}.")]
    files = [root.joinpath(*parts).with_suffix(".py") for parts in inside]
    return [file for file in files if file.is_file()]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
