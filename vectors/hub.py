"""Sets of vectors on the Hugging Face hub, with their cards."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from interp.backend.downloads import hub_folder
from interp.errors import UserError
from interp.given import HUB
from vectors.storage import card_path

FILE = "vectors.safetensors"
"""What a pushed set is called, its card beside it."""

_ADDRESS = re.compile(HUB + r"([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.*[^/]))?/?")
_READABLE = [f"*.{suffix}" for suffix in ("safetensors", "json", "npy", "npz", "gguf", "svec", "pt")]


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

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / FILE)
        api = HfApi()
        try:
            url = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Add steering vectors")
        except Exception as error:  # those of the connection are of the HTTP library, which changes with the version
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            works = "check the connection, and log in with `hf auth login`"
            raise UserError(f"the hub refused: {reason}", given=repo, works=works) from error
    return str(url)


def pull(address: str) -> Path:
    """Download a set into the hub's own cache.

    Args:
        address: `hf://user/name[@revision][/path]`; without a path what `push_files` wrote, else the whole repository.

    Returns:
        The file or folder to read.

    Raises:
        UserError: this is no such address, or the hub does not give it.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError("no address on the hub", given=address, works="hf://user/name or hf://user/name@revision/path")
    repo, revision, path = match.groups()
    files = _READABLE if path is None else [path, card_path(Path(path)).as_posix(), f"{path}/*"]
    folder = hub_folder(repo, files=files, revision=revision)
    if path is not None:
        return folder / path
    return folder / FILE if (folder / FILE).exists() else folder
