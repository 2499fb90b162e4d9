"""The model that a plan is about: shape from its config, prompts from its tokenizer, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import Any

from interp.costs import Shape
from interp.errors import UserError
from interp.files import as_path, exists
from interp.profiles import Profile

PROMPTS = 32
"""Problems whose prompts are counted."""


def planned(profile: Profile, model: str | None, task: str | None) -> Profile:
    """Return a profile with what was named in place of its model and its task.

    Local weights of the profile's own model, told by their shape, keep its lengths. Of any other model or task nothing
    is known but the longest completion that the task allows, so that is what a completion is taken to need.

    Args:
        profile: what `--profile` names.
        model: as `--model`; None = the profile's.
        task: as `--task`; None = the profile's.

    Raises:
        UserError: the model's config, its tokenizer or the task cannot be read.
    """
    if model in (None, profile.model) and task in (None, profile.task):
        return profile
    config, tokenizer = _config_and_tokenizer(model or profile.model)
    shape = shape_of(config)
    named = replace(profile, model=model or profile.model, shape=shape, recorded=False)
    same = replace(shape, itemsize=profile.shape.itemsize) == profile.shape
    return named if same and task in (None, profile.task) else _measured(named, tokenizer, task or profile.task)


def _measured(profile: Profile, tokenizer: Any, name: str) -> Profile:
    """A profile whose prompts and problems are those of a task."""
    from interp.given import as_task

    task: Any = as_task(name)
    problems = task.problems("test")
    ids = [task.prompt(tokenizer, problem).ids for problem in problems[:PROMPTS]]
    prompt = max(1, round(fmean(map(len, ids)) - _shared(ids)))
    longest = int(task.max_new_tokens)
    return replace(profile, task=name, prompt=prompt, length=longest, longest=longest, problems=len(problems))


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all rows begin with; a single row shares nothing."""
    same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False))
    return len(list(same)) if len(rows) > 1 else 0


def shape_of(config: Any) -> Shape:
    """Return what a model's cost depends on, from its Hugging Face config.

    Raises:
        UserError: the config does not say it.
    """
    config = config.get_text_config()
    width, heads = _first(config, "hidden_size", "n_embd"), _first(config, "num_attention_heads", "n_head")
    inner = _first(config, "intermediate_size", "n_inner", default=4 * width)
    gated = not hasattr(config, "n_inner")  # GPT-2 has two matrices where the others have three
    dtype = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    return Shape(
        layers=_first(config, "num_hidden_layers", "n_layer"),
        d_model=width,
        d_mlp=inner if gated else inner * 2 // 3,
        heads=heads,
        kv_heads=_first(config, "num_key_value_heads", default=heads),
        d_head=_first(config, "head_dim", default=width // heads),
        vocabulary=_first(config, "vocab_size"),
        tied=bool(getattr(config, "tie_word_embeddings", True)),
        itemsize={"float64": 8, "float32": 4}.get(dtype, 2),
    )


def _first(config: Any, *names: str, default: int | None = None) -> int:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    if default is None:
        raise UserError(f"the config of this model states no {names[0]}", works="a Hugging Face language model")
    return default


def _config_and_tokenizer(name: str) -> tuple[Any, Any]:
    """Of a model by name, without its weights."""
    from interp.backend.embedded import EMBEDDED, embedded_folder, folder_of, resolve_alias

    source: Any = resolve_alias(name)
    if not isinstance(source, str | Path):
        return source.config, getattr(source, "tokenizer", None)
    if str(source) in EMBEDDED:
        source = embedded_folder(str(source))
    path = as_path(source)
    if path.suffix == ".gguf":
        return _read(path.parent, name, gguf_file=path.name)
    if not exists(path) and "/" not in str(source):
        folder_of(source)  # says which names there are
    return _read(path if exists(path) else str(source), name, local_files_only=exists(path))


def _read(source: str | Path, name: str, **options: Any) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
        return config, AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # transformers, tokenizers and the hub raise a dozen classes
        reason = _shortened(str(error).strip().splitlines() or [type(error).__name__])
        works = "a local folder with config.json and a tokenizer, a .gguf file, or `interp fetch` first"
        what = f"the config or the tokenizer of this model cannot be read: {reason}"
        raise UserError(what, given=name, works=works) from error


def _shortened(lines: Sequence[str]) -> str:
    return lines[0][:160]
