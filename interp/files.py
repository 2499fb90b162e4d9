"""Writing files so that nobody ever reads half of one."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interp.errors import DiskError, UserError

_REMEDY = {
    errno.ENOSPC: "free some space or choose another folder with --out",
    errno.EDQUOT: "free some of your quota or choose another folder with --out",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) or choose another folder with --out",
    errno.EROFS: "choose a folder that can be written with --out",
    errno.EACCES: "choose a folder that can be written with --out",
    errno.EPERM: "choose a folder that can be written with --out",
    errno.ENOTDIR: "choose a folder with --out",
    errno.EEXIST: "choose a folder with --out",
}


@contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn a full or read-only disk into one line that names the file.

    Raises:
        DiskError: the disk refuses.
    """
    try:
        yield
    except Exception as error:
        code = _code(error)
        if code not in _REMEDY:
            raise
        raise DiskError(f"cannot write {path}: {os.strerror(code).lower()}", works=_REMEDY[code]) from error


def _code(error: Exception) -> int:
    """The system's number of an error; safetensors and tokenizers, in Rust, end their texts with it. 0 = none."""
    if isinstance(error, OSError):
        return error.errno or 0
    told = re.search(r"\(os error (\d+)\)$", str(error))
    return int(told[1]) if told else 0


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written under a temporary name in its folder, flush it to the disk, then rename it.

    Args:
        path: the file; its folder is made if it is missing.
        write: writes the file whose path it gets.

    Raises:
        DiskError: the disk is full or cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; a lone surrogate, which UTF-8 lacks, as the escape that JSON has for it."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON atomically; NaN and infinity are refused, as JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: there is no such file, or it is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("no such file", given=path) from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def regular_file(path: Path) -> Path:
    """The path, if it is a regular file (a pipe or device would block or never end).

    Raises:
        UserError: it is missing or something else.
    """
    if not path.exists():
        raise UserError("no such file", given=path)
    if not path.is_file():
        raise UserError("not a regular file", given=path)
    return path


def plain_sibling(folder: Path, name: object) -> Path:
    """A file that an index names, which must lie in the index's own folder.

    A link is followed only inside that folder or into the `blobs` of the same Hugging Face cache.

    Raises:
        UserError: the name has a path in it, or the link leads elsewhere.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise UserError("an index names a file outside its folder", given=name, works="shards lie beside their index")
    path = folder / name
    home = folder.resolve()
    allowed = {home, home.parent.parent / "blobs"} if home.parent.name == "snapshots" else {home}
    if path.resolve().parent not in allowed:
        raise UserError("a shard is a link out of its folder", given=name, works="copy the file there")
    return regular_file(path)
