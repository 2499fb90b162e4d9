"""A bound on the work of a library that has none, which also holds off the main thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import repeat


class TooManyCalls(BaseException):
    """Raised inside the bounded function; no `except Exception` of a library stops it."""


def _stop() -> None:
    raise TooManyCalls


def within(calls: int, function: Callable[[], bool]) -> bool:
    """Return the function's result, or False where it makes more than `calls` Python calls.

    Calls are counted instead of seconds, so that a result does not depend on how busy the machine is. A single call
    into compiled code counts once, however long it takes: refuse huge powers before.

    Args:
        calls: the most Python calls; about a million take a second.
        function: what is called.
    """
    budget = repeat(True, calls)
    # a lambda, since the runtime checks of the tests would wrap a function and count their own calls
    count = lambda *_: None if next(budget, False) else _stop()  # noqa: E731
    # a debugger's own tracing is put back afterwards
    before = sys.gettrace()
    sys.settrace(count)
    try:
        return function()
    except TooManyCalls:
        return False
    finally:
        sys.settrace(before)
