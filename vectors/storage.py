"""Our own file: safetensors, with the card beside it and once more in its metadata."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from interp.errors import UserError
from interp.files import write_bytes
from vectors.card import Card
from vectors.untrusted import CARD_BYTES, parsing, read_json, safetensors_metadata

KEY = "small_vectors_card"


def write_tensors(path: Path, tensors: dict[str, Tensor], card: Card) -> Path:
    """Write `path.safetensors` and `path.json`, each under a temporary name first.

    The card also goes into the metadata: a file that lost its neighbour still knows that its vectors were
    trained apart.
    """
    path = _with_suffix(path, ".safetensors")
    text = card.model_dump_json(indent=1)
    write_bytes(path, save(tensors, metadata={KEY: text}))
    write_bytes(card_path(path), (text + "\n").encode())
    return path


def read_card(path: Path) -> Card | None:
    """The card of a safetensors file: the one beside it, else the one inside, else None.

    Raises:
        UserError: a card is there and is not valid.
    """
    beside = card_path(path)
    if beside.exists():
        return Card.parse(read_json(beside, "card", CARD_BYTES), where=beside.name)
    text = safetensors_metadata(path).get(KEY)
    if text is None:
        return None
    if len(text) > CARD_BYTES:
        raise UserError("this card is too large", given=path.name, works=f"at most {CARD_BYTES} bytes")
    with parsing(path, "card"):
        return Card.model_validate_json(text)


def card_path(path: Path) -> Path:
    """Where the card of a safetensors file lies."""
    return path.with_name(path.name.removesuffix(".safetensors") + ".json")


def push_files(repo: str, write: Callable[[Path], Path], *, private: bool) -> str:
    """Write a set into a temporary folder and upload it.

    Args:
        repo: `user/name` on the Hugging Face hub.
        write: writes the set to the path it is given.
        private: visibility, where the repository is new.

    Returns:
        The repository's address.

    Raises:
        UserError: the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "vectors.safetensors")
        api = HfApi()
        try:
            url = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Add steering vectors")
        except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"the hub refused: {reason}", given=repo, works="log in with `hf auth login`") from error
    return str(url)


def _with_suffix(path: Path, suffix: str) -> Path:
    return path if path.name.endswith(suffix) else path.with_name(path.name + suffix)
