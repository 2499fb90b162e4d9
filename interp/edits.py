"""Edits: printable, hashable changes of a forward pass. A model is never mutated by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.digest import digest
from interp.errors import UserError
from interp.finite import check_tensor, finite
from interp.identity import UNSAVED, identity_of, kept_identity
from interp.positions import EVERYWHERE, Positions, Tokens
from interp.sites import Site, block


@runtime_checkable
class Edit(Protocol):
    """A change of some streams at some positions.

    `apply` gets the value of one of `sites` and the tokens of the pass, whose `selected` marks the positions to
    touch, and returns the new value; it must not write into the old one. `by_row` says whether the result depends
    on which row it is (then rows cannot share a prefix). An edit with the attribute `base_sites`, some of its sites,
    finds the stream of a pass without any edit in the tokens' `base` there.
    """

    @property
    def sites(self) -> tuple[Site, ...]: ...  # noqa: D102 - see the class
    @property
    def positions(self) -> Positions: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def by_row(self) -> bool: ...  # noqa: D102

    def describe(self) -> str: ...  # noqa: D102
    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor: ...  # noqa: D102


@runtime_checkable
class Intervention(Protocol):
    """Anything that yields edits: steering vectors, adaptive vectors, SAE features."""

    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def card(self) -> Any: ...  # noqa: D102

    def edits(self) -> tuple[Edit, ...]: ...  # noqa: D102


class _Hashed:
    """Equality and hash by content."""

    def _content(self) -> tuple[object, ...]:
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """Content hash; taken anew each time, because a tensor may be written into."""
        return digest(type(self).__qualname__, *self._content())

    @property
    def by_row(self) -> bool:
        """Whether the result depends on which row it is."""
        return False

    def __eq__(self, other: object) -> bool:
        if other is self or type(other) is not type(self):
            return other is self
        return identity_of(self) == identity_of(other)  # a subclass may have fields that its digest does not cover

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True, eq=False)
class Add(_Hashed):
    """value + scale * direction, computed in float32 and rounded once (arXiv:2509.06608 sec. 2).

    Args:
        site: where; a steering vector trained as the bias of block l is `Site(l, "resid_post")`.
        direction: [d_model] at residual sites, [d_mlp] at mlp_post, [head, d_head] at q, k, v, z.
        scale: factor, without unit.
        positions: which tokens; by default all of prompt and completion.
        origin: name of its vectors, shown in figures; no part of its digest.

    Raises:
        UserError: direction or scale is NaN or infinite. A scale or direction of 0 is allowed: the model as it is.
    """

    site: Site
    direction: Float[Tensor, "*d"]
    scale: float = 1.0
    positions: Positions = EVERYWHERE
    origin: str = field(default="", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        check_tensor(self.direction, f"the direction at {self.site}")
        object.__setattr__(self, "scale", finite(self.scale, "the scale of an edit"))

    @property
    def sites(self) -> tuple[Site, ...]:
        """The one site."""
        return (self.site,)

    def _content(self) -> tuple[object, ...]:
        return self.site, self.direction, float(self.scale), self.positions

    def describe(self) -> str:
        """One line: norm, site, positions."""
        norm = float(self.direction.detach().float().norm()) * self.scale
        return f"add a vector of norm {norm:.4g} at {self.site}, {_where(self.positions)}"

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
        """Add at the selected positions."""
        if self.direction.shape != value.shape[2:]:
            given = list(self.direction.shape)
            raise UserError(f"{site} takes a direction of shape {list(value.shape[2:])}", given=given)
        exact = self.direction if self.direction.dtype == torch.float64 else self.direction.float()
        delta = (self.scale * exact).to(value.device)
        moved = (value.float() + delta).to(value.dtype) if value.dtype != torch.float64 else value + delta
        return moved if self.positions == EVERYWHERE else select(tokens, moved, value)


@dataclass(frozen=True, eq=False)
class AddAdaptive(_Hashed):
    """MLP output += (a . m_t) b with m_t = mlp_post: a rank-1 LoRA of down_proj (arXiv:2509.06608 sec. 10).

    Args:
        layer: the block.
        a: [d_mlp], reads.
        b: [d_model], writes; carries LoRA's alpha / r.
        scale: factor, without unit.
        positions: which tokens.
        origin: as of `Add`.
    """

    layer: int
    a: Float[Tensor, " d_mlp"]
    b: Float[Tensor, " d_model"]
    scale: float = 1.0
    positions: Positions = EVERYWHERE
    origin: str = field(default="", kw_only=True, repr=False)
    adapts_down_proj = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", block(self.layer))
        for name in ("a", "b"):
            check_tensor(getattr(self, name), f"{name} of the adapter at block {self.layer}", ndim=1)
        object.__setattr__(self, "scale", finite(self.scale, "the scale of an edit"))

    @property
    def sites(self) -> tuple[Site, ...]:
        """Reads mlp_post, writes mlp_out."""
        return Site(self.layer, "mlp_post"), Site(self.layer, "mlp_out")

    def _content(self) -> tuple[object, ...]:
        return self.layer, self.a, self.b, float(self.scale), self.positions

    def describe(self) -> str:
        """One line: norms, block, positions."""
        norm = float(self.a.detach().norm() * self.b.detach().norm()) * self.scale
        return f"add (a . mlp_post) b of norm {norm:.4g} at mlp_out[{self.layer}], {_where(self.positions)}"

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
        """Read the coefficient at mlp_post, add at mlp_out."""
        if site.stream == "mlp_post":
            tokens.scratch["coefficient"] = value.float() @ self.a.to(value.device)
            return value
        moved = value.float() + self.scale * tokens.scratch["coefficient"][..., None] * self.b.to(value.device)
        return select(tokens, moved.to(value.dtype), value)


@dataclass(frozen=True, eq=False)
class Patch(_Hashed):
    """Replace a stream by its value in another run.

    Args:
        site: where.
        source: [batch, pos, ...] values from a run over rows of the same shape, one row for each row of the batch.
        positions: which tokens.
    """

    site: Site
    source: Float[Tensor, "batch pos *d"]
    positions: Positions = EVERYWHERE

    def __post_init__(self) -> None:
        check_tensor(self.source, f"the source at {self.site}")
        if self.source.ndim < 3:
            given = f"shape {list(self.source.shape)}"
            raise UserError("a source is [batch, pos, ...]", given=given, works="the values of a Trace")

    @property
    def sites(self) -> tuple[Site, ...]:
        """The one site."""
        return (self.site,)

    @property
    def by_row(self) -> bool:
        """Each row has its own source."""
        return True

    def _content(self) -> tuple[object, ...]:
        return self.site, self.source, self.positions

    def describe(self) -> str:
        """One line."""
        return f"patch {self.site}, {_where(self.positions)}"

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
        """Take the source's values at the selected positions, aligned at the rows' right ends."""
        source = self.source[tokens.rows.to(self.source.device)]
        if source.shape[1] < value.shape[1] or source.shape[2:] != value.shape[2:]:
            raise UserError(
                f"{site} is {list(value.shape)} here", given=list(source.shape), works="patch the same rows"
            )
        return select(tokens, source[:, -value.shape[1] :].to(value), value)


@dataclass(frozen=True, eq=False)
class Custom(_Hashed):
    """An edit of one's own: `function(value, tokens) -> value`, used at the selected positions.

    The digest follows everything that can change what the function does: see `interp.identity`. It is taken anew each
    time, because a global that the function uses may have changed. Where it cannot be told what the function depends
    on, a warning says why, the digest is another one each time, and nothing computed with the edit is kept.
    """

    site: Site
    function: Callable[[Tensor, Tokens], Tensor]
    positions: Positions = EVERYWHERE

    @property
    def sites(self) -> tuple[Site, ...]:
        """The one site."""
        return (self.site,)

    @property
    def by_row(self) -> bool:
        """Not known, so assumed."""
        return True

    @property
    def digest(self) -> str:
        """Content hash of the function, the site and the positions as they are now."""
        known = kept_identity(self.function, _name(self.function))
        return known if known.startswith(UNSAVED) else digest("Custom", self.site, known, self.positions)

    def __eq__(self, other: object) -> bool:
        same = type(other) is type(self) and self.function == other.function  # pyright: ignore[reportAttributeAccessIssue]
        return same and (self.site, self.positions) == (other.site, other.positions)  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash(self.site)

    def describe(self) -> str:
        """One line."""
        return f"{_name(self.function)} at {self.site}, {_where(self.positions)}"

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG002 - there is one site
        """Call the function and keep its result where selected."""
        return select(tokens, self.function(value, tokens), value)


@dataclass(frozen=True)
class PerRow:
    """One sequence of edits for each row of a batch; rows may differ in layer, vector, scale and positions."""

    rows: tuple[tuple[Edit, ...], ...]

    def describe(self) -> list[str]:
        """A line for each edit of each row."""
        return [f"row {row}: {edit.describe()}" for row, edits in enumerate(self.rows) for edit in edits]


Edits = Sequence[Edit] | PerRow


def per_row(rows: Sequence[Sequence[Edit]]) -> PerRow:
    """Give each row of a batch its own edits: `per_row([v.edits() for v in vectors])`."""
    return PerRow(tuple(tuple(edits) for edits in rows))


def scaled(edit: Add | AddAdaptive, factor: float) -> Add | AddAdaptive:
    """The same edit, `factor` times as strong."""
    return replace(edit, scale=edit.scale * factor)


def select(tokens: Tokens, new: Tensor, old: Tensor) -> Tensor:
    """`new` where the pass's selected positions are, `old` elsewhere; trailing dimensions broadcast."""
    selected: Bool[Tensor, "batch pos"] | None = tokens.selected
    if selected is None:
        raise UserError("an edit was applied outside a model's pass", works="give it to Model.run, generate or score")
    return torch.where(selected.reshape(*selected.shape, *(1,) * (old.ndim - 2)), new, old)


def _name(function: Callable[..., object]) -> str:
    """Return the name of a function, a partial one or a callable object."""
    inner: Any = getattr(function, "func", function)
    return str(getattr(inner, "__qualname__", type(inner).__qualname__))


def _where(positions: Positions) -> str:
    return "everywhere" if positions == EVERYWHERE else f"prompt {positions.prompt}, generated {positions.generated}"


def card_of(intervention: Intervention) -> Mapping[str, Any]:
    """The card as plain JSON data."""
    card = intervention.card
    return card.model_dump(mode="json") if hasattr(card, "model_dump") else dict(card)
