"""Which tokens an edit touches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import UserError


@dataclass(frozen=True)
class At:
    """Tokens whose decoded text, stripped of white space, equals `text`."""

    text: str


def at(text: str) -> At:
    """Select tokens by their decoded text, stripped of white space: `Positions(prompt=at("="))`."""
    return At(text.strip())


Selector = Literal["all", "none"] | int | tuple[int, ...] | range | At


@dataclass(frozen=True)
class Tokens:
    """The tokens of one forward pass as an edit sees them, caches or not.

    Attributes:
        ids: token ids, [batch, pos] (only the new tokens when a cache holds the rest).
        position: index counted from the row's first real token; negative on padding.
        prompt_len: number of real prompt tokens of each row.
        rows: index of each row in the batch that the caller gave.
        decode: text of one token id.
        selected: the positions of the edit being applied; filled in before an edit sees this.
        scratch: what an edit keeps between its sites, for this pass and this edit only.
        weight: how many rows of the caller's batch each row stands for (a shared prefix runs once for many).
        base: the stream at the site being edited in a pass without any edit, for edits that ask for it
            (`base_sites`).
    """

    ids: Int[Tensor, "batch pos"]
    position: Int[Tensor, "batch pos"]
    prompt_len: Int[Tensor, " batch"]
    rows: Int[Tensor, " batch"]
    decode: Callable[[int], str]
    selected: Bool[Tensor, "batch pos"] | None = None
    scratch: dict[str, Any] = field(default_factory=dict)
    weight: Int[Tensor, " batch"] | None = None
    base: Float[Tensor, "batch pos *d"] | None = None

    def take(self, rows: Int[Tensor, " some"]) -> Tokens:
        """The same pass restricted to some of its rows (indices into this pass, not the caller's batch)."""
        return replace(
            self,
            ids=self.ids[rows],
            position=self.position[rows],
            prompt_len=self.prompt_len[rows],
            rows=self.rows[rows],
            selected=None if self.selected is None else self.selected[rows],
            weight=None if self.weight is None else self.weight[rows],
            base=None if self.base is None else self.base[rows],
        )


@dataclass(frozen=True)
class Positions:
    """Positions of a row, counted from its first real token; padding is never selected.

    In the prompt, a negative index counts from the prompt's end (-1 = the last prompt token).
    In the completion, 0 is the position whose INPUT is the first generated token.
    The default, all of both, is that of a steering vector (arXiv:2509.06608 sec. 2).

    Args:
        prompt: "all", "none", an index, a tuple or range of indices, or `at("text")`.
        generated: the same, without negative indices: a completion's end is not known in advance.
    """

    prompt: Selector = "all"
    generated: Selector = "all"

    def __post_init__(self) -> None:
        for name, selector in (("prompt", self.prompt), ("generated", self.generated)):
            if isinstance(selector, str) and selector not in ("all", "none"):
                raise UserError(
                    f"no such {name} positions", given=selector, works='use "all", "none", indices or at("text")'
                )
        if any(index < 0 for index in _indices(self.generated)):
            raise UserError("generated positions count from 0", given=self.generated, works="use indices >= 0")
        if self.prompt == "none" and self.generated == "none":
            raise UserError("these positions select nothing", works='give prompt= or generated= something but "none"')

    def mask(self, tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        """True where a token of this pass is selected."""
        prompt_len = tokens.prompt_len[:, None]
        in_prompt = (tokens.position >= 0) & (tokens.position < prompt_len)
        in_completion = tokens.position >= prompt_len
        from_end = tokens.position - prompt_len
        prompt = _matches(self.prompt, tokens, (tokens.position, from_end))
        generated = _matches(self.generated, tokens, (from_end,))
        return (in_prompt & prompt) | (in_completion & generated)


def _indices(selector: Selector) -> tuple[int, ...]:
    if isinstance(selector, int):
        return (selector,)
    return tuple(selector) if isinstance(selector, tuple | range) else ()


def _matches(
    selector: Selector, tokens: Tokens, index: tuple[Int[Tensor, "batch pos"], ...]
) -> Bool[Tensor, "batch pos"]:
    """Compare non-negative indices with the first numbering, negative ones with the last."""
    ids = tokens.ids
    if selector == "all":
        return torch.ones_like(ids, dtype=torch.bool)
    if isinstance(selector, At):
        wanted = [i for i in ids.unique().tolist() if tokens.decode(i).strip() == selector.text]
        return torch.isin(ids, torch.tensor(wanted, dtype=ids.dtype, device=ids.device))
    wanted = _indices(selector)
    hit = torch.zeros_like(ids, dtype=torch.bool)
    for numbering, part in ((index[0], [i for i in wanted if i >= 0]), (index[-1], [i for i in wanted if i < 0])):
        if part:
            hit |= torch.isin(numbering, torch.tensor(part, device=ids.device))
    return hit


EVERYWHERE = Positions()
"""Every token of prompt and completion."""
