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
from interp.selection import is_collection, whole_numbers


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
        _check_shapes(self.ids, self.mask, self.prompt_len)
        if not bool(self.mask[:, -1:].all()) or bool((self.mask[:, :-1] & ~self.mask[:, 1:]).any()):
            raise UserError("a batch is padded on the left only", works="build it with Batch.of(prompts, completions)")
        if bool((self.prompt_len > self.mask.sum(1)).any()) or bool((self.prompt_len < 0).any()):
            raise UserError("a row's prompt is a part of the row", given=f"prompt_len {self.prompt_len.tolist()[:8]}")

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
        works = "a row of token ids for each prompt"
        check_items("completions", () if completions is None else completions, is_collection, works)
        tails: Sequence[Sequence[int]] = [()] * len(prompts) if completions is None else completions
        if len(tails) != len(prompts):
            raise UserError(f"{len(prompts)} prompts need as many completions", given=len(tails))
        if not prompts or not all(prompt.ids for prompt in prompts):
            raise UserError("a batch needs at least one prompt, and each at least one token")
        rows = [[*prompt.ids, *_ids(tail)] for prompt, tail in zip(prompts, tails, strict=True)]
        width = max(map(len, rows))
        ids = torch.tensor([[pad_id] * (width - len(row)) + row for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(width, device=device)[None] >= width - lengths[:, None]
        return cls(ids, mask, torch.tensor([len(prompt.ids) for prompt in prompts], device=device))

    @classmethod
    def unpadded(cls, ids: Tensor) -> Batch:
        """Rows of equal length without padding, [batch, pos]; every token counts as prompt.

        Raises:
            UserError: it is no rectangle of integers, or an empty one.
        """
        _check_ids(ids)
        ids = ids.long()
        return cls(ids, torch.ones_like(ids, dtype=torch.bool), torch.full_like(ids[:, 0], ids.shape[1]))

    def check(self, *, tokens: int, context: int) -> None:
        """Refuse tokens and lengths that a model does not have.

        Args:
            tokens: rows of the model's embedding.
            context: longest row.

        Raises:
            UserError: a token has no row, or a row is too long.
        """
        low, high = int(self.ids.min()), int(self.ids.max())
        if low < 0 or high >= tokens:
            works = (
                "the tokenizer may have more tokens than the embedding has rows; padding may be any token, such as 0"
            )
            raise UserError(f"the model has tokens 0 to {tokens - 1}", given=low if low < 0 else high, works=works)
        longest = int(self.mask.sum(1).max())
        if longest > context:
            raise UserError(f"the model's context holds {context} tokens", given=longest)

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


def as_batch(batch: object) -> Batch:
    """Take a Batch as it is, and [batch, pos] token ids as rows without padding.

    Raises:
        UserError: it is neither.
    """
    if isinstance(batch, Batch):
        return batch
    return Batch.unpadded(batch)  # pyright: ignore[reportArgumentType] - checked there


def _ids(tail: Sequence[int]) -> tuple[int, ...]:
    """Token ids of a completion, which may have ended at once."""
    return whole_numbers(tail, "a token") if len(tail) else ()


def _check_ids(ids: object) -> None:
    works = "a Batch, or a tensor of token ids [batch, pos]"
    if not isinstance(ids, Tensor):
        raise UserError("a model runs a batch of token ids", given=type(ids).__name__, works=works)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise UserError("token ids are integers", given=ids.dtype, works=works)
    if ids.ndim != 2 or 0 in ids.shape:
        given = f"shape {list(ids.shape)}"
        raise UserError("a batch has at least one row and one token in each", given=given, works=works)


def _check_shapes(ids: Tensor, mask: Tensor, prompt_len: Tensor) -> None:
    _check_ids(ids)
    if mask.shape != ids.shape or mask.dtype != torch.bool:
        given = f"{mask.dtype}, shape {list(mask.shape)}"
        raise UserError(f"the mask is boolean, of the ids' shape {list(ids.shape)}", given=given)
    if prompt_len.shape != ids.shape[:1] or prompt_len.is_floating_point():
        given = f"{prompt_len.dtype}, shape {list(prompt_len.shape)}"
        raise UserError(f"each of the {len(ids)} rows has a number of prompt tokens", given=given)
    if bool((prompt_len < 1).any()) or bool((prompt_len > mask.sum(1)).any()):
        given = prompt_len.tolist()
        raise UserError("a prompt has at least one token, and no more than its row", given=given)
