"""Numbers and tensors that must be finite."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from interp.errors import UserError
from interp.selection import brief


def finite(value: object, what: str) -> float:
    """Return a real number as a float.

    Raises:
        UserError: it is no number, NaN or infinite.
    """
    number: Any = value
    try:
        result = math.nan if isinstance(value, str | bytes) else float(number)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise UserError(f"{what} is a finite number", given=brief(value))
    return result


def check_tensor(value: object, what: str, *, ndim: int | None = None) -> None:
    """Refuse what cannot be added to a stream.

    Args:
        value: what a caller gave.
        what: its name for the message.
        ndim: number of its dimensions; None = any.

    Raises:
        UserError: it is no tensor of floating-point numbers of that many dimensions, or holds NaN or infinity.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim != (ndim or value.ndim):
        given = f"{value.dtype} of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        shape = "" if ndim is None else f" with {ndim} dimension{'s' if ndim > 1 else ''}"
        raise UserError(f"{what} is a tensor of floating-point numbers{shape}", given=given, works="torch.tensor(...)")
    if not bool(value.detach().isfinite().all()):
        raise UserError(f"{what} holds NaN or infinite values")
