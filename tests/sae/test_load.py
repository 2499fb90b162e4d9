"""Loading: equal to sae-lens, misfits refused in one line, no network for folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sae_lens import SAE

import sae
from interp.errors import UserError
from interp.sites import Site
from sae.catalogue import list_pretrained
from sae.dictionary import Dictionary, site_of
from sae.principal import Principal
from tests.experiments import toys
from tests.sae.toys import FEATURES, inner


def folder(path: Path, *, hook: str = "blocks.1.hook_resid_post", d_model: int = 48, kind: str = "topk") -> Path:
    made = inner(d_model, kind)
    made.cfg.metadata.hook_name = hook
    made.save_model(path)
    return path


@pytest.mark.parametrize("kind", ["topk", "jumprelu", "none", "layer_norm", "constant_norm_rescale"])
def test_encode_and_decode_equal_those_of_sae_lens(tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path, kind=kind)
    found, theirs = sae.load(path), SAE.load_from_disk(path)
    x = 3 * torch.randn(5, 48, generator=torch.Generator().manual_seed(3))
    assert torch.equal(found.encode(x), theirs.encode(x))
    assert torch.equal(found.reconstruct(x), theirs(x).detach())
    if kind != "layer_norm":
        own = found.gain(x) * (found.encode(x) @ found.directions + found.bias)
        assert torch.allclose(own, theirs(x), atol=1e-5)
    assert found.width == FEATURES


def test_loading_twice_gives_equal_dictionaries_and_another_file_another(tmp_path: Path) -> None:
    path = folder(tmp_path / "a")
    assert sae.load(path) == sae.load(path)
    other = inner(48, seed=1)
    other.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    other.save_model(tmp_path / "b")
    assert sae.load(tmp_path / "b") != sae.load(path)


def test_a_misfit_is_refused_in_one_line(tmp_path: Path) -> None:
    model = toys.model()
    assert sae.load(folder(tmp_path / "fits"), model).site == Site(1, "resid_post")
    for name, settings, message in (
        ("wide", {"d_model": 64}, "has d_model 48"),
        ("deep", {"hook": "blocks.7.hook_resid_post"}, "of a block that the model lacks"),
        ("hook", {"hook": "blocks.1.attn.hook_z"}, "hook point is not supported"),
        ("none", {"hook": ""}, "hook point is not supported"),
    ):
        with pytest.raises(UserError, match=message) as error:
            sae.load(folder(tmp_path / name, **settings), model)  # pyright: ignore[reportArgumentType]
        assert "\n" not in str(error.value)
    (tmp_path / "fits" / "card.json").write_text(json.dumps({"name": "x", "fingerprint": "0" * 16}))
    with pytest.raises(UserError, match="trained on other weights"):
        sae.load(tmp_path / "fits", model)
    assert sae.load(tmp_path / "fits", model, foreign=True).name == "x"


def test_what_is_no_autoencoder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such autoencoder"):
        sae.load("nothing/of/that/name")
    with pytest.raises(UserError, match="sae-lens knows no such release"):
        sae.load("gemma-scope-2b-pt-rex:layer_0")
    with pytest.raises(UserError, match="has no such autoencoder"):
        sae.load("gemma-scope-2b-pt-res:layer_99/width_1/none")
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(UserError, match="holds no autoencoder of sae-lens"):
        sae.load(tmp_path)
    path = folder(tmp_path / "card")
    (path / "card.json").write_text('{"nam": "x"}')
    with pytest.raises(UserError, match="this card cannot be read"):
        sae.load(path)


def test_the_stream_before_a_block_is_the_one_after_the_block_below() -> None:
    assert site_of("blocks.3.hook_resid_pre") == Site(2, "resid_post")
    assert site_of("blocks.0.hook_resid_pre") == Site(0, "resid_pre")
    assert site_of("blocks.2.hook_mlp_out") == Site(2, "mlp_out")


def test_a_feature_of_a_published_one_has_an_address_and_nothing_is_fetched(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "card.json").write_text(json.dumps({"name": "x", "neuronpedia": "gemma-2-2b/20-res"}))
    assert sae.load(path).neuron.format(7) == "https://www.neuronpedia.org/gemma-2-2b/20-res/7"


def test_principal_components_are_exact_where_the_rank_is_small(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator) @ torch.randn(3, 48, generator=generator) + 2.0
    found: Dictionary = Principal.beside(sae.load(folder(tmp_path)), x, 3)
    assert torch.allclose(found.reconstruct(x), x, atol=1e-3)
    assert int((found.encode(x) != 0).sum(1).max()) == 3
    assert torch.allclose(found.directions @ found.directions.T, torch.eye(len(found.directions)), atol=1e-4)


def test_shipped_ones_are_good_enough_and_fit_their_card() -> None:
    for alias in list_pretrained():
        found = sae.load(alias)
        report = found.card.report
        assert found.name == alias
        assert float(report["explained"]) >= 0.6  # pyright: ignore[reportArgumentType]
        assert float(report["dead"]) < 0.3  # pyright: ignore[reportArgumentType]
        assert abs(float(report["l0"]) / float(report["l0_trained"]) - 1) <= 0.2  # pyright: ignore[reportArgumentType]
