"""`interp run EXPERIMENT`: one experiment, its settings as flags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from interp import registry
from interp.cli.asking import asking_flags, asking_options, pop_asking
from interp.cli.options import (
    DEFAULT_MODEL,
    completions_option,
    foreign_option,
    given_settings,
    memory_option,
    model_option,
    out_option,
    pop_reading,
    prompts_option,
    read_task,
    reading_options,
    setting_options,
    task_option,
    vectors_option,
)
from interp.errors import UserError
from interp.experiment import DEFAULT_SCALE, SCALES, Experiment
from interp.given import check_paths, default_vectors
from interp.reading import Reading

ENGINES = ("local", "ray")
_ASKED = ("task", "prompts", "foreign", "completions_from", "out")
"""Options beside model, vectors and settings that the recipe of a run repeats."""
_TYPED = click.core.ParameterSource.COMMANDLINE
_PATH_OPTIONS = ("--model", "--vectors", "--task", "--prompts")


class Experiments(click.Group):
    """A command for each experiment; its module is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All installed experiments."""
        return registry.names("experiments")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Check what can be checked before the experiment's module, and torch with it, is imported."""
        check_paths(**{name.removeprefix("--"): _after(args, name) for name in _PATH_OPTIONS})
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:  # noqa: ARG002
        """The command of an experiment.

        Raises:
            UserError: there is no such experiment.
        """
        cls = registry.load("experiments", cmd_name)
        if not (isinstance(cls, type) and issubclass(cls, Experiment)):
            raise UserError("this is no Experiment", given=cmd_name)
        return experiment_command(cmd_name, cls)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names alone: a line on each would import them all, and torch."""
        with formatter.section("Experiments (`interp run EXPERIMENT --help` shows its settings)"):
            formatter.write_dl([(name, "") for name in self.list_commands(ctx)])


@click.command(cls=Experiments, subcommand_metavar="EXPERIMENT [OPTIONS]")
def command() -> None:
    """Run one experiment and print the folder of the run."""


def experiment_command(name: str, cls: type[Experiment]) -> click.Command:
    """A command whose flags are the experiment's settings."""

    def callback(**values: Any) -> int:
        return _run(name, cls, values)

    about = (cls.__doc__ or "").strip() or name
    params: list[click.Parameter] = [*_options(list(cls.model_fields)), *setting_options(cls.model_fields)]
    return click.Command(name, params=params, callback=callback, help=about)


def _options(taken: Sequence[str]) -> list[click.Option]:
    scale = click.Option(
        ["--scale"], metavar="|".join(SCALES), default=DEFAULT_SCALE, show_default=True, help="Size of the settings."
    )
    shard = click.Option(["--shard"], metavar="I/N", help="Only every N-th cell, starting at the I-th.")
    shared = model_option(), vectors_option(), foreign_option(), task_option(), prompts_option()
    engine = click.Option(
        ["--engine"], type=click.Choice(ENGINES), default=ENGINES[0], show_default=True, help="What runs the cells."
    )
    flags = [*reading_options(taken), *asking_options()]
    return [*shared, *flags, scale, shard, engine, completions_option(), memory_option(), out_option()]


def _run(name: str, cls: type[Experiment], values: dict[str, Any]) -> int:
    """Run it; the exit code is 130 if it was interrupted."""
    experiment = cls.at(values["scale"], **given_settings(cls.model_fields, values))
    shard = parse_shard(values["shard"])
    reading = pop_reading(values)
    changed = asking_flags(values)
    given = _given(cls, values, reading)
    options = {key: values[key] for key in ("out", "memory", "scale", "foreign", "completions_from")}
    options["reading"] = reading
    asked = {"experiment": name, **given, **{key: values[key] for key in _ASKED}}
    options["asked"] = {**asked, **reading.arguments, **changed}
    if values["engine"] == "ray":
        from interp.ray_engine import run_on_ray

        if shard is not None:
            raise UserError("--engine ray makes the shards itself", given=f"--shard {values['shard']}")
        run = run_on_ray(name, experiment, given, **options)
    else:
        from interp.runner import run_experiment

        run = run_experiment(experiment, given, shard=shard, **options)
    if not run.partial:
        run.save_figures()
    for verdict in run.verdicts:
        click.echo(f"{verdict.get('claim')}: {verdict.get('phrase')}", err=True)
    click.echo(run.record.path)
    return 130 if run.interrupted else 0


def _given(cls: type[Experiment], values: dict[str, Any], reading: Reading) -> dict[str, Any]:
    """What the experiment needs, with defaults for what was not named."""
    if "model" not in cls.needs and click.get_current_context().get_parameter_source("model") == _TYPED:
        raise UserError("this experiment uses no model", given=f"--model {values['model']}", works="leave it out")
    given: dict[str, Any] = {"model": None, "vectors": values["vectors"], "task": None}
    if "model" in cls.needs:
        given["model"] = values["model"] or DEFAULT_MODEL
    if "vectors" in cls.needs and given["vectors"] is None:
        given["vectors"] = default_vectors(given["model"] or DEFAULT_MODEL, cls.prefers)
    asking = pop_asking(values)
    if "task" in cls.needs or values["task"] or values["prompts"]:
        given["task"] = read_task(values["task"], values["prompts"], asking, given["vectors"], reading)
    elif asking != type(asking)():
        raise UserError("flags of a task need a task", works="give --task or --prompts")
    return given


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """(i, n) from "i/n".

    Raises:
        UserError: it is no such pair.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError("a shard is i/n with 1 <= i <= n", given=text, works="--shard 1/4")
    return int(match[1]), int(match[2])


def _after(arguments: Sequence[str], option: str) -> str | None:
    """The value of an option in raw arguments."""
    for place, argument in enumerate(arguments):
        if argument == option and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return None
