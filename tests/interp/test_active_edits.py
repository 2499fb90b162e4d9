"""What was on stands in every text about a run; an edit that touched nothing ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch

from figures.captions import caption
from figures.record import RecordLike
from figures.style import subtitle
from interp.active_edits import active_now, active_vectors
from interp.cell import Cell
from interp.cli.show import card as shown_card
from interp.comparison import compare
from interp.context import Context
from interp.edits import Add
from interp.errors import UserError
from interp.fired import Fired, fired_by, refuse_untouched, summed
from interp.load import load_model
from interp.positions import Positions
from interp.sites import Site
from interp.zero_norm import refuse_zero
from tests.figures.records import Made
from tests.interp import tiny
from tests.interp.toy import Toy
from vectors.card import Card
from vectors.controls import random_isotropic
from vectors.steering import SteeringVectors
from vectors.train.signal import check_signal

SET = SteeringVectors(torch.eye(3, 48), (0, 1, 2), Card(d_model=48, name="tiny/all-layer"))
FIRST = Positions(prompt=-1, generated="none")


def meta(*edits: Add, name: str = "tiny/all-layer", **more: Any) -> dict[str, Any]:
    counts = [{**vars(fired_by(edit, 4, 4, 0))} for edit in edits]
    vectors = {"name": name, "card": SET.card.model_dump(mode="json"), "digest": SET.digest}
    return {"model": {"name": "tiny"}, "vectors": vectors, "n": 4, "edits": counts, **more}


def test_one_vector_of_a_set_is_not_named_as_the_set() -> None:
    one = meta(*SET.only(2).edits())
    assert active_vectors(one) == "block 2 of tiny/all-layer, resid_post, all positions"
    run: RecordLike = Made(one, pd.DataFrame())
    for text in (subtitle(one), caption("persistence", run), "\n".join(shown_card({**one, "settings": {}}))):
        assert "block 2 of tiny/all-layer, resid_post, all positions" in text
    assert active_vectors(meta(*SET.edits())) == "blocks 0 to 2 of tiny/all-layer, resid_post, all positions"
    assert active_vectors(meta(*SET.only((0, 2)).edits())).startswith("blocks 0, 2 of tiny/all-layer")


def test_controls_and_other_sets_are_not_what_was_studied() -> None:
    other = SteeringVectors(torch.eye(1, 48), (1,), Card(d_model=48, name="tiny/all-layer-random-reward"))
    (draw,) = random_isotropic(SET.only(0), draws=1)
    edits = (*SET.only(2).edits(), *(0.5 * SET.only(2)).edits(FIRST), *other.edits(), *draw.edits())
    assert active_vectors(meta(*edits)) == (
        "block 2 of tiny/all-layer, resid_post, all positions or last prompt position"
    )
    assert active_vectors(meta(*edits), most=1).endswith("all positions or 1 other set of positions")


def test_edits_that_nobody_named_and_runs_that_recorded_little() -> None:
    plain = Add(Site(1, "mlp_out"), torch.ones(48), positions=FIRST)
    assert active_vectors(meta(plain)) == "tiny/all-layer (block 1, mlp_out, last prompt position)"
    assert active_vectors(meta()) == "tiny/all-layer" and active_vectors({}) == ""
    old = {"edit": "add a vector of norm 2 at resid_post[29], everywhere", "touched": 3, "rows": 1}
    assert active_vectors({"vectors": {"name": "mine"}, "edits": [old]}) == (
        "mine (block 29, resid_post, all positions)"
    )
    assert active_now([]) == "no edit"


def test_the_origin_is_no_part_of_an_edits_identity() -> None:
    plain = Add(Site(2, "resid_post"), SET[2])
    assert SET.only(2).edits()[0] == plain and SET.only(2).edits()[0].digest == plain.digest


def test_a_long_subtitle_breaks_and_keeps_all_its_parts() -> None:
    long = meta(*SET.edits(), name="a-model-with-a-long-name/" + 60 * "x", scale="quick")
    line = subtitle(long)
    assert "<br>n = 4 problems" in line and line.endswith("quick")


def test_compare_names_what_was_on_and_refuses_an_edit_that_touches_nothing() -> None:
    model = load_model(tiny.model("llama"), tokenizer=tiny.tokenizer())
    shown = compare(model, "a b c", {"base": None, "v": SET.only(1)}, max_new_tokens=3)
    assert shown.on() == ["v: block 1 of tiny/all-layer/1, resid_post, all positions"]
    assert "block 1 of tiny/all-layer/1" in shown.html()
    with pytest.raises(UserError, match="no row has prompt position 99"):
        compare(model, "a b c", {"v": SET.only(1).edits(Positions(99, "none"))}, max_new_tokens=3)


class Touching(Toy):
    """A toy whose edits touch what they are told to."""

    counts: ClassVar[tuple[Fired, ...]] = ()

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        if any(cell["x"] == 0 for cell in cells):
            ctx.fired(type(self).counts)
        return super().measure(ctx, cells)


def test_a_run_in_which_an_edit_touched_nothing_ends_and_missed_rows_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Touching, "counts", (Fired("add x", 3, 5, 2), Fired("add y", 0, 5, 5)))
    with pytest.raises(UserError, match="touched no token in any of its 10 rows"):
        Touching(size=1).run(out=tmp_path / "a", progress=False)
    monkeypatch.setattr(Touching, "counts", (Fired("add x", 3, 5, 2),))
    run = Touching(size=1).run(out=tmp_path / "b")
    assert "2 of 5 rows have no such position" in capsys.readouterr().err or run.record.meta["edits"][0]["rows"] == 10
    (edit,) = run.record.meta["edits"]
    assert edit["untouched"] * 5 == edit["rows"] * 2
    assert "rows have no such position" in "\n".join(shown_card(dict(run.record.meta)))


def test_counts_of_a_call_are_judged_edit_by_edit() -> None:
    parts = (Fired("add x", 0, 1, 1), Fired("add x", 2, 1, 0))
    assert summed(parts) == (Fired("add x", 2, 2, 1),)
    refuse_untouched(summed(parts))
    with pytest.raises(UserError, match="touched no token"):
        refuse_untouched(parts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "greater than or equal to 1"),
        ({"n": -3}, "greater than or equal to 1"),
        ({"pause": float("nan")}, "finite"),
        ({"pause": float("inf")}, "finite"),
    ],
)
def test_settings_that_select_less_than_they_seem_to_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Toy(**settings)


@pytest.mark.parametrize("n", [0, -3])
def test_a_negative_number_of_problems_drops_none_silently(n: int) -> None:
    class Five:
        name = "five"

        def problems(self, split: str) -> list[int]:
            del split
            return [1, 2, 3, 4, 5]

    with pytest.raises(UserError, match="at least one problem"):
        Context(task=Five()).problems(n=n)


def test_a_vector_of_norm_zero_is_refused_where_a_run_depends_on_it(tmp_path: Path) -> None:
    rows = torch.eye(2, 48)
    rows[1] = 0
    card = Card(d_model=48, name="dead", origin="a training without a signal")
    vectors = SteeringVectors(rows, (3, 7), card)
    with pytest.raises(UserError, match="layers 7, origin: a training without a signal"):
        refuse_zero(vectors, "used in a run")
    refuse_zero(vectors.only(3), "used in a run")
    with pytest.raises(UserError, match="norm 0 cannot be studied by toy"):
        Toy().run(vectors=0 * vectors.only(3), out=tmp_path, progress=False)
    with pytest.raises(UserError, match="compared with controls"):
        random_isotropic(vectors)


def test_training_that_never_got_a_signal_is_an_error() -> None:
    silent = [{"gradient_norm": 0.0, "groups": 0.0}] * 3
    with pytest.raises(UserError, match="in all 3 steps no problem had both rewarded and unrewarded"):
        check_signal(silent, "correct")
    with pytest.raises(UserError, match="the gradient was 0"):
        check_signal([*silent, {"gradient_norm": 0.0, "groups": 0.5}], "correct")
    check_signal([*silent, {"gradient_norm": 0.1, "groups": 0.5}], "correct")
