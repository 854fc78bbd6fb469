"""Segment's raw archive as a dlt source."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dlt
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.exceptions import MissingDependencyException
from dlt.common.storages.configuration import FilesystemConfiguration
from dlt.common.storages.fsspec_filesystem import fsspec_from_config
from dlt.extract import DltResource

from ..origins import archive as archive_files
from .load import Files, Load, ignore, resources
from .tables import SOURCE


@dlt.source(name=SOURCE, section=SOURCE, max_table_nesting=0)
def archive(
    archive_url: Any = dlt.config.value,  # str or a sequence of them; dlt injects no unions
    since: str | date | None = None,
    until: str | date | None = None,
    source_id: str | None = None,
    credentials: dlt.TSecretValue = None,  # else dlt keeps them in its traces
    table_format: str | None = None,
    memory: int = 400,
    progress: Any = ignore,
) -> Iterable[DltResource]:
    """Segment's raw archive as the `autopilothq` schema.

    Args:
        archive_url: A file, a folder, a glob, or several; local or `s3://`, `gs://`, `az://`.
        since: The first day whose folder is read (UTC, included). Files outside of day folders are read whole.
        until: The last day whose folder is read (UTC, included). Without both, a scheduler's interval gives them.
        source_id: The one Segment source to read, where the archive has several.
        credentials: For files in a cloud, as dlt knows them; else the cloud's own ways.
        table_format: dlt's, of the tables in a lake: `delta`. None is the destination's own.
        memory: What the engine may use before it turns to the disk, in MB.
        progress: Called with the `Report` after each step.

    Example: `pipeline.run(archive("s3://bucket/segment-logs/AbC123xYz9/", since="2019-03-01"))`.
    """
    urls = [archive_url] if isinstance(archive_url, str) else list(archive_url)

    def find(loaded: Files) -> tuple[list[archive_files.File], int]:
        found = find_files(urls, *_days(since, until), source_id, credentials)
        new = [file for file in found if (file.url, file.version) not in loaded]
        return new, len(found) - len(new)

    return resources(Load(find, archive_files.read, memory, progress, table_format=table_format))


def _days(since: str | date | None, until: str | date | None) -> tuple[date | None, date | None]:
    """The first and the last day; without both, those of the scheduler's interval (dlt's `DLT_INTERVAL_START`)."""
    interval = dlt.current.interval() if since is None and until is None else None
    if interval is None:
        return _day(since), _day(until)
    # The end is no part of it: a day's interval ends as the next day begins.
    first, last = (time.astimezone(UTC) for time in (interval.start, interval.end - timedelta(microseconds=1)))
    return first.date(), max(first, last).date()


def _day(day: str | date | None) -> date | None:
    if isinstance(day, datetime):
        return day.astimezone(UTC).date() if day.tzinfo else day.date()
    return date.fromisoformat(day) if isinstance(day, str) else day


def find_files(
    urls: Sequence[str],
    since: date | None,
    until: date | None,
    source_id: str | None,
    credentials: Any,
) -> list[archive_files.File]:
    """The files at these URLs, each once; credentials as the source takes them."""
    found: dict[str, archive_files.File] = {}
    for url in urls:
        fs = _filesystem(url, credentials) if "://" in url and not url.startswith("file:") else None
        for file in archive_files.find([url], since=since, until=until, source_id=source_id, fs=fs):
            found[file.url] = file
    return [found[url] for url in sorted(found)]


def _filesystem(url: str, credentials: Any) -> Any:
    """The file system of a bucket, with dlt's credentials or the cloud's own."""
    given = {"bucket_url": url} | ({} if credentials is None else {"credentials": credentials})
    config = FilesystemConfiguration()
    try:
        return fsspec_from_config(resolve_configuration(config, sections=("sources", SOURCE), explicit_value=given))[0]
    except ConfigFieldMissingException as error:
        raise archive_files.ArchiveError(
            f"Expected credentials for {url}, but there are none.\n"
            f"Put [sources.{SOURCE}.credentials] into .dlt/secrets.toml, or sign in to the cloud in its own way."
        ) from error
    except MissingDependencyException as error:
        extra = archive_files.EXTRAS.get(url.split("://", maxsplit=1)[0], "filesystem")
        raise archive_files.ArchiveError(
            f"Reading {url} needs a package that is not installed.\nInstall it: pip install 'dlt-autopilothq[{extra}]'"
        ) from error
