"""The last block at some positions equals the patched pass of the model; games and attention rows by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.attention_rows import attention_change, change
from experiments.factorial import COALITIONS, PAIRS, PLAYERS, coalition_name, coalition_patch, contrasts
from experiments.patched_block import PatchedBlock, Readout, distances
from experiments.patches import BUILT_IN, family, patch, placed
from experiments.texts import places, texts
from interp.context import Context
from interp.errors import UserError
from interp.model import Model
from interp.paths import CLEAN, FOLLOW, STEERED, BlockPaths, clean, steered
from interp.sites import Site
from interp.store import Store
from tests.experiments import toys

LAST = toys.LAYERS - 1


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma2"])
def ctx(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    store = Store(tmp_path_factory.mktemp("runs"))
    yield Context(model=toys.model(request.param), task=toys.task(), n=6, store=store)


def block(ctx: Context, layer: int) -> PatchedBlock:
    said = texts(ctx, keep=[layer])
    at = places(said, "first", "generated", at_most=2)
    return PatchedBlock(ctx, said, toys.random(ctx.model, scale=10.0, layers=(layer,)), at.where)


def every_patch(model: Model) -> dict[str, Any]:
    names = [
        *BUILT_IN,
        *family("skip-head", model),
        *family("only-k", model),
        "skip-head-1-to-mlp",
        "skip-q-0-to-resid",
    ]
    odd = BlockPaths(k=clean(0), z=steered(0, 3), attn_to_mlp=STEERED, attn_to_resid=CLEAN)
    return {"odd": odd, **{name: patch(name, model) for name in names}}


def test_the_last_block_at_some_positions_is_the_patched_pass(ctx: Context) -> None:
    fast = block(ctx, LAST - 1)
    for name, one in every_patch(ctx.model).items():
        edits = [*fast.vectors.edits(), one.at(LAST)]
        slow = ctx.model.run(fast.said.batch, edits).final[fast.where]
        torch.testing.assert_close(fast.final(one), slow, atol=2e-4, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    torch.testing.assert_close(fast.final(BUILT_IN["steered"]), fast.steered, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(fast.final(BUILT_IN["base"]), fast.base, atol=2e-4, rtol=1e-4)


def test_a_lower_block_runs_through_the_model(ctx: Context) -> None:
    slow = block(ctx, 0)
    one = BUILT_IN["skip-attn"]
    whole = ctx.model.run(slow.said.batch, [*slow.vectors.edits(), one.at(1)]).final[slow.where]
    torch.testing.assert_close(slow.final(one), whole, atol=2e-4, rtol=1e-4)


def test_distances_are_those_of_score(ctx: Context) -> None:
    one = block(ctx, LAST - 1)
    found = distances(one, [BUILT_IN["steered"], BUILT_IN["base"], BUILT_IN["skip-attn"]])
    assert float(found.left[:, 0].max()) < 1e-5 and float(found.kl[:, 1].max()) < 1e-5
    torch.testing.assert_close(found.left[:, 1], found.whole, atol=1e-5, rtol=1e-4)
    edits = [*one.vectors.edits(), BUILT_IN["skip-attn"].at(LAST)]
    rows = one.model.score(one.said.batch, edits, ["kl", "tv", "delta_p"])
    position = one.said.position[one.where].tolist()
    wanted = [(row, p) for row, p in zip(one.where.nonzero()[:, 0].tolist(), position, strict=True)]
    rows = rows.set_index(["row", "position"]).loc[wanted]
    assert found.kl[:, 2].tolist() == pytest.approx(list(rows["kl"]), abs=1e-5)
    assert found.tv[:, 2].tolist() == pytest.approx(list(rows["tv"]), abs=1e-5)
    largest = np.maximum(rows["max_dp"], -rows["min_dp"])
    assert found.max_dp[:, 2].tolist() == pytest.approx(list(largest), abs=1e-5)
    whole: dict[Readout, torch.Tensor] = {"tv": found.tv[:, 0], "delta_p": found.max_dp[:, 0]}
    for readout, expected in whole.items():
        other = distances(one, [BUILT_IN["base"]], readout, beside=False)
        torch.testing.assert_close(other.whole, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(other.left[:, 0], other.whole, atol=1e-5, rtol=1e-4)
        assert bool(other.kl.isnan().all())


def test_named_patches_are_coalitions() -> None:
    names = {coalition_patch(coalition): coalition_name(coalition) for coalition in COALITIONS}
    assert len(names) == 64
    assert names[BUILT_IN["steered"]] == "+".join(PLAYERS)
    assert names[BUILT_IN["skip-attn"]] == "attn-to-mlp+resid-to-mlp+resid"
    assert names[BUILT_IN["skip-layer"]] == "attn-to-mlp+resid"
    assert names[BUILT_IN["skip-mlp"]] == "q+k+v+resid"
    assert names[BUILT_IN["only-attn"]] == "q+k+v+attn-to-mlp"
    assert coalition_name(0) == "none" and coalition_patch(0).attn_to_mlp is CLEAN
    assert coalition_patch(8).attn_to_mlp is FOLLOW


def test_an_additive_game_has_its_terms_as_every_statistic_and_no_interaction() -> None:
    terms = np.array([0.5, -0.25, 3.0, 0.0, 1.0, 0.125])
    worth = np.array([sum(terms[p] for p in range(6) if c >> p & 1) for c in COALITIONS])
    for name in ("alone", "last", "shapley"):
        np.testing.assert_allclose(contrasts()[name] @ worth, terms, atol=1e-12)
    np.testing.assert_allclose(contrasts()["interaction"] @ worth, 0, atol=1e-12)


def test_two_that_are_worth_something_together_only_share_it() -> None:
    worth = np.array([1.0 if c & 1 and c & 16 else 0.0 for c in COALITIONS])
    found = {name: weights @ worth for name, weights in contrasts().items()}
    np.testing.assert_allclose(found["shapley"], [0.5, 0, 0, 0, 0.5, 0], atol=1e-12)
    assert not found["alone"].any()
    np.testing.assert_allclose(found["last"][[0, 4]], 1)
    assert found["interaction"][PAIRS.index((0, 4))] == pytest.approx(1)
    assert np.abs(np.delete(found["interaction"], PAIRS.index((0, 4)))).max() < 1e-12


def test_shapley_values_are_means_over_orders_and_sum_to_the_whole() -> None:
    worth = np.random.default_rng(0).normal(size=64)
    found = contrasts()["shapley"] @ worth
    assert found.sum() == pytest.approx(worth[-1] - worth[0])
    gains = np.zeros(6)
    orders = list(permutations(range(6)))
    for order in orders:
        inside = 0
        for player in order:
            gains[player] += worth[inside | 1 << player] - worth[inside]
            inside |= 1 << player
    np.testing.assert_allclose(found, gains / len(orders))


def test_attention_rows_by_hand() -> None:
    before = torch.tensor([0.5, 0.25, 0.25])[None, None, None]
    after = torch.tensor([0.75, 0.25, 0.0])[None, None, None]
    found = change(before, after, torch.tensor([[True, False, False]]))
    assert float(found.all_keys) == 0.25
    assert float(found.later_keys) == 0.5  # (1/2, 1/2) against (1, 0)
    assert float(found.first_key) == 0.5
    only = torch.tensor([1.0, 0.0, 0.0])[None, None, None]
    assert float(change(only, only, torch.tensor([[True, False, False]])).later_keys) == 0


def test_a_vector_moves_attention_rows_as_hugging_face_does(ctx: Context) -> None:
    said = texts(ctx, keep=[LAST - 1])
    vectors = toys.random(ctx.model, scale=10.0, layers=(LAST - 1,))
    found = attention_change(ctx, said, vectors)
    z, v = Site(LAST, "z"), Site(LAST, "v")
    whole = ctx.model.run(said.batch, vectors.edits(), read=[z, v])
    pattern = ctx.model.path.pattern(LAST, said.forced.base_at(LAST - 1) + vectors[LAST - 1], said.forced.whole)
    group = whole[z].shape[2] // whole[v].shape[2]
    by_pattern = torch.einsum("bhqk,bkhd->bqhd", pattern, whole[v].repeat_interleave(group, 2))
    torch.testing.assert_close(by_pattern[said.batch.mask], whole[z][said.batch.mask], atol=1e-4, rtol=1e-4)
    real = said.batch.mask[:, None].expand_as(found.all_keys)
    assert 0.02 < float(found.all_keys[real].mean()) < 1 and float(found.later_keys[real].max()) <= 1 + 1e-5
    nothing = attention_change(ctx, said, toys.random(ctx.model, scale=0.0, layers=(LAST - 1,)))
    assert float(nothing.all_keys[real].abs().max()) == 0


def test_patches_are_found_by_name_and_heads_are_counted(ctx: Context, tmp_path: Path) -> None:
    model = ctx.model
    assert patch("skip-head-3", model) == BlockPaths(z=clean(3))
    assert patch("only-k-1", model) == BlockPaths(q=CLEAN, k=steered(1), v=CLEAN)
    assert patch("skip-attn-to-mlp", model) == BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN, attn_to_resid=STEERED)
    assert patch("skip-head-0-to-resid", model) == BlockPaths(z=clean(0), attn_to_mlp=STEERED)
    assert family("skip-v", model) == ["skip-v-0", "skip-v-1"] and len(family("only-head", model)) == 6
    with pytest.raises(UserError, match="heads 0 to 1"):
        patch("skip-k-2", model)
    with pytest.raises(UserError, match="did you mean skip-attn"):
        patch("skip-atn", model)
    with pytest.raises(UserError, match="family"):
        family("skip-mlp", model)
    own = tmp_path / "own.py"
    own.write_text("from interp import CLEAN, BlockPaths\nKEYS_ONLY = BlockPaths(q=CLEAN, v=CLEAN)\nOTHER = 3\n")
    assert patch(f"{own}:KEYS_ONLY", model) == BlockPaths(q=CLEAN, v=CLEAN)
    with pytest.raises(UserError, match="a BlockPaths or an Edit"):
        patch(f"{own}:OTHER", model)


EDITS = """
import torch
from interp import Add, BlockPaths, Custom, Positions, Site


