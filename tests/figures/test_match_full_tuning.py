"""Figures of the comparison with full tuning show the numbers of their frames."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from figures import match_full_tuning as drawn
from tests.figures.records import META, Made


def record() -> Made:
    rows: list[dict[str, Any]] = []
    for kind, accuracy in (("base", 0.25), ("all-layer", 0.75), ("full", 0.5)):
        ends = {"accuracy_low": accuracy - 0.125, "accuracy_high": accuracy + 0.125, "n": 8}
        rows.append({"part": "accuracy", "kind": kind, "accuracy": accuracy, **ends})
        for seed in range(2 if kind == "all-layer" else 1):
            value = accuracy + (seed - 0.5) / 8
            rows.append({"part": "seeds", "kind": kind, "seed": seed, "accuracy": value, "source": "record", "n": 8})
    for row in rows:
        if row["part"] == "accuracy" and row["kind"] == "all-layer":
            row |= {"difference": 0.25, "difference_low": 0.125, "difference_high": 0.5}
    rows.append({"part": "missing", "kind": "lora-r4", "reason": "not testable here, because no set lora-r4"})
    rows.append(
        {"part": "overlap", "kind": "all-layer", "seed": 0, "jaccard": 0.5, "expected_low": 0.1, "expected_high": 0.3}
    )
    for kind, value in (("all-layer", 0.75), ("random", 0.0), ("random", 0.125)):
        rows.append(
            {"part": "change", "kind": kind, "cosine": value, "cosine_low": value, "cosine_high": 0.875, "n": 4}
        )
    frame = pd.DataFrame(rows).assign(temperature=1.0)
    return Made({**META, "experiment": "match-full-tuning", "vectors": None}, frame)


def test_accuracies_seeds_and_differences_are_drawn_and_what_is_missing_says_why() -> None:
    figure: Any = drawn.build(record())
    dots, accuracy, difference = figure.data
    assert list(accuracy.x)[:2] == [25.0, 75.0] and accuracy.x[3] == 50.0
    assert list(dots.x) == pytest.approx([68.75, 81.25]) and set(dots.y) == {1.0}
    assert difference.x[1] == 25.0 and difference.error_x.array[1] == 25.0
    notes = {note.name: note.text for note in figure.layout.annotations}
    assert notes["missing"] == "not testable here, because no set lora-r4"
    assert [shape.x0 for shape in figure.layout.shapes] == [0.0, -5.0]
    assert "2 seeds" in figure.layout.yaxis.ticktext[1]


def test_the_mechanism_stands_beside_random_vectors_and_permuted_flips() -> None:
    run = record()
    rest: Any = run.frame[~run.frame["part"].isin(["change", "overlap"])]
    nothing: Any = drawn.build_mechanism(Made(run.meta, rest))
    assert [note.name for note in nothing.layout.annotations].count("missing") == 1
    figure: Any = drawn.build_mechanism(run)
    by_name = [(trace.name, list(trace.x)) for trace in figure.data]
    assert ("set, 95 % interval", [0.75]) in by_name
    assert ("random vectors; range of permuted flips", [0.0, 0.125]) in by_name
    assert ("random vectors; range of permuted flips", [0.1, 0.3]) in by_name
