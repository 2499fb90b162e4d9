"""`interp train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interp.cli.asking import asked, asks
from interp.cli.options import COUNT, POSITIVE, SEED
from interp.errors import UserError
from vectors.catalogue import PRETRAINED
from vectors.train.plan import EMBEDDED_MODEL, EMBEDDED_TASK, embedded_plan
from vectors.train.settings import KINDS, PLACES, REWARDS, TrainSettings

if TYPE_CHECKING:
    from interp.model import Model
    from interp.tasks.task import Task
    from vectors.train.trainer import Trained

DTYPE = click.Choice(["float32", "bfloat16", "float16", "float64"])


@click.command("train")
@click.option("--model", metavar="M", default=EMBEDDED_MODEL, show_default=True, help="Model to train for.")
@click.option("--task", metavar="T", default=EMBEDDED_TASK, show_default=True, help="Task with a train split.")
@click.option("--layers", metavar="L", default="all", show_default=True, help="all, each (in turn), or 0,5,9 together.")
@click.option("--kind", type=click.Choice(KINDS), default="vector", show_default=True, help="What is trained.")
@click.option("--place", type=click.Choice(PLACES), default="mlp_out", show_default=True, help="Where a vector goes.")
@click.option("--rank", type=COUNT, help="Of LoRA; for vectors, of the matrix over layers.")
@click.option("--reward", type=click.Choice(REWARDS), default="correct", show_default=True, help="What is rewarded.")
@click.option("--steps", type=COUNT, default=40, show_default=True, help="Updates.")
@click.option("--prompts", type=COUNT, default=16, show_default=True, help="Problems a step.")
@click.option("--samples", type=click.IntRange(2), default=8, show_default=True, help="Completions of each problem.")
@click.option("--rate", type=POSITIVE, help="AdamW's rate; by rule if not given.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of every random draw.")
@click.option("--validate-every", type=COUNT, default=10, show_default=True, help="Steps.")
@click.option("--test", "n_test", type=click.IntRange(0), help="Test problems at the end; all if not given.")
@click.option("--plan", type=click.Choice(["embedded"]), help="Train what the shipped set still lacks.")
@click.option("--resume", is_flag=True, help="Continue a run of the same settings; a plan always does.")
@click.option(
    "--dtype",
    type=DTYPE,
    help="Of the weights; the checkpoint's own if not given.",
)
@click.option("--out", metavar="DIR", default="runs", show_default=True, help="Folder of runs.")
@click.option("--install", metavar="DIR", help="Folder that gets finished sets; with a plan, the shipped set's.")
@asks()
def command(
    model: str, task: str, plan: str | None, install: str | None, resume: bool, asking: Any, **options: Any
) -> None:
    """Train steering vectors, adapters or all weights with RLOO."""
    dtype, out, layers = options.pop("dtype"), options.pop("out"), options.pop("layers")
    if plan is None:
        chosen = _settings(layers, options)
        runner = _Runner(model, task, dtype, Path(out), Path(install) if install else None, asking)
        for settings in runner.in_turn(chosen) if layers == "each" else [chosen]:
            runner.train(settings, resume=resume)
        return
    if (model, task) != (EMBEDDED_MODEL, EMBEDDED_TASK) or asking != type(asking)():
        raise UserError("the plan is for the embedded model and its task", given=f"{model}, {task}")
    folder = Path(install) if install else PRETRAINED / model
    _Runner(model, task, dtype, Path(out), folder, asking).share(embedded_plan())


def _settings(layers: str, options: dict[str, Any]) -> TrainSettings:
    """Settings from flags.

    Raises:
        UserError: `--layers` is no list of blocks.
    """
    numbers: tuple[int, ...] = ()
    if layers not in ("all", "each"):
        try:
            numbers = tuple(int(part) for part in layers.split(","))
        except ValueError:
            raise UserError("no such layers", given=layers, works="all, each, or blocks such as 0,5,9") from None
    n_test = options.pop("n_test")
    settings = TrainSettings.model_validate({**options, "layers": numbers, "test": n_test})
    settings.check_kind()
    return settings


class _Runner:
    """Loads model and task once and trains one run after another."""

    def __init__(
        self, model: str, task: str, dtype: str | None, out: Path, install: Path | None, asking: Any = None
    ) -> None:
        from interp.before_loading import check_call
        from interp.given import as_task

        check_call({"model": model, "task": task}, out=out)
        check_call({}, out=install)
        self._name, self._dtype, self.out, self.install = model, dtype, out, install
        self.task: Task = as_task(task) if asking is None else asked(as_task(task), asking, None)
        for split in ("train", "validation"):
            self.task.problems(split)
        self._model: Model | None = None

    @property
    def model(self) -> Model:
        """Loaded when it is first needed."""
        if self._model is None:
            from interp.load import load_model

            self._model = load_model(self._name, dtype=self._dtype)
        return self._model

    def in_turn(self, settings: TrainSettings) -> list[TrainSettings]:
        """The same settings for each block alone."""
        return [settings.model_copy(update={"layers": (layer,)}) for layer in range(self.model.n_layers)]

    def train(self, settings: TrainSettings, *, resume: bool) -> Trained:
        """Train one run and write its set into its folder, and to where finished sets go."""
        from vectors.train.result import install, rivals
        from vectors.train.trainer import train

        trained = train(self.model, self.task, settings, out=self.out, resume=resume, say=_say)
        folders = [trained.path / "sets" / Path(self._name).name, *([self.install] if self.install else [])]
        kept: dict[Path, Path | None] = {}
        for folder in folders:
            path = install(trained, folder, trials=rivals(trained))
            if path is not None or settings.kind == "full":
                kept[folder] = path
            _say(f"{path or f'{trained.path}, not put into {folder}'}")
        if settings.kind == "full":
            self._model = None  # its weights have moved
        self._record(trained, kept)
        return trained

    def _record(self, trained: Trained, kept: dict[Path, Path | None]) -> None:
        """Write answers by problem, the untrained model's too, and the change on fixed texts beside the sets."""
        from vectors.load import load_intervention
        from vectors.train.record import BASE, RECORDS, base_record, record_of
        from vectors.train.result import rivals, shipped

        trials = 1 + len(rivals(trained))
        # where all weights are trained they do not ship, so what needs both models is measured now
        others = shipped(list(kept)[-1], self.model) if trained.parameters.settings.kind == "full" else {}
        record = record_of(trained, self.model, self.task, others=others, trials=trials)
        for folder, path in kept.items():
            ships = None if path is None else load_intervention(path)
            known = {} if ships is None else {"digest": ships.digest, "trials": ships.card.runs}
            _say(f"{record.model_copy(update=known).save(folder)}")
        if self.install and not (self.install / RECORDS / f"{BASE}@0.json").exists():
            untrained = base_record(self.model, self.task, test=trained.parameters.settings.test)
            _say(f"{untrained.save(self.install)}")

    def share(self, plan: list[TrainSettings]) -> None:
        """Train what is neither finished, here or in the folder of sets, nor under way in another process, in order."""
        from filelock import FileLock, Timeout

        from interp.store import Store
        from vectors.train.record import recorded
        from vectors.train.result import set_name
        from vectors.train.trainer import describe

        for settings in plan:
            whole = settings.checked(self.model.n_layers)
            folder = Store(self.out).folder(describe(self.model, self.task, whole))
            record = folder.read()
            finished = record is not None and not record.partial and (folder.path / "sets").is_dir()
            if finished or (self.install and recorded(self.install, settings, self.model.n_layers)):
                _say(f"{set_name(whole, self.model.n_layers)}@{whole.seed} is there")
                continue
            folder.path.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(folder.path / ".plan.lock", timeout=0):
                    _say(f"training {folder.path}: {whole.model_dump_json(exclude_defaults=True)}")
                    self.train(settings, resume=True)
            except Timeout:
                continue


def _say(text: str) -> None:
    click.echo(text, err=True)
