r"""The boxes of a completion: `\boxed{}` and `\fbox{}`."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from interp.equality import MAX_BOX

TRIES = 16
"""Openings of a box that are looked at, from the last: a completion may repeat one forever."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def boxes(text: str) -> Iterator[str | None]:
    r"""Contents of the closed `\boxed{}` and `\fbox{}` from the last to the first; None for one beyond `MAX_BOX`.

    A box that never closes (a cut completion) is passed over. Escaped braces do not count. Only the last `TRIES`
    openings are looked at.
    """
    for content, _ in closed_boxes(text):
        yield content


def closed_boxes(text: str) -> Iterator[tuple[str | None, int]]:
    """Content of each closed box and where it ends."""
    for match in reversed(deque(_BOX.finditer(text), TRIES)):
        depth, index = 1, match.end()
        stop = min(len(text), index + MAX_BOX + 1)
        while index < stop and depth:
            step = 2 if text[index] == "\\" else 1
            depth += (text[index] == "{") - (text[index] == "}")
            index += step
        if not depth:
            yield text[match.end() : index - 1], index
        elif text.find("}", stop) >= 0:
            yield None, stop


def last_box(text: str) -> tuple[bool, str | None]:
    """Whether there is a closed box, and what the last one holds (None where it is too long to be read)."""
    for content in boxes(text):
        return True, None if content is None else content.strip()
    return False, None
