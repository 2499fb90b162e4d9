"""Causal tests of token-wise strength: held at its mean everywhere, and switched off on some tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.adaptive_coefficients import Rows, Strength
from experiments.controls import too_few
from experiments.graded import Condition, gain_of
from interp.digest import digest
from interp.edits import Add, AddAdaptive, Edit
from interp.positions import Positions
from interp.sites import Site
from interp.summaries import FLOOR, Interval, Verdict, difference, verdict
from vectors import AdaptiveVectors

NOWHERE, EVERYWHERE, MEAN = "nowhere", "everywhere", "mean"
RANDOM = "random-tokens"
UNIT = "share of problems"


def without(part: str) -> str:
    """Name of the condition in which the adapter is off on a segment or kind of word."""
    return f"without {part}"


def held_at_mean(vectors: AdaptiveVectors, strength: Mapping[int, Strength], rows: Rows) -> tuple[Edit, ...]:
    """Each adapter's direction with one coefficient at every token: its mean over some texts.

    The mean is over the counted tokens of each problem, then over problems.
    """
    found: list[Edit] = []
    for layer, b in zip(vectors.layers, vectors.b, strict=True):
        c = strength[layer].coefficient.numpy()
        means = [c[row][counted].mean() for row, counted in enumerate(rows.counted) if counted.any()]
        found.append(Add(Site(layer, "mlp_out"), b, float(np.mean(means)) / float(b.norm())))
    return tuple(found)


def conditions(
    on: AdaptiveVectors, mean: tuple[Edit, ...], rows: Rows, parts: Sequence[str], *, draws: int, seed: int
) -> list[Condition]:
    """All conditions of the causal tests, rows of one batch.

    Args:
        on: the adapters that act together.
        mean: of `held_at_mean`.
        rows: the problems that are completed, with completions under the adapters.
        parts: segments or kinds of words on which the adapters are off; "generated" is a segment.
        draws: sets of random tokens for each part; every problem has its own.
        seed: of the random tokens.
    """
    found = [
        Condition(at={"applied": NOWHERE}),
        Condition("trained", edits=on.edits(), at={"applied": EVERYWHERE}),
        Condition("trained", edits=mean, at={"applied": MEAN}),
    ]
    for part in parts:
        at = {"applied": without(part)}
        own = [_off(on, rows, row, part) for row in range(len(rows.examples))]
        found.append(Condition("trained", rotation=tuple(own), at=at))
        for draw in range(draws):
            other = tuple(_off_at_random(on, rows, row, part, (seed, draw)) for row in range(len(rows.examples)))
            found.append(Condition(RANDOM, draw, rotation=other, at=at))
    return found


def members(rows: Rows, row: int, part: str) -> list[int]:
    """Tokens of a row's prompt that belong to a segment or kind of word, counted from the row's first token."""
    start = int((~rows.batch.mask[row]).sum())
    inside = (rows.segment[row] == part) | (rows.kind[row] == part)
    last = int(rows.batch.prompt_len[row])
    return [index for index in (np.flatnonzero(inside) - start).tolist() if 0 <= index < last]


def random_members(rows: Rows, row: int, part: str, seed: tuple[int, int]) -> list[int]:
    """As many random tokens of the prompt outside the part, no template tokens and not the first one.

    Against "generated" stand as many as the row's completion has under the adapters. Where there are too few tokens,
    all of them.
    """
    inside = members(rows, row, part)
    wanted = rows.lengths[row] if part == "generated" else len(inside)
    start, last = int((~rows.batch.mask[row]).sum()), int(rows.batch.prompt_len[row])
    others = [index for index in (np.flatnonzero(rows.counted[row]) - start).tolist() if index < last]
    others = [index for index in others if index not in set(inside)]
    order = np.random.default_rng(int(digest("random tokens", *seed, rows.examples[row], part), 16)).permutation(others)
    return sorted(int(index) for index in order[:wanted])


def all_but(off: Sequence[int], length: int) -> Positions:
    """Every position but some of a prompt of this length.

    Tokens after the first gap are counted from the prompt's end, so that prompts of any length share these positions
    where they differ in the gap alone.
    """
    gone = set(off)
    first = min(gone, default=length)
    kept = [index if index < first else index - length for index in range(length) if index not in gone]
    return Positions(prompt=tuple(kept) if gone and kept else ("none" if gone else "all"))


def _off(on: AdaptiveVectors, rows: Rows, row: int, part: str) -> tuple[AddAdaptive, ...]:
    if part == "generated":
        return on.edits(Positions(generated="none"))
    return on.edits(all_but(members(rows, row, part), int(rows.batch.prompt_len[row])))


def _off_at_random(
    on: AdaptiveVectors, rows: Rows, row: int, part: str, seed: tuple[int, int]
) -> tuple[AddAdaptive, ...]:
    return on.edits(all_but(random_members(rows, row, part, seed), int(rows.batch.prompt_len[row])))


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy that is lost: everywhere - mean, and random tokens - part, paired by problem and random stream."""
    found: list[dict[str, Any]] = []
    for applied, own in rows[rows["vector"] == "trained"].groupby("applied", sort=False):
        if applied == EVERYWHERE:
            continue
        beside = _reference(rows, str(applied))
        if len(beside) == 0:
            continue
        repeats = len(beside) // len(own)
        lost = difference(beside["right"], np.tile(own["right"], repeats), beside["example"], share=True)
        ends = {"lost": lost.estimate, "lost_low": lost.low, "lost_high": lost.high, "n": lost.n}
        found.append({"part": "lost", "vector": "trained", "applied": applied, **ends})
    return pd.DataFrame(found).assign(draw=0, temperature=rows["temperature"].iloc[0])


def _reference(rows: Any, applied: str) -> Any:
    if applied == MEAN:
        return rows[(rows["vector"] == "trained") & (rows["applied"] == EVERYWHERE)]
    return rows[(rows["vector"] == RANDOM) & (rows["applied"] == applied)].sort_values("draw", kind="stable")


def judge(frame: pd.DataFrame, margin: float) -> list[Verdict]:
    """Whether accuracy is lost with the strength at its mean, and with it off on a part against random tokens."""
    rows: Any = frame[frame["part"] == "lost"]
    if rows.empty:
        reason = "no completions were graded"
        return [verdict(None, margin=margin, claim="strength-by-token-matters", unit=UNIT, testable=reason)]
    rows = rows[rows["temperature"] == rows["temperature"].max()]
    full: Any = frame[(frame["part"] == "causal") & (frame["vector"] == "trained") & (frame["applied"] == EVERYWHERE)]
    gain = gain_of(full[full["temperature"] == rows["temperature"].max()].iloc[0])
    reason = too_few(gain.n)
    if reason is None and not gain.low >= FLOOR:
        reason = f"the adapter gains {gain.points()}, whose lower end is below {100 * FLOOR:.0f}"
    found: list[Verdict] = []
    for _, row in rows.iterrows():
        lost = Interval(float(row["lost"]), float(row["lost_low"]), float(row["lost_high"]), int(row["n"]))
        part = str(row["applied"]).removeprefix("without ").replace(" ", "-")
        claim = (
            "strength-by-token-matters" if part == MEAN else f"strength-on-{part}-matters-more-than-on-random-tokens"
        )
        found.append(verdict(lost, None, margin, testable=reason, claim=claim, unit=UNIT))
    return found
