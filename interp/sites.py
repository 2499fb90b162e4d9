"""Where in a block a value can be read or edited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from interp.errors import UserError
from interp.selection import whole

Stream = Literal[
    "resid_pre",
    "ln1_out",
    "q",
    "k",
    "v",
    "z",
    "attn_out",
    "resid_mid",
    "ln2_out",
    "mlp_post",
    "mlp_out",
    "resid_post",
]
"""The streams of a block, in the order of computation.

q, k, v (before the rotation) and z are [batch, pos, head, d_head], with kv heads for k and v;
mlp_post is [batch, pos, d_mlp]; all others are [batch, pos, d_model].
"""

STREAMS: tuple[Stream, ...] = get_args(Stream)


@dataclass(frozen=True, order=True)
class Site:
    """A stream of a block. Layer 0 is the first block.

    Raises:
        UserError: the layer is negative or no whole number, or the stream has no such name.
    """

    layer: int
    stream: Stream

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", block(self.layer))
        if self.stream not in STREAMS:
            raise UserError("no such stream", given=self.stream, works=f"use one of {', '.join(STREAMS)}")

    def __str__(self) -> str:
        return f"{self.stream}[{self.layer}]"


def block(layer: object) -> int:
    """Return a block's number, from an integer of any type.

    Raises:
        UserError: it is negative or no whole number.
    """
    number = whole(layer, "a layer", works="0 is the first block")
    if number < 0:
        raise UserError("a layer counts from 0, the first block", given=number)
    return number
