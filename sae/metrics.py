"""Scalars of a text that attributions are taken of: differentiable, in nats per predicted token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.bare_model import takes_model
from sae.attribute import Metric, Read
from sae.passes import Layout

METRICS = ("kl", "log_prob", "logit_diff")
"""KL(steered || base); log-probability of the completion that was said; logit of the steered model's choice less that
of the base's, where they differ. Each a mean over the positions that predict the completion."""


@takes_model
def metrics(
    model: Any, layout: Layout, base: Float[Tensor, "row pos d_model"], steered: Float[Tensor, "row pos d_model"]
) -> Mapping[str, Metric]:
    """The scalars of METRICS on some texts, by name.

    Args:
        model: a Model.
        layout: the texts.
        base: hidden states after the last block without edits, at `Layout.tails`.
        steered: the same with them.
    """
    with torch.no_grad():
        base_log_p, log_p = (model.unembed(final).float().log_softmax(-1) for final in (base, steered))
        ours, theirs = log_p.argmax(-1), base_log_p.argmax(-1)
    said = layout.said / layout.said.sum(1, keepdim=True)
    differs = layout.said & (ours != theirs)
    differs = differs / differs.sum(1, keepdim=True).clamp(min=1)

    def log_prob(read: Read) -> Tensor:
        return read.log_prob(layout.following) * read.of(said)

    def kl(read: Read) -> Tensor:
        return (read.log_p.exp() * (read.log_p - read.of(base_log_p))).sum(-1) * read.of(said)

    def logit_diff(read: Read) -> Tensor:
        return (read.log_prob(ours) - read.log_prob(theirs)) * read.of(differs)

    return {"kl": kl, "log_prob": log_prob, "logit_diff": logit_diff}
