"""Steering vectors: values with an algebra, cards, controls, file formats and baselines.

Names load on first use, so that `import vectors` and `vectors.catalogue` stay free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vectors.adaptive import AdaptiveVectors as AdaptiveVectors
    from vectors.baselines import mean_difference as mean_difference
    from vectors.baselines import probe as probe
    from vectors.card import Card as Card
    from vectors.catalogue import list_pretrained as list_pretrained
    from vectors.comparison import VectorComparison as VectorComparison
    from vectors.comparison import compare_vectors as compare_vectors
    from vectors.fit import check_fit as check_fit
    from vectors.from_model import baseline as baseline
    from vectors.load import convert as convert
    from vectors.load import load_vectors as load_vectors
    from vectors.low_rank import LowRankAdapters as LowRankAdapters
    from vectors.steering import SteeringVectors as SteeringVectors

_HOME = {
    "AdaptiveVectors": "vectors.adaptive",
    "Card": "vectors.card",
    "LowRankAdapters": "vectors.low_rank",
    "SteeringVectors": "vectors.steering",
    "VectorComparison": "vectors.comparison",
    "baseline": "vectors.from_model",
    "check_fit": "vectors.fit",
    "compare_vectors": "vectors.comparison",
    "convert": "vectors.load",
    "list_pretrained": "vectors.catalogue",
    "load_vectors": "vectors.load",
    "mean_difference": "vectors.baselines",
    "probe": "vectors.baselines",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vectors' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
