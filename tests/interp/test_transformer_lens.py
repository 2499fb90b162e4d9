"""Every entry takes a bare HookedTransformer, folded or not; a TransformerBridge runs to the same numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

from experiments import PathPatching
from interp import Add, Batch, Model, Site, UserError, compare, load_model
from interp.testing import tiny_task
from sae import load
from tests.interp import tiny
from tests.sae import toys
from vectors import Card, SteeringVectors, baseline, check_fit, load_vectors
from vectors.card import Placement
from vectors.train.settings import TrainSettings
from vectors.train.trainer import train

FAMILIES = ("llama", "gpt2")
"""RMSNorm, and LayerNorm, whose writing weights are centred too."""


def plain(family: str) -> Model:
    return load_model(tiny.model(family), tokenizer=tiny.tokenizer())


def folded(family: str) -> Any:
    """The HookedTransformer as its own `from_pretrained` would process it."""
    hooked: Any = copy.deepcopy(plain(family).hooked)
    hooked.process_weights_(
        fold_ln=True,
        center_writing_weights=hooked.cfg.normalization_type == "LN",
        center_unembed=True,
    )
    return hooked


def bare(family: str) -> Any:
    return plain(family).hooked


def vectors(model: Model, layers: tuple[int, ...] = (0, 1)) -> SteeringVectors:
    rows = torch.randn(len(layers), model.d_model, generator=torch.Generator().manual_seed(3))
    return SteeringVectors(rows, layers, Card(d_model=model.d_model, n_layers=model.n_layers, trained="together"))


def batch(model: Model) -> Batch:
    return Batch.of([model.prompt("2 + 2?"), model.prompt("Tom has 3 apples.")])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folded_model_is_steered_as_the_plain_one(family: str) -> None:
    ours, theirs = plain(family), Model.of(folded(family))
    v, rows = vectors(ours), batch(ours)
    expected = ours.run(rows, v.edits()).log_probs(rows.mask)
    assert (theirs.run(rows, v.edits()).log_probs(rows.mask) - expected).abs().max() < 1e-3
    assert (ours.run(rows).log_probs(rows.mask) - expected).abs().max() > 0.1
    prompts = [ours.prompt("2 + 2?"), ours.prompt("7?")]
    one, other = (m.generate(prompts, v.edits(), max_new_tokens=6, temperature=0) for m in (ours, theirs))
    assert [row.ids for row in one.rows] == [row.ids for row in other.rows]


@pytest.mark.parametrize("stream", get_args(Placement))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_vector_needs_no_centring_for_a_centred_model(family: str, stream: Placement) -> None:
    """A LayerNorm does not see the mean of a vector; models that would, with RMSNorm, are never centred."""
    ours = plain(family)
    hooked: Any = copy.deepcopy(ours.hooked)
    hooked.process_weights_(fold_ln=False, center_writing_weights=True, center_unembed=False)
    weights = [model.blocks[1].mlp.W_out for model in (ours.hooked, hooked)]
    assert torch.equal(*weights) == (family != "gpt2")
    theirs, rows = Model.of(hooked), batch(ours)
    direction = torch.randn(ours.d_model, generator=torch.Generator().manual_seed(3)) + 2.0
    near, far = ([Add(Site(1, stream), one)] for one in (direction, direction - direction.mean()))
    expected = ours.run(rows, near).log_probs(rows.mask)
    assert (theirs.run(rows, near).log_probs(rows.mask) - expected).abs().max() < 1e-3
    without_mean = theirs.run(rows, far).log_probs(rows.mask)
    unseen = family == "gpt2" and stream not in ("ln1_out", "ln2_out")
    assert ((without_mean - expected).abs().max() < 1e-3) == unseen


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vector_after_a_norm_is_refused_where_the_norm_is_folded(family: str) -> None:
    ours, theirs = plain(family), folded(family)
    card = {"d_model": ours.d_model, "n_layers": ours.n_layers, "lineage": ours.lineage}
    for stream in get_args(Placement):
        v = SteeringVectors(torch.ones(1, ours.d_model), (1,), Card.model_validate({**card, "site": stream}))
        assert check_fit(v, ours) == "same base"
        if stream in ("ln1_out", "ln2_out"):
            with pytest.raises(UserError, match="whose weights this model has folded"):
                check_fit(v, theirs)
        else:
            assert check_fit(v, theirs) == "origin unknown"


@pytest.mark.parametrize("make", [bare, folded])
def test_every_entry_takes_it_bare(make: Callable[[str], Any], tmp_path: Path) -> None:
    hooked, before = make("llama"), plain("llama")
    v, task = vectors(before), tiny_task()
    file = v.save(tmp_path / "v")
    assert check_fit(v, hooked) == "origin unknown"
    assert load_vectors(file, model=hooked) == v
    shown = [compare(one, "2 + 2?", {"base": None, "v": v}, max_new_tokens=4) for one in (hooked, before)]
    assert [said.tokens for said in shown[0].said] == [said.tokens for said in shown[1].said]
    given = {"draws": 1, "n": 2, "patches": ("steered",), "generated": (), "sweep": (), "factorial": False}
    run = PathPatching.at("smoke", **given).run(hooked, v, task, out=tmp_path, progress=False)
    assert not run.partial
    settings = TrainSettings(steps=1, prompts=2, samples=2, validation=2, test=0, validate_every=1)
    with pytest.raises(UserError, match="training never got a signal"):  # it takes the model, which is never right
        train(hooked, task, settings, out=tmp_path)
    with pytest.raises(UserError, match="right and wrong completions are both needed"):
        baseline(hooked, task, n=2, samples=2)
    sae = toys.dictionary(before, vectors=v)
    sae.coder.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    sae.coder.save_model(tmp_path / "sae")
    assert load(tmp_path / "sae", hooked).site == sae.site


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_bridge_runs_to_the_same_numbers(family: str, tmp_path: Path) -> None:
    inner = tiny.model(family)
    ours = load_model(inner, tokenizer=tiny.tokenizer())
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder(tmp_path, family))  # it asks where its tokenizer lies
    bridge = TransformerBridge.boot_transformers("tiny", hf_model=tiny.model(family), tokenizer=tokenizer)
    theirs = load_model(bridge)
    assert (theirs.n_layers, theirs.d_model, theirs.d_vocab) == (ours.n_layers, ours.d_model, ours.d_vocab)
    assert theirs.lineage == ours.lineage != ""
    v, rows, read = vectors(ours), batch(ours), [Site(1, "resid_post"), Site(2, "resid_pre"), Site(1, "mlp_out")]
    for edits in (), v.edits():
        one, other = ours.run(rows, edits, read), theirs.run(rows, edits, read)
        assert (one.log_probs(rows.mask) - other.log_probs(rows.mask)).abs().max() < 1e-3
        for site in read:
            assert (one[site] - other[site])[rows.mask].abs().max() < 1e-3
        assert one.fired == other.fired
    asked = [ours.prompt("2 + 2?"), ours.prompt("Tom has 3 apples.")]
    one, other = (model.generate(asked, v.edits(), max_new_tokens=4, temperature=0) for model in (ours, theirs))
    assert [row.ids for row in one.rows] == [row.ids for row in other.rows]
    assert one.fired == other.fired
