"""No number moves unseen: every experiment on tiny random models gives the values in `golden/values.json`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.__main__ import STORED, STORED_FAMILIES, differences, portable, tiny_values

TOLERANCE = 1e-3
"""Relative; another processor rounds in another order."""


def approximate(values: Any) -> Any:
    """Return values whose floating-point numbers equal those of another processor."""
    if isinstance(values, dict):
        return {name: approximate(value) for name, value in values.items()}
    return pytest.approx(values, rel=TOLERANCE, abs=1e-5, nan_ok=True) if isinstance(values, float) else values


@pytest.mark.slow
@pytest.mark.parametrize("family", STORED_FAMILIES)
def test_every_experiment_gives_its_golden_values(family: str) -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    measured = json.loads(json.dumps(portable({family: tiny_values(family)})))
    assert not differences(approximate({family: stored[family]}), measured)


def test_a_moved_number_and_a_lost_one_are_differences() -> None:
    before = {"llama": {"x": {"means": {"kl": 1.0, "tv": 0.5}}}}
    after = {"llama": {"x": {"means": {"kl": 1.1}}}}
    assert differences(before, before) == []
    assert differences(before, after) == ["llama / x / means / kl: 1.0 -> 1.1", "llama / x / means / tv: 0.5 -> absent"]
    near = {"llama": {"x": {"means": {"kl": 1.0001, "tv": 0.5}}}}
    assert differences(approximate(before), near) == []
    assert differences(approximate(before), after) != []
