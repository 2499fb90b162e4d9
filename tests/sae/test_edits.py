"""Edits of features: lockstep with the base stream, against a second implementation in two plain passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from interp import per_row
from interp.batch import Batch
from interp.edits import Add, Edit, Intervention
from interp.errors import UserError
from interp.forced import Forced
from interp.model import Model
from interp.sites import Site
from sae import Ablate, Clamp, Dictionary, Features
from sae.edits import Reconstruct
from tests.experiments import toys
from tests.interp import tiny
from tests.sae.toys import dictionary, exact

SITE = Site(1, "resid_post")
FINAL = Site(2, "resid_post")


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def vectors(model: Model) -> Any:
    return toys.random(model, scale=6.0, layers=(0, 2)).together()


@pytest.fixture(scope="module")
def change(model: Model, vectors: Any) -> Dictionary:
    return dictionary(model, vectors=vectors)


def by_hand(model: Model, vectors: Any, found: Dictionary, features: list[int], batch: Batch) -> torch.Tensor:
    """Two passes whose difference is coded, then a third one that adds what they say."""
    base, steered = (model.run(batch, edits, read=[SITE])[SITE] for edits in ((), vectors.edits()))
    codes = found.coder.encode(steered - base)
    move = -(codes[..., features] @ found.coder.W_dec[features])
    at = batch.position >= batch.prompt_len[:, None] - 1

    class Move:
        sites, positions, digest, by_row = (SITE,), Features.positions, "move", True

        def describe(self) -> str:
            return "move"

        def apply(self, site: Site, value: torch.Tensor, tokens: Any) -> torch.Tensor:
            return value + move * at[..., None]

    return model.run(batch, [*vectors.edits(), Move()]).final  # pyright: ignore[reportArgumentType]


def texts(model: Model) -> Batch:
    prompts = [model.prompt(text) for text in ("2 + 2?", "What is nine?", "Say")]
    return Batch.of(prompts, [(70, 71, 72), (80,), (90, 91)])


def test_ablation_in_lockstep_equals_two_plain_passes(model: Model, vectors: Any, change: Dictionary) -> None:
    batch, features = texts(model), [0, 3, 5, 7, 11]
    expected = by_hand(model, vectors, change, features, batch)
    edits: list[Edit] = [*vectors.edits(), Ablate(change, features)]
    assert torch.allclose(model.run(batch, edits).final[batch.mask], expected[batch.mask], atol=1e-5)
    plain = model.run(batch, vectors.edits()).final
    assert not torch.allclose(expected[batch.mask], plain[batch.mask], atol=1e-2)
    for keep in ((), (0,), (1,)):
        forced = Forced(model, batch, keep=keep).steered(edits)[0]
        assert torch.allclose(forced[batch.mask], expected[batch.mask], atol=1e-5)


def test_generation_keeps_both_streams_in_step(model: Model, vectors: Any, change: Dictionary) -> None:
    """Cached, sampled, with rows that end early, equals the same tokens uncached; rows alone equal the batch."""
    edits: list[Edit] = [*vectors.edits(), Clamp(change, {2: 3.0, 5: 0.0})]
    prompts = [model.prompt(f"{index} and {index * 7}?") for index in range(5)]
    keys = [str(index) for index in range(5)]
    said = model.generate(prompts, edits, max_new_tokens=12, samples=3, keys=keys)
    rows = [row for row, _ in said]
    batch = Batch.of([prompts[row.prompt] for row in rows], [row.ids for row in rows])
    log_p = model.run(batch, edits).log_probs()
    for index, row in enumerate(rows):
        own = log_p[index, -len(row.ids) - 1 : -1].gather(-1, torch.tensor(row.ids)[:, None])[:, 0]
        assert torch.allclose(own, torch.tensor(row.log_prob), atol=1e-4)
    assert len({len(row.ids) for row in rows}) > 1
    alone = model.generate(prompts[3:4], edits, max_new_tokens=12, samples=3, keys=keys[3:4])
    assert [row.ids for row, _ in alone] == [row.ids for row in rows if row.prompt == 3]


def test_each_row_has_its_own_feature(model: Model, vectors: Any, change: Dictionary) -> None:
    batch = texts(model)
    each = [(*vectors.edits(), Ablate(change, feature)) for feature in (0, 3)] + [()]
    together = model.run(batch, per_row(each)).final
    for row, edits in enumerate(each):
        alone = model.run(batch, list(edits)).final
        assert torch.allclose(together[row][batch.mask[row]], alone[row][batch.mask[row]], atol=1e-5)


def test_a_dictionary_with_zero_error_changes_nothing(model: Model, vectors: Any) -> None:
    batch = texts(model)
    plain = model.run(batch, vectors.edits()).final
    rebuilt = model.run(batch, [*vectors.edits(), Reconstruct(exact(model))]).final
    assert torch.allclose(plain[batch.mask], rebuilt[batch.mask], atol=1e-4)
    every = list(range(model.d_model))
    removed = model.run(batch, [*vectors.only(0).edits(), Ablate(exact(model), every)], read=[SITE])[SITE]
    base = model.run(batch, read=[SITE])[SITE]
    at = batch.mask & (batch.position >= batch.prompt_len[:, None] - 1)
    assert torch.allclose(removed[at], base[at], atol=1e-4)


@pytest.mark.parametrize("kind", ["none", "layer_norm", "constant_norm_rescale", "jumprelu"])
def test_a_feature_of_the_stream_is_taken_out_whatever_normalises_it(model: Model, kind: str) -> None:
    found = dictionary(model, of="stream", kind=kind)
    batch = texts(model)
    h = model.run(batch, read=[SITE])[SITE]
    codes = found.coder.encode(h)
    feature = int(codes[batch.mask][-1].argmax())
    spared = codes.clone()
    spared[..., feature] = 0
    found.coder.encode(h)  # its decoder scales by the last input's norm
    without = found.coder.decode(spared)
    found.coder.encode(h)
    expected = h - (found.coder.decode(codes) - without)
    ablated = model.run(batch, [Ablate(found, feature)], read=[SITE])[SITE]
    at = batch.mask & (batch.position >= batch.prompt_len[:, None] - 1)
    assert torch.allclose(ablated[at], expected[at], atol=1e-3)
    assert not torch.allclose(ablated[at], h[at], atol=1e-3)
    before = batch.mask & ~at
    assert torch.equal(ablated[before], h[before])


def test_features_are_an_intervention(model: Model, vectors: Any, change: Dictionary) -> None:
    made = Features(change, {1: 0.0}, on=vectors)
    assert isinstance(made, Intervention)
    assert made.edits() == (*vectors.edits(), Ablate(change, 1))
    assert made.digest != Features(change, {1: 2.0}, on=vectors).digest
    with pytest.raises(UserError, match="without vectors there is no change"):
        Features(change, {1: 0.0})
    with pytest.raises(UserError, match="describes the change by other vectors"):
        Features(change, {1: 0.0}, on=2 * vectors)
    with pytest.raises(UserError, match="no such feature"):
        Ablate(change, 99)


def test_foreign_hooks_refuse_the_lockstep(vectors: Any, change: Dictionary) -> None:
    model = toys.model()
    model.hooked.blocks[0].hook_resid_post.add_hook(lambda tensor, hook: tensor)
    with pytest.raises(UserError, match="needs the base stream"):
        model.run(tiny.token_ids(), [*vectors.edits(), Ablate(change, 0)])


def test_an_edit_without_change_moves_only_by_the_clamp(model: Model, change: Dictionary) -> None:
    """Without vectors Delta is zero at every token: a clamp adds the same vector at each."""
    batch = texts(model)
    active = change.encode(torch.zeros(model.d_model))
    moved = model.run(batch, [Clamp(change, {2: 5.0})], read=[SITE])[SITE]
    base = model.run(batch, read=[SITE])[SITE]
    at = batch.mask & (batch.position >= batch.prompt_len[:, None] - 1)
    expected = (5.0 - active[2]) * change.directions[2]
    assert torch.allclose((moved - base)[at], expected.expand(int(at.sum()), -1), atol=1e-4)
    added = model.run(batch, [Add(SITE, expected, positions=Features.positions)], read=[SITE])[SITE]
    assert torch.allclose(added, moved, atol=1e-4)
