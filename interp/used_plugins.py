"""Which plugins a run loaded by name while it measured, so that it is computed again when one of them changes.

An experiment names readouts, patches or tasks in its settings or in its code; their code is no part of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from interp.digest import digest
from interp.errors import UserError
from interp.given import portable
from interp.identity import kept_identity
from interp.registry import file_and_name, load
from interp.source_files import sources_of_file


def identities(used: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the identity of each plugin by its group and name, as `run.json` holds them."""
    return {f"{group} {portable(name)}": _identity(group, name) for group, name in sorted(used)}


def changed(known: object) -> str | None:
    """Return the name of a plugin that is another one than a run has noted, or that is not there any more.

    Args:
        known: what the run noted. It may come from a stranger, so a file that it names is read and never run.
    """
    if not isinstance(known, Mapping):
        return None
    noted: Mapping[str, object] = known
    for about, identity in noted.items():
        group, _, name = str(about).partition(" ")
        try:
            same = _identity(group, name) == identity
        except UserError:
            same = False
        if not same:
            return name
    return None


def _identity(group: str, name: str) -> str:
    in_file = file_and_name(name)
    if in_file is not None:
        return digest(_sources(in_file[0]), in_file[1])
    return kept_identity(load(group, name), name, strict=False)


def _sources(file: Path) -> list[str]:
    if not file.is_file():
        raise UserError("no such file", given=file)
    return sorted(sources_of_file(file))
