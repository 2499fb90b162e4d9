"""Accuracy with the paths of one block patched in every token, prompt and completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments.controls import Acting
from experiments.graded import Condition, answers, references, summarise
from experiments.path_verdicts import MATCHED
from interp.context import Context
from interp.edits import Edit
from interp.summaries import share

CONTROLLED = ("skip-attn",)
"""Patches under which control vectors generate too."""


@dataclass(frozen=True)
class Generation:
    """What is generated.

    Attributes:
        patches: placed patches by name; "steered" gives the whole gain, of which the others keep a share.
        temperature: 0 = greedy.
        samples: completions of each problem and patch.
    """

    patches: Mapping[str, Edit]
    temperature: float
    samples: int

    def conditions(self, vectors: Acting, drawn: Sequence[Acting]) -> list[Condition]:
        """The base, the vector under each patch, and control draws, one a problem in turn."""
        found = [Condition(at={"patch": "base"})]
        found += [
            Condition("trained", edits=(*vectors.edits(), one), at={"patch": name})
            for name, one in self.patches.items()
        ]
        for name in (name for name in CONTROLLED if drawn and name in self.patches):
            turns = tuple((*one.edits(), self.patches[name]) for one in drawn)
            found.append(Condition(MATCHED, at={"patch": name}, rotation=turns))
        return found

    def measure(self, ctx: Context, vectors: Acting, drawn: Sequence[Acting], *, beside: bool) -> list[pd.DataFrame]:
        """Graded completions and their summary.

        Args:
            ctx: the run.
            vectors: the vector of one block.
            drawn: control draws.
            beside: whether the base at the steered entropy and few-shot prompts are measured too.
        """
        rows = answers(ctx, self.conditions(vectors, drawn), temperature=self.temperature, samples=self.samples)
        frames = [rows.assign(part="answers"), with_share(summarise(rows, ["patch"]), rows).assign(part="accuracy")]
        if not (beside and self.temperature and "steered" in self.patches):
            return frames
        plain: Any = rows[rows["vector"] == "base"]
        whole: Any = rows[(rows["vector"] == "trained") & (rows["patch"] == "steered")]
        entropy = float(whole["entropy"].mean())
        found = references(ctx, plain, entropy=entropy, temperature=self.temperature, samples=self.samples)
        return [*frames, found.assign(part="accuracy")]


def with_share(summary: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Add each patch's share of the whole vector's gain; empty where the ratio may not be shown."""
    for column in ("share", "share_low", "share_high"):
        summary[column] = np.nan
    base: Any = rows[rows["vector"] == "base"]
    trained: Any = rows[rows["vector"] == "trained"]
    gains = {str(name): own["right"].to_numpy() - base["right"].to_numpy() for name, own in trained.groupby("patch")}
    for name, gain in gains.items() if "steered" in gains else ():
        ratio = share(gain, gains["steered"], base["example"].to_numpy())
        here = (summary["vector"] == "trained") & (summary["patch"] == name)
        if ratio is not None:
            summary.loc[here, ["share", "share_low", "share_high"]] = [ratio.estimate, ratio.low, ratio.high]
    return summary
