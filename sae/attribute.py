"""Which features a scalar comes from: gradient times activation, and exact ablation to hold it against.

With the gates held fixed, x -> sum_j f_j d_j + stop(error), the derivative of a scalar m along feature j at token t is
grad_t m . d_j, so that its attribution is f_j(t) (grad_t m . d_j), and one backward pass gives all of them. The error
(and the bias) are nodes of their own. An attribution estimates m - m(feature j taken out), which `ablations` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from interp.bare_model import takes_model
from interp.editor import Editor
from interp.edits import Edit
from interp.errors import UserError
from sae.dictionary import Dictionary
from sae.passes import Layout, Streams, described, streams

ROWS_AT_ONCE = 24
"""Ablated copies of a text that run together; results do not depend on it."""


@takes_model
@dataclass(frozen=True)
class Read:
    """What scalars are computed from: copies of texts, from some position on.

    Attributes:
        model: a Model.
        states: hidden states after the last block.
        text: the text of each row.
        first: the position of `Layout.tails` at which `states` begin.
    """

    model: Any
    states: Float[Tensor, "row pos d_model"]
    text: Int[Tensor, " row"]
    first: int = 0

    @cached_property
    def log_p(self) -> Float[Tensor, "row pos vocab"]:
        """Next-token log-probabilities, nats; once for all scalars."""
        return self.model.unembed(self.states).float().log_softmax(-1)

    def of(self, values: Shaped[Tensor, "text pos *n"]) -> Shaped[Tensor, "#row later *n"]:
        """What belongs to these rows and positions; one row where all rows are copies of one text."""
        text = self.text[:1] if bool((self.text == self.text[0]).all()) else self.text
        return values[text, self.first :]

    def log_prob(self, ids: Int[Tensor, "text pos"]) -> Float[Tensor, "row later"]:
        """Log-probability of one token at each position, nats; of any token where the id is negative."""
        ids = self.of(ids).clamp(min=0).expand(len(self.states), -1)
        return self.log_p.gather(-1, ids[..., None])[..., 0]


Metric = Callable[[Read], Tensor]
"""What each position adds to a scalar, [row, pos]: the scalar is their sum."""


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

    @takes_model
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
        return self._above(h, text, self.steered.cache.take(text))

    def _above(
        self, h: Float[Tensor, "row pos d_model"], text: Int[Tensor, " row"], cache: Any, first: int = 0
    ) -> Float[Tensor, "row pos d_model"]:
        tails = self.layout.tails.take(text)
        here = {"ids": tails.ids[:, first:], "position": tails.position[:, first:]}
        tokens = replace(tails, rows=torch.arange(len(text), device=text.device), **here)
        editor = Editor(self.above, n_rows=len(text), n_layers=self.model.n_layers)
        return editor.run(self.model.path, tokens, cache=cache, resid=h, start=self.site.layer + 1)

    def nodes(self, metric: Metric) -> Nodes:
        """Attributions of a scalar of each text, by one pass forward and one back."""
        h = self.steered.tails.detach().clone().requires_grad_(True)
        text = torch.arange(len(h), device=h.device)
        with torch.enable_grad():
            value = metric(Read(self.model, self.upper(h, text), text)).sum(1)
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
        """Effect of each part alone: m - m(with it taken out of the stream).

        Nothing changes before the first position at which a part is there, so copies run from there on, over the keys
        and values of the whole text.
        """
        h = self.steered.tails[text]
        if not parts:
            return h.new_zeros(0, len(metrics))
        found = h.new_zeros(len(parts), len(metrics), dtype=torch.float32)
        begin = [int(part.any(1).nonzero()[0, 0]) if bool(part.any()) else len(part) - 1 for part in parts]
        order = sorted(range(len(parts)), key=begin.__getitem__)
        with torch.no_grad():
            one = torch.tensor([text], device=h.device)
            cache = self.steered.cache.take(one)
            whole = self._read(metrics, h[None], one, cache)
            for start in range(0, len(order), ROWS_AT_ONCE):
                some = order[start : start + ROWS_AT_ONCE]
                first = begin[some[0]]
                rows = torch.zeros(len(some), dtype=torch.long, device=h.device)
                before = cache.take(rows).back(len(h) - first)
                ablated = torch.stack([h[first:].float() - parts[part][first:] for part in some]).to(h.dtype)
                read = self._read(metrics, ablated, one.expand(len(some)), before, first)
                found[some] = (whole[:, :, first:] - read).sum(-1).T
        return found

    def _read(
        self, metrics: Sequence[Metric], h: Tensor, text: Tensor, cache: Any, first: int = 0
    ) -> Float[Tensor, "metric row pos"]:
        read = Read(self.model, self._above(h, text, cache, first), text, first)
        return torch.stack([metric(read) for metric in metrics])
