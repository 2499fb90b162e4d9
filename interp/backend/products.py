"""Products with weights, by the faster of the two libraries that PyTorch brings for float32 on a CPU.

PyTorch calls MKL, which runs below its speed on processors that are not Intel's. There oneDNN takes 0.5 to 0.8 of the
time for few rows, such as those of a decoding step, with the weights as they lie in memory (docs/performance.md).
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

ROWS = 128
"""Rows up to which oneDNN is asked: with more it gains a tenth at most, and it builds and keeps a kernel for each
number of rows, so that a sweep, which has many, would lose."""
_PLAIN = (Tensor, torch.nn.Parameter)


def linear(
    x: Float[Tensor, "*n width"], weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*n out"]:
    """`x @ weight.T + bias`; with a gradient, or off such a CPU, it is `torch.nn.functional.linear`."""
    if prefers_onednn(x) and _in_float32(x, weight, bias):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)


def _in_float32(*tensors: Tensor | None) -> bool:
    # oneDNN's operator knows no other device, and no subclass of Tensor
    return all(
        one is None or (one.device.type == "cpu" and one.dtype == torch.float32 and type(one) in _PLAIN)
        for one in tensors
    )


def prefers_onednn(x: Float[Tensor, "*n width"]) -> bool:
    """Whether oneDNN multiplies so many rows faster on this machine; it knows no gradient.

    `torch.backends.mkldnn.flags(enabled=False)` forbids it.
    """
    few = 0 < x.numel() <= ROWS * x.shape[-1]
    return few and not torch.is_grad_enabled() and torch.backends.mkldnn.enabled and _outpaces_mkl()


@cache
def _outpaces_mkl() -> bool:
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return has_both and hasattr(torch.ops.mkldnn, "_linear_pointwise") and "AuthenticAMD" in _processor()


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    return described.read_text(errors="replace") if described.exists() else platform.processor()
