"""The lenses against matrix products written out, and against what the softmax ignores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from interp.errors import UserError
from interp.lens import Affine, CentredLens, CosineLens, TunedLens, fit_affine
from interp.lens_training import train_affine
from interp.model import Model

NORMS = ["RMS", "RMSPre", "LN", "LNPre", None]


def tiny(norm: str | None) -> Model:
    cfg = HookedTransformerConfig(
        n_layers=2, d_model=16, d_head=8, n_heads=2, d_mlp=32, d_vocab=40, n_ctx=32, act_fn="gelu", seed=0,
        normalization_type=norm, original_architecture="test", model_name="tiny",
    )  # fmt: skip
    with pytest.warns(DeprecationWarning, match="HookedTransformer"):
        hooked = HookedTransformer(cfg)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in hooked.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.5 * noise if name == "ln_final.w" else noise)
    return Model(hooked)


def directions(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("norm", NORMS)
def test_the_centred_lens_is_the_matrix_product_by_hand(norm: str | None) -> None:
    model = tiny(norm)
    w_u = model.hooked.W_U.detach()
    final: Any = getattr(model.hooked, "ln_final", None)
    gain = final.w.detach() if norm in ("RMS", "LN") else torch.ones(16)
    expected = torch.empty(3, 40)
    for row, direction in enumerate(directions()):
        shifted = direction - direction.mean() if norm in ("LN", "LNPre") else direction
        for token in range(40):
            expected[row, token] = (shifted * gain * (w_u[:, token] - w_u.mean(1))).sum()
    lens = CentredLens.of(model)
    torch.testing.assert_close(lens.scores(directions()), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(directions() @ lens.matrix(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_the_centred_lens_is_the_derivative_of_the_logits_across_the_residual(norm: str | None) -> None:
    """A small step orthogonal to h (and, for LayerNorm, without mean) leaves the norm's divisor as it is."""
    model = tiny(norm)
    h = directions(1)
    step = directions(2)[1:]
    if norm in ("LN", "LNPre"):
        h, step = h - h.mean(), step - step.mean()
    if norm is not None:
        step = step - (step @ h.T) / (h @ h.T) * h
    step = 1e-3 * step
    with torch.no_grad():
        change = model.unembed(h + step).log_softmax(-1) - model.unembed(h).log_softmax(-1)
    scale = 1.0 if norm is None else 1 / float(h.square().mean().sqrt())
    scores = CentredLens.of(model, scale).scores(step)
    # log-softmax subtracts the same number from all logits, so differences between tokens are what can agree
    torch.testing.assert_close(change - change.mean(), scores, rtol=2e-2, atol=1e-4)


def test_what_the_softmax_ignores_does_not_move_the_centred_lens() -> None:
    model = tiny("RMS")
    before = CentredLens.of(model).scores(directions())
    cosine = CosineLens.of(model).scores(directions())
    with torch.no_grad():
        model.hooked.unembed.W_U += torch.randn(16, 1, generator=torch.Generator().manual_seed(3))  # all tokens alike
    torch.testing.assert_close(CentredLens.of(model).scores(directions()), before, rtol=1e-4, atol=1e-4)
    assert float((CosineLens.of(model).scores(directions()) - cosine).abs().max()) > 0.05


def test_scores_of_some_tokens_are_those_of_the_whole_vocabulary() -> None:
    model = tiny("RMS")
    some = torch.tensor([7, 0, 31])
    for lens in (CentredLens.of(model), CosineLens.of(model)):
        torch.testing.assert_close(lens.scores(directions(), some), lens.scores(directions())[:, some])


def test_the_cosine_lens_is_a_cosine() -> None:
    model = tiny("RMS")
    w_u = model.hooked.W_U.detach()
    expected = torch.nn.functional.cosine_similarity(directions()[:, :, None], w_u[None], dim=1)
    torch.testing.assert_close(CosineLens.of(model).scores(directions()), expected)
    assert torch.equal(CosineLens.of(model).scores(torch.zeros(1, 16)), torch.zeros(1, 40))


def test_a_tuned_lens_finds_a_planted_map_and_moves_directions_by_its_linear_part() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(400, 16, generator=generator)
    planted = torch.eye(16) + 0.3 * torch.randn(16, 16, generator=generator)
    final = x @ planted + 5.0 + 0.01 * torch.randn(400, 16, generator=generator)
    affine = fit_affine(x, final, torch.arange(300, 400))
    assert affine.r2 > 0.999
    assert affine.ridge == 1e-3
    torch.testing.assert_close(affine(x), final, rtol=0.02, atol=0.1)
    model = tiny("RMS")
    lens = TunedLens(affine, CentredLens.of(model))
    expected = CentredLens.of(model).scores(directions() @ planted)
    assert float(torch.corrcoef(torch.stack([lens.scores(directions()).flatten(), expected.flatten()]))[0, 1]) > 0.999


def test_a_tuned_lens_falls_back_to_the_plain_lens_where_there_is_nothing_to_learn() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(40, 16, generator=generator)
    affine = fit_affine(x, x + torch.randn(40, 16, generator=generator), torch.arange(20, 40))
    assert affine.ridge == 10.0
    assert affine.r2 < 0.3
    assert float((affine.linear(directions()) - directions()).norm() / directions().norm()) < 0.25


def test_a_tuned_lens_without_held_out_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="tokens to hold out"):
        fit_affine(torch.zeros(3, 4), torch.zeros(3, 4), torch.tensor([2]))


def test_a_lens_trained_on_divergence_is_never_worse_than_its_start_and_finds_a_planted_map() -> None:
    model = tiny("RMS")
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(400, 16, generator=generator)
    planted = torch.randn(16, 16, generator=generator) / 4
    final = x + x @ planted
    held_out = torch.arange(300, 400)
    start = Affine(planted + 0.1 * torch.randn(16, 16, generator=generator), torch.zeros(16), 1.0, 0.0)

    def divergence(affine: Affine) -> float:
        with torch.no_grad():
            wanted, read = (model.unembed(h).log_softmax(-1) for h in (final[300:], affine(x[300:])))
        return float((wanted.exp() * (wanted - read)).sum(-1).mean())

    still = train_affine(start, x, final, held_out, model.unembed, steps=0)
    assert torch.equal(still.shift, start.shift) and still.kl == pytest.approx(divergence(start), rel=1e-3)
    trained = train_affine(start, x, final, held_out, model.unembed, steps=300, rate=0.02)
    assert trained.kl == pytest.approx(divergence(trained), rel=1e-2, abs=1e-5)
    assert trained.kl < 0.1 * still.kl
    wild = train_affine(start, x, final, held_out, model.unembed, steps=50, rate=100.0)
    assert wild.kl <= still.kl
