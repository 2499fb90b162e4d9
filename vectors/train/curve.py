"""The log of a training run as a tidy frame and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.registry import load
from interp.store import RunFolder, RunRecord
from vectors.train.state import Progress

COLUMNS = {
    "step": "updates done",
    "reward": "mean reward of the step's completions, -1 to 1",
    "right": "share of right answers among them",
    "boxed": "share with a closed box",
    "ended": "share that ended by themselves",
    "tokens": "mean length, tokens",
    "entropy": "mean entropy of the next token, nats",
    "groups": "share of problems whose completions differ in reward",
    "generated": "tokens generated",
    "loss": "RLOO loss",
    "gradient_norm": "norm of the gradient before clipping",
    "norm": "mean norm of the trained vectors (of B A for adapters), units of the residual stream",
    "seconds_sampling": "time of sampling and grading, seconds",
    "seconds": "time of the step, seconds",
    "validation": "greedy accuracy on validation problems, 0 to 1; empty where it was not measured",
    "validation_low": "lower end of its 95 % interval over problems",
    "validation_high": "upper end",
}


def write_curve(folder: RunFolder, meta: Mapping[str, Any], progress: Progress) -> None:
    """Write frame.parquet, figure.html and figure.json."""
    import pandas as pd

    frame = pd.DataFrame(progress.log)
    measured = {row["step"]: row for row in progress.checkpoints}
    for column, name in (("validation", "accuracy"), ("validation_low", "low"), ("validation_high", "high")):
        frame[column] = [measured.get(step, {}).get(name) for step in frame["step"]]
        frame[column] = frame[column].astype(float)
    folder.write_frame(frame)
    figure = load("figures", "learning-curve")(RunRecord(folder.path, dict(meta)))
    load("reports", "figure")(figure, folder.path, bundle=folder.path.parent.parent)  # one plotly.js for all runs
