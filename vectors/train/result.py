"""What a finished run ships: the set and its card, in the layout of `vectors/pretrained`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import JsonValue
from safetensors.torch import save_file

from interp.bare_model import takes_model
from interp.files import read_json, write_atomically, write_json
from interp.given import as_json
from interp.model import Model
from interp.store import RunRecord
from vectors.adaptive import AdaptiveVectors
from vectors.card import Card
from vectors.load import load_vectors
from vectors.low_rank import LowRankAdapters
from vectors.steering import SteeringVectors
from vectors.train.settings import TrainSettings
from vectors.train.trainer import Trained

SAME_QUESTION = ("kind", "layers", "place", "rank", "reward", "seed")
"""Runs that agree on these (and on model and task) are trials of one another; another seed is a set of its own."""


def set_name(settings: TrainSettings, n_layers: int) -> str:
    """`set` or `set/layer` of the alias `model/set[/layer]@seed`: what was trained, said without its rates."""
    alone = len(settings.layers) == 1
    name = {"vector": "single-layer" if alone else "all-layer", "rank1": "adaptive"}.get(settings.kind, settings.kind)
    if settings.kind == "vector" and not alone and len(settings.layers) != n_layers:
        name = "layers-" + "-".join(map(str, settings.layers))
    if settings.kind == "lora":
        name = f"lora-r{settings.rank}"
    elif settings.rank is not None:
        name = f"{name}-rank{settings.rank}"
    if settings.place != "mlp_out":
        name = f"{name}-{settings.place}"
    if settings.reward != "correct":
        name = f"{name}-{settings.reward}-reward"
    return f"{name}/{settings.layers[0]}" if alone else name


def install(trained: Trained, folder: Path, *, trials: Sequence[RunRecord] = ()) -> Path | None:
    """Write the trained set and its card below a folder, as `<set>@<seed>` or `<set>/<layer>@<seed>`.

    Where a set of that name is there already, the one that is better on validation problems stays, and its card lists
    the trials of both.

    Args:
        trained: a finished run.
        folder: of one model's sets, such as `vectors/pretrained/smollm2-135m-instruct`.
        trials: other runs of the same question; the card lists them.

    Returns:
        The file, or the folder of an adapter; None where a better one is there, and for all weights, which do not
        ship: the run's folder holds their evaluation.
    """
    settings = trained.parameters.settings
    name = set_name(settings, trained.parameters.model.n_layers)
    path = folder / f"{name}@{settings.seed}.safetensors"
    card = _card(trained, f"{folder.name}/{name}@{settings.seed}", trials)
    if settings.kind == "full":
        return None
    as_folder = settings.kind == "lora" and settings.rank != 1
    about = path.with_suffix("") / "card.json" if as_folder else path.with_suffix(".json")
    before = Card.parse(read_json(about), where=about.name) if about.exists() else None
    if before is not None:
        card = _with_trials(card, before)
        if _validated(before) > _validated(card):
            write_json(about, json.loads(_with_trials(before, card).model_dump_json()))
            return None
    return _write_adapter(path.with_suffix(""), trained, card) if as_folder else _vectors(trained, card).save(path)


def _with_trials(card: Card, other: Card) -> Card:
    """The card with the other's trials, none of which is the kept one."""
    runs = [trial["run"] for trial in card.trials]
    lost = [{**trial, "kept": False} for trial in other.trials if trial["run"] not in runs]
    return card.model_copy(update={"trials": [*card.trials, *lost]})


def _validated(card: Card) -> float:
    found = card.scores.get("validation_greedy")
    return float(found) if isinstance(found, int | float) else 0.0


@takes_model
def shipped(folder: Path, model: Model) -> dict[str, SteeringVectors | AdaptiveVectors | LowRankAdapters]:
    """The sets below a model's folder whose layers act together, by `set@seed`."""
    files = sorted(folder.glob("*@*.safetensors"))
    loaded = {path.stem: load_vectors(path, model=model) for path in files}
    found: dict[str, SteeringVectors | AdaptiveVectors | LowRankAdapters] = {
        name: one for name, one in loaded.items() if one.card.trained != "apart" or len(one.layers) == 1
    }
    adapters = sorted(path.parent for path in folder.glob("lora-r*@*/adapter_config.json"))
    return found | {path.name: LowRankAdapters.read(path) for path in adapters}


