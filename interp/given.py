"""From what a user gives (a name, a path, an object) to the model, vectors and task of a run."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from glob import escape
from pathlib import Path
from typing import Any

from interp.arguments import shown
from interp.bare_model import takes_model
from interp.errors import UserError
from interp.files import as_path, exists
from interp.identity import identity_of, kept_identity
from interp.reading import NOTHING_SAID, Reading
from interp.zero_norm import refuse_zero

_FILE_SUFFIXES = {
    ".npy", ".npz", ".safetensors", ".pt", ".pth", ".bin", ".gguf", ".json", ".jsonl", ".svec", ".csv", ".txt", ".pkl"
}  # fmt: skip


_SETS = ("vectors", "adapters")
"""Options that take a set, or a part of it, by its path."""

RESERVED = ("bake", "intervention", "load", "convert", "catalogue", "check-fit")
"""Names in the group `interp.vectors` that are functions of the vectors package and no vectors."""

HUB = "hf://"
"""Begins the address of vectors on the Hugging Face hub."""

LINEAGE = 16
"""Hexadecimal digits of a model's lineage; its fingerprint has twice as many."""

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
        if value and is_path(value) and not exists(_file_of(value)) and not (option in _SETS and _in_set(value)):
            works = f"give --{option} an existing path, or an alias from `interp list`"
            raise UserError("no such file or folder", given=value, works=works)


def _in_set(value: str) -> bool:
    """Whether a path names a set, a layer or a seed in a folder that `interp train` wrote."""
    path = _file_of(value)
    name, above = path.name.partition("@")[0], path.parent
    if not name:
        return False
    layer = name.isdigit() and any(above.parent.glob(f"{escape(above.name)}@*"))
    return layer or path.with_name(name).is_dir() or any(above.glob(f"{escape(name)}@*"))


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


@takes_model
def as_vectors(
    given: Any,
    model: Any = None,
    task: Any = None,
    *,
    foreign: bool = False,
    keep: Path | None = None,
    reading: Reading = NOTHING_SAID,
) -> Any:
    """An Intervention from an Intervention, an alias or a path.

    Args:
        given: an Intervention, an installed name, an alias `model/set[/layer][@seed]`, a file or folder.
        model: what the vectors must fit.
        task: what vectors that are computed from a model's own completions are computed on.
        foreign: allow vectors of other weights of the same shape.
        keep: folder that keeps computed vectors for the next time.
        reading: answers to what a file leaves open.

    Raises:
        UserError: there are no such vectors, they do not fit the model, one that a run needs has norm 0, or answers
            about a file are given without one.
    """
    if not isinstance(given, str | Path):
        if given is not None and not hasattr(given, "edits"):
            raise UserError("these are no vectors", given=shown(given), works="steering vectors, an alias or a path")
        reading.refuse(given)
        return given
    from interp.registry import load

    made = named_vectors(str(given), model, task, keep=keep)
    if made is not None and not isinstance(made, str | Path):
        reading.refuse(made)
        return made
    source = given if made is None else made
    loaded = load("vectors", "intervention")(source, model=model, foreign=foreign, **reading.arguments)
    if model is not None:
        refuse_zero(loaded, "used in a run")
    return loaded


@takes_model
def named_vectors(name: str, model: Any = None, task: Any = None, *, keep: Path | None = None) -> Any:
    """What an installed name or `path/to/file.py:Name` stands for: vectors, or where they lie; None for other names.

    Args:
        name: as the user wrote it.
        model: for vectors that are computed from a model.
        task: for vectors that are computed on a task.
        keep: folder that keeps computed vectors for the next time.

    Raises:
        UserError: what has this name gives no vectors.
    """
    from interp.edits import Intervention
    from interp.registry import is_name, load

    if not is_name("vectors", name) or name in RESERVED:
        return None
    made = load("vectors", name)
    if isinstance(made, type) or (callable(made) and not isinstance(made, Intervention)):
        made = _compute(name, made, model, task, keep)
    if not isinstance(made, str | Path | Intervention):
        works = "name a folder, an intervention, or a function that makes one"
        raise UserError("these are no vectors", given=f"{name} gives a {type(made).__name__}", works=works)
    return made


