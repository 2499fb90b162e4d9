"""The recipe of the set that ships for the embedded model, in the order in which it is trained. Torch-free."""

from __future__ import annotations

from vectors.train.settings import PLACES, TrainSettings

EMBEDDED_MODEL = "smollm2-135m-instruct"
EMBEDDED_TASK = "word-problems"

SINGLE = (12, 28, 29, 4, 20, 24, 0, 8, 16, 26)
"""Blocks with a vector of their own, in order of interest."""

FOUR = (4, 12, 20, 28)
"""Blocks with adaptive vectors and with a second seed."""

TOGETHER = {"steps": 45}
"""Vectors of all layers were best on validation problems after 40 or more. What is compared with them (LoRA, all
weights) gets as many completions."""

APART = {"steps": 30}
"""A vector alone rises for about as many steps."""

LAST_BLOCK = {"rate": 0.8, "prompts": 24, "steps": 16}
"""The last block's gradient is small and noisy: the rate that learned in a trial, and more rows a step."""

UNDECIDED = {"steps": 15}
"""Controls learn nothing about right answers, so fewer steps show as much."""


def single(layer: int, seed: int = 0) -> TrainSettings:
    """One vector alone."""
    special = LAST_BLOCK if layer == 29 else APART
    return TrainSettings.model_validate({"layers": (layer,), "seed": seed, **special})


def embedded_plan() -> list[TrainSettings]:
    """All runs, first things first; processes that share the plan each take the next unfinished one."""
    return [
        TrainSettings.model_validate(TOGETHER),
        *(single(layer) for layer in SINGLE),
        TrainSettings.model_validate({"reward": "random", **UNDECIDED}),
        TrainSettings.model_validate({"reward": "format", **UNDECIDED}),
        *(TrainSettings.model_validate({"kind": "lora", "rank": rank, **TOGETHER}) for rank in (1, 4)),
        *(TrainSettings.model_validate({"kind": "rank1", "layers": (layer,), **APART}) for layer in FOUR),
        *(TrainSettings.model_validate({"seed": seed, **TOGETHER}) for seed in (1, 2)),
        *(single(layer, seed=1) for layer in FOUR),
        *(
            TrainSettings.model_validate({"layers": (16,), "place": place, **APART})
            for place in PLACES
            if place != "mlp_out"
        ),
        TrainSettings.model_validate({"kind": "full", **TOGETHER}),
    ]
