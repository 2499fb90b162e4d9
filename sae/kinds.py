"""Which autoencoders of sae-lens are dictionaries of one stream, and what their config may say.

sae-lens drops config keys that it does not know, gives None for missing metadata, and loads transcoders through the
same door; each of these would make other numbers than the writer's, so they are refused here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.errors import UserError

KINDS = ("standard", "gated", "topk", "abstopk", "jumprelu")
"""Architectures that encode and decode one stream at one token."""
NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm")
"""Those that act on each token by itself; the others need factors that the file does not hold."""

_KEYS = {
    *("d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations", "reshape_activations"),
    *("metadata", "architecture", "sae_lens_version", "sae_lens_training_version"),
}
_TOPK = {"k", "rescale_acts_by_decoder_norm"}
_LEGACY = {
    *("activation_fn", "activation_fn_str", "activation_fn_kwargs", "finetuning_scaling_factor", "context_size"),
    *("model_name", "hook_name", "hook_point", "hook_layer", "hook_point_layer", "hook_head_index"),
    *("hook_point_head_index", "prepend_bos", "dataset_path", "dataset_trust_remote_code", "neuronpedia_id"),
    *("model_from_pretrained_kwargs", "seqpos_slice"),
}
"""Keys of versions before 6, which sae-lens translates."""
_METADATA = {
    *("model_name", "hook_name", "model_class_name", "hook_head_index", "model_from_pretrained_kwargs", "prepend_bos"),
    *("exclude_special_tokens", "neuronpedia_id", "context_size", "seqpos_slice", "dataset_path", "sae_lens_version"),
    *("sae_lens_training_version", "hook_name_out", "hook_head_index_out", "hf_hook_name", "hf_hook_name_out"),
    *("training_architecture", "training_architecture_details", "l0", "num_dead_features", "hook_layer"),
    *("dataset_trust_remote_code", "explained_variance", "mse", "ce_loss_score", "training_tokens", "normalize_factor"),
}
_UNSET = (None, False, "", [], {}, "none")


def check_folder(folder: Path) -> None:
    """Refuse a folder whose cfg.json says what sae-lens would not read.

    Raises:
        UserError: it is unreadable, a key is not understood, or an old setting changes the forward pass.
    """
    try:
        config = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            "this folder holds no autoencoder of sae-lens: its cfg.json is damaged", given=folder.name
        ) from error
    if not isinstance(config, dict):
        raise UserError("this folder holds no autoencoder of sae-lens: its cfg.json is no object", given=folder.name)
    about: Any = config.get("metadata") or {}
    version = str(
        config.get("sae_lens_version") or (about.get("sae_lens_version") if isinstance(about, dict) else "") or ""
    )
    legacy = not version or version.partition(".")[0] in "012345"
    topk = str(config.get("architecture")) in ("topk", "abstopk")
    known = _KEYS | (_TOPK if topk else set()) | (_LEGACY if legacy else set())
    _check_known(config, known, "config")
    if isinstance(about, dict):
        _check_known(about, _METADATA, "metadata")
    if legacy:
        _check_legacy(config)


def _check_known(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for key, value in values.items():
        if key not in known and not any(type(value) is type(unset) and value == unset for unset in _UNSET):
            raise UserError(f"this {where} key of an autoencoder is not understood", given=f"{key}: {value}"[:80])


def _check_legacy(config: Mapping[str, Any]) -> None:
    function = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if function not in ("relu", "topk", None):
        raise UserError("this activation function of an old autoencoder is not read", given=function)
    if function == "topk" and not (config.get("activation_fn_kwargs") or {}).get("k"):
        raise UserError("this old autoencoder does not say how many features are active", given="activation_fn topk")
    if config.get("finetuning_scaling_factor"):
        raise UserError("an autoencoder with a fine-tuned scale is not read", given="finetuning_scaling_factor")
    hook, layer = (
        config.get("hook_name", config.get("hook_point")),
        config.get("hook_layer", config.get("hook_point_layer")),
    )
    if layer is not None and f"blocks.{layer}." not in str(hook):
        raise UserError("hook_name and hook_layer of this autoencoder differ", given=f"{hook}, {layer}")


def check_kind(coder: Any) -> None:
    """Refuse what is no autoencoder of one stream, or cannot be applied without numbers that its file lacks.

    Raises:
        UserError: it is a transcoder or another kind, reads a head, normalises by a lost factor, or is not finite.
    """
    kind, cfg = coder.cfg.architecture(), coder.cfg
    if kind not in KINDS:
        works = f"autoencoders of the kinds {', '.join(KINDS)}"
        raise UserError("this is no autoencoder of one stream", given=kind, works=works)
    if cfg.normalize_activations not in NORMALISATIONS:
        what = "this autoencoder was trained on scaled activations, and its file lacks the scale"
        raise UserError(what, given=cfg.normalize_activations, works="fold the scale with sae-lens and save it anew")
    if cfg.reshape_activations not in ("none", None):
        raise UserError("an autoencoder of the heads' outputs is not read", given=cfg.reshape_activations)
    about = cfg.metadata
    for name in ("hook_head_index", "hook_head_index_out"):
        if getattr(about, name) is not None:
            raise UserError("an autoencoder of a single head is not read", given=f"{name} = {getattr(about, name)}")
    if about.hook_name_out not in (None, about.hook_name):
        given = f"{about.hook_name} to {about.hook_name_out}"
        raise UserError("this autoencoder writes elsewhere than it reads", given=given)
    for name, value in coder.state_dict().items():
        if not bool(value.isfinite().all()):
            raise UserError("an autoencoder holds NaN or infinite values", given=name)
