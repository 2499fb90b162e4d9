"""From what a user gives (a name, a path, an object) to the model, vectors and task of a run."""

from __future__ import annotations

import inspect
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from interp.arguments import shown
from interp.errors import UserError
from interp.files import as_path, exists

_FILE_SUFFIXES = {
    ".npy", ".npz", ".safetensors", ".pt", ".pth", ".bin", ".gguf", ".json", ".jsonl", ".svec", ".csv", ".txt", ".pkl"
}  # fmt: skip


RESERVED = ("bake", "intervention", "load", "convert", "catalogue", "check-fit")
"""Names in the group `interp.vectors` that are functions of the vectors package and no vectors."""

HUB = "hf://"
"""Begins the address of vectors on the Hugging Face hub."""

COMPUTED = "untrained"
"""What stands in for a model without trained vectors; `vectors.untrained`."""


def check_paths(**given: str | None) -> None:
    """Refuse a path to nothing before anything is loaded; aliases and hub ids pass.

    Args:
        given: what was given by the name of its option; None = not given.

    Raises:
        UserError: it can only be a path, and nothing is there.
    """
    for option, value in given.items():
        if value is not None and not value.strip():
            raise UserError(f"--{option} is empty", works="give a name or a path, or leave it out")
        if value and is_path(value) and not exists(_file_of(value)):
            works = f"give --{option} an existing path, or an alias from `interp list`"
            raise UserError("no such file or folder", given=value, works=works)


def is_path(value: str) -> bool:
    """True where a name can only be meant as a path."""
    if value.startswith(HUB):
        return False
    return value.startswith((".", "/", "~")) or Path(value).suffix.lower() in _FILE_SUFFIXES or ".py:" in value


def _file_of(value: str) -> Path:
    """The path in `path` or in `path/to/file.py:Name`."""
    return as_path(value.rpartition(":")[0] if ".py:" in value else value)


def as_model(given: Any) -> Any:
    """A Model from a Model, a HookedTransformer, a Hugging Face object, an alias or a path."""
    if given is None:
        return None
    from interp.load import load_model
    from interp.model import Model

    return given if isinstance(given, Model) else load_model(given)


def as_task(given: Any) -> Any:
    """A Task from a Task, an alias or a path."""
    if not isinstance(given, str | Path):
        if given is None or hasattr(given, "problems"):
            return given
        raise UserError("this is no task", given=shown(given), works="a Task, an alias or a path")
    from interp.tasks import load_task

    return load_task(str(given))


def as_vectors(
    given: Any, model: Any = None, task: Any = None, *, foreign: bool = False, keep: Path | None = None
) -> Any:
    """An Intervention from an Intervention, an alias or a path.

    Args:
        given: an Intervention, an installed name, an alias `model/set[/layer][@seed]`, a file or folder.
        model: what the vectors must fit.
        task: what vectors that are computed from a model's own completions are computed on.
        foreign: allow vectors of other weights of the same shape.
        keep: folder that keeps computed vectors for the next time.
    """
    if not isinstance(given, str | Path):
        if given is None or hasattr(given, "edits"):
            return given
        raise UserError("these are no vectors", given=shown(given), works="steering vectors, an alias or a path")
    from interp.registry import load, offers

    if offers("vectors", str(given)) and str(given) not in RESERVED:
        made = load("vectors", str(given))
        made = _compute(str(given), made, model, task, keep) if callable(made) else made
        if not isinstance(made, str | Path):
            return made
        given = made
    return load("vectors", "intervention")(given, model=model, foreign=foreign)


def _compute(name: str, make: Any, model: Any, task: Any, keep: Path | None) -> Any:
    """Vectors that an installed function makes, from nothing or from a model and a task; the latter are kept."""
    if "model" not in inspect.signature(make).parameters:
        return make()
    if model is None or task is None:
        raise UserError("these vectors are computed from a model and a task", given=name, works="give both")
    from interp.digest import digest

    file = (keep or Path("runs")) / "vectors" / f"{name}-{digest(describe_model(model), task.digest)}.safetensors"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        make(model, task).save(file)
    return file


