"""Experiments: one file each, found by entry point. Names load when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.accuracy_by_layer import AccuracyByLayer as AccuracyByLayer
    from experiments.adaptive_scaling import AdaptiveScaling as AdaptiveScaling
    from experiments.composition import Composition as Composition
    from experiments.effect_against_cost import EffectAgainstCost as EffectAgainstCost
    from experiments.feature_correctness import FeatureCorrectness as FeatureCorrectness
    from experiments.gain_ladder import GainLadder as GainLadder
    from experiments.logit_lens import LogitLens as LogitLens
    from experiments.magnitude import Magnitude as Magnitude
    from experiments.match_full_tuning import MatchFullTuning as MatchFullTuning
    from experiments.path_patching import PathPatching as PathPatching
    from experiments.persistence import Persistence as Persistence
    from experiments.placement import Placement as Placement
    from experiments.prefix_substitution import PrefixSubstitution as PrefixSubstitution
    from experiments.sae_attribution import SaeAttribution as SaeAttribution
    from experiments.self_explanation import SelfExplanation as SelfExplanation
    from experiments.side_effects import SideEffects as SideEffects
    from experiments.token_substitution import TokenSubstitution as TokenSubstitution
    from experiments.transfer import Transfer as Transfer
    from experiments.vector_geometry import VectorGeometry as VectorGeometry

_HOME = {
    "AccuracyByLayer": "experiments.accuracy_by_layer",
    "AdaptiveScaling": "experiments.adaptive_scaling",
    "EffectAgainstCost": "experiments.effect_against_cost",
    "GainLadder": "experiments.gain_ladder",
    "Composition": "experiments.composition",
    "FeatureCorrectness": "experiments.feature_correctness",
    "LogitLens": "experiments.logit_lens",
    "PathPatching": "experiments.path_patching",
    "Persistence": "experiments.persistence",
    "PrefixSubstitution": "experiments.prefix_substitution",
    "SideEffects": "experiments.side_effects",
    "Magnitude": "experiments.magnitude",
    "Placement": "experiments.placement",
    "MatchFullTuning": "experiments.match_full_tuning",
    "SaeAttribution": "experiments.sae_attribution",
    "SelfExplanation": "experiments.self_explanation",
    "TokenSubstitution": "experiments.token_substitution",
    "Transfer": "experiments.transfer",
    "VectorGeometry": "experiments.vector_geometry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
