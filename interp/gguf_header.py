"""The header of a GGUF file (versions 2 and 3, little endian), read so that a damaged one cannot ask for much.

The gguf package loops and reserves as long as a header asks it to; here every count is bounded by the file.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
F32 = 0
"""GGML's number of float32."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MANY = 1 << 16


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies.

    Attributes:
        name: of the tensor.
        shape: GGML's order, the innermost dimension first.
        kind: GGML's number of the type.
        start: of its data, bytes from the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class Header:
    """What stands before the data.

    Attributes:
        fields: metadata by name.
        tensors: of the file, in its order; no two of one name.
    """

    fields: dict[str, Any]
    tensors: tuple[TensorInfo, ...]


def read_header(path: Path) -> Header:
    """Read the header of a file, which is mapped, not read.

    Raises:
        ValueError: it is damaged, or no GGUF file.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(data).header()


@dataclass
class _Reader:
    data: mmap.mmap
    at: int = 0

    def header(self) -> Header:
        if self.take(4) != MAGIC:
            raise ValueError("no GGUF file")
        version = self.scalar("I")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        n_tensors, n_fields = self.count(), self.count()
        fields = {self.string(): self.value(self.scalar("I")) for _ in range(n_fields)}
        infos = [self.info() for _ in range(n_tensors)]
        alignment = fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _MANY:
            raise ValueError(f"alignment {alignment}")
        start = -(-self.at // alignment) * alignment
        tensors = tuple(TensorInfo(name, shape, kind, start + offset) for name, shape, kind, offset in infos)
        if len({tensor.name for tensor in tensors}) != n_tensors:
            raise ValueError("two tensors have one name")
        return Header(fields, tensors)

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise ValueError("the file ends early")
        self.at += n
        return self.data[self.at - n : self.at]

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]

    def count(self) -> int:
        number = self.scalar("Q")
        if number > _MANY:
            raise ValueError(f"a count of {number}")
        return number

    def string(self) -> str:
        return self.take(self.scalar("Q")).decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, number = self.scalar("I"), self.scalar("Q")
            if inner == _ARRAY or number > len(self.data) - self.at:
                raise ValueError("an array that does not fit")
            read: Callable[[int], Any] = self.value
            return [read(inner) for _ in range(number)]
        if kind not in _SCALARS:
            raise ValueError(f"a value of type {kind}")
        return self.scalar(_SCALARS[kind])

    def info(self) -> tuple[str, tuple[int, ...], int, int]:
        name, n_dims = self.string(), self.scalar("I")
        if n_dims > 4:
            raise ValueError(f"{n_dims} dimensions")
        shape = tuple(self.scalar("Q") for _ in range(n_dims))
        return name, shape, self.scalar("I"), self.scalar("Q")
