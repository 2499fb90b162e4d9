"""What runs need before they are made: completions, tokens, memory and hours on a named machine.

The counts follow from settings (`figures.work` has a formula for each entry of the paper's manifest); memory and hours
follow from a model's shape and a machine's data sheet. They are for planning and were not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

MAX_ROWS = 256
"""As in `interp.generate`: more rows no longer speed up a matrix product."""
PART_FOR_ROWS = 0.6
"""As in `Model.memory_bytes`: the share of what the weights leave free that generation may take."""
ROOM_CPU_GB = 4.0
"""As there: what generation may take on a CPU."""


@dataclass(frozen=True)
class Shape:
    """What a model's cost depends on.

    Attributes:
        layers: blocks.
        d_model: width of the stream.
        d_mlp: width of the (gated) MLP.
        heads: query heads.
        kv_heads: key and value heads.
        d_head: width of a head.
        vocabulary: tokens.
        tied: embedding and unembedding are one matrix.
        itemsize: bytes of a weight.
    """

    layers: int
    d_model: int
    d_mlp: int
    heads: int
    kv_heads: int
    d_head: int
    vocabulary: int
    tied: bool
    itemsize: int

    @property
    def parameters(self) -> int:
        """Weights; norms and biases, a thousandth of them, are left out."""
        attention = self.d_model * self.d_head * 2 * (self.heads + self.kv_heads)
        block = attention + 3 * self.d_model * self.d_mlp
        return self.layers * block + self.vocabulary * self.d_model * (1 if self.tied else 2)

    @property
    def weight_bytes(self) -> int:
        """Of all weights."""
        return self.parameters * self.itemsize

    @property
    def flops_per_token(self) -> int:
        """Of a forward pass: a multiplication and an addition for each weight that is not looked up."""
        return 2 * (self.parameters - (0 if self.tied else self.vocabulary * self.d_model))

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values in all blocks."""
        return 2 * self.layers * self.kv_heads * self.d_head * self.itemsize

    @property
    def forced_bytes_per_token(self) -> int:
        """Held at the widest moment of a teacher-forced pass: gate, up and their product, the stream before and after.

        Two kept streams (the base's and the edited block's) stay beside them.
        """
        return (3 * self.d_mlp + 4 * self.d_model) * self.itemsize


@dataclass(frozen=True)
class Machine:
    """One device, by its data sheet.

    Attributes:
        memory_gb: of the device.
        bandwidth: GB/s from its memory.
        teraflops: dense matrix products in the dtype of the weights.
        launch_ms: time a block takes however small its work is: about 25 kernels of 10 microseconds on a GPU.
        part: of bandwidth and teraflops that an eager PyTorch program reaches.
    """

    memory_gb: float
    bandwidth: float
    teraflops: float
    launch_ms: float = 0.25
    part: float = 0.5


MACHINES: Mapping[str, Machine] = MappingProxyType(
    {
        # 99 tokens/s of the embedded model were measured on one such core, decoding 64 rows
        "cpu-core": Machine(8, 15, 0.045, launch_ms=0.0, part=0.6),
        "rtx-4090": Machine(24, 1008, 165),
        "l40s": Machine(48, 864, 362),
        "a100-80gb": Machine(80, 2039, 312),
        "h100-80gb": Machine(80, 3350, 989),
        "h200": Machine(141, 4800, 989),
    }
)
"""Name -> one device of it; no figure of a GPU here was measured with this software."""


@dataclass(frozen=True)
class Work:
    """What a run asks of the model.

    Attributes:
        completions: to generate.
        decoded: tokens generated one by one.
        forced: tokens in passes over whole rows: prompts, and teacher forcing, in units of passes through all blocks.
        rows: most rows run teacher-forced at once.
    """

    completions: float = 0.0
    decoded: float = 0.0
    forced: float = 0.0
    rows: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.completions + other.completions,
            self.decoded + other.decoded,
            self.forced + other.forced,
            max(self.rows, other.rows),
        )

    def __mul__(self, times: float) -> Work:
        return Work(self.completions * times, self.decoded * times, self.forced * times, self.rows)

    @property
    def tokens(self) -> float:
        """Generated and forced."""
        return self.decoded + self.forced


