"""The commands: arguments in, `run` called, results printed."""

import sys

import click

from .. import run
from ..run import RunError
from .load import load, write_sample
from .profiles import load_profiles


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="dlt-autopilothq")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Autopilot's email events in DuckDB or a warehouse, as the autopilothq schema."""
    context.obj = debug
    run.configure(**({} if debug else {"runtime__log_level": "ERROR"}))


load.add_command(load_profiles)
cli.add_command(load)
cli.add_command(write_sample)


def main() -> None:
    """The program `autopilothq`. Exit status: 0 done, 1 failed, 2 wrong words, 3 more rejects than allowed."""
    debug = "--debug" in sys.argv[1:]
    try:
        cli(standalone_mode=True)
    except RunError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.status)
