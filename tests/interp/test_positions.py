"""Positions touch what a plain reading of the row gives, padded or not, with a cache or without, or are refused."""

from __future__ import annotations

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
from interp.edits import Add, per_row
from interp.errors import UserError
from interp.forced import Forced
from interp.load import load_model
from interp.model import Model
from interp.positions import At, Positions, Tokens, at, selector
from interp.prompts import Prompt
from interp.sites import Site
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
    slice(2, 5, 0), slice(1.0, 2), slice(True, None), 10**30, [10**30], range(10**30), ...,
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
