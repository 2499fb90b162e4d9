"""Many changed continuations of one run, computed together.

A value changed at position p of block l leaves everything before p and everything below l as it was. So a branch holds
the tokens from p on only, joins the pass at block l, and attends to the run's own keys and values before p. The
branches of a pass stand one behind another in one row of tokens: nothing is padded, and their own keys and values last
no longer than a block. In the last block only the last token of each goes on to the MLP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.backend.attention import attend
from interp.backend.cache import Cache, Slot
from interp.backend.engine import Engine
from interp.backend.passes import Pass, Tap
from interp.positions import Tokens
from interp.sites import STREAMS, Site, Stream

AFTER_ATTENTION = frozenset(STREAMS[STREAMS.index("z") :])


@dataclass(frozen=True)
class Trunk:
    """One row of tokens as it was run, for branches to leave.

    Attributes:
        tokens: of the row.
        resid: block -> its input.
        cache: keys and values of every block.
        tap: applies the edits of the run, which hold in its branches too.
        sites: where.
    """

    tokens: Tokens
    resid: Mapping[int, Float[Tensor, "1 pos d_model"]]
    cache: Cache
    tap: Tap
    sites: set[Site]


@dataclass(frozen=True)
class Branch:
    """Another value at a site, at one position or at all from one on.

    Attributes:
        site: what is changed.
        first: the first changed position.
        values: the new values at positions `first`, `first + 1`, ...; of one head where `head` is given.
        head: of q, k, v or z; None = all of them.
    """

    site: Site
    first: int
    values: Float[Tensor, "changed ..."]
    head: int | None = None


Group = tuple[int, list[int]]
"""Branches that leave at one position, by their numbers in the order in which they stand."""


@dataclass(frozen=True, kw_only=True)
class Branches(Pass):
    """One block of all branches.

    Attributes:
        groups: branches by first position; their tokens stand in this order.
        trunk: the run that they leave.
        masks: for each first position, which key each of its tokens may attend to, by attention type.
        joining: the changes at this block: place of the branch's first token, and the branch.
        ends: in the last block, the place of each branch's last token; None below it.
    """

    groups: Sequence[Group]
    trunk: Trunk
    masks: Mapping[int, dict[str, Bool[Tensor, "1 1 query key"]]]
    joining: Sequence[tuple[int, Branch]]
    ends: Int[Tensor, " branch"] | None = None

    def visit(self, layer: int, stream: Stream, value: Tensor) -> Tensor:
        """The run's own edits, then the changes of the branches that join."""
        site, tokens, places = Site(layer, stream), self.tokens, self.ends
        if places is not None and stream in AFTER_ATTENTION:
            tokens = replace(tokens, ids=tokens.ids[:, places], position=tokens.position[:, places])
        else:
            places = None
        if site in self.sites:
            value = self.tap(site, value, tokens)
        changes = [(start, branch) for start, branch in self.joining if branch.site.stream == stream]
        if not changes:
            return value
        value = value.clone()
        for start, branch in changes:
            _write(value[0] if branch.head is None else value[0, :, branch.head], start, branch.values, places)
        return value

    def narrow(self, x: Float[Tensor, "1 pos d_model"]) -> Tensor:
        """Only the last token of each branch goes on in the last block."""
        return x if self.ends is None else x[:, self.ends]

    def attend(
        self, slot: Slot, kind: str, heads: tuple[Tensor, Tensor, Tensor], divisor: float, soft_cap: float
    ) -> Float[Tensor, "1 head query d_head"]:
        """Attention of every branch over what it shares with the trunk and its own tokens."""
        cache, length, start = self.trunk.cache, self.trunk.tokens.ids.shape[1], 0
        mixed: list[Tensor] = []
        for first, branches in self.groups:
            n, width = len(branches), length - first
            q, k, v = (t[0, :, start : start + n * width].unflatten(1, (n, width)).transpose(0, 1) for t in heads)
            start, mask = start + n * width, self.masks[first][kind]
            if self.ends is not None:
                q, mask = q[:, :, -1:], mask[:, :, -1:]
            if first:
                k, v = (
                    torch.cat([old[slot][:, :, :first].expand(n, -1, -1, -1), new], 2)
                    for old, new in ((cache.keys, k), (cache.values, v))
                )
            mixed.append(attend(q, k, v, mask, divisor, soft_cap).transpose(0, 1).flatten(1, 2))
        return torch.cat(mixed, 1)[None]


def _write(value: Tensor, start: int, new: Tensor, places: Int[Tensor, " branch"] | None) -> None:
    """Write changed values of the branch whose tokens begin at `start`; only the kept places exist if given."""
    stop = start + len(new)
    if places is None:
        value[start:stop] = new
        return
    kept = ((places >= start) & (places < stop)).nonzero()[:, 0]
    value[kept] = new[places[kept] - start]


def run_branches(engine: Engine, trunk: Trunk, branches: Sequence[Branch]) -> Float[Tensor, "branch d_model"]:
    """The stream after the last block at the row's last position, for every branch.

    Args:
        engine: of the model.
        trunk: the run that they leave.
        branches: at least one.
    """
    groups: list[Group] = []
    masks: dict[int, dict[str, Tensor]] = {}
    x = trunk.resid[0][:, :0]
    for layer in range(min(branch.site.layer for branch in branches), engine.n_layers):
        joining = [number for number, branch in enumerate(branches) if branch.site.layer == layer]
        x, groups, starts = _join(x, groups, joining, branches, trunk.resid[layer])
        position = trunk.tokens.position[0]
        places = torch.cat([position[first:].repeat(len(some)) for first, some in groups])[None]
        tokens = replace(trunk.tokens, ids=trunk.tokens.ids[:, places[0]], position=places)
        for first, _ in groups:
            if first not in masks:
                masks[first] = engine.masks(position[None, first:], position[None])
        shared = Branches(
            tokens,
            {},
            None,
            trunk.tap,
            trunk.sites,
            groups=groups,
            trunk=trunk,
            masks=masks,
            joining=[(start, branches[number]) for number, start in starts.items()],
            ends=_ends(groups, len(position), x.device) if layer + 1 == engine.n_layers else None,
        )
        x = engine.block(layer, x, shared)
    order = torch.tensor([number for _, some in groups for number in some], device=x.device)
    return x[0][order.argsort()]


def _join(
    x: Float[Tensor, "1 pos d_model"],
    groups: list[Group],
    joining: Sequence[int],
    branches: Sequence[Branch],
    resid: Float[Tensor, "1 all d_model"],
) -> tuple[Float[Tensor, "1 more d_model"], list[Group], dict[int, int]]:
    """Tokens with those of the branches that join behind the others of their group; where each of these begins."""
    old, length = dict(groups), resid.shape[1]
    parts: list[Tensor] = []
    merged: list[Group] = []
    starts: dict[int, int] = {}
    taken = place = 0
    for first in sorted({*old, *(branches[number].first for number in joining)}):
        before, width = old.get(first, []), length - first
        new = [number for number in joining if branches[number].first == first]
        parts += [x[0, taken : taken + len(before) * width], resid[0, first:].repeat(len(new), 1)]
        taken, place = taken + len(before) * width, place + len(before) * width
        starts |= {number: place + index * width for index, number in enumerate(new)}
        place += len(new) * width
        merged.append((first, [*before, *new]))
    return torch.cat(parts)[None], merged, starts


def _ends(groups: Sequence[Group], length: int, device: torch.device) -> Int[Tensor, " branch"]:
    widths = [length - first for first, some in groups for _ in some]
    return torch.tensor(widths, device=device).cumsum(0) - 1
