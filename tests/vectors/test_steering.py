"""The algebra of steering vectors, by its identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.edits import Add, Intervention
from interp.errors import UserError
from interp.positions import Positions
from interp.sites import Site
from tests.vectors.toys import D_MODEL, make
from vectors import Card, SteeringVectors

FACTORS = st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 3))


def total(*sets: SteeringVectors) -> dict[Site, torch.Tensor]:
    """What a list of sets adds at each site."""
    added: dict[Site, torch.Tensor] = {}
    for edit in (edit for one in sets for edit in one.edits()):
        added[edit.site] = added.get(edit.site, torch.zeros(D_MODEL)) + edit.scale * edit.direction
    return added


@settings(deadline=None, max_examples=25)
@given(FACTORS, FACTORS)
def test_a_linear_combination_equals_its_edits_one_by_one(x: float, y: float) -> None:
    a, b = make((0, 1), seed=1), make((1, 3), seed=2)
    combined, apart = total(x * a + y * b), total(x * a, y * b)
    assert combined.keys() == apart.keys()
    for site, value in combined.items():
        torch.testing.assert_close(value, apart[site])


def test_the_algebra_is_that_of_a_vector_space(vectors: SteeringVectors) -> None:
    other = make((1, 2), seed=3)
    assert vectors + other == other + vectors
    assert vectors - other == vectors + -other
    assert 2 * vectors == vectors * 2 == vectors + vectors
    assert 1.0 * vectors == vectors
    negative = -vectors
    assert -negative == vectors
    assert np.float32(2) * vectors == 2 * vectors  # pyright: ignore[reportOperatorIssue]


def test_layers_are_aligned_and_absent_ones_stay_absent() -> None:
    a, b = make((0, 1), seed=1), make((1, 3), seed=2)
    both = a + b
    assert both.layers == (0, 1, 3)
    assert torch.equal(both[0], a[0])
    assert torch.equal(both[1], a[1] + b[1])
    assert torch.equal(both[3], b[3])
    assert [edit.site.layer for edit in both.edits()] == [0, 1, 3]
    with pytest.raises(UserError, match="no vector at this layer"):
        _ = both[2]


def test_each_only_and_sum_come_back_to_the_whole(vectors: SteeringVectors) -> None:
    parts = vectors.each()
    assert [part.layers for part in parts] == [(0,), (1,), (3,)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    assert whole == vectors
    assert vectors.only([3, 0]) == vectors.only(0) + vectors.only(3)
    assert vectors.only(vectors.layers) == vectors


def test_other_norms_keep_the_directions(vectors: SteeringVectors) -> None:
    layer = vectors.layers[-1]
    other = vectors.with_norms({layer: 2.5})
    assert other.layers == (layer,) and other.norms[layer] == pytest.approx(2.5)
    assert torch.allclose(other[layer] / 2.5, vectors[layer] / vectors.norms[layer], atol=1e-6)
    with pytest.raises(UserError, match="no vector at this layer"):
        vectors.with_norms({99: 1.0})


def test_rows_given_in_another_order_are_the_same_vectors() -> None:
    rows = torch.randn(2, D_MODEL)
    card = Card(d_model=D_MODEL)
    assert SteeringVectors(rows, (2, 1), card) == SteeringVectors(rows.flip(0), (1, 2), card)


def test_vectors_trained_apart_need_permission_to_be_on_together() -> None:
    apart = make(trained="apart")
    for refused in (apart, apart.only([0, 1]), 2 * apart, apart.only(0) + apart.only(1), apart + make()):
        with pytest.raises(UserError, match="each\\(\\), only\\(layer\\), or together\\(\\)"):
            refused.edits()
    assert len(apart.together().edits()) == 3
    assert len((2 * apart.together()).edits()) == 3
    assert len(apart.only(1).edits()) == 1
    assert sum(len(one.edits()) for one in apart.each()) == 3


def test_edits_add_at_resid_post_or_where_the_card_says() -> None:
    positions = Positions(prompt="none")
    vectors = make((2,))
    assert vectors.edits(positions) == (Add(Site(2, "resid_post"), vectors[2], 1.0, positions),)
    assert make((2,), site="mlp_out").edits()[0].site == Site(2, "mlp_out")


def test_the_caller_cannot_change_the_values_afterwards() -> None:
    rows = torch.ones(1, 2)
    vectors = SteeringVectors(rows, (0,), Card(d_model=2))
    rows.zero_()
    assert vectors.norms == {0: pytest.approx(2**0.5)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_are_kept_in_float32(dtype: torch.dtype) -> None:
    rows = torch.tensor([[0.1, 0.2]], dtype=dtype)
    vectors = SteeringVectors(rows, (0,), Card(d_model=2))
    assert torch.equal(vectors.directions, rows.float())


@pytest.mark.parametrize(
    ("rows", "layers", "message"),
    [
        (torch.tensor([[1.0, float("nan")]]), (0,), "NaN"),
        (torch.tensor([[1.0, float("inf")]]), (0,), "NaN or infinite"),
        (torch.ones(1, 3), (0,), "d_model 2"),
        (torch.ones(2, 2), (0,), "one row is needed"),
        (torch.ones(0, 2), (), "one row is needed"),
        (torch.ones(2, 2), (1, 1), "given twice"),
        (torch.ones(1, 2), (-1,), "no such layer"),
        (torch.ones(1, 2), (4,), "layers 0 to 3"),
    ],
)
def test_what_is_no_set_of_vectors_is_refused(rows: torch.Tensor, layers: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SteeringVectors(rows, layers, Card(d_model=2, n_layers=4))


def test_different_widths_or_sites_do_not_add() -> None:
    with pytest.raises(UserError, match="width"):
        _ = make() + SteeringVectors(torch.ones(1, 2), (0,), Card(d_model=2))
    with pytest.raises(UserError, match="sites"):
        _ = make() + make(site="mlp_out")


def test_the_digest_is_of_the_content(vectors: SteeringVectors) -> None:
    assert make().digest == vectors.digest == vectors.card.digest
    assert len({vectors, 2 * vectors, vectors.only(0), make(site="mlp_out"), make((0, 1, 2))}) == 5


def test_derived_cards_keep_the_origin_and_drop_the_scores() -> None:
    a = make(name="a", base_model="m", lineage="f", scores={"accuracy": 0.5}, trials=[{"rate": 1.0}])
    card = (2 * a).card
    assert (card.base_model, card.lineage, card.name) == ("m", "f", "2 * a")
    assert (card.scores, card.trials) == ({}, [])
    assert card.recipe["of"] == [a.digest]
    assert (a + make(base_model="n")).card.base_model == "unknown"


def test_html_shows_norms_and_escapes_names() -> None:
    shown = make((3,), name="<script>")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert f"{make((3,)).norms[3]:.4g}" in shown


def test_vectors_are_interventions_for_the_type_checker_too(vectors: SteeringVectors) -> None:
    intervention: Intervention = vectors
    assert isinstance(intervention, Intervention)
