"""Options that several commands share, and the types of their values."""

import functools
import gc
import os
import re
import stat
import sys
from collections.abc import Callable, Collection, Sequence
from datetime import date, datetime, timedelta
from typing import Any, ClassVar, NamedTuple, TextIO

import click

from ..disk import local_path
from ..errors import RunError
from ..masking import remember_credentials
from ..utc import is_empty, parse_time
from ..warehouses.settings import DATASET, DUCKDB_FILE, TargetOptions
from . import log
from .configuring import configure_dlt

MAX_CREDENTIALS = 65_536  # characters of a file; the key of a service account has some 2,500

_EMPTY = "Expected a value, but got an empty text. For the default leave the option out."
_LONGEST = timedelta(days=36_500)  # time-outs of 300 years overflow in Python

_Command = Callable[..., Any]


# ---- values --------------------------------------------------------------------------------------------------------


class Duration(click.ParamType[timedelta]):
    """A time span like `90s`, `10m`, `2h` or `1d`."""

    name = "duration"
    _UNITS: ClassVar = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parses the span."""
        match = re.fullmatch(r"(\d{1,8})([smhd])", str(value))
        if match is None:
            self.fail(f"Expected a number with s, m, h or d, such as 2h, but got {value!r}.", param, ctx)
        length = timedelta(**{self._UNITS[match[2]]: int(match[1])})
        if length > _LONGEST:
            self.fail(f"Expected at most {_LONGEST.days}d, but got {value!r}.", param, ctx)
        return length


class Time(click.ParamType[datetime]):
    """A time in ISO 8601, in UTC if it has no zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parses the time."""
        if isinstance(value, str) and not value.strip():
            self.fail(_EMPTY, param, ctx)
        try:
            return parse_time(value)
        except ValueError:
            self.fail(f"Expected a time such as 2019-03-01 or 2019-03-01T12:00:00Z, but got {value!r}.", param, ctx)


class CalendarDay(click.ParamType[date]):
    """A day like `2019-03-01`."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Parses the day."""
        if isinstance(value, str) and not value.strip():
            self.fail(_EMPTY, param, ctx)
        try:
            return datetime.strptime(value, "%Y-%m-%d").date()  # noqa: DTZ007 - a day has no zone
        except ValueError:
            self.fail(f"Expected a day such as 2019-03-01, but got {value!r}.", param, ctx)


class Seconds(click.FloatRange):
    """A number of seconds within limits."""

    name = "number"


class WholeNumber(click.IntRange):
    """A whole number within limits."""

    name = "whole number"


def check_period(since: date | None, until: date | None) -> None:
    """Raises BadParameter if the period from --since to --until is empty."""
    if since and until and is_empty(since, until):
        raise click.BadParameter(
            f"Expected a later time than --since {since.isoformat()}, but got {until.isoformat()}.",
            param_hint="--until",
        )


class LocalPath(click.Path):
    """A local path. A `~` at its beginning is the home folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path. Fails for an empty one, which comes from an unset shell variable."""
        if not str(value).strip():
            self.fail("Expected a path, but got an empty text. The current folder is a dot: .", param, ctx)
        return super().convert(local_path(str(value)), param, ctx)


class NameList(click.ParamType[list[str]]):
    """Names separated by commas: any names, or only those in `known`. Example: `NameList(["events", "people"])`."""

    name = "names"

    def __init__(self, known: Collection[str] = ()) -> None:
        self._known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Returns the stripped names. Fails if there are none."""
        names = [name.strip() for name in value.split(",") if name.strip()]
        for name in names or [value]:
            if not names or (self._known and name not in self._known):
                expected = f"some of {', '.join(self._known)}" if self._known else "names, separated by commas"
                self.fail(f"Expected {expected}, but got {name!r}.", param, ctx)
        return names


def require_value(_: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Returns an option's value. Raises BadParameter if it is empty, as from an unset shell variable."""
    if value is not None and not value.strip():
        raise click.BadParameter(_EMPTY, param=param)
    return value


def archive_urls(urls: Sequence[str]) -> list[str]:
    """Returns `urls`, or the archives of dlt's configuration if it is empty. Raises UsageError if there are none."""
    import dlt

    from ..sources.settings import check_origin_settings, split_names

    if urls:
        return list(urls)
    found: Any = dlt.config.get("sources.autopilothq.archive_url")
    if not found:
        check_origin_settings("archive")  # it may be misspelt
        raise click.UsageError(
            "Which archive? Name a URL, or set sources.autopilothq.archive_url in dlt's configuration."
        )
    return split_names(found, "archive_url")


def is_stream(paths: Sequence[str]) -> bool:
    """Returns whether the only path is -, the stream on stdin. Raises UsageError if - comes with other paths."""
    if "-" in paths and len(paths) > 1:
        raise click.UsageError(
            "- cannot be combined with other paths: it is a stream, and files are read to their end."
        )
    return "-" in paths


def standard_input() -> TextIO:
    """Returns stdin. Raises RunError if it was closed, because another file may now have its descriptor."""
    if sys.stdin is None:
        raise RunError("Expected lines on stdin, but it is closed.\nGive them by a pipe (… | autopilothq …) or a file.")
    return sys.stdin


def credentials_of(value: str, param: click.Parameter | None = None) -> str:
    """Returns credentials: the value of a variable (`env:NAME`), the content of a file (`@FILE`), or `value` itself.

    They are masked in all later output of the program. Raises BadParameter if the variable is not set or the file
    cannot be read, or if either is empty.
    """
    found = value
    if value.startswith("env:"):
        found = os.environ.get(value[4:], "").rstrip("\r\n")
    elif value.startswith("@"):
        found = _content(local_path(value[1:]), param).rstrip("\r\n")
    if value and not found.strip():
        what = "that file is empty" if value.startswith("@") else "that variable is not set, or empty"
        raise click.BadParameter(f"Expected a value in {value}, but {what}.", param=param)
    remember_credentials(found)
    return found


