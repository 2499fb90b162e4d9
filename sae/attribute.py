"""Which features a scalar comes from: gradient times activation, and exact ablation to hold it against.

With the gates held fixed, x -> sum_j f_j d_j + stop(error), the derivative of a scalar m along feature j at token t is
grad_t m . d_j, so that its attribution is f_j(t) (grad_t m . d_j), and one backward pass gives all of them. The error
(and the bias) are nodes of their own. An attribution estimates m - m(feature j taken out), which `ablations` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.editor import Editor
from interp.edits import Edit
from interp.errors import UserError
from sae.dictionary import Dictionary
from sae.passes import Layout, Streams, described, streams

Metric = Callable[[Tensor, Tensor], Tensor]
"""(hidden states after the last block [row, pos, d_model], index of each row's text [row]) -> a scalar of each row."""

ROWS_AT_ONCE = 24
"""Ablated copies of a text that run together; results do not depend on it."""


@dataclass(frozen=True)
class Nodes:
    """Attributions of one scalar, in its unit, summed over the positions of each text.

    Attributes:
        features: of each feature.
        error: of what the dictionary leaves out of x.
        bias: of its bias.
        value: the scalar itself.
        gradient: derivative of the scalar by the stream, 0 outside of the completion.
    """

    features: Float[Tensor, "text feature"]
    error: Float[Tensor, " text"]
    bias: Float[Tensor, " text"]
    value: Float[Tensor, " text"]
    gradient: Float[Tensor, "text pos d_model"]


class Attributor:
    """Texts under an intervention, ready to be differentiated and ablated at a dictionary's site.

    Args:
        model: a Model.
        layout: texts; one row of `tails` each.
        edits: the intervention.
        dictionary: of the change that it makes, or of the stream.

    Raises:
        UserError: the dictionary's site is not a block's output, where a pass can resume.
    """

    def __init__(self, model: Any, layout: Layout, edits: Sequence[Edit], dictionary: Dictionary) -> None:
        site = dictionary.site
        if site.stream != "resid_post":
            raise UserError("attribution resumes at a block's output", given=str(site), works="resid_post")
        self.model, self.layout, self.site = model, layout, site
        self.above = [edit for edit in edits if min(one.layer for one in edit.sites) > site.layer]
        self.steered: Streams = streams(model, layout, edits, site, whole=True)
        self.base: Streams | None = streams(model, layout, (), site) if dictionary.card.of == "change" else None
        base = self.steered.tails if self.base is None else self.base.tails
        self.x = described(dictionary.card.of, base, self.steered.tails).float() * layout.said[..., None]
        self.use(dictionary)

    def use(self, dictionary: Dictionary) -> Attributor:
        """Take another dictionary of the same site and of the same thing."""
        self.dictionary = dictionary
        said = self.layout.said[..., None]
        self.codes = dictionary.gain(self.x) * dictionary.encode(self.x) * said
        self.rebuilt = dictionary.reconstruct(self.x) * said
        return self

    def upper(self, h: Float[Tensor, "row pos d_model"], text: Int[Tensor, " row"]) -> Float[Tensor, "row pos d_model"]:
        """Hidden states after the last block, from the stream at the site; differentiable.

        Args:
            h: the stream at the positions of `Layout.tails`.
            text: the text of each row.
        """
        tokens = replace(self.layout.tails.take(text), rows=torch.arange(len(text), device=text.device))
        editor = Editor(self.above, n_rows=len(text), n_layers=self.model.n_layers)
        cache = self.steered.cache.take(text)
        return editor.run(self.model.path, tokens, cache=cache, resid=h, start=self.site.layer + 1)

    def nodes(self, metric: Metric) -> Nodes:
        """Attributions of a scalar of each text, by one pass forward and one back."""
        h = self.steered.tails.detach().clone().requires_grad_(True)
        text = torch.arange(len(h), device=h.device)
        with torch.enable_grad():
            value = metric(self.upper(h, text), text)
            (gradient,) = torch.autograd.grad(value.sum(), h)
        gradient = gradient.float() * self.layout.said[..., None]
        features = (self.codes * (gradient @ self.dictionary.directions.T)).sum(1)
        bias = self.rebuilt - self.codes @ self.dictionary.directions
        return Nodes(
            features,
            (gradient * (self.x - self.rebuilt)).sum((1, 2)),
            (gradient * bias).sum((1, 2)),
            value.detach(),
            gradient,
        )

    def active(self, text: int) -> list[int]:
        """Features that are active at some position of a text."""
        return (self.codes[text] != 0).any(0).nonzero()[:, 0].tolist()

    def ablations(
        self, metrics: Sequence[Metric], text: int, features: Sequence[int]
    ) -> Float[Tensor, "feature metric"]:
        """Effect of each feature alone: m - m(with the feature taken out at all positions of the completion).

        Args:
            metrics: scalars.
            text: index of the text.
            features: which to take out, one at a time.
        """
        parts = [self.codes[text, :, feature, None] * self.dictionary.directions[feature] for feature in features]
        return self.without(metrics, text, parts)

    def without(
        self, metrics: Sequence[Metric], text: int, parts: Sequence[Float[Tensor, "pos d_model"]]
    ) -> Float[Tensor, "part metric"]:
        """Effect of each part alone: m - m(with it taken out of the stream)."""
        h, found = self.steered.tails[text], list[Tensor]()
        with torch.no_grad():
            whole = self._values(metrics, h[None], text)
            for start in range(0, len(parts), ROWS_AT_ONCE):
                some = torch.stack(list(parts[start : start + ROWS_AT_ONCE]))
                found.append(whole - self._values(metrics, (h.float() - some).to(h.dtype), text))
        return torch.cat(found) if found else h.new_zeros(0, len(metrics))

    def _values(self, metrics: Sequence[Metric], h: Tensor, text: int) -> Float[Tensor, "row metric"]:
        rows = torch.full((len(h),), text, device=h.device)
        final = self.upper(h, rows)
        return torch.stack([metric(final, rows) for metric in metrics], -1)
