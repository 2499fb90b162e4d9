"""What enters the model: token ids that know which part of the prompt they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from interp.errors import UserError

SPANS = ("system", "example", "header", "problem", "assistant")
"""Parts of a prompt, in the order in which a template writes them."""


@dataclass(frozen=True)
class Prompt:
    """One tokenised prompt; the chat template and any BOS are already inside `ids`.

    Two prompts are equal, and hash equally, where their ids and spans are.

    Attributes:
        ids: token ids, no padding.
        spans: part -> [start, stop) in token indices; parts do not overlap, absent parts are absent.
        text: the rendered text, for display only.

    Raises:
        UserError: a span lies outside the ids, is reversed, overlaps another, or has an unknown name.
    """

    ids: tuple[int, ...]
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(self.ids))
        object.__setattr__(self, "spans", MappingProxyType(dict(self.spans)))
        end = 0
        for name, (start, stop) in sorted(self.spans.items(), key=lambda item: item[1]):
            if name not in SPANS:
                raise UserError("no such part of a prompt", given=name, works=f"use one of {', '.join(SPANS)}")
            if not end <= start <= stop <= len(self.ids):
                given = f"{name} [{start}, {stop}) of {len(self.ids)} tokens"
                raise UserError("spans must lie inside the prompt, in order, without overlap", given=given)
            end = stop

    def __hash__(self) -> int:
        return hash((self.ids, tuple(sorted(self.spans.items()))))

    def __reduce__(self) -> tuple[type[Prompt], tuple[tuple[int, ...], dict[str, tuple[int, int]], str]]:
        return Prompt, (self.ids, dict(self.spans), self.text)

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, index: int) -> str:
        """Name of the part that token `index` belongs to; "" where it belongs to none."""
        return next((name for name, (start, stop) in self.spans.items() if start <= index < stop), "")

    @property
    def parts(self) -> tuple[str, ...]:
        """Name of the part of each token, "" where a token belongs to none."""
        return tuple(self.part(index) for index in range(len(self.ids)))


def shared_prefix(prompts: Sequence[Prompt]) -> int:
    """Number of leading tokens that all prompts have in common (0 for no prompts)."""
    if not prompts:
        return 0
    columns = zip(*(prompt.ids for prompt in prompts), strict=False)
    return next(
        (index for index, column in enumerate(columns) if len(set(column)) > 1),
        min(len(prompt.ids) for prompt in prompts),
    )


def check_prompts(prompts: Sequence[object], *, tokens: int) -> None:
    """Refuse prompts that a model cannot complete.

    Args:
        prompts: of one call.
        tokens: rows of the model's embedding.

    Raises:
        UserError: there are none, one has no token, or a token has no row.
    """
    known = [prompt for prompt in prompts if isinstance(prompt, Prompt)]
    if len(known) < len(prompts):
        given = next(type(one).__name__ for one in prompts if not isinstance(one, Prompt))
        works = "[model.prompt(text), ...] or [Prompt(ids), ...]"
        raise UserError("a model completes a list of prompts", given=given, works=works)
    if not known or not all(prompt.ids for prompt in known):
        raise UserError("a model completes at least one prompt, and each has at least one token")
    for prompt in known:
        ids: Sequence[object] = prompt.ids
        wrong = [token for token in ids if type(token) is not int]
        if wrong:
            raise UserError("token ids are integers", given=repr(wrong[0]), works="Prompt(tuple(ids.tolist()))")
        low, high = min(prompt.ids), max(prompt.ids)
        if low < 0 or high >= tokens:
            works = "the tokenizer may have more tokens than the embedding has rows"
            raise UserError(f"the model has tokens 0 to {tokens - 1}", given=low if low < 0 else high, works=works)
