"""A figure and a report; both read records and import no torch."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from interp import RunRecord


def build(run: RunRecord) -> go.Figure:
    """Mean KL of each patch."""
    means = run.frame.groupby("patch", sort=False)["kl"].mean()
    title = f"KL at the last prompt token, {run.meta['vectors']['name']}, n = {run.meta['n']}"
    return go.Figure(go.Bar(x=means.index, y=means)).update_layout(title=title, yaxis_title="nats")


def rows(runs: Sequence[RunRecord]) -> dict[str, int]:
    """Rows of each run."""
    return {record.meta["key"]: len(record.frame) for record in runs}
