"""Write golden values to a file, or compare two such files.

`python -m tests.golden write FILE` before a change, the same after it, then `python -m tests.golden compare A B`, on
one machine: there every column must be equal to the bit. `--embedded` adds the embedded model at scale smoke.
`python -m tests.golden stored` writes anew what `tests/test_golden.py` compares with; that needs a reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from tests.golden.settings import SPLITS, experiments, subject
from tests.interp import tiny

EMBEDDED = "smollm2-135m-instruct"
STORED = Path(__file__).parent / "values.json"
"""Values that hold on other machines too, of the families in `STORED_FAMILIES`."""
STORED_FAMILIES = ("llama", "gemma3")
Values = dict[str, dict[str, Any]]


def values_of(run: Any) -> dict[str, Any]:
    """Return the estimates behind the verdicts of a run and a digest of each column of its frame."""
    return {
        "verdicts": {verdict["claim"]: _numbers(verdict) for verdict in run.verdicts},
        "columns": {str(name): _digest(run.frame[name]) for name in run.frame.columns},
        "means": {str(name): _mean(run.frame[name]) for name in run.frame.columns},
        "rows": len(run.frame),
    }


def _numbers(verdict: dict[str, Any]) -> dict[str, Any]:
    return {name: verdict.get(name) for name in ("phrase", "estimate", "control", "margin", "detectable")}


def _digest(column: pd.Series) -> str:
    """Hash a column in its order of rows; a number by its exact value."""
    text = json.dumps([_exact(value) for value in column.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _mean(column: pd.Series) -> float | str:
    """Return what another processor gets too: the mean of a column of numbers, the digest of any other."""
    numbers = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return float(column.mean()) if numbers and column.notna().any() else _digest(column)


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        return "nan" if value != value else value.hex()
    return value if isinstance(value, bool | int | str | None) else str(value)


def tiny_values(family: str, names: tuple[str, ...] = ()) -> Values:
    """Run the experiments (all of them by default) on a tiny random model of a family."""
    from tests.experiments import toys

    with tempfile.TemporaryDirectory() as folder:
        studied = subject(family, Path(folder))
        task = toys.task(splits=SPLITS)
        result: Values = {}
        for name, (experiment, vectors) in experiments(studied).items():
            if names and name not in names:
                continue
            run = experiment.run(studied.model, vectors, task, out=Path(folder) / "runs", progress=False)
            result[name] = values_of(run)
        return result


def embedded_values() -> Values:
    """Run every experiment on the embedded model at scale smoke, with the vectors that it prefers."""
    from interp import load_model, load_task
    from interp.given import default_vectors
    from interp.registry import load, names

    model, task = load_model(EMBEDDED), load_task("word-problems")
    result: Values = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names("experiments"):
            cls = load("experiments", name)
            vectors = default_vectors(EMBEDDED, cls.prefers) if "vectors" in cls.needs else None
            run = cls.at("smoke").run(model, vectors, task, out=folder, progress=False)
            result[name] = values_of(run)
    return result


def differences(before: dict[str, Values], after: dict[str, Values]) -> list[str]:
    """Return one line per value that differs between two files."""
    lines: list[str] = []
    flat = [_flat(values) for values in (before, after)]
    for key in sorted({*flat[0], *flat[1]}):
        pair = [values.get(key, "absent") for values in flat]
        if pair[0] != pair[1]:
            lines.append(f"{' / '.join(key)}: {pair[0]} -> {pair[1]}")
    return lines


def _flat(values: Any, key: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(values, dict):
        return {key: values}
    return {path: leaf for name, value in values.items() for path, leaf in _flat(value, (*key, name)).items()}


def portable(values: dict[str, Values]) -> dict[str, Values]:
    """Return values without the digests of columns, which hold to the bit on one machine only."""
    return {
        family: {name: {part: kept for part, kept in run.items() if part != "columns"} for name, run in runs.items()}
        for family, runs in values.items()
    }


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    write = actions.add_parser("write")
    write.add_argument("file", type=Path)
    write.add_argument("--embedded", action="store_true")
    write.add_argument("--families", nargs="*", default=list(tiny.FAMILIES))
    actions.add_parser("stored")
    compare = actions.add_parser("compare")
    compare.add_argument("files", type=Path, nargs=2)
    arguments = parser.parse_args()
    if arguments.action == "compare":
        lines = differences(*(json.loads(file.read_text(encoding="utf-8")) for file in arguments.files))
        sys.stdout.write("".join(f"{line}\n" for line in lines) or "all values are equal\n")
        return int(bool(lines))
    if arguments.action == "stored":
        stored = portable({family: tiny_values(family) for family in STORED_FAMILIES})
        STORED.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        return 0
    result = {family: tiny_values(family) for family in arguments.families}
    if arguments.embedded:
        result[EMBEDDED] = embedded_values()
    arguments.file.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
