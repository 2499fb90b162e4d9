"""Figures of prefix substitution, side effects and transfer show the numbers of their frames."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from figures import prefix_substitution, side_effects, transfer
from tests.figures.records import HOSTILE, META, Made


def ends(name: str, value: float) -> dict[str, float]:
    return {name: value, f"{name}_low": value - 0.125, f"{name}_high": value + 0.25}


def prefixes(token: str = " To") -> Made:
    """The base at 25 %, the vector at +50, its token at +25 with a share, two openers and one control."""
    whole = {"part": "accuracy", "stratum": "all", "temperature": 1.0, "draw": 0, "n": 8, "token_id": -1, "token": ""}
    named = {**whole, "token_id": 5, "token": token}
    rows: list[dict[str, Any]] = [
        {**whole, "vector": "base", "accuracy": 0.25, **ends("gain", 0.0)},
        {**whole, "vector": "trained", "accuracy": 0.75, **ends("gain", 0.5)},
        {**named, "vector": "prefix", "accuracy": 0.5, **ends("gain", 0.25), **ends("share", 0.5), "rank": 1},
        {**named, "vector": "prefix", "stratum": "opens with it", **ends("gain", 0.125), "n": 2},
        {**whole, "vector": "opener", "token_id": 6, "token": "A", **ends("gain", -0.25), "rank": 3},
        {**whole, "vector": "opener", "token_id": 7, "token": "The", **ends("gain", 0.125), "rank": 2},
        {**whole, "vector": "permuted", "token_id": 6, "token": "A", **ends("gain", -0.25)},
        {"part": "references", "vector": "matched-entropy", "draw": 0, **ends("gain", 0.0625), "n": 8},
    ]
    return Made({**META, "experiment": "prefix-substitution"}, pd.DataFrame(rows))


def costs() -> Made:
    rows: list[dict[str, Any]] = []
    for dose in (0.5, 1.0):
        about = {"vector": "trained", "draw": 0, "dose": dose, "n": 8}
        effect = {**ends("kl_neutral", dose), **ends("kl_task", 4 * dose), **ends("selectivity", 1.5)}
        rows.append({"part": "effect", **about, **effect, "perplexity": 9.0, "perplexity_base": 8.0})
        rows.append({"part": "accuracy", **about, "broken": 1, "fixed": 4, "p": 0.375, "accuracy": 0.5})
        rows.append({"part": "style", **about, **ends("repeated_change", 0.25)})
    control = {"vector": "random-effect-matched", "draw": 0, "dose": 1.0, "n": 8}
    effect = {**ends("kl_neutral", 2.0), **ends("kl_task", 4.0), **ends("selectivity", 0.75)}
    rows.append({"part": "effect", **control, **effect})
    rows.append({"part": "accuracy", **control, "broken": 2, "fixed": 0, "p": 0.5, "accuracy": 0.25})
    rows.append({"part": "style", **control, **ends("repeated_change", 0.0)})
    return Made({**META, "experiment": "side-effects"}, pd.DataFrame(rows))


def transfers(donor: str = "m/all-layer@0") -> Made:
    rows: list[dict[str, Any]] = []
    for recipient, gain in (("task-prompt", 0.5), ("no-example", 0.25)):
        about = {"part": "accuracy", "recipient": recipient, "draw": 0, "n": 8, "boxed": 0.5}
        rows += [
            {**about, "vector": "base", "donor": "", "accuracy": 0.125, **ends("gain", 0.0)},
            {**about, "vector": "trained", "donor": donor, "accuracy": 0.625, **ends("gain", gain)},
            {**about, "vector": "random-isotropic", "donor": donor, "accuracy": 0.125, **ends("gain", 0.0625)},
        ]
    rows[1] |= ends("share", 1.0)
    rows.append({**rows[2], "draw": 1, "gain": -0.0625})
    return Made({**META, "experiment": "transfer"}, pd.DataFrame(rows))


def test_the_token_stands_below_its_vector_with_its_share_and_the_openers_by_gain() -> None:
    figure: Any = prefix_substitution.build(prefixes())
    controls, own = figure.data
    assert list(own.x) == [50.0, 25.0, 12.5, 12.5, -25.0, 6.25]
    assert list(own.error_x.array) == [25.0] * 6 and list(own.error_x.arrayminus) == [12.5] * 6
    assert (list(controls.x), list(controls.y)) == ([-25.0], [1.0])
    labels = list(figure.layout.yaxis.ticktext)
    assert '" To"' in labels[1] and "50 % [38, 75] of the vector" in labels[1]
    assert labels[2].endswith("base opens with it (n = 2)") and labels[3] == 'opener "The"'
    assert "25.0 %" in figure.layout.xaxis.title.text and "permuted" in controls.name


def test_doses_stand_at_their_cost_and_effect_with_both_intervals() -> None:
    figure: Any = side_effects.build(costs())
    cloud, curve, equal, ticks, rows = figure.data
    assert (list(curve.x), list(curve.y)) == ([2.0, 4.0], [0.5, 1.0])
    assert list(curve.error_y.array) == [0.25, 0.25] and list(curve.error_x.arrayminus) == [0.125, 0.125]
    assert (list(cloud.x), list(cloud.y)) == ([4.0], [2.0]) and "random-effect-matched" in cloud.name
    assert list(equal.x) == list(equal.y) == [0.5, 4.0]
    assert list(rows.x)[:2] == [1.5, 1.5] and list(ticks.x) == [0.75] and list(ticks.y) == [2.0]


def test_broken_problems_hang_down_and_fixed_ones_stand_up() -> None:
    figure: Any = side_effects.build_answers(costs())
    fixed, broken, marks, points, draws = figure.data
    assert list(fixed.y) == [50.0, 50.0] and list(broken.y) == [-12.5, -12.5]
    assert [note.text for note in figure.layout.annotations if note.name == "p"] == ["p = 0.38", "p = 0.38"]
    assert list(marks.y) == [0.0, -25.0]
    low, high = 100 * 0.0224, 100 * 0.4709  # Wilson, 1 of 8
    assert broken.error_y.array[0] == pytest.approx(12.5 - low, abs=0.05)
    assert broken.error_y.arrayminus[0] == pytest.approx(high - 12.5, abs=0.05)
    assert list(points.y) == [25.0, 25.0] and list(draws.y) == [0.0]
    assert "n = 8 problems and 8 questions" in figure.layout.title.subtitle.text


def test_each_recipient_has_a_panel_with_its_own_base_and_controls() -> None:
    figure: Any = transfer.build(transfers())
    marks, own, _, other = figure.data
    assert own.x[0] == 50.0 and other.x[0] == 25.0 and list(marks.x) == [6.25, -6.25]
    titles = [note.text for note in figure.layout.annotations if note.name != "banner"]
    assert titles == [
        "<b>its own prompt</b><br>12 % without vectors",
        "<b>no worked example</b><br>12 % without vectors",
    ]
    assert list(figure.layout.yaxis.ticktext) == ["all-layer@0", "random-isotropic"]


def test_the_table_shows_points_first_and_a_share_only_where_there_is_one() -> None:
    figure: Any = transfer.build_table(transfers())
    names, donors, accuracy, gain, share, boxed = figure.data[0].cells["values"]
    assert list(names) == ["its own prompt"] * 2 + ["no worked example"] * 2 and list(donors)[:2] == [
        "none",
        "all-layer@0",
    ]
    assert list(accuracy) == ["12.5", "62.5", "12.5", "62.5"] and list(boxed) == ["50.0"] * 4
    assert list(gain) == ["\u2013", "50.0 [37.5, 75.0]", "\u2013", "25.0 [12.5, 50.0]"]
    assert list(share) == ["\u2013", "100 [88, 125]", "\u2013", "\u2013"]


@pytest.mark.parametrize("text", [text for text in HOSTILE if text != "\ud800"])
def test_hostile_names_reach_no_markup(text: str) -> None:
    for figure in (prefix_substitution.build(prefixes(text)), transfer.build(transfers(text))):
        source = str(figure.to_json())
        assert "<script" not in source and "<a href" not in source and "<img" not in source
    table: Any = transfer.build_table(transfers(text))
    assert not any("<" in cell for column in table.data[0].cells["values"] for cell in column)
