"""Records which complete loads a load was read after, and which rows it brings.

Its rows leave out what was stored by then. dlt may load them much later, after the dataset was restored from a backup
or dropped, after another machine replaced its rows, or into another dataset. What they leave out is missing there. And
a load that was cut off is continued: what it had stored before is missing if the dataset was restored meanwhile, and
its rows of users, which replace others, know nothing of what another machine loaded meanwhile. dlt completes the load
all the same. Such a load must not count as complete.

Two loads at the same time stage their rows in the same tables, where one can take away those of the other, or put rows
with the same keys beside them. A run's lock prevents that as long as it is renewed, and pipelines of one's own have
none. dlt does not notice. So before a load is completed, it is checked whether its rows, and no others, are still
staged; if not, they are counted where they belong. It does not matter whether the other load was completed, was killed
or is still at work. A load that lacks rows is never completed, so that everybody reads again what it had read.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

import dlt
import pyarrow.parquet as pq

from .. import disk, private
from ..catalog import DISCARDS, REJECTS, key_of
from ..utc import parse_time, to_utc
from ..warehouses.dataset import Dataset, dataset_of
from ..warehouses.dlt_internals import LOADS_TABLE_NAME, DatabaseUndefinedRelation, JobClientBase, logger
from ..warehouses.dlt_internals.clients import check_before_completing
from ..warehouses.dlt_internals.resources import uncut_loads
from ..warehouses.hints import REPLACED
from ..warehouses.native import SEGMENT_TABLE_HINT

_FILE = "autopilothq-loads/earlier.json"  # below the pipeline's working folder, because what waits is there, too
_MOST = 20  # loads that are kept: hardly more can wait; and times of the rows of one load, one for each source
_STORED_AT = {REJECTS.name: "rejected_at", DISCARDS.name: "discarded_at"}  # of all other tables it is uuid_ts
_EVER = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
_REPLACED = frozenset(table.name for table in REPLACED)
_LOST_DIGITS = timedelta(milliseconds=1)  # some destinations keep no more digits of a time


class Stored(NamedTuple):
    """The complete loads of a dataset, and those of them that loaded files according to `_audit`.

    Loads of APIs do not look them up: `audited` is None.
    """

    complete: AbstractSet[str]
    audited: AbstractSet[str] | None = None

    def lacks(self, earlier: "Stored") -> bool:
        """Returns whether the dataset was restored or dropped since, or all that `_audit` had was replaced or deleted.

        Single loads may leave `_audit`: later ones take over their files.
        """
        if earlier.audited and self.audited is not None and self.audited.isdisjoint(earlier.audited):
            return True
        return not earlier.complete <= self.complete

    def shows(self, earlier: "Stored") -> bool:
        """Returns whether it shows that the dataset has all of an earlier state."""
        return not self.lacks(earlier) and (self.audited is not None or not earlier.audited)

    def joined(self, other: "Stored") -> "Stored":
        """Returns the loads of both."""
        return Stored(self.complete | other.complete, (self.audited or frozenset()) | (other.audited or frozenset()))


class Brought(NamedTuple):
    """The rows that a source brings: the time at which it stores them (ISO 8601), and how many by table."""

    stored_at: str
    rows: Mapping[str, int]

    @property
    def replaces(self) -> bool:
        """Whether any of them replace rows, such as those of users."""
        return not self.rows.keys().isdisjoint(_REPLACED)

    def is_in(self, dataset: Dataset) -> bool:
        """Returns whether all these rows are in a dataset, as far as its tables say when rows were stored.

        Rows that replace others may have been replaced since, and rejects and discards may have been stored before.
        """
        at = datetime.fromisoformat(self.stored_at)
        found = dataset.columns()
        for table, count in self.rows.items():
            column = _stored_at(table)
            if table not in found:
                return False
            if column in found[table]:
                since = _EVER[0] if table in _STORED_AT else at - _LOST_DIGITS
                until = _EVER[1] if table in _REPLACED else at + _LOST_DIGITS
                within = f"WHERE {{{column}}} >= %s AND {{{column}}} <= %s"
                [[stored]] = dataset.rows("count(*)", table, within, since, until)
                if stored < count:
                    return False
        return True


class _Noted(NamedTuple):
    """What is recorded of a load. `brought` is empty if its rows need no look, and None if some are known to lack.

    `meanwhile` are those of the earlier loads that became complete while it was read.
    """

    earlier: Stored
    brought: tuple[Brought, ...] | None = ()
    meanwhile: AbstractSet[str] = frozenset()


def note_earlier(
    pipeline: dlt.Pipeline,
    load_id: str,
    earlier: Stored,
    now: Stored,
    brought: Brought,
    meanwhile: AbstractSet[str] = frozenset(),
) -> None:
    """Records that a load was read after the loads `earlier`, of those that are stored `now`, and what it brings.

    All of them, because none is surely the last one: ids are times, and another machine's clock may be wrong. Those
    that became complete `meanwhile` may have stored rows that it has seen, and others that it has not. Several sources
    may share a load. Loads that are complete and lack nothing are forgotten.
    """
    if not earlier.complete and not brought.rows:
        return
    found = _read(pipeline.working_dir)
    kept = {of: each for of, each in found.items() if of not in now.complete or _is_needed(each, now)}
    noted = _Noted(earlier, (brought,) if brought.rows else (), meanwhile)
    if load_id in kept:
        other = kept.pop(load_id)
        both = (*(noted.brought or ()), *(other.brought or ()))
        noted = _Noted(earlier.joined(other.earlier), both, meanwhile | other.meanwhile)
    _write(pipeline, {**kept, load_id: noted})


def _is_needed(noted: _Noted, now: Stored) -> bool:
    return noted.brought != () or not now.shows(noted.earlier)


def outdated_loads(pipeline: dlt.Pipeline, now: Stored, dataset: Dataset) -> set[str]:
    """Returns which of a dataset's complete loads lack rows: their own, or those of loads that they were read after.

    It lacks its own also if they replaced rows that other loads had brought since it was read. Its own are looked up
    once, and only if it may have been cut off and continued.

    Example: `outdated_loads(pipeline, Stored({"2.0"}), dataset) == {"2.0"}` if load 2.0 was read after 1.0.
    """
    noted = _read(pipeline.working_dir)
    complete = {load_id: each for load_id, each in noted.items() if load_id in now.complete}
    unchecked = [load_id for load_id, each in complete.items() if each.brought and _can_check(each, now)]
    if unchecked:
        uncut = uncut_loads(pipeline)
        for load_id in unchecked:
            is_whole = _is_whole(dataset, now, load_id, complete[load_id], load_id in uncut)
            complete[load_id] = complete[load_id]._replace(brought=() if is_whole else None)
        _write(pipeline, {**noted, **complete})
    return {load_id for load_id, each in complete.items() if each.brought is None or now.lacks(each.earlier)}


def _can_check(noted: _Noted, now: Stored) -> bool:
    """Returns whether it is known which loads have loaded files, if that is needed."""
    return now.audited is not None or not any(each.replaces for each in noted.brought or ())


def _is_whole(dataset: Dataset, now: Stored, load_id: str, noted: _Noted, is_uncut: bool) -> bool:
    """Returns whether all rows that a complete load brings are there, and it replaced none of a later one."""
    brought = noted.brought or ()
    others = now.complete - (noted.earlier.complete - noted.meanwhile) - {load_id}
    readers = others & (now.audited or frozenset())
    ended: dict[str, Any] = dict(dataset.rows("{load_id}, {inserted_at}", LOADS_TABLE_NAME)) if others else {}
    if any(each.replaces for each in brought) and any(ended[other] < ended[load_id] for other in readers):
        return False
    return is_uncut or all(each.is_in(dataset) for each in brought)


def complete_only_whole_loads() -> None:
    """Makes dlt complete a load only if nobody took away rows that it had staged; of any other it warns."""
    check_before_completing(_has_staged_rows)


def _has_staged_rows(
    client: JobClientBase, working_folder: Path, load_id: str, files: Mapping[str, Sequence[Path]]
) -> bool:
    """Returns whether the tables have the rows of a load's files, which it staged and merged.

    Of files that are not Parquet, the load's note tells how many rows they have.
    """
    ours = sorted(table for table in files if cast(Any, client.schema.tables[table]).get(SEGMENT_TABLE_HINT))
    noted = _read(working_folder).get(load_id)
    brought = (noted.brought if noted else None) or ()
    counts: dict[str, Mapping[datetime, int]] = {}
    for table in ours:
        if all(path.suffix == ".parquet" for path in files[table]):
            counts[table] = _rows_by_time(table, files[table])
        else:
            counts[table] = {datetime.fromisoformat(at): rows[table] for at, rows in brought if table in rows}
    counts = {table: found for table, found in counts.items() if found}
    if not counts:
        return True
    try:
        with client:
            lacking = tables_without_rows(dataset_of(client).parts(), counts)
    except DatabaseTerminalException as error:  # to fail here would keep the load from ever being completed
        logger.warning(f"Whether the rows of this load are still there could not be looked up: {error}")
        return True
    if lacking:
        logger.warning(
            f"Rows that this load had staged for {', '.join(lacking)} are missing: another load was at work at the same"
            " time, and took them away. This one does not count as complete, and the next run reads again what it read."
        )
    return not lacking


def _rows_by_time(table: str, files: Sequence[Path]) -> dict[datetime, int]:
    """Returns how many rows files have by the time at which they are stored; empty if they do not say."""
    counts = Counter[datetime]()
    column = _stored_at(table)
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=[column]) if column in file.schema_arrow.names else ():
                times = [(each["values"].as_py(), each["counts"].as_py()) for each in batch[column].value_counts()]
                counts.update({to_utc(time or _EVER[0]): count for time, count in times})
    return {} if len(counts) > _MOST or _EVER[0] in counts else counts  # a user's step has changed the times


def tables_without_rows(parts: Sequence[Dataset], counts: Mapping[str, Mapping[datetime, int]]) -> list[str]:
    """Returns the tables that have fewer rows than a load staged for them, by the time at which they are stored.

    A table has them if they are still staged, each once, and no others: then these were merged. Otherwise they are
    counted. `parts` are the dataset and the staging dataset, if there is one.
    """
    dataset, *staging = parts
    staged = _staged_rows(staging[0], list(counts)) if staging else {}
    return [
        table
        for table, found in counts.items()
        if not _are_these(staged.get(table, ()), found)
        and any(_count(dataset, table, at) < n for at, n in found.items())
    ]


def _staged_rows(staging: Dataset, tables: Sequence[str]) -> Mapping[str, Sequence[Row]]:
    """Returns the times of the rows of staging tables, with the numbers of rows and of ids.

    One statement asks about many tables, because in a warehouse each takes a second. If it fails, as another load may
    have dropped one of the tables, each is asked about alone.
    """
    rows: dict[str, list[Row]] = {table: [] for table in tables}
    for group in batched(tables, _TABLES_PER_QUERY):
        try:
            found = rows_of_statement(staging, " UNION ALL ".join(_times_of(staging, table) for table in group))
        except DatabaseUndefinedRelation:
            if len(group) == 1:
                continue
            return dict(chain.from_iterable(_staged_rows(staging, [table]).items() for table in tables))
        for table, *row in found:
            rows[table].append(tuple(row))
    return rows


def _times_of(staging: Dataset, table: str) -> str:
    # A load that was cut off may have staged a file twice, and lack another one. Ids of books may repeat.
    ids = "count(DISTINCT {id})" if key_of(table) == ("id",) and table not in _STORED_AT else "count(*)"
    time = f"{{{_stored_at(table)}}}"
    return staging.template(
        table, f"SELECT '{table}', {time}, count(*), {ids} FROM {qualified(staging, table)} GROUP BY {time}"
    )


def _are_these(staged: Sequence[Row], counts: Mapping[datetime, int]) -> bool:
    with suppress(ValueError):  # text that is no time
        return len(staged) == len(counts) and all(
            any(_is_same(time, at) and (rows, ids) == (n, n) for time, rows, ids in staged) for at, n in counts.items()
        )
    return False


def _is_same(time: object, at: datetime) -> bool:
    """Returns whether a time is the same in some time zone: drivers may take a time without one for another zone's."""
    if not isinstance(time, str | datetime):
        return False
    return (parse_time(time) - at + _LOST_DIGITS) % timedelta(minutes=15) <= 2 * _LOST_DIGITS


