"""Lack of memory: told from other errors, and what can be given back."""

from __future__ import annotations

import gc
import sys
import traceback
import warnings


def is_out_of_memory(error: BaseException) -> bool:
    """True for Python's, CUDA's and the CPU allocator's errors; torch raises the latter two as RuntimeError."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def free_memory() -> None:
    """Give back what nobody holds, on the GPU too if torch is in memory."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def halved(size: int, what: str, error: Exception) -> int:
    """Half of a batch that did not fit, said as a warning; what the failed attempt held is given back.

    Args:
        size: of the batch.
        what: it is made of, in the plural.
        error: that it ended with; any but a lack of memory, and one of a batch of 1, goes on.
    """
    if not is_out_of_memory(error) or size <= 1:
        raise error
    traceback.clear_frames(error.__traceback__)  # its frames hold the batch
    free_memory()
    warnings.warn(f"out of memory with {size} {what} at a time; going on with {size // 2}", stacklevel=3)
    return size // 2
