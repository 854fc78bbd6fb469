"""Segment's raw archive as an origin, and as a dlt source."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dlt
from dlt.sources import DltResource

from ...catalog import CONTACTS, MAX_EVENT_TABLES
from ...display import plural
from ...errors import NotSupported
from ...projection import TableRows
from ...segment.mapping import Mappings, read_mappings
from ...segment.message import Batch
from ...utc import is_empty, to_utc
from ...warehouses.hints import SOURCE
from ..engine.coordinator import EngineProjector
from ..event_filter import requested_messages
from ..origin import MESSAGE_RESOURCES, LoadContext, Origin
from ..plan import LoadSettings, workers
from ..report import LoadReport, ProgressCallback, no_progress
from ..resources import resources
from ..settings import Engine, EventMappings, Names, check_origin_settings, listed_names
from . import batches
from .discover import EXPORTED, LEFT_OUT, ONE_LEFT_OUT, day_and_source, list_files
from .hook_contacts import contact_rows, is_of_hooks
from .listing import READ_TIMEOUT, File
from .read import ArchiveShare, read_mapped

LINES_AT_ONCE = 64 << 20  # bytes of lines that all workers together have at a time
EXAMPLES = 3  # names that a warning or a report lists
# Reasons (keys of LEFT_OUT) why files are not read although a user may expect them to be: a run warns of such files.
SURPRISING = frozenset({"linked_folder", "unknown_suffix", "not_a_file", "trailing_slash", "unfinished_export"})


@dlt.source(name=SOURCE, section=SOURCE, max_table_nesting=0)
def archive(
    archive_url: Names = dlt.config.value,
    since: str | date | None = None,
    until: str | date | None = None,
    source_id: str | None = None,
    credentials: dlt.TSecretValue = None,  # with another type, dlt would keep them in its traces
    table_format: str | None = None,
    memory: int = 400,
    max_event_tables: int = MAX_EVENT_TABLES,
    events: Names | None = None,
    exclude: Names | None = None,
    progress: ProgressCallback = no_progress,
    read_timeout: float = READ_TIMEOUT,
    executor: Engine = None,
    work_url: str | None = None,
    hook_contacts: bool = False,
    mapping: EventMappings = None,
) -> Iterable[DltResource]:
    """Returns Segment's raw archive as a dlt source with the `autopilothq` schema.

    Raises InvalidSetting for a setting that is misspelt or out of its range, and NotSupported for settings that do not
    fit together.

    Args:
        archive_url: A file, a folder, a glob, or several; local or `s3://`, `gs://`, `az://`.
        since: The first day whose folder is read (UTC, included). Files outside of day folders are read whole.
        until: The last day whose folder is read (UTC, included). Without both, a scheduler's interval gives them.
        source_id: The only Segment source to read, if the archive has several.
        credentials: Credentials of the cloud, in dlt's form; by default the cloud's own.
        table_format: dlt's table format in a lake, `delta`. None leaves it to the destination.
        memory: What the engine, DuckDB in process, may use before it spills to disk, in MB.
        max_event_tables: How many tables of other events the dataset may have; further events are only in `tracks`.
        events: The names of the only events to load, as sent or of their tables; others can be loaded later.
        exclude: The names of events that are not loaded; all others are. Not together with `events`.
        progress: Called with the `LoadReport` after each step.
        read_timeout: Seconds for one request to an object store, with retries; a file that times out is read again.
        executor: A `concurrent.futures.Executor` whose workers share the load, or a function that makes one.
        work_url: A folder or a bucket that all workers may read and write; processes on this machine need none.
        hook_contacts: Whether contacts from Autopilot's hooks become rows of `contacts`.
        mapping: What other events are mapped to, by name: Autopilot's `event`, and new names for `properties`.

    Example: `pipeline.run(archive("s3://bucket/segment-logs/AbC123xYz9/", since="2019-03-01"))`.
    """
    check_origin_settings("archive", memory=memory, max_event_tables=max_event_tables, read_timeout=read_timeout)
    urls = tuple(listed_names(archive_url, "archive_url"))
    mappings = read_mappings(mapping)
    origin = Archive(
        urls,
        since=since,
        until=until,
        source_id=_checked_source(source_id),
        credentials=credentials,
        read_timeout=read_timeout,
        batch_bytes=LINES_AT_ONCE // workers(memory),
        mappings=mappings,
        hook_contacts=hook_contacts,
    )
    settings = LoadSettings(
        memory=memory,
        origin_memory=0,
        progress=progress,
        table_format=table_format,
        max_event_tables=max_event_tables,
        messages=requested_messages(events, exclude, mappings),
        projector=None if executor is None else projector_of(executor, work_url, credentials),
        mappings=mappings,
    )
    return resources(origin, settings)


def _checked_source(source_id: str | None) -> str | None:
    """Returns the id of a source. Raises NotSupported if it is empty, which is most likely an unset variable."""
    if source_id is not None and not source_id.strip():
        raise NotSupported(
            "Expected the id of a Segment source for source_id, but got an empty text.\nFor all sources leave it out."
        )
    return source_id


def projector_of(
    executor: "Executor | Callable[[], Executor]", work_url: str | None, credentials: Any
) -> EngineProjector:
    """Returns a projector that uses an executor. Raises NotSupported if workers lack credentials or a work folder."""
    if credentials is not None and credentials != dlt.secrets.get(f"sources.{SOURCE}.credentials"):
        raise NotSupported(
            "Expected the archive's credentials in dlt's configuration, because no secret is sent to workers, but they"
            f" were given in code.\nPut [sources.{SOURCE}.credentials] into .dlt/secrets.toml of every worker, or sign"
            " the workers in to the cloud in its own way."
        )
    if work_url is None and isinstance(executor, Executor) and not isinstance(executor, ProcessPoolExecutor):
        raise NotSupported(
            "Expected work_url, a folder or a bucket that all workers of the executor may read and write, but there is"
            " none.\nOnly a ProcessPoolExecutor, whose processes are on this machine, needs none."
        )
    return EngineProjector(executor, work_url)


@dataclass(frozen=True)
class Archive(Origin[File]):
    """The files of Segment's raw archive at some URLs, of some days; the fields are settings of `archive`."""

    urls: tuple[str, ...]
    since: str | date | None = None
    until: str | date | None = None
    source_id: str | None = None
    credentials: Any = None
    read_timeout: float = READ_TIMEOUT
    batch_bytes: int = batches.BATCH_BYTES
    mappings: Mappings = field(default_factory=dict)
    hook_contacts: bool = False
    _hook_files: list[File] = field(default_factory=list, init=False, repr=False, compare=False)

    reads_again = True

    @property
    def tables(self) -> Sequence[str]:
        """The resources of messages, and `contacts` if hooks fill it."""
        return (*MESSAGE_RESOURCES, CONTACTS.name) if self.hook_contacts else MESSAGE_RESOURCES

    def plan(self, context: LoadContext) -> Sequence[File]:
        """Returns the files that are not loaded yet; warns about files that look like data and are left out."""
        (since, until), left_out = days_to_read(self.since, self.until), dict[str, str]()
        found = list_files(
            self.urls,
            since=since,
            until=until,
            source_id=self.source_id,
            credentials=self.credentials,
            timeout=self.read_timeout,
            left_out=left_out,
            keep_broken=True,
        )
        _report(context.report, left_out)
        if not found:
            asked = [f"source {self.source_id}"] if self.source_id else []
            asked += [f"from {since}"] if since else []
            asked += [f"to {until}"] if until else []
            context.report.warnings.append(nothing_found("load", self.urls, left_out, asked))
        new = context.new(found)
        self._hook_files[:] = [file for file in new if self.hook_contacts and is_of_hooks(file)]
        return new

    def finish(self, context: LoadContext) -> Iterator[TableRows]:
        """Yields the rows of contacts from hooks, for which the hooks' files are read a second time."""
        if self._hook_files and CONTACTS.name in context.selected:
            yield from contact_rows(self._hook_files, context, self.read_timeout)

    def read(self, work: Sequence[File]) -> Iterator[Batch]:
        """Yields the lines of the files."""
        return read_mapped(work, self.mappings, self.read_timeout, min(batches.BATCH_BYTES, self.batch_bytes))

    def share(self, work: Sequence[File], first: int) -> ArchiveShare:
        """Returns the share of a worker: these files, without their file system, which may hold secrets."""
        return ArchiveShare([(*file[:3], file.path) for file in work], first, self.read_timeout, self.mappings)


