"""One experiment on a Ray cluster: as many shards as it has workers, in one folder that all of them see.

Ray starts a killed worker's shard again, which takes up from the chunks that lie on the disk. The driver loads no
model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp import registry
from interp.errors import UserError
from interp.experiment import Experiment
from interp.files import as_path
from interp.given import as_asked, is_path
from interp.reading import NOTHING_SAID, Reading
from interp.run import Run
from interp.store import RunRecord

RETRIES = 5
"""How often a shard whose worker died is started again."""


def run_on_ray(
    name: str,
    experiment: Experiment,
    given: Mapping[str, Any],
    *,
    out: str | Path = "runs",
    memory: float | None = None,
    scale: str = "",
    foreign: bool = False,
    completions_from: Sequence[str] = (),
    asked: Mapping[str, Any] | None = None,
    reading: Reading = NOTHING_SAID,
) -> Run:
    """Run an experiment on the cluster of RAY_ADDRESS, or on a local one that is started for it.

    Args:
        name: of the experiment, or `path/to/file.py:Name`; workers load it themselves.
        experiment: its settings.
        given: "model", "vectors" and "task": names and paths, which workers load, or objects that can be pickled.
        out: folder of runs, on a file system that all workers see.
        memory: as for `run_experiment`, of each worker.
        scale: recorded in the run.
        foreign: as for `run_experiment`.
        completions_from: as for `run_experiment`.
        asked: as for `run_experiment`.
        reading: as for `run_experiment`.

    Raises:
        UserError: ray is not installed, or what a worker raised.
    """
    ray = _started()
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    count = max(1, gpus or int(resources.get("CPU", 1)))
    placed = {key: _absolute(value) if isinstance(value, str) else value for key, value in given.items()}
    options: dict[str, Any] = {"out": str(Path(out).resolve()), "memory": memory, "scale": scale, "foreign": foreign}
    options["reading"] = reading
    options["completions_from"] = [_absolute(one) for one in completions_from]
    options["asked"] = None if asked is None else as_asked(asked)
    task = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=RETRIES)(run_shard)
    settings = experiment.settings()
    shards = [task.remote(_absolute(name), settings, placed, (i + 1, count), options) for i in range(count)]
    try:
        (path, *_) = ray.get(shards)
    except KeyboardInterrupt:
        for shard in shards:
            ray.cancel(shard)  # a KeyboardInterrupt there, which keeps finished cells
        raise
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    return Run(RunRecord.read(path), experiment)


def _started() -> Any:
    """The library, connected to a cluster."""
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs the library ray", works="pip install 'small-vectors[ray]'") from None
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(log_to_driver=False)
    return ray


def run_shard(
    name: str, settings: dict[str, Any], given: dict[str, Any], shard: tuple[int, int], options: dict[str, Any]
) -> str:
    """One worker's cells; the folder of the run."""
    from interp.runner import run_experiment

    experiment = registry.load("experiments", name).model_validate(settings)
    return str(run_experiment(experiment, given, shard=shard, progress=False, **options).record.path)


def _absolute(value: str) -> str:
    """A path that means the same on a worker; other names as they are."""
    if not is_path(value):
        return value
    path, colon, name = value.rpartition(":") if ".py:" in value else (value, "", "")
    return f"{as_path(path).resolve()}{colon}{name}"