def _count(dataset: Dataset, table: str, at: datetime) -> int:
    column = f"{{{_stored_at(table)}}}"
    before = dataset.template(table, "SELECT count(*) FROM")
    within = dataset.template(table, f"WHERE {column} >= %s AND {column} <= %s")
    [(stored,)] = dataset.stream(before, table, within, (at - _LOST_DIGITS, at + _LOST_DIGITS))
    return int(stored)


def _stored_at(table: str) -> str:
    return _STORED_AT.get(table, "uuid_ts")


def _write(pipeline: dlt.Pipeline, noted: Mapping[str, _Noted]) -> None:
    path = Path(pipeline.working_dir, _FILE)
    private.folder(path.parent)
    with disk.rewriting(path, "w") as file:
        json.dump({load_id: _text(each) for load_id, each in [*noted.items()][-_MOST:]}, file)


def _text(noted: _Noted) -> list[Any]:
    brought = noted.brought and [[at, dict(rows)] for at, rows in noted.brought]
    text: list[Any] = [*(sorted(loads or ()) for loads in noted.earlier), brought]
    return [*text, sorted(noted.meanwhile)] if noted.meanwhile else text


def _read(working_folder: str | Path) -> dict[str, _Noted]:
    path = Path(working_folder, _FILE)
    try:
        return {load_id: _noted(*each) for load_id, each in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning(f"{path} cannot be read, and is ignored: {error}")
        return {}


def _noted(
    complete: list[str], audited: list[str], brought: Sequence[Any] | None = (), meanwhile: Sequence[str] = ()
) -> _Noted:
    rows = None if brought is None else tuple(Brought(at, counts) for at, counts in brought)
    return _Noted(Stored(frozenset(complete), frozenset(audited)), rows, frozenset(meanwhile))
