"""Code that somebody put on a model: hooks, replaced methods, modules of other classes, dropout that is on.

The engine reads weights and knows nothing of these, so it runs only where a survey of the model finds none. A survey
visits every module and takes less than a millisecond for each thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import nn
from torch.nn.modules import module as global_hooks
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]
from transformer_lens import HookedTransformer
from transformer_lens.components import (
    Attention,
    Embed,
    GroupedQueryAttention,
    LayerNorm,
    LayerNormPre,
    PosEmbed,
    RMSNorm,
    RMSNormPre,
    TransformerBlock,
    Unembed,
)
from transformer_lens.components.abstract_attention import AbstractAttention
from transformer_lens.components.mlps.gated_mlp import GatedMLP
from transformer_lens.components.mlps.mlp import MLP
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS

from interp.errors import UserError

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
LIBRARIES = ("torch", "transformer_lens", "transformers")
"""Packages whose modules compute what their class, weights and settings say."""

_ATTENTION = (Attention, GroupedQueryAttention)
_NORMS = (LayerNorm, LayerNormPre, RMSNorm, RMSNormPre)
_PARTS = (MLP, GatedMLP, Embed, PosEmbed, Unembed, HookPoint, nn.Identity, nn.ModuleList)
KNOWN = frozenset[type]((HookedTransformer, TransformerBlock, *_ATTENTION, *_NORMS, *_PARTS))
"""Classes that the engine computes; subclasses are others. Lists of blocks are added where they are seen."""


def _functions(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if isinstance(value, FunctionType)}


_CALLED = ("forward", "__call__")
_CALLS = ("__call__", "_call_impl", "_wrapped_call_impl", "__getattr__")
_CODE: dict[type, dict[str, Any]] = {
    **{kind: _functions(kind) for kind in (*KNOWN, AbstractAttention, HookedRootModule)},
    nn.Module: {name: vars(nn.Module)[name] for name in _CALLS},
}
_METHODS = {kind: frozenset(name for base in kind.__mro__ for name in _functions(base)) for kind in KNOWN}
_PATCHED_BEFORE = [
    f"{kind.__name__}.{name} was replaced"
    for kind, functions in _CODE.items()
    for name, function in functions.items()
    if function.__module__.partition(".")[0] not in LIBRARIES
]
_ACTIVATIONS = set(map(id, SUPPORTED_ACTIVATIONS.values()))


@dataclass(frozen=True)
class Survey:
    """What a model has besides weights; each reason is a text, empty where there is none.

    Attributes:
        whole: code on the model as a whole, which can change its logits after they are computed.
        head: code on the final norm or the unembedding.
        body: code on another module.
        kinds: classes of the modules.
    """

    whole: str = ""
    head: str = ""
    body: str = ""
    kinds: frozenset[type] = frozenset()

    @property
    def foreign(self) -> str:
        """The first reason."""
        return self.whole or self.head or self.body


def survey(hooked: Any) -> Survey:
    """Visit every module of a HookedTransformer or TransformerBridge.

    Raises:
        UserError: dropout is on, so that no two passes give the same numbers.
    """
    bridge = isinstance(hooked, TransformerBridge)
    kinds: set[type] = set()
    check = _alien if bridge else _altered
    body = _class_patched() or ("" if bridge else _root_altered(hooked))
    for module in modules_of(hooked):
        kinds.add(type(module))
        if module.training and type(module) not in KNOWN:
            _refuse_dropout(hooked, module)
        if module is not hooked and not body:
            body = _name(hooked, module, check(module, hooked.cfg))
    return Survey(_on_the_whole(hooked), head_survey(hooked), body, frozenset(kinds))


def head_survey(hooked: Any) -> str:
    """Return what is on the final norm or the unembedding; empty where there is nothing."""
    check = _alien if isinstance(hooked, TransformerBridge) else _altered
    for part in (getattr(hooked, "ln_final", None), getattr(hooked, "unembed", None)):
        for module in () if part is None else modules_of(part):
            if reason := check(module, hooked.cfg):
                return _name(hooked, module, reason)
    return ""


def modules_of(root: nn.Module) -> Iterator[nn.Module]:
    """Every module below, and the Hugging Face model inside a bridge; `nn.Module.modules` takes five times as long."""
    inside = vars(root).get("original_model")
    left, seen = [root] if inside is None else [root, inside], set[int]()
    while left:
        module = left.pop()
        if id(module) not in seen:
            seen.add(id(module))
            yield module
            left += [child for child in module._modules.values() if child is not None]  # pyright: ignore[reportPrivateUsage]


def _hooks(module: nn.Module) -> str:
    held = vars(module)
    return next((f"has {name[1:].replace('_', ' ')}" for name in HOOKS if held[name]), "")


def _altered(module: nn.Module, cfg: Any) -> str:
    """Why a module of a HookedTransformer may compute something else than its class does."""
    kind, held = type(module), vars(module)
    if held["_forward_hooks"] or held["_forward_pre_hooks"] or held["_backward_hooks"] or held["_backward_pre_hooks"]:
        return _hooks(module)
    if kind is HookPoint:  # most modules are
        return "has a forward method of its own" if "forward" in held else ""
    if kind not in _METHODS:
        return "" if _is_known_library(kind) else f"is a {kind.__qualname__}"
    if not held.keys().isdisjoint(_METHODS[kind]):
        return f"has a method {sorted(held.keys() & _METHODS[kind])[0]} of its own"
    act_fn = held.get("act_fn")
    if act_fn is not None and id(act_fn) not in _ACTIVATIONS:
        return "has an activation function of its own"
    own = held.get("cfg", cfg)
    return "" if own is cfg or own == cfg else "has a config of its own"


def _alien(module: nn.Module, cfg: Any) -> str:  # noqa: ARG001 - as `_altered`
    """The same of a module of a bridge, whose classes are those of Hugging Face."""
    if reason := _hooks(module):
        return reason
    if isinstance(vars(module).get("forward"), FunctionType):
        return "has a forward method of its own"
    return "" if _is_known_library(type(module)) else f"is a {type(module).__qualname__}"


def _is_known_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in LIBRARIES


def _class_patched() -> str:
    """A method of a class that somebody exchanged for all models, before or after this module was imported."""
    if _PATCHED_BEFORE:
        return _PATCHED_BEFORE[0]
    for kind, before in _CODE.items():
        now = vars(kind)
        for name, function in before.items():
            if now.get(name) is not function:
                return f"{kind.__name__}.{name} was replaced"
    return ""


def _root_altered(hooked: Any) -> str:
    """A method of a HookedTransformer other than `forward` that a subclass or somebody exchanged."""
    held, kind = vars(hooked), type(hooked)
    for name, function in _CODE[HookedTransformer].items():
        if name in held or (kind is not HookedTransformer and getattr(kind, name) is not function):
            return f"{kind.__name__}.{name} was replaced"
    return ""


def _on_the_whole(hooked: Any) -> str:
    for name in ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks"):
        if getattr(global_hooks, name):
            return "PyTorch's global module hooks are on"
    kind = TransformerBridge if isinstance(hooked, TransformerBridge) else HookedTransformer
    if "forward" in vars(hooked) or any(getattr(type(hooked), name) is not getattr(kind, name) for name in _CALLED):
        return "the forward method of the model was replaced"
    reason = _hooks(hooked)
    return f"the model itself {reason}" if reason else ""


def _refuse_dropout(hooked: Any, module: nn.Module) -> None:
    rates = [float(module.p)] if isinstance(module, _DropoutNd) else []
    rates += [value for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]
    if max(rates, default=0.0) > 0:
        where = _name(hooked, module, "drops values")
        raise UserError("dropout is on, so no two passes agree", given=where, works="call eval() on the model")


def _name(hooked: Any, module: nn.Module, reason: str) -> str:
    if not reason:
        return ""
    search: Callable[[nn.Module], str | None] = lambda root: next(  # noqa: E731
        (name for name, one in root.named_modules() if one is module), None
    )
    inside = vars(hooked).get("original_model")
    name = search(hooked) or (None if inside is None else search(inside)) or type(module).__name__
    return f"{name} {reason}"
