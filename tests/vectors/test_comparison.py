"""Sets of vectors side by side."""

from __future__ import annotations

import pytest
import torch

from interp.errors import UserError
from vectors import Card, SteeringVectors, compare_vectors


def made(rows: list[list[float]], layers: tuple[int, ...]) -> SteeringVectors:
    return SteeringVectors(torch.tensor(rows), layers, Card(name="toy", d_model=len(rows[0]), trained="together"))


def test_cosines_and_norms_of_the_blocks_in_common() -> None:
    a = made([[3.0, 4.0], [0.0, 1.0]], (1, 2))
    b = made([[0.0, 2.0], [5.0, 0.0]], (2, 3))
    found = compare_vectors({"a": a, "<b>": b, "-a": -a})
    rows = {(row["a"], row["b"], row["layer"]): row for row in found.frame.to_dict("records")}
    assert set(rows) == {("a", "<b>", 2), ("a", "-a", 1), ("a", "-a", 2), ("<b>", "-a", 2)}
    assert rows["a", "<b>", 2]["cosine"] == pytest.approx(1.0)
    assert rows["a", "-a", 1] == pytest.approx(
        {"a": "a", "b": "-a", "layer": 1, "cosine": -1.0, "norm_a": 5.0, "norm_b": 5.0}
    )
    shown = found._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "rgba(86,180,233,1.00)" in shown


def test_what_cannot_be_compared_is_refused() -> None:
    a = made([[3.0, 4.0]], (1,))
    with pytest.raises(UserError, match="two sets"):
        compare_vectors({"a": a})
    with pytest.raises(UserError, match="different width"):
        compare_vectors({"a": a, "b": made([[1.0, 0.0, 0.0]], (1,))})
    with pytest.raises(UserError, match="block in common"):
        compare_vectors({"a": a, "b": made([[1.0, 0.0]], (2,))})
