"""Lets what takes a Model take a bare HookedTransformer or TransformerBridge too."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Collection
from importlib import import_module
from numbers import Number
from typing import Any, TypeVar

from interp.arguments import shown
from interp.errors import UserError

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

    names = list(inspect.signature(target).parameters)
    place = names.index("model") if "model" in names else len(names)

    @functools.wraps(target)
    def call(*arguments: Any, **named: Any) -> Any:
        refuse_plain(arguments[place] if place < len(arguments) else named.get("model"))
        return target(*map(wrapped, arguments), **{name: wrapped(value) for name, value in named.items()})

    setattr(call, MARK, True)
    return call  # pyright: ignore[reportReturnType]


def refuse_plain(value: object) -> None:
    """Refuse a name, a path, a number or a collection in place of a model.

    Raises:
        UserError: it is one.
    """
    if isinstance(value, str | bytes | os.PathLike | Number | Collection):
        raise UserError("this is no model", given=shown(value), works="load_model(...), or a HookedTransformer")


def wrapped(model: Any) -> Any:
    """Return a Model for a bare HookedTransformer or TransformerBridge, and anything else as it is."""
    torch = sys.modules.get("torch")  # without torch there is no bare model, and none is to be imported
    if torch is None or not isinstance(model, torch.nn.Module):
        return model
    from interp.backend.weights import Hooked

    if not isinstance(model, Hooked):
        return model
    return import_module("interp.model").Model.of(model)  # by name: that module uses this one
