"""The card of vectors in a terminal."""

from __future__ import annotations

from typing import Any

from interp.cli.card import card_text


def test_trials_and_scores_are_tables_and_long_lists_are_shortened() -> None:
    half: dict[str, Any] = {"accuracy": 0.25, "low": 0.1, "high": 0.5, "n": 8}
    whole = {
        **half,
        "accuracy": 0.125,
        "n": 16,
        "boxed": 0.5,
        "by_template": {"buy": half},
        "by_operations": {"2": half},
    }
    card = {
        "name": "a",
        "origin": "",
        "recipe": {"settings": {"layers": list(range(30)), "rate": 0.01}, "norms": {str(i): 1.0 for i in range(9)}},
        "trials": [{"run": "r1", "validation_greedy": 1 / 3}, {"run": "r2", "validation_greedy": 0.5, "kept": True}],
        "scores": {"test": {"T=1": whole, "greedy": whole}, "validation_greedy": 0.5},
    }
    lines = [" ".join(line.split()) for line in card_text("vectors [bold]", card, 100).splitlines()]
    assert lines[0] == "vectors [bold]"
    assert "settings.layers 0, 1, ..., 29 (30)" in lines
    assert "norms 0: 1, 1: 1, ..., 8: 1 (9)" in lines
    assert {"r1 0.3333", "r2 0.5 True"} <= set(lines)
    assert "all 16 12.5 [10.0, 50.0] 12.5 [10.0, 50.0]" in lines
    assert {"two operations 8 25.0 [10.0, 50.0] 25.0 [10.0, 50.0]", "boxed 0.5 0.5"} <= set(lines)
    assert not any(line.startswith("origin") for line in lines)


def test_scores_of_another_shape_are_listed() -> None:
    assert "test.greedy.points 12.5" in " ".join(
        card_text("v", {"scores": {"test": {"greedy": {"points": 12.5, "on": "x"}}}}, 80).split()
    )
