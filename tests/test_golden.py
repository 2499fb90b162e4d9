"""No number moves without a word: every experiment on tiny random models gives the values in `golden/values.json`.

`python -m tests.golden stored` writes that file anew; a change of it needs a reason in the commit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden.__main__ import STORED, differences, tiny_values

TOLERANCE = 1e-3
"""Relative; another processor rounds in another order."""


def rounded(values: Any) -> Any:
    """Return values without the digests of columns, which hold on one machine only."""
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items() if name != "columns"}
    return pytest.approx(values, rel=TOLERANCE, abs=1e-5) if isinstance(values, float) else values


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_every_experiment_gives_its_golden_values(family: str) -> None:
    stored = json.loads((Path(__file__).parent / STORED).read_text(encoding="utf-8"))
    assert not differences({family: rounded(stored[family])}, {family: rounded(tiny_values(family))})


def test_a_moved_number_and_a_lost_one_are_differences() -> None:
    before = {"llama": {"x": {"means": {"kl": 1.0, "tv": 0.5}}}}
    after = {"llama": {"x": {"means": {"kl": 1.1}}}}
    assert differences(before, before) == []
    assert differences(before, after) == ["llama / x / means / kl: 1.0 -> 1.1", "llama / x / means / tv: 0.5 -> absent"]
