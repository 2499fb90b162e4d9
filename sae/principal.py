"""Principal components as a dictionary: what sparse features are compared with, at the same L0."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import UserError
from sae.card import SaeCard
from sae.dictionary import Dictionary


class Principal:
    """Components of x around its mean; of each x the k coefficients with the largest magnitude are kept.

    Args:
        components: orthonormal rows.
        mean: of x.
        k: coefficients kept of each x, its L0.
    """

    def __init__(self, components: Float[Tensor, "component d_model"], mean: Float[Tensor, " d_model"], k: int) -> None:
        self.W_dec, self.b_dec, self.k = components, mean, k

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n component"]:
        """Signed coefficients, all but the k largest set to zero."""
        found = (x.float() - self.b_dec) @ self.W_dec.T
        kept = found.abs().topk(min(self.k, found.shape[-1]), dim=-1).indices
        return torch.zeros_like(found).scatter(-1, kept, found.gather(-1, kept))

    def state_dict(self) -> dict[str, Tensor]:
        """What tells it from another one."""
        return {"components": self.W_dec, "mean": self.b_dec, "k": torch.tensor(self.k)}

    @classmethod
    def beside(cls, dictionary: Dictionary, x: Float[Tensor, "row d_model"], k: int) -> Dictionary:
        """The components of x at the site of another dictionary.

        Args:
            dictionary: what it is compared with.
            x: rows to fit, of training problems.
            k: its L0.

        Raises:
            UserError: there are no more rows than components are kept.
        """
        if len(x) <= k:
            raise UserError("principal components need more rows than are kept", given=f"{len(x)} rows, k = {k}")
        mean = x.float().mean(0)
        _, _, components = torch.linalg.svd(x.float() - mean, full_matrices=False)
        card = SaeCard(name=f"principal components, k = {k}", of=dictionary.card.of, hook=dictionary.card.hook)
        card = card.model_copy(update={"vectors_digest": dictionary.card.vectors_digest})
        return Dictionary(cls(components.contiguous(), mean, k), dictionary.site, card)
