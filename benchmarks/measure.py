"""Contenders do the same work in turns; the ratio of their times is taken within each round."""

from __future__ import annotations

import ctypes
import gc
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

POLL = 0.005
"""Seconds between two looks at the memory of the process."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: as the table shows it.
        work: does it, and returns what is compared.
        part: share of the work that one call does, where all of it would take too long; 1 = all.
    """

    name: str
    work: Callable[[], Any]
    part: float = 1.0


@dataclass(frozen=True)
class Line:
    """A line of the table. Ratios say how many times as long as ours, within a round.

    Attributes:
        comparison: what is done.
        setting: on what.
        name: by whom.
        seconds: median of the whole work.
        fastest: of the rounds.
        slowest: of the rounds.
        ratio: median over rounds; 1 for ours.
        ratio_low: smallest.
        ratio_high: largest.
        memory_mb: peak above what the process held before; NaN where it was not taken.
        note: what else is to be said.
    """

    comparison: str
    setting: str
    name: str
    seconds: float
    fastest: float
    slowest: float
    ratio: float
    ratio_low: float
    ratio_high: float
    memory_mb: float
    note: str = ""


class Peak:
    """Largest resident memory of the process while this is open, above what it held before."""

    def __enter__(self) -> Peak:
        gc.collect()
        _trim()
        self._process, self._open = psutil.Process(), True
        self._before = self._most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()

    def _watch(self) -> None:
        while self._open:
            self._most = max(self._most, self._process.memory_info().rss)
            time.sleep(POLL)

    @property
    def megabytes(self) -> float:
        """The peak."""
        return (self._most - self._before) / 1e6


def _trim() -> None:
    """Give freed memory back, so that the next one's use of it is seen."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another C library keeps it, and later peaks look smaller
        return


def compare(
    comparison: str,
    setting: str,
    contenders: Sequence[Contender],
    same: Callable[[Any, Any], str],
    rounds: int,
) -> list[Line]:
    """Lines of contenders, the first of which is ours.

    In the first round their values are held against ours, and their memory is taken.

    Args:
        comparison: what is done.
        setting: on what.
        contenders: ours first.
        same: (ours, theirs) -> how far they are apart, in words.
        rounds: timed ones; the contenders take turns.

    Raises:
        SystemExit: by `same`, where values differ.
    """
    peaks, notes, values, first = list[float](), list[str](), list[Any](), list[float]()
    for one in contenders:
        with Peak() as peak:
            begun = time.perf_counter()
            values.append(one.work())
            first.append((time.perf_counter() - begun) / one.part)
        peaks.append(peak.megabytes)
        notes.append("" if one is contenders[0] else same(values[0], values[-1]))
    values.clear()
    taken = [first, *([seconds(one.work) / one.part for one in contenders] for _ in range(rounds - 1))]
    return [
        line(comparison, setting, one.name, taken, index, peaks[index], notes[index])
        for index, one in enumerate(contenders)
    ]


def line(
    comparison: str, setting: str, name: str, taken: Sequence[Sequence[float]], index: int, memory: float, note: str
) -> Line:
    """The line of contender `index`, from the seconds of all of them in each round."""
    own, ratios = [one[index] for one in taken], [one[index] / one[0] for one in taken]
    median = statistics.median
    spread = (median(own), min(own), max(own), median(ratios), min(ratios), max(ratios))
    return Line(comparison, setting, name, *spread, memory, note)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call, seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def differ(what: str, found: object) -> SystemExit:
    """The end of a benchmark whose contenders do not do the same."""
    return SystemExit(f"{what} differ ({found}), so their times do not compare")
