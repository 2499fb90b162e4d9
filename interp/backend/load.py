"""From a name, a folder, a file or a Hugging Face model to a HookedTransformer that computes the same."""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from interp.backend.embedded import folder_of, resolve_alias
from interp.backend.families import family_of, hooked_config, hooked_weights
from interp.backend.folder_check import check_folder
from interp.backend.lineage import lineage
from interp.errors import UserError
from interp.files import as_path, exists
from interp.memory import is_out_of_memory

BUFFERS = re.compile(r"blocks\.\d+\.attn\.(mask|IGNORE|rotary_sin|rotary_cos)")
"""Names that a HookedTransformer makes itself and no checkpoint has."""

TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|endoftext|>", "</s>")
"""Tokens that end an assistant's turn; they count where the chat template uses them."""


@dataclass(frozen=True)
class Loaded:
    """A model ready for hooks, without any processing of its weights.

    Attributes:
        hooked: frozen, in evaluation mode; its weights are its own, and no two of them share memory.
        tokenizer: None only for a model object that came without one.
        name: what to call it; never compared.
        architecture: Hugging Face class, for instance LlamaForCausalLM.
        stop_ids: every token that ends a completion, sorted.
        lineage: see `interp.backend.lineage`.
    """

    hooked: HookedTransformer
    tokenizer: PreTrainedTokenizerBase | None
    name: str
    architecture: str
    stop_ids: tuple[int, ...]
    lineage: str


