"""Scalars of a text that attributions are taken of: differentiable, in nats per predicted token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.attribute import Metric
from sae.passes import Layout

METRICS = ("kl", "log_prob", "logit_diff")
"""KL(steered || base); log-probability of the completion that was said; logit of the steered model's choice less that
of the base's, where they differ. Each a mean over the positions that predict the completion."""


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
        base_log_p = model.unembed(base).float().log_softmax(-1)
        chosen = torch.stack([model.unembed(final).argmax(-1) for final in (steered, base)])
    said, count = layout.said, layout.said.sum(1)
    differs = said & (chosen[0] != chosen[1])

    def log_prob(final: Tensor, text: Int[Tensor, " row"]) -> Tensor:
        found = model.unembed(final).float().log_softmax(-1)
        found = found.gather(-1, layout.following[text].clamp(min=0)[..., None])[..., 0]
        return (found * said[text]).sum(1) / count[text]

    def kl(final: Tensor, text: Int[Tensor, " row"]) -> Tensor:
        log_p = model.unembed(final).float().log_softmax(-1)
        found = (log_p.exp() * (log_p - base_log_p[text])).sum(-1)
        return (found * said[text]).sum(1) / count[text]

    def logit_diff(final: Tensor, text: Int[Tensor, " row"]) -> Tensor:
        logits = model.unembed(final).float()
        ours, theirs = (logits.gather(-1, chosen[side][text][..., None])[..., 0] for side in (0, 1))
        return ((ours - theirs) * differs[text]).sum(1) / differs[text].sum(1).clamp(min=1)

    return {"kl": kl, "log_prob": log_prob, "logit_diff": logit_diff}
