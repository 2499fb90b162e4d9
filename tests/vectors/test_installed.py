"""Sets that `interp train` installed are loaded by their path, as aliases load shipped ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from interp.cli import call
from interp.errors import UserError
from tests.vectors.toys import make
from vectors import SteeringVectors, load_vectors
from vectors.load import load_intervention
from vectors.low_rank import LowRankAdapters
from vectors.train.result import install


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Two sets as `interp train --install SETS` leaves them: one apart with two seeds, one together."""
    for layer in range(3):
        make((layer,), seed=layer, trained="apart").save(tmp_path / "SETS" / "single-layer" / f"{layer}@0")
        make((layer,), seed=10 + layer, trained="apart").save(tmp_path / "SETS" / "single-layer" / f"{layer}@1")
    make(seed=7, trained="together").save(tmp_path / "SETS" / "all-layer@0")
    return tmp_path / "SETS"


def test_a_set_its_layers_and_its_seeds_load_by_path(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make((0,), seed=0) + make((1,), seed=1) + make((2,), seed=2)
    for source in (sets / "single-layer@0", f"{sets}/single-layer@0"):
        loaded = load_vectors(source)
        assert loaded == whole
        assert (loaded.card.trained, loaded.card.name) == ("apart", "SETS/single-layer@0")
    assert load_vectors(sets / "single-layer", seed=0) == whole
    assert load_vectors(f"{sets}/single-layer/1@1") == make((1,), seed=11)
    assert load_vectors(f"{sets}/single-layer/1", seed=1) == make((1,), seed=11)
    for source in ("all-layer", "all-layer@0", "all-layer@0.safetensors"):
        assert load_vectors(sets / source) == make(seed=7)
    assert load_vectors(sets / "all-layer" / "3") == make(seed=7).only(3)
    monkeypatch.chdir(sets.parent)
    assert load_vectors("SETS/single-layer/2@0") == make((2,), seed=2)
    monkeypatch.chdir(sets / "single-layer")
    assert load_vectors(".", seed=1).layers == (0, 1, 2)


def test_what_a_path_leaves_open_is_asked(sets: Path) -> None:
    for source, seed, message in (
        (sets / "single-layer", None, "several seeds"),
        (sets / "single-layer" / "1", None, "several seeds"),
        (sets / "single-layer@0", 1, "another seed"),
        (sets / "single-layer", 5, "no such seed"),
        (sets / "single-layer" / "9@0", None, "no vector at this layer"),
        (sets, None, "several sets"),
        (sets / "nothing@0", None, "no such file"),
        (f"{sets}/nothing/1", None, "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            load_vectors(source, seed=seed)


def test_the_folder_of_a_training_run_is_its_set(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "train" / "0123"
    make(trained="together").save(run / "sets" / "toy" / "all-layer@3")
    (run / "run.json").write_text("{}")
    assert load_vectors(run) == make()
    assert load_vectors(run, seed=3) == make()
    make(trained="together").save(run / "sets" / "toy" / "other@3")
    with pytest.raises(UserError, match="several sets"):
        load_vectors(run)


def test_an_installed_adapter_loads_by_its_set(tmp_path: Path) -> None:
    folder = tmp_path / "SETS" / "lora-r2@0"
    folder.mkdir(parents=True)
    start = "base_model.model.model.layers.1.mlp.down_proj.lora_"
    save_file(
        {f"{start}A.weight": torch.ones(2, 6), f"{start}B.weight": torch.ones(4, 2)},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    for source in (folder, folder.with_name("lora-r2"), folder.parent):
        assert isinstance(load_intervention(source), LowRankAdapters)


def test_files_that_do_not_belong_together_are_no_set(sets: Path) -> None:
    make((0,), trained="apart", site="attn_out").save(sets / "single-layer" / "0@0")
    with pytest.raises(UserError, match="differ in site"):
        load_vectors(sets / "single-layer@0")
    make((2,), trained="apart").save(sets / "single-layer" / "0@0")
    with pytest.raises(UserError, match="named after layer 0"):
        load_vectors(sets / "single-layer@0")


def test_the_command_line_takes_paths_of_sets(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["show", f"{sets}/single-layer/1@1"]) == 0
    shown = capsys.readouterr().out
    assert "operation" in shown
    assert f"1: {make((1,), seed=11).norms[1]:.4g}" in shown
    assert call(["show", f"{sets}/none/1@1"]) == 2
    target = sets.parent / "out.npy"
    assert call(["vectors", "convert", f"{sets}/all-layer", str(target)]) == 0
    loaded = load_vectors(target)
    assert isinstance(loaded, SteeringVectors)
    assert torch.equal(loaded.directions, make(seed=7).directions)


def test_the_name_of_an_installed_file_is_what_the_loader_looks_for() -> None:
    assert install.__doc__ is not None
    assert "<set>/<layer>@<seed>" in install.__doc__