def _compute(name: str, make: Any, model: Any, task: Any, keep: Path | None) -> Any:
    """Vectors that an installed function makes, from nothing or from a model and a task; the latter are kept."""
    if "model" not in inspect.signature(make).parameters:
        return make()
    if model is None or task is None:
        raise UserError("these vectors are computed from a model and a task", given=name, works="give both")
    from interp.digest import digest

    about = digest(describe_model(model), identity_of(task), kept_identity(make, name))
    file = (keep or Path("runs")) / "vectors" / f"{_file_stem(name)}-{about}.safetensors"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        make(model, task).save(file)
    return file


def _file_stem(name: str) -> str:
    """A name that can stand in a file's: `plugin/name`, `path/to/file.py:Name`."""
    return re.sub(r"[^\w.-]+", "-", name.rpartition("/")[2] if ".py:" in name else name)


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
        sources.append(ServerSource(url, tuple(identity_of(edit) for edit in edits)))
    return tuple(sources)


@takes_model
def describe_model(model: Any) -> dict[str, Any] | None:
    """What run.json says about a model."""
    if model is None:
        return None
    return {
        "name": plain_name(model.name),
        "fingerprint": model.fingerprint,
        "lineage": model.lineage,
        "dtype": str(model.dtype).removeprefix("torch."),
        "d_model": int(model.d_model),
        "n_layers": int(model.n_layers),
    }


def with_lineage(data: Any) -> Any:
    """Fields of a card or record, where an older one called the model's lineage its fingerprint."""
    if not isinstance(data, Mapping) or data.get("lineage"):
        return data
    older = data.get("fingerprint")
    if not isinstance(older, str) or len(older) > LINEAGE:
        return data
    return {**data, "lineage": older, "fingerprint": ""}


def describe_vectors(vectors: Any, name: str | None = None) -> dict[str, Any] | None:
    """What run.json says about vectors."""
    if vectors is None:
        return None
    card = as_json(getattr(vectors, "card", {}) or {})
    shown = name or (card.get("name") if isinstance(card, dict) else None) or getattr(vectors, "name", None)
    return {"name": plain_name(str(shown or "unnamed")), "digest": identity_of(vectors), "card": card}


def describe_task(task: Any) -> dict[str, Any] | None:
    """What run.json, and the card of what is trained, says about a task: also how it is asked and graded."""
    if task is None:
        return None
    from interp.tasks.asking import Prompting

    return {"name": plain_name(task.name), "digest": identity_of(task), **Prompting.from_task(task).as_dict()}


def plain_name(name: str) -> str:
    """A name without the folders of this machine: of an absolute path only its last part."""
    return Path(name).name if os.path.isabs(os.path.expanduser(name)) else name  # noqa: PTH111, PTH117 - never raises


def portable(value: str) -> str:
    """A path as it holds from the working directory, without the folders above it; any other name as it is.

    Args:
        value: a path, `path/to/file.py:Name`, an alias or an address.
    """
    path, colon, name = value.rpartition(":") if ".py:" in value else (value, "", "")
    if not Path(path).is_absolute():
        return value
    try:
        relative = Path(os.path.relpath(path)).as_posix()
    except ValueError:  # on another drive
        return f"{Path(path).name}{colon}{name}"
    return f"{relative if relative.startswith('..') else f'./{relative}'}{colon}{name}"


def _repeated(item: Any) -> Any:
    """One value of a flag that may be repeated; a worked example has two texts."""
    return list(item) if isinstance(item, list | tuple) else portable(str(item))


def as_asked(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags that repeat a run, without those that were not given; paths as they hold from the working directory."""
    plain = {
        name: [_repeated(item) for item in value] if isinstance(value, list | tuple) else value
        for name, value in flags.items()
        if value and (name, value) != ("out", "runs")
    }
    return {name: portable(value) if isinstance(value, str) else value for name, value in plain.items()}


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
