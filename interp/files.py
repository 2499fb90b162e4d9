"""Writing files so that nobody ever reads half of one."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from interp.errors import DiskError, UserError

_ELSEWHERE = "choose another folder"
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


_NETWORK = (
    errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH
)  # fmt: skip
_NOT_DISK = (errno.EINTR, errno.EPIPE, errno.ENOMEM, errno.ECHILD, *_NETWORK)
"""Errors of the system that say nothing about where something is written."""


@contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn whatever the system says against writing, such as a full disk, into one line that names the file.

    Raises:
        DiskError: the disk or the file system refuses.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        code = _code(error)
        if not code or code in _NOT_DISK:
            raise
        raise DiskError(f"cannot write {path}: {os.strerror(code).lower()}", works=_remedy(code)) from error


def _remedy(code: int) -> str:
    return _REMEDY.get(code, _ELSEWHERE)


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
        DiskError: the disk is full or cannot be written, or the path is a folder, a device or a pipe.
    """
    with disk_errors(path):
        check_target(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Raise where a file cannot be replaced: renaming over a device would remove the device.

    Raises:
        DiskError: the path is a folder, a device or a pipe.
    """
    _check_characters(path)
    with disk_errors(path):
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise DiskError(f"cannot write {path}: it is {kind}", works="give the name of a new file")


def _check_characters(path: Path) -> None:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise DiskError(f"cannot write {str(path)!a}: the file system has no such characters") from None
    if "\0" in str(path):
        raise DiskError(f"cannot write {str(path)!a}: a path holds no null character")


def check_file(path: str | Path) -> None:
    """Raise where a file for a result cannot be written; leaves nothing behind.

    Raises:
        DiskError: it is a folder, a device or a pipe, or its folder cannot be made or written.
    """
    check_target(Path(path))
    check_out(Path(path).parent)


def check_out(folder: str | Path) -> None:
    """Raise where a folder for results cannot be made or written; leaves nothing behind.

    A folder that cannot be written passes while it holds runs, because finished ones can be read from it.

    Raises:
        DiskError: a part of the path is a file, or the file system refuses.
    """
    if not isinstance(cast("object", folder), str | os.PathLike):
        raise DiskError("this is no path of a folder", given=type(folder).__name__)
    path = Path(folder)
    _check_characters(path)
    with disk_errors(path):
        if not path.exists():
            _try_folder(path)
        elif not path.is_dir():
            raise DiskError(f"cannot write {path}: it is no folder", works=_ELSEWHERE)
        elif not any(path.glob("*/*/run.json")):
            _try_folder(path / f".{os.getpid()}.probe")


def _try_folder(path: Path) -> None:
    """Make a folder and those above it, and remove them at once."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    created: list[Path] = []
    try:
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            created.append(one)
    finally:
        for one in reversed(created):
            with suppress(OSError):  # another process uses it by now
                one.rmdir()


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


def as_path(text: str | Path) -> Path:
    """Return the path that a text names, `~` resolved.

    Raises:
        UserError: it is of the home of a user who does not exist.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError("this home folder is not known", given=text, works="write the whole path") from None


def file_to_write(name: str | Path) -> Path:
    """Return the path of a file that is to be written, `~` resolved as where files are read.

    Raises:
        UserError: it is no path, or names no file.
    """
    works = "the name of a file"
    if not isinstance(cast("object", name), str | os.PathLike):
        raise UserError("this is no path", given=type(name).__name__, works=works)
    path = as_path(name)
    _check_characters(path)
    if not path.name:
        raise UserError("a file to write needs a name", given=repr(str(name)), works=works)
    return path


def exists(path: Path) -> bool:
    """Return whether a path exists; a name that no file system could hold does not."""
    try:
        return path.exists()
    except OSError:
        return False


def regular_file(path: Path) -> Path:
    """The path, if it is a regular file (a pipe or device would block or never end).

    Raises:
        UserError: it is missing or something else.
    """
    if not exists(path):
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
