"""Figures of the sweeps show the numbers of their frames, with controls, intervals and references."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from figures import accuracy_by_layer, composition, magnitude, placement
from figures.sweeps import REFERENCES
from tests.figures.records import META, Made


def _row(part: str, vector: str, accuracy: float = 0.5, **at: Any) -> dict[str, Any]:
    ends = {"accuracy_low": accuracy - 0.125, "accuracy_high": accuracy + 0.25}
    beside = {"boxed": 0.75, "ended": 0.5, "right_if_boxed": accuracy, "length": 20.0, "entropy": 0.25, "n": 48}
    found = {"part": part, "vector": vector, "draw": 0, "temperature": 1.0, "accuracy": accuracy}
    return {**found, **ends, **beside, **at}


def _references() -> list[dict[str, Any]]:
    rows = [_row("summary", "base", 0.0625), _row("summary", "3-shot", 0.25), _row("summary", "all-layer", 0.75)]
    return [*rows, _row("summary", "matched-entropy", 0.125, temperature=0.5)]


def layers() -> Made:
    rows = _references()
    for layer, accuracy, q in ((4, 0.25, 0.5), (12, 0.5, 0.01)):
        rows.append(_row("summary", "trained", accuracy, layer=layer, seed=0))
        curve = {"band_low": accuracy - 0.25, "band_high": accuracy + 0.25, "q": q}
        rows.append({**_row("curve", "trained", accuracy, layer=layer), **curve})
        rows += [_row("summary", "random-isotropic", 0.0625 * draw, layer=layer, draw=draw) for draw in range(3)]
    rows += [_row("summary", kind, 0.125, layer=12) for kind in ("negated", "permuted")]
    rows += [_row("summary", "trained", 0.375, layer=12, seed=1), _row("chosen", "trained", layer=12)]
    return Made({**META, "experiment": "accuracy-by-layer"}, pd.DataFrame(rows))


def traces(figure: Any, name: str) -> Any:
    return next(trace for trace in figure.data if trace.name is not None and trace.name.startswith(name))


def test_the_curve_stands_in_its_band_beside_every_draw_and_reference() -> None:
    figure: Any = accuracy_by_layer.build(layers())
    line = next(t for t in figure.data if t.mode == "lines+markers")
    assert list(line.x) == [0.0, 1.0] and list(line.y) == [25.0, 50.0]
    assert list(traces(figure, "trained vector, T = 1, band over all blocks, 95").y) == [50.0, 75.0, 25.0, 0.0]
    assert list(traces(figure, "random").y) == [0.0, 6.25, 12.5] * 2
    assert list(traces(figure, "q < 0.05").y) == [50.0]
    seeds = traces(figure, "trained vector, T = 1, band over all blocks, single seeds")
    assert sorted(seeds.y) == [25.0, 37.5, 50.0]
    beside = {trace.y[0] for trace in figure.data if trace.xaxis == "x2"}
    assert beside == {12.5, 25.0, 75.0}
    assert list(figure.layout.xaxis2.ticktext) == [
        REFERENCES[name] for name in ("matched-entropy", "3-shot", "all-layer")
    ]
    assert sorted(shape.y0 for shape in figure.layout.shapes) == [6.25, 75.0]
    assert list(figure.layout.xaxis.ticktext) == ["4", "12"]
    assert "n = 48 problems" in figure.layout.title.subtitle.text


def test_what_was_trained_together_is_labelled_so() -> None:
    made = layers()
    meta = {**made.meta, "vectors": {"name": "toy", "card": {"trained": "together"}}}
    figure: Any = accuracy_by_layer.build(Made(meta, made.frame))
    assert "trained together, each shown alone" in figure.layout.xaxis.title.text


def test_boxed_ended_length_and_entropy_stand_beside() -> None:
    figure: Any = accuracy_by_layer.build_beside(layers())
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [list(trace.y) for trace in lines] == [[75.0] * 2, [50.0] * 2, [25.0, 50.0], [20.0] * 2, [0.25] * 2]
    assert [shape.y0 for shape in figure.layout.shapes] == [75.0, 50.0, 6.25, 20.0, 0.25]


def scales() -> Made:
    rows = _references()
    for factor, accuracy in ((-1.0, 0.0625), (1.0, 0.25), (4.0, 0.5)):
        rows.append(_row("summary", "trained", accuracy, factor=factor))
        drawn = range(3) if factor == 1.0 else [-1]
        rows += [_row("summary", "random-isotropic", 0.125, factor=factor, draw=draw) for draw in drawn]
        ends = {"kl": 0.25, "kl_low": 0.125, "kl_high": 0.5}
        rows.append({"part": "kl", "vector": "trained", "draw": 0, "factor": factor, "n": 8, **ends})
    rows.append(_row("chosen", "trained", factor=4.0))
    return Made({**META, "experiment": "magnitude"}, pd.DataFrame(rows))


def test_the_trained_scale_and_the_chosen_one_are_marked() -> None:
    figure: Any = magnitude.build(scales())
    assert list(traces(figure, "trained vector").y) == [6.25, 25.0, 50.0]
    assert list(traces(figure, "trained vector").error_y.array) == [25.0] * 3
    assert list(traces(figure, "random vectors, one a problem").x) == [0.0, 2.0]
    assert list(traces(figure, "random vectors, one mark").y) == [12.5] * 3
    notes = {note.text: note.x for note in figure.layout.annotations}
    assert notes["trained"] == 1.0 and notes["best on other problems"] == 2.0
    assert list(figure.data[-1].y) == [0.25] * 3 and figure.layout.yaxis3.type == "log"
    beside: Any = magnitude.build_beside(scales())
    assert list(beside.layout.xaxis.ticktext) == ["\u22121", "1", "4"]


def test_each_place_has_a_bar_and_a_missing_one_says_so() -> None:
    rows = _references()
    for place, accuracy in (("attn_out", 0.25), ("mlp_out", 0.5)):
        rows.append(_row("summary", "trained", accuracy, place=place))
        rows.append(_row("summary", "random-isotropic", 0.125, place=place, draw=-1))
    rows.append(_row("spread", "trained", place="mlp_out", layer=16))
    figure: Any = placement.build(Made({**META, "experiment": "placement"}, pd.DataFrame(rows)))
    assert [y for y in figure.data[0].y if y == y] == [25.0, 12.5, 50.0, 12.5]
    labels = list(figure.layout.xaxis.ticktext)
    assert "no vector" in labels[0] and "no vector" in labels[4] and "no vector" not in labels[6]
    assert "block 16 where" in figure.layout.xaxis.title.text
    assert sorted(shape.y0 for shape in figure.layout.shapes) == [6.25, 75.0]


def test_draws_that_meet_all_problems_are_dots_on_their_mean() -> None:
    rows = [_row("summary", "random-isotropic", 0.125 * draw, place="mlp_out", draw=draw) for draw in range(3)]
    rows += [_row("summary", "trained", 0.5, place="mlp_out"), *_references(), _row("spread", "trained", layer=16)]
    figure: Any = placement.build(Made({**META, "experiment": "placement"}, pd.DataFrame(rows)))
    assert figure.data[0].y[7] == pytest.approx(12.5)
    assert list(figure.data[1].y) == [0.0, 12.5, 25.0]


def pairs() -> Made:
    rows: list[dict[str, Any]] = []
    for i, j, value, q in ((4, 12, 0.25, 0.01), (4, 28, -0.125, 0.5), (12, 28, 0.0, 0.9)):
        row: dict[str, Any] = {
            **_row("pairs", "trained", i=i, j=j),
            "q": q,
            "best": i,
            "best_factor": 1.0,
            "log_odds": 0.5,
        }
        for name in ("interaction", "beyond_best", "beyond_random"):
            row |= {name: value, f"{name}_low": value - 0.25, f"{name}_high": value + 0.125}
        rows.append(row)
    whole = {name: 0.125 for at in ("interaction", "beyond_best") for name in (at, f"{at}_low", f"{at}_high")}
    rows.append({**_row("whole", "trained"), **whole})
    draws = {"interaction": 0.0625, "beyond_best": -0.0625}
    rows += [{**_row("draws", "random-partner", draw=draw), **draws} for draw in range(2)]
    return Made({**META, "experiment": "composition"}, pd.DataFrame(rows))


def test_interactions_fill_the_upper_triangle_with_intervals_under_the_pointer() -> None:
    figure: Any = composition.build(pairs())
    heatmap = figure.data[0]
    assert [value for row in heatmap.z for value in row if value == value] == [25.0, -12.5, 0.0]
    assert heatmap.text[0][0] == "+25.0 *" and heatmap.text[0][1] == "\u221212.5"
    assert "[+0.0, +37.5]" in heatmap.customdata[0][0]
    assert figure.layout.coloraxis.cmid == 0 and figure.layout.coloraxis.cmax == 25.0
    assert list(figure.layout.yaxis.ticktext) == ["4", "12"] and list(figure.layout.xaxis.ticktext) == ["12", "28"]


def test_pairs_stand_beside_random_partners() -> None:
    figure: Any = composition.build_controls(pairs())
    assert list(figure.data[0].x) == [6.25, 6.25] and list(figure.data[0].y) == [3.0, 3.0]
    assert list(figure.data[1].x) == [25.0, -12.5, 0.0, 12.5]
    assert list(figure.data[1].error_x.array)[:3] == [12.5] * 3
    assert list(figure.layout.yaxis.ticktext) == ["4 + 12", "4 + 28", "12 + 28", "mean of pairs"]
