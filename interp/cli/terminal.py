"""The standard streams of a command: characters that a terminal lacks, readers that have gone, disks that are full."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

PIPE_CLOSED = 141
"""What a shell reports of a program whose reader has gone: 128 + SIGPIPE."""

_HANDLER = "interp-escapes"


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of a file name as they came; any other character that the encoding lacks as an escape."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


@contextmanager
def tolerant_streams() -> Generator[None]:
    """Have the standard streams write escapes for what their encoding lacks, instead of failing."""
    codecs.register_error(_HANDLER, _escape)
    before = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    for stream, _ in before:
        _set(stream, _HANDLER)
    try:
        yield
    finally:
        for stream, errors in before:
            _set(stream, errors or "strict")


def _set(stream: Any, errors: str) -> None:
    with suppress(OSError, ValueError):  # a closed stream, or one whose reader has gone
        stream.reconfigure(errors=errors)


def flush() -> None:
    """Write out what is waiting, so that a failure shows while it can still be told.

    Raises:
        OSError: the stream's disk is full, or its reader has gone.
    """
    if sys.stdout is not None and not sys.stdout.closed:  # pyright: ignore[reportUnnecessaryComparison] - `>&-`
        sys.stdout.flush()


def silence() -> None:
    """Point the standard output at nothing, so that Python's own flush at the end fails no second time."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
