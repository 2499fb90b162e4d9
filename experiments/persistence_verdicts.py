"""Verdicts of persistence, and its relation to the accuracy of pairs of vectors."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from experiments.controls import RANDOM, control_interval, too_few
from interp.errors import UserError
from interp.summaries import TWICE, Interval, Test, Verdict, bootstrap, mantel, verdict

CLAIMS = {
    "self": "keeps-its-direction",
    "induced": "draws-one-answer-from-the-network",
    "diff_vector": "points-along-later-vectors",
}
CONVERGE = "effects-of-layers-converge"
UNIT = "cosine above random vectors"
NO_DRAWS = "there are no random vectors to compare with"
NO_LATER = "no later block has a vector"


def judge(frame: pd.DataFrame, statistic: str, *, text: str, margin: float) -> Verdict:
    """Whether a statistic over generated tokens exceeds that of random vectors.

    Each problem's mean over observed blocks, then over the steered blocks that have random vectors, less the mean of
    random vectors on the same problem. The control is one more draw of such random vectors.

    Args:
        frame: of the experiment.
        statistic: "self", "induced" or "diff_vector".
        text: whose completions.
        margin: smallest cosine of interest.
    """
    claim = CLAIMS[statistic]
    rows: Any = _of(frame, part="problems", statistic=statistic, text=text, stratum="generated")
    if rows.empty:
        return verdict(None, margin=margin, testable=NO_LATER, claim=claim, unit=UNIT)
    drawn = rows[rows["vector"].isin(RANDOM)]
    own = rows[(rows["vector"] == "trained") & rows["layer"].isin(set(drawn["layer"]))]
    own, drawn = (part[part["example"].isin(_complete(own, drawn))] for part in (own, drawn))
    means = drawn.groupby(["vector", "draw"])["value"].mean()
    control = control_interval({str(kind): list(part) for kind, part in means.groupby(level="vector")})
    if own.empty or control is None:
        return verdict(None, margin=margin, testable=NO_DRAWS, claim=claim, unit=UNIT)
    # every problem has every block and draw, so means of groups weigh alike
    above = own.groupby("example")["value"].mean() - drawn.groupby("example")["value"].mean()
    effect = bootstrap(above.to_numpy(), bounds=TWICE)
    control = control.moved(-control.estimate)
    return verdict(effect, control, margin, relative=True, testable=too_few(effect.n), claim=claim, unit=UNIT)


def judge_final(frame: pd.DataFrame, *, text: str, margin: float) -> Verdict:
    """Whether vectors of different blocks have a common effect after the last one, more than random vectors have."""
    rows: Any = _of(frame, part="final-mean", text=text, stratum="generated")
    own, drawn = rows[rows["vector"] == "trained"], rows[rows["vector"].isin(RANDOM)]
    control = control_interval({str(kind): list(part["value"]) for kind, part in drawn.groupby("vector")})
    if own.empty or control is None:
        reason = "random vectors were not read at two blocks or more"
        return verdict(None, margin=margin, testable=reason, claim=CONVERGE, unit=UNIT)
    one = own.iloc[0]
    effect = Interval(float(one["value"]), float(one["low"]), float(one["high"]), int(one["n"]))
    return verdict(effect, control, margin, relative=True, testable=too_few(effect.n), claim=CONVERGE, unit=UNIT)


def relate(
    persistence: pd.DataFrame,
    composition: pd.DataFrame,
    *,
    statistic: str = "diff_vector",
    value: Literal["value", "above"] = "value",
    text: str = "base",
    permutations: int = 9999,
    seed: int = 0,
) -> Test:
    """Do pairs of blocks whose effects look alike also add up differently? A partial Mantel test given |i - j|.

    Args:
        persistence: frame of `Persistence`.
        composition: one row or more for each pair, columns i < j (blocks) and interaction; rows are averaged.
        statistic: of the pair (steered i, observed j), or "final" for cos(D_i, D_j).
        value: the statistic itself, or what it has above random vectors.
        text: whose completions.
        permutations: of the blocks.
        seed: of the permutations.

    Raises:
        UserError: fewer than four blocks have all their pairs in both frames.
    """
    part = "final" if statistic == "final" else "pairs"
    own: Any = _of(persistence, part=part, statistic=statistic, text=text, stratum="generated", vector="trained")
    ours = _pairs(own, "layer", "observed", value)
    theirs = _pairs(composition, "i", "j", "interaction")
    blocks = _common(set(ours) & set(theirs))
    if len(blocks) < 4:
        raise UserError("a Mantel test needs all pairs of at least 4 blocks in both frames", given=f"blocks {blocks}")
    index = np.asarray(blocks)
    distance = np.abs(index[:, None] - index[None])
    x, y = _matrix(ours, blocks), _matrix(theirs, blocks)
    return mantel(x, y, distance, permutations=permutations, seed=seed)


def _of(frame: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    keep = np.logical_and.reduce([frame[column] == value for column, value in wanted.items()])
    return frame.loc[keep]


def _complete(own: Any, drawn: Any) -> set[str]:
    """Problems on which every vector of every block was read."""
    counts = [rows.groupby("example").size() for rows in (own, drawn)]
    return set.intersection(*({*c.index[c == c.max()]} if len(c) else set[str]() for c in counts))


def _pairs(frame: Any, i: str, j: str, value: str) -> dict[tuple[int, int], float]:
    means = frame.dropna(subset=[value]).groupby([i, j])[value].mean()
    return {(int(a), int(b)): float(mean) for (a, b), mean in means.items() if a < b}


def _common(pairs: set[tuple[int, int]]) -> list[int]:
    """Blocks all of whose pairs are there; the one with the fewest is left out until that is so."""
    blocks = sorted({block for pair in pairs for block in pair})
    while blocks:
        counts = {block: sum((min(block, o), max(block, o)) in pairs for o in blocks if o != block) for block in blocks}
        if min(counts.values()) == len(blocks) - 1:
            break
        blocks.remove(min(blocks, key=counts.__getitem__))
    return blocks


def _matrix(pairs: dict[tuple[int, int], float], blocks: list[int]) -> np.ndarray:
    return np.array([[0.0 if a == b else pairs[min(a, b), max(a, b)] for b in blocks] for a in blocks])
