"""What all comparisons share: the model as everyone holds it, prompts, a vector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM

from interp import Batch, Model, Prompt, Task, load_model, load_task
from interp.backend.embedded import folder_of

MODEL = "smollm2-135m-instruct"
SEED = 0


@dataclass
class Bench:
    """The model and its inputs, made when they are first needed.

    Attributes:
        rounds: timed rounds of each comparison.
        small: sizes that only show that everything runs.
    """

    rounds: int = 5
    small: bool = False

    @cached_property
    def model(self) -> Model:
        """Ours; never ends a completion, so that everyone generates equally many tokens."""
        made = load_model(MODEL)
        return Model(made.hooked, tokenizer=made.tokenizer, name=made.name, stop_ids=())

    @cached_property
    def hf(self) -> Any:
        """As transformers loads it."""
        return AutoModelForCausalLM.from_pretrained(folder_of(MODEL)).eval()

    @cached_property
    def task(self) -> Task:
        """Word problems; each is asked behind the same 75-token example."""
        return load_task("word-problems")

    def size(self, full: int, small: int) -> int:
        """One of two sizes."""
        return small if self.small else full

    def vector(self, norm: float = 20.0) -> Float[Tensor, " d_model"]:
        """A random vector of a norm that changes completions."""
        drawn = torch.randn(self.model.d_model, generator=torch.Generator().manual_seed(SEED))
        return norm * drawn / drawn.norm()

    def prompts(self, n: int, *, shared: bool) -> list[Prompt]:
        """`n` prompts of one length, so that nobody pads.

        Args:
            n: how many.
            shared: behind the task's system line and example, or the bare question.
        """
        made: defaultdict[int, dict[tuple[int, ...], Prompt]] = defaultdict(dict)
        for problem in self.task.problems("train"):
            prompt = self.task.prompt(self.model.tokenizer, problem) if shared else self.model.prompt(problem.problem)
            row = made[len(prompt.ids)]
            row[prompt.ids] = prompt
            if len(row) == n:
                return list(row.values())
        raise SystemExit(f"the task has no {n} prompts of one length")

    def pair(self, length: int, first: int) -> tuple[Batch, Batch]:
        """Two rows of tokens that differ at token `first`."""
        text = " ".join(problem.problem for problem in self.task.problems("train", 8))
        ids = torch.tensor([self.model.tokenizer.encode(text, add_special_tokens=False)[:length]])
        other = ids.clone()
        other[0, first] = self.model.tokenizer.encode(" seven", add_special_tokens=False)[0]
        return Batch.unpadded(ids), Batch.unpadded(other)

    @staticmethod
    def ids(prompts: Sequence[Prompt]) -> Int[Tensor, "batch pos"]:
        """Prompts of one length as a tensor."""
        return torch.tensor([prompt.ids for prompt in prompts])


@contextmanager
def hooked_layers(hf: Any, vectors: dict[int, Tensor]) -> Generator[None]:
    """Add a vector to the output of some blocks of a transformers model."""

    def adding(vector: Tensor) -> Any:
        return lambda _module, _inputs, output: output + vector

    handles = [hf.model.layers[layer].register_forward_hook(adding(vector)) for layer, vector in vectors.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
