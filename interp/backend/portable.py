"""Files of a Hugging Face folder in a spelling that transformers 4.57 and 5 read alike.

transformers 5 writes the base of the rotary embedding into `rope_parameters` only and names tokenizer classes of its
own. 4.57 reads neither: it takes its default base without a warning, and refuses the tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from interp.errors import UserError
from interp.files import read_json, write_json

TOKENIZER_CONFIG = "tokenizer_config.json"
PROBES = (
    "",
    "Tom has 3 apples and buys 4 more. How many?",
    " leading space,\ttab\n\nand  two  spaces ",
    "naïve café 東京 🙂 don't 12,345.67 \\boxed{12}",
)
"""Texts whose token ids a rewritten tokenizer must keep."""

_NOT_SCALING = ("rope_theta", "partial_rotary_factor")
_UNUSED = ("id2label", "label2id", "problem_type", "_name_or_path")
_OF_THIS_MACHINE = ("backend", "is_local", "local_files_only", "name_or_path")


def portable_config(config: Any) -> dict[str, Any]:
    """Return the fields of a `config.json` with the names of transformers 4.57 and those of 5.

    Each field is written, defaults included, because the defaults of the two versions need not agree.

    Args:
        config: a transformers config, in the form that the installed version gives it.

    Raises:
        UserError: 4.57 has no field for what the config says.
    """
    fields: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    if fields.get("dtype") is not None:
        fields["torch_dtype"] = fields["dtype"]
    rope = fields.get("rope_parameters")
    if rope:
        fields |= _old_rope(rope)
    return {key: fields[key] for key in sorted(fields) if key not in _UNUSED}


def _old_rope(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return `rope_theta` and `rope_scaling` (for Gemma-3 also `rope_local_base_freq`) for `rope_parameters`."""
    whole, local = parameters.get("full_attention", parameters), parameters.get("sliding_attention")
    if local is not None and (local.get("rope_type") or "default") != "default":
        raise UserError("transformers 4.57 cannot scale the rotary embedding of sliding-window layers", given=local)
    scaling = {key: value for key, value in whole.items() if key not in _NOT_SCALING and value is not None}
    fields: dict[str, Any] = {
        "rope_theta": whole["rope_theta"],
        "rope_scaling": None if scaling.get("rope_type", "default") == "default" else scaling,
    }
    return fields if local is None else fields | {"rope_local_base_freq": local["rope_theta"]}


def write_config(config: Any, folder: Path) -> None:
    """Write `config.json` for both versions."""
    write_json(folder / "config.json", portable_config(config))


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer so that both versions give its ids and its chat template.

    Raises:
        UserError: the files, read again, give other ids than the tokenizer.
    """
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(folder)
    if not (folder / "tokenizer.json").is_file():
        return  # a tokenizer in Python, whose class both versions know
    file = folder / TOKENIZER_CONFIG
    fields = {key: value for key, value in read_json(file).items() if key not in _OF_THIS_MACHINE}
    # The class that takes `tokenizer.json` as it stands: others build their own rules around its vocabulary.
    fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(fields.get("extra_special_tokens"), list):  # a mapping in 4.57, which has this name for the list
        fields["additional_special_tokens"] = fields.pop("extra_special_tokens")
    write_json(file, fields)
    reread: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    for probe in PROBES:
        if reread.encode(probe) != tokenizer.encode(probe):
            raise UserError("this tokenizer cannot be written for other versions of transformers", given=probe)


def plain_model(loaded: Any) -> Any:
    """Return the same model without its mark of quantisation, which forbids saving it."""
    import torch

    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = type(loaded)(config)
    model.load_state_dict({key: value.clone() for key, value in loaded.state_dict().items()}, assign=True)
    model.tie_weights()
    model.generation_config = loaded.generation_config
    return model
