"""A model, vectors, a task, a path patch and a readout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from interp import CLEAN, BlockPaths, Task
from interp.readouts import Rows
from interp.testing import tiny_model, tokenizer
from vectors import Card, SteeringVectors

KEYS_ONLY = BlockPaths(q=CLEAN, v=CLEAN, resid_to_mlp=CLEAN, resid=CLEAN)
TASK = Task.of([("2 + 2?", "4"), ("3 + 4?", "7")], name="example-task")


@cache
def model() -> Path:
    """A folder with a random model and its tokenizer, made here so that nothing is fetched."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": len(tokenizer()), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    folder = Path(mkdtemp())
    LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, eos_token_id=2)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def vectors() -> SteeringVectors:
    """The directions of the first coordinates, for the model of `interp.testing`."""
    shape = tiny_model()
    card = Card(name="example-vectors", d_model=shape.d_model, n_layers=shape.n_layers, trained="together")
    return SteeringVectors(torch.eye(shape.d_model)[:2], (0, 1), card)


class Top1:
    """Whether the most likely token is another one under the edits."""

    columns: Mapping[str, str] = {"top1": "1 = the most likely token changes, 0 = it stays"}

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        return {"top1": (rows.base.argmax(-1) != rows.steered.argmax(-1)).int().tolist()}
