"""Sparse autoencoders of the residual stream and of what a steering vector changes in it.

Names load on first use, so that `import sae` stays free of torch and of sae-lens.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae.catalogue import list_pretrained as list_pretrained
    from sae.dictionary import Dictionary as Dictionary
    from sae.edits import Ablate as Ablate
    from sae.edits import Clamp as Clamp
    from sae.edits import Features as Features
    from sae.loading import load as load
    from sae.principal import Principal as Principal
    from sae.training import TrainSettings as TrainSettings
    from sae.training import train as train

_HOME = {
    "Ablate": "sae.edits",
    "Clamp": "sae.edits",
    "Dictionary": "sae.dictionary",
    "Features": "sae.edits",
    "Principal": "sae.principal",
    "TrainSettings": "sae.training",
    "list_pretrained": "sae.catalogue",
    "load": "sae.loading",
    "train": "sae.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sae' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
