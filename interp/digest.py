"""Content hashes: equal contents give equal digests, on every machine and in every process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from interp.errors import UserError


def digest(*parts: object) -> str:
    """Hash values, containers, dataclasses, arrays and tensors by their contents.

    Returns:
        The first 16 hexadecimal digits of a SHA-256.

    Raises:
        UserError: a part has no canonical form (an open file, ...).
    """
    text = json.dumps([_canonical(part) for part in parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _canonical(part: object) -> Any:
    if part is None or isinstance(part, bool | int | str):
        return part
    if isinstance(part, float):
        return {"float": part.hex()}
    if isinstance(part, bytes):
        return {"bytes": hashlib.sha256(part).hexdigest()}
    if isinstance(part, Mapping):
        return {"map": sorted(([_canonical(key), _canonical(value)] for key, value in part.items()), key=json.dumps)}
    if isinstance(part, list | tuple):
        return [_canonical(item) for item in part]
    if isinstance(part, range):
        return {"range": [part.start, part.stop, part.step]}
    if isinstance(part, set | frozenset):
        return {"set": sorted((_canonical(item) for item in part), key=json.dumps)}
    if isinstance(part, Path):
        return {"path": part.as_posix()}
    return _canonical_object(part)


def _canonical_object(part: object) -> Any:
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = {
            field.name: _canonical(getattr(part, field.name)) for field in dataclasses.fields(part) if field.compare
        }
        return {"type": type(part).__qualname__, "fields": fields, **_code_of(type(part))}
    if hasattr(part, "model_dump"):  # pydantic
        fields = _canonical(part.model_dump())  # pyright: ignore
        return {"type": type(part).__qualname__, "fields": fields, **_code_of(type(part))}
    if hasattr(part, "detach"):  # a tensor, without importing torch here; bfloat16 has no numpy form
        import torch

        tensor: Any = part.detach().cpu().contiguous()  # pyright: ignore
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        return {"tensor": [str(tensor.dtype), list(tensor.shape), hashlib.sha256(raw).hexdigest()]}
    if hasattr(part, "tobytes") and hasattr(part, "dtype"):
        array: Any = part
        return {"tensor": [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]}
    if callable(part):
        return {"source": _identity_of_code(part)}
    raise UserError("a value of this type has no digest", given=type(part).__qualname__)


def _code_of(kind: type) -> dict[str, str]:
    """Identity of a user's class, whose methods may do anything; none for the classes of this project."""
    from interp.source_files import is_project

    return {} if is_project(kind) else {"code": _identity_of_code(kind)}


def _identity_of_code(part: object) -> str:
    # by name, because that module hashes with this one
    return str(import_module("interp.identity").code_identity(part))
