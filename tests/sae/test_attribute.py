"""Attribution: exact on what is linear, and held against ablation by the public edits where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from interp.batch import Batch
from interp.errors import UserError
from interp.model import Model
from interp.sites import Site
from sae import Ablate, Dictionary
from sae.attribute import Attributor, Read
from sae.card import SaeCard
from sae.metrics import METRICS, metrics
from sae.passes import lay_out, streams
from tests.experiments import toys
from tests.sae.toys import dictionary, exact, inner

TEXTS = [[[70, 71, 72]], [[80, 81]], [[90, 91, 92, 93]]]


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def vectors(model: Model) -> Any:
    return toys.random(model, scale=6.0, layers=(0, 2)).together()


def prompts(model: Model) -> list[Any]:
    return [model.prompt(text) for text in ("2 + 2?", "What is nine?", "2 + 3?")]


def attributor(model: Model, vectors: Any, found: Dictionary) -> Attributor:
    return Attributor(model, lay_out(model, prompts(model), TEXTS), vectors.edits(), found)


def test_streams_equal_whole_passes(model: Model, vectors: Any) -> None:
    layout = lay_out(model, prompts(model), [[(70, 71), (72, 73, 74)], [(75,)], [(76, 77)]])
    site = Site(1, "resid_post")
    for edits in ((), vectors.edits()):
        found = streams(model, layout, edits, site)
        rows = [(0, (70, 71)), (0, (72, 73, 74)), (1, (75,)), (2, (76, 77))]
        for index, (owner, ids) in enumerate(rows):
            prompt = prompts(model)[owner]
            whole = model.run(Batch.of([prompt], [ids]), edits, read=[site])[site][0]
            start = len(prompt) - 1
            assert torch.allclose(found.tails[index, : len(ids)], whole[start : start + len(ids)], atol=1e-4)
            heads = found.heads[owner][layout.heads.position[owner] >= 0]
            assert torch.allclose(heads, whole[start - len(heads) : start], atol=1e-4)
    assert layout.following.tolist()[1] == [72, 73, 74]


def test_attribution_of_a_linear_toy_is_exact(model: Model, vectors: Any) -> None:
    """At the last block, with a scalar that is linear in the stream, the derivative is the change itself."""
    site = Site(2, "resid_post")
    found = Dictionary(inner(model.d_model), site, SaeCard(name="x", of="change"))
    made = attributor(model, vectors, found)
    weight = torch.randn(model.d_model, generator=torch.Generator().manual_seed(2))
    said = made.layout.said

    def linear(read: Read) -> torch.Tensor:
        return (read.states @ weight) * read.of(said)

    nodes = made.nodes(linear)
    for text in range(3):
        every = made.active(text)
        measured = made.ablations([linear], text, every)[:, 0]
        assert torch.allclose(measured, nodes.features[text, every], rtol=1e-4, atol=1e-3)
        change = made.x[text] * said[text][:, None]
        total = nodes.features[text].sum() + nodes.error[text] + nodes.bias[text]
        assert total == pytest.approx(float((change @ weight).sum()), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("kind", ["vectors", "adapters"])
@pytest.mark.parametrize("of", ["change", "stream"])
def test_ablations_equal_the_public_edit(model: Model, vectors: Any, of: str, kind: str) -> None:
    vectors = vectors if kind == "vectors" else 3 * toys.adapters(model, trained="together")
    found = dictionary(model, of=of, vectors=vectors)
    made = attributor(model, vectors, found)
    layout = made.layout
    final = [streams(model, layout, edits, Site(2, "resid_post")).tails for edits in ((), vectors.edits())]
    chosen = metrics(model, layout, *final)
    features = made.active(2)[:3]
    measured = made.ablations([chosen[name] for name in METRICS], 2, features)
    for row, feature in enumerate(features):
        edits = [*vectors.edits(), Ablate(found, feature)]
        ablated = streams(model, layout, edits, Site(2, "resid_post")).tails
        for column, name in enumerate(METRICS):
            text = torch.tensor([2])
            reads = [chosen[name](Read(model, one[text], text)).sum() for one in (final[1], ablated)]
            by_hand = reads[0] - reads[1]
            assert float(measured[row, column]) == pytest.approx(float(by_hand), abs=1e-4)


def test_scalars_are_what_score_gives(model: Model, vectors: Any) -> None:
    layout = lay_out(model, prompts(model), TEXTS)
    final = [streams(model, layout, edits, Site(2, "resid_post")).tails for edits in ((), vectors.edits())]
    chosen = metrics(model, layout, *final)
    batch = Batch.of(prompts(model), [some[0] for some in TEXTS])
    scored: Any = model.score(batch, vectors.edits(), ["kl", "log_prob"])
    scored = scored[scored["log_prob_steered"].notna()] if "log_prob_steered" in scored else scored
    every = torch.arange(3)
    steered, base = (
        {name: one(Read(model, states, every)).sum(1) for name, one in chosen.items()}
        for states in (final[1], final[0])
    )
    for row in range(3):
        rows = scored[(scored["row"] == row) & (scored["position"] < len(TEXTS[row][0]))]
        assert float(steered["kl"][row]) == pytest.approx(float(rows["kl"].mean()), abs=1e-4)
    assert float(base["kl"].abs().max()) < 1e-5
    assert bool((steered["logit_diff"] >= base["logit_diff"]).all())


def test_attribution_predicts_small_ablations(model: Model, vectors: Any) -> None:
    """With zero error, features of tenth strength: first order is nearly all there is."""
    weak = 0.05 * vectors
    found = exact(model)
    made = attributor(model, weak, found)
    final = [streams(model, made.layout, edits, Site(2, "resid_post")).tails for edits in ((), weak.edits())]
    log_prob = metrics(model, made.layout, *final)["log_prob"]
    nodes = made.nodes(log_prob)
    assert float(nodes.error.abs().max()) < 1e-4
    features = made.active(0)
    measured = made.ablations([log_prob], 0, features)[:, 0]
    both = torch.stack([measured, nodes.features[0, features]])
    assert float(torch.corrcoef(both)[0, 1]) > 0.99


def test_attribution_needs_a_place_to_resume(model: Model, vectors: Any) -> None:
    site = Site(1, "mlp_out")
    found = Dictionary(inner(model.d_model), site, SaeCard(name="x", of="stream"))
    with pytest.raises(UserError, match="resumes at a block's output"):
        attributor(model, vectors, found)
