"""Lets what takes a Model take a bare HookedTransformer or TransformerBridge too."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

Target = TypeVar("Target", bound=Callable[..., Any])

MARK = "__takes_model__"
"""Attribute of what this module decorated."""


def takes_model(target: Target) -> Target:
    """Wrap every bare model among the arguments; anything else is passed on as it is.

    Use it on a function, below `@classmethod`, or above `@dataclass` on a class with a field `model`.
    """
    if isinstance(target, type):
        kind: Any = target
        kind.__init__ = takes_model(kind.__init__)
        return kind

    @functools.wraps(target)
    def call(*arguments: Any, **named: Any) -> Any:
        return target(*map(wrapped, arguments), **{name: wrapped(value) for name, value in named.items()})

    setattr(call, MARK, True)
    return call  # pyright: ignore[reportReturnType]


def wrapped(model: Any) -> Any:
    """Return a Model for a bare HookedTransformer or TransformerBridge, and anything else as it is."""
    torch = sys.modules.get("torch")  # without torch there is no bare model, and none is to be imported
    if torch is None or not isinstance(model, torch.nn.Module):
        return model
    from interp.backend.weights import Hooked

    if not isinstance(model, Hooked):
        return model
    return import_module("interp.model").Model.of(model)  # by name: that module uses this one
