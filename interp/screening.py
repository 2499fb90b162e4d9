"""Attribution patching as a screen: all nodes to first order, the strongest and a random sample exactly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import UserError
from interp.patching import Metric, Node, PatchSweep

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Screen:
    """What a screen found.

    Attributes:
        frame: a row for each node: layer, stream, position, head, token as in `PatchSweep.score`; `attribution`, to
            first order; `effect`, exact, NaN where it was not measured; `chosen`: top, sample or not.
        rank_correlation: Spearman's, of attribution and effect over the random sample; NaN where it has none.
        n: nodes of the sample.
    """

    frame: pd.DataFrame
    rank_correlation: float
    n: int


def screen(
    sweep: PatchSweep,
    metric: Metric,
    nodes: Sequence[Node] | None = None,
    *,
    top: int = 64,
    sample: int = 64,
    seed: int = 0,
) -> Screen:
    """Attribute every node, patch the strongest ones and a random sample of the others.

    The rank correlation is taken over the sample alone: the strongest were chosen by the attribution that is judged.

    Args:
        sweep: of the two runs.
        metric: the number that patches move; one with a gradient in the unpatched run.
        nodes: all of the sweep's if None.
        top: nodes with the largest |attribution|, patched exactly.
        sample: others, drawn at random, patched exactly.
        seed: of the draw.

    Raises:
        UserError: nothing would be patched.
    """
    if top < 0 or sample < 0 or not top + sample:
        raise UserError("a screen patches something", given=f"top {top}, sample {sample}", works="top=64, sample=64")
    chosen = list(sweep.nodes if nodes is None else nodes)
    if not chosen:
        raise UserError("no node was asked for", works="nodes=None screens all of them")
    estimate = sweep.attributions(metric, chosen).tolist()
    strongest = sorted(range(len(chosen)), key=lambda i: -abs(estimate[i]))
    drawn = random.Random(seed).sample(strongest[top:], min(sample, len(strongest[top:])))
    exact = [*strongest[:top], *drawn]
    effect = dict(zip(exact, sweep.effects(metric, [chosen[i] for i in exact]).tolist(), strict=True))
    frame: Any = sweep.place(chosen)
    frame["attribution"] = estimate
    frame["effect"] = [effect.get(i, float("nan")) for i in range(len(chosen))]
    named = {**dict.fromkeys(strongest[:top], "top"), **dict.fromkeys(drawn, "sample")}
    frame["chosen"] = [named.get(i, "not") for i in range(len(chosen))]
    sampled = frame[frame["chosen"] == "sample"]
    correlation = sampled["attribution"].corr(sampled["effect"], method="spearman") if len(drawn) > 2 else float("nan")
    return Screen(frame, float(correlation), len(drawn))
