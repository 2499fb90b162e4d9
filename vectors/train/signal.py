"""Whether a training had anything to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.errors import UserError


def check_signal(log: Sequence[Mapping[str, Any]], reward: str) -> None:
    """Refuse a training that never got a signal, so that nothing of it is shipped.

    Args:
        log: a row per step.
        reward: what was rewarded.

    Raises:
        UserError: in no step did completions of one problem earn different rewards, or the gradient was always 0.
    """
    if any(float(row["gradient_norm"]) > 0 for row in log):
        return
    earned = any(float(row["groups"]) > 0 for row in log)
    what = "the gradient was 0" if earned else "no problem had both rewarded and unrewarded completions"
    works = "use easier problems or a higher temperature, more --samples, or --reward format; nothing was kept"
    raise UserError(f"training never got a signal: in all {len(log)} steps {what} (reward {reward})", works=works)
