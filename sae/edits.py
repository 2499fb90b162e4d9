"""Edits that hold features of a dictionary at values, and interventions made of them.

For a dictionary of the change (DiffSAE), Delta_t is taken against the stream without any edit, which is computed in
lockstep on the same tokens: h <- h + (value - f_j(Delta_t)) d_j, at the positions that the edit selects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.digest import digest
from interp.edits import Edit, Intervention, select
from interp.errors import UserError
from interp.finite import finite
from interp.identity import identity_of
from interp.positions import Positions, Tokens
from interp.sites import Site
from sae.dictionary import Dictionary

COMPLETION = Positions(prompt=-1, generated="all")
"""The positions that predict a completion, where features are edited unless something else is said."""


@dataclass(frozen=True, eq=False)
class _Coded:
    """What edits through a dictionary share."""

    dictionary: Dictionary

    @property
    def sites(self) -> tuple[Site, ...]:
        """The dictionary's site; give the edit after those that it is to see."""
        return (self.dictionary.site,)

    @property
    def base_sites(self) -> tuple[Site, ...]:
        """Where the stream without edits is needed."""
        return self.sites if self.dictionary.card.of == "change" else ()

    @property
    def by_row(self) -> bool:
        """The same rule for every row."""
        return False

    @property
    def digest(self) -> str:
        """Content hash."""
        return digest(type(self).__name__, self.dictionary.digest, *self._content())

    def _content(self) -> tuple[object, ...]:
        raise NotImplementedError

    def described(self, value: Tensor, tokens: Tokens) -> Tensor:
        """What the dictionary describes at these tokens."""
        if not self.base_sites:
            return value
        if tokens.base is None:
            raise UserError("this edit was applied outside a model's pass", works="give it to Model.run or generate")
        return value - tokens.base

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.digest == other.digest  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True, eq=False)
class Clamp(_Coded):
    """Hold features at values: h <- h + sum_j gain (value_j - f_j(x)) d_j.

    Args:
        dictionary: of the stream or of the change.
        values: feature -> the activation that it gets, in the dictionary's unit.
        positions: which tokens; those that predict the completion by default.

    Raises:
        UserError: there is no such feature.
    """

    values: Mapping[int, float]
    positions: Positions = COMPLETION

    def __post_init__(self) -> None:
        features = self.dictionary.checked(tuple(self.values))
        held = [finite(value, "a feature's value") for value in self.values.values()]
        object.__setattr__(self, "values", dict(zip(features, held, strict=True)))

    def _content(self) -> tuple[object, ...]:
        return dict(self.values), self.positions

    def describe(self) -> str:
        """One line."""
        held = ", ".join(f"{feature} at {value:g}" for feature, value in list(self.values.items())[:4])
        more = ", ..." if len(self.values) > 4 else ""
        return f"hold features {held}{more} of {self.dictionary.name} at {self.dictionary.site}, {self.positions}"

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG002 - there is one site
        """Move the stream along the features' directions, at the selected positions."""
        x, features = self.described(value, tokens), list(self.values)
        wanted = torch.tensor([self.values[feature] for feature in features], device=value.device)
        change = wanted - self.dictionary.encode(x)[..., features]
        move = self.dictionary.gain(x) * (change @ self.dictionary.directions[features])
        return select(tokens, (value.float() + move).to(value.dtype), value)


def Ablate(dictionary: Dictionary, features: int | Sequence[int], positions: Positions = COMPLETION) -> Clamp:
    """Take features out: h <- h - sum_j f_j(x) d_j.

    Args:
        dictionary: of the stream or of the change.
        features: one or several.
        positions: which tokens; those that predict the completion by default.
    """
    return Clamp(dictionary, dict.fromkeys(dictionary.checked(features), 0.0), positions)


@dataclass(frozen=True, eq=False)
class Reconstruct(_Coded):
    """Replace x by its reconstruction, error left out; adding the error back would change nothing.

    Args:
        dictionary: of the stream or of the change.
        positions: which tokens.
    """

    positions: Positions = COMPLETION

    def _content(self) -> tuple[object, ...]:
        return (self.positions,)

    def describe(self) -> str:
        """One line."""
        return f"reconstruct by {self.dictionary.name} at {self.dictionary.site}, {self.positions}"

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG002 - there is one site
        """Leave the error out, at the selected positions."""
        x = self.described(value, tokens)
        moved = value.float() + self.dictionary.reconstruct(x) - x.float()
        return select(tokens, moved.to(value.dtype), value)


@dataclass(frozen=True, eq=False)
class Features:
    """Features held at values on top of other vectors: an `Intervention`, for every command and experiment.

    Args:
        dictionary: of the stream, or of the change that `on` makes.
        values: feature -> activation; 0 takes it out.
        on: the vectors below; needed for a dictionary of the change.
        positions: which tokens.

    Raises:
        UserError: a dictionary of the change has nothing below it, or describes the change by other vectors.
    """

    dictionary: Dictionary
    values: Mapping[int, float]
    on: Any = None
    positions: Positions = COMPLETION

    def __post_init__(self) -> None:
        if self.dictionary.card.of == "change" and self.on is None:
            works = f"Features(..., on={self.dictionary.card.vectors or 'the vectors'})"
            raise UserError("without vectors there is no change to describe", given=self.dictionary.name, works=works)
        if self.on is not None:
            self.dictionary.check_vectors(self.on)

    @property
    def digest(self) -> str:
        """Content hash."""
        return digest("Features", [identity_of(edit) for edit in self.edits()])

    @property
    def card(self) -> dict[str, Any]:
        """What it is made of."""
        below: Intervention | None = self.on
        name = f"{len(self.values)} features of {self.dictionary.name}"
        return {"name": name, "dictionary": self.dictionary.digest, "on": None if below is None else below.digest}

    def edits(self) -> tuple[Edit, ...]:
        """Those of the vectors below, then the clamp."""
        below = () if self.on is None else tuple(self.on.edits())
        return (*below, Clamp(self.dictionary, self.values, self.positions))
