"""What all blocks of one pass share, and how its queries meet its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor

from interp.backend.attention import attend
from interp.backend.cache import Cache, Slot
from interp.backend.routes import Routes
from interp.positions import Tokens
from interp.sites import Site, Stream

Tap = Callable[[Site, Tensor, Tokens], Tensor]


@dataclass(frozen=True)
class Pass:
    """What all blocks of one pass share.

    Attributes:
        tokens: the new tokens.
        mask: which key each query may attend to: for every attention type, [batch, 1, query, key].
        cache: keys and values of earlier tokens, which this pass extends; None = there are none.
        tap: sees and may replace each site's value.
        sites: the sites that the tap wants.
        routes: blocks some of whose paths are clean.
        clean: block -> its input without the edits at the output of the block below, where there are routes.
    """

    tokens: Tokens
    mask: dict[str, Bool[Tensor, "batch 1 query key"]]
    cache: Cache | None
    tap: Tap
    sites: set[Site]
    routes: Mapping[int, Routes] = field(default_factory=dict[int, Routes])
    clean: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def visit(self, layer: int, stream: Stream, value: Tensor) -> Tensor:
        """Offer a value to the tap."""
        site = Site(layer, stream)
        return self.tap(site, value, self.tokens) if site in self.sites else value

    def narrow(self, x: Float[Tensor, "batch pos d_model"]) -> Tensor:
        """The stream at the tokens that go on after attention: all of them."""
        return x

    def attend(
        self,
        slot: Slot,
        kind: str,
        heads: tuple[Tensor, Tensor, Tensor],
        divisor: float,
        soft_cap: float,
    ) -> Float[Tensor, "batch head query d_head"]:
        """Attention over the earlier tokens and the new ones.

        Args:
            slot: where the cache keeps the new keys and values.
            kind: the block's attention type.
            heads: rotated queries and keys, and values, of the new tokens, [batch, head, pos, d_head].
            divisor: as for `interp.backend.attention.attend`.
            soft_cap: likewise.
        """
        q, k, v = heads
        if self.cache is not None:
            k, v = self.cache.append(slot, k, v)
        return attend(q, k, v, self.mask[kind], divisor, soft_cap)


def untouched(site: Site, value: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG001 - a tap
    """The tap that changes nothing."""
    return value
