"""Saving, cards, aliases and fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from interp.errors import UserError
from tests.vectors.toys import D_MODEL, N_LAYERS, make
from vectors import AdaptiveVectors, Card, SteeringVectors, catalogue, check_fit, load, load_vectors


def adaptive(layers: tuple[int, ...] = (1, 2), **card: str) -> AdaptiveVectors:
    a, b = torch.randn(len(layers), 24), torch.randn(len(layers), D_MODEL)
    about = Card.model_validate({"kind": "rank1", "site": "mlp_out", "d_model": D_MODEL, "n_layers": N_LAYERS, **card})
    return AdaptiveVectors(a, b, (0.1,) * len(layers), layers, about)


@dataclass
class Shape:
    n_layers: int = N_LAYERS
    d_model: int = D_MODEL
    lineage: str = "f00"
    architecture: str = "llama"
    name: str = "some model"


@pytest.mark.parametrize("trained", ["together", "apart"])
def test_saved_vectors_load_bit_identical(tmp_path: Path, trained: str) -> None:
    vectors = make(name="v", trained=trained, scores={"accuracy": 0.5}, trials=[{"rate": 0.1}], recipe={"steps": 3})
    loaded = load_vectors(vectors.save(tmp_path / "deep" / "v"))
    assert isinstance(loaded, SteeringVectors)
    assert torch.equal(loaded.directions, vectors.directions)
    assert (loaded.layers, loaded.card) == (vectors.layers, vectors.card)


def test_saved_adapters_load_bit_identical(tmp_path: Path) -> None:
    vectors = adaptive()
    loaded = load_vectors(vectors.save(tmp_path / "v.safetensors"))
    assert isinstance(loaded, AdaptiveVectors)
    assert torch.equal(loaded.a, vectors.a)
    assert torch.equal(loaded.b, vectors.b)
    assert (loaded.scales, loaded.layers, loaded.card) == (vectors.scales, vectors.layers, vectors.card)


def test_a_file_without_its_card_still_knows_that_it_was_trained_apart(tmp_path: Path) -> None:
    path = make(trained="apart").save(tmp_path / "v")
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match="trained apart"):
        load_vectors(path).edits()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "surprise"),
        ({"d_model": "wide"}, "d_model"),
        ({"digest": "0" * 16}, "not those of the card"),
        ({"d_model": 3}, "d_model 3"),
        ({"n_layers": 2}, "no such layer"),
        ({"kind": "rank1"}, "adaptive"),
    ],
)
def test_a_card_that_does_not_belong_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = make().save(tmp_path / "v")
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | change))
    with pytest.raises(UserError, match=message):
        load_vectors(path)


def test_a_huge_card_is_refused(tmp_path: Path) -> None:
    path = make().save(tmp_path / "v")
    path.with_suffix(".json").write_text('{"name": "' + "x" * (1 << 21) + '"}')
    with pytest.raises(UserError, match="too large"):
        load_vectors(path)


def test_adapters_scale_orient_and_split() -> None:
    vectors = adaptive()
    assert (2 * vectors).scales == pytest.approx([0.2, 0.2])
    assert (2 * vectors).norms[1] == pytest.approx(2 * vectors.norms[1])
    reference = SteeringVectors(-vectors.b, vectors.layers, Card(d_model=D_MODEL))
    flipped = vectors.oriented(reference)
    assert torch.equal(flipped.b, -vectors.b)
    assert torch.equal(flipped.a, -vectors.a)
    assert flipped.oriented(reference) == flipped
    assert vectors.oriented(-reference) == vectors
    edits = vectors.edits()
    assert [edit.layer for edit in edits] == [1, 2]
    assert torch.equal(edits[0].a, vectors.a[0])
    assert [one.layers for one in vectors.each()] == [(1,), (2,)]
    with pytest.raises(UserError, match="trained apart"):
        adaptive(trained="apart").edits()
    assert len(adaptive(trained="apart").together().edits()) == 2


@pytest.fixture
def pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of two sets, one of them with each layer in its own file and two seeds."""
    folder = tmp_path / "pretrained"
    make(seed=9).save(folder / "toy" / "all-layer@0")
    for layer in (0, 2):
        for seed in (1, 2):
            make((layer,), seed=10 * seed + layer).save(folder / "toy" / "single-layer" / f"{layer}@{seed}")
    monkeypatch.setattr(load, "PRETRAINED", folder)
    return folder


