"""Load an autoencoder: one that comes with the package, a folder of sae-lens, or any release that sae-lens knows."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError

from interp import registry
from interp.bare_model import takes_model
from interp.errors import UserError
from interp.files import as_path, exists
from interp.given import as_model
from sae.card import SaeCard
from sae.catalogue import list_pretrained
from sae.dictionary import Dictionary, hook_of, site_of
from sae.kinds import check_folder, check_kind

PAGE = "https://www.neuronpedia.org/{}"


@takes_model
def load(name: str | Path, model: Any = None, *, foreign: bool = False) -> Dictionary:
    """An autoencoder, checked against the model before it is used.

    Args:
        name: a name of `interp list saes` (packages add theirs as entry points `interp.saes`: a folder or a
            Dictionary), a folder that sae-lens wrote, which needs no network, or `release:id` as in sae-lens' table
            of published autoencoders, downloaded into the cache of the Hugging Face hub.
        model: a Model that it must fit: width, block and, where the card has it, the weights.
        foreign: lifts the comparison of weights, never that of shapes.

    Raises:
        UserError: there is no such autoencoder, it cannot be read, or it does not fit the model.
    """
    found, model = _find(str(name)), as_model(model)
    if model is not None:
        found.check_fit(model, foreign=foreign)
        found.coder.to(model.device)
    return found


@takes_model
def load_for(vectors: Any, model: Any, name: str | None = None, *, foreign: bool = False) -> Dictionary:
    """An autoencoder that fits model and vectors: the one of a name, or one of the change by these vectors.

    Args:
        vectors: an Intervention.
        model: a Model.
        name: as for `load`; if none, what comes with the package for these vectors.
        foreign: as for `load`.

    Raises:
        UserError: none comes with the package, or the named one does not fit.
    """
    if name is None:
        cards = {alias: _read_card(path) for alias, path in list_pretrained().items()}
        name = next((alias for alias, card in cards.items() if card.vectors_digest == vectors.digest), None)
    if name is None:
        about = str(getattr(getattr(vectors, "card", None), "name", "") or vectors.digest)
        works = "train one (interp sae train) and give its folder"
        raise UserError("no autoencoder of the change by these vectors is here", given=about, works=works)
    found = load(name, model, foreign=foreign)
    found.check_vectors(vectors)
    return found


def check_name(name: str) -> str:
    """Return the name of an autoencoder, whose weights are not read yet.

    Raises:
        UserError: nothing has this name.
    """
    folder = exists(as_path(name) / "cfg.json")
    if not (folder or ":" in name or name in list_pretrained() or registry.offers("saes", name)):
        raise _unknown(name)
    return name


SaeName = Annotated[str, AfterValidator(check_name)]
"""An autoencoder as a setting."""


def _find(name: str) -> Dictionary:
    shipped = list_pretrained()
    if name in shipped:
        return load_folder(shipped[name])
    if registry.is_name("saes", name):
        installed = registry.load("saes", name)
        if not isinstance(installed, Dictionary | str | Path):
            works = "name a Dictionary, or a folder of sae-lens"
            raise UserError("this is no autoencoder", given=f"{name} is a {type(installed).__name__}", works=works)
        return installed if isinstance(installed, Dictionary) else load_folder(Path(installed))
    if exists(as_path(name) / "cfg.json"):
        return load_folder(as_path(name))
    release, colon, identifier = name.partition(":")
    if colon:
        return _release(release, identifier)
    raise _unknown(name)


def _unknown(name: str) -> UserError:
    shipped = list(list_pretrained())
    close = difflib.get_close_matches(name, shipped, n=3, cutoff=0.3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    works = f"{hint}Give one of {', '.join(shipped) or '(none comes with this version)'}, a folder, or release:id"
    return UserError("no such autoencoder", given=name, works=works)


def load_folder(folder: Path) -> Dictionary:
    """An autoencoder from a folder with sae-lens' cfg.json and weights, and a card where we wrote one.

    Raises:
        UserError: a file is missing or unreadable, or the hook point is not supported.
    """
    from sae_lens import SAE

    check_folder(folder)
    try:
        inner: Any = SAE.load_from_disk(folder)
    except Exception as error:  # sae-lens, safetensors and torch raise a dozen classes on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"this folder holds no autoencoder of sae-lens: {reason}", given=folder.name) from error
    return _wrap(inner, _read_card(folder))


def _read_card(folder: Path) -> SaeCard:
    path = folder / "card.json"
    try:
        return SaeCard.model_validate(json.loads(path.read_text())) if path.is_file() else SaeCard(name=folder.name)
    except (ValidationError, ValueError, OSError, RecursionError) as error:
        raise UserError("this card cannot be read", given=path.name, works="see SaeCard for its fields") from error


def _release(release: str, identifier: str) -> Dictionary:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    if release not in known and "/" not in release:
        close = difflib.get_close_matches(release, list(known), n=3, cutoff=0.4)
        raise UserError("sae-lens knows no such release", given=release, works=f"did you mean {' or '.join(close)}?")
    entry = known.get(release)
    if entry is not None and identifier not in entry.saes_map:
        close = difflib.get_close_matches(identifier, list(entry.saes_map), n=3, cutoff=0.0)
        raise UserError(f"{release} has no such autoencoder", given=identifier, works=f"such as {', '.join(close)}")
    try:
        inner: Any = SAE.from_pretrained(release, identifier)
    except Exception as error:  # the hub, its client and the converters raise errors of many kinds
        raise UserError(f"{release} could not be loaded: {str(error).splitlines()[0]}", given=identifier) from error
    page = (entry.neuronpedia_id.get(identifier) or "") if entry is not None else ""
    return _wrap(inner, SaeCard(name=f"{release}:{identifier}", neuronpedia=page))


def _wrap(inner: Any, card: SaeCard) -> Dictionary:
    import torch

    check_kind(inner)
    metadata = inner.cfg.metadata
    site = site_of(card.hook or metadata.hook_name)
    if metadata.hook_name and site_of(metadata.hook_name) != site:
        given = f"{card.hook} in card.json, {metadata.hook_name} in cfg.json"
        raise UserError("card and config of this autoencoder name different hook points", given=given)
    card = card.model_copy(update={"hook": hook_of(site), "base_model": _model(card, metadata)})
    page = card.neuronpedia or str(metadata.neuronpedia_id or "")
    inner = inner.to(dtype=torch.float32).eval()
    for parameter in inner.parameters():
        parameter.requires_grad_(False)
    neuron = PAGE.format(page) + "/{}" if page else ""
    return Dictionary(inner, site, card, neuron)


def _model(card: SaeCard, metadata: Any) -> str:
    return card.base_model if card.base_model != "unknown" else str(metadata.model_name or "unknown")
