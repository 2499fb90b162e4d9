"""Whatever selects something selects what it says, or is refused in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp.batch import Batch
from interp.edits import Add, AddAdaptive, per_row
from interp.errors import UserError
from interp.forced import Forced
from interp.load import load_model
from interp.model import Model
from interp.placed_edits import check_edits
from interp.positions import At, Positions, Tokens, at, selector
from interp.prompts import Prompt
from interp.readouts import Choice, LogitDiff, LogOdds, TopTokens
from interp.sampling import Sampling
from interp.selection import whole, whole_numbers
from interp.sites import Site, block
from tests.interp import tiny

LENGTHS = (2, 12, 5)
"""Prompts of a padded batch; the longest shares its first tokens with nobody."""
TAILS = (3, 0, 1)
"""Completions of the batch."""
SHARED = tuple(range(20, 30))
"""A prefix that is long enough to be run once for all rows."""


@dataclass(frozen=True, eq=False)
class Recorder(Add):
    """An addition that writes down the rows and positions that it is applied to."""

    touched: set[tuple[int, int]] | None = None

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
        assert tokens.selected is not None and self.touched is not None
        for row, column in tokens.selected.nonzero().tolist():
            rows = [int(tokens.rows[row])] if tokens.members is None else tokens.members[row].nonzero()[:, 0].tolist()
            self.touched.update((number, int(tokens.position[row, column])) for number in rows)
        return super().apply(site, value, tokens)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(tiny.model("llama"), tokenizer=tiny.tokenizer())


def prompts(prefix: Sequence[int] = ()) -> list[Prompt]:
    return [Prompt((*prefix, *range(5 + length, 5 + 2 * length))) for length in LENGTHS]


def plain(value: Any) -> Any:
    """The selector as plain Python: a keyword, a slice, or a list of ints."""
    if isinstance(value, str | slice):
        return value
    if isinstance(value, set | frozenset | range | list | tuple):
        return [int(item) for item in value]
    return np.asarray(value).reshape(-1).tolist()


def chosen(value: Any, length: int) -> set[int]:
    """What a list of that length gives for the selector."""
    value = plain(value)
    if isinstance(value, str):
        return set(range(length)) if value == "all" else set()
    if isinstance(value, slice):
        return set(list(range(length))[value])
    return {index % length for index in value if length and -length <= index < length}


def expected(positions: tuple[Any, Any], lengths: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    result: set[tuple[int, int]] = set()
    for row, (prompt, tail) in enumerate(lengths):
        result |= {(row, index) for index in chosen(positions[0], prompt)}
        result |= {(row, prompt + index) for index in chosen(positions[1], tail)}
    return result


def absent(value: Any, longest: int) -> bool:
    """Whether a number is named that no prompt has; ranges and slices may reach beyond."""
    if isinstance(value, str | slice) or (isinstance(value, range) and len(value) > 1):
        return False
    return any(not -longest <= index < longest for index in plain(value))


def collections(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    lists = st.lists(numbers, min_size=1, max_size=4)
    kinds = (list, tuple, set, frozenset, np.array, torch.tensor, lambda items: [np.int32(item) for item in items])
    scalars = (int, np.int64, np.int8, np.array, torch.tensor)
    return st.one_of(
        *(lists.map(kind) for kind in kinds), *(numbers.map(kind) for kind in scalars),
    )  # fmt: skip


def ranges(low: int) -> st.SearchStrategy[range]:
    ends = st.integers(low, 12)
    return st.builds(range, ends, ends, st.sampled_from([1, 2, 3, -1, -2])).filter(len)


def slices(low: int) -> st.SearchStrategy[slice]:
    ends = st.none() | st.integers(low, 14)
    return st.builds(slice, ends, ends, st.sampled_from([None, 1, 2, 3] + ([-1, -2] if low < 0 else [])))


PROMPT = st.sampled_from(["all", "none"]) | collections(st.integers(-13, 12)) | ranges(-12) | slices(-14)
GENERATED = st.sampled_from(["all", "none"]) | collections(st.integers(0, 4)) | ranges(0) | slices(0)


def positions_of(pair: tuple[Any, Any]) -> Positions | None:
    """The positions, or None where they are refused as selecting nothing of any row."""
    try:
        return Positions(*pair)
    except UserError as error:
        assert "selects nothing" in str(error) or "select nothing" in str(error)
        for value in pair:
            if isinstance(value, slice) and not any(chosen(value, length) for length in range(40)):
                return None
        assert all(not chosen(value, length) for value in pair for length in range(40))
        return None


def check(pair: tuple[Any, Any], lengths: Sequence[tuple[int, int]], call: Any) -> None:
    """Compare what a call touched with the plain reading, or its refusal with there being nothing to touch."""
    positions = positions_of(pair)
    if positions is None:
        return
    edit = Recorder(Site(1, "resid_post"), torch.ones(48), positions=positions, touched=set())
    wanted = None
    try:
        fired, lengths = call(edit, lengths)
    except UserError as error:
        if absent(pair[0], max(LENGTHS) + max(0, lengths[1][0] - 12)):
            assert "no row has prompt position" in str(error)
        else:
            assert "touched no token" in str(error)
            assert not edit.touched
        return
    wanted = expected(pair, lengths)
    assert edit.touched == wanted
    assert wanted
    assert fired.touched == len(wanted)
    assert fired.untouched == len(lengths) - len({row for row, _ in wanted})


@settings(max_examples=30, deadline=None, derandomize=True)
@given(pair=st.tuples(PROMPT, GENERATED))
def test_a_padded_batch_is_touched_where_a_list_would_be(model: Model, pair: tuple[Any, Any]) -> None:
    for prefix in ((), SHARED):
        batch = Batch.of(prompts(prefix), [[40 + n for n in range(tail)] for tail in TAILS])
        lengths = [(len(prefix) + length, tail) for length, tail in zip(LENGTHS, TAILS, strict=True)]
        check(pair, lengths, lambda edit, lengths, batch=batch: (model.run(batch, [edit]).fired[0], lengths))
        check(pair, lengths, lambda edit, lengths, batch=batch: (Forced(model, batch).steered([edit])[1][0], lengths))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(pair=st.tuples(PROMPT, GENERATED), seed=st.integers(0, 3))
def test_generation_with_its_cache_is_touched_where_a_list_would_be(
    model: Model, pair: tuple[Any, Any], seed: int
) -> None:
    for prefix in ((), SHARED):
        asked = prompts(prefix)

        def call(edit: Recorder, lengths: Any, asked: list[Prompt] = asked) -> Any:
            del lengths
            said = model.generate(asked, [edit], max_new_tokens=4, seed=seed)
            fed = [(len(prompt.ids), len(row.ids) - 1) for prompt, row in zip(asked, said.rows, strict=True)]
            return said.fired[0], fed

        check(pair, [(len(prompt.ids), 0) for prompt in asked], call)


REFUSED: tuple[Any, ...] = (
    None, 3.0, np.float64(3), torch.tensor(3.0), True, np.True_, torch.tensor(True), "last", "0", "", b"all", [], (),
    set(), range(0), np.array([], dtype=int), torch.tensor([]), [1.5], [True, False], np.array([True, False]),
    torch.tensor([True, False]), [[1, 2]], np.ones((2, 2), dtype=int), {1: 2}, ["all"], slice(5, 2), slice(-2, -5),
    slice(2, 5, 0), slice(1.0, 2), slice(True, None), 10**30, [10**30], range(10**30), object(),
)  # fmt: skip


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: repr(value)[:30])
def test_what_could_be_read_in_two_ways_or_selects_nothing_is_refused(value: Any) -> None:
    with pytest.raises(UserError):
        selector(value, "prompt")


@pytest.mark.parametrize("value", [-1, [2, -3], range(-2, 3), slice(-3, None), slice(None, None, -2)])
def test_generated_positions_know_no_end(value: Any) -> None:
    with pytest.raises(UserError, match="count from 0"):
        Positions(generated=value)


def test_equal_selections_are_equal_and_have_one_digest() -> None:
    given_values = ([3, 1], (1, 3), {1, 3}, np.array([3, 1, 1]), torch.tensor([1, 3]))
    edits = {Add(Site(0, "q"), torch.ones(2), positions=Positions(value)).digest for value in given_values}
    assert len(edits) == 1 and len({Positions(value) for value in given_values}) == 1
    assert Positions(slice(None)) == Positions() and Positions(np.int64(2)) == Positions(2) == Positions(range(2, 3))
    assert Positions(slice(2, 5)) != Positions(slice(2, 6)) and hash(Positions(slice(2, 5))) == hash(
        Positions(slice(2, 5))
    )


def test_a_text_that_no_token_has_is_an_error_and_white_space_is_no_text(model: Model) -> None:
    word = model.token_text(7).strip()
    ids = torch.tensor([[5, 6, 7, 8]])
    for text in (word, f" {word} "):
        run = model.run(ids, [Add(Site(0, "resid_post"), torch.ones(48), positions=Positions(At(text), "none"))])
        assert run.fired[0].touched == 1
    with pytest.raises(UserError, match="single tokens"):
        model.run(ids, [Add(Site(0, "resid_post"), torch.ones(48), positions=Positions(at("two words"), "none"))])
    with pytest.raises(UserError, match="not empty"):
        at(" \n")


def test_a_completion_that_ends_before_the_position_is_an_error_and_a_row_that_does_is_counted(model: Model) -> None:
    where = Positions(prompt="none", generated=1)
    edit = Add(Site(1, "resid_post"), torch.ones(48), positions=where)
    with pytest.raises(UserError, match="completions may end earlier"):
        model.generate(prompts(), [edit], max_new_tokens=2)  # the second token is never fed
    with pytest.raises(UserError, match="touched no token"):
        model.score(Batch.of(prompts(), [[40], [40], [40]]), [edit])
    batch = Batch.of(prompts(), [[40, 41], [40], [40, 41]])
    (fired,) = model.run(batch, [edit]).fired
    assert (fired.touched, fired.rows, fired.untouched) == (2, 3, 1)
    alone = Add(edit.site, edit.direction, 2.0, where)
    with pytest.raises(UserError, match="touched no token in its row"):
        model.run(batch, per_row([[edit], [alone], []]))


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
    "Site(True, 'q')", "Site(1.0, 'q')", "Site(-1, 'q')", "Site(None, 'q')", "Site(0, 'resid')", "clean()",
    "clean(True)", "clean(-1)", "clean(1, 1)", "clean(1.0)", "BlockPaths(resid='clean')", "BlockPaths(q='clean')",
    "BlockPaths(attn_to_mlp=clean(0))", "BlockPaths().at(0)", "BlockPaths().at(True)", "v.only(())", "v.only(True)",
    "v.only(1.0)", "v.only('all')", "v.only((1, 1))", "v.only(7)", "v.only(-1)", "v.only([True, False, True])", "v[1.0]",
    "v[True]", "v * float('nan')", "v.with_norms({0: -1.0})", "v.with_norms({0: float('nan')})", "(0 * v).with_norms({0: 1.0})",
    "SteeringVectors(torch.eye(2), (0, 1.9), Card(d_model=2))", "SteeringVectors(torch.eye(2), (0, True), Card(d_model=2))",
    "random_isotropic(v, draws=0)", "random_isotropic(0 * v)", "permuted(v, draws=-1)", "Add(Site(0, 'q'), [1.0])",
    "Add(Site(0, 'q'), torch.ones(2, dtype=torch.int64))", "Add(Site(0, 'q'), torch.ones(2), 'much')",
    "AddAdaptive(True, torch.ones(2), torch.ones(2))", "AddAdaptive(0, torch.ones(2, 2), torch.ones(2))",
    "Positions(None)", "Positions(3.0)", "Positions('last')", "At('  ')", "At(3)", "LogOdds((True,))", "LogOdds((1.0,))",
    "LogitDiff(1.0, 2)", "TopTokens(2.5)", "TopTokens(True)", "Sampling(2.5)", "Sampling(True)", "Sampling(4, seed=0.5)",
    "Sampling(4, samples=0)", "Sampling(4, memory_gb=float('nan'))", "Node(Site(0, 'q'), 1.5)", "Node(Site(0, 'q'), 0, True)",
)  # fmt: skip
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
