"""A tiny random model, a task that it can pass by one token, and vectors that do what they are planted to do."""

from __future__ import annotations

from typing import Any

import torch

from interp.grading import Regex
from interp.load import load_model
from interp.model import Model
from interp.tasks.task import Problem, Split, Task
from tests.interp import tiny
from vectors import AdaptiveVectors, Card, SteeringVectors

LAYERS = 3
ANSWER = "7"


def model(family: str = "llama") -> Model:
    return load_model(tiny.model(family), tokenizer=tiny.tokenizer())


def task(*, answer: str | None = ANSWER, splits: dict[Split, int] | None = None) -> Task:
    """Right = the completion starts with "7"."""
    splits = splits or {"train": 8, "test": 64}
    problems = [
        Problem(f"{split}-{index}", f"{index * index} + {index}?", answer, split=split)
        for split, count in splits.items()
        for index in range(count)
    ]
    return Task("toy", lambda: problems, scorer=Regex("^(.)"), max_new_tokens=5)


def token(model: Model, text: str = ANSWER) -> int:
    return model.tokenizer.encode(text, add_special_tokens=False)[0]


def planted(model: Model, *, scale: float, layers: tuple[int, ...] = (LAYERS - 1,)) -> SteeringVectors:
    """Pushes the logit of "7" up, in the last block's output."""
    hooked: Any = model.hooked
    gain, unembedding = hooked.ln_final.w, hooked.unembed.W_U
    row = gain * (unembedding[:, token(model)] - unembedding.mean(1))
    return wrap(model, (scale * row / row.norm()).expand(len(layers), -1), layers)


def random(model: Model, *, scale: float, layers: tuple[int, ...] = (LAYERS - 1,), seed: int = 0) -> SteeringVectors:
    rows = torch.randn(len(layers), model.d_model, generator=torch.Generator().manual_seed(seed))
    return wrap(model, scale * rows / rows.norm(dim=1, keepdim=True), layers)


def adapters(model: Model, layers: tuple[int, ...] = (0, 1, 2), trained: Any = "apart") -> AdaptiveVectors:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(len(layers), model.cfg.d_mlp, generator=generator)
    b = torch.randn(len(layers), model.d_model, generator=generator)
    card = Card(
        name="toy", kind="rank1", site="mlp_out", d_model=model.d_model, n_layers=model.n_layers, trained=trained
    )
    return AdaptiveVectors(a, b, (1.0,) * len(layers), layers, card).together()


def wrap(model: Model, rows: torch.Tensor, layers: tuple[int, ...]) -> SteeringVectors:
    card = Card(name="toy", d_model=model.d_model, n_layers=model.n_layers, trained="apart")
    return SteeringVectors(rows, layers, card)