def off(value, tokens):
    new = value.clone()
    new[:, :, 1] = 0
    return new


HEAD_OFF = Custom(Site(1, "z"), off)
BELOW = Add(Site(0, "resid_post"), torch.ones({width}))
LATE = Add(Site(2, "resid_post"), torch.ones({width}), positions=Positions(prompt="none"))
ELSEWHERE = BlockPaths().at(1)
KIND = Custom
"""


@pytest.mark.parametrize("layer", [0, LAST - 1])
def test_any_edit_is_a_patch(ctx: Context, layer: int, tmp_path: Path) -> None:
    """It acts after the vector, as in one pass with both."""
    (tmp_path / "mine.py").write_text(EDITS.format(width=ctx.model.d_model))
    one = block(ctx, layer)
    plain = one.final(BUILT_IN["steered"])
    ctx.take_fired()
    for name in ("HEAD_OFF", "BELOW", "LATE"):
        edit = patch(f"{tmp_path / 'mine.py'}:{name}", ctx.model)
        slow = ctx.model.run(one.said.batch, [*one.vectors.edits(), edit]).final[one.where]
        torch.testing.assert_close(one.final(edit), slow, atol=2e-4, rtol=1e-4)
        assert not torch.allclose(slow, plain, atol=1e-3)
        assert [fired["touched"] > 0 for fired in ctx.take_fired()] == [True]
    with pytest.raises(UserError, match="a BlockPaths or an Edit"):
        patch(f"{tmp_path / 'mine.py'}:KIND", ctx.model)
    with pytest.raises(UserError, match="placed at another block"):
        placed(patch(f"{tmp_path / 'mine.py'}:ELSEWHERE", ctx.model), 2)
