"""Rounding errors are shown as 0, wherever numbers are shown."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures.captions import interval, sentence
from figures.record import numbers
from figures.style import written
from interp.cli.diff import changes
from interp.numbers import ROUNDING, shown
from interp.summaries import Interval, verdict

ROUNDED = (1e-18, -1e-18, -6.94e-18, -0.0, 2.2e-16)


@pytest.mark.parametrize("value", ROUNDED)
def test_a_rounding_error_is_zero_everywhere(value: float) -> None:
    assert {shown(value, spec) for spec in (".3g", ".0f", "zg", "g", ".4g")} == {"0"}
    assert shown(value, "+.3f") == "+0.000" and shown(value, ".1%") == "0.0%"
    assert written(value) == "0"
    assert str(Interval(value, value, 1.0, 9)) == "0 [0, 1], n = 9"
    assert interval({"estimate": value, "low": value, "high": 0.5}) == "0 [0, 0.5]"
    assert numbers(pd.DataFrame({"x": [value]}), "x") == [0.0]
    assert "e-" not in changes(pd.DataFrame({"x": [1.0]}), pd.DataFrame({"x": [1.0 + value]}))[0]
    judged = verdict(Interval(value, -0.5, 0.5, 9), Interval(value, -0.1, 0.1, 9), 0.1, unit="nats")
    assert "e-1" not in sentence({"claim": "c", "phrase": judged.phrase, "estimate": {"estimate": value}})


@pytest.mark.parametrize(("value", "text"), [(float("nan"), "?"), (float("inf"), "infinity"), (-1 / 3, "-0.333")])
def test_other_numbers(value: float, text: str) -> None:
    assert shown(value) == text
    assert written(float("inf")) == "\u221e"


@given(st.floats(-1e300, 1e300), st.sampled_from([".3g", ".1f", "+.2f", ".4g", "+z.1f"]))
def test_no_number_is_shown_as_minus_zero(value: float, spec: str) -> None:
    text = shown(value, spec)
    assert not re.fullmatch(r"-0(\.0*)?", text)
    if abs(value) >= ROUNDING and spec == ".4g":
        assert float(text) == pytest.approx(value, rel=1e-3)
