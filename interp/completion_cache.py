"""Completions kept by content, prompt by prompt, so that figures share them.

A file holds some prompts' rows under one set of edits and one way of sampling. Because each (seed, problem, sample)
has its own random stream, a row does not depend on what was asked for with it, and a request generates only what is
missing. Files are written whole and never changed, so processes need no lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interp.backend.weights import hooks_present
from interp.completions import Completion, Completions
from interp.digest import digest
from interp.editor import Fired
from interp.edits import Edit, Edits, PerRow, per_row
from interp.errors import UserError
from interp.files import write_atomically
from interp.model import Model
from interp.positions import Tokens
from interp.prompts import Prompt

FORMAT = 1
"""Raised when the meaning of a stored row changes: the random streams, the end token, the entropy."""


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

    def folder_keys(self, model: Model) -> list[str | None]:
        """The folder of each prompt's rows; None where something has no digest, so that nothing can be kept."""
        if hooks_present(model.hooked):
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


def complete(model: Model, request: Request, folder: Path, *, memory_gb: float | None = None) -> Completions:
    """The completions of a request; what is on the disk is read, the rest generated and kept.

    Args:
        model: what completes.
        request: what to complete.
        folder: where completions are kept.
        memory_gb: bound of what a batch may hold.
    """
    folders, keys = request.folder_keys(model), request.prompt_keys()
    found = kept(model, request, folder)
    missing = [row for row, samples in enumerate(found) if len(samples) < request.samples]
    hits = [row for row in range(len(found)) if row not in set(missing)]
    fired = _touched(model, request, found, hits)
    if missing:
        made = _generate(model, request.only(missing), memory_gb)
        fired += made.fired
        for place, row in enumerate(missing):
            found[row] = made.of(place)
        for name in {folders[row] for row in missing} - {None}:
            rows = [row for row in missing if folders[row] == name]
            _write(folder / str(name), {keys[row]: found[row] for row in rows})
    return _assemble(request, found, fired)


def kept(model: Model, request: Request, folder: Path) -> list[list[tuple[Completion, str]]]:
    """The samples of each prompt on the disk, as many as are asked for or fewer; arguments as for `complete`."""
    folders = request.folder_keys(model)
    stored = {name: _read(folder / name) for name in set(folders) if name is not None}
    return [
        [] if name is None else stored[name].get(key, [])[: request.samples]
        for name, key in zip(folders, request.prompt_keys(), strict=True)
    ]


def _folder_key(about: tuple[object, ...], seed: int, edits: tuple[Edit, ...]) -> str | None:
    try:
        return digest(about, seed, [edit.digest for edit in edits])
    except UserError:
        return None


def _generate(model: Model, request: Request, memory_gb: float | None) -> Completions:
    return model.generate(
        request.prompts,
        request.edits,
        max_new_tokens=request.max_new_tokens,
        temperature=request.temperature,
        samples=request.samples,
        seed=request.seed,
        keys=request.keys,
        memory_gb=memory_gb,
    )


def _assemble(request: Request, found: Sequence[_Samples], fired: Sequence[Fired]) -> Completions:
    rows: list[Completion] = []
    texts: list[str] = []
    for prompt, samples in enumerate(found):
        for sample, (row, text) in enumerate(samples):
            rows.append(Completion(prompt, sample, row.ids, row.ended, row.log_prob, row.entropy))
            texts.append(text)
    total: dict[str, Fired] = {}
    for one in fired:
        before = total.get(one.edit, Fired(one.edit, 0, 0))
        total[one.edit] = Fired(one.edit, before.touched + one.touched, before.rows + one.rows)
    return Completions(request.prompts, tuple(rows), tuple(texts), tuple(total.values()))


def _touched(model: Model, request: Request, found: Sequence[_Samples], hits: Sequence[int]) -> tuple[Fired, ...]:
    """The counts of rows that were read: positions that an edit selects among the tokens that were fed."""
    edits = request.row_edits()
    return tuple(
        Fired(edit.describe(), sum(touched(model, request.prompts[row], one, edit) for one, _ in found[row]), 1)
        for row in hits
        for edit in edits[row]
    )


def touched(model: Model, prompt: Prompt, row: Completion, edit: Edit) -> int:
    """Positions that an edit selects among the tokens that were fed."""
    ids = torch.tensor([[*prompt.ids, *row.ids[:-1]]])  # the last token was never fed
    position = torch.arange(ids.shape[1])[None]
    tokens = Tokens(ids, position, torch.tensor([len(prompt.ids)]), torch.tensor([0]), model.token_text)
    return int(edit.positions.mask(tokens).sum())


def _write(folder: Path, rows: dict[str, _Samples]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = [(key, sample, row, text) for key, samples in rows.items() for sample, (row, text) in enumerate(samples)]
    columns = {
        "prompt": [key for key, _, _, _ in flat],
        "sample": [sample for _, sample, _, _ in flat],
        "ids": [row.ids for _, _, row, _ in flat],
        "ended": [row.ended for _, _, row, _ in flat],
        "log_prob": [row.log_prob for _, _, row, _ in flat],
        "entropy": [row.entropy for _, _, row, _ in flat],
        "text": [text for _, _, _, text in flat],
    }
    table = pa.table(columns, schema=_schema())
    file = folder / f"{digest(sorted(rows), [len(samples) for samples in rows.values()])}.parquet"
    write_atomically(file, lambda temporary: pq.write_table(table, temporary, write_page_checksum=True))


def _schema() -> Any:
    import pyarrow as pa

    numbers = pa.list_(pa.float64())
    kinds = pa.string(), pa.int32(), pa.list_(pa.int32()), pa.bool_(), numbers, numbers, pa.string()
    return pa.schema(zip(("prompt", "sample", "ids", "ended", "log_prob", "entropy", "text"), kinds, strict=True))


def _table(file: Path) -> list[dict[str, Any]]:
    """The rows of a file; none where it is damaged or not ours, so that they are generated again."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file, page_checksum_verification=True)
    except Exception:  # pyarrow raises a dozen classes on a damaged file
        return []
    if table.schema.remove_metadata() != _schema() or any(column.null_count for column in table.columns):
        return []
    return table.to_pylist()


def _read(folder: Path) -> dict[str, _Samples]:
    """All samples of each prompt; of two files that hold a prompt, the longer one counts."""
    found: dict[str, _Samples] = {}
    for file in sorted(folder.glob("*.parquet")):
        here: dict[str, _Samples] = {}
        for one in _table(file):
            log_prob, entropy = tuple(one["log_prob"]), tuple(one["entropy"])
            row = Completion(0, one["sample"], tuple(one["ids"]), one["ended"], log_prob, entropy)
            here.setdefault(one["prompt"], []).append((row, one["text"]))
        for key, samples in here.items():
            if len(samples) > len(found.get(key, [])):
                found[key] = samples
    return found
