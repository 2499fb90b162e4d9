"""Maps between widths: a planted map is found, noise is not explained, and only the linear part moves a vector."""

from __future__ import annotations

import pytest
import torch

from interp.errors import UserError
from vectors import Card, SteeringVectors
from vectors.transfer import StreamMap, carry, fit_map, random_map

SOURCE, TARGET = 6, 9


def planted(n: int = 400, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(TARGET, SOURCE, generator=generator)
    x = torch.randn(n, SOURCE, generator=generator) * torch.arange(1, SOURCE + 1)
    y = x @ weight.T + 5.0 + noise * torch.randn(n, TARGET, generator=generator)
    return x, y, weight, torch.arange(n) // 10


def vectors() -> SteeringVectors:
    rows = torch.arange(2.0 * SOURCE).reshape(2, SOURCE)
    return SteeringVectors(rows, (1, 3), Card(name="donor", base_model="wide", d_model=SOURCE, n_layers=4))


def card() -> Card:
    return Card(name="carried", base_model="narrow", d_model=1, n_layers=3)


def test_a_planted_map_is_found_and_explains_texts_it_has_not_seen() -> None:
    x, y, weight, text = planted()
    found = fit_map(x, y, text, ridge=1e-9)
    assert torch.allclose(found.weight, weight, atol=1e-4) and torch.allclose(found.offset, torch.full((TARGET,), 5.0))
    assert found.r2 == pytest.approx(1.0, abs=1e-6)


def test_the_held_out_share_is_that_of_the_noise_and_zero_for_unrelated_states() -> None:
    x, y, _, text = planted(4000, noise=3.0)
    signal = float((y - y.mean(0)).square().sum())
    expected = 1 - 9 * y.numel() / signal
    assert fit_map(x, y, text).r2 == pytest.approx(expected, abs=0.02)
    unrelated = torch.randn(4000, TARGET, generator=torch.Generator().manual_seed(1))
    assert fit_map(x, unrelated, text).r2 == pytest.approx(0.0, abs=0.02)


def test_a_random_map_is_as_large_and_explains_nothing() -> None:
    x, y, _, text = planted()
    fitted = fit_map(x, y, text)
    drawn = random_map(fitted, 1)
    assert drawn.weight.norm() == pytest.approx(float(fitted.weight.norm()), rel=1e-5)
    cosine = torch.cosine_similarity(drawn.weight.flatten(), fitted.weight.flatten(), dim=0)
    assert abs(float(cosine)) < 0.5 and not torch.equal(drawn.weight, random_map(fitted, 2).weight)


def test_only_the_linear_part_moves_a_vector_which_is_a_difference_of_states() -> None:
    x, y, _, text = planted()
    found = fit_map(x, y, text)
    moved = carry(vectors(), {1: found, 3: found}, card(), layers={1: 0, 3: 2})
    assert (moved.layers, moved.d_model, moved.card.base_model) == ((0, 2), TARGET, "narrow")
    steered = (x[0] + vectors()[3]) @ found.weight.T + found.offset
    plain = x[0] @ found.weight.T + found.offset
    assert torch.allclose(moved[2], steered - plain, atol=1e-3)
    assert carry(2 * vectors(), {3: found}, card(), layers={3: 2}) == 2 * moved.only(2)


def test_rows_that_do_not_pair_and_maps_of_another_width_are_refused() -> None:
    x, y, _, text = planted(40)
    with pytest.raises(UserError, match="row by row"):
        fit_map(x, y[:-1])
    with pytest.raises(UserError, match="four texts"):
        fit_map(x, y, torch.zeros(40, dtype=torch.long))
    with pytest.raises(UserError, match="no map for any layer"):
        carry(vectors(), {0: fit_map(x, y, text)}, card())
    with pytest.raises(UserError, match="does not start"):
        carry(vectors(), {1: StreamMap(torch.ones(2, 5), torch.zeros(2), 0.0)}, card())
