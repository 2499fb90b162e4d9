"""Whatever selects something selects what it says, or is refused in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.edits import Add, AddAdaptive
from interp.errors import UserError
from interp.load import load_model
from interp.model import Model
from interp.placed_edits import check_edits
from interp.readouts import Choice, LogitDiff, LogOdds, TopTokens
from interp.sampling import Sampling
from interp.selection import whole, whole_numbers
from interp.sites import Site, block
from tests.interp import tiny


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(tiny.model("llama"), tokenizer=tiny.tokenizer())


INTEGERS = st.one_of(*(st.integers(0, 2).map(kind) for kind in (int, np.int16, np.uint8, torch.tensor, np.array)))
NONE = st.one_of(st.booleans(), st.floats(), st.none(), st.text(), st.just(np.True_), st.just(torch.tensor([1])))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(number=INTEGERS, strange=NONE)
def test_every_integer_is_a_layer_and_nothing_else_is(number: Any, strange: Any) -> None:
    assert block(number) == int(number) and type(block(number)) is int
    assert whole(number, "a layer") == int(number)
    with pytest.raises(UserError):
        whole(strange, "a layer")


@pytest.mark.parametrize("value", [-1, np.int64(-3)])
def test_layers_count_from_the_first_block(model: Model, value: Any) -> None:
    with pytest.raises(UserError, match="counts from 0"):
        block(value)
    with pytest.raises(UserError, match="blocks 0 to 2"):
        model.run(torch.tensor([[5, 6]]), read=[Site(3, "q")])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_directions_and_scales_are_finite(bad: float) -> None:
    site = Site(0, "resid_post")
    with pytest.raises(UserError, match="NaN or infinite"):
        Add(site, torch.tensor([1.0, bad]))
    with pytest.raises(UserError, match="finite"):
        Add(site, torch.ones(2), bad)
    with pytest.raises(UserError, match="NaN or infinite"):
        AddAdaptive(0, torch.ones(2), torch.tensor([bad]))
    with pytest.raises(UserError, match="finite"):
        Sampling(4, temperature=bad)


def test_scale_zero_stays_the_model_as_it_is(model: Model) -> None:
    ids = torch.tensor([[5, 6, 7]])
    base = model.run(ids).final
    for edit in (Add(Site(1, "resid_post"), torch.ones(48), 0.0), Add(Site(1, "resid_post"), torch.zeros(48))):
        assert torch.equal(model.run(ids, [edit]).final, base)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogOdds((-1,)), lambda: LogOdds(()), lambda: LogitDiff(3, -2), lambda: Choice({}),
        lambda: Choice({"A": -1}), lambda: TopTokens(0), lambda: TopTokens(-2),
    ],
)  # fmt: skip
def test_tokens_of_a_readout_exist(make: Any) -> None:
    with pytest.raises(UserError):
        make()


def test_a_token_beyond_the_vocabulary_is_an_error_and_the_last_one_is_not(model: Model) -> None:
    ids, edits = torch.tensor([[5, 6, 7]]), [Add(Site(1, "resid_post"), torch.ones(48))]
    with pytest.raises(UserError, match="the vocabulary has tokens 0 to"):
        model.score(ids, edits, [LogOdds((model.d_vocab,))])
    assert len(model.score(ids, edits, [LogOdds((model.d_vocab - 1,))])) == 1


def test_collections_keep_their_order_and_sets_rise() -> None:
    assert whole_numbers([3, 1, 2], "a layer") == (3, 1, 2) and whole_numbers({10, 9, 2}, "a layer") == (2, 9, 10)
    assert whole_numbers(np.int64(3), "a layer") == (3,) and whole_numbers(range(3), "a layer") == (0, 1, 2)


def test_what_is_no_sequence_of_edits_is_refused_in_one_line() -> None:
    edit = Add(Site(1, "resid_post"), torch.ones(48))
    check_edits([edit])
    for wrong in (edit, [torch.ones(48)], [None], None, torch.ones(2, 48)):
        with pytest.raises(UserError, match="sequence of edits"):
            check_edits(wrong)


ACCEPTED = """
import numpy as np, torch
from interp.paths import BlockPaths, Heads, CLEAN, clean
from interp.readouts import LogOdds
from interp.sampling import Sampling
from interp.sites import Site
from vectors.card import Card
from vectors.steering import SteeringVectors
v = SteeringVectors(torch.eye(3), (np.int64(0), 1, 2), Card(d_model=3, name="set"))
assert Site(np.int16(1), "q") == Site(1, "q") and repr(Site(torch.tensor(1), "q")) == repr(Site(1, "q"))
assert repr(clean(np.int64(0))) == repr(clean(0)) and repr(BlockPaths().at(np.int64(2))) == repr(BlockPaths().at(2))
assert v.only(np.int64(1)) == v.only([1]) == v.only(torch.tensor([1])) and v.layers == (0, 1, 2)
assert LogOdds(np.array([1, 2])) == LogOdds((1, 2)) and Sampling(np.int64(4)) == Sampling(4)
"""
REFUSALS = (
    "Site(True, 'q')",
    "Site(1.0, 'q')",
    "Site(-1, 'q')",
    "Site(None, 'q')",
    "Site(0, 'resid')",
    "clean()",
    "clean(True)",
    "clean(-1)",
    "clean(1, 1)",
    "clean(1.0)",
    "BlockPaths(resid='clean')",
    "BlockPaths(q='clean')",
    "BlockPaths(attn_to_mlp=clean(0))",
    "BlockPaths().at(0)",
    "BlockPaths().at(True)",
    "v.only(())",
    "v.only(True)",
    "v.only(1.0)",
    "v.only('all')",
    "v.only((1, 1))",
    "v.only(7)",
    "v.only(-1)",
    "v.only([True, False, True])",
    "v[1.0]",
    "v[True]",
    "v * float('nan')",
    "v.with_norms({0: -1.0})",
    "v.with_norms({0: float('nan')})",
    "(0 * v).with_norms({0: 1.0})",
    "SteeringVectors(torch.eye(2), (0, 1.9), Card(d_model=2))",
    "SteeringVectors(torch.eye(2), (0, True), Card(d_model=2))",
    "random_isotropic(v, draws=0)",
    "random_isotropic(0 * v)",
    "permuted(v, draws=-1)",
    "Add(Site(0, 'q'), [1.0])",
    "Add(Site(0, 'q'), torch.ones(2, dtype=torch.int64))",
    "Add(Site(0, 'q'), torch.ones(2), 'much')",
    "AddAdaptive(True, torch.ones(2), torch.ones(2))",
    "AddAdaptive(0, torch.ones(2, 2), torch.ones(2))",
    "Positions(None)",
    "Positions(3.0)",
    "Positions('last')",
    "At('  ')",
    "At(3)",
    "LogOdds((True,))",
    "LogOdds((1.0,))",
    "LogitDiff(1.0, 2)",
    "TopTokens(2.5)",
    "TopTokens(True)",
    "Sampling(2.5)",
    "Sampling(True)",
    "Sampling(4, seed=0.5)",
    "Sampling(4, samples=0)",
    "Sampling(4, memory_gb=float('nan'))",
    "Node(Site(0, 'q'), 1.5)",
    "Node(Site(0, 'q'), 0, True)",
)
_USER = """
from interp.edits import Add, AddAdaptive
from interp.errors import UserError
from interp.patching import Node
from interp.positions import At, Positions
from interp.readouts import LogitDiff, TopTokens
from vectors.controls import permuted, random_isotropic
for line in {lines!r}:
    try:
        eval(line)
    except UserError as error:
        if chr(10) in str(error):
            print(line, "takes several lines")
    except Exception as error:
        print(line, type(error).__name__, error)
    else:
        print(line, "is accepted")
"""


def test_without_type_checks_the_same_is_accepted_and_refused() -> None:
    script = ACCEPTED + _USER.format(lines=REFUSALS)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr[-2000:]
