"""Experiments: one file each, found by entry point. Names load when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.logit_lens import LogitLens as LogitLens
    from experiments.prefix_substitution import PrefixSubstitution as PrefixSubstitution
    from experiments.token_substitution import TokenSubstitution as TokenSubstitution

_HOME = {
    "LogitLens": "experiments.logit_lens",
    "PrefixSubstitution": "experiments.prefix_substitution",
    "TokenSubstitution": "experiments.token_substitution",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
