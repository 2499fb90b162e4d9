"""Maps to a model of another width or depth, fitted on what both models hold at the same places of the same texts.

Two tokenizers cut a text differently. A place is the same where a token of each ends at the same character: there both
models have read the same text. Blocks are paired by their share of the depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.neutral import sample
from interp.bare_model import takes_model
from interp.batch import Batch
from interp.context import Context
from interp.digest import digest
from interp.forced import Forced
from interp.model import Model
from interp.prompts import Prompt
from vectors import Card, SteeringVectors
from vectors.transfer import StreamMap, carry, fit_map, random_map


@dataclass(frozen=True)
class Maps:
    """Maps of one residual stream to another's.

    Attributes:
        fitted: donor's layer -> map.
        layers: donor's layer -> recipient's.
    """

    fitted: dict[int, StreamMap]
    layers: dict[int, int]

    @property
    def r2(self) -> float:
        """Share of the recipient's variance on held-out texts that is explained, mean over layers."""
        return fmean(one.r2 for one in self.fitted.values())


@dataclass(frozen=True)
class Bridge:
    """Carries vectors of the run's model to a model of another shape.

    Attributes:
        ctx: the run; its maps are fitted once for each choice of layers.
        other: the recipient.
    """

    ctx: Context
    other: Model

    def maps(self, layers: tuple[int, ...]) -> Maps:
        """The fitted maps of these layers of the donor."""
        name = f"maps to {self.other.fingerprint} of layers {layers}"
        return self.ctx.once(name, lambda: maps_between(self.ctx, self.other, layers))

    def carry(self, donor: SteeringVectors, draw: int | None = None) -> SteeringVectors:
        """A donor's vectors in the recipient's stream.

        Args:
            donor: vectors of the run's model.
            draw: carry through this draw of random maps instead, each vector scaled to the length that the fitted map
                gives it, so that only the direction is lost.
        """
        maps = self.maps(donor.layers)
        found = carry(donor, maps.fitted, self._card(donor), layers=maps.layers)
        if draw is None:
            return found
        drawn = {layer: random_map(one, self._seed(layer, draw)) for layer, one in maps.fitted.items()}
        strange = carry(donor, drawn, self._card(donor), layers=maps.layers)
        lengths = [one.directions.norm(dim=1, keepdim=True) for one in (found, strange)]
        return replace(strange, directions=strange.directions * (lengths[0] / lengths[1].clamp(min=1e-12)))

    def _card(self, donor: SteeringVectors) -> Card:
        model = self.other
        return Card(
            name=f"{donor.name} carried"[:120], base_model=model.name, architecture=model.architecture,
            lineage=model.lineage, fingerprint=model.fingerprint, d_model=model.d_model, n_layers=model.n_layers,
        )  # fmt: skip

    def _seed(self, layer: int, draw: int) -> int:
        return int(digest("random-map", self.ctx.seed, layer, draw), 16) % 2**63


def maps_between(ctx: Context, other: Model, layers: Sequence[int], *, texts: Sequence[str] | None = None) -> Maps:
    """Fit maps from the run's model to another on neutral passages, read as plain text by each with its own tokenizer.

    Args:
        ctx: the run.
        other: the recipient.
        layers: of the donor.
        texts: what both read; the neutral passages if None.

    Raises:
        UserError: fewer than four texts have places in common.
    """
    passages = [one["text"] for one in sample()["texts"]] if texts is None else list(texts)
    read = [(cut(ctx.model, text), cut(other, text)) for text in passages]
    places = [shared(mine[1], its[1]) for mine, its in read]
    placed = depths(layers, ctx.model.n_layers, other.n_layers)
    left = [layer for layer in layers if layer not in placed]
    if left:
        ctx.say(f"layers {', '.join(map(str, left))} have no block of their own in {other.name}: left behind")
    text = torch.tensor([row for row, pairs in enumerate(places) for _ in pairs], dtype=torch.long)
    chosen = [[(row, pair[side]) for row, pairs in enumerate(places) for pair in pairs] for side in (0, 1)]
    source = _states(ctx.model, [mine[0] for mine, _ in read], chosen[0], list(placed))
    target = _states(other, [its[0] for _, its in read], chosen[1], list(placed.values()))
    fitted = {layer: fit_map(source[layer], target[to], text, seed=ctx.seed) for layer, to in placed.items()}
    return Maps(fitted, placed)


def depths(layers: Sequence[int], n_layers: int, other: int) -> dict[int, int]:
    """The recipient's layer at the same share of the depth; of two that meet in one, the nearer has it, or the lower.

    Args:
        layers: of the donor.
        n_layers: blocks of the donor.
        other: blocks of the recipient.
    """
    exact = {layer: (layer + 1) / n_layers * other - 1 for layer in sorted(layers)}
    nearest: dict[int, int] = {}  # recipient's layer -> donor's
    for layer, where in exact.items():
        to = max(round(where + 1) - 1, 0)
        if to not in nearest or abs(where - to) < abs(exact[nearest[to]] - to):
            nearest[to] = layer
    return {layer: to for to, layer in nearest.items()}


@takes_model
def cut(model: Model, text: str) -> tuple[list[int], dict[int, int]]:
    """Tokens of a plain text, and the token that ends at each character where one does.

    Tokens that stand for no character end nowhere; of several that share a character, the last one ends it. A
    tokenizer without offsets is asked for the text of each beginning instead.
    """
    tokenizer: Any = model.tokenizer
    if getattr(tokenizer, "is_fast", False):
        found = tokenizer(text, return_offsets_mapping=True)
        ids, spans = list(found["input_ids"])[: model.n_ctx], found["offset_mapping"]
        return ids, {end: at for at, (start, end) in enumerate(spans[: len(ids)]) if end > start}
    ids, ends, before = list(tokenizer(text)["input_ids"])[: model.n_ctx], dict[int, int](), 0
    for at in range(len(ids)):
        said = tokenizer.decode(ids[: at + 1], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if text.startswith(said) and len(said) > before:  # half a character is decoded as another one
            ends[len(said)], before = at, len(said)
    return ids, ends


def shared(mine: dict[int, int], its: dict[int, int]) -> list[tuple[int, int]]:
    """Pairs of tokens that end at the same character, without the first token of either row.

    A model's state at the first token of a row is far larger than all others, whatever the token.
    """
    return [(at, its[end]) for end, at in sorted(mine.items()) if at and its.get(end)]


def _states(
    model: Model, rows: list[list[int]], at: list[tuple[int, int]], layers: list[int]
) -> dict[int, Float[Tensor, "place d_model"]]:
    """resid_post of some blocks at (row, token)."""
    batch = Batch.of([Prompt(tuple(row)) for row in rows], device=model.device)
    forced, width = Forced(model, batch, keep=layers), batch.ids.shape[1]
    row = torch.tensor([row for row, _ in at], dtype=torch.long)
    pos = torch.tensor([width - len(rows[row]) + token for row, token in at], dtype=torch.long)
    return {layer: forced.base_at(layer)[row, pos].float().cpu() for layer in layers}