def load_hooked(
    source: str | Path | torch.nn.Module,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> Loaded:
    """Load a model as a HookedTransformer whose log-probabilities are those of Hugging Face's model.

    No weight is folded, centred or upcast. A local source needs no network.

    Args:
        source: alias, local Hugging Face folder, `.gguf` file, hub id, or a Hugging Face model object.
        tokenizer: replaces the one that belongs to the source.
        dtype: of the weights; None keeps the checkpoint's own (float32 for GGUF files).
        device: None takes CUDA where there is one, and leaves a model object where it is.

    Raises:
        UserError: no such model, a damaged file, an architecture or a setting that cannot be carried.
    """
    wanted = _dtype(dtype)
    if isinstance(source, torch.nn.Module):
        if not isinstance(source, PreTrainedModel):
            raise UserError("not a Hugging Face model", given=type(source).__name__, works="merge adapters first")
        place = str(device or source.device)
        return _hook(source, tokenizer, _name_of(source), wanted or source.dtype, place, shared=True)
    given: Any = resolve_alias(str(source))
    if isinstance(given, torch.nn.Module):
        return load_hooked(given, tokenizer=tokenizer, dtype=dtype, device=device)
    folder = folder_of(given, str(wanted or torch.float32).removeprefix("torch."))
    place = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tokenizer = tokenizer or read_tokenizer(folder)
    model = _read(folder, wanted, place)
    path = as_path(str(source))
    return _hook(model, tokenizer, path.stem if exists(path) else str(source), wanted or model.dtype, place)


def read_config(folder: Path) -> Any:
    """Return the config of a local folder as transformers reads it.

    Raises:
        UserError: its weights are quantised, or transformers refuses the file.
    """
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each class of config raises its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"this config cannot be read: {reason}", given=folder.name) from error
    _refuse_quantised(config)
    return config


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a local folder.

    Raises:
        UserError: there is none, or its files are damaged.
    """
    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        found.encode("one")  # a wrong setting shows when it is used
        return found
    except Exception as error:  # tokenizers and sentencepiece raise their own classes on damaged files
        raise UserError(
            "this folder holds no tokenizer", given=folder.name, works="save one into it with tokenizer.save_pretrained"
        ) from error


def _read(folder: Path, dtype: torch.dtype | None, device: str) -> PreTrainedModel:
    """Read a local folder; every weight must be in it, and none may be left over."""
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            architecture = (getattr(config, "architectures", None) or ["an unnamed architecture"])[0]
            family_of(architecture)
            _refuse_quantised(config)
            check_folder(folder, config)
            both: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype or "auto",
                local_files_only=True,
                output_loading_info=True,
                device_map={"": device},
                use_safetensors=True,
                trust_remote_code=False,
            )
    except UserError:
        raise
    except Exception as error:  # damaged files reach every library below, each with classes of its own
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"this folder cannot be read: {reason}", given=folder.name) from error
    model, report = both
    biases = [key for key in report["unexpected_keys"] if key.endswith("down_proj.bias")]
    if biases:
        raise UserError(
            f"this checkpoint carries steering vectors that {architecture} would drop",
            given=biases[0],
            works="load them with load_vectors and the model from its own checkpoint",
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            raise UserError(f"the weights do not fit {architecture}: {kind}", given=sorted(map(str, report[kind]))[0])
    return model


def _hook(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    name: str,
    dtype: torch.dtype,
    device: str,
    *,
    shared: bool = False,
) -> Loaded:
    architecture = type(model).__name__
    _refuse_quantised(model.config)
    cfg = hooked_config(model.config, architecture, name=name, dtype=dtype, device=device)
    hooked = _construct(cfg)
    weights = hooked_weights(model, cfg)
    cfg.tie_word_embeddings = hooked.cfg.tie_word_embeddings = _is_tied(weights)
    _fill(hooked, _apart(weights, model if shared else None))
    hooked.to(device, print_details=False)
    _attach(hooked, tokenizer)
    stop_ids = _stop_ids(model, tokenizer)
    return Loaded(hooked, tokenizer, name, architecture, stop_ids, lineage(hooked))


def _refuse_quantised(config: Any) -> None:
    about: Any = getattr(config, "quantization_config", None)
    method = about.get("quant_method") if isinstance(about, dict) else getattr(about, "quant_method", None)
    if about and method != "gguf":
        raise UserError("quantised weights cannot be hooked", given=method, works="load the model in bfloat16")


def _construct(cfg: HookedTransformerConfig) -> HookedTransformer:
    """A HookedTransformer without memory for its weights: they are assigned, not copied."""
    with warnings.catch_warnings():
        # The class goes in TransformerLens 4; this package pins 3.9 and names it in this folder only.
        warnings.filterwarnings("ignore", message="HookedTransformer is deprecated", category=DeprecationWarning)
        with init_empty_weights(include_buffers=False):
            return HookedTransformer(cfg, move_to_device=False)


def _fill(hooked: HookedTransformer, weights: dict[str, Tensor]) -> None:
    """Assign the weights; anything missing but buffers, or left over, is an error."""
    expected = {key: value.shape for key, value in hooked.state_dict().items() if not BUFFERS.fullmatch(key)}
    wrong = sorted(set(expected) ^ set(weights)) or [key for key in expected if expected[key] != weights[key].shape]
    if wrong:
        raise UserError(f"{len(wrong)} weights do not fit the HookedTransformer made for them", given=wrong[0])
    hooked.load_state_dict(weights, strict=False, assign=True)
    hooked.requires_grad_(requires_grad=False)
    hooked.eval()


def _is_tied(weights: dict[str, Tensor]) -> bool:
    return weights["unembed.W_U"].data_ptr() == weights["embed.W_E"].data_ptr()


def _apart(weights: dict[str, Tensor], owner: PreTrainedModel | None) -> dict[str, Tensor]:
    """Copy weights that share memory with another one or with the caller's model, in the layout that they have.

    Processing a HookedTransformer in place (folding a norm, centring an unembedding) would change both of a tied pair,
    and a caller who trains a model object would change what was loaded from it. A tied pair costs one more matrix
    (113 MB for the embedded model; models of 7B parameters are not tied); a model object is held twice until the caller
    drops it, so load large models from their folder, whose weights nobody else holds.
    """
    held = set[int]()
    if owner is not None:
        held = {tensor.untyped_storage().data_ptr() for tensor in (*owner.parameters(), *owner.buffers())}
    seen = set[int]()
    apart: dict[str, Tensor] = {}
    for name, value in weights.items():
        shares = value.untyped_storage().data_ptr() in held or (value.numel() > 0 and value.data_ptr() in seen)
        apart[name] = value.clone(memory_format=torch.preserve_format) if shares else value
        seen.add(apart[name].data_ptr())
    return apart


def _attach(hooked: HookedTransformer, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Give the tokenizer as it is: HookedTransformer.set_tokenizer would build another one, and may ask the hub."""
    hooked.tokenizer = tokenizer
    if tokenizer is not None:
        prepends = bool(tokenizer.encode(""))
        hooked.cfg.tokenizer_prepends_bos = hooked.cfg.default_prepend_bos = prepends


def _stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> tuple[int, ...]:
    """End tokens of the generation config, the config, the tokenizer and the chat template.

    Raises:
        UserError: a file names something else than token numbers.
    """
    found: list[int] = []
    for place in (getattr(model, "generation_config", None), model.config, tokenizer):
        given: Any = getattr(place, "eos_token_id", None)
        ids: list[Any] = given if isinstance(given, list) else [] if given is None else [given]
        if not all(isinstance(one, int) for one in ids):
            raise UserError("eos_token_id is a token number or a list of them", given=given)
        found += ids
    if tokenizer is not None:
        vocabulary, template = tokenizer.get_vocab(), str(getattr(tokenizer, "chat_template", None))
        found += [vocabulary[token] for token in TURN_ENDS if token in template and token in vocabulary]
    return tuple(sorted(set(found)))


def _name_of(model: PreTrainedModel) -> str:
    path = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    return Path(path).name if Path(path).exists() else path


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    if dtype not in known:
        raise UserError("no such dtype", given=dtype, works=f"use one of {', '.join(known)}")
    return known[dtype]


@contextmanager
def _quiet() -> Generator[None]:
    """Hold back progress bars and reports of Hugging Face: what they say is checked and raised."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(hf_logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
