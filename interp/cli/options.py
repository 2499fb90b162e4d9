"""Options that commands share, and options made from an experiment's settings."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Sequence as AbstractSequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click

from interp.errors import UserError
from interp.given import check_paths
from interp.limits import HIGHEST_SEED, MOST, VERBATIM
from interp.reading import NOTHING_SAID, PLACEMENTS, ROWS, TRAINED, Reading

DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_TASK = "word-problems"


class FiniteRange(click.FloatRange):
    """A number within bounds; click's own range lets NaN and infinity pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number.

        Raises:
            click.BadParameter: it is none, not finite, or out of bounds.
        """
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


COUNT = click.IntRange(1, MOST)
"""At least one."""
SEED = click.IntRange(0, HIGHEST_SEED)
TEMPERATURE = FiniteRange(min=0)
POSITIVE = FiniteRange(min=0, min_open=True)

_LISTS = (tuple, list, set, frozenset, AbstractSequence)


def model_option() -> click.Option:
    """--model."""
    help_text = "Model: alias, hub id, local Hugging Face folder, or .gguf file."
    return click.Option(["--model"], metavar="M", default=DEFAULT_MODEL, show_default=True, help=help_text)


def vectors_option() -> click.Option:
    """--vectors."""
    help_text = "Vectors: alias (see `interp list vectors`), file or folder in any known format."
    return click.Option(["--vectors"], metavar="V", help=help_text)


READING: tuple[tuple[str, Any, str], ...] = (
    ("site", click.Choice(PLACEMENTS), "Stream at which a bare tensor is added; other files state it."),
    ("layer", click.IntRange(0), "Block of a bare vector, 0 = first; other files state it."),
    ("rows", click.Choice(ROWS), "What row 0 of a matrix with L + 1 rows belongs to."),
    ("trained", click.Choice(TRAINED), "How the layers were trained, where a file does not say so."),
)
"""What a file of vectors may leave open: name, type and help of the flag."""


def reading_options(taken: Sequence[str] = ()) -> list[click.Option]:
    """--site, --layer, --rows and --trained.

    Args:
        taken: names of flags that a command has for something else; `--vector-layer` works everywhere.
    """
    return [
        click.Option(
            [f"reading_{name}", *([] if name in taken else [f"--{name}"]), f"--vector-{name}"],
            type=kind,
            help=f"For --vectors: {text}",
        )
        for name, kind, text in READING
    ]


def pop_reading(values: dict[str, Any]) -> Reading:
    """Take the answers about a file of vectors out of a command's values."""
    return Reading(**{name: values.pop(f"reading_{name}") for name, _, _ in READING})


