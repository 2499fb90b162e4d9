"""The command `interp`. Commands are entry points; only the one that is called is imported."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import click

from interp import registry
from interp.cli.terminal import PIPE_CLOSED, flush, silence, tolerant_streams
from interp.errors import UserError


class Commands(click.Group):
    """Finds commands by entry point, so that an installed package can add one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All installed commands."""
        return registry.names("commands")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:  # noqa: ARG002
        """The command of a name.

        Raises:
            UserError: there is no such command, or it cannot be loaded.
        """
        found = registry.load("commands", cmd_name)
        if not isinstance(found, click.Command):
            raise UserError("this is no click command", given=cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line for each command that loads; a broken one says so."""
        lines: list[tuple[str, str]] = []
        for name in self.list_commands(ctx):
            try:
                lines.append((name, self.get_command(ctx, name).get_short_help_str(limit=90)))
            except UserError as error:
                lines.append((name, f"[{error}]"))
        with formatter.section("Commands"):
            formatter.write_dl(lines)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="small-vectors", prog_name="interp")
def app() -> None:
    """Mechanistic study of steering vectors. With --debug, an error shows its traceback."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code; docs/getting-started.md says what it means."""
    sys.exit(call(sys.argv[1:] if arguments is None else arguments))


def call(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    debug = "--debug" in arguments
    plain = [argument for argument in arguments if argument != "--debug"]
    with warnings.catch_warnings(), _interrupts(), tolerant_streams():
        warnings.showwarning = _show_warning
        try:
            code = app.main(args=plain, prog_name="interp", standalone_mode=False)
            flush()
        except BrokenPipeError:
            silence()
            return PIPE_CLOSED
        except (UserError, click.ClickException, OSError) as error:
            if debug:
                raise
            return _fail(_message(error))
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            return 130
    return code if isinstance(code, int) else 0


def _message(error: Exception) -> str:
    """The line for an error that is the user's, or their machine's, to mend."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    if not isinstance(error, OSError):
        return str(error)
    silence()  # perhaps it is the standard output that cannot be written
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return f"{reason}: {error.filename or 'the standard output, or a file that the system does not name'}"


@contextmanager
def _interrupts() -> Generator[None]:
    """Python drops an interrupt that arrives inside a destructor or an import lock's callback: send it again."""

    def again(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            return before(dropped)
        thread = threading.main_thread().ident or 0
        while True:
            try:  # later, because from here it would be dropped once more
                return threading.Timer(0.01, signal.pthread_kill, (thread, signal.SIGINT)).start()
            except KeyboardInterrupt:  # a busy machine took longer to start the timer than the timer waits
                continue

    before, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _fail(message: str) -> int:
    click.echo(f"interp: {' '.join(message.split())}", err=True)
    return 2


def _show_warning(message: Warning | str, *_: object) -> None:
    """A warning is one line, as an error is."""
    click.echo(f"interp: warning: {' '.join(str(message).split())}", err=True)
