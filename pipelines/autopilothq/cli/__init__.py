"""The commands: arguments in, `run` called, results printed."""

import gc
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from .. import private, runner
from ..display import visible
from ..errors import BusyError
from . import log
from .forget import forget
from .inspect import schema, status
from .load import load, write_sample
from .profiles import load_profiles
from .send import send, show_deliveries


class _Program(click.Group):
    """The program's end is the same for all commands: errors are told in words, and runs to the webhook."""

    def invoke(self, context: click.Context) -> Any:
        """Runs the command."""
        log.hide(sys.argv[1:])
        try:
            result = super().invoke(context)
        except click.UsageError as error:
            log.mask(error)
            log.notify(_named(self, sys.argv[1:]), error.format_message())
            raise _visible(error) from None
        except click.ClickException as error:
            raise _visible(error) from None
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # a fault of the program's own, or of a library, is told in words as well
            if log.settings().debug:
                raise
            told = runner.in_words(error)
            log.fail(str(told), told.status)
            if not isinstance(told, BusyError):
                log.notify(_named(self, sys.argv[1:]), str(told))
            context.exit(told.status)
        except SystemExit as ended:
            log.notify(_named(self, sys.argv[1:]), log.summary() if ended.code else None)
            raise
        log.notify(_named(self, sys.argv[1:]), None)
        return result


def _visible(error: click.ClickException) -> click.ClickException:
    """The error, without what would act on the terminal: names of tables and the like are among its words."""
    words = error.format_message()
    if visible(words) == words:
        return error
    if isinstance(error, click.UsageError):
        return click.UsageError(visible(words), error.ctx)
    return click.ClickException(visible(words))


def _named(command: click.Command, words: Sequence[str]) -> list[str]:
    """The commands among the words of a call, without what they were told: that may be a secret."""
    named = []
    for word in words:
        if isinstance(command, click.Group) and word in command.commands:
            named.append(word)
            command = command.commands[word]
    return named


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="How log lines are written.")
@click.version_option(package_name="dlt-autopilothq")
@click.pass_context
def cli(context: click.Context, debug: bool, log_format: str) -> None:
    """Autopilot's email events in DuckDB or a warehouse, as the autopilothq schema."""
    context.obj = log.Settings(debug, log_format == "json")
    log.listen(*context.obj)
    more = {"runtime__log_format": "JSON"} if debug and context.obj.json else {}
    # What dlt calls an error is tried again, or told by the error that ends the run.
    runner.configure(**more, **({} if debug else {"runtime__log_level": "CRITICAL"}))


load.add_command(load_profiles)
for command in (load, write_sample, send, show_deliveries, schema, status, forget):
    cli.add_command(command)


def main() -> None:
    """The program `autopilothq`. Exit status: 0 done, 1 failed, 2 wrong words, 3 more rejects than allowed
    or no file, 4 not all was delivered, 75 busy.
    """
    # What libraries make is private too, and what a kill leaves. The shell opens what output is sent to, with its own.
    os.umask(os.umask(private.UMASK) | private.UMASK)
    # What was imported stays: that the garbage collector looks at it again and again is a tenth of a small load's time.
    if not gc.get_freeze_count():
        gc.freeze()
    cli()
