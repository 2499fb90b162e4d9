"""An autoencoder of the stream after block 1 of the model of `interp.testing`."""

from __future__ import annotations

import torch

from interp import Site
from interp.testing import tiny_model
from sae import Dictionary
from sae.card import SaeCard


class Halves:
    """A feature for each sign of each coordinate, so that nothing is left out."""

    def __init__(self, width: int) -> None:
        self.W_dec, self.b_dec = torch.cat([torch.eye(width), -torch.eye(width)]), torch.zeros(width)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.W_dec.T).clamp(min=0)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"W_dec": self.W_dec}


SAE = Dictionary(Halves(tiny_model().d_model), Site(1, "resid_post"), SaeCard(name="example-sae", of="stream"))