def as_sources(given: Sequence[str], vectors: Any) -> tuple[Any, ...]:
    """What completes prompts in the model's place, from what the command line takes.

    Args:
        given: of each the address of a server's API that serves the vectors (http://localhost:8000/v1), `base=` and the
            address of one that serves the model as it is, or a file of `interp completions`.
        vectors: the run's Intervention; None where there is none.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    if not given:
        return ()
    from interp.completion_file import FileSource
    from interp.completion_server import ServerSource

    sources: list[Any] = []
    for one in given:
        base, url = one.startswith("base="), one.removeprefix("base=")
        if not url.startswith(("http://", "https://")):
            sources.append(FileSource.read(as_path(one)))
            continue
        edits = () if base or vectors is None else vectors.edits()
        sources.append(ServerSource(url, tuple(edit.digest for edit in edits)))
    return tuple(sources)


def describe_model(model: Any) -> dict[str, Any] | None:
    """What run.json says about a model."""
    if model is None:
        return None
    return {
        "name": plain_name(model.name),
        "fingerprint": _fingerprint(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "d_model": int(model.d_model),
        "n_layers": int(model.n_layers),
    }


def _fingerprint(model: Any) -> str:
    """Identity of the weights; never the same twice while somebody else's hooks may change what they compute."""
    from interp.backend.weights import hooks_present

    return f"{model.fingerprint}+hooks-{uuid.uuid4().hex[:8]}" if hooks_present(model.hooked) else model.fingerprint


def describe_vectors(vectors: Any, name: str | None = None) -> dict[str, Any] | None:
    """What run.json says about vectors."""
    if vectors is None:
        return None
    card = as_json(getattr(vectors, "card", {}) or {})
    shown = name or (card.get("name") if isinstance(card, dict) else None) or getattr(vectors, "name", None)
    return {"name": plain_name(str(shown or "unnamed")), "digest": vectors.digest, "card": card}


def describe_task(task: Any) -> dict[str, Any] | None:
    """What run.json says about a task."""
    return None if task is None else {"name": plain_name(task.name), "digest": task.digest}


def plain_name(name: str) -> str:
    """A name without the folders of this machine: of an absolute path only its last part."""
    return Path(name).name if os.path.isabs(os.path.expanduser(name)) else name  # noqa: PTH111, PTH117 - never raises


def as_json(value: Any) -> Any:
    """A JSON value from dataclasses, pydantic models, numpy scalars, paths; NaN and infinity become null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(item) for item in value]
    return _object_as_json(value)


def _object_as_json(value: Any) -> Any:
    if is_dataclass(value):
        return as_json(asdict(value))  # pyright: ignore[reportArgumentType]
    if hasattr(value, "model_dump"):
        return as_json(value.model_dump(mode="json"))
    if hasattr(value, "tolist"):
        return as_json(value.tolist())
    return plain_name(str(value))


def catalogue() -> dict[str, tuple[int, ...]]:
    """Aliases of the vectors that come with installed packages, and the blocks of those trained apart; names only."""
    from interp.registry import load, names

    if "catalogue" not in names("vectors"):
        return {}
    return {one.alias: tuple(layer for layer, _ in one.files if one.apart) for one in load("vectors", "catalogue")()}


def default_vectors(model: str, prefers: Sequence[str] = ("all-layer",)) -> str:
    """The vectors to take where none are named: of this model, the preferred set if there is one.

    Without any, those that can be computed from the model's own completions.

    Args:
        model: alias of the model.
        prefers: names of sets, the best first.

    Raises:
        UserError: there are none.
    """
    from interp.registry import names

    known = [alias.partition("@")[0] for alias in catalogue()]
    own = list(dict.fromkeys(alias for alias in known if alias.startswith(f"{model}/")))
    for alias in [*(f"{model}/{name}" for name in prefers), f"{model}/all-layer", *own]:
        if alias in own:
            return alias
    if COMPUTED in names("vectors"):
        return COMPUTED
    raise UserError(f"no vectors of {model} come with this installation", works="give --vectors a file or folder")
