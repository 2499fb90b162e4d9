"""Frames of token-wise strengths: by token, by segment, by kind of word, and the contrast that the claim is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from experiments.adaptive_coefficients import SEGMENTS, Rows, Strength
from experiments.adaptive_words import CLASSES, CONTENT
from experiments.controls import control_interval, too_few
from experiments.token_frames import storable
from interp.bare_model import takes_model
from interp.digest import digest
from interp.summaries import GAIN, POSITIVE, UNBOUNDED, Interval, Verdict, bootstrap, verdict

Array = NDArray[Any]

FUNCTION = "function word"
UNIT = "contrast, (content - function) / (content + function)"


@takes_model
def tokens(model: Any, rows: Rows, strength: Strength, shown: Sequence[int]) -> pd.DataFrame:
    """One row a token of some rows."""
    frames: list[pd.DataFrame] = []
    position = rows.batch.position.cpu().numpy()
    ids = rows.batch.ids.cpu().numpy()
    for row in shown:
        real = position[row] >= 0
        found: dict[str, Any] = {
            "part": "tokens",
            "example": rows.examples[row],
            "index": position[row][real],
            "token_id": ids[row][real],
            "token": [storable(model.token_text(int(token))) for token in ids[row][real]],
            "segment": rows.segment[row][real],
            "word": rows.kind[row][real],
            "c": strength.c[0, row].numpy()[real],
            "cosine": strength.cosine[row].numpy()[real],
        }
        frames.append(pd.DataFrame(found))
    return pd.concat(frames, ignore_index=True)


def segments(rows: Rows, strength: Strength) -> pd.DataFrame:
    """Mean c and |c| of each segment, over tokens, then problems; tokens of the template are in none."""
    c = strength.c[0].numpy()
    found: list[dict[str, Any]] = []
    for name in SEGMENTS:
        inside = rows.counted & (rows.segment == name)
        means = _by_row(np.stack([np.abs(c), c], -1), inside)
        if len(means):
            about = {"part": "segments", "segment": name, "n": len(means)}
            found.append({**about, **_ends("magnitude", means[:, 0]), **_ends("c", means[:, 1], mean="c_mean")})
    return pd.DataFrame(found)


def agreement(rows: Rows, strength: Strength) -> pd.DataFrame:
    """Spearman's correlation of c_t with cos(MLP output, b) over each problem's tokens, mean over problems."""
    each: list[float] = []
    for row in range(len(rows.examples)):
        keep = rows.counted[row]
        if keep.sum() >= 3:
            found: Any = stats.spearmanr(strength.c[0, row].numpy()[keep], strength.cosine[row].numpy()[keep])
            each.append(float(found.statistic))
    known = np.array(each)[np.isfinite(each)]
    if not len(known):
        return pd.DataFrame()
    return pd.DataFrame([{"part": "agreement", "n": len(known), **_ends("correlation", known)}])


def by_word(c: Array, rows: Rows, *, intervals: bool) -> pd.DataFrame:
    """Mean |c| of each kind of word over the mean of all words of the problem; over tokens, then problems."""
    size = np.abs(c)
    every = rows.counted & np.isin(rows.kind, CLASSES[:-1])
    found: list[dict[str, Any]] = []
    for name in CLASSES[:-1]:
        inside = every & (rows.kind == name)
        both = inside.any(1) & every.any(1)
        if not both.any():
            continue
        pairs = np.stack([_means(size, inside)[both], _means(size, every)[both]], -1)
        ends = _ratio_ends("relative", pairs, _ratio, intervals=intervals)
        found.append({"part": "words", "word": name, "n": int(both.sum()), **ends})
    return pd.DataFrame(found)


def contrast(c: Array, rows: Rows, *, intervals: bool) -> dict[str, Any]:
    """How much larger |c| is on content words than on function words of the same problem, in [-1, 1].

    (C - F) / (C + F) of the means over problems: it does not change with the size of a or b.
    """
    size = np.abs(c)
    content = rows.counted & np.isin(rows.kind, CONTENT)
    function = rows.counted & (rows.kind == FUNCTION)
    both = content.any(1) & function.any(1)
    if not both.any():
        return {}
    pairs = np.stack([_means(size, content)[both], _means(size, function)[both]], -1)
    ends = _ratio_ends("contrast", pairs, _contrast, intervals=intervals)
    return {"part": "contrast", "n": int(both.sum()), **ends}


def shuffled(c: Array, rows: Rows, draw: int, seed: int) -> Array:
    """The same values at shuffled words of the same problem."""
    mixed = c.copy()
    for row, example in enumerate(rows.examples):
        columns = np.flatnonzero(rows.counted[row] & np.isin(rows.kind[row], CLASSES[:-1]))
        order = np.random.default_rng(int(digest("shuffled", seed, draw, example), 16)).permutation(columns)
        mixed[row, columns] = c[row, order]
    return mixed


def judge_words(frame: pd.DataFrame, margin: float) -> Verdict:
    """Whether the adapter is stronger on content words than on function words, by more than random readers are."""
    claim = "magnitude-sits-on-content-words"
    rows: Any = frame[frame["part"] == "contrast"]
    own = rows[rows["vector"] == "trained"]
    drawn = rows[rows["vector"] != "trained"]
    kinds = {str(kind): list(part["contrast"]) for kind, part in drawn.groupby("vector")}
    control = control_interval(kinds, tuple(kinds))
    if own.empty or control is None:
        reason = "no problem has both kinds of words" if own.empty else "there are no control draws to compare with"
        return verdict(None, margin=margin, claim=claim, unit=UNIT, testable=reason)
    one = own.iloc[0]
    estimate, low, high = (float(one[name]) for name in ("contrast", "contrast_low", "contrast_high"))
    effect = Interval(estimate, low, high, int(one["n"]))
    return verdict(effect, control, margin, testable=too_few(effect.n), claim=claim, unit=UNIT)


def _means(values: Array, inside: Array) -> Array:
    """Mean of each row over some of its tokens; NaN where it has none."""
    count = inside.sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(inside, values, 0.0).sum(1) / np.where(count > 0, count, np.nan)


def _by_row(values: Array, inside: Array) -> Array:
    means = np.stack([_means(values[..., index], inside) for index in range(values.shape[-1])], -1)
    return means[inside.any(1)]


def _ends(name: str, values: Array, mean: str | None = None) -> dict[str, float]:
    found = bootstrap(values, bounds=GAIN if name == "correlation" else UNBOUNDED)
    return {mean or name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _ratio_ends(name: str, pairs: Array, statistic: Any, *, intervals: bool) -> dict[str, float]:
    if not intervals:
        return {name: statistic(pairs), f"{name}_low": np.nan, f"{name}_high": np.nan}
    found = bootstrap(pairs, statistic=statistic, draws=1000, bounds=GAIN if name == "contrast" else POSITIVE)
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _ratio(pairs: Array) -> float:
    top, bottom = pairs.sum(0)
    return float(top / bottom) if bottom > 0 else float("nan")


def _contrast(pairs: Array) -> float:
    content, function = pairs.sum(0)
    whole = content + function
    return float((content - function) / whole) if whole > 0 else 0.0
