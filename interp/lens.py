"""Lenses: linear maps from directions of the residual stream to scores of the vocabulary.

The softmax ignores what is added to all logits alike, so a lens that does not remove the mean over the vocabulary
ranks tokens by a part that has no effect (on SmolLM2 the mean cosine of an unembedding row with the mean row is .66).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.backend.foreign import head_survey
from interp.bare_model import takes_model
from interp.errors import UserError

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties tried for a tuned lens, in units of the mean variance of a coordinate."""

_Columns = Int[Tensor, " some"]


@runtime_checkable
class Unembeds(Protocol):
    """What a lens needs of a model; `interp.model.Model` has it."""

    hooked: Any
    cfg: Any


@runtime_checkable
class Lens(Protocol):
    """Scores of tokens for directions at one place of the residual stream."""

    @property
    def name(self) -> str: ...  # noqa: D102 - see the class

    def scores(  # noqa: D102
        self, directions: Float[Tensor, "n d_model"], tokens: _Columns | None = None
    ) -> Float[Tensor, "n token"]: ...


@dataclass(frozen=True)
class CentredLens:
    """The logit lens up to what the softmax ignores: D -> (gain * D) (W_U - mean_v W_U), times `scale`.

    With `scale` = 1 / (root mean square of a final residual h) the scores are, to first order and up to the part of
    D along h, the change of that position's logits when D is added to h. Biases, a soft cap and the norm's own bias
    do not move a direction's ranking and are left out (arXiv:2509.06608 Fig. 4 uses plain cosines instead).

    Attributes:
        unembedding: W_U.
        gain: of the final norm; ones where it is folded into W_U or there is no norm.
        subtract_mean: the final norm is a LayerNorm, which removes the mean over d_model as well.
        mean: mean row of W_U over the vocabulary.
        scale: factor of all scores.
    """

    unembedding: Float[Tensor, "d_model vocab"]
    gain: Float[Tensor, " d_model"]
    subtract_mean: bool
    mean: Float[Tensor, " d_model"]
    scale: float = 1.0
    name: str = "centred"

    @classmethod
    @takes_model
    def of(cls, model: Unembeds, scale: float = 1.0) -> CentredLens:
        """The lens of a model, folded or not, as it is now.

        Raises:
            UserError: foreign code is on the final norm or the unembedding, which a lens of weights would not follow.
        """
        unembedding = _unembedding(model)
        kind = str(model.cfg.normalization_type or "")
        gain = getattr(model.hooked.ln_final, "w", None) if kind in ("RMS", "LN") else None
        width = unembedding.shape[0]
        gain = torch.ones(width, device=unembedding.device) if gain is None else gain.detach().float().clone()
        return cls(unembedding, gain, kind.startswith("LN"), unembedding.float().mean(1), scale)

    def scores(
        self, directions: Float[Tensor, "n d_model"], tokens: _Columns | None = None
    ) -> Float[Tensor, "n token"]:
        """Scores in units of logits times the root mean square of the final residual, where `scale` is 1.

        Args:
            directions: at the residual stream after the last block.
            tokens: only these; the whole vocabulary if None.
        """
        normed = self._normed(directions)
        columns = self.unembedding if tokens is None else self.unembedding[:, tokens.to(self.unembedding.device)]
        return (normed @ columns.float() - (normed @ self.mean)[:, None]) * self.scale

    def matrix(self) -> Float[Tensor, "d_model vocab"]:
        """The whole map at once; as large as the unembedding in float32."""
        return self.scores(torch.eye(len(self.gain), device=self.gain.device))

    def _normed(self, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        moved = directions.to(self.unembedding.device, torch.float32)
        if self.subtract_mean:
            moved = moved - moved.mean(-1, keepdim=True)
        return moved * self.gain


@dataclass(frozen=True)
class CosineLens:
    """cos(W_U[:, v], D), without the final norm, as in arXiv:2509.06608 Fig. 4. Shown for comparison.

    When NOT to use it: to say which tokens a direction promotes. It divides by the norm of each token's row and keeps
    the part common to all tokens, and neither is what the model does.
    """

    unembedding: Float[Tensor, "d_model vocab"]
    name: str = "cosine"

    @classmethod
    @takes_model
    def of(cls, model: Unembeds) -> CosineLens:
        """The lens of a model, as it is now; refused like the centred one."""
        return cls(_unembedding(model))

    def scores(
        self, directions: Float[Tensor, "n d_model"], tokens: _Columns | None = None
    ) -> Float[Tensor, "n token"]:
        """Cosines, in [-1, 1]; 0 for a zero direction."""
        columns = self.unembedding if tokens is None else self.unembedding[:, tokens.to(self.unembedding.device)]
        columns = columns.float()
        moved = directions.to(columns.device, columns.dtype)
        moved = moved / moved.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        return (moved @ columns) / columns.norm(dim=0).clamp(min=1e-30)


def _unembedding(model: Unembeds) -> Float[Tensor, "d_model vocab"]:
    """A copy of W_U, so that a lens stays that of the model that it was made of."""
    if reason := head_survey(model.hooked):
        raise UserError("a lens of weights cannot follow foreign code", given=reason, works="remove it")
    return model.hooked.unembed.W_U.detach().clone(memory_format=torch.preserve_format)


@dataclass(frozen=True)
class Affine:
    """final = x + x @ shift + bias: how the residual stream of one place maps to the last one, fitted by ridge.

    Attributes:
        shift: what is added to the identity; the ridge shrinks it to zero, not the map.
        bias: constant part; moves no direction.
        ridge: the penalty that did best on held-out rows.
        r2: share of the variance of (final - x) explained on those held-out rows; 0 = no better than a constant.
        kl: KL(next token from final || from the mapped x) on those rows, nats; NaN where it was not measured.
    """

    shift: Float[Tensor, "d_model d_model"]
    bias: Float[Tensor, " d_model"]
    ridge: float
    r2: float
    kl: float = float("nan")

    def __call__(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """Predict final residuals."""
        return x + x @ self.shift + self.bias

    def linear(self, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """Move directions: the linear part alone."""
        moved = directions.to(self.shift)
        return moved + moved @ self.shift


@dataclass(frozen=True)
class TunedLens:
    """The centred lens after an affine map from an earlier place to the last block's output.

    Attributes:
        affine: the fitted map.
        inner: what reads the last residual.
    """

    affine: Affine
    inner: CentredLens
    name: str = "tuned"

    def scores(
        self, directions: Float[Tensor, "n d_model"], tokens: _Columns | None = None
    ) -> Float[Tensor, "n token"]:
        """As the centred lens, for directions at the place where the map was fitted."""
        return self.inner.scores(self.affine.linear(directions), tokens)


def fit_affine(
    x: Float[Tensor, "n d_model"],
    final: Float[Tensor, "n d_model"],
    held_out: Int[Tensor, " held"],
    ridges: tuple[float, ...] = RIDGES,
) -> Affine:
    """Fit `final` from `x` in closed form; the penalty is chosen on held-out rows, then all rows are used.

    Args:
        x: residual stream at the earlier place, a row for each token. Leave out position 0, whose norm is a hundred
            times that of the others, and would be all that is fitted.
        final: residual stream after the last block, the same tokens.
        held_out: rows of problems that are not among the other rows.
        ridges: penalties, in units of the mean variance of a coordinate of x.

    Raises:
        UserError: there are fewer than two rows to fit or to hold out.
    """
    keep = torch.ones(len(x), dtype=torch.bool)
    keep[held_out] = False
    if int(keep.sum()) < 2 or len(held_out) < 2:
        raise UserError("a tuned lens needs tokens to fit and tokens to hold out", given=f"{len(x)} tokens")
    x64, target = x.detach().double().cpu(), (final.detach().double() - x.detach().double()).cpu()
    fitted = _solve(x64[keep], target[keep], ridges)
    left = [unexplained(x64[~keep], target[~keep], shift, bias) for shift, bias in fitted]
    best = min(range(len(ridges)), key=left.__getitem__)
    shift, bias = _solve(x64, target, ridges[best : best + 1])[0]
    return Affine(shift.float(), bias.float(), ridges[best], 1 - left[best])


def _solve(x: Tensor, y: Tensor, ridges: tuple[float, ...]) -> list[tuple[Tensor, Tensor]]:
    """One eigendecomposition for all penalties."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = (x - mean_x).T
    values, basis = torch.linalg.eigh(centred @ centred.T)
    projected = basis.T @ (centred @ (y - mean_y))
    unit = values.mean().clamp(min=1e-30)
    shifts = [basis @ (projected / (values.clamp(min=0) + ridge * unit)[:, None]) for ridge in ridges]
    return [(shift, mean_y - mean_x @ shift) for shift in shifts]


def unexplained(x: Tensor, y: Tensor, shift: Tensor, bias: Tensor) -> float:
    """Share of the variance of y that x @ shift + bias leaves."""
    error = (y - x @ shift - bias).square().sum()
    return float(error / (y - y.mean(0)).square().sum().clamp(min=1e-30))
