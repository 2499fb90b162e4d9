"""Tiny random dictionaries for tiny random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sae_lens.saes import JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig

from interp.sites import Site
from sae import Dictionary
from sae.card import SaeCard
from sae.dictionary import hook_of

FEATURES = 24


def inner(d_model: int, kind: str = "topk", features: int = FEATURES, seed: int = 0) -> Any:
    """A random autoencoder of sae-lens."""
    torch.manual_seed(seed)
    common: dict[str, Any] = {"d_in": d_model, "d_sae": features}
    made: Any
    if kind == "topk":
        made = TopKSAE(TopKSAEConfig(**common, k=4))
    elif kind == "jumprelu":
        made = JumpReLUSAE(JumpReLUSAEConfig(**common))
        made.threshold.data.fill_(0.3)
    else:
        common["normalize_activations"] = kind
        made = StandardSAE(StandardSAEConfig(**common))
    made.b_dec.data.normal_(generator=torch.Generator().manual_seed(seed)).mul_(0.1)
    return made.eval()


def dictionary(
    model: Any, *, layer: int = 1, of: str = "change", kind: str = "topk", vectors: Any = None
) -> Dictionary:
    site = Site(layer, "resid_post")
    digest = "" if vectors is None else vectors.digest
    card = SaeCard(name="toy", of=of, hook=hook_of(site), vectors_digest=digest)  # pyright: ignore[reportArgumentType]
    return Dictionary(inner(model.d_model, kind), site, card)


class Linear:
    """Features that are coordinates of an orthonormal basis: zero error."""

    def __init__(self, d_model: int) -> None:
        basis, _ = torch.linalg.qr(torch.randn(d_model, d_model, generator=torch.Generator().manual_seed(1)))
        self.W_dec, self.b_dec = basis, torch.zeros(d_model)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.W_dec.T

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"basis": self.W_dec}


def exact(model: Any, *, layer: int = 1, of: str = "change") -> Dictionary:
    """A dictionary that leaves nothing out."""
    site = Site(layer, "resid_post")
    card = SaeCard(name="exact", of=of, hook=hook_of(site))  # pyright: ignore[reportArgumentType]
    return Dictionary(Linear(model.d_model), site, card)


def folder(path: Path, model: Any, vectors: Any, *, layer: int = 1) -> Path:
    """A random autoencoder of the change by some vectors, as training leaves it."""
    made = inner(model.d_model)
    hook = hook_of(Site(layer, "resid_post"))
    made.cfg.metadata.hook_name = hook
    made.save_model(path)
    card = SaeCard(name="toy", of="change", hook=hook, lineage=model.lineage, vectors_digest=vectors.digest)
    (path / "card.json").write_text(card.model_dump_json())
    return path
