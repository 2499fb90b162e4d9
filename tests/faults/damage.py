"""Ways to damage a file: cut, flipped, with huge numbers, or with another value in its JSON."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

KINDS = ("cut", "flip", "huge", "drop", "repeat", "zeros", "json")
NEAR = 600
"""Bytes from the start in which headers lie, where damage does the worst."""

DEEP = "@deep"
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 1 << 40, 10**30, -(10**400), 0.5, float("nan"), float("inf"), 1e308),
    *("", "x" * 5000, "../../../etc/passwd", "/etc/passwd", "\ud800", "\u202e<script>", "a\x00b", DEEP),
    *("F64", "F32", "BF16", "I64", "U8", "BOOL", "C64", "F8_E4M3", "float32", "gemma2"),
    *([], {}, [[[]]], [1 << 62, 1 << 62], [-1], [0], ["x"], {"": {}}, ["./evil.py:build"]),
)


@dataclass(frozen=True)
class Damage:
    """What is done to a file.

    Attributes:
        kind: one of KINDS.
        place: where, as a share of the file, or of its start.
        near: the start only.
        number: which bits, bytes or value.
    """

    kind: str
    place: float
    near: bool
    number: int

    def of(self, data: bytes) -> bytes:
        """The damaged file."""
        if self.kind == "json":
            return self._json(data)
        size = min(len(data), NEAR) if self.near else len(data)
        at = min(int(self.place * size), max(len(data) - 1, 0))
        length = 1 + self.number % 64
        if self.kind == "cut":
            return data[:at]
        if self.kind == "flip":
            bits = bytes(byte ^ (self.number >> 8 * i & 0xFF) for i, byte in enumerate(data[at : at + 1 + length % 8]))
            return data[:at] + bits + data[at + len(bits) :]
        if self.kind == "huge":
            code, top = [("<Q", 1 << 64), ("<I", 1 << 32), ("<q", 1 << 63)][self.number % 3]
            value = [top - 1, top >> 2, 1 << 31, self.number % top][self.number // 3 % 4]
            raw = struct.pack(code, min(value, top - 1))
            return data[:at] + raw + data[at + len(raw) :]
        if self.kind == "drop":
            return data[:at] + data[at + length :]
        middle = data[at : at + length] * 2 if self.kind == "repeat" else bytes(length)
        return data[:at] + middle + data[at + length :]

    def _json(self, data: bytes) -> bytes:
        """Another value, or another key, in a JSON file, in one of its lines, or in the header of safetensors."""
        start = int.from_bytes(data[:8], "little")
        if data[8:9] == b"{" and 0 < start <= len(data) - 8:
            header = self._replaced(data[8 : 8 + start])
            return struct.pack("<Q", len(header)) + header + data[8 + start :]
        lines = data.split(b"\n")
        if data[:1] == b"{" and len(lines) > 1 and lines[0].endswith(b"}"):
            at = int(self.place * (len(lines) - 1))
            return b"\n".join([*lines[:at], self._replaced(lines[at]), *lines[at + 1 :]])
        return self._replaced(data) if data[:1] == b"{" else data[: len(data) // 2]

    def _replaced(self, text: bytes) -> bytes:
        try:
            tree = json.loads(text)
        except ValueError:
            return text[:-1]
        holders = list(_holders(tree))
        if not holders:
            return b"[]"
        holder, key = holders[int(self.place * (len(holders) - 1))]
        value = VALUES[self.number % len(VALUES)]
        if isinstance(holder, dict) and self.number % 7 == 0:
            holder[str(value)] = holder.pop(key)
        else:
            holder[key] = value
        made = json.dumps(tree).replace(f'"{DEEP}"', "[" * 20_000 + "]" * 20_000)
        return made.encode("utf-8", "surrogatepass")


def _holders(tree: Any) -> Any:
    """Every place in a JSON value that holds another."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield tree, key
        yield from _holders(value)


def damages() -> st.SearchStrategy[Damage]:
    """All of them."""
    number = st.integers(0, (1 << 64) - 1)
    return st.builds(Damage, st.sampled_from(KINDS), st.floats(0, 1), st.booleans(), number)
