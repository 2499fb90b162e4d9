"""What runs in a process that will be killed: a command of `interp` on a tiny random model."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALIAS = "smollm2-135m-instruct"
"""The tiny model stands in its place, because `interp paper` takes no other on a machine without network."""

PRELOAD = [
    "tests.faults.jobs",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto",
    "transformers.integrations.ggml",
    "experiments.logit_lens",
    "experiments.token_substitution",
    "experiments.accuracy_by_layer",
    "vectors.train.trainer",
    "vectors.train.command",
    "vectors.train.result",
    "figures.paper",
    "figures.report",
    "figures.export",
    "figures.logit_lens",
    "figures.token_substitution",
    "interp.cli.run",
    "interp.cli.suite",
    "interp.cli.paper",
    "interp.cli.fetch",
    "interp.tasks.word_problems",
    "interp.completion_cache",
    "interp.runner",
    "pyarrow.parquet",
    "gguf",
    "lingua",
    "math_verify",
    "statsmodels.stats.multitest",
]
"""Imported once, by the process that the others are forked from; nothing of it is used there, so no thread runs."""


@dataclass(frozen=True)
class Place:
    """Files that commands read.

    Attributes:
        model: a Hugging Face folder.
        cache: what `INTERP_CACHE` names; holds the model as the embedded one.
        vectors: one for each block.
        task: JSON lines with three splits.
        gguf: a model that `interp fetch` converts.
    """

    model: Path
    cache: Path
    vectors: Path
    task: Path
    gguf: Path


def make_place(folder: Path) -> Place:
    """Write them."""
    import torch

    from interp.backend.embedded import EMBEDDED, LAYOUT
    from tests.interp import tiny
    from tests.interp.test_embedded import plain_llama, write_gguf
    from vectors import Card, SteeringVectors

    cache = folder / "cache"
    model = cache / "models" / f"{ALIAS}-{EMBEDDED[ALIAS].gguf_sha256[:12]}-{LAYOUT}"
    made: Any = tiny.model("llama", config={"max_position_embeddings": 2048})
    made.generation_config.eos_token_id = [2, *range(212, 260)]  # a fifth of all tokens, so that completions are short
    made.save_pretrained(model)
    tiny.tokenizer().save_pretrained(model)
    rows = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    vectors = SteeringVectors(rows, (0, 1, 2), Card(name="tiny", d_model=48, n_layers=3)).save(folder / "v.safetensors")
    task = folder / "task.jsonl"
    splits = [split for split, n in (("train", 8), ("validation", 6), ("test", 16)) for _ in range(n)]
    lines = [{"problem": f"{i} + {i}?", "answer": str(2 * i), "split": s, "id": i} for i, s in enumerate(splits)]
    task.write_text("\n".join(map(json.dumps, lines)))
    return Place(model, cache, vectors, task, write_gguf(folder / "tiny.gguf", plain_llama()))


def command(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log: str,
    *,
    file_bytes: int | None = None,
    tmpfs: tuple[str, str] | None = None,
    read_only: str | None = None,
    user: int | None = None,
    spare_bytes: int | None = None,
) -> None:
    """Run a command of `interp` and leave with its exit code; what it prints goes into a file.

    Args:
        arguments: of the command line.
        environment: variables to set.
        log: the file.
        file_bytes: bound on the size of every file that is written.
        tmpfs: a folder and the size of the file system that is mounted there, for this process alone.
        read_only: a folder that becomes read-only for this process alone.
        user: number of the user to become.
        spare_bytes: bound on the memory that may still be taken once all is imported.
    """
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # a job started in the background ignores interrupts, and its children with it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if tmpfs is not None:
        mount("tmpfs", tmpfs[0], "tmpfs", 0, f"size={tmpfs[1]}")
    if read_only is not None:
        mount(read_only, read_only, "", MS_BIND, "")
        mount("", read_only, "", MS_BIND | MS_REMOUNT | MS_RDONLY, "")
    if user is not None:
        os.setuid(user)
    from interp.cli import call

    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if spare_bytes is not None:
        most = address_space() + spare_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    code = call(list(arguments))
    sys.stdout.flush()
    os._exit(code)


MS_RDONLY, MS_REMOUNT, MS_BIND, MS_PRIVATE = 1, 32, 4096, (1 << 18) | (1 << 14)
CLONE_NEWNS = 0x00020000


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    """Mount for this process alone.

    Raises:
        OSError: this user may not.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    own = libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_PRIVATE, None)
    names = [name.encode() or None for name in (source, target, kind)]
    if own or libc.mount(*names, flags, data.encode() or None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def address_space() -> int:
    """Bytes of address space that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def long_prompts(rows: int, length: int) -> list[Any]:
    """Prompts without a common beginning, so that each takes its own memory."""
    import torch

    from interp import Prompt

    ids = torch.randint(4, 200, (rows, length), generator=torch.Generator().manual_seed(0)).tolist()
    return [Prompt((index % 150 + 4, *row)) for index, row in enumerate(ids)]


def complete(model: str, rows: int, length: int, spare_bytes: int | None, result: str) -> None:
    """Complete prompts in one call, with little memory left, and write tokens and warnings into a file."""
    import warnings

    from interp import load_model

    loaded = load_model(model)
    loaded.generate(long_prompts(1, 8), max_new_tokens=2)  # so that threads and buffers are there
    if spare_bytes is not None:
        most = address_space() + spare_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = loaded.generate(long_prompts(rows, length), max_new_tokens=3, temperature=0)
    written = {"ids": [row.ids for row in made.rows], "said": [str(one.message) for one in said]}
    Path(result).write_text(json.dumps(written))
