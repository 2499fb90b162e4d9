"""Figures of adaptive scaling show the numbers of their frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from figures import adaptive_scaling as drawn
from tests.figures.records import HOSTILE, META, Made

TOKENS = ("<s>", "Be", " brief", "Tom", " has", " 3", "", "So", " 3")
SEGMENTS = ("", "system", "system", "problem", "problem", "problem", "", "generated", "generated")


def record(tokens: tuple[str, ...] = TOKENS) -> Made:
    rows: list[dict[str, Any]] = []
    for layer in (4, 12):
        for index, (token, segment) in enumerate(zip(tokens, SEGMENTS, strict=True)):
            values = {"index": index, "token": token, "segment": segment, "c": layer * (index - 4) / 100, "cosine": 0.1}
            rows.append({"part": "tokens", "layer": layer, "example": "test-0", "vector": "trained", **values})
    for word, value in (("number", 1.5), ("function word", 0.5)):
        ends = {"relative_low": value - 0.25, "relative_high": value + 0.5, "n": 8}
        rows.append(
            {"part": "words", "layer": 12, "vector": "trained", "draw": 0, "word": word, "relative": value, **ends}
        )
        for draw in range(2):
            control = {"vector": "random-isotropic", "draw": draw, "relative": 1.0 + draw / 8}
            rows.append({"part": "words", "layer": 12, "word": word, **control})
    whole = {"contrast": 0.5, "contrast_low": 0.25, "contrast_high": 0.625, "n": 8}
    rows.append({"part": "contrast", "layer": 12, "vector": "trained", "draw": 0, **whole})
    rows.append({"part": "contrast", "layer": 12, "vector": "random-isotropic", "draw": 0, "contrast": 0.125})
    for applied, vector, accuracy in (
        ("nowhere", "base", 0.25),
        ("everywhere", "trained", 0.5),
        ("mean", "trained", 0.375),
        ("without problem", "trained", 0.25),
        ("without problem", "random-tokens", 0.5),
        ("without problem", "random-tokens", 0.25),
    ):
        ends = {"accuracy_low": accuracy - 0.125, "accuracy_high": accuracy + 0.25, "temperature": 1.0, "n": 8}
        rows.append({"part": "causal", "vector": vector, "applied": applied, "accuracy": accuracy, **ends})
    return Made({**META, "experiment": "adaptive-scaling"}, pd.DataFrame(rows))


def test_the_image_is_symmetric_log_of_c_with_layers_and_segments() -> None:
    figure: Any = drawn.build(record())
    image = figure.data[0]
    assert np.isnan(image.z[0][0]) and image.customdata[1][8] == pytest.approx(12 * 4 / 100)
    threshold = np.median([abs(layer * (index - 4) / 100) for layer in (4, 12) for index in range(1, 9) if index != 4])
    assert image.z[1][8] == pytest.approx(np.log10(1 + 0.48 / threshold))
    assert image.z[1][3] == pytest.approx(-np.log10(1 + 0.12 / threshold))
    assert [shape.x0 for shape in figure.layout.shapes] == [0.5, 2.5, 6.5]
    assert list(figure.layout.yaxis.ticktext) == ["4", "12"]
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax


def test_symmetric_log_is_odd_and_linear_below_its_threshold() -> None:
    values = drawn.symmetric_log([-1.0, 0.0, 1.0, 1e-9], 1.0)
    assert list(values[:3]) == pytest.approx([-np.log10(2), 0.0, np.log10(2)])
    assert values[3] == pytest.approx(1e-9 / np.log(10))


def test_tokens_stand_in_lines_by_segment() -> None:
    figure: Any = drawn.build_tokens(record())
    assert list(figure.layout.yaxis.ticktext) == ["", "system", "problem", "", "generated"]
    assert list(figure.data[0].text[2][:3]) == ["Tom", " has", " 3"]
    view = drawn.tokens_view(record())
    assert view.count("<bdi") == 8 and "Tom" in view and "&lt;s&gt;" not in view


def test_words_and_contrast_stand_beside_controls() -> None:
    figure: Any = drawn.build_words(record())
    controls, own, others, contrast = figure.data
    assert list(own.x) == [1.5, 0.5] and list(own.error_x.array) == [0.5, 0.5]
    assert list(controls.x) == [1.0, 1.125] * 2
    assert contrast.x[0] == 0.5 and list(others.x) == [0.125]
    assert "layer 12" in figure.layout.title.text and "n = 8" in figure.layout.title.subtitle.text


def test_causal_bars_show_the_mean_over_sets_of_random_tokens() -> None:
    figure: Any = drawn.build_causal(record())
    bars, dots = figure.data
    assert list(bars.y) == [25.0, 50.0, 37.5, 25.0, 37.5]
    assert list(dots.y) == [50.0, 25.0]


def test_hostile_tokens_reach_no_markup() -> None:
    tokens = ("<s>", *[token for token in HOSTILE if token != "\ud800"][:8])
    run = record(tokens)
    for build in (drawn.build, drawn.build_tokens):
        source = str(build(run).to_json())
        assert "<script" not in source and "<img" not in source
    assert "<script" not in drawn.tokens_view(run)
