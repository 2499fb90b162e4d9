"""A tuned lens trained on the divergence of next-token distributions, as in arXiv:2303.08112 sec. 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.lens import Affine, unexplained

LOOK = 25
"""Steps between looks at the held-out rows."""

_Map = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Rows:
    """Streams at two places, and what reads the later one."""

    x: Float[Tensor, "n d_model"]
    final: Float[Tensor, "n d_model"]
    unembed: Callable[[Tensor], Tensor]

    def divergence(self, affine: _Map, some: Int[Tensor, " some"]) -> Tensor:
        """Summed KL(next token from final || from the mapped x) of some rows, nats."""
        some = some.to(self.x.device)
        own = self.x[some].float()
        read = self.unembed((own + own @ affine[0] + affine[1]).to(self.x.dtype)).float().log_softmax(-1)
        with torch.no_grad():
            wanted = self.unembed(self.final[some]).float().log_softmax(-1)
        return torch.nn.functional.kl_div(read, wanted, log_target=True, reduction="sum")

    def mean(self, affine: _Map, some: Int[Tensor, " some"], batch: int) -> float:
        """The same a row, without gradient."""
        with torch.no_grad():
            return sum(float(self.divergence(affine, part)) for part in some.split(batch)) / len(some)


def train_affine(
    start: Affine,
    x: Float[Tensor, "n d_model"],
    final: Float[Tensor, "n d_model"],
    held_out: Int[Tensor, " held"],
    unembed: Callable[[Tensor], Tensor],
    *,
    steps: int = 250,
    rate: float = 1e-3,
    batch: int = 256,
    seed: int = 0,
) -> Affine:
    """Train a map with Adam, from a ridge solution, on random rows that are not held out.

    Of all states that are looked at, the start included, the one with the least held-out divergence is taken: it is
    never worse there than the start.

    Args:
        start: of `fit_affine` on the same rows.
        x: residual stream at the earlier place, a row for each token.
        final: residual stream after the last block, the same tokens.
        held_out: rows of problems that are not among the other rows.
        unembed: final residuals -> logits, differentiable.
        steps: of the optimiser.
        rate: in units of the ridge solution's root mean square weight, and of the stream's deviation for the bias.
        batch: rows a step.
        seed: of the order of rows.
    """
    rows, kept = _Rows(x, final, unembed), torch.ones(len(x), dtype=torch.bool)
    kept[held_out] = False
    training = kept.nonzero()[:, 0]
    shift, bias = affine = tuple(t.detach().to(x.device).clone().requires_grad_() for t in (start.shift, start.bias))
    rates = rate * float(start.shift.square().mean().sqrt()), rate * float(final.float().std())
    optimiser = torch.optim.Adam([{"params": [one], "lr": own} for one, own in zip(affine, rates, strict=True)])
    generator = torch.Generator().manual_seed(seed)
    best, found = rows.mean((shift, bias), held_out, batch), _copy(shift, bias)
    for step in range(1, steps + 1):
        some = training[torch.randint(len(training), (batch,), generator=generator)]
        optimiser.zero_grad()
        (rows.divergence((shift, bias), some) / batch).backward()
        optimiser.step()
        if step % LOOK == 0 and (now := rows.mean((shift, bias), held_out, batch)) < best:
            best, found = now, _copy(shift, bias)
    own, target = (value[held_out.to(x.device)].float() for value in (x, final))
    return Affine(found[0].cpu(), found[1].cpu(), start.ridge, 1 - unexplained(own, target - own, *found), best)


def _copy(shift: Tensor, bias: Tensor) -> _Map:
    return shift.detach().clone(), bias.detach().clone()
