"""The queries that a load needs: loaded files, completed loads, deleted persons, and other libraries' first event."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ...catalog import AUDIT, SUPPRESSIONS, TRACKS
from ...segment.identity import NOBODY, HashedIds
from ...utc import parse_time, to_utc
from .. import suppression_key
from ..dlt_internals import LOADS_TABLE_NAME
from ..selection import Selected, from_text
from .interface import Dataset
from .text_columns import check_text_columns

MAX_SKEW = timedelta(days=1)
"""How far in the future the time of a load may be; a later time is from a wrong clock."""

AUDIT_COUNTS = ("lines", "stored", "duplicates", "rejected", "skipped", "mended")
"""The columns of `_audit` that can be summed: how many lines of a file were stored, rejected and so on."""
_LATER_COUNTS = ("skipped", "mended")


class Loaded(NamedTuple):
    """What is loaded of a file: by which load, how many lines it stored, and what it selected of the file (None: all).

    `mended` is the number of cut texts that the load made whole.
    """

    load_id: str
    stored: int
    selected: Selected | None
    mended: int = 0


def loaded_files(dataset: Dataset, complete: Collection[str]) -> dict[tuple[str, str], Loaded]:
    """Returns what complete loads have loaded, by file and version; `complete` are the ids of those that count."""
    existing = dataset.tables([AUDIT.name]).get(AUDIT.name)
    if existing is None:
        return {}
    check_text_columns(dataset, {AUDIT.name: existing}, {AUDIT.name: (*AUDIT.key, "load_id")})
    names = ("file", "version", "load_id", "stored", "tables", "mended")
    columns = [name for name in names if name in existing]
    return {
        (row["file"], row["version"]): Loaded(
            row["load_id"], row.get("stored") or 0, from_text(row.get("tables")), row.get("mended") or 0
        )
        for batch in dataset.read(AUDIT.name, columns)
        for row in batch.to_pylist()
        if row["load_id"] in complete
    }


def audit_row(dataset: Dataset, file: str, version: str) -> dict[str, Any] | None:
    """Returns the row of `_audit` for a version of a file, or None if there is none."""
    existing = dataset.tables([AUDIT.name]).get(AUDIT.name, {})
    columns = [column.name for column in AUDIT.columns if column.name in existing]
    if not set(AUDIT.key) <= set(columns):
        return None
    cells = ", ".join(dataset.quoted(AUDIT.name, column) for column in columns)
    where = dataset.template(AUDIT.name, "WHERE {file} = %s AND {version} = %s")
    found = next(dataset.stream(f"SELECT {cells} FROM", AUDIT.name, where, (file, version)), None)
    if found is None:
        return None
    return dict.fromkeys(column.name for column in AUDIT.columns) | dict(zip(columns, found, strict=True))


def audit_sums(dataset: Dataset, counts: Sequence[str]) -> str:
    """Returns the SELECT list that sums counts of `_audit`; 0 for those that an older dataset lacks."""
    existing = dataset.columns().get(AUDIT.name, {})
    return ", ".join(
        f"sum({{{count}}})" if count in existing or count not in _LATER_COUNTS else "0" for count in counts
    )


def deleted_persons(dataset: Dataset) -> HashedIds:
    """Returns the hashed ids of deleted persons.

    Raises SuppressionKeyError if some hashes were made with a key other than the configured one. Raises the
    destination's error if the user may not read the list, because without it deleted persons would come back.
    """
    if dataset.lacks(SUPPRESSIONS.name):
        return NOBODY
    columns = ["salt", "id"]
    existing = dataset.tables([SUPPRESSIONS.name]) or {SUPPRESSIONS.name: {}}
    check_text_columns(dataset, existing, {SUPPRESSIONS.name: columns})
    batches = dataset.read(SUPPRESSIONS.name, columns)
    return suppression_key.hashes((row["salt"], row["id"]) for batch in batches for row in batch.to_pylist())


def first_event_of_others(dataset: Dataset, library: str) -> datetime | None:
    """Returns the time of the first event that a library other than `library` sent, or None if there is none."""
    if "context_library_name" not in dataset.tables([TRACKS.name]).get(TRACKS.name, {}):
        return None
    before = dataset.template(TRACKS.name, "SELECT min({timestamp}) FROM")
    name = dataset.quoted(TRACKS.name, "context_library_name")
    [(first,)] = dataset.stream(before, TRACKS.name, f"WHERE {name} IS NULL OR {name} <> %s", (library,))
    return to_utc(parse_time(first)) if first else None


def last_load(dataset: Dataset, now: datetime) -> tuple[str, datetime] | None:
    """Returns the id and the time of the newest completed load, or None if there is none.

    A load whose time is in the future, because a clock was wrong, counts only if all loads are like that.
    """
    found = dataset.rows("{load_id}, {inserted_at}", LOADS_TABLE_NAME, "WHERE {status} = 0 ORDER BY {inserted_at} DESC")
    at = newest([at for _, at in found], now)
    return next(((load_id, loaded_at) for load_id, loaded_at in found if loaded_at == at), None)


def newest(times: Sequence[datetime], now: datetime) -> datetime | None:
    """Returns the newest time, or None. Times in the future, from a wrong clock, count only if all times are."""
    return max([at for at in times if at <= now + MAX_SKEW] or times, default=None)
