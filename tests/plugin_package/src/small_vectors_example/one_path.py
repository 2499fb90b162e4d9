"""An experiment over path patches."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd

from experiments.patches import patch
from interp import Batch, Cell, Context, Declaration, Experiment


class OnePath(Experiment):
    """What the last prompt token feels of a vector when only some paths of the next block see it."""

    columns: ClassVar = {
        "example": "problem",
        "patch": "which paths see the vector",
        "kl": "KL(patched || base), nats",
        "top1": "1 = the most likely token is another than the base's",
    }
    declaration: ClassVar = Declaration("mean KL", "problem", "mean", "patches", ("base",), 0.01, margin_unit="nats")
    figures: ClassVar = ("example-one-path",)
    patches: tuple[str, ...] = ("steered", "example-keys-only", "base")
    """Patches by name."""
    layer: int = 1
    """Block of the vector; the patched one is the next."""

    def cells(self, ctx: Context) -> list[Cell]:
        return [Cell.at(patch=name) for name in self.patches]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        problems, edits = ctx.problems(), ctx.vectors.only(self.layer).edits()
        batch, frames = Batch.of(ctx.prompts(problems)), []
        for cell in cells:
            placed = patch(str(cell["patch"]), ctx.model).at(self.layer + 1)
            scores = ctx.model.score(batch, [*edits, placed], ["kl", "example-top1"])
            frames.append(scores.assign(patch=cell["patch"], example=[problem.id for problem in problems]))
        return pd.concat(frames)[list(self.columns)]
