"""Completions kept by content, prompt by prompt, so that figures share them.

A file holds some prompts' rows under one set of edits and one way of sampling. Because each (seed, problem, sample)
has its own random stream, a row does not depend on what was asked for with it, and a request generates only what is
missing. Files are written whole and never changed, so processes need no lock. The rows of a request are kept together
or not at all, through a journal: what is missing makes the batches, and a batch decides a number's last bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interp.backend.foreign import survey
from interp.bare_model import takes_model
from interp.completions import Completion, Completions
from interp.digest import digest
from interp.edits import Edit, Edits, PerRow, per_row
from interp.errors import UserError
from interp.files import disk_errors, write_atomically
from interp.fired import Fired, fired_by, summed
from interp.identity import UNSAVED, identity_of
from interp.model import Model
from interp.placed_edits import refuse_outside
from interp.positions import Tokens
from interp.prompts import Prompt

FORMAT = 1
"""Raised when the meaning of a stored row changes: the random streams, the end token, the entropy."""
JOURNAL = "journal"
"""Beside the folders of rows: requests that are being distributed over them."""


@dataclass(frozen=True)
class Request:
    """What is to be completed, and how; see `Model.generate`.

    Attributes:
        prompts: tokenised prompts.
        edits: one sequence for all prompts, or `per_row([...])`.
        max_new_tokens: where a completion is cut.
        temperature: 0 = greedy.
        samples: completions of each prompt.
        seed: of the random streams.
        keys: names of the prompts' problems; the prompts' digests if None.
    """

    prompts: tuple[Prompt, ...]
    edits: Edits
    max_new_tokens: int
    temperature: float
    samples: int
    seed: int
    keys: tuple[str, ...] | None = None

    def row_edits(self) -> list[tuple[Edit, ...]]:
        """The edits of each prompt."""
        if isinstance(self.edits, PerRow):
            return [tuple(row) for row in self.edits.rows]
        return [tuple(self.edits)] * len(self.prompts)

    def prompt_keys(self) -> list[str]:
        """What tells prompts apart within a file."""
        names: Sequence[str] = self.keys if self.keys and self.temperature else [""] * len(self.prompts)
        return [digest(prompt.ids, name) for prompt, name in zip(self.prompts, names, strict=True)]

    @takes_model
    def folder_keys(self, model: Model) -> list[str | None]:
        """The folder of each prompt's rows; None where something has no digest, so that nothing can be kept."""
        if survey(model.hooked).foreign:
            return [None] * len(self.prompts)
        about = FORMAT, model.fingerprint, str(model.dtype), model.stop_ids, self.max_new_tokens, self.temperature
        seed = self.seed if self.temperature else 0
        known: dict[tuple[Edit, ...], str | None] = {}
        for edits in self.row_edits():
            if edits not in known:
                known[edits] = _folder_key(about, seed, edits)
        return [known[edits] for edits in self.row_edits()]

    def only(self, rows: Sequence[int]) -> Request:
        """The request for some of its prompts."""
        every = self.row_edits()
        edits = per_row([every[row] for row in rows]) if isinstance(self.edits, PerRow) else self.edits
        keys = None if self.keys is None else tuple(self.keys[row] for row in rows)
        prompts = tuple(self.prompts[row] for row in rows)
        return Request(prompts, edits, self.max_new_tokens, self.temperature, self.samples, self.seed, keys)


_Samples = list[tuple[Completion, str]]
_Row = dict[str, Any]


@takes_model
def complete(model: Model, request: Request, folder: Path, *, memory_gb: float | None = None) -> Completions:
    """The completions of a request; what is on the disk is read, the rest generated and kept.

    Args:
        model: what completes.
        request: what to complete.
        folder: where completions are kept.
        memory_gb: bound of what a batch may hold.

    Raises:
        UserError: an edit's position exists in no prompt. An edit that touches no token is left to the caller, who
            knows whether this is all of its call.
    """
    refuse_outside(request.edits, [len(prompt.ids) for prompt in request.prompts])
    for file in (folder / JOURNAL).glob("*.parquet"):
        _distribute(file)
    folders, keys = request.folder_keys(model), request.prompt_keys()
    found = _kept(folders, request, folder)
    missing = [row for row, samples in enumerate(found) if len(samples) < request.samples]
    hits = [row for row in range(len(found)) if row not in set(missing)]
    fired = fired_in(model, request, found, hits)
    if missing:
        made = _generate(model, request.only(missing), memory_gb)
        fired += made.fired
        for place, row in enumerate(missing):
            found[row] = made.of(place)
        new: dict[str, dict[str, list[_Row]]] = {}
        for row in missing:
            if (name := folders[row]) is not None:
                new.setdefault(name, {})[keys[row]] = _rows(keys[row], found[row])
        _keep(folder, {name: [row for rows in own.values() for row in rows] for name, own in new.items()})
    return _assemble(request, found, fired)


@takes_model
def kept(model: Model, request: Request, folder: Path) -> list[list[tuple[Completion, str]]]:
    """The samples of each prompt on the disk, as many as are asked for or fewer; arguments as for `complete`."""
    return _kept(request.folder_keys(model), request, folder)


def _kept(folders: Sequence[str | None], request: Request, folder: Path) -> list[list[tuple[Completion, str]]]:
    stored = {name: _read(folder / name) for name in set(folders) if name is not None}
    return [
        [] if name is None else stored[name].get(key, [])[: request.samples]
        for name, key in zip(folders, request.prompt_keys(), strict=True)
    ]