def test_aliases_name_sets_layers_and_seeds(pretrained: Path) -> None:
    assert load_vectors("toy/all-layer") == make(seed=9)
    assert load_vectors("toy/all-layer/1@0") == make(seed=9).only(1)
    assert load_vectors("toy/single-layer/2") == make((2,), seed=12)
    assert load_vectors("toy/single-layer/2@2") == make((2,), seed=22)
    whole = load_vectors("toy/single-layer@2")
    assert whole == make((0,), seed=20) + make((2,), seed=22)
    with pytest.raises(UserError, match="trained apart"):
        whole.edits()
    found = [one.alias for one in catalogue.list_pretrained(pretrained)]
    assert found == ["toy/all-layer@0", "toy/single-layer@1", "toy/single-layer@2"]


@pytest.mark.parametrize(
    ("alias", "message"),
    [
        ("toy/all-layers", "did you mean toy/all-layer"),
        ("tyo/single-layer/2", "did you mean toy/single-layer"),
        ("toy/single-layer/1", "layers 0, 2"),
        ("toy/single-layer@7", "there are @1, @2"),
        ("nothing", "There are toy/all-layer, toy/single-layer"),
        ("./missing.safetensors", "no such file"),
        ("missing.gguf", "no such file"),
    ],
)
@pytest.mark.usefixtures("pretrained")
def test_unknown_aliases_say_what_exists(alias: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_vectors(alias)


def test_a_path_inside_the_package_cannot_be_named_by_alias(pretrained: Path) -> None:
    shutil.copytree(pretrained / "toy", pretrained.parent / "secret")
    with pytest.raises(UserError):
        load_vectors("toy/../../secret/all-layer")


def test_fit_compares_weights_and_shape_and_never_names(vectors: SteeringVectors) -> None:
    assert check_fit(vectors, Shape(name="another name")) == "same base"
    assert check_fit(make(), Shape()) == "origin unknown"
    with pytest.raises(UserError, match="foreign"):
        check_fit(vectors, Shape(lineage="bar"))
    assert check_fit(vectors, Shape(lineage="bar"), foreign=True) == "foreign"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Shape(d_model=8), "d_model 8"),
        (Shape(n_layers=5), "5 layers"),
        (Shape(n_layers=3), "embeddings-first"),
        (Shape(architecture="qwen2"), "another architecture"),
    ],
)
def test_foreign_never_lifts_the_shape(vectors: SteeringVectors, model: Shape, message: str) -> None:
    for foreign in (False, True):
        with pytest.raises(UserError, match=message):
            check_fit(vectors, model, foreign=foreign)


def test_a_layer_beyond_the_model_is_refused_where_the_depth_is_unknown() -> None:
    with pytest.raises(UserError, match="layer 3"):
        check_fit(make(n_layers=None), Shape(n_layers=3))


def test_loading_for_a_model_checks_the_fit(tmp_path: Path, vectors: SteeringVectors) -> None:
    path = vectors.save(tmp_path / "v")
    assert load_vectors(path, model=Shape()) == vectors
    with pytest.raises(UserError, match="other weights"):
        load_vectors(path, model=Shape(lineage="bar"))
    assert load_vectors(path, model=Shape(lineage="bar"), foreign=True) == vectors


def test_pushing_offline_is_one_line() -> None:
    with pytest.raises(UserError, match="the hub refused"):
        make().push("someone/vectors")
