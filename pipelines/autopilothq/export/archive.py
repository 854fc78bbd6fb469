"""Writes a dataset as an archive in Segment's layout (docs/contract/archive.md)."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import NamedTuple

import duckdb
import pyarrow as pa

from ..catalog import BOOKS, DISCARDS, KINDS, REJECTS, TRACKS, Type
from ..display import plural
from ..errors import RunError
from ..projection import engine
from ..warehouses.dataset import Columns, Dataset, NativeType, count_shared, read_with_texts
from .changes import ChangedRows, rows_without_message
from .days import DayFiles
from .messages import DiscardedValue, MessageRows
from .target import ExportTarget
from .values import check_values, number_encoders

LOOKUP_MEMORY = 200  # MB for the ids and discarded values that are looked up; beyond that they spill to disk
LEFT_OUT_REASONS = ("line_too_long", "truncated", "bad_answer", "no_id")
"""Reasons of rejects that are not exported: their line is incomplete, or was not a line of an archive."""
DELETED = "suppressed"
"""The reason of rejects that stand for a deleted person's lines. They have no line, and do not count as left out."""
_DISCARD_COLUMNS = ("table_name", "row_id", "column_name", "value", "reason")
_DISCARDED = """
    SELECT row_id, column_name, value, reason FROM discarded SEMI JOIN ids ON id = row_id
    WHERE table_name = ? ORDER BY ALL"""
_NO_ROW = "false"
_TRACKS_COLUMNS = {"id", "received_at", "event"}
_EVENT_COLUMNS = _TRACKS_COLUMNS | {"event_text"}


class ExportedArchive(NamedTuple):
    """What was exported: messages by table, rejected lines, files, what was left out, and what a load will change."""

    messages: dict[str, int]
    rejects: int
    files: int
    left_out: list[str]
    changed: list[str]


def export_archive(dataset: Dataset, target: ExportTarget) -> ExportedArchive:
    """Writes the messages and the complete rejected lines of a dataset to a target, and returns what was exported.

    Raises RunError if another program has made one of the tables, or a value cannot be exported unchanged.
    """
    with TemporaryDirectory() as scratch:
        con = engine.connect(scratch, LOOKUP_MEMORY, threads=1)
        try:
            return _Export(dataset, target, con).run()
        finally:
            con.close()


