"""Metadata of GGUF control vectors: what is not a plain addition, or contradicts the tensors, is refused."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp.errors import UserError
from tests.vectors.toys import make
from vectors import SteeringVectors, load_vectors
from vectors.formats import gguf_file, gguf_keys
from vectors.formats.base import Options
from vectors.formats.gguf_file import read

FOLDERS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=14)
VALUES = st.one_of(st.text(min_size=1, max_size=8), st.integers(0, 9), st.floats(0, 9), st.booleans())


def gguf(path: Path, fields: dict[str, Any], names: dict[str, np.ndarray] | None = None) -> Path:
    """A control vector with metadata of any kind."""
    writer = GGUFWriter(path, "controlvector")
    for key, value in fields.items():
        add: Any = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        writer.add_array(key, value) if isinstance(value, list) else add[type(value)](key, value)
    vectors, more = make((1, 3)), names or {}
    for name, values in ({f"direction.{layer}": vectors[layer].numpy() for layer in (1, 3)} | more).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _steering(path: Path) -> SteeringVectors:
    loaded = load_vectors(path)
    assert isinstance(loaded, SteeringVectors)
    return loaded


CHECKSUM = sha256(make((1, 3)).directions.numpy().tobytes()).hexdigest()
PLAIN: dict[str, Any] = {
    "controlvector.model_hint": "llama",
    "controlvector.layer_count": 2,
    "glp.mode": "add",
    "glp.spec_version": 1,
    "glp.alpha_default": 1.0,
    "glp.rank": 1,
    "glp.hook_point": "residual_stream_post_layer",
    "glp.layer_ids_zero_based": "1,3",
    "glp.content_sha256": CHECKSUM,
    "general.base_model.0.name": "Model",
}


def test_a_control_vector_that_states_a_plain_addition_loads(tmp_path: Path) -> None:
    loaded = _steering(gguf(tmp_path / "v.gguf", PLAIN))
    assert loaded == make((1, 3))
    assert (loaded.card.trained, loaded.card.base_model) == ("unknown", "Model")
    ours = make((1, 3), trained="apart")
    own = _steering(gguf(tmp_path / "own.gguf", PLAIN | {"small_vectors.card": ours.card.model_dump_json()}))
    assert own.card == ours.card
    with pytest.raises(UserError, match="not those of the card"):
        load_vectors(gguf(tmp_path / "other.gguf", {"small_vectors.card": make((1,)).card.model_dump_json()}))
    kept = {"general.anything": "x", "controlvector.method": "pca", "controlvector.n_pairs": 12}
    assert _steering(gguf(tmp_path / "kept.gguf", kept)) == make((1, 3))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("glp.mode", "project"), ("dspark.mode", "project"), ("glp.mode", "Add"), ("glp.mode", 1)),
        *(("glp.spec_version", 3), ("glp.alpha_default", 4.0), ("glp.rank", 2), ("dspark.rank", 2)),
        *(("glp.hook_point", "ffn_out_pre_residual"), ("glp.structure", "per-execution-step")),
        *(("glp.layer_ids_zero_based", "0,2"), ("glp.layer_ids_zero_based", "1"), ("glp.content_sha256", "0" * 64)),
        *(("glp.dir_scales", "1,2"), ("glp.layer_scales", [1.0, 0.5]), ("glp.gate", "cosine")),
        *(("controlvector.layer_count", 1), ("controlvector.layer_count", "2"), ("controlvector.layers", "2,4")),
        *(("controlvector.easysteer", '{"version": 1, "component": "router_logits"}'), ("controlvector.easysteer", 1)),
        ("controlvector.easysteer", '{"version": 2, "component": "hidden_states"}'),
        *(("controlvector.n_embd", 7), ("controlvector.layer_first", 0), ("controlvector.normalize", True)),
        *(("controlvector.operation", "project"), ("controlvector.component", "attention_heads")),
        *(("split.count", 2), ("steeringvector.mode", "x"), ("small_vectors.trained", "apart"), ("small_vectors.x", 1)),
    ],
)
def test_a_control_vector_that_asks_for_more_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    path = gguf(tmp_path / "v.gguf", PLAIN | {key: value})
    with pytest.raises(UserError, match=re.escape(key)) as caught:
        load_vectors(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [2, 3, 4, 30])
def test_the_number_of_layers_may_be_that_of_directions_or_of_the_models_blocks(tmp_path: Path, count: int) -> None:
    fields = {"controlvector.model_hint": "llama", "controlvector.layer_count": count}
    assert _steering(gguf(tmp_path / "v.gguf", fields)) == make((1, 3))


def test_ordinary_files_of_easysteer_load(tmp_path: Path) -> None:
    about = '{"version": 1, "component": "hidden_states", "metadata": {"mapping": []}}'
    fields = {"controlvector.model_hint": "qwen2", "controlvector.method": "pca", "controlvector.easysteer": about}
    assert _steering(gguf(tmp_path / "v.gguf", fields)) == make((1, 3))


def test_directions_of_zeros_are_absent_layers(tmp_path: Path) -> None:
    zeros = np.zeros(16, np.float32)
    assert _steering(gguf(tmp_path / "v.gguf", {}, {"direction.2": zeros})) == make((1, 3))
    kept = make((1, 3)) - make((3,))  # of a card's set every layer stays
    gguf_file.write(tmp_path / "own.gguf", kept)
    assert _steering(tmp_path / "own.gguf").layers == (1, 3)


@FOLDERS
@given(prefix=st.sampled_from(["controlvector", "glp", "dspark", "steeringvector", "vllm"]), name=NAMES, value=VALUES)
def test_no_unknown_key_of_a_control_vector_is_ignored(tmp_path: Path, prefix: str, name: str, value: Any) -> None:
    known = ("model_hint", *PLAIN, *(f"glp.{key}" for key in gguf_keys._PLAIN))
    harmless = prefix == "controlvector" and gguf_keys._EXTRACTION.fullmatch(name)
    if f"{prefix}.{name}" in known or harmless or (prefix in ("glp", "dspark") and gguf_keys._TEXT.fullmatch(name)):
        return
    with pytest.raises(UserError):
        load_vectors(gguf(tmp_path / "v.gguf", {f"{prefix}.{name}": value}))


def test_tensors_of_a_control_vector_are_float32_vectors_named_once(tmp_path: Path) -> None:
    row = make((2,))[2].numpy()
    odd: dict[str, np.ndarray] = {
        "direction.01": row,
        "direction.5.1": row,
        "bias.5": row,
        "direction.5": row.astype(np.float16),
        "direction.6": row[None].repeat(2, 0),
        "direction.7": row[:-1].copy(),
        "direction.8": row * np.nan,
    }
    for number, (name, values) in enumerate(odd.items()):
        with pytest.raises(UserError):
            load_vectors(gguf(tmp_path / f"{number}.gguf", {}, {name: values}))
    data = bytearray(gguf(tmp_path / "v.gguf", {}).read_bytes())
    data[4:8] = (3).to_bytes(4, "big")
    (tmp_path / "v.gguf").write_bytes(data)
    with pytest.raises(UserError, match="big-endian"):
        load_vectors(tmp_path / "v.gguf")


def test_the_reader_of_gguf_takes_the_checksum_in_the_order_of_layers(tmp_path: Path) -> None:
    rows = {3: make((3,))[3], 1: make((1,))[1]}
    expected = sha256(rows[1].numpy().tobytes() + rows[3].numpy().tobytes()).hexdigest()
    assert gguf_keys.content_digest(rows) == expected
    assert read(gguf(tmp_path / "v.gguf", {}), Options()).layers == (1, 3)