def _folder_key(about: tuple[object, ...], seed: int, edits: tuple[Edit, ...]) -> str | None:
    try:
        known = [identity_of(edit) for edit in edits]
    except UserError:
        return None
    return None if any(one.startswith(UNSAVED) for one in known) else digest(about, seed, known)


def _generate(model: Model, request: Request, memory_gb: float | None) -> Completions:
    """Generate some rows of a request; an edit that touches only the other rows is no mistake."""
    return model.generate(
        request.prompts,
        request.edits,
        max_new_tokens=request.max_new_tokens,
        temperature=request.temperature,
        samples=request.samples,
        seed=request.seed,
        keys=request.keys,
        memory_gb=memory_gb,
        whole=False,
    )


def _assemble(request: Request, found: Sequence[_Samples], fired: Sequence[Fired]) -> Completions:
    rows: list[Completion] = []
    texts: list[str] = []
    for prompt, samples in enumerate(found):
        for sample, (row, text) in enumerate(samples):
            rows.append(Completion(prompt, sample, row.ids, row.ended, row.log_prob, row.entropy))
            texts.append(text)
    return Completions(request.prompts, tuple(rows), tuple(texts), summed(fired))


def fired_in(model: Model, request: Request, found: Sequence[_Samples], rows: Iterable[int]) -> tuple[Fired, ...]:
    """Count what the edits of some rows touched, from the positions that they select among the tokens that were fed."""
    edits = request.row_edits()
    counts: list[Fired] = []
    for row in rows:
        for edit in edits[row]:
            positions = sum(touched(model, request.prompts[row], sample, edit) for sample, _ in found[row])
            counts.append(fired_by(edit, positions, 1, int(positions == 0)))
    return summed(counts)


@takes_model
def touched(model: Model, prompt: Prompt, row: Completion, edit: Edit) -> int:
    """Positions that an edit selects among the tokens that were fed."""
    ids = torch.tensor([[*prompt.ids, *row.ids[:-1]]])  # the last token was never fed
    position = torch.arange(ids.shape[1])[None]
    tokens = Tokens(ids, position, torch.tensor([len(prompt.ids)]), torch.tensor([0]), model.token_text)
    return int(edit.positions.mask(tokens).sum())


def _keep(folder: Path, new: dict[str, list[_Row]]) -> None:
    """Keep the rows of some folders, all or none wherever the process is killed."""
    if len(new) == 1:  # a file is written whole or not at all
        [(name, rows)] = new.items()
        _write(folder / name, rows, _schema())
    elif new:
        rows = [{**row, "folder": name} for name, own in new.items() for row in own]
        _distribute(_write(folder / JOURNAL, rows, _journal_schema()))


def _distribute(journal: Path) -> None:
    """Write a journal's rows into their folders; another process may be about the same."""
    rows: dict[str, list[_Row]] = {}
    for one in _table(journal, _journal_schema()):
        if re.fullmatch("[0-9a-f]{16}", one["folder"]):  # a journal of somebody else's names no other place
            rows.setdefault(one.pop("folder"), []).append(one)
    for name, own in rows.items():
        _write(journal.parents[1] / name, own, _schema())
    with disk_errors(journal):
        journal.unlink(missing_ok=True)


def _write(folder: Path, rows: list[_Row], schema: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows, schema=schema)
    file = folder / f"{digest([(row['prompt'], row['sample']) for row in rows])}.parquet"
    write_atomically(file, lambda temporary: pq.write_table(table, temporary, write_page_checksum=True))
    return file


def _rows(key: str, samples: _Samples) -> list[_Row]:
    """What is kept of a prompt."""
    own = ("ids", "ended", "log_prob", "entropy")
    return [
        {"prompt": key, "sample": sample, "text": text, **{name: getattr(row, name) for name in own}}
        for sample, (row, text) in enumerate(samples)
    ]


def _schema() -> Any:
    import pyarrow as pa

    numbers = pa.list_(pa.float64())
    kinds = pa.string(), pa.int32(), pa.list_(pa.int32()), pa.bool_(), numbers, numbers, pa.string()
    return pa.schema(zip(("prompt", "sample", "ids", "ended", "log_prob", "entropy", "text"), kinds, strict=True))


def _journal_schema() -> Any:
    import pyarrow as pa

    return _schema().append(pa.field("folder", pa.string()))


def _table(file: Path, schema: Any) -> list[_Row]:
    """The rows of a file; none where it is damaged or not ours, so that they are generated again."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file, page_checksum_verification=True)
    except Exception:  # pyarrow raises a dozen classes on a damaged file
        return []
    if table.schema.remove_metadata() != schema or any(column.null_count for column in table.columns):
        return []
    return table.to_pylist()


def _read(folder: Path) -> dict[str, _Samples]:
    """All samples of each prompt; of two files that hold a prompt, the longer one counts."""
    found: dict[str, _Samples] = {}
    for file in sorted(folder.glob("*.parquet")):
        here: dict[str, _Samples] = {}
        for one in _table(file, _schema()):
            log_prob, entropy = tuple(one["log_prob"]), tuple(one["entropy"])
            row = Completion(0, one["sample"], tuple(one["ids"]), one["ended"], log_prob, entropy)
            here.setdefault(one["prompt"], []).append((row, one["text"]))
        for key, samples in here.items():
            if len(samples) > len(found.get(key, [])):
                found[key] = samples
    return found
