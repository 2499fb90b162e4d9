"""Frames of token effects: by position, by chosen token, and summed over halves of the problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from experiments.texts import STRATA, Places, Texts
from experiments.token_effects import GROUPS, Effect, effects, groups_of, weights
from interp.bare_model import takes_model
from interp.summaries import GAIN, SHARE, UNBOUNDED, bootstrap

Array = NDArray[Any]


@takes_model
@dataclass(frozen=True)
class Table:
    """Turns hidden states under a vector into rows.

    Attributes:
        model: a Model.
        said: the texts.
        at: the positions that are read.
        halves: rows of the choosing and of the reporting half.
        selected: tokens chosen for each group of `GROUPS`.
        named: further tokens.
    """

    model: Any
    said: Texts
    at: Places
    halves: tuple[Sequence[int], Sequence[int]]
    selected: Int[Tensor, "group rank"]
    named: tuple[int, ...] = ()

    @property
    def tokens(self) -> list[int]:
        """Every chosen token once: those of the group "all" first."""
        return list(dict.fromkeys([*self.selected.flatten().tolist(), *self.named]))

    def effects(self, finals: Sequence[Tensor]) -> list[Effect]:
        """The effects of vectors by the hidden states that they lead to."""
        n_rows = len(self.said.examples)
        reporting = torch.isin(self.at.row, torch.tensor(list(self.halves[1]), device=self.at.row.device))
        tokens = torch.tensor(self.tokens, device=self.at.row.device)
        choosing = weights(self.at, self.halves[0], n_rows)
        base = self.said.forced.base[self.at.where]
        return effects(self.model, base, finals, tokens, choosing, groups_of(self.at) * reporting)

    def parts(self, effect: Effect, *, trained: bool) -> list[pd.DataFrame]:
        """The rows of one vector; single tokens at single positions and intervals for the vector under study only."""
        frames = [self.positions(effect), self.summary(effect, intervals=trained)]
        return [*frames, self.by_token(effect)] if trained else [*frames, self.concentration(effect)]

    def positions(self, effect: Effect) -> pd.DataFrame:
        """One row a position."""
        columns: dict[str, Any] = {name: column.numpy() for name, column in effect.columns.items()}
        for name in ("max_token", "min_token", "argmax_base", "argmax_steered"):
            columns[name] = [self.text(token) for token in effect.columns[f"{name}_id"].tolist()]
        return pd.DataFrame({"part": "positions", **self._where(), **columns})

    def by_token(self, effect: Effect) -> pd.DataFrame:
        """One row a position and chosen token."""
        chosen = set(self.selected.flatten().tolist())
        frames = [
            pd.DataFrame(
                {
                    "part": "chosen",
                    **self._where(),
                    "token_id": token,
                    "token": self.text(token),
                    "chosen_by": "selected" if token in chosen else "named",
                    "p_base": effect.p_base[:, index].numpy(),
                    "p_steered": effect.p_steered[:, index].numpy(),
                    "delta_p": (effect.p_steered - effect.p_base)[:, index].numpy(),
                    "delta_log_odds": effect.delta_log_odds[:, index].numpy(),
                }
            )
            for index, token in enumerate(self.tokens)
        ]
        return pd.concat(frames, ignore_index=True)

    def summary(self, effect: Effect, *, intervals: bool) -> pd.DataFrame:
        """One row a group, half and token that was chosen for the group."""
        rows: list[dict[str, Any]] = []
        for group, name in enumerate(GROUPS):
            inside = groups_of(self.at)[group].cpu().numpy() > 0
            for half, members in zip(("choosing", "held-out"), self.halves, strict=True):
                keep = inside & np.isin(self.at.row.cpu().numpy(), members)
                for rank, token in enumerate(self.selected[group].tolist(), start=1):
                    values = self._token(effect, keep, self.tokens.index(token), intervals=intervals)
                    place = {"stratum": name, "half": half, "rank": rank, "token_id": token, "token": self.text(token)}
                    rows.append({"part": "summary", **place, **values})
        return pd.DataFrame(rows)

    def concentration(self, effect: Effect) -> pd.DataFrame:
        """For a control: the share of the token that was chosen for the control itself, on the reporting half."""
        rows: list[dict[str, Any]] = []
        for group, name in enumerate(GROUPS):
            token = int(effect.mean[group].abs().argmax())
            share = float(effect.share[group, token])
            about = {"half": "held-out", "rank": 1, "token_id": token, "token": self.text(token)}
            rows.append({"part": "concentration", "stratum": name, **about, "tv_share": share})
        return pd.DataFrame(rows)

    def text(self, token: int) -> str:
        """Text of a token that Parquet can hold."""
        return storable(self.model.token_text(token))

    def _where(self) -> dict[str, Any]:
        return {
            "example": [self.said.examples[row] for row in self.at.row.tolist()],
            "position": self.at.position.cpu().numpy(),
            "stratum": [STRATA[code] for code in self.at.stratum.tolist()],
        }

    def _token(self, effect: Effect, keep: Array, index: int, *, intervals: bool) -> dict[str, Any]:
        _, code = np.unique(self.at.row.cpu().numpy()[keep], return_inverse=True)
        change = (effect.p_steered - effect.p_base)[:, index].numpy()[keep]
        odds = effect.delta_log_odds[:, index].numpy()[keep]
        count = np.bincount(code)
        moved = [np.bincount(code, values) for values in (np.abs(change) / 2, effect.columns["tv"].numpy()[keep])]
        statistics = {
            "u": np.bincount(code, change) / count,
            "delta_log_odds": np.bincount(code, odds) / count,
            "tv_share": np.stack(moved, -1),
        }
        found: dict[str, Any] = {"n": len(count)}
        for name, values in statistics.items():
            found |= _interval(name, values, intervals=intervals)
        return found


def _interval(name: str, values: Array, *, intervals: bool) -> dict[str, float]:
    """A mean over problems, or a ratio of their sums; without an interval where none is asked for."""
    statistic = _ratio if values.ndim == 2 else None
    if not len(values) or not intervals:
        estimate = float("nan") if not len(values) else _ratio(values) if statistic else float(values.mean())
        return {name: estimate, f"{name}_low": float("nan"), f"{name}_high": float("nan")}
    found = bootstrap(values, statistic=statistic, draws=1000, bounds=_BOUNDS.get(name, UNBOUNDED))
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _ratio(values: Array) -> float:
    top, bottom = values.sum(0)
    return float(top / bottom) if bottom > 0 else 0.0


_BOUNDS = {"u": GAIN, "tv_share": SHARE}
"""What a single problem can give, by statistic."""


def storable(text: str) -> str:
    """Text without lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")
