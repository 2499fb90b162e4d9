"""What can be told about a call before its model is loaded, which costs seconds to minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.arguments import check_number, shown
from interp.errors import UserError
from interp.files import as_path, check_out, exists
from interp.given import HUB, check_paths


def check_call(
    given: Mapping[str, Any],
    *,
    out: str | Path | None = None,
    memory: float | None = None,
    shard: tuple[int, int] | None = None,
    completions_from: Sequence[str] = (),
) -> None:
    """Raise for whatever is wrong with a call and does not depend on the model.

    Args:
        given: "model", "vectors", "task" and the like: names and paths are checked, objects pass.
        out: folder that results go to.
        memory: bound in GB.
        shard: (i, count).
        completions_from: servers and files.

    Raises:
        UserError: something is wrong.
    """
    check_paths(**{name: str(one) for name, one in given.items() if isinstance(one, str | Path)})
    check_memory(memory)
    check_shard(shard)
    check_sources(completions_from)
    if out is not None:
        check_out(out)
    check_vectors(given.get("vectors"))


def check_memory(memory: float | None) -> None:
    """Raise where a bound on memory is no positive number.

    Raises:
        UserError: it is none.
    """
    if memory is not None:
        check_number("a bound on memory, in GB,", memory, least=1e-6)


def check_shard(shard: Any) -> None:
    """Raise where a shard is no pair (i, count) with 1 <= i <= count.

    Raises:
        UserError: it is none.
    """
    if shard is None:
        return
    pair = isinstance(shard, tuple | list) and len(shard) == 2 and all(isinstance(one, int) for one in shard)
    if not pair or not 1 <= shard[0] <= shard[1]:
        given = f"{shard[0]}/{shard[1]}" if pair else shown(shard)
        raise UserError("a shard is i/n with 1 <= i <= n", given=given, works="--shard 1/4")


def check_vectors(vectors: Any) -> None:
    """Raise where vectors are named by an alias that does not exist, or by a path that holds none.

    Raises:
        UserError: there is no such alias, seed or layer, or no known format.
    """
    from interp.registry import is_name, load, load_all

    if not isinstance(vectors, str) or vectors.startswith(HUB) or is_name("vectors", vectors):
        return
    path = as_path(vectors)
    if not exists(path) or not any(one.matches(path) for one in load_all("formats").values()):
        load("vectors", "intervention")(vectors)  # reads a small file of this installation, or says what exists


def check_sources(completions_from: Sequence[str]) -> None:
    """Raise where a file of completions cannot be read.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    files = [one for one in completions_from if not one.removeprefix("base=").startswith(("http://", "https://"))]
    if files:
        from interp.completion_file import FileSource

        for one in files:
            FileSource.read(as_path(one))


def check_needs(experiment: Any, given: Mapping[str, Any]) -> None:
    """Raise where a run lacks something that its experiment needs.

    Raises:
        UserError: it does.
    """
    missing = [name for name in experiment.needs if given.get(name) is None]
    if missing:
        raise UserError(f"{experiment.name} needs {' and '.join(missing)}", works=f"give {missing[0]}=...")


def check_adapters(experiment: Any, vectors: Any) -> None:
    """Raise where an experiment that takes no adapters would run on some.

    Raises:
        UserError: it would.
    """
    kind = getattr(getattr(vectors, "card", None), "kind", "")
    if experiment.no_adapters and kind in ("rank1", "lora"):
        adapters = "rank-1 adapters" if kind == "rank1" else "adapters"
        what = f"{experiment.name} takes no {adapters}: {experiment.no_adapters}"
        raise UserError(what, given=vectors.card.name or "adapters", works="steering vectors, or another experiment")
