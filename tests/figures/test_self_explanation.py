"""The figure of self-explanation shows variations, tokens and whether the instrument works."""

from __future__ import annotations

from typing import Any

import pandas as pd

from figures import self_explanation as drawn
from tests.figures.records import HOSTILE, META, Made


def test_variations_tokens_and_the_instrument_are_shown() -> None:
    rows: list[dict[str, Any]] = [{"part": "chosen", "block": 2, "scale": 1.0, "repeated": 0.75, "n": 12}]
    for layer in (4, 9):
        ends = {"variation": 0.5, "variation_low": 0.25, "variation_high": 0.625, "n": 8}
        rows.append({"part": "specific", "layer": layer, "vector": "trained", "draw": 0, **ends})
        control = {"vector": "random-isotropic", "draw": 0, "variation": 0.125}
        rows.append({"part": "specific", "layer": layer, **control})
        rows.append({"part": "tokens", "layer": layer, "rank": 1, "token": HOSTILE[0], "log_ratio": 2.0})
    figure: Any = drawn.build(Made({**META, "experiment": "self-explanation"}, pd.DataFrame(rows)))
    controls, own = figure.data
    assert list(controls.x) == [0.125, 0.125] and list(own.x) == [0.5, 0.5]
    assert list(own.error_x.array) == [0.125, 0.125]
    assert "75 % of known words repeated (block 2, scale 1)" in figure.layout.title.text
    assert [note.name for note in figure.layout.annotations].count("tokens") == 2
    assert "<script" not in str(figure.to_json())
