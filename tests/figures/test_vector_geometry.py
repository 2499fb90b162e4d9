"""Figures of the geometry of vectors show the numbers of their frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from figures import vector_geometry
from tests.figures.records import META, Made


def geometry() -> Made:
    """Blocks 0 to 2 and two other sets, one of which has block 1 only."""
    rows: list[dict[str, Any]] = []
    for layer in range(3):
        rows.append({"part": "norms", "layer": layer, "norm": 2.0, "residual_norm": 8.0, "relative": 0.25})
        rows += [{"part": "between", "layer": i, "other_layer": layer, "cosine": layer / 4} for i in range(layer)]
        ends = {"isotropic_high": 0.125, "covariance_low": -0.25, "covariance_high": 0.25}
        sets = [("all-layer@1", "seed", 0.5)] + ([("probe", "probe", -0.5)] if layer == 1 else [])
        for name, relation, cosine in sets:
            own = {"set": name, "relation": relation, "layer": layer, "cosine": cosine}
            rows.append({"part": "against", **own, **ends})
    for vector, value in (("trained", 1.5), ("random-isotropic", 2.5), ("random-covariance", 2.0)):
        ends = {} if vector == "trained" else {"stable_rank_low": value - 0.5, "stable_rank_high": value + 0.5}
        rows.append({"part": "rank", "vector": vector, "matrix": "unit rows", "stable_rank": value, **ends})
    return Made({**META, "experiment": "vector-geometry"}, pd.DataFrame(rows))


def test_norms_and_cosines_between_blocks_are_drawn_with_the_stable_rank() -> None:
    figure: Any = vector_geometry.build(geometry())
    line, panel = figure.data
    assert list(line.y) == [0.25] * 3
    table = np.array(panel.z, float)
    assert (table[0, 1], table[0, 2], table[1, 2]) == (0.25, 0.5, 0.5) and np.isnan(table[np.tril_indices(3)]).all()
    said = " ".join(note.text for note in figure.layout.annotations)
    assert "stable rank of unit rows: vectors 1.5" in said and "covariance 2.0 [1.5, 2.5]" in said


def test_other_sets_stand_against_random_directions() -> None:
    figure: Any = vector_geometry.build_sets(geometry())
    wide, narrow, seeds, probe = figure.data
    assert list(wide.y) == [0.25] * 3 + [-0.25] * 3 and list(narrow.y) == [0.125] * 3 + [-0.125] * 3
    assert seeds.name == "another seed (all-layer@1)" and list(seeds.y) == [0.5] * 3
    assert probe.name == "probe, right against wrong" and list(probe.x) == [1.0]
    assert "n = 3 blocks" in figure.layout.title.subtitle.text


def test_a_set_of_one_block_has_no_cosines_between_blocks() -> None:
    run = geometry()
    frame: Any = run.frame[(run.frame["part"] == "norms") & (run.frame["layer"] == 0)]
    figure: Any = vector_geometry.build(Made(run.meta, frame))
    assert len(figure.data) == 1
