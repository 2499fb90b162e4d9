"""Rows of tokens, left-padded, as a model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.arguments import check_items
from interp.errors import UserError
from interp.prompts import Prompt


@dataclass(frozen=True)
class Batch:
    """Left-padded rows: prompts, each followed by its completion if it has one.

    Attributes:
        ids: token ids, [batch, pos].
        mask: True on real tokens; every row's real tokens stand together at its right end.
        prompt_len: number of real prompt tokens of each row; the rest of the row is its completion.
    """

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    prompt_len: Int[Tensor, " batch"]

    def __post_init__(self) -> None:
        if not bool(self.mask[:, -1:].all()) or bool((self.mask[:, :-1] & ~self.mask[:, 1:]).any()):
            raise UserError("a batch is padded on the left only", works="build it with Batch.of(prompts, completions)")

    @classmethod
    def of(
        cls,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[int]] | None = None,
        *,
        pad_id: int = 0,
        device: str | torch.device = "cpu",
    ) -> Batch:
        """Lay prompts, and what was said after them, into one left-padded rectangle.

        Raises:
            UserError: there are no prompts, an empty one, or not one completion for each.
        """
        check_items("prompts", prompts, lambda one: isinstance(one, Prompt), "[model.prompt(text)]")
        tails: Sequence[Sequence[int]] = [()] * len(prompts) if completions is None else completions
        if len(tails) != len(prompts):
            raise UserError(f"{len(prompts)} prompts need as many completions", given=len(tails))
        if not prompts or not all(prompt.ids for prompt in prompts):
            raise UserError("a batch needs at least one prompt, and each at least one token")
        rows = [[*prompt.ids, *tail] for prompt, tail in zip(prompts, tails, strict=True)]
        width = max(map(len, rows))
        ids = torch.tensor([[pad_id] * (width - len(row)) + row for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(width, device=device)[None] >= width - lengths[:, None]
        return cls(ids, mask, torch.tensor([len(prompt.ids) for prompt in prompts], device=device))

    @classmethod
    def unpadded(cls, ids: Int[Tensor, "batch pos"]) -> Batch:
        """Rows of equal length without padding; every token counts as prompt."""
        return cls(ids, torch.ones_like(ids, dtype=torch.bool), torch.full_like(ids[:, 0], ids.shape[1]))

    @property
    def position(self) -> Int[Tensor, "batch pos"]:
        """Index of each token counted from its row's first real token; -1 or less on padding."""
        return torch.arange(self.ids.shape[1], device=self.ids.device)[None] - (~self.mask).sum(1, keepdim=True)

    @property
    def in_completion(self) -> Bool[Tensor, "batch pos"]:
        """True where a completion's token is the input."""
        return self.position >= self.prompt_len[:, None]

    def rows(self, index: slice | Int[Tensor, " some"]) -> Batch:
        """Some of the rows, without the padding that none of them needs."""
        mask = self.mask[index]
        first = int(mask.any(0).nonzero()[0])
        return Batch(self.ids[index][:, first:], mask[:, first:], self.prompt_len[index])

    def __len__(self) -> int:
        return self.ids.shape[0]
