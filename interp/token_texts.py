"""Texts of tokens, with a tokenizer or without."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from interp.errors import UserError


class TokenTexts:
    """Names tokens for display, and for edits that select tokens by their text.

    Args:
        tokenizer: a Hugging Face tokenizer; None where the model has none.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.exact = lru_cache(maxsize=None)(self._exact)

    def _exact(self, token: int) -> str:
        """Text of one token.

        Raises:
            UserError: there is no tokenizer.
        """
        if self.tokenizer is None:
            works = "Model(hooked, tokenizer=...); positions by number need none"
            raise UserError("tokens are selected by their text, and the model has no tokenizer", works=works)
        return self.tokenizer.decode([token])

    def shown(self, token: int) -> str:
        """Text of one token; its number in angle brackets without a tokenizer."""
        return f"<{token}>" if self.tokenizer is None else self.exact(token)

    def decode(self, row: Sequence[int]) -> str:
        """Text of a row, special tokens left out; numbers in angle brackets without a tokenizer."""
        if self.tokenizer is None:
            return " ".join(map(self.shown, row))
        return self.tokenizer.decode(list(row), skip_special_tokens=True)
