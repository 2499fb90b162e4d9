"""The log of a training run as a tidy frame and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interp.markup import text
from interp.registry import load
from interp.store import RunFolder
from vectors.train.state import Progress

if TYPE_CHECKING:
    import plotly.graph_objects as go

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
}


def write_curve(folder: RunFolder, meta: Mapping[str, Any], progress: Progress) -> None:
    """Write frame.parquet, figure.html and figure.json."""
    import pandas as pd

    frame = pd.DataFrame(progress.log)
    validation = {row["step"]: row["accuracy"] for row in progress.checkpoints}
    frame["validation"] = [validation.get(step) for step in frame["step"]]
    frame["validation"] = frame["validation"].astype(float)
    folder.write_frame(frame)
    figure = learning_curve(meta, progress)
    load("reports", "figure")(figure, folder.path, bundle=folder.path.parent.parent)  # one plotly.js for all runs


def learning_curve(meta: Mapping[str, Any], progress: Progress) -> go.Figure:
    """Share of right answers in each batch, and of validation problems solved greedily, over steps."""
    import plotly.graph_objects as go

    settings = meta["settings"]
    steps = [row["step"] for row in progress.log]
    batch = go.Scatter(x=steps, y=[row["right"] for row in progress.log], name="training batch, T=1", mode="lines")
    points = progress.checkpoints
    validation = go.Scatter(
        x=[row["step"] for row in points],
        y=[row["accuracy"] for row in points],
        error_y={
            "type": "data",
            "array": [row["high"] - row["accuracy"] for row in points],
            "arrayminus": [row["accuracy"] - row["low"] for row in points],
        },
        name="validation, greedy",
        mode="lines+markers",
    )
    layers = settings["layers"]
    where = f"{len(layers)} blocks" if len(layers) > 1 else f"block {layers[0]}"
    figure = go.Figure([batch, validation])
    figure.update_layout(
        template="plotly_white",
        title=f"{text(meta['model']['name'])}: {settings['kind']} at {where}, reward {settings['reward']}, "
        f"{settings['prompts']} x {settings['samples']} completions a step, seed {settings['seed']}",
        xaxis_title="updates",
        yaxis={"title": "share of right answers", "range": [0, 1]},
    )
    return figure
