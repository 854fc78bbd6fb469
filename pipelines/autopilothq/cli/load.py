"""The commands `load archive`, `load api` and `sample`."""

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..catalog import ACCOUNT, BOOKS, EVENT_TABLE_NAMES, TRACKS
from ..display import plural
from ..errors import EngineError
from . import log, out
from .configuring import missing_explained
from .options import (
    CalendarDay,
    LoadOptions,
    LocalPath,
    NameList,
    Time,
    WholeNumber,
    archive_urls,
    check_period,
    load_options,
    max_seconds_option,
    require_value,
)

if TYPE_CHECKING:
    from dlt.sources import DltSource

    from ..sources.engine.executors import EngineFactory
    from .progress import ProgressDisplay

# The tables that `load api` can load, by their names for `--only`.
API_TABLES = {"events": [TRACKS.name, *EVENT_TABLE_NAMES]}
for _table in ACCOUNT:
    API_TABLES.setdefault(_table.name.removesuffix("_contacts"), []).append(_table.name)


@click.group()
def load() -> None:
    """Load email events into the warehouse."""


@load.command("archive", short_help="Load Segment's raw archive: files, folders, buckets.")
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("--since", type=CalendarDay(), metavar="YYYY-MM-DD", help="The first day to read (UTC).")
@click.option("--until", type=CalendarDay(), metavar="YYYY-MM-DD", help="The last day to read (UTC).")
@click.option("--source-id", metavar="ID", callback=require_value, help="Read only files of this Segment source.")
@click.option("--events", metavar="NAME,...", help="Only these events, as sent or by table; later runs add others.")
@click.option(
    "--engine",
    metavar="NAME:WHERE",
    help="Share the load among workers: processes:8, dask:tcp://scheduler:8786 or ray:auto.",
)
@click.option(
    "--work-url",
    metavar="URL",
    callback=require_value,
    help="A folder or bucket that all workers of the engine can write to.",
)
@click.option(
    "--fail-if-empty", is_flag=True, help="Exit with 3 if no file is found, not even one that is loaded already."
)
@load_options
def load_archive(
    urls: tuple[str, ...],
    since: date | None,
    until: date | None,
    engine: str | None,
    work_url: str | None,
    fail_if_empty: bool,
    options: LoadOptions,
    **settings: Any,
) -> None:
    """Load Segment's raw archive: files, folders, globs, s3://, gs://, az://.

    Without a URL, the setting sources.autopilothq.archive_url of dlt's configuration names the archive.
    """
    from ..explain import explained
    from ..sources.archive.source import archive
    from .loading import run_load_command
    from .progress import check_found

    settings |= {"since": since, "until": until, "hook_contacts": True}
    check_period(since, until)
    archive_urls(urls)
    if urls:
        settings["archive_url"] = list(urls)
    if engine:
        settings |= {"executor": _engine(engine, work_url), "work_url": work_url}
    elif work_url:
        raise click.UsageError("--work-url is for the workers of an engine: name it with --engine.")

    given = {name: value for name, value in settings.items() if value is not None}  # dlt would take None as the value

    def sources(display: "ProgressDisplay") -> "Iterator[DltSource]":
        with explained():
            source: DltSource = archive(**given, progress=display.report)
        yield source

    check_found(run_load_command(sources, options), fail_if_empty)


def _engine(name: str, work_url: str | None) -> "EngineFactory":
    from ..sources.engine.executors import engine_of

    try:
        engine = engine_of(name)
    except EngineError as error:
        raise click.BadParameter(str(error), param_hint="--engine") from None
    if work_url is None and not name.startswith("processes:"):
        raise click.UsageError(
            f"--engine {name} needs --work-url: a folder or a bucket that all its workers can write to."
        )
    return engine


@load.command("api", short_help="Load events, contacts, lists and segments from Autopilot.")
@click.option("--since", type=Time(), metavar="TIME", help="The time of the first event to load.")
@click.option(
    "--until", type=Time(), metavar="TIME", help="Load events before this time, such as the first of an archive."
)
@click.option("--only", type=NameList(API_TABLES), metavar="NAME,...", help=f"Some of {', '.join(API_TABLES)}.")
@click.option("--user-id-field", metavar="NAME", help="The custom field that holds your own id of a contact.")
@max_seconds_option
@load_options
def load_api(
    since: datetime | None, until: datetime | None, only: list[str] | None, options: LoadOptions, **settings: Any
) -> None:
    """Load email events, contacts, lists and segments from Autopilot's API.

    The key is the setting sources.autopilothq.api_key of dlt's configuration.
    """
    from .loading import run_load_command

    check_period(since, until)

    def sources(display: "ProgressDisplay") -> "Iterator[DltSource]":
        source = _api(since=since, until=until, progress=display.report, **settings)
        tables = [table for name in only or () for table in API_TABLES[name]]
        yield source.with_resources(*tables, *(table.name for table in BOOKS)) if tables else source

    # Events are made of contacts; no other table is.
    reads_contacts = only is None or not {"events", "contacts"}.isdisjoint(only)
    run_load_command(sources, options, "contacts" if reads_contacts else "rows")


def _api(**settings: Any) -> "DltSource":
    """Returns the source; settings that are None come from dlt's configuration."""
    from ..clients.auth import missing_key
    from ..explain import explained
    from ..sources.api.source import api

    settings["allow_http"] = log.allowed_http()
    missing = missing_key("the key of Autopilot's API", "sources.autopilothq.api_key")
    with explained(), missing_explained(api_key=missing):
        source: DltSource = api(**{name: value for name, value in settings.items() if value is not None})
        return source


@click.command("sample")
@click.argument("folder", metavar="FOLDER", type=LocalPath(file_okay=False))
@click.option(
    "--events", type=WholeNumber(min=1), metavar="N", default=10_000, show_default=True, help="How many messages."
)
@click.option(
    "--seed", type=int, metavar="N", default=1, show_default=True, help="The same seed gives the same archive."
)
def write_sample(folder: str, events: int, seed: int) -> None:
    """Write a realistic archive of sample messages."""
    from .. import private, sample

    with private.writing(Path(folder)):
        files = sample.write(folder, events, seed)
    out.print_line(f"{plural(events, 'message')} in {plural(len(files), 'file')} below {folder}")
