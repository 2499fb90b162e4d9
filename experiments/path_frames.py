"""Frames of path patching: what each patch recovers of a vector's effect, and the share of each path in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from experiments.attention_rows import RowChange
from experiments.factorial import ATTENTION, COALITIONS, PAIRS, PLAYERS, coalition_name, coalition_patch, contrasts
from experiments.patched_block import PatchedBlock, Readout, distances
from experiments.patches import SKIP_ATTN
from experiments.texts import Places, Texts, mean_by_row
from interp.edits import Edit
from interp.summaries import SHARE, UNBOUNDED, bootstrap

Array = NDArray[Any]

BOOTSTRAP = 1000
"""Bootstrap samples of an interval."""
_BOUNDS = {"attention_tv": SHARE}
SMALLEST = 1e-6
"""A whole effect below it is rounding: it has no shares."""


def patch_rows(
    block: PatchedBlock, at: Places, patches: Mapping[str, Edit], readout: Readout, *, intervals: bool
) -> list[pd.DataFrame]:
    """One row a patch, and with intervals one row a patch and problem beside."""
    found = distances(block, list(patches.values()), readout)
    recovered = _by_problem(block, at, found.whole[:, None] - found.left)
    whole = _by_problem(block, at, found.whole[:, None])
    beside = {name: _by_problem(block, at, getattr(found, name)) for name in ("kl", "tv", "max_dp")}
    examples = _examples(block, at)
    rows: list[pd.DataFrame] = []
    summary: list[dict[str, Any]] = []
    for index, name in enumerate(patches):
        own = {column: values[:, index] for column, values in beside.items()}
        means = {column: float(values.mean()) for column, values in own.items()}
        about = recovery(recovered[:, index], whole[:, 0], intervals=intervals)
        summary.append({"part": "patches", "patch": name, **about, **means})
        if intervals:
            each = {"value": recovered[:, index], "whole": whole[:, 0], "example": examples}
            rows.append(pd.DataFrame({"part": "problems", "patch": name, **each, **own}))
    return [pd.DataFrame(summary), *rows]


def sweep_rows(
    block: PatchedBlock,
    at: Places,
    patches: Mapping[str, Mapping[str, Edit]],
    readout: Readout,
    *,
    intervals: bool,
) -> pd.DataFrame:
    """One row a head of each family of patches, with what the head accounts for.

    That is what is lost where its patch skips it, and what it adds to skip-attn where its patch lets it alone in.
    """
    flat = [SKIP_ATTN, *(one for family in patches.values() for one in family.values())]
    found = distances(block, flat, readout, beside=False)
    recovered = _by_problem(block, at, found.whole[:, None] - found.left)
    whole = _by_problem(block, at, found.whole[:, None])[:, 0]
    rows: list[dict[str, Any]] = []
    for family, members in patches.items():
        for head, name in enumerate(members):
            value = recovered[:, len(rows) + 1]
            own = whole - value if family.startswith("skip-") else value - recovered[:, 0]
            ratio = recovery(own, whole, intervals=intervals)
            about = {f"head_{end}": ratio[end] for end in ("share", "share_low", "share_high")}
            about |= recovery(value, whole, intervals=intervals)
            rows.append({"part": "sweep", "family": family, "head": head, "patch": name, **about})
    return pd.DataFrame(rows)


def factorial_rows(block: PatchedBlock, at: Places, readout: Readout, *, intervals: bool) -> pd.DataFrame:
    """Worth of every coalition; alone, last and Shapley value of every path; interaction of every pair."""
    found = distances(block, [coalition_patch(one) for one in COALITIONS], readout, beside=False)
    worth = _by_problem(block, at, found.whole[:, None] - found.left)
    return game_rows(worth, _by_problem(block, at, found.whole[:, None])[:, 0], intervals=intervals)


def game_rows(worth: Array, whole: Array, *, intervals: bool) -> pd.DataFrame:
    """As `factorial_rows`, from the worth of each coalition on each problem, [problem, coalition]."""
    rows: list[dict[str, Any]] = []
    for coalition in COALITIONS:
        about = recovery(worth[:, coalition], whole, intervals=False)
        rows.append({"part": "coalitions", "patch": coalition_name(coalition), **about})
    for statistic, weights in contrasts().items():
        values = worth @ weights.T
        if statistic == "interaction":
            named = {f"{PLAYERS[a]} \u00d7 {PLAYERS[b]}": values[:, i] for i, (a, b) in enumerate(PAIRS)}
        else:
            named = {player: values[:, i] for i, player in enumerate(PLAYERS)}
            if statistic == "shapley":
                named["attention"] = values[:, [PLAYERS.index(player) for player in ATTENTION]].sum(1)
        rows += [
            {"part": "paths", "path": name, "statistic": statistic, **recovery(one, whole, intervals=intervals)}
            for name, one in named.items()
        ]
    return pd.DataFrame(rows)


def attention_frame(said: Texts, change: RowChange, *, intervals: bool) -> pd.DataFrame:
    """Mean total variation of attention rows, by head, tokens and keys; head -1 is the mean over heads.

    Tokens are averaged within a problem first. Prompt = the problem's tokens; completion = those that predict it.
    """
    rows: list[dict[str, Any]] = []
    for stratum, names in (("completion", ("first", "generated")), ("prompt", ("prompt",))):
        where = said.where(*names)
        row = where.nonzero(as_tuple=True)[0]
        for keys, values in (("all", change.all_keys), ("later", change.later_keys)):
            moved = _means(values, where, row)
            sink = _means(change.first_key, where, row)
            for head in range(-1, moved.shape[1]):
                own, first = (v.mean(1) if head < 0 else v[:, head] for v in (moved, sink))
                ends = _interval("attention_tv", own, intervals=intervals)
                about = {"head": head, "stratum": stratum, "keys": keys, "first_key": float(first.mean())}
                rows.append({"part": "attention", **about, **ends, "n": len(own)})
    return pd.DataFrame(rows)


def recovery(value: Array, whole: Array, *, intervals: bool) -> dict[str, float]:
    """Mean over problems of what is recovered, and its share in the whole effect: a ratio of means."""
    found = {"whole": float(whole.mean()), "n": len(value), **_interval("value", value, intervals=intervals)}
    names = ("share", "share_low", "share_high")
    if not whole.mean() > SMALLEST:
        return found | dict.fromkeys(names, float("nan"))
    if not intervals:
        return found | dict(zip(names, (float(value.mean() / whole.mean()), np.nan, np.nan), strict=True))
    ratio = bootstrap(np.stack([value, whole], -1), statistic=_ratio, draws=BOOTSTRAP)
    # where a patch recovers the whole by construction the ratio has no sampling error, and no interval is shown
    ends = (ratio.low, ratio.high) if ratio.finite else (np.nan, np.nan)
    return found | dict(zip(names, (ratio.estimate, *ends), strict=True))


def _interval(name: str, values: Array, *, intervals: bool) -> dict[str, float]:
    if not intervals:
        return {name: float(values.mean()), f"{name}_low": float("nan"), f"{name}_high": float("nan")}
    found = bootstrap(values, draws=BOOTSTRAP, bounds=_BOUNDS.get(name, UNBOUNDED))
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _ratio(rows: Array) -> float:
    value, whole = rows.mean(0)
    return float(value / whole) if whole > 0 else float("nan")


def _by_problem(block: PatchedBlock, at: Places, values: torch.Tensor) -> Array:
    """Means over each problem's places, [problem, column]; problems without a place are left out."""
    means = mean_by_row(values.double(), at.row.cpu(), len(block.said.examples))
    return means[_present(block, at)].numpy()


def _examples(block: PatchedBlock, at: Places) -> list[str]:
    return [block.said.examples[row] for row in _present(block, at).nonzero()[:, 0].tolist()]


def _present(block: PatchedBlock, at: Places) -> torch.Tensor:
    return torch.bincount(at.row.cpu(), minlength=len(block.said.examples)) > 0


def _means(values: torch.Tensor, where: torch.Tensor, row: torch.Tensor) -> Array:
    """Means over the tokens of a text, [text, head]; texts without such a token are left out."""
    means = mean_by_row(values.transpose(1, 2)[where].double(), row, len(values))
    return means[~means.isnan().any(1)].cpu().numpy()


def control_places(at: Places, n: int) -> Places:
    """The places of the first n texts."""
    keep = at.row < n
    where = at.where.clone()
    where[n:] = False
    return Places(where, at.row[keep], at.position[keep], at.stratum[keep], at.following[keep])
