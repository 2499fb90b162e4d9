"""From a name to a Model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from interp.arguments import shown
from interp.backend.embedded import resolve_alias
from interp.backend.load import load_hooked
from interp.backend.weights import Hooked
from interp.errors import UserError
from interp.model import Model


def load_model(
    source: str | Path | torch.nn.Module | Model,
    *,
    tokenizer: Any = None,  # a PreTrainedTokenizerBase
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> Model:
    """Load a model with its tokenizer; its HookedTransformer is `model.hooked`, unprocessed.

    Args:
        source: alias ("smollm2-135m-instruct"), local Hugging Face folder, `.gguf` file, hub id, a Hugging Face model
            object, or a HookedTransformer or TransformerBridge (kept as it is: `dtype` and `device` do not apply).
        tokenizer: replaces the one that belongs to the source.
        dtype: of the weights; None keeps the checkpoint's own (float32 for GGUF files).
        device: None takes CUDA where there is one.

    Raises:
        UserError: no such model, a damaged file, or an architecture that cannot be carried.
    """
    _check_tokenizer(tokenizer)
    named = resolve_alias(source) if isinstance(source, str) else source
    if isinstance(named, Model | Hooked):
        source = named
    if isinstance(source, Model):
        return source
    if isinstance(source, Hooked):
        return Model(source, tokenizer=tokenizer)
    loaded = load_hooked(source, tokenizer=tokenizer, dtype=dtype, device=device)
    return Model(
        loaded.hooked,
        tokenizer=loaded.tokenizer,
        name=loaded.name,
        architecture=loaded.architecture,
        stop_ids=loaded.stop_ids,
    )


def _check_tokenizer(tokenizer: object) -> None:
    if tokenizer is not None and not (callable(tokenizer) and hasattr(tokenizer, "decode")):
        works = "AutoTokenizer.from_pretrained(...)"
        raise UserError("this is no tokenizer", given=shown(tokenizer), works=works)
