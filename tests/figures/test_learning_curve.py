"""The learning curve shows each batch, its running mean, validation with intervals and the kept checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from figures import learning_curve
from tests.figures.records import META, Made

STEPS = 6


def run(*, finished: bool = True, **settings: Any) -> Made:
    frame = pd.DataFrame({name: np.arange(1.0, STEPS + 1) / 10 for name in ("right", "boxed", "ended", "tokens")})
    frame = frame.assign(step=range(1, STEPS + 1), entropy=0.5, norm=2.0, gradient_norm=0.1)
    ends = {"validation": 0.25, "validation_low": 0.125, "validation_high": 0.5}
    for name, value in ends.items():
        frame[name] = [value if step % 3 == 0 else float("nan") for step in frame["step"]]
    about = {"kind": "vector", "layers": [12], "rank": None, "reward": "correct", "seed": 3, "prompts": 2, "samples": 4}
    meta = {"model": META["model"], "task": META["task"], "settings": about | settings, "partial": not finished}
    return Made(meta | ({"validation": {"step": 3}} if finished else {}), frame)


def trace(figure: Any, name: str) -> Any:
    return next(one for one in figure.data if one.name == name)


def test_batches_their_mean_and_validation_stand_where_they_were_measured() -> None:
    figure: Any = learning_curve.build(run())
    batch = next(one for one in figure.data if one.mode == "markers" and one.xaxis == "x")
    assert list(batch.y) == pytest.approx([10, 20, 30, 40, 50, 60])
    # the running mean of five updates, of fewer at the ends
    assert list(trace(figure, "right in the training batch, T = 1").y) == pytest.approx([20, 25, 30, 40, 45, 50])
    seen = trace(figure, "right on validation problems, greedy")
    assert list(seen.x) == [3, 6] and list(seen.y) == [25, 25]
    assert list(seen.error_y.array) == [25, 25] and list(seen.error_y.arrayminus) == [12.5, 12.5]
    assert [shape.x0 for shape in figure.layout.shapes] == [3]
    assert "Training vector at block 12, reward correct, seed 3" in figure.layout.title.text
    assert "n = 8 completions an update" in figure.layout.title.subtitle.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": [0, 1]}, "vectors at 2 blocks"),
        ({"kind": "lora", "rank": 4, "layers": [0, 1]}, "LoRA of rank 4 on down_proj at 2 blocks"),
        ({"kind": "full", "layers": [0, 1]}, "all weights at 2 blocks"),
    ],
)
def test_a_run_that_goes_on_says_so_and_keeps_nothing_yet(settings: dict[str, Any], words: str) -> None:
    figure: Any = learning_curve.build(run(finished=False, **settings))
    assert words in figure.layout.title.text and "unfinished run" in figure.layout.title.subtitle.text
    assert not figure.layout.shapes
