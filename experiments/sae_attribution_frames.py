"""Frames of attributions: by feature, by node, their agreement with ablation, and what of it holds over problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from interp.summaries import GAIN, UNBOUNDED, bootstrap
from sae import Dictionary
from sae.attribute import Attributor, Metric, Nodes
from sae.report import explained
from vectors import SteeringVectors


@dataclass(frozen=True)
class Pick:
    """Which features are ablated, and how many controls are drawn.

    Attributes:
        at_most: features of a text; 0 = all active ones.
        draws: of each control.
        seed: of the text.
        by: the scalar whose attributions rank the features.
    """

    at_most: int
    draws: int
    seed: tuple[int, int]
    by: str

    def features(self, active: list[int], attribution: Float[Tensor, " feature"]) -> dict[int, str]:
        """Feature -> why it is ablated: half the largest attributions, half drawn from the rest."""
        if not self.at_most or len(active) <= self.at_most:
            return dict.fromkeys(active, "all")
        ranked = sorted(active, key=lambda feature: -abs(float(attribution[feature])))
        top, rest = ranked[: self.at_most // 2], ranked[self.at_most // 2 :]
        drawn = np.random.default_rng(self.seed).permutation(len(rest))[: self.at_most - len(top)]
        return dict.fromkeys(top, "top") | {rest[index]: "random" for index in drawn}


def text_frames(made: Attributor, scalars: Mapping[str, Metric], pick: Pick) -> Iterator[pd.DataFrame]:
    """All parts of one text, which must be the only one of its layout."""
    nodes = {name: made.nodes(metric) for name, metric in scalars.items()}
    chosen = pick.features(made.active(0), nodes[pick.by].features[0])
    features = list(chosen)
    measured = made.ablations(list(scalars.values()), 0, features)
    active = made.codes[0][:, features]
    told = {
        "feature": features,
        "chosen": list(chosen.values()),
        "tokens": (active != 0).sum(0).tolist(),
        "activation": (active.abs().sum(0) / (active != 0).sum(0).clamp(min=1)).tolist(),
    }
    for column, (name, one) in enumerate(nodes.items()):
        attribution, ablation = one.features[0, features], measured[:, column]
        found = {"attribution": attribution.tolist(), "ablation": ablation.tolist()}
        yield pd.DataFrame({**told, **found}).assign(part="features", metric=name, vector="trained", draw=0)
        yield _fit(attribution.cpu().numpy(), ablation.cpu().numpy(), pick).assign(metric=name)
    yield _nodes(made, scalars, nodes)
    yield _random_directions(made, scalars, nodes, features, pick)
    said = made.layout.said[0]
    x, rebuilt = made.x[0][said], made.rebuilt[0][said]
    l0 = float((made.codes[0][said] != 0).sum(1).float().mean())
    yield pd.DataFrame([{"part": "explained", "vector": "trained", "explained": explained(x, rebuilt), "l0": l0}])


def _fit(attribution: Any, ablation: Any, pick: Pick) -> pd.DataFrame:
    """Slope and rank correlation over the features of a text, and the latter with attributions shuffled among them."""
    rng = np.random.default_rng([*pick.seed, 1])
    own = {"vector": "trained", "draw": 0, "slope": slope(attribution, ablation)}
    rows: list[dict[str, Any]] = [{**own, "rank_correlation": rank(attribution, ablation)}]
    for draw in range(pick.draws):
        shuffled = rank(rng.permutation(attribution), ablation)
        rows.append({"vector": "shuffled-attribution", "draw": draw, "rank_correlation": shuffled})
    return pd.DataFrame(rows).assign(part="fit")


def slope(x: Any, y: Any) -> float:
    """Least squares of y on x with a constant; NaN where x does not vary."""
    centred = x - x.mean() if len(x) else x
    spread = float((centred**2).sum())
    return float((centred * y).sum() / spread) if spread > 0 else float("nan")


def rank(x: Any, y: Any) -> float:
    """Spearman's rank correlation; NaN where fewer than three features, or no variation, is there."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def _nodes(made: Attributor, scalars: Mapping[str, Metric], nodes: Mapping[str, Nodes]) -> pd.DataFrame:
    """Sums over features, error and bias; beside them what taking out each, or the whole change, does."""
    directions, codes = made.dictionary.directions, made.codes[0]
    x, rebuilt = made.x[0], made.rebuilt[0]
    by_features = codes @ directions
    parts = {"features": by_features, "error": x - rebuilt, "bias": rebuilt - by_features, "whole": x}
    measured = made.without(list(scalars.values()), 0, list(parts.values()))
    rows: list[dict[str, Any]] = []
    for column, (name, one) in enumerate(nodes.items()):
        said = {"features": one.features[0].sum(), "error": one.error[0], "bias": one.bias[0]}
        said["whole"] = said["features"] + said["error"] + said["bias"]
        for row, node in enumerate(parts):
            values = {"attribution": float(said[node]), "ablation": float(measured[row, column])}
            rows.append({"part": "nodes", "vector": "trained", "metric": name, "node": node, **values})
    return pd.DataFrame(rows)


