"""Vectors for a model that no trained ones come with."""

from __future__ import annotations

import torch

from interp.bare_model import takes_model
from interp.batch import Batch
from interp.errors import UserError
from interp.model import Model
from interp.sites import Site
from interp.tasks.task import Problem, Task
from vectors.baselines import FRACTION
from vectors.card import Card
from vectors.controls import random_isotropic
from vectors.from_model import baseline
from vectors.steering import SteeringVectors

PROMPTS = 16
"""Prompts over which residual norms are measured."""


@takes_model
def untrained(model: Model, task: Task) -> SteeringVectors:
    """The mean difference of the model's own right and wrong completions; random directions where there is none.

    A model that is never right (or never wrong), and a task without answers or without a train split, have no mean
    difference. The card says which of the two was taken, and why.

    Args:
        model: the model.
        task: its problems or prompts.
    """
    try:
        return baseline(model, task)
    except UserError as error:
        return random_directions(model, task, because=str(error))


@takes_model
def random_directions(model: Model, task: Task, *, because: str, seed: int = 0) -> SteeringVectors:
    """One random direction a block, with a fixed fraction of the block's median residual norm.

    Position 0 is left out of the norms.

    Args:
        model: the model.
        task: whose prompts the norms are measured on.
        because: why there is nothing better; the card repeats it.
        seed: of the directions.
    """
    prompts = [task.prompt(model.tokenizer, problem) for problem in _some(task)]
    batch = Batch.of(prompts, device=model.device)
    sites = [Site(layer, "resid_post") for layer in range(model.n_layers)]
    trace = model.run(batch, read=sites)
    later = batch.position > 0
    norms = torch.stack([trace[site][later].float().norm(dim=-1).median() for site in sites]).cpu()
    card = Card(
        name=f"random directions on {task.name}",
        base_model=model.name,
        architecture=model.architecture,
        lineage=model.lineage,
        fingerprint=model.fingerprint,
        d_model=model.d_model,
        n_layers=model.n_layers,
        origin=f"random directions, no vectors to study: {because}",
        recipe={"task": task.name, "fraction_of_median_norm": FRACTION, "seed": seed},
    )
    rows = FRACTION * norms[:, None] * torch.eye(1, model.d_model).expand(model.n_layers, -1)
    (drawn,) = random_isotropic(SteeringVectors(rows, tuple(range(model.n_layers)), card), draws=1, seed=seed)
    return SteeringVectors(drawn.directions, drawn.layers, card)


def _some(task: Task) -> list[Problem]:
    try:
        return task.problems("train")[:PROMPTS]
    except UserError:
        return task.problems("test")[:PROMPTS]
