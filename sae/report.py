"""How good a dictionary is on tokens that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from interp.bare_model import takes_model
from interp.batch import Batch
from interp.edits import Edit
from interp.forced import Forced
from interp.readouts import readout
from interp.scoring import PREDICTING, positions_of, read
from sae.dictionary import Dictionary

LEAST_EXPLAINED = 0.6
MOST_L0_SHIFT = 0.2
MOST_DEAD = 0.3


class Report(BaseModel):
    """Measured on held-out problems; a share below 0 is worse than the mean, or than leaving the change out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    explained: float
    """Explained variance: 1 - sum |x - x^|^2 / sum |x - mean x|^2."""
    l0_trained: float
    """Active features of a token while training ended."""
    l0: float
    """Active features of a held-out token, after saving and loading."""
    dead: float
    """Share of features that are active on no held-out token."""
    kl: float
    """Mean KL(steered || base), nats per predicted token."""
    recovered: float
    """1 - KL(with x replaced by its reconstruction || steered) / KL(base || steered): 1 = the reconstruction does all
    that x does, 0 = no more than leaving the change out. Only for a change; 0 otherwise."""
    tokens: int
    """Held-out tokens."""

    @property
    def good(self) -> bool:
        """Whether it is good enough to be shown: >= 0.6 explained, L0 within 20 % after reload, < 30 % dead."""
        return not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why it is not good enough, in words; empty where it is."""
        shift = abs(self.l0 - self.l0_trained) / max(self.l0_trained, 1e-9)
        told = [
            (self.explained < LEAST_EXPLAINED, f"explained variance {self.explained:.2f} < {LEAST_EXPLAINED}"),
            (shift > MOST_L0_SHIFT, f"L0 {self.l0:.1f} after reload, {self.l0_trained:.1f} in training"),
            (self.dead >= MOST_DEAD, f"{100 * self.dead:.0f} % of its features are dead"),
        ]
        return [reason for bad, reason in told if bad]


def explained(x: Float[Tensor, "row d_model"], reconstruction: Float[Tensor, "row d_model"]) -> float:
    """Explained variance of the rows together; below 0 where the mean does better."""
    left = float((x - reconstruction).square().sum())
    return 1 - left / max(float((x - x.mean(0)).square().sum()), 1e-30)


def sparsity(dictionary: Dictionary, x: Float[Tensor, "row d_model"]) -> tuple[float, float]:
    """L0, active features of a row, and the share of features that are active in none."""
    active = torch.cat([dictionary.encode(some) != 0 for some in x.split(4096)])
    return float(active.sum(1).float().mean()), float((~active.any(0)).float().mean())


@takes_model
def recovery(model: Any, batch: Batch, edits: Sequence[Edit], dictionary: Dictionary) -> tuple[float, float]:
    """Mean KL(steered || base), nats, and the share of it that the reconstruction of the change recovers.

    Args:
        model: a Model.
        batch: prompts with completions.
        edits: the intervention.
        dictionary: of the change.
    """
    from sae.edits import Reconstruct

    forced = Forced(model, batch)
    at = positions_of(model, batch, PREDICTING)
    ids = torch.zeros(int(at.sum()), dtype=torch.long, device=at.device)
    steered = forced.steered(edits)[0][at]
    rebuilt = forced.steered([*edits, Reconstruct(dictionary)])[0][at]

    def kl(other: Tensor, to: Tensor) -> float:
        """Mean KL(to || other)."""
        return float(torch.tensor(read(model, [readout("kl")], other, to, ids)["kl"]).mean())

    base = forced.base[at]
    lost = kl(steered, base)
    return kl(base, steered), 1 - kl(steered, rebuilt) / max(lost, 1e-30)
