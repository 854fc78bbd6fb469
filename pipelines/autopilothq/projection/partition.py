"""A load in partitions: steps for workers that each have all messages with certain ids, or about certain persons.

Cells are partitioned by a digest of the message's id, so each partition decides alone which of its messages are kept.
Only the columns of the tables depend on all partitions. They are decided in between: the `TableValues` of the
partitions are merged, and `plan_table` turns them into plans. All input and output is plain data and names of files.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..catalog import AUDIT, Latest, Type
from . import audit, engine, texts, users
from . import deduplicate as steps
from .cells import CELL_FILES, NO_MESSAGES_SQL, ParsedCells
from .columns import row_values
from .context import (
    NUMBER_OF_KIND,
    EventName,
    ProjectionContext,
    ReadTable,
    RefusedIds,
    SharedContext,
    TableNumbers,
    TableRows,
    name_events,
)
from .projection import Deduplicated, deduplicate
from .tables import TableBuilder, TablePlan, TableValues, count_messages, plan_table
from .types import SQL_TYPES

_SQL = engine.queries("partition.sql")
# The tables that hold the result of deduplicating a partition.
_STATE = ("rejects", "discards", "refused", "suppressed", "duplicates", "discarded_again")


class PartitionValues(NamedTuple):
    """A summary of a partition's kept messages, by table number: how many there are, and their values."""

    counts: Mapping[int, int]
    values: Mapping[int, TableValues]


class StoredColumns(NamedTuple):
    """Columns of a destination's table that are partitioned like the messages, with the files of one partition."""

    columns: Sequence[str]
    files: Sequence[str]


class NotPartitioned(Exception):
    """A partition needs columns of the destination's tables that are not partitioned yet.

    The only argument has these columns, by table.
    """


@dataclass(frozen=True, kw_only=True)
class PartitionedLoad(SharedContext):
    """A load that is split into `partitions`, with the data that all of its workers share.

    `columns`, `events` and `long_bytes` come from all `ParsedCells` of the load together.
    """

    partitions: int
    columns: Mapping[tuple[str, str | None], dict[str, None]] = field(default_factory=dict)
    events: Sequence[EventName] = ()
    long_bytes: int = 0

    def with_cells(self, cells: ParsedCells) -> "PartitionedLoad":
        """Returns the load with the events and the columns of all cells."""
        events = name_events(cells.events, self.event_table)
        return dataclasses.replace(
            self, columns=cells.columns, events=events, tables=TableNumbers.of(events), long_bytes=cells.long_bytes
        )

    def open(self, con: duckdb.DuckDBPyConnection, scratch: str, cells: ParsedCells) -> ProjectionContext:
        """Opens the cells of one partition in an engine."""
        context = self._context(con, scratch, cells)
        steps.open_messages(context, self.events)
        return context

    def plan(self, values: Mapping[int, TableValues], numbers: Iterable[int]) -> dict[int, TablePlan]:
        """Returns the plans of the tables with these `numbers`, from the values of all partitions; runs no SQL."""
        with duckdb.connect(":memory:") as con:
            context = self._context(con, "", ParsedCells())
            none = TableValues({}, {}, {})
            return {number: plan_table(context, number, values.get(number, none)) for number in numbers}

    def _context(self, con: duckdb.DuckDBPyConnection, scratch: str, cells: ParsedCells) -> ProjectionContext:
        files = [_no_messages(con, scratch, self.columns)] if scratch else []
        cells = dataclasses.replace(
            cells,
            messages=[*files, *cells.messages],
            columns=dict(self.columns),
            events=Counter(event.event for event in self.events),
            long_bytes=self.long_bytes,
        )
        return ProjectionContext(con=con, scratch=scratch, cells=cells, **self.shared_fields())


def _no_messages(
    con: duckdb.DuckDBPyConnection, scratch: str, columns: Mapping[tuple[str, str | None], Collection[str]]
) -> str:
    """Writes a file of messages that has the columns of all partitions but no rows; returns its name."""
    extras = dict.fromkeys(extra for of_event in columns.values() for extra in of_event)
    select = "".join(f", NULL::VARCHAR AS {engine.name(extra)}" for extra in extras)
    path = f"{scratch}/no-messages.parquet"
    con.execute(f"COPY (SELECT *{select} FROM ({NO_MESSAGES_SQL})) TO {engine.literal(path)} (FORMAT parquet)")
    return path


# ---- partitioning --------------------------------------------------------------------------------------------------


