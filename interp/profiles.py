"""The models of `interp paper`: which weights, which problems, and the numbers that a plan needs; torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from interp.cli.options import DEFAULT_MODEL, DEFAULT_TASK
from interp.costs import Shape
from interp.experiment import DEFAULT_SCALE


@dataclass(frozen=True)
class Profile:
    """A model with the protocol that the paper's figures are made with on it.

    Attributes:
        model: as `--model`.
        task: as `--task`.
        scale: of the runs, where none is given.
        shape: of the model.
        machine: of `interp.costs.MACHINES`, that hours are told for where none is named.
        prompt: tokens of a prompt, without what all prompts share.
        length: tokens of a completion, mean.
        longest: tokens at which a completion is cut.
        problems: test problems of the task.
        recorded: the answers of its tuned sets come with the package.
    """

    model: str
    task: str
    scale: str
    shape: Shape
    machine: str
    prompt: int
    length: int
    longest: int
    problems: int
    recorded: bool = False


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        DEFAULT_MODEL: Profile(
            model=DEFAULT_MODEL,
            task=DEFAULT_TASK,
            scale=DEFAULT_SCALE,
            shape=Shape(30, 576, 1536, 9, 3, 64, 49_152, tied=True, itemsize=4),
            machine="cpu-core",
            prompt=32,
            length=26,
            longest=40,
            problems=512,
            recorded=True,
        ),
        "qwen2.5-math-7b": Profile(
            model="qwen2.5-math-7b",
            task="paper-benchmarks",
            scale="full",
            shape=Shape(28, 3584, 18_944, 28, 4, 128, 152_064, tied=False, itemsize=2),
            machine="h100-80gb",
            prompt=120,
            length=900,
            longest=3072,
            problems=180,
        ),
        "llama-3.1-8b-instruct": Profile(
            model="llama-3.1-8b-instruct",
            task="paper-benchmarks",
            scale="full",
            shape=Shape(32, 4096, 14_336, 32, 8, 128, 128_256, tied=False, itemsize=2),
            machine="h100-80gb",
            prompt=120,
            length=900,
            longest=3072,
            problems=180,
        ),
    }
)
"""Name -> profile. The lengths on the paper's models are assumptions; `interp paper --tokens` sets another one."""
