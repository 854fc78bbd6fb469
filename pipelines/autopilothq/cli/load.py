"""The commands that load."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import dlt
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.sources import DltSource
from rich.console import Console

from .. import runner, sample
from ..catalog import ACCOUNT, BOOKS, EVENT_TABLES, TRACKS
from ..errors import RunError
from ..runner import Steps
from ..sources.api.source import api
from ..sources.archive.source import archive
from . import log, out
from .options import load_options, where
from .progress import ProgressDisplay, check_found, check_rejects, print_result

# What `load api` can load, by the name that it is asked for.
API_TABLES = {"events": [TRACKS.name, *(table.name for table in EVENT_TABLES)]}
for _table in ACCOUNT:
    API_TABLES.setdefault(_table.name.removesuffix("_contacts"), []).append(_table.name)
NO_KEY = (
    "Expected the key of Autopilot's API, but there is none: set api_key under [sources.autopilothq] in"
    " .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__API_KEY in the environment."
)
KEPT = "What came by then is loaded; the next run goes on from there."
_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.group()
def load() -> None:
    """Load email events into the warehouse."""


@load.command("archive")
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("--since", type=_DAY, help="The first day to read (UTC).")
@click.option("--until", type=_DAY, help="The last day to read (UTC).")
@click.option("--source-id", help="The one Segment source to read.")
@click.option("--events", metavar="NAME,...", help="Only these events, as sent or by table; later runs add others.")
@click.option("--fail-if-empty", is_flag=True, help="Exit with 3 if there is no file, not even one that is loaded.")
@load_options
def load_archive(
    urls: tuple[str, ...],
    since: Any,
    until: Any,
    source_id: str | None,
    events: str | None,
    fail_if_empty: bool,
    destination: str | None,
    credentials: str | None,
    dataset: str | None,
    wait: timedelta,
    dry_run: bool,
    max_rejects: int | None,
    as_json: bool,
) -> None:
    """Load Segment's raw archive: files, folders, globs, s3://, gs://, az://."""
    if since and until and since > until:
        raise click.BadParameter(f"{since:%Y-%m-%d} is after --until {until:%Y-%m-%d}.", param_hint="--since")
    if not urls and not dlt.config.get("sources.autopilothq.archive_url"):
        raise click.UsageError(
            "Which archive? Name a URL, or set sources.autopilothq.archive_url in dlt's configuration."
        )
    started = time.monotonic()
    with ProgressDisplay(Console(stderr=True)) as watch:
        with runner.explained():
            words: dict[str, Any] = {"archive_url": list(urls)} if urls else {}
            source = archive(
                **words,
                since=since and since.date(),
                until=until and until.date(),
                source_id=source_id,
                events=events,
                progress=watch.report,
            )
        goal = where(destination, credentials, dataset)
        if dry_run:
            runner.dry_run(destination, credentials, dataset, Steps(watch), source)
        else:
            runner.run(runner.pipeline(destination, credentials, dataset, Steps(watch), wait=wait), source, wait)
    watch.last.seconds = time.monotonic() - started
    print_result(watch.last, as_json, dry_run, goal)
    check_found(watch.last, fail_if_empty)
    check_rejects(watch.last, max_rejects)


class Time(click.ParamType[datetime]):
    """A time in ISO 8601; UTC where it names no zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        """The time."""
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time like 2019-03-01 or 2019-03-01T12:00:00Z.", param, context)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


class _Names(click.ParamType[list[str]]):
    """Names of API_TABLES, joined by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> list[str]:
        """The tables that they stand for."""
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if name not in API_TABLES:
                self.fail(f"{name!r} is none of {', '.join(API_TABLES)}.", param, context)
        return [table for name in names for table in API_TABLES[name]]


@load.command("api")
@click.option("--since", type=Time(), metavar="TIME", help="The time of the first event to load.")
@click.option("--until", type=Time(), metavar="TIME", help="Where events end: where those of an archive begin.")
@click.option("--only", type=_Names(), metavar="NAME,...", help=f"Some of {', '.join(API_TABLES)}.")
@click.option("--user-id-field", metavar="NAME", help="The custom field with your own id of a contact.")
@click.option("--max-seconds", type=click.FloatRange(min=0), help="Fetch no longer; the next run goes on from there.")
@load_options
def load_api(
    since: datetime | None,
    until: datetime | None,
    only: list[str] | None,
    user_id_field: str | None,
    max_seconds: float | None,
    destination: str | None,
    credentials: str | None,
    dataset: str | None,
    wait: timedelta,
    dry_run: bool,
    max_rejects: int | None,
    as_json: bool,
) -> None:
    """Load email events, contacts, lists and segments from Autopilot's API.

    The key is the setting sources.autopilothq.api_key of dlt's configuration.
    """
    if since and until and since >= until:
        raise click.BadParameter(f"{since} is not before --until {until}.", param_hint="--since")
    started = time.monotonic()
    with ProgressDisplay(Console(stderr=True), "contacts") as watch:
        source = _api(
            since=since, until=until, user_id_field=user_id_field, max_seconds=max_seconds, progress=watch.report
        )
        if only:
            source = source.with_resources(*only, *(table.name for table in BOOKS))
        goal = where(destination, credentials, dataset)
        if dry_run:
            runner.dry_run(destination, credentials, dataset, Steps(watch), source)
        else:
            runner.run(runner.pipeline(destination, credentials, dataset, Steps(watch), wait=wait), source, wait)
    watch.last.seconds = time.monotonic() - started
    print_result(watch.last, as_json, dry_run, goal, "contacts")
    if watch.last.cut_off:
        raise RunError(watch.last.cut_off if dry_run else f"{watch.last.cut_off}\n{KEPT}")
    check_rejects(watch.last, max_rejects)


def _api(**words: Any) -> DltSource:
    """The source; what is None comes from dlt's configuration."""
    words["allow_http"] = log.allowed_http()
    with runner.explained():
        try:
            source: DltSource = api(**{name: word for name, word in words.items() if word is not None})
        except ConfigFieldMissingException as error:
            raise RunError(NO_KEY) from error
        return source


@click.command("sample")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--events", type=click.IntRange(min=1), default=10_000, show_default=True, help="How many messages.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same archive.")
def write_sample(folder: str, events: int, seed: int) -> None:
    """Write a believable archive to try things with."""
    files = sample.write(folder, events, seed)
    out.print_line(f"{events:,} messages in {len(files)} files below {folder}")
