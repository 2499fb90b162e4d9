"""A dictionary of directions at one site of one model, whoever made it: sae-lens, a file, or principal components."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.bare_model import takes_model
from interp.digest import digest
from interp.errors import UserError
from interp.identity import kept_identity
from interp.selection import distinct, whole_numbers
from interp.sites import STREAMS, Site, Stream
from interp.source_files import library
from sae.card import SaeCard

WIDE: tuple[Stream, ...] = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
"""Streams that dictionaries may describe: those of width d_model that have a hook point of their own."""
_HOOK = re.compile(r"blocks\.(?P<layer>\d+)\.hook_(?P<stream>\w+)")


class Coder(Protocol):
    """What a dictionary needs of an autoencoder; those of sae-lens have it."""

    W_dec: Any
    b_dec: Any

    def encode(self, x: Tensor) -> Tensor: ...  # noqa: D102 - see the class
    def state_dict(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Dictionary:
    """x_t = gain_t (sum_j f_j(x_t) d_j) + bias + error_t, at one site.

    x is Delta, the change that an intervention makes there, or the stream itself; `card.of` says which.

    Args:
        coder: the autoencoder, in evaluation mode, float32.
        site: where x is read.
        card: where it comes from.
        neuron: address of a feature's page, with {} for its index; empty where there is none. Nothing is fetched.
    """

    coder: Any = field(repr=False)
    site: Site
    card: SaeCard
    neuron: str = ""

    @property
    def name(self) -> str:
        """The card's name, or the digest where it has none."""
        return self.card.name or self.digest

    @cached_property
    def digest(self) -> str:
        """Content hash of weights, settings, site and what is described."""
        cfg = getattr(self.coder, "cfg", None)
        kind = type(self.coder).__name__
        names = ("k", "apply_b_dec_to_input", "normalize_activations", "rescale_acts_by_decoder_norm")
        told = {name: _plain(getattr(cfg, name, None)) for name in names}
        state = dict(self.coder.state_dict())
        return digest("Dictionary", kind, told, self.card.of, self.site, state, *_code_of(self.coder))

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.coder.W_dec.shape[0])

    @property
    def d_model(self) -> int:
        """Width of x."""
        return int(self.coder.W_dec.shape[1])

    @cached_property
    def directions(self) -> Float[Tensor, "feature d_model"]:
        """Decoder directions d_j."""
        rows = self.coder.W_dec.detach().float()
        if getattr(getattr(self.coder, "cfg", None), "rescale_acts_by_decoder_norm", False):
            rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-8)
        return rows

    @property
    def bias(self) -> Float[Tensor, " d_model"]:
        """What is reconstructed where no feature is active; without gain, which is 1 where there is a bias."""
        return self.coder.b_dec.detach().float()

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n feature"]:
        """Activations f_j(x)."""
        with torch.no_grad():
            return self.coder.encode(x.float())

    def gain(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n 1"]:
        """By what an autoencoder that normalises each x scales it back; 1 for the others."""
        kind = getattr(getattr(self.coder, "cfg", None), "normalize_activations", "none")
        if kind == "constant_norm_rescale":
            return x.float().norm(dim=-1, keepdim=True) / self.d_model**0.5
        if kind == "layer_norm":
            return x.float().std(dim=-1, keepdim=True)
        return torch.ones_like(x[..., :1], dtype=torch.float32)

    def reconstruct(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """The part of x that features and bias carry."""
        with torch.no_grad():
            codes = self.coder.encode(x.float())
            return self.coder.decode(codes) if hasattr(self.coder, "decode") else codes @ self.directions + self.bias

    def part(
        self, x: Float[Tensor, "*n d_model"], features: Int[Tensor, " some"] | list[int]
    ) -> Float[Tensor, "*n d_model"]:
        """What some features contribute: sum over them of gain f_j(x) d_j."""
        chosen = list(self.checked(features))
        return self.gain(x) * (self.encode(x)[..., chosen] @ self.directions[chosen])

    def checked(self, features: object) -> tuple[int, ...]:
        """Return features, of any integer type, that the dictionary has.

        Raises:
            UserError: there is no such feature, one is named twice, or none is named.
        """
        works = f"some of 0 to {self.width - 1}"
        chosen = distinct(whole_numbers(features, "a feature", works=works), "a feature")
        strange = [feature for feature in chosen if not 0 <= feature < self.width]
        if strange:
            raise UserError("no such feature", given=strange[0], works=works)
        return chosen

    @takes_model
    def check_fit(self, model: Any, *, foreign: bool = False) -> None:
        """Refuse a model of another shape or, where the card has a lineage, of another one.

        Args:
            model: a Model.
            foreign: lifts the lineage, never the shape.

        Raises:
            UserError: width, block or weights do not fit.
        """
        if self.d_model != model.d_model:
            raise UserError(f"{model.name} has d_model {model.d_model}", given=f"{self.name}, width {self.d_model}")
        if self.site.layer >= model.n_layers:
            works = f"blocks 0 to {model.n_layers - 1}"
            raise UserError("this autoencoder is of a block that the model lacks", given=str(self.site), works=works)
        if self.card.lineage and self.card.lineage != model.lineage and not foreign:
            given = f"made for {self.card.base_model}, model {model.name}"
            raise UserError("this autoencoder was trained on other weights", given=given, works="use foreign=True")

    def check_vectors(self, vectors: Any) -> None:
        """Refuse vectors whose change this is not.

        Raises:
            UserError: it describes the change that other vectors make, or one that these make a constant.
        """
        digest_of = getattr(vectors, "digest", "")
        if self.card.of == "change" and self.card.vectors_digest not in ("", digest_of):
            given = f"vectors {getattr(getattr(vectors, 'card', None), 'name', '') or digest_of}"
            works = f"give {self.card.vectors}, or train one: interp sae train"
            raise UserError(f"{self.name} describes the change by other vectors", given=given, works=works)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dictionary) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        kind = "change" if self.card.of == "change" else "stream"
        return f"Dictionary({self.name!r}, {self.width} features of the {kind} at {self.site}, {self.digest})"


def hook_of(site: Site) -> str:
    """The site as TransformerLens names it."""
    return f"blocks.{site.layer}.hook_{site.stream}"


def site_of(hook: str | None) -> Site:
    """The site that a hook name means.

    Raises:
        UserError: there is none, or dictionaries of such a stream are not supported.
    """
    match = _HOOK.fullmatch(hook or "")
    if match is None or match["stream"] not in STREAMS or match["stream"] not in WIDE:
        works = f"autoencoders of {', '.join(f'hook_{stream}' for stream in WIDE)}"
        raise UserError("this autoencoder's hook point is not supported", given=hook or "none named", works=works)
    layer, stream = int(match["layer"]), cast(Stream, match["stream"])
    # the same stream; at a block's output the edits of that block come first, as they must
    return Site(layer - 1, "resid_post") if stream == "resid_pre" and layer else Site(layer, stream)


def _plain(value: object) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _code_of(coder: Any) -> tuple[str, ...]:
    """Identity of an autoencoder that a user wrote; none for those of sae-lens and of this project."""
    known = library(type(coder).__module__)
    return () if known is not None else (kept_identity(coder, type(coder).__qualname__),)
