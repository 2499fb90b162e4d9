"""Downloads from the Hugging Face hub, checked against their digests before they are used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.errors import UserError
from interp.files import read_json, write_json

_CHECKED = ".small-vectors-checked.json"
"""In the repository's folder of the cache: the blobs that were checked, with size and time of change."""


MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""Config, tokenizer and weights."""


def hub_folder(name: str, *, files: Sequence[str] = MODEL_FILES, revision: str | None = None) -> Path:
    """Download files of a repository into the hub's own cache.

    Args:
        name: `user/name`.
        files: patterns of the files to take.
        revision: branch, tag or commit; `main` if None.

    Raises:
        UserError: no such repository, no access, no connection, or a file is not what the hub says it is.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(files), revision=revision))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        works = "check the name, the connection and (for private and gated ones) the hub token, or give a local folder"
        raise UserError(f"the hub did not give this repository: {reason}", given=name, works=works) from error
    check_snapshot(folder)
    return folder


def check_snapshot(folder: Path) -> None:
    """Hold each file of a snapshot against the digest that names its blob; once, as long as it does not change.

    A file that is no link into the blobs (a file system without links) has no digest beside it and is left alone.

    Raises:
        UserError: a file has other contents than the hub has.
    """
    memory = folder.parent.parent / _CHECKED
    known: dict[str, Any] = read_json(memory) if memory.is_file() else {}
    found: dict[str, Any] = {}
    for link in sorted(path for path in folder.rglob("*") if path.is_symlink()):
        digest, stat = link.readlink().name, link.stat()
        found[digest] = [stat.st_size, stat.st_mtime_ns]
        if known.get(digest) != found[digest] and not _is(link, digest):
            works = f"remove {link.name} and what it links to, then download again"
            raise UserError("this download is not what the hub has", given=link.name, works=works)
    if not found.items() <= known.items():
        write_json(memory, {**known, **found})


def _is(file: Path, digest: str) -> bool:
    """Whether a file has the SHA-256 of large files, or git's SHA-1 of small ones."""
    if re.fullmatch("[0-9a-f]{64}", digest):
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == digest
    if re.fullmatch("[0-9a-f]{40}", digest):
        content = file.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == digest
    return False


def check_digest(file: Path, expected: str) -> None:
    """Refuse a file whose SHA-256 is another one."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise UserError(
            f"the SHA-256 of {file.name} is not the expected one",
            given=found,
            works=f"expected {expected}; remove the file and download it again",
        )