@dataclass(frozen=True)
class Subject:
    """The model and vectors that an entry would be made on.

    Attributes:
        layers: blocks of the model.
        heads: query heads.
        kv_heads: key and value heads.
        prompt: tokens of a prompt, without what all prompts share.
        length: tokens of a completion, mean.
        own: blocks that the vectors have.
        sets: names of the sets that come with the model, with and without their seeds.
        evaluated: completions by the tuned sets are on record.
    """

    layers: int
    heads: int
    kv_heads: int
    prompt: int
    length: int
    own: int
    sets: tuple[str, ...] = ()
    evaluated: bool = False

    def complete(self, count: float, length: int | None = None) -> Work:
        """Completions, with the passes over their prompts."""
        return Work(count, count * (self.length if length is None else length), count * self.prompt)

    def force(self, rows: float, share: float = 1.0, *, at_once: int = 0) -> Work:
        """Passes over prompts with completions, through a share of the blocks."""
        return Work(forced=rows * (self.prompt + self.length) * share, rows=at_once)

    def texts(self, n: int) -> Work:
        """Problems completed and run once without edits."""
        return self.complete(n) + self.force(n, at_once=n)

    def some(self, at_most: int) -> int:
        """How many of the vectors' blocks are taken; 0 = all."""
        return min(at_most, self.own) if at_most else self.own

    def beside(self, names: Sequence[str]) -> int:
        """How many of some sets come with the model, named as for `Context.related`."""
        stems = [name.partition("/")[0] for name in names]
        return sum(stem in self.sets or f"all-layer-{stem}" in self.sets for stem in stems)


Formula = Callable[[Any, Subject], Work]
"""From an experiment with its settings, and a subject, to its work."""


@dataclass(frozen=True)
class Need:
    """What a run takes.

    Attributes:
        memory_gb: weights and the larger of a generating and a teacher-forced batch.
        hours: on one device.
    """

    memory_gb: float
    hours: float


def need(work: Work, shape: Shape, machine: Machine, *, longest: int) -> Need:
    """Memory and hours of some work.

    A decoding step reads all weights, and the keys and values of its rows, once for all rows; it takes as long as the
    slowest of reading, multiplying and launching. A pass over whole rows is bound by multiplying alone.

    Args:
        work: what is asked of the model.
        shape: of the model.
        machine: that runs it.
        longest: tokens of the longest row, prompt and completion, which a batch makes room for.
    """
    rows = _rows(work, shape, machine, longest)
    cache = rows * longest * shape.cache_bytes_per_token
    speed, rate = machine.bandwidth * 1e9 * machine.part, machine.teraflops * 1e12 * machine.part
    # half of the longest row is what a row holds on average while it grows
    step = max(
        (shape.weight_bytes + cache / 2) / speed,
        rows * shape.flops_per_token / rate,
        shape.layers * machine.launch_ms / 1e3,
    )
    seconds = work.decoded / rows * step + work.forced * shape.flops_per_token / rate
    generating = cache + rows * _logit_bytes(shape)
    forcing = work.rows * longest * shape.forced_bytes_per_token
    return Need((shape.weight_bytes + max(generating, forcing)) / 1e9, seconds / 3600)


def _rows(work: Work, shape: Shape, machine: Machine, longest: int) -> int:
    """Rows that are decoded together, as `interp.generate` chooses them."""
    free = machine.memory_gb * 1e9 - shape.weight_bytes
    room = PART_FOR_ROWS * free if machine.launch_ms else ROOM_CPU_GB * 1e9
    fit = int(room // (longest * shape.cache_bytes_per_token + _logit_bytes(shape)))
    return max(1, min(MAX_ROWS, fit, round(work.completions) or 1))


def _logit_bytes(shape: Shape) -> int:
    return shape.vocabulary * 4 * 4