def _report(report: LoadReport, left_out: Mapping[str, str]) -> None:
    """Reports what was left out, with a warning if a user may have expected it to be read."""
    for why in LEFT_OUT:
        if names := sorted(url for url, reason in left_out.items() if reason == why):
            report.skipped[why] = len(names)
            report.skipped_examples[why] = names[:EXAMPLES]
            if why in SURPRISING:
                report.warnings.append(f"Not read ({LEFT_OUT[why]}): {_some(names)}.")


def nothing_found(verb: str, urls: Sequence[str], left_out: Mapping[str, str], asked: Sequence[str] = ()) -> str:
    """Returns a warning that nothing to `verb` was found at `urls`, what was `asked` for, and what is there instead.

    Example: `nothing_found("load", ["logs"], {}, ["from 2019-03-01"])`.
    """
    others = [day_and_source(url) for url, why in left_out.items() if why in ("other_days", "other_source")]
    days = sorted({day for day, _ in others if day})
    sources = sorted({source for _, source in others if source})
    there = [f"{plural(len(days), 'day')} from {days[0]} to {days[-1]}"] if days else []
    there += [f"sources {_some(sources)}"] if sources else []
    counts = Counter(left_out.values())
    there += [plural(counts[why], ONE_LEFT_OUT.get(why, text), text) for why, text in LEFT_OUT.items() if why in counts]
    what = f" ({', '.join(asked)})" if asked else ""
    found = (
        f"Nothing to {verb} was found at {_some(urls)}{what}. What is there: {'; '.join(there) or 'no file at all'}."
    )
    is_tables = verb == "load" and any(url.endswith(EXPORTED) for url in left_out)
    return found + (" Exported tables are adopted: autopilothq adopt FOLDER." if is_tables else "")


