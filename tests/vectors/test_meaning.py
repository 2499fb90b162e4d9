"""A file means what its writer meant: a changed key, tensor or shape gives other vectors or one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from tests.vectors.test_formats import NAME, biases, checkpoint, matrix, refusal, shards
from tests.vectors.test_gguf_keys import FOLDERS, NAMES, VALUES, gguf
from tests.vectors.toys import D_MODEL, N_LAYERS, make
from vectors import AdaptiveVectors, Card, SteeringVectors, load, load_vectors


def steering(path: Path, **options: Any) -> SteeringVectors:
    loaded = load_vectors(path, **options)
    assert isinstance(loaded, SteeringVectors)
    return loaded


def test_a_bare_vector_needs_site_and_layer_and_a_matrix_its_site(tmp_path: Path) -> None:
    vectors = make((2,), site="attn_out")
    row = vectors[2]
    torch.save(row.clone(), tmp_path / "v.pt")
    save_file({"v": row.clone()}, tmp_path / "v.safetensors")
    np.save(tmp_path / "v.npy", row.numpy())
    np.save(tmp_path / "row.npy", row[None].numpy())
    for name in ("v.pt", "v.safetensors", "v.npy", "row.npy"):
        partly: list[dict[str, Any]] = [{}, {"site": "attn_out"}, {"layer": 2}]
        for said in partly:
            lacking = {"--site", "--layer"} - {f"--{key}" for key in said}
            with pytest.raises(UserError) as caught:
                load_vectors(tmp_path / name, **said)
            assert all(flag in str(caught.value) for flag in lacking)
        assert steering(tmp_path / name, site="attn_out", layer=2) == vectors
        assert steering(tmp_path / name, site="attn_out", layer=1) != vectors
    torch.save(torch.from_numpy(matrix()), tmp_path / "m.pt")
    with pytest.raises(UserError, match="--site"):
        load_vectors(tmp_path / "m.pt")
    assert steering(tmp_path / "m.pt", site="resid_post") == make()
    np.save(tmp_path / "m.npy", matrix())
    assert steering(tmp_path / "m.npy", site="mlp_out").card.site == "mlp_out"
    for wrong in ({"a": row.clone()}, torch.arange(4), torch.zeros(2, 2, 2), torch.zeros(4), [row.clone()]):
        torch.save(wrong, tmp_path / "wrong.pt")
        with pytest.raises(UserError):
            load_vectors(tmp_path / "wrong.pt", site="resid_post", layer=0)


def test_an_answer_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    own = make((1,), trained="apart").save(tmp_path / "own")
    assert load_vectors(own, site="resid_post", layer=1, trained="apart") == make((1,))
    control = gguf(tmp_path / "v.gguf", {})
    contradictions: list[dict[str, Any]] = [{"site": "mlp_out"}, {"layer": 0}, {"rows": "blocks"}, {"seed": 0}]
    for path in (own, control):
        for said in contradictions:
            with pytest.raises(UserError):
                load_vectors(path, **said)
    with pytest.raises(UserError, match="trained apart"):
        load_vectors(own, trained="together")
    assert steering(control, trained="together").card.trained == "together"
    with pytest.raises(UserError, match="trained apart"):
        load_vectors(control, trained="apart").edits()
    for wrong in ({"site": "nowhere"}, {"trained": "often"}, {"rows": "some"}, {"layer": -1}, {"seed": True}):
        said: dict[str, Any] = dict.fromkeys(("rows", "trained", "seed", "site", "layer")) | wrong
        with pytest.raises(UserError):
            load._options(None, **said)  # the annotations of the public function stop these in tests already


def test_what_a_file_does_not_say_is_unknown(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", matrix())
    sources = [tmp_path / "v.npy", gguf(tmp_path / "v.gguf", {}), checkpoint(tmp_path / "c", biases())]
    for source in sources:
        assert load_vectors(source).card.trained == "unknown"
        assert load_vectors(source).edits()
    assert Card(d_model=4).trained == "unknown"
    both = make(trained="together") + make(trained="unknown")
    assert both.card.trained == "unknown"


def rewritten(path: Path, metadata: dict[str, str]) -> None:
    save_file(load_file(path), path, metadata=metadata)


def test_our_own_file_survives_exactly_and_refuses_what_it_never_writes(tmp_path: Path) -> None:
    vectors = make(site="mlp_out", trained="apart", base_model="m", fingerprint="f", scores={"x": 1.5})
    path = vectors.save(tmp_path / "v")
    loaded = steering(path)
    assert torch.equal(loaded.directions, vectors.directions)
    assert loaded.card == vectors.card
    path.with_suffix(".json").unlink()
    assert steering(path).card == vectors.card
    rewritten(path, {"mode": "project"})
    with pytest.raises(UserError, match="mode"):
        load_vectors(path)
    rewritten(path, {"format": "pt"})
    with pytest.raises(UserError, match="--site"):
        load_vectors(path)
    assert steering(path, site="mlp_out") == vectors


@pytest.mark.parametrize("change", [{"site": "attn_out"}, {"trained": "together"}, {"n_layers": 9}, {"mode": "add"}])
def test_a_card_beside_that_contradicts_the_one_inside_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = make(trained="apart").save(tmp_path / "v")
    card = json.loads(path.with_suffix(".json").read_text()) | {"digest": ""} | change
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(UserError):
        load_vectors(path)


@FOLDERS
@given(name=NAMES, value=VALUES)
def test_no_unknown_key_of_a_json_file_is_ignored(tmp_path: Path, name: str, value: Any) -> None:
    svec = {"model_type": "llama", "directions": {"1": [1.0, 2.0]}, "explained_variances": {"1": 0.5}}
    metadata, card = {"pos": -1, "layer": 2}, json.loads(make().save(tmp_path / "v").with_suffix(".json").read_text())
    if name in (*svec, *metadata, *card):
        return
    (tmp_path / "v.svec").write_text(json.dumps(svec | {name: value}))
    folder = refusal(tmp_path / "refusal", 2)
    (folder / "direction_metadata.json").write_text(json.dumps(metadata | {name: value}))
    (tmp_path / "v.json").write_text(json.dumps(card | {name: value}))
    for path in (tmp_path / "v.svec", folder, tmp_path / "v.safetensors"):
        with pytest.raises(UserError):
            load_vectors(path)


def test_half_a_file_and_twice_the_same_are_refused(tmp_path: Path) -> None:
    (tmp_path / "half.svec").write_text('{"directions": {"1": [1.0]}, "explained_variances": {"1": 1, "2": 1}}')
    (tmp_path / "twice.svec").write_text('{"directions": {"1": [1.0], "1": [2.0]}}')
    (tmp_path / "array.npy").write_bytes(2 * _npy(tmp_path))
    np.savez(tmp_path / "two.npz", a=matrix(), b=matrix())
    for name in ("half.svec", "twice.svec", "array.npy", "two.npz"):
        with pytest.raises(UserError):
            load_vectors(tmp_path / name)


def _npy(folder: Path) -> bytes:
    np.save(folder / "once.npy", matrix())
    return (folder / "once.npy").read_bytes()


@pytest.mark.parametrize("dtype", ["<i4", "<c8", "|b1", "<M8[s]", [("a", "<f4")]])
def test_arrays_that_are_no_numbers_are_refused(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "v.npy", np.zeros((3, 4), dtype=dtype))
    with pytest.raises(UserError):
        load_vectors(tmp_path / "v.npy")


def test_half_a_checkpoint_is_refused(tmp_path: Path) -> None:
    files = shards(tmp_path)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    with pytest.raises(UserError, match="one of 2 shards"):
        load_vectors(shard)
    index = tmp_path / "model.safetensors.index.json"
    dropped = {name: file for name, file in files.items() if not name.endswith("layers.3.mlp.down_proj.bias")}
    index.write_text(json.dumps({"weight_map": dropped}))
    with pytest.raises(UserError, match="does not name"):
        load_vectors(tmp_path)
    index.write_text(json.dumps({"weight_map": files}))
    save_file(biases(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="stale"):
        load_vectors(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    shard.unlink()
    with pytest.raises(UserError, match="no such file"):
        load_vectors(tmp_path)


def test_a_checkpoint_whose_biases_mean_something_else_is_refused(tmp_path: Path) -> None:
    more = {"model.layers.0.mlp.gate_proj.bias": torch.ones(3)}
    with pytest.raises(UserError, match="biases of its own"):
        load_vectors(checkpoint(tmp_path / "a", biases() | more))
    zero = {"model.layers.0.mlp.gate_proj.bias": torch.zeros(3)}
    assert steering(checkpoint(tmp_path / "b", biases() | zero)) == make()
    with pytest.raises(UserError, match="granite"):
        load_vectors(checkpoint(tmp_path / "c", biases(), "granite"))


@pytest.mark.parametrize(
    "extra", [{"scale": 2.0}, {"gate": torch.ones(1)}, {"interchange_dim": torch.tensor(3)}, {"embed_dim": 4}]
)
def test_a_pyreft_file_with_more_than_a_bias_is_refused(tmp_path: Path, extra: dict[str, Any]) -> None:
    bias = make((1,))[1].clone()
    torch.save({"bias": bias, "interchange_dim": torch.tensor(D_MODEL)}, tmp_path / NAME.format(1, "block_output"))
    assert steering(tmp_path) == make((1,))
    torch.save({"bias": bias} | extra, tmp_path / NAME.format(1, "block_output"))
    with pytest.raises(UserError):
        load_vectors(tmp_path)


def test_half_a_pyreft_folder_is_refused(tmp_path: Path) -> None:
    stems = [NAME.format(layer, "block_output").removesuffix(".bin") for layer in (1, 3)]
    torch.save({"bias": make((1,))[1].clone()}, tmp_path / f"{stems[0]}.bin")
    (tmp_path / "config.json").write_text(json.dumps({"sorted_keys": stems}))
    with pytest.raises(UserError, match="promises"):
        load_vectors(tmp_path)


def test_a_run_of_one_layer_has_one_row(tmp_path: Path) -> None:
    np.save(tmp_path / "layer_1.npy", matrix((0, 1)))
    with pytest.raises(UserError, match="other layers too"):
        load_vectors(tmp_path)
    np.save(tmp_path / "layer_1.npy", matrix((1,)))
    np.save(tmp_path / "layer_2.npy", matrix((2,)))
    assert steering(tmp_path).card.trained == "unknown"  # loose files: of training runs in folders it is known


def test_adapters_survive_exactly(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    card = Card(kind="rank1", site="mlp_out", d_model=D_MODEL, n_layers=N_LAYERS, trained="together")
    a, b = torch.randn(2, 24, generator=draw), torch.randn(2, D_MODEL, generator=draw)
    adapters = AdaptiveVectors(a, b, (0.1, 1 / 3), (0, 2), card)
    loaded = load_vectors(adapters.save(tmp_path / "v"))
    assert loaded == adapters
    assert loaded.card == adapters.card
