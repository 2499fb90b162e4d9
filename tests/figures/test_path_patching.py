"""Figures of path patching from a small run with known numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from figures import path_patching
from figures.captions import CAPTIONS
from tests.figures.records import META, Made

PLAYERS = ("q", "k", "v", "attn-to-mlp", "resid-to-mlp", "resid")
RUN_META = {**META, "experiment": "path-patching"}


def row(part: str, vector: str = "trained", draw: int = 0, **values: Any) -> dict[str, Any]:
    return {
        "part": part,
        "vector": vector,
        "draw": draw,
        "text": "base",
        "readout": "kl",
        "layer": 28,
        "n": 8,
        **values,
    }


def ends(name: str, value: float) -> dict[str, Any]:
    return {name: value, f"{name}_low": value - 0.125, f"{name}_high": value + 0.25}


def made() -> Made:
    rows: list[dict[str, Any]] = []
    for name, share in {"steered": 1.0, "skip-attn": 0.75, "<b>own": 0.5}.items():
        rows.append(row("patches", patch=name, **ends("share", share)))
        rows += [row("patches", "permuted", draw, patch=name, share=0.25 * draw) for draw in range(2)]
    rows.append(row("patches", patch="skip-attn", **ends("share", 9.0)) | {"text": "steered"})  # must not be drawn
    for index, player in enumerate((*PLAYERS, "attention")):
        for statistic in ("alone", "shapley", "last"):
            rows.append(row("paths", path=player, statistic=statistic, **ends("share", 0.125 * index)))
            rows.append(row("paths", "permuted", path=player, statistic=statistic, share=0.5))
    rows.append(row("paths", path="q × v", statistic="interaction", **ends("share", -0.25)))
    for family, heads in (("skip-head", 3), ("skip-k", 1)):
        for head in range(heads):
            rows.append(row("sweep", family=family, head=head, **ends("head_share", 0.5 * head)))
            rows.append(row("sweep", "random-effect-matched", family=family, head=head, head_share=0.0625))
    for head in (-1, 0, 1):
        for stratum in ("completion", "prompt"):
            for keys in ("all", "later"):
                own = ends("attention_tv", 0.25 + 0.125 * head)
                rows.append(row("attention", head=head, stratum=stratum, keys=keys, **own))
                rows.append(row("attention", "permuted", head=head, stratum=stratum, keys=keys, attention_tv=0.5))
    for vector, patch, accuracy in (
        ("base", "base", 0.25),
        ("trained", "steered", 0.5),
        ("trained", "skip-attn", 0.375),
        ("random-effect-matched", "skip-attn", 0.125),
        ("3-shot", math.nan, 0.625),
    ):
        found: dict[str, Any] = {"temperature": 1.0, **ends("accuracy", accuracy)}
        rows.append(row("accuracy", vector, patch=patch, **found))
    return Made(RUN_META, pd.DataFrame(rows))


def test_bars_are_the_share_kept_beside_controls_of_the_same_patch() -> None:
    figure: Any = path_patching.build(made())
    bars, dots = figure.data
    assert list(bars.y) == [1.0, 0.75, 0.5]
    assert list(bars.error_y.array) == [0.25] * 3 and list(bars.error_y.arrayminus) == [0.125] * 3
    assert list(dots.y) == [0.0, 0.25] * 2  # none where all paths are steered: those are 1 by definition
    assert list(figure.layout.xaxis.ticktext)[2] == "&lt;b&gt;own"
    assert "block 28" in figure.layout.title.text and "block 29" in figure.layout.title.text
    assert "n = 8 problems" in figure.layout.title.subtitle.text


def test_the_factorial_has_a_panel_a_statistic_and_a_row_a_path() -> None:
    figure: Any = path_patching.build_factorial(made())
    assert len(figure.data) == 6
    assert list(figure.data[1].x) == [0.125 * index for index in range(7)]
    assert set(figure.data[0].x) == {0.5} and "permuted × 1" in figure.data[0].name
    assert figure.layout.yaxis.ticktext[6].startswith("<b>attention</b>")
    assert [axis.title.text.partition(" (")[0] for axis in figure.select_xaxes()] == [
        "alone",
        "Shapley value",
        "as the last one",
    ]


def test_interactions_fill_the_upper_triangle() -> None:
    figure: Any = path_patching.build_interactions(made())
    table = np.array(figure.data[0].z)
    assert table.shape == (6, 6) and table[0, 2] == -0.25 and np.isfinite(table).sum() == 1


def test_heads_stand_above_the_mean_of_random_vectors() -> None:
    figure: Any = path_patching.build_heads(made())
    assert list(figure.layout.yaxis.ticktext) == ["skip-head", "random", "skip-k", "random"]
    texts = figure.data[0].text
    assert list(texts[0]) == ["0.0", "50.0*", "100.0*"]  # the first interval holds the control
    assert list(texts[1]) == ["6.2"] * 3
    assert list(texts[2])[1:] == ["", ""]


def test_attention_rows_by_head_with_and_without_the_first_key() -> None:
    figure: Any = path_patching.build_attention(made())
    assert len(figure.data) == 8
    assert list(figure.data[1].x) == [0.125, 0.25, 0.375]
    assert list(figure.layout.yaxis.ticktext) == ["<b>mean</b>", "head 0", "head 1"]


def test_accuracy_stands_beside_base_controls_and_references() -> None:
    figure: Any = path_patching.build_accuracy(made())
    assert list(figure.data[0].y) == [25.0, 50.0, 37.5, 12.5, 62.5]
    assert "random," in figure.layout.xaxis.ticktext[3] and "3-shot" in figure.layout.xaxis.ticktext[4]
    assert "T = 1" in figure.layout.title.text


@pytest.mark.parametrize("name", [name for name in CAPTIONS if name.startswith("path-patching")])
def test_every_figure_is_an_entry_point(name: str) -> None:
    from interp.registry import load

    assert load("figures", name)(made()).data