def _random_directions(
    made: Attributor, scalars: Mapping[str, Metric], nodes: Mapping[str, Nodes], features: list[int], pick: Pick
) -> pd.DataFrame:
    """Random directions in the place of active features, with their activations and sizes."""
    rng = np.random.default_rng([*pick.seed, 2])
    if not features:
        return pd.DataFrame()
    chosen = [features[index] for index in rng.integers(len(features), size=pick.draws)]
    parts: list[Tensor] = []
    for feature in chosen:
        row = torch.tensor(rng.standard_normal(made.dictionary.d_model), dtype=torch.float32).to(made.x.device)
        row = row * made.dictionary.directions[feature].norm() / row.norm()
        parts.append(made.codes[0][:, feature, None] * row)
    measured = made.without(list(scalars.values()), 0, parts)
    rows = [
        {
            "metric": name,
            "draw": draw,
            "feature": chosen[draw],
            "attribution": float((one.gradient[0] * parts[draw]).sum()),
            "ablation": float(measured[draw, column]),
        }
        for column, (name, one) in enumerate(nodes.items())
        for draw in range(pick.draws)
    ]
    return pd.DataFrame(rows).assign(part="features", vector="random-direction")


def summaries(rows: Any) -> pd.DataFrame:
    """Means over problems with 95 % intervals: agreement with ablation, nodes, explained variance."""
    found: list[dict[str, Any]] = []
    fits, nodes, told = (rows[rows["part"] == part] for part in ("fit", "nodes", "explained"))
    for (name, metric, vector, draw), own in fits.groupby(["dictionary", "metric", "vector", "draw"], sort=False):
        at = {"dictionary": name, "metric": metric, "vector": vector, "draw": draw}
        for statistic in ("rank_correlation", *(("slope",) if vector == "trained" else ())):
            found += _mean(own[statistic], {**at, "statistic": statistic})
    for (name, metric, node), own in nodes.groupby(["dictionary", "metric", "node"], sort=False):
        at = {"dictionary": name, "metric": metric, "node": node, "vector": "trained"}
        for statistic in ("attribution", "ablation"):
            found += _mean(own[statistic], {**at, "statistic": statistic})
    by_text = told.pivot(index="example", columns="dictionary", values="explained")
    for name in by_text.columns:
        found += _mean(by_text[name], {"dictionary": name, "statistic": "explained", "vector": "trained"})
    if {"sae", "pca"} <= set(by_text.columns):
        over = by_text["sae"] - by_text["pca"]
        found += _mean(over, {"dictionary": "sae", "statistic": "explained_over_pca", "vector": "trained"})
    return pd.DataFrame(found).assign(part="summary")


def _mean(values: Any, at: dict[str, Any]) -> list[dict[str, Any]]:
    kept = np.asarray(values, float)
    kept = kept[np.isfinite(kept)]
    if not len(kept):
        return []
    one = bootstrap(kept, bounds=GAIN if at["statistic"] == "rank_correlation" else UNBOUNDED)
    return [{**at, "value": one.estimate, "low": one.low, "high": one.high, "n": one.n}]


def directions(found: Dictionary, vectors: SteeringVectors, kind: str, draw: int) -> pd.DataFrame:
    """Of each layer's vector, the decoder direction nearest to it and the feature that it excites most.

    A vector of a block up to the dictionary's own enters the change there; others do not, and are left out.
    """
    decoder = torch.nn.functional.normalize(found.directions, dim=1)
    rows: list[dict[str, Any]] = []
    for layer, row in zip(vectors.layers, vectors.directions, strict=True):
        if layer > found.site.layer:
            continue
        own = row.to(decoder.device)
        cosine = decoder @ own / own.norm().clamp(min=1e-12)
        response = (found.encode(own[None]) - found.encode(torch.zeros_like(own)[None]))[0]
        told = {"layer": layer, "cosine": float(cosine.abs().max()), "feature": int(cosine.abs().argmax())}
        excited = {"response": float(response.max()), "response_feature": int(response.argmax())}
        rows.append({"part": "vector", "vector": kind, "draw": draw, **told, **excited})
    return pd.DataFrame(rows)