def partition_rows(
    con: duckdb.DuckDBPyConnection, query: str, key: str, partitions: int, folder: str, select: str = "*"
) -> dict[int, list[str]]:
    """Writes a query's rows to files in a new folder, partitioned by a digest of the column `key`.

    Returns the files by partition. `select` is the select list of what is written.
    """
    sql = _SQL["partition_rows"].format(
        query=query, key=engine.name(key), partitions=partitions, select=select, folder=engine.literal(folder)
    )
    con.execute(sql)
    files: dict[int, list[str]] = {}
    for path in sorted(Path(folder).glob("part=*/*.parquet")):
        files.setdefault(int(path.parent.name.removeprefix("part=")), []).append(str(path))
    return files


def partition_cells(
    con: duckdb.DuckDBPyConnection, cells: ParsedCells, partitions: int, folder: str
) -> dict[int, ParsedCells]:
    """Partitions files of cells into an empty folder; returns the cells by partition.

    The cells of a partition have only files; all else is in the `PartitionedLoad`.
    """
    parts: dict[int, ParsedCells] = {}
    for what in CELL_FILES:
        if getattr(cells, what):
            for part, files in _partition_files(con, cells, what, partitions, f"{folder}/{what}").items():
                getattr(parts.setdefault(part, ParsedCells()), what).extend(files)
    return parts


def _partition_files(
    con: duckdb.DuckDBPyConnection, cells: ParsedCells, what: str, partitions: int, folder: str
) -> dict[int, list[str]]:
    """Partitions the files of one of `CELL_FILES`."""
    files = getattr(cells, what)
    if partitions == 1:
        return {0: list(files)}
    query = f"FROM {engine.parquet_files(files, union_by_name='true')}"
    if what == "messages":
        return partition_rows(con, f"{query} WHERE NOT irregular", "id", partitions, folder)
    if what == "rejects":
        return partition_rows(con, query, "id", partitions, folder)
    with_id = _SQL["with_id"].format(source=query, messages=engine.parquet_files(cells.messages))
    return partition_rows(con, with_id, "id", partitions, folder, "* EXCLUDE (id)")


def write_refused_lines(
    con: duckdb.DuckDBPyConnection, lines: pa.Table, messages: Sequence[str], refused: RefusedIds, path: str
) -> bool:
    """Writes to a file the lines (`seq`, `text`) that the destination may have refused, with their `id`.

    `messages` are the files of messages of these lines. Returns whether there are any such lines; if not, there is no
    file.
    """
    ids = pa.table({"id": pa.array(refused.messages, pa.string())})
    persons = pa.table({"id": pa.array({id_ for rows in refused.rows.values() for id_ in rows}, pa.string())})
    with engine.registered(con, lines=lines, refused_ids=ids, refused_persons=persons):
        source = engine.parquet_files(messages)
        found = con.execute(_SQL["refused_lines"].format(messages=source)).to_arrow_table()
    if found.num_rows:
        pq.write_table(found, path, compression="zstd")
    return bool(found.num_rows)


