"""Readouts: what edits change in the next-token distribution, per token. Composable parts of `Model.score`.

A readout is a small frozen object; named ones are entry points of the group `interp.readouts`, which packages extend.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.distributions import entropy, kl, log_odds, total_variation
from interp.errors import UserError
from interp.registry import load
from interp.selection import whole
from interp.token_ids import checked_ids, vocabulary_index


@dataclass(frozen=True)
class Rows:
    """Next-token distributions at some positions.

    Attributes:
        base: log-probabilities without the edits, nats.
        steered: log-probabilities with them.
        following: the token that does follow; -1 where the row ends.
        text: text of a token.
    """

    base: Float[Tensor, "row vocab"]
    steered: Float[Tensor, "row vocab"]
    following: Int[Tensor, " row"]
    text: Callable[[int], str] = str


@runtime_checkable
class Readout(Protocol):
    """Columns of numbers (or lists) for each position. `columns` gives each one's meaning with its unit."""

    @property
    def columns(self) -> Mapping[str, str]: ...  # noqa: D102 - see the class

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]: ...  # noqa: D102


@dataclass(frozen=True)
class KL:
    """KL(steered || base): what a token drawn from the steered model costs under the base model.

    This direction, because the steered model is the one that writes: summed over a completion that it writes, this is
    the KL of whole completions, and the base gives every token some probability, so that it is finite.
    """

    @property
    def columns(self) -> Mapping[str, str]:
        """One column."""
        return {"kl": "KL(steered || base), nats"}

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Per position."""
        return {"kl": kl(rows.steered, rows.base).tolist()}


@dataclass(frozen=True)
class TV:
    """Total variation: half the summed absolute change of probability."""

    @property
    def columns(self) -> Mapping[str, str]:
        """One column."""
        return {"tv": "total variation, 1/2 sum |P_steered - P_base|, in [0, 1]"}

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Per position."""
        return {"tv": total_variation(rows.steered, rows.base).tolist()}


@dataclass(frozen=True)
class DeltaP:
    """The largest increase and decrease of a token's probability (arXiv:2509.06608 Fig. 3).

    When NOT to use it alone: a maximum over the vocabulary is positive for any edit, and largest where the base is
    undecided. See `LogOdds`.
    """

    @property
    def columns(self) -> Mapping[str, str]:
        """Both extremes with their tokens."""
        return {
            "max_dp": "largest increase of a token's probability",
            "max_token_id": "the token with it",
            "max_token": "its text",
            "min_dp": "largest decrease, negative",
            "min_token_id": "the token with it",
            "min_token": "its text",
        }

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Per position."""
        change = rows.steered.exp() - rows.base.exp()
        found: dict[str, Sequence[Any]] = {}
        for name, (value, token) in (("max", change.max(-1)), ("min", change.min(-1))):
            found |= {f"{name}_dp": value.tolist(), f"{name}_token_id": token.tolist()}
            found[f"{name}_token"] = [rows.text(t) for t in token.tolist()]
        return found


@dataclass(frozen=True)
class LogOdds:
    """Probability and log-odds of chosen tokens: `LogOdds((28,))`; lists in the order of `tokens`.

    The change of log-odds does not depend on how undecided the base is, as a change of probability does.
    """

    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", checked_ids(self.tokens))

    @property
    def columns(self) -> Mapping[str, str]:
        """Lists, one value a token."""
        return {
            "p_base": "probability of each chosen token without the edits",
            "p_steered": "probability with them",
            "delta_p": "change of probability",
            "delta_log_odds": "change of log(p / (1 - p)), nats",
        }

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Per position."""
        index = vocabulary_index(self.tokens, rows.base)
        base, steered = rows.base[:, index], rows.steered[:, index]
        return {
            "p_base": base.exp().tolist(),
            "p_steered": steered.exp().tolist(),
            "delta_p": (steered.exp() - base.exp()).tolist(),
            "delta_log_odds": (log_odds(steered) - log_odds(base)).tolist(),
        }