class _Export:
    """One export. DuckDB holds the ids and the discarded values that are looked up for each row."""

    def __init__(self, dataset: Dataset, target: ExportTarget, con: duckdb.DuckDBPyConnection) -> None:
        self._dataset, self._target, self._con = dataset, target, con
        self._days = DayFiles(target)
        self._left_out: list[str] = []
        self._changed = ChangedRows()
        views = dataset.views()
        self._existing = {name: columns for name, columns in dataset.columns().items() if name not in views}
        _check_tables(
            dataset, self._existing, (TRACKS.name, *self._event_tables(), *(table.name for _, table, _ in KINDS))
        )
        self._discards = self._read_discards()

    def run(self) -> ExportedArchive:
        """Exports all tables, `tracks` first, because a load never writes it before the event's own table."""
        messages: Counter[str] = Counter()
        events = self._event_tables()
        if TRACKS.name in self._existing:
            messages[TRACKS.name] = self._export_table("track", TRACKS.name, self._ids_only_in_tracks(events))
        for name in events:
            messages[name] = self._export_table("track", name)
        for kind, table, _ in KINDS:
            if table.name in self._existing:
                messages[table.name] = self._export_table(kind, table.name)
        rejects = self._export_rejects()
        self._left_out += rows_without_message(self._dataset, self._existing, self._con)
        self._days.flush()
        return ExportedArchive(+messages, rejects, self._target.publish(), self._left_out, self._changed.texts())

    # ---- messages ----------------------------------------------------------------------------------------------------

    def _event_tables(self) -> list[str]:
        known = {table.name for table in (TRACKS, *BOOKS, *(table for _, table, _ in KINDS))}
        return [n for n, columns in self._existing.items() if n not in known and columns.keys() >= _EVENT_COLUMNS]

    def _ids_only_in_tracks(self, events: Sequence[str]) -> str:
        """Returns the condition for rows of `tracks` that no event's table has, and reads the ids that it needs.

        If `tracks` has as many rows of an event as there are ids in both tables, all of them are in the event's table,
        and their ids are not read. Ids in both are counted before `tracks`, and the ids of `tracks` are read before the
        events', so a load that runs meanwhile does not affect the result.
        """
        shared = count_shared(self._dataset, TRACKS.name, "event", events) if events else {}
        counts: dict[str | None, int] = dict(self._dataset.rows("{event}, count(*)", TRACKS.name, "GROUP BY {event}"))
        equal = [name for name in events if name in counts and shared.get(name) == counts[name]]
        self._con.execute("CREATE TABLE only_in_tracks (id VARCHAR)")
        if counts.keys() - set(equal):
            others = f"NOT coalesce({engine.is_one_of('event', equal)}, false)"
            self._dataset.tables([TRACKS.name])
            ids = self._dataset.read(TRACKS.name, ["id", "event"])
            engine.read_stored(self._con, ids, f"INSERT INTO only_in_tracks SELECT id FROM stored WHERE {others}")
        for name in (name for name in events if name in counts and name not in equal):
            self._dataset.tables([name])
            ids = self._dataset.read(name, ["id"])
            engine.read_stored(self._con, ids, "DELETE FROM only_in_tracks WHERE id IN (SELECT id FROM stored)")
        return "id IN (SELECT id FROM only_in_tracks)" if engine.count(self._con, "only_in_tracks") else _NO_ROW

    def _export_table(self, kind: str, name: str, only: str | None = None) -> int:
        """Exports the rows of a table that meet the SQL condition `only`, by default all; returns their number."""
        numbers = number_encoders(self._dataset, self._existing[name])
        types = self._types(name, numbers)
        rows = MessageRows(kind, types, numbers)
        # If somebody changed the type of `received_at`, a load of the archive takes another of the message's times.
        has_time = types.get("received_at") == "timestamp"
        count = 0
        for batch in self._filtered(read_with_texts(self._dataset, name, types, numbers), only):
            check_values(batch, numbers, name)
            days = _days_of(batch["received_at"]) if has_time else [0] * len(batch)
            discards = self._discarded_values(name, batch)
            self._changed.add(name, batch, discards)
            for day, line in zip(days, rows.lines(batch, discards), strict=True):
                self._days.add(day, line)
            count += len(batch)
        return count

    def _filtered(self, batches: Iterator[pa.RecordBatch], only: str | None) -> Iterator[pa.RecordBatch]:
        for batch in batches if only != _NO_ROW else ():
            if only is None:
                yield batch
                continue
            with engine.registered(self._con, chosen=pa.Table.from_batches([batch])):
                yield from self._con.sql(f"FROM chosen WHERE {only}").to_arrow_table().to_batches()

    def _types(self, name: str, texts: Collection[str]) -> dict[str, Type]:
        """Returns the types of a table's columns except the loader's own; notes those that are left out.

        `texts` are the columns that are read as text.
        """
        read_as_text: dict[str, Type] = dict.fromkeys(texts, "text")
        found = {**self._dataset.tables([name])[name], **read_as_text}
        stamped = {"uuid_ts"} | ({"loaded_at"} if self._dataset.dialect == "bigquery" else set())
        types = {column: type_ for column, type_ in found.items() if column not in stamped}
        if others := sorted(self._existing[name].keys() - found.keys()):
            self._left_out.append(f"{name}: {', '.join(others)}")
        return types

    # ---- the books ---------------------------------------------------------------------------------------------------

    def _read_discards(self) -> bool:
        """Reads `_discards` into the engine; returns whether there are any."""
        self._con.execute(f"CREATE TABLE discarded ({', '.join(f'{column} VARCHAR' for column in _DISCARD_COLUMNS)})")
        if DISCARDS.name not in self._existing:
            return False
        self._dataset.tables([DISCARDS.name])
        batches = self._dataset.read(DISCARDS.name, _DISCARD_COLUMNS)
        engine.read_stored(self._con, batches, "INSERT INTO discarded FROM stored")
        return bool(engine.count(self._con, "discarded"))

    def _discarded_values(self, table: str, batch: pa.RecordBatch) -> dict[str, list[DiscardedValue]]:
        """Returns the discarded values of the rows of a batch, by the rows' ids."""
        if not self._discards:
            return {}
        ids = pa.table({"id": batch.column(batch.schema.names.index("id"))})
        with engine.registered(self._con, ids=ids):
            found = self._con.execute(_DISCARDED, [table]).fetchall()
        return {
            row_id: [DiscardedValue(*values) for _, *values in group]
            for row_id, group in itertools.groupby(found, lambda discarded: discarded[0])
        }

    def _export_rejects(self) -> int:
        """Exports the rejected lines that are complete, in the folders of the days when they were rejected."""
        if REJECTS.name not in self._existing:
            return 0
        count, left_out = 0, 0
        self._dataset.tables([REJECTS.name])
        for batch in self._dataset.read(REJECTS.name, ["rejected_at", "reason", "raw"]):
            _, reasons, lines = (batch.column(number).to_pylist() for number in range(3))
            for day, reason, raw in zip(_days_of(batch.column(0)), reasons, lines, strict=True):
                if reason == DELETED:
                    continue
                if raw is None or reason in LEFT_OUT_REASONS:
                    left_out += 1
                    continue
                self._days.add(day, f"{raw}\n".encode())
                count += 1
        if left_out:
            self._left_out.append(f"{REJECTS.name}: {plural(left_out, 'line')} cut off, or of no archive")
        return count


def _check_tables(dataset: Dataset, existing: Mapping[str, Columns], tables: Sequence[str]) -> None:
    """Raises RunError if another program has made `tracks` or another of these tables, or somebody changed its ids."""
    missing = _TRACKS_COLUMNS - set(existing.get(TRACKS.name, _TRACKS_COLUMNS))
    if missing:
        raise RunError(
            f"Expected {TRACKS.name} in {dataset.title}, to have the columns of loads, but it lacks"
            f" {', '.join(sorted(missing))}.\nIf it is another program's, name the dataset of loads: --dataset"
        )
    for name in tables:
        columns = existing.get(name, {})
        wrong = [each for each in ("id", "event") if each in columns and _is_not_text(columns[each])]
        if wrong:
            raise RunError(
                f"Expected {' and '.join(wrong)} of {name} in {dataset.title}, to be text, as loads make it.\n"
                "If the table is another program's, name the dataset of loads: --dataset. If somebody changed the type,"
                " change it back (ALTER TABLE ... ALTER COLUMN ... TYPE ... USING ...)."
            )


def _is_not_text(native: NativeType) -> bool:
    """Returns whether a column does not hold single texts. dlt also reports lists as text."""
    return native.type != "text" or native.name.endswith("]") or native.name == "ARRAY"


def _days_of(times: pa.Array) -> list[int]:
    """Returns times as days since 1970; 0 for null."""
    days: list[int] = times.cast(pa.timestamp("us")).cast(pa.date32()).cast(pa.int32()).fill_null(0).to_pylist()
    return days
