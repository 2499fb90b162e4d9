"""Figures of the experiments show the numbers of their frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from figures import logit_lens, token_substitution
from figures.record import part
from interp.errors import UserError
from tests.figures.records import HOSTILE, META, Made, lens, substitution


def test_the_claim_is_drawn_on_the_held_out_half_beside_controls() -> None:
    figure: Any = token_substitution.build(substitution())
    controls, own = figure.data[0], figure.data[1]
    assert list(own.x)[:2] == [0.5, 0.25]
    assert list(own.error_x.array)[:2] == [0.25, 0.25] and list(own.error_x.arrayminus)[:2] == [0.125, 0.125]
    assert list(controls.x) == [0.0, 0.01, 0.0, 0.01]
    assert "permuted × 2" in controls.name
    assert list(figure.data[3].x)[:2] == [2.0, 1.0] and list(figure.data[5].x)[:2] == [0.25, 0.125]
    assert list(figure.layout.yaxis.ticktext) == ['" To"', '" we"', "each control\u2019s<br>own top token"]
    assert (figure.data[4].x[-1], figure.data[4].y[-1]) == (0.0625, 2.0)  # the control's own token, last row
    assert "n = 4 held-out problems" in figure.layout.title.subtitle.text


def test_the_papers_boxes_are_labelled_selected_by_maximum() -> None:
    figure: Any = token_substitution.build_paper(substitution())
    to, we, chosen = figure.data
    assert list(to.y) == pytest.approx([0.1, 0.3, 0.11, 0.31]) and list(we.y) == pytest.approx([0.2, 0.21])
    assert list(chosen.y) == pytest.approx([0.7, 0.8])
    assert [note.text for note in figure.layout.annotations if note.name == "n"] == ["n = 4", "n = 2", "n = 2"]
    assert "selected by maximum" in figure.layout.title.text
    assert list(figure.layout.xaxis.ticktext)[2] == '" To"<br>chosen, position 0'


def test_template_positions_are_left_out_of_the_boxes() -> None:
    run = substitution()
    frame = run.frame.copy()
    frame.loc[frame["stratum"] == "generated", "stratum"] = "template"
    figure: Any = token_substitution.build_paper(Made(run.meta, frame))
    assert [len(box.y) for box in figure.data] == [2, 2]


def test_the_causal_bars_carry_accuracy_intervals_and_controls() -> None:
    figure: Any = token_substitution.build_causal(substitution())
    bars, dots = figure.data
    assert list(bars.y) == [25.0, 50.0, 37.5, 62.5]
    assert list(bars.error_y.array) == [25.0] * 4 and list(bars.error_y.arrayminus) == [12.5] * 4
    assert list(dots.y) == [12.5]
    assert [shape.y0 for shape in figure.layout.shapes] == [25.0]
    assert "greedy" in figure.layout.title.text


def test_the_lens_shows_promoted_tokens_left_and_suppressed_right() -> None:
    figure: Any = logit_lens.build(lens())
    scores, texts = np.array(figure.data[0].z), figure.data[0].text
    assert scores[1, 0] == 12.0 and scores[1, 1] == 6.0 and scores[1, -1] == -12.0
    assert texts[1][0] == texts[1][-1] == '" To"'
    assert np.isnan(scores[0, 5])
    assert list(figure.layout.yaxis.ticktext) == ["0", "2"]
    menu = figure.layout.updatemenus[0].buttons
    assert [trace.visible for trace in figure.data] == [None, False] and len(menu) == 2
    assert menu[1].args[0]["visible"] == [False, True] and menu[1].args[1]["coloraxis.cmax"] == 0.75


def test_scripts_stand_against_the_null_band() -> None:
    figure: Any = logit_lens.build_scripts(lens())
    band, line = figure.data[0], figure.data[1]
    assert list(line.x) == [0.0, 2.0] and list(line.y) == [0.25, 0.5]
    assert list(band.y) == [0.625, 0.625, 0.375, 0.375]
    titles = [note.text for note in figure.layout.annotations if note.name != "banner"]
    assert titles == ["<b>non-Latin</b>, 90 tokens", "<b>Han</b>, 40 tokens: too few to test"]


def test_scripts_show_the_intervals_that_effects_have() -> None:
    run = lens()
    rows: Any = run.frame.assign(auc_low=run.frame["auc"] - 0.125, auc_high=run.frame["auc"] + 0.125)
    figure: Any = logit_lens.build_scripts(Made(run.meta, rows))
    band, ends, line = figure.data[:3]
    assert list(line.y) == [0.25, 0.5] and list(ends.y) == [0.375, 0.625, 0.375, 0.125]
    untested = rows.assign(null_low=float("nan"), null_high=float("nan"))
    without: Any = logit_lens.build_scripts(Made(run.meta, untested))
    assert band.name.startswith("random") and not [one for one in without.data if one.name == band.name]


def test_classes_show_probability_and_log_odds_of_the_last_layer() -> None:
    figure: Any = logit_lens.build_classes(lens())
    assert list(figure.data[1].x) == [0.0625, -0.03125] and list(figure.data[3].x) == [0.5, -0.25]
    assert list(figure.data[3].error_x.array) == [0.25, 0.25]
    assert list(figure.data[0].x) == [0.0625 / 8, -0.03125 / 8]
    assert "layer 2" in figure.layout.title.text


def test_hostile_tokens_reach_no_markup_of_plotly() -> None:
    tokens = tuple(token for token in HOSTILE if token != "\ud800")  # no data frame holds a lone surrogate
    for figure in (
        token_substitution.build(substitution(tokens)),
        token_substitution.build_paper(substitution(tokens)),
        logit_lens.build(lens(tokens[:6])),
    ):
        source = str(figure.to_json())
        assert "<script" not in source and "<a href" not in source and "<img" not in source
        assert "\u202e" not in source and "\\u202e" not in source.replace("\\\\u202e", "")


def test_all_three_figures_of_the_embedded_model_carry_its_banner() -> None:
    run = substitution()
    for build in (token_substitution.build, token_substitution.build_paper, token_substitution.build_causal):
        assert [note.name for note in build(run).layout.annotations].count("banner") == 1
        other = Made({**META, "model": {"name": "llama"}}, run.frame)
        assert [note.name for note in build(other).layout.annotations].count("banner") == 0


def test_a_missing_part_names_those_there_are() -> None:
    with pytest.raises(UserError, match=r"no rows of part 'tokens'.*causal, chosen, concentration, positions, summary"):
        part(substitution(), "tokens")