def _vectors(trained: Trained, card: Card) -> SteeringVectors | AdaptiveVectors:
    parameters, layers = trained.parameters, trained.parameters.settings.layers
    with torch.no_grad():
        if parameters.settings.kind == "vector":
            return SteeringVectors(torch.stack(list(parameters.directions())), layers, card)
        a = torch.cat([parameters.tensors[f"a.{layer}"] for layer in layers])
        b = torch.cat([parameters.tensors[f"b.{layer}"] for layer in layers])
        return AdaptiveVectors(a, b, (1.0,) * len(layers), layers, card)


def _card(trained: Trained, name: str, trials: Sequence[RunRecord]) -> Card:
    parameters, meta = trained.parameters, trained.meta
    settings, model = parameters.settings, parameters.model
    together = len(settings.layers) > 1
    adapter = settings.kind in ("rank1", "lora")
    recipe: dict[str, Any] = {
        "method": "RLOO",
        "run": meta["key"],
        "settings": meta["settings"],
        "task": meta["task"],
        "rates": sorted(set(meta["rates"].values())),
        "median_norms": meta["norms"],
        "updates_kept": meta["validation"]["step"],
        "completions_a_step": settings.prompts * settings.samples,
        "versions": meta["versions"],
        "git": meta["git"],
        "finished": meta["finished"],
    }
    return Card(
        name=name,
        kind=_kind(settings),
        base_model=model.name,
        architecture=model.architecture,
        lineage=model.lineage,
        fingerprint=str(meta["model"]["fingerprint"]),
        d_model=model.d_model,
        n_layers=model.n_layers,
        site="mlp_out" if adapter else _site(settings),
        trained="together" if together else "apart",
        origin="trained with small-vectors, RLOO as in arXiv:2509.06608",
        recipe=recipe,
        trials=_trials(trained, trials),
        scores=as_json({"test": meta["scores"], "validation_greedy": _best(meta)}),
    )


def _kind(settings: TrainSettings) -> Literal["vector", "rank1", "lora"]:
    if settings.kind == "rank1" or (settings.kind == "lora" and settings.rank == 1):
        return "rank1"
    return "lora" if settings.kind == "lora" else "vector"


def _site(settings: TrainSettings) -> Any:
    return "resid_post" if settings.place == "mlp_out" else settings.place


def _best(meta: dict[str, Any]) -> float:
    rows = meta["validation"]["checkpoints"]
    return next(float(row["accuracy"]) for row in rows if row["step"] == meta["validation"]["step"])


def _trials(trained: Trained, others: Sequence[RunRecord]) -> list[dict[str, JsonValue]]:
    """Every checkpoint that was validated, of this run and of its rivals; the kept one is marked."""
    metas = [trained.meta, *(record.meta for record in others)]
    return [
        {
            "run": meta["key"],
            "seed": meta["settings"]["seed"],
            "rate": max(meta["rates"].values()),
            "updates": row["step"],
            "validation_greedy": row["accuracy"],
            "n": row["n"],
            "kept": meta is trained.meta and row["step"] == meta["validation"]["step"],
        }
        for meta in metas
        for row in meta["validation"]["checkpoints"]
    ]


def rivals(trained: Trained) -> list[RunRecord]:
    """Other finished runs beside this one that asked the same question of the same model and task."""
    found: list[RunRecord] = []
    for path in sorted(trained.path.parent.glob("*/run.json")):
        record = RunRecord.read(path)
        other, mine = record.meta, trained.meta
        same = all(other["settings"].get(name) == mine["settings"].get(name) for name in SAME_QUESTION)
        where = other["task"]["digest"] == mine["task"]["digest"] and other["model"] == mine["model"]
        if same and where and not record.partial and other["key"] != mine["key"]:
            found.append(record)
    return found


def _write_adapter(folder: Path, trained: Trained, card: Card) -> Path:
    """LoRA of any rank as a PEFT folder with our card beside it."""
    tensors, layers = trained.parameters.tensors, trained.parameters.settings.layers
    named: dict[str, torch.Tensor] = {}
    for layer in layers:
        start = f"base_model.model.model.layers.{layer}.mlp.down_proj.lora_"
        named[f"{start}A.weight"] = tensors[f"a.{layer}"].detach().float().contiguous()
        named[f"{start}B.weight"] = tensors[f"b.{layer}"].detach().float().T.contiguous()
    rank = len(tensors[f"a.{layers[0]}"])
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": card.base_model,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["down_proj"],
        "layers_to_transform": list(layers),
    }
    write_atomically(folder / "adapter_model.safetensors", lambda file: save_file(named, file))
    write_json(folder / "adapter_config.json", config)
    write_json(folder / "card.json", json.loads(card.model_dump_json()))
    return folder