@dataclass(frozen=True)
class LogitDiff:
    """Logit of token `a` minus logit of token `b`."""

    a: int
    b: int

    def __post_init__(self) -> None:
        for name in ("a", "b"):
            object.__setattr__(self, name, checked_ids(getattr(self, name))[0])

    @property
    def columns(self) -> Mapping[str, str]:
        """Without and with the edits."""
        meaning = "logit of token a minus logit of token b, nats"
        return {"logit_diff_base": f"{meaning}, without the edits", "logit_diff_steered": f"{meaning}, with them"}

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Per position."""
        pairs = {"logit_diff_base": rows.base, "logit_diff_steered": rows.steered}
        a, b = vocabulary_index((self.a, self.b), rows.base)
        return {name: (log_p[:, a] - log_p[:, b]).tolist() for name, log_p in pairs.items()}


@dataclass(frozen=True)
class Entropy:
    """Entropy of the next token."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Without and with the edits."""
        return {"entropy_base": "entropy without the edits, nats", "entropy_steered": "entropy with them, nats"}

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Per position."""
        return {"entropy_base": entropy(rows.base).tolist(), "entropy_steered": entropy(rows.steered).tolist()}


@dataclass(frozen=True)
class Argmax:
    """The most likely next token."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Without and with the edits."""
        return {
            "argmax_base_id": "most likely token without the edits",
            "argmax_base": "its text",
            "argmax_steered_id": "most likely token with them",
            "argmax_steered": "its text",
        }

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Per position."""
        found: dict[str, Sequence[Any]] = {}
        for name, log_p in (("base", rows.base), ("steered", rows.steered)):
            tokens = log_p.argmax(-1).tolist()
            found |= {f"argmax_{name}_id": tokens, f"argmax_{name}": [rows.text(t) for t in tokens]}
        return found


@dataclass(frozen=True)
class TopTokens:
    """The `k` most likely next tokens, as lists of text."""

    k: int = 5

    def __post_init__(self) -> None:
        if whole(self.k, "the number of top tokens") < 1:
            raise UserError("at least one top token is shown", given=self.k, works="TopTokens(k=5)")

    @property
    def columns(self) -> Mapping[str, str]:
        """Without and with the edits."""
        return {"top_base": f"{self.k} most likely tokens without the edits", "top_steered": "the same with them"}

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Per position."""
        pairs = {"top_base": rows.base, "top_steered": rows.steered}
        tops = {name: log_p.topk(min(self.k, log_p.shape[-1])).indices.tolist() for name, log_p in pairs.items()}
        return {name: [[rows.text(t) for t in row] for row in top] for name, top in tops.items()}


@dataclass(frozen=True)
class LogProb:
    """Log-probability of the token that does follow; NaN at a row's last token."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Without and with the edits."""
        meaning = "log-probability of the next token of the row, nats"
        return {"log_prob_base": f"{meaning}, without the edits", "log_prob_steered": f"{meaning}, with them"}

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Per position."""
        there, index = rows.following >= 0, rows.following.clamp(min=0)[:, None]
        pairs = {"log_prob_base": rows.base, "log_prob_steered": rows.steered}
        return {
            name: log_p.gather(1, index)[:, 0].masked_fill(~there, torch.nan).tolist() for name, log_p in pairs.items()
        }


@dataclass(frozen=True)
class Choice:
    """Log-probability of each of some answers, given that one of them comes: `Choice({"A": 34, "B": 35})`."""

    choices: Mapping[str, int]

    def __post_init__(self) -> None:
        ids = checked_ids(tuple(self.choices.values()))
        object.__setattr__(self, "choices", dict(zip(self.choices, ids, strict=True)))

    @property
    def columns(self) -> Mapping[str, str]:
        """A column for each choice, without and with the edits."""
        meaning = "log-probability among the choices, nats"
        return {f"choice_{name}_{run}": meaning for run in ("base", "steered") for name in self.choices}

    def __call__(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Per position."""
        index, found = vocabulary_index(tuple(self.choices.values()), rows.base), dict[str, Sequence[Any]]()
        for run, log_p in (("base", rows.base), ("steered", rows.steered)):
            among = log_p[:, index].log_softmax(-1)
            found |= {f"choice_{name}_{run}": among[:, i].tolist() for i, name in enumerate(self.choices)}
        return found


BUILT_IN: Mapping[str, Callable[..., Readout]] = {
    "kl": KL,
    "tv": TV,
    "delta_p": DeltaP,
    "log_odds": LogOdds,
    "logit_diff": LogitDiff,
    "entropy": Entropy,
    "argmax": Argmax,
    "top_tokens": TopTokens,
    "log_prob": LogProb,
    "choice": Choice,
}
"""Readouts of this package by name."""


def readout(name: str) -> Readout:
    """A readout by name, with its default settings.

    Raises:
        UserError: there is no such readout, or it must be told tokens first.
    """
    kind: Any = BUILT_IN[name] if name in BUILT_IN else load("readouts", name)
    made: Any = _made(kind, name) if isinstance(kind, type) or not hasattr(kind, "columns") else kind

    if not hasattr(made, "__call__") or not isinstance(getattr(made, "columns", None), Mapping):  # noqa: B004
        works = "name an object with `columns` that is called with Rows, its class, or a function that returns it"
        raise UserError("this is no readout", given=name, works=works)
    return cast("Readout", made)


def _made(kind: Any, name: str) -> Any:
    """A readout from its class, or from a function without arguments."""
    if not callable(kind):
        return kind
    try:
        inspect.signature(kind).bind()
    except (TypeError, ValueError) as error:
        called = getattr(kind, "__name__", name)
        works = f"give a readout in place of its name: {called}(...)"
        if ".py:" in name:
            works = f"write NAME = {called}(...) into the file and name that"
        raise UserError(f"the readout {name} must be told more, such as its tokens", works=works) from error
    return kind()
