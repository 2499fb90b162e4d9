"""Figures of persistence show the generated tokens' numbers, beside random vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from figures import persistence
from tests.figures import records

NAN = float("nan")


def test_matrices_are_upper_triangular_and_centred_on_zero() -> None:
    figure: Any = persistence.build(records.persistence())
    value, induced, _, above, _, _ = (np.array(trace.z, float) for trace in figure.data)
    np.testing.assert_array_equal(value, [[0.5, 0.25], [NAN, 0.25]])
    np.testing.assert_array_equal(induced, [[0.375, 0.125], [NAN, 0.125]])
    np.testing.assert_array_equal(above, [[0.375, 0.125], [NAN, NAN]])
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmid, axis.cmax) == (-1, 0, 1)
    assert list(figure.layout.xaxis.ticktext) == ["1", "2"] and list(figure.layout.yaxis.ticktext) == ["0", "1"]
    assert "n = 8 problems" in figure.layout.title.subtitle.text


def test_the_papers_matrices_are_named_as_there_and_said_to_lack_controls() -> None:
    figure: Any = persistence.build_paper(records.persistence())
    titles = [note.text for note in figure.layout.annotations if note.name != "banner"]
    assert [title.split(" = ")[0] for title in titles] == ["Diff-Vector", "Diff-Diff", "Mean-Diff"]
    assert "without controls" in figure.layout.title.text


def test_a_statistic_that_no_later_block_has_takes_no_panel() -> None:
    run = records.persistence()
    rows: Any = run.frame
    alone = records.Made(run.meta, rows[~rows["statistic"].isin(["diff_vector", "mean_diff"])])
    for build, panels in ((persistence.build, 4), (persistence.build_paper, 1)):
        figure: Any = build(alone)
        titles = [note.text for note in figure.layout.annotations if note.name != "banner"]
        assert len(figure.data) == len(titles) == panels
        assert not [title for title in titles if "s<sub>k</sub>" in title]


def test_curves_stand_against_the_range_of_random_vectors() -> None:
    figure: Any = persistence.build_controls(records.persistence())
    band, ends, line = figure.data[:3]
    assert list(band.y) == [0.25, 0.25, 0.0625, 0.0625]
    assert list(line.y) == [0.5, 0.25] and list(ends.y) == [0.75, 0.5, 0.125, 0.375]
    titles = [note.text for note in figure.layout.annotations if note.name != "banner"]
    assert titles == ["steered block 0"]  # the one with controls
    assert "n = 4 problems" in figure.layout.title.subtitle.text


def test_final_effects_are_drawn_beside_the_mean_of_random_ones() -> None:
    figure: Any = persistence.build_final(records.persistence())
    trained, drawn, marks, point = figure.data
    assert trained.z[0][1] == 0.75 and drawn.z[0][1] == 0.125
    assert list(marks.x) == [0.0, 0.25] and list(point.x) == [0.75]
    assert list(point.error_x.array) == [0.125] and list(point.error_x.arrayminus) == [0.25]
    assert "random-isotropic \u00d7 2" in marks.name


def test_a_run_without_controls_is_drawn_too() -> None:
    run = records.persistence()
    frame: Any = run.frame.drop(columns=["random", "random_low", "random_high", "above", "above_n"])
    frame = frame[(frame["vector"] == "trained") & (frame["part"] != "final-mean")]
    alone = records.Made(run.meta, frame)
    figure: Any = persistence.build_controls(alone)
    assert len([note for note in figure.layout.annotations if "steered" in note.text]) == 2
    final: Any = persistence.build_final(alone)
    assert len(final.data) == 2
