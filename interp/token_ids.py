"""Token ids that select columns of the vocabulary."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import UserError
from interp.selection import whole_numbers


def checked_ids(tokens: object) -> tuple[int, ...]:
    """Return token ids of any integer type.

    Raises:
        UserError: there are none, or one is no whole number >= 0.
    """
    ids = whole_numbers(tokens, "a token id", works="a token's text has one: model.tokenizer.encode(text)")
    if min(ids) < 0:
        raise UserError("token ids count from 0", given=min(ids))
    return ids


def vocabulary_index(ids: tuple[int, ...], log_p: Float[Tensor, "*n vocab"]) -> Int[Tensor, " token"]:
    """Return token ids as an index of the vocabulary.

    Raises:
        UserError: the vocabulary has no such token.
    """
    size = log_p.shape[-1]
    if max(ids) >= size:
        raise UserError(f"the vocabulary has tokens 0 to {size - 1}", given=max(ids))
    return torch.tensor(ids, device=log_p.device)