def _some(names: Sequence[str]) -> str:
    """Returns the first names, and how many more there are. Example: `a, b, c and 7 more`."""
    more = len(names) - EXAMPLES
    return ", ".join(names[:EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")


def days_to_read(since: str | date | None, until: str | date | None) -> tuple[date | None, date | None]:
    """Returns the first and the last day; without both, those of a scheduler's interval (`DLT_INTERVAL_START`).

    Raises NotSupported for a text that is not a day, for a last day before the first one, and for an interval that is
    beyond the calendar in UTC.
    """
    try:
        first_day, last_day = _day(since, "since"), _day(until, "until")
        interval = _scheduled() if first_day is None and last_day is None else None
        if interval is None:
            return _checked(first_day, last_day)
        # The interval does not include its end: a day's interval ends when the next day begins.
        start, end = interval  # older releases of dlt return a plain tuple
        first, last = (time.astimezone(UTC) for time in (start, end - timedelta(microseconds=1)))
    except OverflowError:
        raise NotSupported(
            "Expected an interval within the years 1 to 9999 (UTC) in DLT_INTERVAL_START and DLT_INTERVAL_END."
        ) from None
    return first.date(), max(first, last).date()


def _scheduled() -> tuple[datetime, datetime] | None:
    """Returns a scheduler's interval, or None if there is none. Raises NotSupported if its times are wrong."""
    try:
        interval = dlt.current.interval()
    except ValueError:
        given = [f"{name}={os.environ.get(name, '')!r}" for name in ("DLT_INTERVAL_START", "DLT_INTERVAL_END")]
        raise NotSupported(
            f"Expected times such as 2019-03-01T00:00:00Z in the environment, but got {' and '.join(given)}."
        ) from None
    if interval and interval[0] > interval[1]:
        raise NotSupported(
            "Expected an interval that ends no earlier than it begins in DLT_INTERVAL_START and DLT_INTERVAL_END, but"
            f" got {interval[0].isoformat()} and {interval[1].isoformat()}."
        )
    return interval


def _checked(since: date | None, until: date | None) -> tuple[date | None, date | None]:
    if is_empty(since, until):
        raise NotSupported(f"Expected a day for until that is no earlier than since, {since}, but got {until}.")
    return since, until


def _day(day: str | date | None, name: str) -> date | None:
    """Returns a day; None for a blank text, because environment variables may be set but empty.

    Raises NotSupported, with the `name` of the setting, for a text that is not a day.
    """
    try:
        if isinstance(day, datetime):
            return to_utc(day).date()
        return (date.fromisoformat(day) if day.strip() else None) if isinstance(day, str) else day
    except ValueError:
        raise NotSupported(f"Expected a day such as 2019-03-01 for {name}, but got {str(day)!r}.") from None
