"""Options that several commands have."""

import os
import re
import stat
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import click
import dlt

from .. import runner
from ..masking import remember_credentials
from . import log

MOST_CREDENTIALS = 65_536  # characters of a file; a service account's key has some 2,500


def _set_books_dataset(context: click.Context, param: click.Parameter, value: str | None) -> None:  # noqa: ARG001
    if value:
        dlt.config["books_dataset"] = value


def destination_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the data goes, or is: dlt's words with dlt's meaning."""
    for option in (
        click.option(
            "--books-dataset",
            expose_value=False,
            callback=_set_books_dataset,
            help="Another schema for the tables that loads keep for themselves, such as _audit.  [default: the same]",
        ),
        click.option("--dataset", help=f"The schema.  [default: {runner.DATASET}]"),
        click.option(
            "--credentials",
            metavar="URL|PATH|env:NAME|@FILE",
            callback=lambda _, param, value: value if value is None else credentials_of(value, param),
            help="dlt's credentials of it. Everybody on this machine sees a password in a command line: name the"
            f" variable (env:NAME) or the file (@FILE) that has it, or set it.  [default: {runner.DUCKDB_FILE}]",
        ),
        click.option("--destination", help="dlt's name of the destination.  [default: duckdb]"),
    ):
        command = option(command)
    return command


def credentials_of(value: str, param: click.Parameter | None = None) -> str:
    """Returns what `--credentials` means: the value of a variable for `env:NAME`, the content of a file for `@FILE`.

    Anything else is meant as it is. What was found is masked in all that the program prints. Raises BadParameter.
    """
    found = value
    if value.startswith("env:"):
        found = os.environ.get(value[4:], "").rstrip("\r\n")
    elif value.startswith("@"):
        found = _content(value[1:], param).rstrip("\r\n")
    if value and not found.strip():
        what = "that file is empty" if value.startswith("@") else "that variable is not set, or empty"
        raise click.BadParameter(f"Expected credentials in {value}, but {what}.", param=param)
    remember_credentials(found)
    return found


def _content(path: str, param: click.Parameter | None) -> str:
    """What a file of credentials holds; warns where others can read it too."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MOST_CREDENTIALS + 1)
    except (OSError, ValueError) as error:  # a path with NUL, and bytes that are no text, are ValueErrors
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise click.BadParameter(
            f"Expected credentials in @{path}, but it cannot be read: {why}.", param=param
        ) from None
    if len(content) > MOST_CREDENTIALS:
        raise click.BadParameter(
            f"Expected credentials in @{path}, but it has more than {MOST_CREDENTIALS:,} characters.",
            param=param,
        )
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        log.warn(f"Everybody on this machine can read the credentials in {path}. Keep them to yourself: chmod 600")
    return content


def _allow_http(context: click.Context, _: click.Parameter, given: bool) -> None:
    context.find_root().meta[log.ALLOW] = given


allow_http_option = click.option(
    "--allow-http",
    is_flag=True,
    expose_value=False,
    callback=_allow_http,
    help="Let keys and the webhook's URL go over http:// to another machine, for everyone on the way to read.",
)


def where(destination: str | None, credentials: str | None, dataset: str | None) -> dict[str, str]:
    """Where the data of these words goes: `destination`, `location`, `dataset`, and the `pipeline` of dlt."""
    with runner.explained():
        place = runner.resolve_target(destination, credentials, dataset)
        return {
            "destination": place.kind,
            "location": place.database or place.location,
            "dataset": place.dataset,
            "pipeline": runner.pipeline_name(str(place)),
        }


class Duration(click.ParamType[timedelta]):
    """A time span like `90s`, `10m`, `2h` or `1d`."""

    name = "duration"
    _UNITS: ClassVar = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Reads it."""
        words = re.fullmatch(r"(\d{1,8})([smhd])", str(value))
        if words is None:
            self.fail(f"Expected a number with s, m, h or d, such as 2h, but got {value!r}.", param, ctx)
        return timedelta(**{self._UNITS[words[2]]: int(words[1])})


wait_option = click.option(
    "--wait",
    type=Duration(),
    default="0s",
    metavar="TIME",
    help="How long to wait for another run, or for a DuckDB file in use.",
)


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all commands that load can be told."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option(
            "--max-rejects", type=click.IntRange(min=0), help="Exit with 3 if more lines than that were rejected."
        ),
        click.option("--dry-run", is_flag=True, help="Read and count, load nothing."),
    ):
        command = option(command)
    return destination_options(wait_option(allow_http_option(command)))