def partition_reader(given: Mapping[str, StoredColumns], needed: Callable[[], Collection[str]] = tuple) -> ReadTable:
    """Returns a function that reads the destination's tables from the files of one partition.

    The function raises NotPartitioned if the files lack a column. `needed` returns the tables that will be read later:
    the exception also asks for columns of these.
    """

    def read(table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        partitioned = given.get(table)
        if partitioned is None or not set(columns) <= set(partitioned.columns):
            of_messages = columns if table != AUDIT.name else ("id", "received_at", "uuid_ts")
            raise NotPartitioned(dict.fromkeys(needed(), of_messages) | {table: columns})
        for path in partitioned.files:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(columns=list(columns))

    return read


# ---- a partition ---------------------------------------------------------------------------------------------------


def count_candidates(context: ProjectionContext, left_out: steps.LeftOut) -> dict[int, int]:
    """Returns how many messages of an open partition each table would get, not counting duplicates within the load."""
    steps.leave_out(context, left_out)
    steps.find_duplicates(context)
    return count_messages(context)


def deduplicate_partition(
    context: ProjectionContext,
    given: Mapping[str, StoredColumns] | None,
    complete: Collection[str],
    left_out: steps.LeftOut,
) -> PartitionValues:
    """Decides which messages of an open partition are kept; returns a summary of their values.

    `given` has the stored columns of this partition, such as ids; None means that no message counts as stored. Raises
    NotPartitioned if more columns are needed.
    """
    steps.leave_out(context, left_out)

    def needed() -> set[str]:
        numbers = context.con.execute(_SQL["tables_of_stored"]).fetchall()
        return {context.tables.names[number] for (number,) in numbers} & context.existing.keys()

    stored = None if given is None else partition_reader(given, needed)
    deduplicate(context, stored, complete, max_event_tables=sys.maxsize)
    builder = TableBuilder(context, row_values(context, "kept"))
    counts = builder.gather()
    return PartitionValues(counts, {number: builder.values(number) for number in counts})


def save_state(context: ProjectionContext, folder: str) -> dict[str, str]:
    """Writes the tables of a deduplicated partition (`_STATE`) to files in an empty folder; returns them by table."""
    saved: dict[str, str] = {}
    for table in _STATE:
        if engine.count(context.con, table):
            saved[table] = f"{folder}/{table}.parquet"
            context.con.execute(f"COPY {table} TO {engine.literal(saved[table])} ({texts.SMALL_GROUPS})")
    return saved


def open_deduplicated(
    load: PartitionedLoad,
    con: duckdb.DuckDBPyConnection,
    scratch: str,
    cells: ParsedCells,
    saved: Mapping[str, str],
    plans: Mapping[int, TablePlan],
) -> "PartitionRows":
    """Opens a partition that another worker has deduplicated."""
    context = load.open(con, scratch, dataclasses.replace(cells, rejects=[], discards=[]))
    for table, path in saved.items():
        query = f"FROM {engine.parquet_files([path])}"
        if table in texts.TEXT_TABLES:
            texts.insert(context, table, query)
        else:
            con.execute(f"INSERT INTO {table} BY NAME {query}")
    steps.reject_messages(context, *(table for table in ("refused", "suppressed") if table in saved))
    return PartitionRows(context, plans)


class PartitionRows(Deduplicated):
    """The rows of one partition's tables, and its books."""

    def __init__(self, context: ProjectionContext, plans: Mapping[int, TablePlan]) -> None:
        super().__init__(context, {}, plans)

    def partition_latest(self, latest: Latest, plan: TablePlan, folder: str, partitions: int) -> "LatestFiles":
        """Partitions by person the ids and the kept messages from which rows of `users` (`accounts`) are made.

        `plan` is the plan of the messages' table.
        """
        Path(folder).mkdir()
        con = self._context.con
        if not users.find_changed(self._context, latest):
            return LatestFiles({}, {})
        ids = partition_rows(con, "FROM latest_ids", "id", partitions, f"{folder}/ids")
        rows = self._builder.rows(NUMBER_OF_KIND[latest.kind]).relation.sql_query()
        select = ", ".join(map(engine.name, plan.types))
        query = f"SELECT {select} FROM ({rows}) WHERE {engine.name(latest.key)} IS NOT NULL"
        return LatestFiles(ids, partition_rows(con, query, latest.key, partitions, f"{folder}/messages"))

    def discarded(self) -> list[tuple[str, str, int]]:
        """Returns how many values were discarded, by reason and table. Call it after `discards`."""
        return audit.discarded_by_table(self._context)


class LatestFiles(NamedTuple):
    """The files of ids and of messages from which rows of `users` (`accounts`) are made, by the person's partition."""

    ids: Mapping[int, Sequence[str]]
    messages: Mapping[int, Sequence[str]]


def latest_of_partition(
    context: ProjectionContext,
    latest: Latest,
    ids: Sequence[str],
    messages: Sequence[str],
    types: Mapping[str, Type],
    given: StoredColumns | None,
) -> TableRows:
    """Returns the rows of `users` (`accounts`) for one partition of persons; `types` are the messages' columns."""
    source = f"SELECT DISTINCT id FROM {engine.parquet_files(ids)}" if ids else "SELECT NULL::VARCHAR AS id LIMIT 0"
    context.con.execute(f"CREATE OR REPLACE TABLE latest_ids AS {source}")
    nulls = ", ".join(f"NULL::{SQL_TYPES[type_]} AS {engine.name(column)}" for column, type_ in types.items())
    query = f"FROM {engine.parquet_files(messages)}" if messages else f"SELECT {nulls} LIMIT 0"
    fresh = TableRows(latest.messages.name, types, context.con.sql(query), 0)
    stored = None if given is None else partition_reader({latest.messages.name: given})
    return users.make_latest(context, latest, fresh, stored)


# ---- all partitions together ---------------------------------------------------------------------------------------


def merge_partitions(parts: Iterable[PartitionValues]) -> PartitionValues:
    """Returns the summary of the kept messages of several partitions together."""
    counts: dict[int, int] = {}
    values: dict[int, TableValues] = {}
    for part in parts:
        for number, count in part.counts.items():
            counts[number] = counts.get(number, 0) + count
        for number, found in part.values.items():
            values[number] = values[number].merge(found) if number in values else found
    return PartitionValues(counts, values)


def refused_lines_reader(files: Iterable[str]) -> steps.ReadLines:
    """Returns a function that reads lines by their numbers from files that `write_refused_lines` wrote."""

    def read(numbers: Collection[int]) -> Iterator[tuple[int, bytes]]:
        requested = pa.array(numbers, pa.int64())
        for path in files:
            table = pq.read_table(path, columns=["seq", "text"])
            found = table.filter(pc.is_in(table["seq"], requested))
            yield from zip(found["seq"].to_pylist(), found["text"].cast(pa.large_binary()).to_pylist(), strict=True)

    return read
