"""What is written in another format says all that our card says, or is refused."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gguf import GGUFReader, GGUFValueType

from interp.backend.families import FAMILIES
from interp.cli.vectors import command
from interp.errors import UserError
from tests.vectors.toys import D_MODEL, N_LAYERS, make
from vectors import AdaptiveVectors, Card, SteeringVectors, convert, load_vectors
from vectors.formats import formats
from vectors.formats.gguf_file import HINTS

WRITTEN = sorted(known.name for known in formats() if known.write is not None)
CARD: dict[str, Any] = {
    "base_model": "owner/some-model",
    "lineage": "0123456789abcdef",
    "fingerprint": "0123456789abcdef" * 2,
    "origin": "a test",
    "name": "toy",
}


def adapters(scales: tuple[float, ...] = (0.5, 0.5)) -> AdaptiveVectors:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(len(scales), 24, generator=generator), torch.randn(len(scales), D_MODEL, generator=generator)
    card = Card.model_validate({**CARD, "kind": "rank1", "site": "mlp_out", "d_model": D_MODEL, "n_layers": N_LAYERS})
    return AdaptiveVectors(a, b, scales, tuple(range(1, 1 + len(scales))), card.model_copy(update={"trained": "apart"}))


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("trained", ["together", "apart"])
def test_the_card_comes_back(tmp_path: Path, name: str, trained: str) -> None:
    for number, layers in enumerate(layers for n in (1, 2, 3) for layers in combinations((1, 2, 3), n)):
        vectors: SteeringVectors | AdaptiveVectors = make(layers, **CARD, trained=trained, architecture="x")
        vectors = adapters().together() if name == "peft" else vectors
        out = convert(vectors.save(tmp_path / f"in{number}"), tmp_path / f"out{number}", name)
        back = load_vectors(out)
        assert back == vectors
        assert back.card == vectors.card


@pytest.mark.parametrize("name", sorted({*WRITTEN} - {"safetensors"}))
def test_a_card_of_other_tensors_is_refused(tmp_path: Path, name: str) -> None:
    first, second = (adapters(), adapters((2.0, 2.0))) if name == "peft" else (make((1,)), make((1,), seed=1))
    paths = [convert(v.save(tmp_path / f"in{n}"), tmp_path / f"out{n}", name) for n, v in enumerate((first, second))]
    if name == "gguf":
        data = paths[0].read_bytes()
        paths[0].write_bytes(data[:-4] + b"\x00\x00\x80\x3f")
    else:
        cards = [path / "card.json" if path.is_dir() else path.with_name(path.name + ".json") for path in paths]
        cards[0].write_text(cards[1].read_text())
    with pytest.raises(UserError, match="the tensors are not those of"):
        load_vectors(paths[0])


def test_scales_that_differ_keep_what_the_adapters_do(tmp_path: Path) -> None:
    vectors = adapters((0.5, -3.0))
    back = load_vectors(convert(vectors.save(tmp_path / "in"), tmp_path / "out", "peft"))
    assert isinstance(back, AdaptiveVectors)
    factor = torch.tensor(vectors.scales)[:, None]
    assert torch.equal(back.b * torch.tensor(back.scales)[:, None], vectors.b * factor)
    assert (back.card.trained, back.card.fingerprint) == ("apart", CARD["fingerprint"])


def test_gguf_metadata_are_those_of_llama_cpp_and_glp(tmp_path: Path) -> None:
    vectors = make((1, 3), **CARD, architecture="Qwen2ForCausalLM")
    fields = GGUFReader(convert(vectors.save(tmp_path / "in"), tmp_path / "v.gguf", "gguf")).fields
    wanted = {
        "controlvector.model_hint": "qwen2",
        "controlvector.layer_count": 2,
        "general.base_model.count": 1,
        "general.base_model.0.name": "owner/some-model",
        "glp.mode": "add",
        "glp.hook_point": "residual_stream_post_layer",
        "glp.layer_ids_zero_based": "1,3",
    }
    assert {key: fields[key].contents() for key in wanted} == wanted
    assert fields["controlvector.layer_count"].types == [GGUFValueType.INT32]
    assert set(HINTS) == set(FAMILIES)


@pytest.mark.parametrize("name", WRITTEN)
def test_some_layers_are_written_and_a_missing_one_is_refused(tmp_path: Path, name: str) -> None:
    vectors = adapters() if name == "peft" else make((1, 2, 3), **CARD, trained="apart")
    source, out = vectors.save(tmp_path / "in"), tmp_path / "out"
    run = CliRunner().invoke(command, ["convert", str(source), str(out), "--to", name, "--layers", "2"])
    assert run.exit_code == 0, run.exception
    back = load_vectors(run.output.strip())
    assert (back.layers, back) == ((2,), vectors.only(2))
    for wrong in ("0", "2,0", "9", "2,2"):
        refused = CliRunner().invoke(command, ["convert", str(source), str(out) + "x", "--to", name, "--layers", wrong])
        assert isinstance(refused.exception, UserError)
    for text in ("", "a", "-1", "1-3", "1,,2"):
        refused = CliRunner().invoke(command, ["convert", str(source), str(out), "--to", name, "--layers", text])
        assert isinstance(refused.exception, UserError)
    assert not list(tmp_path.glob("outx*"))


@pytest.mark.parametrize("name", ["npy", "gguf", "svec"])
@pytest.mark.parametrize("site", ["resid_pre", "ln1_out", "attn_out", "resid_mid", "ln2_out", "mlp_out"])
def test_a_site_that_a_format_lacks_is_refused(tmp_path: Path, name: str, site: str) -> None:
    with pytest.raises(UserError, match=site):
        convert(make((1,), site=site).save(tmp_path / "in"), tmp_path / "out", name)


def test_a_vector_of_zeros_is_refused_where_zeros_mean_none(tmp_path: Path) -> None:
    vectors = SteeringVectors(torch.tensor([[0.0] * D_MODEL, [1.0] * D_MODEL]), (1, 2), make().card)
    with pytest.raises(UserError, match="layer 1"):
        convert(vectors.save(tmp_path / "in"), tmp_path / "out", "npy")


def test_other_programs_are_said_to_apply_layers_trained_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("npy", "gguf", "svec"):
        caplog.clear()
        convert(make((1, 2), trained="apart").save(tmp_path / "in"), tmp_path / name, name)
        assert "apply all 2 vectors" in caplog.text
        convert(make((1, 2)).save(tmp_path / "in"), tmp_path / name, name)
        assert caplog.text.count("apply all") == 1


def test_files_of_others_need_no_card(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", make((1,)).directions.numpy().repeat(2, 0))
    assert load_vectors(tmp_path / "v.npy").card.base_model == "unknown"
    (tmp_path / "v.npy.json").write_text(json.dumps({"some": "thing"}))
    with pytest.raises(UserError, match="no card of steering vectors"):
        load_vectors(tmp_path / "v.npy")