def reads_vectors(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command's function the flags of `reading_options`, as an argument `reading`."""

    @wraps(callback)
    def call(**values: Any) -> Any:
        reading = pop_reading(values)
        return callback(**values, reading=reading)

    known: list[click.Option] = getattr(callback, "__click_params__", [])
    taken = [option.name or "" for option in known]
    call.__dict__["__click_params__"] = [*reversed(reading_options(taken)), *known]
    return call


def foreign_option() -> click.Option:
    """--foreign."""
    return click.Option(["--foreign"], is_flag=True, help="Allow vectors of other weights of the same shape.")


def task_option() -> click.Option:
    """--task."""
    help_text = "Task: alias, .jsonl with `problem` and optional `answer` and `system`, or hub dataset."
    return click.Option(["--task"], metavar="T", help=f"{help_text} [default: {DEFAULT_TASK}]")


def prompts_option() -> click.Option:
    """--prompts."""
    return click.Option(["--prompts"], metavar="FILE", help="In place of a task: a text file, one prompt a line.")


def memory_option() -> click.Option:
    """--memory."""
    return click.Option(["--memory"], type=POSITIVE, metavar="GB", help="Bound on what generation may hold.")


def completions_option() -> click.Option:
    """--completions-from."""
    help_text = "Let a server (OpenAI protocol; `base=URL` for the model without vectors) or a file complete prompts."
    return click.Option(["--completions-from"], multiple=True, metavar="URL|FILE", help=help_text)


def jobs_option() -> click.Option:
    """--jobs."""
    help_text = "Experiments side by side; by default one a core, at most 4, and one with CUDA."
    return click.Option(["--jobs"], type=click.IntRange(1), metavar="N", help=help_text)


def out_option(default: str = "runs") -> click.Option:
    """--out."""
    return click.Option(["--out"], metavar="DIR", default=default, show_default=True, help="Folder to write to.")


def add(*options: click.Option) -> Any:
    """A decorator that adds options to a command, in this order."""

    def decorate(command: click.Command) -> click.Command:
        command.params = [*command.params, *options]
        return command

    return decorate


def read_task(
    task: str | None,
    prompts: str | None,
    asking: Any = None,
    vectors: str | None = None,
    reading: Reading = NOTHING_SAID,
) -> Any:
    """The task of --task or --prompts; the default one if neither is given.

    Args:
        task: as --task.
        prompts: as --prompts.
        asking: how its problems are asked and graded, an `Asking`.
        vectors: as --vectors; their card is read where it holds the prompt that `asking` wants.
    """
    from interp.cli.asking import asked
    from interp.tasks import from_prompts, load_task

    if task is not None and prompts is not None:
        raise UserError("--task and --prompts exclude each other", works="give one of them")
    check_paths(task=task, prompts=prompts)
    problems = load_task(task or DEFAULT_TASK) if prompts is None else from_prompts(Path(prompts))
    return problems if asking is None else asked(problems, asking, vectors, reading)


def setting_options(fields: Mapping[str, Any]) -> list[click.Option]:
    """A flag for each setting, its help the field's docstring.

    Args:
        fields: pydantic's `model_fields`.
    """
    return [_option(name, field) for name, field in fields.items()]


def given_settings(fields: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from flags; lists are comma-separated, `none` is None where a setting allows it."""
    given = {name: values[name] for name in fields if values.get(name) is not None}
    return {name: _value(fields[name].annotation, value) for name, value in given.items()}


def _option(name: str, field: Any) -> click.Option:
    flag = name.replace("_", "-")
    shown = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
    help_text = f"{field.description or ''} [default: {shown}]".strip()
    if field.annotation is bool:
        return click.Option([f"--{flag}/--no-{flag}", name], default=None, help=help_text)
    return click.Option([f"--{flag}", name], metavar=_metavar(field.annotation), help=help_text)


def _shown(default: object) -> str:
    if isinstance(default, tuple | list | set | frozenset):
        return ",".join(map(str, default)) or "none"
    return "none" if default is None else str(default) or "empty"


def _metavar(annotation: Any) -> str:
    literals = _outer_literals(annotation)
    if literals and not _is_list(annotation):
        return "|".join(map(str, literals))
    if _is_list(annotation):
        return "A,B,..."
    kinds = {kind for kind in _members(annotation) if isinstance(kind, type)}
    return "INT" if int in kinds else "NUMBER" if float in kinds else "TEXT"


def _value(annotation: Any, text: Any) -> Any:
    if not isinstance(text, str):
        return text
    if text.lower() == "none" and type(None) in _members(annotation):
        return None
    if not _is_list(annotation) or text in _outer_literals(annotation):
        return text
    if text.lower() == "none" and text not in _inner(annotation):
        return []  # of a list, the word by which the help calls an empty one
    parts = text.split(",")
    return [part for part in parts if part] if VERBATIM in _inner(annotation) else _stripped(parts)


def _stripped(parts: Sequence[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]


def _inner(annotation: Any) -> list[Any]:
    """The arguments of a list's elements: the literals that they may be, or their marks."""
    elements = [element for member in _members(annotation) for element in get_args(member)]
    return [part for element in elements for part in get_args(element)]


def _members(annotation: Any) -> Sequence[Any]:
    """The types of a union, or the one type."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def _is_list(annotation: Any) -> bool:
    return any((get_origin(member) or member) in _LISTS for member in _members(annotation))


def _outer_literals(annotation: Any) -> list[Any]:
    return [value for member in _members(annotation) if get_origin(member) is Literal for value in get_args(member)]
