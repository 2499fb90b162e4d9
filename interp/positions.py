"""Which tokens an edit touches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, SupportsIndex

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import UserError
from interp.selection import brief, is_collection, whole, whole_numbers


@dataclass(frozen=True)
class At:
    """Tokens whose decoded text, stripped of white space, equals `text`.

    Raises:
        UserError: the text is empty without its white space, or is no text.
    """

    text: str

    def __post_init__(self) -> None:
        text = self.text.strip() if isinstance(self.text, str) else ""  # pyright: ignore[reportUnnecessaryIsInstance]
        if not text:
            works = 'at("=") compares texts without the white space around them'
            raise UserError("tokens are selected by a text that is not empty", given=repr(self.text), works=works)
        object.__setattr__(self, "text", text)


def at(text: str) -> At:
    """Select tokens by their decoded text, stripped of white space: `Positions(prompt=at("="))`."""
    return At(text)


@dataclass(frozen=True)
class Section:
    """A slice as a hashable value; `Positions(prompt=slice(2, -1))` keeps one.

    Attributes:
        start: as in a slice; None = open.
        stop: as in a slice; None = open.
        step: as in a slice, never 0.
    """

    start: int | None
    stop: int | None
    step: int

    def within(self, length: int) -> range:
        """Return the positions of a row of that length, in rising order."""
        chosen = range(length)[slice(self.start, self.stop, self.step)]
        return chosen if self.step > 0 else chosen[::-1]


Selector = Literal["all", "none"] | SupportsIndex | range | slice | Section | At | Iterable[SupportsIndex]
"""What `Positions` takes: keywords, whole numbers of any type, collections of them, slices, `at("text")`."""


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
        members: True at the rows of the caller's batch that each row of a shared prefix stands for; None where each
            row stands for itself.
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
    members: Bool[Tensor, "batch row"] | None = None

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
            members=None if self.members is None else self.members[rows],
        )


@dataclass(frozen=True)
class Positions:
    """Positions of a row, counted from its first real token; padding is never selected.

    In the prompt, a negative index counts from the prompt's end (-1 = the last prompt token), and a slice selects what
    it selects of the list of the prompt's tokens. In the completion, 0 is the position whose INPUT is the first
    generated token. The default, all of both, is that of a steering vector (arXiv:2509.06608 sec. 2).

    A number that exists in no row of a call is an error of that call, as is an edit that touches no token in it; a
    range or slice may reach beyond a row. Rows that an edit does not touch are counted in `Fired.untouched`.

    Args:
        prompt: "all", "none", an index, indices (list, tuple, set, range, array or tensor), a slice, or `at("text")`.
        generated: the same, without negative indices: a completion's end is not known in advance.

    Raises:
        UserError: a selector selects nothing or is something else: None, a float, a boolean, a mask.
    """

    prompt: Selector = "all"
    generated: Selector = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", selector(self.prompt, "prompt"))
        object.__setattr__(self, "generated", selector(self.generated, "generated"))
        if _counts_from_end(self.generated):
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

    def outside(self, prompt_len: int) -> int | None:
        """Return an index that no prompt of up to `prompt_len` tokens has; None where there is none."""
        return next((index for index in _indices(self.prompt) if not -prompt_len <= index < prompt_len), None)

    def words(self) -> str:
        """Return the positions in words, for titles: "last prompt position and all generated ones"."""
        if self.prompt == "all" and self.generated == "all":
            return "all positions"
        parts = [_words(self.prompt, "prompt"), _words(self.generated, "generated")]
        return " and ".join(part for part in parts if part)


def is_keyword(selector: object) -> bool:
    """Tell whether a selector is "all" or "none", which counts nothing."""
    return isinstance(selector, str)


def selector(value: object, name: str) -> Selector:
    """Return the one form of a selector that equal selections share.

    Raises:
        UserError: it is no selector, or selects nothing.
    """
    works = 'use "all", "none", a whole number, several of them, a slice, or at("text")'
    if isinstance(value, At) or (isinstance(value, str) and value in ("all", "none")):
        return value
    value = slice(value.start, value.stop, value.step) if isinstance(value, Section) else value
    if isinstance(value, str) or value is None:
        raise UserError(f"no such {name} positions", given=repr(value), works=works)
    if isinstance(value, slice):
        return _section(value, name)
    if isinstance(value, range) and value:
        if whole(value[0], "a position") == whole(value[-1], "a position"):
            return value[0]
        return value
    what = "a position (of a mask of booleans, give the indices)"
    if not is_collection(value):
        return whole(value, what, works=works)
    return tuple(sorted(set(whole_numbers(value, what, works=works))))


def _section(value: slice, name: str) -> Selector:
    ends = [None if end is None else whole(end, "an end of a slice") for end in (value.start, value.stop)]
    step = 1 if value.step is None else whole(value.step, "the step of a slice")
    far = sum(map(abs, filter(None, ends)))
    section = Section(ends[0], ends[1], step)
    if step == 0 or not any(section.within(length) for length in (*map(abs, filter(None, ends)), far + 1, far + 2)):
        raise UserError(f"this slice of {name} positions selects nothing", given=brief(value))
    whole_row = step in (1, -1) and ends[0] in (None, 0 if step == 1 else -1) and ends[1] is None
    return "all" if whole_row else section


def _counts_from_end(selector: Selector) -> bool:
    if isinstance(selector, Section):
        return selector.step < 0 or (selector.start or 0) < 0 or (selector.stop or 0) < 0
    if isinstance(selector, range):
        return min(selector[0], selector[-1]) < 0
    return not is_keyword(selector) and any(index < 0 for index in _indices(selector))


def _indices(selector: Selector) -> tuple[int, ...]:
    if isinstance(selector, int):
        return (selector,)
    return tuple(map(int, selector)) if isinstance(selector, tuple) else ()


def _matches(
    selector: Selector, tokens: Tokens, numberings: tuple[Int[Tensor, "batch pos"], ...]
) -> Bool[Tensor, "batch pos"]:
    """Compare indices with every numbering: in a prompt the first is never negative and the last always is."""
    ids = tokens.ids
    if selector == "all":
        return torch.ones_like(ids, dtype=torch.bool)
    if isinstance(selector, At):
        wanted = [i for i in ids.unique().tolist() if tokens.decode(i).strip() == selector.text]
        return torch.isin(ids, torch.tensor(wanted, dtype=ids.dtype, device=ids.device))
    hit = torch.zeros_like(ids, dtype=torch.bool)
    if isinstance(selector, Section):
        return _in_section(selector, tokens, numberings)
    for numbering in numberings:
        if isinstance(selector, range):
            low, high = sorted((selector[0], selector[-1]))
            hit |= (numbering >= low) & (numbering <= high) & ((numbering - low) % selector.step == 0)
        elif indices := _indices(selector):
            hit |= torch.isin(numbering, torch.tensor(indices, device=ids.device))
    return hit


def _in_section(
    section: Section, tokens: Tokens, numberings: tuple[Int[Tensor, "batch pos"], ...]
) -> Bool[Tensor, "batch pos"]:
    """Select what the slice selects of each row's prompt, or of a completion without end."""
    position = numberings[0]
    if len(numberings) == 1:  # generated positions, whose number is not known
        low, step = section.start or 0, section.step
        inside = (position >= low) & ((position - low) % step == 0)
        return inside if section.stop is None else inside & (position < section.stop)
    chosen = [section.within(length) for length in tokens.prompt_len.tolist()]
    bounds = [(row[0], row[-1]) if row else (1, 0) for row in chosen]
    low, high = torch.tensor(bounds, device=position.device).unbind(1)
    return (position >= low[:, None]) & (position <= high[:, None]) & ((position - low[:, None]) % section.step == 0)


def _words(selector: Selector, name: str) -> str:
    if selector == "none":
        return ""
    if is_keyword(selector):
        return f"all {name} positions"
    if isinstance(selector, At):
        return f"{name} tokens {selector.text!r}"
    if isinstance(selector, Section):
        ends = ["" if end is None else str(end) for end in (selector.start, selector.stop)]
        return f"{name} positions [{':'.join(ends)}{'' if selector.step == 1 else f':{selector.step}'}]"
    if isinstance(selector, range):
        step = "" if selector.step == 1 else f" in steps of {selector.step}"
        return f"{name} positions {selector[0]} to {selector[-1]}{step}"
    indices = _indices(selector)
    if indices == (-1,):
        return f"last {name} position"
    shown = ", ".join(map(str, indices[:6])) + (", ..." if len(indices) > 6 else "")
    return f"{name} position{'s' if len(indices) > 1 else ''} {shown}"


EVERYWHERE = Positions()
"""Every token of prompt and completion."""
