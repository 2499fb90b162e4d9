"""Figures of sparse features show the numbers of their frames."""

from __future__ import annotations

from typing import Any

import pandas as pd

from figures import sae_attribution, sae_features
from tests.figures.records import HOSTILE, META, Made


def attribution(quality: str = "") -> Made:
    rows: list[dict[str, Any]] = []
    for name in ("sae", "pca"):
        for feature in range(3):
            values = {"attribution": 0.1 * feature, "ablation": 0.2 * feature, "feature": feature, "metric": "kl"}
            rows.append({"part": "features", "dictionary": name, "vector": "trained", "example": "a", **values})
        random = {"attribution": 0.01, "ablation": -0.01, "feature": 1, "metric": "kl", "vector": "random-direction"}
        rows.append({"part": "features", "dictionary": name, "example": "a", **random})
        ends = {"low": 0.25, "high": 0.75, "n": 8, "part": "summary", "vector": "trained", "dictionary": name}
        rows.append({**ends, "statistic": "rank_correlation", "metric": "kl", "value": 0.5})
        rows.append({**ends, "statistic": "explained", "value": 0.5})
        for node, value in (("features", 0.5), ("error", 0.25), ("bias", 0.3), ("whole", 0.625)):
            for statistic in ("attribution", "ablation"):
                rows.append({**ends, "statistic": statistic, "metric": "kl", "node": node, "value": value})
    for layer in (0, 2):
        rows.append({"part": "vector", "vector": "trained", "draw": 0, "layer": layer, "cosine": 0.5, "response": 2.0})
        rows += [
            {"part": "vector", "vector": "random-isotropic", "draw": draw, "layer": layer, "cosine": 0.1 * draw}
            | {"response": 1.0 * draw}
            for draw in range(3)
        ]
    frame = pd.DataFrame(rows).assign(quality=quality)
    return Made({**META, "experiment": "sae-attribution"}, frame)


def correctness(tokens: tuple[str, ...] = (" so", "\n"), effect: float = 0.25) -> Made:
    rows: list[dict[str, Any]] = []
    for half, factor in (("discovery", 3.0), ("held-out", 1.0)):
        for rank, feature in enumerate((7, 3), start=1):
            value = factor * effect / rank
            told = {"effect": value, "effect_low": value - 0.125, "effect_high": value + 0.125, "n": 20, "p": 0.01}
            odds = {"odds_ratio": 2.0, "odds_ratio_low": 1.0, "odds_ratio_high": 4.0, "rate": 0.25}
            page = {"link": "https://www.neuronpedia.org/m/l/7" if feature == 7 else ""}
            own = {"part": "features", "vector": "trained", "half": half, "rank": rank, "feature": feature}
            rows.append({**own, **told, **odds, **page})
    for draw in range(4):
        rows.append({"part": "null", "vector": "permuted-labels", "draw": draw, "feature": draw, "effect": 0.01 * draw})
    rows.append({"part": "null", "vector": "random-feature", "draw": 0, "feature": 1, "effect": -0.02})
    for vector, accuracy in (("base", 0.125), ("trained", 0.75), ("ablated", 0.5), ("random-feature", 0.625)):
        ends = {"accuracy": accuracy, "accuracy_low": accuracy - 0.125, "accuracy_high": accuracy + 0.125, "n": 48}
        lost = {"drop": 0.75 - accuracy, "drop_low": 0.5 - accuracy, "drop_high": 1 - accuracy}
        rows.append({"part": "accuracy", "vector": vector, "draw": 0, "feature": 7, **ends, **lost})
    for context in range(2):
        rows += [
            {"part": "tokens", "feature": 7, "context": context, "example": "a", "position": position, "right": context}
            | {"token": token, "activation": float(position)}
            for position, token in enumerate(tokens)
        ]
    return Made({**META, "experiment": "feature-correctness"}, pd.DataFrame(rows))


def test_attribution_stands_against_ablation_with_its_agreement() -> None:
    figure: Any = sae_attribution.build(attribution())
    random, features = figure.data[0], figure.data[1]
    assert list(features.x) == [0.0, 0.1, 0.2] and list(features.y) == [0.0, 0.2, 0.4]
    assert list(random.y) == [-0.01]
    titles = [note.text for note in figure.layout.annotations]
    assert any("rank correlation 0.50 [0.25, 0.75]" in title for title in titles)
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range


def test_an_autoencoder_that_is_not_good_enough_is_called_so() -> None:
    for build in (sae_attribution.build, sae_attribution.build_nodes, sae_attribution.build_vector):
        figure: Any = build(attribution("explained variance 0.30 &lt; 0.6"))
        assert "not good enough: explained variance 0.30" in figure.layout.title.text
        good: Any = build(attribution())
        assert "not good enough" not in good.layout.title.text


def test_nodes_are_drawn_by_attribution_and_by_ablation() -> None:
    figure: Any = sae_attribution.build_nodes(attribution())
    assert [trace.name for trace in figure.data][:2] == ["sparse features: taken out", "sparse features: attribution"]
    assert list(figure.data[0].y) == [0.5, 0.25, 0.3, 0.625]
    assert figure.data[0].error_y.array[0] == 0.25


def test_the_vectors_stand_above_the_range_of_random_ones() -> None:
    figure: Any = sae_attribution.build_vector(attribution())
    band, line = figure.data[0], figure.data[1]
    assert list(line.y) == [0.5, 0.5] and list(band.y) == [0.2, 0.2, 0.0, 0.0]


def test_features_are_drawn_on_held_out_problems_in_points() -> None:
    figure: Any = sae_features.build(correctness())
    controls, own = figure.data[0], figure.data[1]
    assert list(own.x)[:2] == [25.0, 12.5]
    assert list(own.error_x.array)[:2] == [12.5, 12.5]
    assert list(controls.x) == [0.0, 1.0, 2.0, 3.0, -2.0] and list(controls.y) == [0, 0, 0, 0, 2]
    labels = list(figure.layout.yaxis.ticktext)
    assert labels[0].startswith('<a href="https://www.neuronpedia.org/m/l/7">feature 7</a><br>p = 0.010')
    assert "marks right completions" in figure.layout.title.text
    wrong: Any = sae_features.build(correctness(effect=-0.25))
    assert "marks WRONG completions" in wrong.layout.title.text


def test_accuracy_without_the_feature_stands_beside_random_ones() -> None:
    figure: Any = sae_features.build_ablation(correctness())
    assert list(figure.data[0].y) == [12.5, 75.0, 50.0, 62.5]
    assert list(figure.data[1].y) == [62.5]
    assert "falls by 25.0" in figure.layout.title.text


def test_tokens_are_coloured_and_escaped() -> None:
    figure: Any = sae_features.build_examples(correctness(tuple(token for token in HOSTILE if token != "\ud800")))
    text = str(figure.data[0].text)
    assert "<script>" not in text and "<img" not in text
    assert figure.data[0].z[0][1] == 1.0
    assert list(figure.layout.yaxis.ticktext) == ["feature 7, wrong", "feature 7, right"]


def test_nothing_to_report_is_said() -> None:
    frame = pd.DataFrame([{"part": "accuracy", "vector": "trained", "n": 0}, {"part": "completions", "n": 0}])
    for build in (sae_features.build, sae_features.build_ablation, sae_features.build_examples):
        figure: Any = build(Made(META, frame))
        assert "Too few problems" in str(figure.layout.annotations)
