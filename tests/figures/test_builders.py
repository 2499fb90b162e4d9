"""What a builder draws is what it was given: values, intervals, counts, references, colours centred on zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from figures.bars import Bar, Row, draw_bars, row_traces
from figures.boxes import Box, draw_boxes
from figures.curve import Band, Line, draw_curve
from figures.heatmap import draw_heatmap
from figures.style import BASE, STEERED, Reference, dress, template
from interp.errors import UserError
from tests.figures.records import META


def test_bars_carry_values_intervals_and_counts() -> None:
    figure: Any = draw_bars([Bar("base", 17.0, 9.0, 29.0, n=48), Bar("vector", 33.0)], x_title="", y_title="%")
    drawn = figure.data[0]
    assert list(drawn.y) == [17.0, 33.0]
    assert (drawn.error_y.array[0], drawn.error_y.arrayminus[0]) == (12.0, 8.0)
    assert (drawn.error_y.array[1], drawn.error_y.arrayminus[1]) == (0.0, 0.0)  # no interval is drawn where none is
    assert list(figure.layout.xaxis.ticktext) == ["base<br>n = 48", "vector"]
    assert [note.text for note in figure.layout.annotations if note.name == "value"] == ["17.0", "33.0"]


def test_dots_of_bars_are_the_draws() -> None:
    figure: Any = draw_bars([Bar("a", 1.0, dots=(0.5, 0.75)), Bar("b", 2.0)], x_title="", y_title="")
    assert list(figure.data[1].y) == [0.5, 0.75]
    assert all(abs(x) < 0.5 for x in figure.data[1].x)


def test_an_interval_that_misses_its_estimate_has_no_negative_whisker() -> None:
    figure: Any = draw_bars([Bar("a", 1.0, 1.5, 2.0)], x_title="", y_title="")
    assert list(figure.data[0].error_y.arrayminus) == [0.0]


def test_rows_show_controls_beside_the_estimate() -> None:
    row = Row("a", 2.0, 1.0, 4.0, (0.25, -0.25))
    drawn: list[Any] = list(row_traces([row], label="v", control="c", unit="u", legend=True))
    controls, own = drawn
    assert list(controls.x) == [0.25, -0.25]
    assert (own.x[0], own.error_x.array[0], own.error_x.arrayminus[0]) == (2.0, 2.0, 1.0)


def test_boxes_show_every_point_and_n() -> None:
    figure: Any = draw_boxes([Box("one", [0.1, 0.2, 0.3]), Box("one", [0.5])], x_title="", y_title="")
    assert list(figure.data[0].y) == [0.1, 0.2, 0.3] and figure.data[0].boxpoints == "all"
    assert [note.text for note in figure.layout.annotations] == ["n = 3", "n = 1"]
    assert list(figure.layout.xaxis.tickvals) == [0, 1]  # equal labels stay two boxes


def test_a_curve_has_band_controls_seeds_and_references() -> None:
    line = Line("vector", [0, 1], [0.5, 0.75], [0.25, 0.5], [0.75, 1.0], dots=[(0, 0.4), (0, 0.6)])
    band = Band("random", [0, 1], [0.1, 0.2], [0.3, 0.4])
    figure: Any = draw_curve([line], x_title="layer", y_title="", bands=[band], lines_at=[Reference("base", 0.3)])
    control, own, curve, dots = figure.data
    assert list(control.y) == [0.3, 0.4, 0.2, 0.1] and "153,153,153" in control.fillcolor
    assert list(own.y) == [0.75, 1.0, 0.5, 0.25]
    assert list(curve.y) == [0.5, 0.75] and curve.line.color == STEERED
    assert list(dots.y) == [0.4, 0.6]
    (reference,) = figure.layout.shapes
    assert (reference.y0, reference.y1) == (0.3, 0.3)
    assert figure.layout.annotations[0].text == "base 0.3"


def test_a_band_of_one_layer_is_a_bar_and_layers_without_ends_are_left_out() -> None:
    nan = float("nan")
    line = Line("s", x=[3, 4, 5], y=[nan, nan, 0.5], low=[nan, nan, 0.25], high=[nan, nan, 0.75])
    figure: Any = draw_curve([line], x_title="", y_title="", bands=[Band("random", [3, 4], [0, 0.1], [0.2, 0.3])])
    control, own, _ = figure.data
    assert list(own.x) == [5, 5] and list(own.y) == [0.75, 0.25] and own.line.width > 0
    assert list(control.y) == [0.2, 0.3, 0.1, 0] and control.line.width == 0


def test_a_heatmap_is_centred_on_zero_and_hides_the_lower_triangle() -> None:
    values = np.array([[9.0, 1.0], [9.0, 9.0]])
    labels = ["i", "i"]
    figure: Any = draw_heatmap(
        values, x_labels=labels, y_labels=labels, x_title="", y_title="", unit="points", upper=True
    )
    drawn = np.array(figure.data[0].z)
    assert drawn[0, 1] == 1.0 and np.isnan(drawn[[0, 1, 1], [0, 0, 1]]).all()
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1.0, 1.0)
    assert values[1, 0] == 9.0  # the caller's matrix is not changed
    assert list(figure.layout.yaxis.ticktext) == labels


def test_a_heatmap_refuses_labels_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="one label a row"):
        draw_heatmap([[1.0]], x_labels=["a", "b"], y_labels=["c"], x_title="", y_title="", unit="")


def test_white_is_zero_in_the_template() -> None:
    light: Any = template()
    scale = light.layout.coloraxis.colorscale
    assert scale[len(scale) // 2] == (0.5, "#ffffff")


def test_dress_sets_no_global_template_and_names_model_vectors_n_and_scale() -> None:
    import plotly.io

    before = plotly.io.templates.default
    figure: Any = dress(draw_bars([Bar("a", 1.0, colour=BASE)], x_title="", y_title=""), META, "A <title>")
    assert plotly.io.templates.default == before
    assert figure.layout.title.text == "<b>A &lt;title&gt;</b>"
    second = figure.layout.title.subtitle.text
    assert second == "smollm2-135m-instruct · smollm2-135m-instruct/single-layer/29 · n = 8 problems · smoke"


def banners(meta: dict[str, object]) -> list[str]:
    figure: Any = dress(draw_bars([Bar("a", 1.0)], x_title="", y_title=""), meta, "t")
    return [note.text for note in figure.layout.annotations if note.name == "banner"]


def test_the_banner_stands_on_the_embedded_model_and_nowhere_else() -> None:
    (said,) = banners(META)
    assert said == (
        "SmolLM2-135M-Instruct (4-bit weights, dequantised), synthetic word problems: concerns this model only."
    )
    assert banners({**META, "model": {"name": "qwen2.5-math-7b"}}) == []
    assert banners({}) == []


def test_the_banner_names_another_task() -> None:
    (said,) = banners({**META, "task": {"name": "mine.jsonl"}})
    assert "task mine.jsonl" in said and "word problems" not in said


def test_an_unfinished_run_says_so_in_its_title() -> None:
    figure: Any = dress(draw_bars([Bar("a", 1.0)], x_title="", y_title=""), {**META, "partial": True}, "t")
    assert "unfinished run" in figure.layout.title.subtitle.text