def read_credentials(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Returns the credentials that an option gives, as `credentials_of` does. Raises BadParameter for an empty text."""
    given = require_value(context, param, value)
    return given and credentials_of(given, param)


def _content(path: str, param: click.Parameter | None) -> str:
    """Returns the content of a file of credentials, and warns if everybody can read it.

    Raises BadParameter if it cannot be read or is too long.
    """
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_CREDENTIALS + 1)
    except (OSError, ValueError) as error:  # ValueErrors: NUL in the path, and bytes that are not UTF-8
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise click.BadParameter(f"Expected a value in @{path}, but it cannot be read: {why}.", param=param) from None
    if len(content) > MAX_CREDENTIALS:
        raise click.BadParameter(
            f"Expected a value in @{path}, but it has more than {MAX_CREDENTIALS:,} characters.", param=param
        )
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        log.warn(f"Everybody on this machine can read the credentials in {path}. Keep them to yourself: chmod 600")
    return content


# ---- options -------------------------------------------------------------------------------------------------------


class LoadOptions(NamedTuple):
    """The options that all loading commands have."""

    target: TargetOptions
    wait: timedelta
    dry_run: bool
    max_rejects: int | None
    as_json: bool


def _set_allow_http(context: click.Context, _: click.Parameter, given: bool) -> None:
    context.find_root().meta[log.ALLOW_HTTP_KEY] = given


def add_options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Returns a decorator that adds options to a command, in the order in which its help lists them."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_destination_options = add_options(
    click.option(
        "--destination",
        metavar="NAME",
        callback=require_value,
        help="dlt's name for the destination.  [default: duckdb]",
    ),
    click.option(
        "--credentials",
        metavar="URL|PATH|env:NAME|@FILE",
        callback=read_credentials,
        help="Its credentials, as dlt takes them. Every user of this machine can see a password on a command line: name"
        " a variable (env:NAME) or a file (@FILE) that holds it, or set it in dlt's configuration.  [default:"
        f" {DUCKDB_FILE}]",
    ),
    click.option(
        "--dataset",
        metavar="NAME",
        callback=require_value,
        help=f"The schema that has the tables.  [default: {DATASET}]",
    ),
    click.option(
        "--books-dataset",
        metavar="NAME",
        callback=require_value,
        help="Another schema for the bookkeeping tables, such as _audit.  [default: the same]",
    ),
)

wait_option = click.option(
    "--wait",
    type=Duration(),
    default="0s",
    metavar="TIME",
    help="How long to wait for another run, or for a DuckDB file in use: 90s, 10m.  [default: not at all]",
)
allow_http_option = click.option(
    "--allow-http",
    is_flag=True,
    expose_value=False,
    callback=_set_allow_http,
    help="Allow http:// to other machines, although anyone on the way can read the keys and the webhook's URL.",
)
max_seconds_option = click.option(
    "--max-seconds",
    type=Seconds(min=0),
    metavar="SECONDS",
    help="Stop fetching after this time; the next run continues from there.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def with_dlt(command: _Command) -> _Command:
    """Configures dlt before a command runs, for commands that have no target."""

    @functools.wraps(command)
    def call(**more: Any) -> Any:
        configure_dlt(None)
        return command(**more)

    return call


@functools.cache
def freeze_modules() -> None:
    """Excludes imported modules from garbage collection, which would take a tenth of the time of a small load."""
    gc.freeze()


def target_options(command: _Command) -> _Command:
    """Adds the options of a target; the command gets them as one TargetOptions, `target`.

    dlt is imported and configured when the command runs, so that its help is fast.
    """

    @functools.wraps(command)
    def call(
        *,
        destination: str | None,
        credentials: str | None,
        dataset: str | None,
        books_dataset: str | None,
        **more: Any,
    ) -> Any:
        configure_dlt(books_dataset)
        return command(target=TargetOptions(destination, credentials, dataset), **more)

    return _destination_options(call)


def options_as(kind: type[Any]) -> Callable[[_Command], _Command]:
    """Returns a decorator for a command that gets options as one NamedTuple of this kind, `options`."""

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def call(**given: Any) -> Any:
            own = {name: given.pop(name) for name in kind._fields if name in given}
            return command(options=kind(**own), **given)

        return call

    return decorate


load_options = add_options(
    target_options,
    wait_option,
    allow_http_option,
    click.option("--dry-run", is_flag=True, help="Read and count, load nothing."),
    click.option(
        "--max-rejects", type=WholeNumber(min=0), metavar="N", help="Exit with 3 if more lines than this were rejected."
    ),
    json_option,
    options_as(LoadOptions),
)
"""Adds the options that all loading commands have; the command gets them as one LoadOptions, `options`."""


def describe_target(options: TargetOptions) -> dict[str, str]:
    """Returns where a target's data is, with the keys `destination`, `location`, `dataset` and `pipeline` (dlt's)."""
    from ..explain import explained
    from ..warehouses.pipeline_names import pipeline_name
    from ..warehouses.resolve import resolve_target

    with explained():
        target = resolve_target(options)
        return {
            "destination": target.kind,
            "location": target.path_or_url,
            "dataset": target.dataset,
            "pipeline": pipeline_name(str(target)),
        }
