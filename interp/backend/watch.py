"""Notices that a model changed while something computed from it is still in use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp.backend.checksums import checksum
from interp.backend.fingerprint import settings_digest, tensors_of
from interp.backend.foreign import survey
from interp.digest import digest
from interp.errors import UserError

SAMPLED = 2**16
"""Elements of a tensor that are read: all of a small one, evenly spread blocks of a large one."""
_BLOCKS = 16
_ANGLES = ("rotary_sin", "rotary_cos", "mask", "IGNORE")
"""Tables that grow with use; their first rows stay."""


class Watch:
    """The state of a model at a moment, to be compared with a later one.

    It is for what keeps streams between its calls (teacher forcing, patch sweeps) and takes a tenth of a fingerprint's
    time. Settings, hooks, exchanged tensors and every write that PyTorch counts are noticed. A write through `.data`
    is noticed in the elements that are read: all of a tensor of up to `SAMPLED` elements, a sample of a larger one.

    Args:
        hooked: a HookedTransformer or TransformerBridge.
    """

    def __init__(self, hooked: Any) -> None:
        self._hooked = hooked
        self._state = _state(hooked)

    def check(self, what: str) -> None:
        """Refuse to go on with a model that is another one than before.

        Args:
            what: was computed from the model, for the message.

        Raises:
            UserError: weights, settings or hooks changed.
        """
        if _state(self._hooked) != self._state:
            raise UserError(f"the model changed since this {what} was made", works=f"make the {what} once more")


def _state(hooked: Any) -> str:
    tensors = [(name, *_described(name, value)) for name, value in tensors_of(hooked)]
    return digest(survey(hooked).foreign, settings_digest(hooked), tensors)


def _described(name: str, value: Tensor) -> tuple[Any, ...]:
    if name.rpartition(".")[2] in _ANGLES:
        return str(value.dtype), checksum(value[:1] if value.ndim else value)
    # tensors made in inference mode count no writes
    version = -1 if value.is_inference() else value._version  # pyright: ignore[reportPrivateUsage]
    return str(value.dtype), list(value.shape), value.data_ptr(), version, checksum(_sample(value))


def _sample(value: Tensor) -> Tensor:
    if value.numel() <= SAMPLED:
        return value
    order = sorted(range(value.ndim), key=lambda axis: (-value.stride(axis), axis))
    flat = value.detach().permute(order)
    if not flat.is_contiguous():
        return flat.flatten()[:SAMPLED]
    length = SAMPLED // _BLOCKS
    starts = [index * (value.numel() - length) // (_BLOCKS - 1) for index in range(_BLOCKS)]
    return torch.cat([flat.view(-1)[start : start + length] for start in starts])
