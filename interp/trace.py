"""What one pass over whole rows leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.arguments import check_kind, shown
from interp.backend.fingerprint import head_digest
from interp.backend.foreign import head_survey
from interp.batch import Batch
from interp.editor import Fired
from interp.errors import UserError
from interp.sites import Site


@runtime_checkable
class ReadsOut(Protocol):
    """What a trace needs of a model; `interp.model.Model` has it."""

    hooked: Any

    def unembed(self, resid: Tensor) -> Tensor: ...  # noqa: D102 - see Model
    def logits(self, final: Tensor) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class Trace:
    """What a run left.

    Attributes:
        final: resid_post of the last block after its edits, [batch, pos, d_model].
        values: the sites that were read, after their edits.
        fired: how often each edit touched a token.
        batch: what was run.
        model: what ran it; its final norm and unembedding make the log-probabilities when they are asked for.
        head: foreign code on the final norm or the unembedding during the run.
        weights: digest of the final norm and the unembedding during the run.
    """

    final: Float[Tensor, "batch pos d_model"]
    values: dict[Site, Tensor]
    fired: tuple[Fired, ...]
    batch: Batch
    model: ReadsOut = field(repr=False)
    head: str = ""
    weights: str = ""

    def __getitem__(self, site: Site) -> Tensor:
        check_kind("a site", site, Site, 'trace[Site(1, "resid_post")]')
        if site not in self.values:
            raise UserError("this site was not read", given=str(site), works=f"run(..., read=[{site!r}])")
        return self.values[site]

    def log_probs(self, at: Bool[Tensor, "batch pos"] | None = None) -> Float[Tensor, "*n vocab"]:
        """Next-token log-probabilities, nats, float32.

        Args:
            at: positions to unembed, giving [n, vocab]; all of them, giving [batch, pos, vocab], if None. The
                vocabulary is large: ask for the positions that you need.

        Raises:
            UserError: a hook on the final norm or the unembedding came or went since the run, or a weight changed.
        """
        if at is not None:
            _check_mask(at, tuple(self.final.shape[:2]))
        now = head_survey(self.model.hooked)
        if now != self.head:
            works = "ask for log-probabilities while the hooks of the run are on"
            raise UserError(
                "the hooks on the unembedding are others than in this run", given=now or "none", works=works
            )
        if self.weights and head_digest(self.model.hooked) != self.weights:
            works = "ask for log-probabilities before you change the model, or run it once more"
            raise UserError("the final norm or the unembedding is another one than in this run", works=works)
        with torch.no_grad():
            if not now:
                return self.model.unembed(self.final if at is None else self.final[at]).float().log_softmax(-1)
            logits = self.model.logits(self.final)
            return (logits if at is None else logits[at]).float().log_softmax(-1)


def _check_mask(at: object, shape: tuple[int, ...]) -> None:
    """Raise where positions are no mask of the batch: indices would select rows of it."""
    if not isinstance(at, Tensor) or at.dtype != torch.bool or tuple(at.shape) != shape:
        given = f"{at.dtype}, shape {list(at.shape)}" if isinstance(at, Tensor) else shown(at)
        raise UserError(f"positions are a boolean tensor of shape {list(shape)}", given=given, works="batch.mask")
