"""What vectors do to the probabilities of single tokens: position by position, and summed over halves of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.texts import STRATA, Places, Texts
from interp.bare_model import takes_model
from interp.distributions import blocks, entropy, kl, log_odds, log_probs, total_variation

GROUPS = ("all", "first", "generated")
"""Strata of sums: "all" = first and generated positions together; template tokens are in none."""


def groups_of(at: Places) -> Float[Tensor, "group place"]:
    """1 where a place belongs to a group."""
    first = at.stratum == STRATA.index("first")
    generated = at.stratum == STRATA.index("generated")
    return torch.stack([first | generated, first, generated]).float()


def weights(at: Places, rows: Sequence[int], n_rows: int) -> Float[Tensor, "group place"]:
    """Weights that average first over a row's places, then over rows; zero outside `rows`."""
    member = groups_of(at)
    chosen = torch.zeros(n_rows, device=member.device)
    chosen[list(rows)] = 1
    counts = torch.zeros(len(GROUPS), n_rows, device=member.device).index_add(1, at.row, member)
    each = torch.where(counts > 0, chosen / counts.clamp(min=1), 0.0)
    each = each / (each * counts).sum(1, keepdim=True).clamp(min=1)
    return member * each[:, at.row]


@dataclass
class Effect:
    """One vector's effect at some places.

    Attributes:
        columns: per place: kl, tv, max_dp, max_token_id, min_dp, min_token_id, entropy and argmax of both runs.
        p_base: probability of the chosen tokens without the vector, [place, token].
        p_steered: the same with it.
        delta_log_odds: change of log-odds of the chosen tokens, nats, [place, token].
        mean: U(v) of each group on the choosing half, [group, vocab].
        share: each token's part of the summed total variation of each group on the reporting half, [group, vocab].
    """

    columns: dict[str, Tensor]
    p_base: Float[Tensor, "place token"]
    p_steered: Float[Tensor, "place token"]
    delta_log_odds: Float[Tensor, "place token"]
    mean: Float[Tensor, "group vocab"]
    share: Float[Tensor, "group vocab"]


@dataclass
class _Sums:
    """An effect under way, block by block of places."""

    columns: list[dict[str, Tensor]] = field(default_factory=list[dict[str, Tensor]])
    chosen: list[Tensor] = field(default_factory=list[Tensor])
    mean: Any = 0.0
    moved: Any = 0.0
    total: Any = 0.0

    def add(self, base: Tensor, steered: Tensor, tokens: Tensor, choosing: Tensor, reporting: Tensor) -> None:
        change = steered.exp() - base.exp()
        most, least = change.max(-1), change.min(-1)
        variation = total_variation(steered, base)
        columns = {
            "max_dp": most.values,
            "max_token_id": most.indices,
            "min_dp": least.values,
            "min_token_id": least.indices,
            "argmax_base_id": base.argmax(-1),
            "argmax_steered_id": steered.argmax(-1),
            "entropy_base": entropy(base),
            "entropy_steered": entropy(steered),
            "kl": kl(steered, base),
            "tv": variation,
        }
        self.columns.append({name: column.cpu() for name, column in columns.items()})
        of_base, of_steered = base[:, tokens], steered[:, tokens]
        odds = log_odds(of_steered) - log_odds(of_base)
        self.chosen.append(torch.stack([of_base.exp(), of_steered.exp(), odds]).cpu())
        self.mean = self.mean + choosing @ change
        self.moved = self.moved + reporting @ change.abs()
        self.total = self.total + 2 * (reporting @ variation)

    def effect(self) -> Effect:
        p_base, p_steered, odds = torch.cat(self.chosen, 1)
        columns = {name: torch.cat([part[name] for part in self.columns]) for name in self.columns[0]}
        share = self.moved / self.total[:, None].clamp(min=1e-30)
        return Effect(columns, p_base, p_steered, odds, self.mean.cpu(), share.cpu())


@takes_model
def effects(
    model: Any,
    base: Float[Tensor, "place d_model"],
    steered: Sequence[Float[Tensor, "place d_model"]],
    tokens: Int[Tensor, " token"],
    choosing: Float[Tensor, "group place"],
    reporting: Float[Tensor, "group place"],
) -> list[Effect]:
    """The effects of several vectors; the base's distributions are made once for all of them.

    Args:
        model: a Model.
        base: hidden states after the last block without the vectors.
        steered: the same with each of them.
        tokens: ids of the chosen tokens.
        choosing: weights of the half on which tokens are chosen, see `weights`.
        reporting: 1 for the places of the other half.
    """
    sums = [_Sums() for _ in steered]
    for some in blocks(base, model.d_vocab):
        log_base = log_probs(model, base[some])
        for one, final in zip(sums, steered, strict=True):
            one.add(log_base, log_probs(model, final[some]), tokens, choosing[:, some], reporting[:, some])
    return [one.effect() for one in sums]


def choose(mean: Float[Tensor, "group vocab"], k: int) -> Int[Tensor, "group k"]:
    """The tokens with the largest |U|, of each group."""
    return mean.abs().topk(min(k, mean.shape[1]), dim=1).indices


@takes_model
def chosen_tokens(
    model: Any, said: Texts, at: Places, steered: Float[Tensor, "place d_model"], half: Sequence[int], k: int
) -> Int[Tensor, "group k"]:
    """Tokens chosen by a vector's |U| on one half of the problems; the other half is not looked at."""
    keep = torch.isin(at.row, torch.tensor(list(half), device=at.row.device))
    choosing = weights(at, half, len(said.examples))[:, keep]
    nothing = torch.zeros(0, dtype=torch.long, device=at.row.device)
    base = said.forced.base[at.where][keep]
    found = effects(model, base, [steered[keep]], nothing, choosing, torch.zeros_like(choosing))
    return choose(found[0].mean, k)
