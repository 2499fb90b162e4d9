"""Teacher forcing with shared work equals a plain run of every row."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from interp.batch import Batch
from interp.edits import Add, AddAdaptive, Edits, per_row
from interp.errors import UserError
from interp.forced import Forced, shared_length
from interp.load import load_model
from interp.model import Model
from interp.positions import Positions
from interp.prompts import Prompt
from interp.sites import Site
from tests.interp import tiny

GENERATOR = torch.Generator().manual_seed(0)
VECTOR = torch.randn(48, generator=GENERATOR)
WIDE = {70: torch.randn(70, generator=GENERATOR), 80: torch.randn(80, generator=GENERATOR)}


def rows(shared: int, lengths: Sequence[tuple[int, int]] = ((4, 3), (8, 6), (1, 0))) -> Batch:
    """Prompts with `shared` common tokens, then (own prompt tokens, generated tokens)."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(4, tiny.VOCABULARY, (100,), generator=draw).tolist()
    own = [torch.randint(4, tiny.VOCABULARY, (p + g,), generator=draw).tolist() for p, g in lengths]
    prompts = [Prompt((*ids[:shared], *one[:p])) for one, (p, _) in zip(own, lengths, strict=True)]
    return Batch.of(prompts, [one[p:] for one, (p, _) in zip(own, lengths, strict=True)])


EDITS: dict[str, Edits] = {
    "last block": (Add(Site(2, "resid_post"), VECTOR),),
    "kept block": (Add(Site(1, "resid_post"), VECTOR),),
    "two blocks": (Add(Site(0, "resid_post"), VECTOR), Add(Site(2, "resid_post"), VECTOR)),
    "inside a block": (Add(Site(2, "mlp_out"), VECTOR),),
    "adaptive": (),
    "first position only": (Add(Site(1, "resid_post"), VECTOR, positions=Positions(prompt=-1, generated="none")),),
    "rows differ in the prefix": (Add(Site(1, "resid_post"), VECTOR, positions=Positions(prompt=-8)),),
    "by row": per_row([[], [Add(Site(1, "resid_post"), VECTOR)], [Add(Site(2, "resid_post"), VECTOR)]]),
}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Model:
    return load_model(tiny.model(request.param), tokenizer=tiny.tokenizer())


@pytest.mark.parametrize("shared", [12, 0])
@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("keep", [(1,), (0,), ()])
def test_shared_work_gives_what_a_plain_run_gives(model: Model, shared: int, edits: Edits, keep: tuple[int]) -> None:
    batch = rows(shared)
    if edits is EDITS["adaptive"]:
        edits = (AddAdaptive(1, WIDE[model.cfg.d_mlp], VECTOR),)
    forced = Forced(model, batch, keep)
    assert forced.prefix == shared
    final, fired = forced.steered(edits)
    plain = model.run(batch, edits)
    torch.testing.assert_close(final[batch.mask], plain.final[batch.mask], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(forced.base[batch.mask], model.run(batch).final[batch.mask], rtol=1e-4, atol=1e-4)
    assert fired == plain.fired


@pytest.mark.parametrize("shared", [12, 0])
@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
def test_the_streams_of_a_steered_pass_are_those_of_a_plain_run(model: Model, shared: int, edits: Edits) -> None:
    batch = rows(shared)
    edits = edits or (AddAdaptive(1, WIDE[model.cfg.d_mlp], VECTOR),)
    sites = [Site(layer, "resid_post") for layer in range(3)]
    plain = model.run(batch, edits, read=sites)
    found, fired = Forced(model, batch, [0, 1]).steered_at(edits, range(3))
    for site in sites:
        torch.testing.assert_close(found[site.layer][batch.mask], plain[site][batch.mask], rtol=1e-4, atol=1e-4)
    assert fired == plain.fired
    with pytest.raises(UserError, match="not kept"):
        Forced(model, batch, [1]).steered_at(EDITS["last block"], [0])


def test_a_model_with_foreign_hooks_runs_through_them() -> None:
    model = load_model(tiny.model("llama"), tokenizer=tiny.tokenizer())
    batch = rows(12)
    model.hooked.add_hook("blocks.0.hook_resid_post", lambda tensor, hook: tensor * 1.5)
    edits = EDITS["kept block"]
    final, _ = Forced(model, batch, [1]).steered(edits)
    torch.testing.assert_close(final[batch.mask], model.run(batch, edits).final[batch.mask])
    model.hooked.reset_hooks()
    assert float((final - model.run(batch, edits).final)[batch.mask].abs().max()) > 0.1


def test_the_output_of_a_kept_block_is_there(model: Model) -> None:
    batch = rows(12)
    site = Site(1, "resid_post")
    expected = model.run(batch, read=[site])[site]
    torch.testing.assert_close(Forced(model, batch, [1]).base_at(1)[batch.mask], expected[batch.mask])
    with pytest.raises(UserError, match="not kept"):
        Forced(model, batch).base_at(1)


def test_a_prefix_ends_before_the_last_prompt_token_and_may_not_be_short() -> None:
    assert shared_length(rows(12, [(0, 5), (0, 5)])) == 11
    assert shared_length(rows(12, [(3, 5)])) == 0
    assert shared_length(rows(7)) == 0
