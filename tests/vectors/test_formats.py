"""Every format, read from files written by hand or by the library it belongs to, and written for that library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from safetensors.torch import save_file

from interp.errors import UserError
from tests.vectors.toys import D_MODEL, N_LAYERS, make
from vectors import AdaptiveVectors, SteeringVectors, convert, load_vectors
from vectors.formats import detect, formats


def steering(path: Path, **options: Any) -> SteeringVectors:
    loaded = load_vectors(path, **options)
    assert isinstance(loaded, SteeringVectors)
    return loaded


def matrix(layers: tuple[int, ...] = (0, 1, 3)) -> np.ndarray:
    values = np.zeros((N_LAYERS, D_MODEL), dtype=np.float32)
    values[list(layers)] = make(layers).directions.numpy()
    return values


@pytest.mark.parametrize("name", ["npy", "gguf", "svec", "safetensors"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    vectors = make((1, 3))
    path = convert(vectors.save(tmp_path / "in"), tmp_path / "out", name)
    assert detect(path).name == name
    assert load_vectors(path) == vectors


def test_a_single_layer_run_is_one_row_of_the_matrix(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", matrix((3,)))
    loaded = steering(tmp_path / "v.npy")
    assert (loaded.layers, loaded.card.n_layers, loaded.card.origin) == ((3,), N_LAYERS, "unknown")
    assert loaded == make((3,))


def test_npz_and_other_float_types_and_orders_load(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", vectors=matrix())
    assert steering(tmp_path / "v.npz") == make()
    np.savez_compressed(tmp_path / "c.npz", vectors=np.asfortranarray(matrix()))
    assert steering(tmp_path / "c.npz") == make()
    np.save(tmp_path / "wide.npy", matrix().astype(">f8"))
    assert steering(tmp_path / "wide.npy") == make()


class Model:
    n_layers, d_model = N_LAYERS, D_MODEL


def test_one_row_more_than_layers_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.concatenate([np.ones((1, D_MODEL), np.float32), matrix()]))
    with pytest.raises(UserError, match="embeddings-first"):
        load_vectors(path, model=Model())
    assert load_vectors(path, model=Model(), rows="embeddings-first") == make()
    assert steering(path, rows="embeddings-first") == make()
    with pytest.raises(UserError, match="5 rows for 4 layers"):
        load_vectors(path, model=Model(), rows="blocks")


def test_a_matrix_without_card_can_be_declared_apart(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", matrix())
    assert steering(tmp_path / "v.npy").card.trained == "unknown"
    assert steering(tmp_path / "v.npy").edits()
    assert steering(tmp_path / "v.npy", trained="apart").card.trained == "apart"


def authors_run(root: Path, layer: int, seed: int, step: int = 314) -> Path:
    folder = root / f"steering-layer-{layer}" / f"seed-{seed}_lr-0.003" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    np.save(folder / "steering_vectors.npy", matrix((layer,)) if seed == 0 else 2 * matrix((layer,)))
    return folder


def test_the_authors_folders_load_as_they_are(tmp_path: Path) -> None:
    for layer in (0, 1, 3):
        authors_run(tmp_path, layer, 0)
    loaded = steering(tmp_path)
    assert loaded == make((0,)) + make((1,)) + make((3,))
    assert (loaded.card.trained, loaded.card.n_layers) == ("apart", N_LAYERS)
    files = loaded.card.recipe["files"]
    assert isinstance(files, dict)
    assert files["3"] == "steering-layer-3/seed-0_lr-0.003/checkpoint-314/steering_vectors.npy"
    assert steering(tmp_path / "steering-layer-3") == make((3,))
    for layer in (0, 1, 3):
        authors_run(tmp_path, layer, 1)
    with pytest.raises(UserError, match="several seeds"):
        load_vectors(tmp_path)
    assert steering(tmp_path, seed=1) == 2 * loaded
    with pytest.raises(UserError, match="seeds here: 0, 1"):
        load_vectors(tmp_path, seed=2)
    authors_run(tmp_path, 3, 0, step=100)
    with pytest.raises(UserError, match="several files for layer 3"):
        load_vectors(tmp_path, seed=0)


def test_folders_of_one_file_or_one_file_for_each_layer_load(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    np.save(tmp_path / "all" / "steering_vectors.npy", matrix())
    assert steering(tmp_path / "all") == make()
    (tmp_path / "flat").mkdir()
    for layer in (1, 2):
        np.save(tmp_path / "flat" / f"layer_{layer}.npy", matrix((1, 2))[layer])
    assert steering(tmp_path / "flat") == make((1, 2))
    (tmp_path / "numbers").mkdir()
    for layer in (1, 2):
        np.save(tmp_path / "numbers" / f"{layer}.npy", matrix((1, 2))[layer : layer + 1])
    assert steering(tmp_path / "numbers") == make((1, 2))
    np.save(tmp_path / "flat" / "mean.npy", matrix())
    with pytest.raises(UserError, match="does not tell its layer"):
        load_vectors(tmp_path / "flat")


def checkpoint(folder: Path, names: dict[str, torch.Tensor], model_type: str = "qwen2") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(names, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "num_hidden_layers": N_LAYERS}))
    return folder


def biases(prefix: str = "", dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    rows = torch.from_numpy(matrix()).to(dtype)
    other = {"model.embed_tokens.weight": torch.ones(3, D_MODEL, dtype=dtype)}
    return other | {f"{prefix}model.layers.{i}.mlp.down_proj.bias": row for i, row in enumerate(rows)}


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_biases_of_a_checkpoint_are_vectors(tmp_path: Path, prefix: str) -> None:
    folder = checkpoint(tmp_path, biases(prefix))
    assert steering(folder) == make()
    assert steering(folder).card.n_layers == N_LAYERS
    assert steering(folder / "model.safetensors") == make()
    rounded = checkpoint(tmp_path / "b", biases(prefix, torch.bfloat16))
    assert torch.equal(steering(rounded).directions, make().directions.bfloat16().float())


def shards(folder: Path) -> dict[str, str]:
    names = biases()
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: names[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return files


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    shards(tmp_path)
    assert steering(tmp_path) == make()


@pytest.mark.parametrize("evil", ["../secret.safetensors", "/etc/passwd", "..", "a\\b", "", 7, None])
def test_an_index_cannot_leave_its_folder(tmp_path: Path, evil: object) -> None:
    files = shards(tmp_path)
    changed: dict[str, object] = {name: evil if name.endswith(".bias") else file for name, file in files.items()}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": changed}))
    with pytest.raises(UserError, match="outside its folder"):
        load_vectors(tmp_path)


def test_links_out_of_a_checkpoint_are_refused_but_for_the_hub_cache(tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    save_file(biases(), outside)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(outside)
    with pytest.raises(UserError, match="link out of its folder"):
        load_vectors(folder)
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    outside.rename(tmp_path / "models--a--b" / "blobs" / "123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    assert steering(snapshot) == make()


def test_models_with_a_norm_after_the_mlp_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Gemma"):
        load_vectors(checkpoint(tmp_path / "a", biases(), "gemma2"))
    names = biases() | {"model.layers.0.post_feedforward_layernorm.weight": torch.ones(D_MODEL)}
    with pytest.raises(UserError, match="a norm follows the MLP"):
        load_vectors(checkpoint(tmp_path / "b", names, "olmo2"))


def test_a_plain_checkpoint_is_no_set_of_vectors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no biases of down_proj"):
        load_vectors(checkpoint(tmp_path, {"model.embed_tokens.weight": torch.ones(2, 2)}))


def control_vector(path: Path, architecture: str = "controlvector", first: int = 1) -> SteeringVectors:
    """As repeng writes it."""
    vectors = make((first, 3))
    writer = GGUFWriter(path, architecture)
    writer.add_string(f"{architecture}.model_hint", "mistral")
    writer.add_uint32(f"{architecture}.layer_count", 2)
    for layer in vectors.layers:
        writer.add_tensor(f"direction.{layer}", vectors[layer].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return vectors


@pytest.mark.parametrize("architecture", ["controlvector", "steeringvector"])
def test_gguf_directions_are_at_the_output_of_the_block_they_name(tmp_path: Path, architecture: str) -> None:
    vectors = control_vector(tmp_path / "v.gguf", architecture)
    loaded = steering(tmp_path / "v.gguf")
    assert loaded == vectors
    assert (loaded.card.trained, loaded.card.recipe["model_hint"]) == ("unknown", "mistral")
    assert len(loaded.edits()) == 2


def test_written_gguf_is_what_llama_cpp_reads(tmp_path: Path) -> None:
    vectors = make((1, 3), base_model="some-model", architecture="LlamaForCausalLM")
    reader = GGUFReader(convert(vectors.save(tmp_path / "in"), tmp_path / "v.gguf", "gguf"))
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "llama"
    assert reader.fields["controlvector.layer_count"].contents() == 2
    assert [tensor.name for tensor in reader.tensors] == ["direction.1", "direction.3"]
    assert np.array_equal(reader.tensors[1].data, vectors[3].numpy())


def test_layer_0_and_models_are_no_control_vectors(tmp_path: Path) -> None:
    control_vector(tmp_path / "zero.gguf", first=0)
    with pytest.raises(UserError, match=r"direction\.0"):
        load_vectors(tmp_path / "zero.gguf")
    with pytest.raises(UserError, match="layer 0"):
        convert(make((0,)).save(tmp_path / "in"), tmp_path / "out.gguf", "gguf")
    control_vector(tmp_path / "model.gguf", "llama")
    with pytest.raises(UserError, match="no control vector"):
        load_vectors(tmp_path / "model.gguf")


def test_svec_keys_are_strings(tmp_path: Path) -> None:
    vectors = make((2, 10), n_layers=None)
    rows = {str(layer): vectors[layer].tolist() for layer in (10, 2)}
    document = {"model_type": "llama", "directions": rows, "explained_variances": {"2": 1.0, "10": 1.0}}
    (tmp_path / "v.svec").write_text(json.dumps(document))
    assert steering(tmp_path / "v.svec") == vectors
    assert steering(tmp_path / "v.svec").card.trained == "unknown"
    with pytest.raises(UserError, match="trained apart"):
        load_vectors(tmp_path / "v.svec", trained="apart").edits()


@pytest.mark.parametrize(
    "directions",
    [
        *[{"-1": [1.0]}, {"a": [1.0]}, {"1": "x"}, {"1": [[1.0]]}, {"1": []}, {}, [], {"1": [1e999]}, {"1": [True]}],
        *[{"1": [1.0], "2": [1.0, 2.0]}, {"1": [10**400]}, {"1": [1.0], "01": [2.0]}],
    ],
)
def test_a_malformed_svec_is_refused(tmp_path: Path, directions: object) -> None:
    (tmp_path / "v.svec").write_text(json.dumps({"directions": directions}))
    with pytest.raises(UserError):
        load_vectors(tmp_path / "v.svec")


def refusal(folder: Path, layer: object) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(make((1,))[1].double(), folder / "direction.pt")
    (folder / "direction_metadata.json").write_text(json.dumps({"pos": -5, "layer": layer}))
    return folder


def test_a_refusal_direction_sits_one_block_earlier(tmp_path: Path) -> None:
    folder = refusal(tmp_path, 2)
    assert steering(folder) == steering(folder / "direction.pt") == make((1,))
    assert steering(folder).card.recipe["pos"] == -5
    for wrong in (0, -1, "2", None, 2.0):
        with pytest.raises(UserError):
            load_vectors(refusal(tmp_path, wrong))


NAME = "intkey_layer_{}_comp_{}_unit_pos_nunit_1#0.bin"


def test_pyreft_biases_load_and_the_others_are_refused_by_name(tmp_path: Path) -> None:
    vectors = make((1, 3))
    for layer in vectors.layers:
        state = {"bias": vectors[layer].clone(), "embed_dim": torch.tensor(D_MODEL)}
        torch.save(state, tmp_path / NAME.format(layer, "block_output"))
    assert steering(tmp_path) == vectors
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    torch.save({"bias": vectors[1].clone()}, inputs / NAME.format(2, "block_input"))
    assert steering(inputs) == vectors.only(1)
    mlp = tmp_path / "mlp"
    mlp.mkdir()
    torch.save({"bias": vectors[1].clone()}, mlp / NAME.format(1, "mlp_output"))
    assert steering(mlp).card.site == "mlp_out"
    loreft = {"weight": torch.ones(4, D_MODEL), "bias": torch.ones(4), "rotate_layer": torch.ones(D_MODEL, 4)}
    torch.save(loreft, tmp_path / NAME.format(1, "block_output"))
    with pytest.raises(UserError, match="LoReFT"):
        load_vectors(tmp_path)
    torch.save({"bias": vectors[1].clone()}, inputs / NAME.format(0, "block_input"))
    with pytest.raises(UserError, match="before block 0"):
        load_vectors(inputs)


def test_a_path_of_no_known_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("hello")
    with pytest.raises(UserError, match="no known format"):
        load_vectors(tmp_path / "v.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no known format"):
        load_vectors(tmp_path / "empty")


def test_formats_that_cannot_hold_the_vectors_say_so(tmp_path: Path) -> None:
    source = make(site="attn_out", n_layers=None).save(tmp_path / "in")
    for name in ("npy", "gguf", "svec"):
        with pytest.raises(UserError, match="at this site"):
            convert(source, tmp_path / "out", name)
    with pytest.raises(UserError, match="number of layers"):
        convert(make(n_layers=None).save(tmp_path / "in"), tmp_path / "out", "npy")
    with pytest.raises(UserError, match="adaptive vectors only"):
        convert(source, tmp_path / "out", "peft")
    with pytest.raises(UserError, match="only read"):
        convert(source, tmp_path / "out", "pyreft")
    with pytest.raises(UserError, match="no such format"):
        convert(source, tmp_path / "out", "gguff")


def test_every_format_has_a_name_of_its_own() -> None:
    names = [one.name for one in formats()]
    assert len(names) == len(set(names))
    assert set(names) >= {"safetensors", "npy", "authors", "checkpoint", "peft", "gguf", "svec", "pyreft"}


def lora(folder: Path, **changes: Any) -> Path:
    """As PEFT writes it, from the library's own config class."""
    from peft import LoraConfig

    settings: dict[str, Any] = {"r": 1, "lora_alpha": 8, "target_modules": ["down_proj"], "task_type": "CAUSAL_LM"}
    LoraConfig(**settings | changes).save_pretrained(str(folder))
    start = "base_model.model.model.layers.2.mlp.down_proj.lora_"
    rank = (settings | changes)["r"]
    save_file(
        {
            f"{start}A.weight": torch.arange(24.0 * rank).reshape(rank, 24),
            f"{start}B.weight": torch.ones(D_MODEL, rank),
        },
        folder / "adapter_model.safetensors",
    )
    return folder


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_of_rank_1_is_an_adaptive_vector(tmp_path: Path, rslora: bool) -> None:
    loaded = load_vectors(lora(tmp_path, use_rslora=rslora))
    assert isinstance(loaded, AdaptiveVectors)
    assert (loaded.layers, loaded.scales) == ((2,), (8.0,))
    assert torch.equal(loaded.a[0], torch.arange(24.0))
    assert torch.equal(loaded.b[0], torch.ones(D_MODEL))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"r": 4}, "rank 4"), ({"use_dora": True}, "use_dora"), ({"rank_pattern": {"x": 2}}, "rank_pattern")],
)
def test_other_loras_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_vectors(lora(tmp_path, **changes))


def test_lora_on_other_modules_is_refused(tmp_path: Path) -> None:
    lora(tmp_path)
    name = "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight"
    save_file({name: torch.ones(1, 4)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="q_proj"):
        load_vectors(tmp_path)
