"""Runs on disk: a folder per key with run.json and frame.parquet, safe against kills and second processes.

The key of a run is the digest of everything that can change a number. While a run is under way its finished chunks
are parts, each a parquet file that says in its own metadata which cells it covers; a killed process leaves whole
parts or none. pandas and pyarrow are imported where they are needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from interp.digest import digest
from interp.errors import UserError
from interp.files import disk_errors, exists, read_json, write_atomically, write_json
from interp.parts import Part, choose, read_frame, read_part, write_frame, write_part

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
"""Version of run.json."""

KEYED = ("experiment", "version", "settings", "model", "vectors", "task")
"""Entries of run.json that make its key; of model, vectors and task only what identifies their contents."""

_IDENTITY = {"model": ("fingerprint", "dtype"), "vectors": ("digest",), "task": ("digest",)}


def run_key(meta: Mapping[str, Any]) -> str:
    """The key of a run from its run.json: 16 hexadecimal digits.

    Scale, device, chunks, names and times are recorded but not keyed, as they change no number.
    """
    keyed: dict[str, Any] = {name: meta.get(name) for name in KEYED}
    for name, identity in _IDENTITY.items():
        if keyed[name] is not None:
            keyed[name] = {part: keyed[name].get(part) for part in identity}
    if meta.get("inputs"):
        keyed["inputs"] = meta["inputs"]
    return digest(keyed)


@dataclass(frozen=True)
class RunRecord:
    """A run as it lies on disk.

    Attributes:
        path: its folder.
        meta: run.json.
    """

    path: Path
    meta: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> RunRecord:
        """Read a run's folder (or its run.json).

        Raises:
            UserError: it is not the folder of a run, or was written by a later version.
        """
        if not isinstance(cast("object", path), str | Path):
            raise UserError("this is no path of a run", given=type(path).__name__)
        folder = Path(path)
        folder = folder.parent if folder.name == "run.json" else folder
        if not exists(folder) or not folder.is_dir():
            raise UserError("no such run folder", given=path, works="give runs/<experiment>/<key>")
        if not (folder / "run.json").is_file():
            raise UserError("this folder holds no run.json", given=path, works="give runs/<experiment>/<key>")
        from interp.run_json import checked

        meta = read_json(folder / "run.json")
        schema = meta.get("schema", SCHEMA)
        if isinstance(schema, int) and schema > SCHEMA:
            raise UserError("this run was written by a later version", given=path, works="upgrade small-vectors")
        return cls(folder, checked(meta, folder))

    @property
    def partial(self) -> bool:
        """True while cells are missing."""
        return bool(self.meta.get("partial"))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per measurement; of a partial run, what is there."""
        import pandas as pd

        # Others may have finished it since run.json was read, and removed the parts.
        if not self.partial or not read_json(self.path / "run.json").get("partial"):
            return read_frame(self.path / "frame.parquet")
        parts = RunFolder(self.path).parts(self.meta.get("source", ""))
        if not parts:
            return pd.DataFrame(columns=list(self.meta.get("columns", {})))
        return merge(parts)

    def tensors(self, name: str) -> dict[str, Any]:
        """Arrays that the run kept beside its frame.

        Raises:
            UserError: it kept none under this name.
        """
        from safetensors.numpy import load_file

        file = self.path / "tensors" / f"{name}.safetensors"
        if not file.is_file():
            raise UserError("this run kept no such tensors", given=name)
        try:
            return load_file(file)
        except Exception as error:  # safetensors has no class of its own for a damaged file
            raise UserError(f"{file} cannot be read: {error}", works="remove the run; it is made again") from error


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, for those that write it."""

    path: Path

    @contextmanager
    def lock(self, name: str = "run", *, on_wait: Callable[[], object] | None = None) -> Generator[None]:
        """Hold the folder against other processes; the second one waits, after calling `on_wait`."""
        from filelock import FileLock, Timeout

        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / f".{name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if on_wait is not None:
                    on_wait()
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def read(self) -> RunRecord | None:
        """The record, or None where nothing readable was written yet."""
        if not (self.path / "run.json").is_file():
            return None
        return RunRecord.read(self.path)

    def write_meta(self, meta: Mapping[str, Any]) -> RunRecord:
        """Write run.json."""
        write_json(self.path / "run.json", meta)
        return RunRecord(self.path, dict(meta))

    def parts(self, source: str) -> list[Part]:
        """Finished chunks that this source code measured, no cell twice, in the order of the grid."""
        files = sorted((self.path / "parts").glob("*.parquet"))
        return choose([part for part in map(read_part, files) if part is not None and part.source == source])

    def add_part(self, part: Part) -> None:
        """Keep a finished chunk."""
        write_part(self.path / "parts", part)

    def write_frame(self, frame: pd.DataFrame) -> None:
        """Write the merged frame."""
        write_frame(self.path / "frame.parquet", frame)

    def write_tensors(self, name: str, tensors: Mapping[str, Any]) -> None:
        """Keep torch tensors or numpy arrays beside the frame, as safetensors."""
        from safetensors.numpy import save_file

        arrays = {key: as_array(value) for key, value in tensors.items()}
        write_atomically(self.path / "tensors" / f"{name}.safetensors", lambda file: save_file(arrays, file))

    def drop_parts(self) -> None:
        """Remove the parts once they are merged."""
        shutil.rmtree(self.path / "parts", ignore_errors=True)

    def clear(self) -> None:
        """Forget all numbers, as when the experiment's source changed."""
        self.drop_parts()
        for name in ("frame.parquet", "run.json", "figure.html", "figure.json"):
            (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Store:
    """A folder of runs.

    Attributes:
        root: the folder, `runs` by default; made when the first run is written.
    """

    root: Path = Path("runs")

    def folder(self, meta: Mapping[str, Any]) -> RunFolder:
        """The folder of the run that this run.json describes."""
        return RunFolder(self.root / str(meta["experiment"]) / run_key(meta))

    def records(self) -> list[RunRecord]:
        """Every readable run, newest first."""
        found: list[RunRecord] = []
        for file in self.root.glob("*/*/run.json"):
            try:
                found.append(RunRecord.read(file))
            except UserError:
                continue  # another process may be clearing it
        return sorted(found, key=lambda record: str(record.meta.get("started")), reverse=True)

    def has(self, start: str) -> bool:
        """True where a run's key starts so; four digits at least, so that no alias is taken for a key."""
        return len(start) >= 4 and start.isalnum() and any(self.root.glob(f"*/{start}*/run.json"))

    @property
    def completions(self) -> Path:
        """Where completions are kept for all runs."""
        return self.root / "completions"


def as_array(value: Any) -> Any:
    """A numpy array from a torch tensor (bfloat16, which numpy lacks, becomes float32) or an array."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu().contiguous()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def merge(parts: Sequence[Part]) -> pd.DataFrame:
    """One frame of all parts, in the order of the grid however the cells were grouped into chunks."""
    import pandas as pd

    frames = [part.frame() for part in parts]
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    frame = pd.concat(filled, ignore_index=True)
    cells = sorted(((index, key) for part in parts for index, key in part.cells), key=lambda cell: cell[0])
    grids = {tuple(name for name, _ in key) for _, key in cells}
    names = list(grids.pop()) if len(grids) == 1 else []
    if not names or not set(names) <= set(frame.columns):
        return frame
    place = {tuple(value for _, value in key): index for index, key in cells}
    rank = [place.get(tuple(row), len(place)) for row in frame[names].itertuples(index=False, name=None)]
    return frame.iloc[pd.Series(rank).argsort(kind="stable")].reset_index(drop=True)
