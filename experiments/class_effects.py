"""Probability of classes of tokens: summed change, and change of log-odds, by problem."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.texts import Places, Texts, mean_by_row
from interp.bare_model import takes_model
from interp.distributions import blocks, log_odds, log_probs
from interp.summaries import GAIN, UNBOUNDED, bootstrap

UNION = ("process word", "structure symbol")
"""The claim speaks of these two; together they are one class more, in the rows by problem."""
UNION_NAME = "process word or structure symbol"


@takes_model
def class_log_probs(
    model: Any, final: Float[Tensor, "place d_model"], codes: Int[Tensor, " vocab"], n_classes: int
) -> Float[Tensor, "place class"]:
    """Log-probability of each class of next tokens, nats."""
    found: list[Tensor] = []
    for some in blocks(final, model.d_vocab):
        log_p = log_probs(model, final[some])
        index = codes.to(log_p.device).expand(len(log_p), -1)
        mass = log_p.new_zeros(len(log_p), n_classes).scatter_add(1, index, log_p.exp())
        found.append(mass.clamp(min=1e-30).log())
    return torch.cat(found)


def with_union(log_p: Float[Tensor, "place class"], names: tuple[str, ...]) -> Float[Tensor, "place more"]:
    """One column more: the classes of `UNION` together."""
    both = torch.logsumexp(log_p[:, [names.index(name) for name in UNION]], 1, keepdim=True)
    return torch.cat([log_p, both], 1)


def by_problem(
    said: Texts,
    at: Places,
    base: Float[Tensor, "place class"],
    steered: Float[Tensor, "place class"],
    names: tuple[str, ...],
) -> pd.DataFrame:
    """Mean over each problem's places: example, token_class, delta_p, log_odds."""
    base, steered = with_union(base, names), with_union(steered, names)
    changes = {"delta_p": steered.exp() - base.exp(), "log_odds": log_odds(steered) - log_odds(base)}
    means = {name: mean_by_row(change, at.row, len(said.examples)).cpu() for name, change in changes.items()}
    frames = [
        pd.DataFrame(
            {
                "example": list(said.examples),
                "token_class": token_class,
                **{name: mean[:, index].numpy() for name, mean in means.items()},
            }
        )
        for index, token_class in enumerate((*names, UNION_NAME))
    ]
    return pd.concat(frames, ignore_index=True).dropna()


def summarise(rows: pd.DataFrame, *, intervals: bool) -> pd.DataFrame:
    """Mean over problems of each class, with intervals over problems; the union is left to the rows by problem."""
    found: list[dict[str, Any]] = []
    shown: Any = rows[rows["token_class"] != UNION_NAME]
    for token_class, own in shown.groupby("token_class", sort=False):
        row: dict[str, Any] = {"token_class": token_class, "n": len(own)}
        for name in ("delta_p", "log_odds"):
            if intervals:
                interval = bootstrap(own[name], bounds=GAIN if name == "delta_p" else UNBOUNDED)
                row |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
            else:
                row |= {name: float(own[name].mean()), f"{name}_low": float("nan"), f"{name}_high": float("nan")}
        found.append(row)
    return pd.DataFrame(found)
