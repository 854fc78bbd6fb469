"""The program `autopilothq`: its commands, and the end of every run: errors, notes and exit statuses."""

import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from .. import private
from ..display import visible
from ..errors import BusyError, causes
from . import log, notes, out
from .adopt import adopt_tables
from .contacts import contact_commands
from .export import export
from .forget import forget
from .forward import forward
from .hooks import hook_commands
from .inspect import schema, status
from .load import load, write_sample
from .mapping import show_mapping
from .models import models
from .ortto import load_ortto
from .profiles import load_profiles
from .receive import receive
from .report import report
from .send import send, show_deliveries

# Python's garbage collector runs after this many new objects, and visits older ones in every 20th run, the oldest in
# every 2,000th.
COLLECTED = (50_000, 20, 100)
_MOST_NAMES = 4  # options that an error names at most


class _Program(click.Group):
    """Ends all commands in the same way: explains errors, and notifies the webhook of the end of a run."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Reads the program's own options; `--help` and `--version` print their text and exit."""
        try:
            return super().make_context(*args, **options)
        except BrokenPipeError:
            raise  # nobody reads the output: click ends the program silently
        except OSError as error:  # a full disk
            from ..explain import explain

            explanation = explain(error)
            log.fail(str(explanation), explanation.status)
            raise click.exceptions.Exit(explanation.status) from None

    def invoke(self, context: click.Context) -> Any:
        """Runs the command, and exits with 130 if Ctrl-C interrupts it."""
        try:
            return self._invoke(context)
        except (Exception, KeyboardInterrupt) as error:
            if not _was_interrupted(error):
                raise
            log.abort(_commands(self, sys.argv[1:]), out.INTERRUPTED)
            context.exit(out.INTERRUPTED)

    def _invoke(self, context: click.Context) -> Any:
        log.hide_credentials(sys.argv[1:])
        commands = _commands(self, sys.argv[1:])
        try:
            result = super().invoke(context)
        except click.exceptions.NoArgsIsHelpError:
            raise  # a group without a command: click shows its help
        except click.ClickException as error:
            if isinstance(error, click.UsageError):
                log.mask(error)
                _name_options(error)
                notes.notify(commands, error.format_message())
            if log.log_settings().json:
                log.fail(error.format_message(), error.exit_code)
                context.exit(error.exit_code)
            raise _visible(error) from None
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # errors of the program itself and of libraries are explained as well
            if log.log_settings().debug or _was_interrupted(error):
                raise
            context.exit(_explain(error, commands))
        except SystemExit as end:
            notes.notify(commands, notes.summary() if end.code else None)
            raise
        notes.notify(commands, None)
        return result


def _explain(error: Exception, commands: Sequence[str]) -> int:
    """Prints what an error means, and notifies the webhook; returns the exit status.

    Raises BrokenPipeError if nobody reads the output: then click ends the program silently, as is usual for `head`.
    """
    from ..explain import explain

    explanation = explain(error)
    broken_pipe = _broken_pipe(error)
    if not broken_pipe:
        log.fail(str(explanation), explanation.status)
    if not isinstance(explanation, BusyError):
        notes.notify(commands, str(explanation))
    if broken_pipe:
        raise broken_pipe from None
    return explanation.status


def _broken_pipe(error: BaseException) -> BrokenPipeError | None:
    """Returns the BrokenPipeError of a reader that has closed the output, None if another error ended the run."""
    chain = causes(error, "__cause__", "__context__")
    broken = next((cause for cause in chain if isinstance(cause, BrokenPipeError)), None)
    return broken if broken and out.is_unread() else None


def _was_interrupted(error: BaseException) -> bool:
    """Returns whether Ctrl-C caused an error: dlt and prompts turn it into other errors.

    dlt raises the same error for SIGTERM, with the number of the signal.
    """
    return any(
        isinstance(cause, KeyboardInterrupt) and getattr(cause, "signal_code", signal.SIGINT) == signal.SIGINT
        for cause in causes(error, "__context__")
    )


def _visible(error: click.ClickException) -> click.ClickException:
    """Returns the error with control characters escaped in its message, which may quote names of tables."""
    message = error.format_message()
    if visible(message) == message:
        return error
    if isinstance(error, click.UsageError):
        return click.UsageError(visible(message), error.ctx)
    return click.ClickException(visible(message))


def _name_options(error: click.UsageError) -> None:
    """Adds a command's options to the error about an argument, if the command takes no arguments.

    Options about emails come first if the argument looks like an address.
    """
    command = error.ctx.command if error.ctx else None
    if command is None or not error.message.startswith("Got unexpected extra argument"):
        return
    if any(isinstance(parameter, click.Argument) for parameter in command.params):
        return
    names = [
        parameter.opts[0]
        for parameter in command.params
        if isinstance(parameter, click.Option) and not (parameter.is_flag or parameter.hidden)
    ]
    if "@" in error.message:
        names.sort(key=lambda name: "email" not in name)
    most = ", ".join(names[:_MOST_NAMES]) + ", …" * (len(names) > _MOST_NAMES)
    vars(error)["message"] = f"{error.message}: {command.name} takes no arguments, only options{most and f' ({most})'}."


def _commands(command: click.Command, args: Sequence[str]) -> list[str]:
    """Returns the names of the commands among the arguments of a call, without values, which may be secret."""
    names = []
    for arg in args:
        if isinstance(command, click.Group) and arg in command.commands:
            names.append(arg)
            command = command.commands[arg]
    return names


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="How log lines are written.")
@click.version_option(package_name="dlt-autopilothq")
@click.pass_context
def cli(context: click.Context, debug: bool, log_format: str) -> None:
    """Autopilot's email events in DuckDB or a warehouse, as the autopilothq schema."""
    context.obj = log.LogSettings(debug, log_format == "json")
    log.configure_logging(*context.obj)
    try:
        os.getcwd()
    except FileNotFoundError:  # dlt, which hides secrets in errors, cannot be imported there
        raise click.ClickException("The current folder was removed. Call the program in another one.") from None


load.add_command(load_ortto)
load.add_command(load_profiles)
for command in (
    *(load, adopt_tables, show_mapping, receive, write_sample, send, contact_commands, hook_commands, forward),
    *(show_deliveries, schema, status, models, report, export, forget),
):
    cli.add_command(command)


def main() -> None:
    """Runs the program `autopilothq`.

    Exit status: 0 done; 1 failed, or a command found something to look at; 2 wrong arguments; 3 more rejects than
    allowed, or no file; 4 not everything was delivered; 75 busy; 130 ended by Ctrl-C.
    """
    # Keeps files of libraries, and those that a killed run leaves, private. Redirected output has the shell's umask.
    os.umask(os.umask(private.UMASK) | private.UMASK)
    # With Python's threshold of 700 new objects, the collector takes a tenth of a small load's time and finds little.
    gc.set_threshold(*COLLECTED)
    cli(prog_name="autopilothq")  # `python -m autopilothq` would show another name
