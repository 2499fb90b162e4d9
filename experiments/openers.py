"""First tokens of a completion: which one a vector raises most, and which the base takes by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.controls import Acting
from experiments.texts import special_ids
from experiments.token_frames import storable
from interp.bare_model import takes_model
from interp.batch import Batch
from interp.context import Context
from interp.distributions import blocks, log_probs
from interp.forced import Forced

BASE = "base"


@takes_model
@dataclass(frozen=True)
class Openers:
    """Mean distributions of the first generated token over training problems.

    Attributes:
        model: a Model.
        forced: the prompts, run without vectors.
        base: mean probability of each token, zero for tokens of the template and those that end a completion.
        allowed: 0 for those tokens, 1 for the others.
    """

    model: Any
    forced: Forced
    base: Float[Tensor, " vocab"]
    allowed: Float[Tensor, " vocab"]

    @classmethod
    def of(cls, ctx: Context, n: int, layer: int) -> Openers:
        """Read at the last prompt position of the first n training problems.

        Raises:
            UserError: the task has no training problems, so that no token can be chosen on them.
        """
        prompts = ctx.prompts(ctx.problems("train", n))
        forced = Forced(ctx.model, Batch.of(prompts, device=ctx.model.device), keep=[layer])
        allowed = torch.ones(ctx.model.d_vocab)
        allowed[sorted(special_ids(ctx.model))] = 0
        return cls(ctx.model, forced, mean_first(ctx.model, forced.base) * allowed, allowed)

    def likeliest(self, k: int) -> list[int]:
        """The base's k likeliest first tokens."""
        return self.base.topk(min(k, int((self.base > 0).sum()))).indices.tolist()

    def raised(self, vectors: Acting) -> tuple[int, float]:
        """The token whose mean probability a vector raises most, and by how much: the largest U(v)."""
        final, _ = self.forced.steered(vectors.edits())
        change = (mean_first(self.model, final) * self.allowed) - self.base
        change[self.allowed == 0] = -torch.inf
        return int(change.argmax()), float(change.max())

    def choice(self, vector: str, draw: int, token: int, u: float) -> dict[str, Any]:
        """A row of the frame of chosen tokens."""
        text = storable(self.model.token_text(token))
        about = {"vector": vector, "draw": draw, "token_id": token, "token": text, "u": u}
        return {**about, "p_base": float(self.base[token])}


@takes_model
def mean_first(model: Any, final: Float[Tensor, "row pos d_model"]) -> Float[Tensor, " vocab"]:
    """Mean over rows of the next-token distribution at their last position."""
    last = final[:, -1]
    sums = [log_probs(model, last[some]).exp().sum(0) for some in blocks(last, model.d_vocab)]
    return (torch.stack(sums).sum(0) / len(last)).cpu()


def choices(openers: Openers, vectors: Acting, controls: Mapping[str, Sequence[Acting]], k: int) -> pd.DataFrame:
    """Tokens chosen by the vector, by each control, and the base's likeliest ones, a row each.

    Returns:
        vector ("trained", a kind of control, or "opener"), draw (the opener's rank less 1), token_id, token, u (change
        of the mean probability by that vector; empty for openers), p_base.
    """
    rows = [openers.choice("trained", 0, *openers.raised(vectors))]
    for kind, drawn in controls.items():
        rows += [openers.choice(kind, draw, *openers.raised(one)) for draw, one in enumerate(drawn)]
    rows += [openers.choice("opener", rank, token, float("nan")) for rank, token in enumerate(openers.likeliest(k))]
    return pd.DataFrame(rows)


def distinct(tokens: Iterable[int]) -> list[int]:
    """Each token once, in order."""
    return list(dict.fromkeys(tokens))
