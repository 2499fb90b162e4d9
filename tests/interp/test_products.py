"""Products with weights by oneDNN against PyTorch's own, for every layout that the engine hands over."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from interp.backend import products
from interp.backend.products import linear
from interp.load import load_model
from interp.model import Model
from tests.interp import tiny

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch was built without oneDNN"
)
X = torch.randn(6, 5, 32, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(24, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_outpaces_mkl", lambda: True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What PyTorch's own product was asked for."""
    calls: list[str] = []
    own = functional.linear
    monkeypatch.setattr(functional, "linear", lambda *given: calls.append("linear") or own(*given))
    return calls


@pytest.mark.parametrize(
    "x",
    [
        X[..., :16],
        X[..., ::2],
        X[:, 1:3, 16:].transpose(0, 1),
        X[0, 0, :16],
        X[:1, :, :16].expand(3, 5, 16),
        X[:0, :, :16],
    ],
    ids=["wide", "strided", "transposed", "one row", "expanded", "no rows"],
)
@pytest.mark.parametrize("weight", [WEIGHT, WEIGHT.T.contiguous().T, WEIGHT[3:19]], ids=["rows", "columns", "part"])
@pytest.mark.parametrize("biased", [True, False])
def test_onednn_gives_the_same_products(
    onednn: None, asked: list[str], x: torch.Tensor, weight: torch.Tensor, biased: bool
) -> None:
    bias = torch.linspace(-1, 1, len(weight)) if biased else None
    with torch.no_grad():
        ours = linear(x, weight, bias)
    assert len(asked) == (0 if x.numel() else 1)
    theirs = x @ weight.T + (0 if bias is None else bias)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert ours.shape == theirs.shape


def test_rows_do_not_depend_on_the_rows_beside_them_beyond_rounding(onednn: None) -> None:
    rows = X[..., :16].flatten(0, 1)
    with torch.no_grad():
        whole = linear(rows, WEIGHT)
        for size in (1, 2, 7):
            torch.testing.assert_close(linear(rows[:size], WEIGHT), whole[:size], atol=1e-6, rtol=1e-6)


def test_a_gradient_another_dtype_and_many_rows_go_to_pytorch(onednn: None, asked: list[str]) -> None:
    x, weight = X[..., :16], WEIGHT.clone().requires_grad_()
    linear(x, weight).sum().backward()
    torch.testing.assert_close(weight.grad, x.flatten(0, 1).sum(0).expand_as(weight))
    with torch.no_grad():
        assert linear(x.double(), WEIGHT.double()).dtype == torch.float64
        assert len(asked) == 2
        for rows, count in ((products.ROWS, 2), (products.ROWS + 1, 3)):
            linear(torch.ones(rows, 16), WEIGHT)
            assert len(asked) == count


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_model_computes_the_same_by_both(family: str, monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    model: Model = load_model(tiny.model(family), tokenizer=tiny.tokenizer())
    said, calls = list[torch.Tensor](), list[int]()
    for ahead in (False, True):
        monkeypatch.setattr(products, "_outpaces_mkl", lambda ahead=ahead: ahead)
        with torch.no_grad():
            said.append(model.run(torch.arange(40).view(2, 20)).log_probs())
        calls.append(len(asked))
    torch.testing.assert_close(said[1], said[0], atol=1e-5, rtol=1e-5)
    assert calls[0] == calls[1] > 0
