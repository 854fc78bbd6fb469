"""Snapshots of an account: turns the cells of records into rows of one table, typed like those of messages.

(docs/contract/warehouse.md#values) Cells are buffered in Parquet files until all records are added, because only then
is the type of each column known.
"""

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ..catalog import DISCARDS, OTHER_LIMITS, Table, Type
from ..segment.identity import NOBODY, HashedIds, Id, ids_in, kinds_of
from ..segment.message import Record
from . import engine
from .cells import MOST_BYTES
from .context import ReadTable, TableRows, book_rows, declared_types, ordered_columns
from .types import SQL_TYPES, type_of_bits

SNAPSHOT_COLUMN_MEMORY = 3  # MB that each column can take when the rows are written
AGGREGATES_AT_ONCE = 50  # aggregates that one query computes
KILL_POINT_SNAPSHOT_ROWS = f"{__name__}:Snapshot.rows"  # for tests/faults
_SQL = engine.queries("snapshot.sql")


class SnapshotTarget(NamedTuple):
    """The destination's table: how its columns are named, the columns that it has, and how many more it can get."""

    shorten: Callable[[str], str] = str
    existing: Collection[str] = ()
    room: int = OTHER_LIMITS.columns


_NEW_TABLE = SnapshotTarget()


@dataclass(frozen=True)
class _SnapshotContext:
    """What the steps of a snapshot share. `received_at` and `loaded_at` are SQL literals."""

    con: duckdb.DuckDBPyConnection
    table: Table
    received_at: str
    loaded_at: str
    scratch: str
    memory: int
    shorten: Callable[[str], str]
    parts: Iterator[int] = field(default_factory=itertools.count)

    @property
    def keys(self) -> list[str]:
        """The quoted names of the columns that hold the parts of a record's key."""
        return [engine.name(f"k:{number}") for number in range(len(self.table.key))]

    @property
    def same_key(self) -> str:
        """The SQL condition that a current record `c` and a stored row `s` have the same key."""
        both = zip(self.keys, map(engine.name, self.table.key), strict=True)
        return " AND ".join(f"c.{own} = s.{stored}" for own, stored in both)

    def path(self, what: str) -> str:
        """Returns the name of a new file."""
        return f"{self.scratch}/{what}-{next(self.parts)}.parquet"

    def paths(self, what: str) -> str:
        """Returns the SQL of a glob that matches all files of one kind, such as `records`."""
        return f"{engine.glob_literal(self.scratch)} || '/{what}-*.parquet'"


class _SnapshotColumns:
    """A table's columns, which grow with its records as long as the destination's table has room for them."""

    def __init__(self, table: Table, target: SnapshotTarget) -> None:
        self._catalogue = declared_types(table)
        self._target = target
        self._room = target.room
        self.extras: dict[str, set[Type]] = {}
        """The columns beyond the catalogue's, with the types that the origin declared for them."""

    def take(self, name: str) -> bool:
        """Adds a column unless the table has it already; returns False if there is no room for it."""
        if name in self._catalogue or name in self.extras:
            return True
        if self._target.shorten(name) not in self._target.existing:
            if not self._room:
                return False
            self._room -= 1
        self.extras[name] = set()
        return True


class Snapshot:
    """One table's records: add them all, then take the rows and the discards. The last record of each key is kept.

    `LoadContext.snapshot` makes one for an origin. `received_at` is when the scan began; a record's own cell of that
    name takes precedence. `scratch` is an empty folder, which the caller deletes; `memory` is in MB. Records of
    `suppressed` (deleted) persons are left out and counted in `left_out`. `target` describes the destination's table;
    by default it is a new one.
    """

    def __init__(
        self,
        table: Table,
        received_at: datetime,
        loaded_at: datetime,
        scratch: str,
        memory: int = 200,
        suppressed: HashedIds = NOBODY,
        target: SnapshotTarget = _NEW_TABLE,
    ) -> None:
        self.table = table
        self.left_out = 0
        self._suppressed = suppressed
        self._columns = _SnapshotColumns(table, target)
        self._seen = 0
        con = engine.connect(scratch, memory, threads=1)
        con.execute(_SQL["tables"])
        received, loaded = (f"TIMESTAMPTZ '{time.isoformat()}'" for time in (received_at, loaded_at))
        self._context = _SnapshotContext(
            con, table, received_at=received, loaded_at=loaded, scratch=scratch, memory=memory, shorten=target.shorten
        )

    def close(self) -> None:
        """Frees the memory."""
        self._context.con.close()

    def add(self, records: Sequence[Record]) -> None:
        """Adds some records, except those of deleted persons."""
        kept = [record for record in records if not any(id_ in self._suppressed for id_ in _ids(self.table, record))]
        self.left_out += len(records) - len(kept)
        if kept:
            _write_records(self._context, self._columns, self._seen, kept)
            self._seen += len(kept)

    def rows(
        self, known: Mapping[str, Type], stored: ReadTable | None = None, newer: ReadTable | None = None
    ) -> TableRows:
        """Returns the rows; `known` columns of the destination's table keep their types.

        Pass `stored`, which reads that table, if the scan was complete: rows of records that it did not find are also
        returned, with the time of the scan in `deleted_at`. Pass `newer`, which reads the table as well, to leave out
        records if a later change of them was stored while the scan ran.
        """
        count = _open_records(self._context, self._seen)
        if newer is not None and "updated_at" in known:
            count -= _drop_outdated(self._context, newer)
        types = _type_records(self._context, self._columns.extras, known)
        deleted = _find_deleted(self._context, known, stored) if stored is not None and known else 0
        columns = ordered_columns({**known, **types} if deleted else types, self.table.key)
        con = self._context.con
        # Each column of the file that is written has its own buffers.
        con.execute(f"SET memory_limit = '{self._context.memory + SNAPSHOT_COLUMN_MEMORY * len(columns)}MB'")
        select = ", ".join(map(engine.name, columns))
        relation = con.sql(f"SELECT {select} FROM (FROM current_rows UNION ALL BY NAME FROM deleted)")
        return TableRows(self.table.name, columns, relation, count + deleted)

    def rows_with_discards(
        self, known: Mapping[str, Type], stored: ReadTable | None = None, newer: ReadTable | None = None
    ) -> Iterator[TableRows]:
        """Yields the rows as `rows` returns them, then those of `_discards`, if there are any."""
        yield self.rows(known, stored, newer)
        if (discards := self.discards()) is not None:
            yield discards

    def discards(self) -> TableRows | None:
        """Returns the rows of `_discards`, or None if there are none. Call it after `rows`."""
        context = self._context
        if not engine.count(context.con, "discards"):
            return None  # which saves a pass over all records
        sql = _SQL["discarded"].format(
            keys=", ".join(context.keys), received_at=context.received_at, loaded_at=context.loaded_at
        )
        context.con.execute(sql, {"table_name": self.table.name})
        return book_rows(context.con, "discarded", DISCARDS)


def _ids(table: Table, record: Record) -> Iterator[Id]:
    """Yields the ids of persons in a record's key and cells."""
    keys = zip(table.key, map(json.dumps, record.key), strict=True)
    for name, cell in (*keys, *record.cells.items()):
        if (kinds := kinds_of(table.name, name)) and cell.startswith('"'):
            yield from ids_in(kinds, json.loads(cell))


def _write_records(context: _SnapshotContext, columns: _SnapshotColumns, first: int, records: Sequence[Record]) -> None:
    """Writes the cells of records, numbered from `first` on, and discards those that no column has room for."""
    rows, discards = [], []
    for seq, record in enumerate(records, first):
        row = {f"k:{number}": part for number, part in enumerate(record.key)}
        discards += [{"seq": seq, **discard._asdict()} for discard in record.discards]
        for name, cell in record.cells.items():
            if columns.take(name):
                row[f"x:{name}"] = cell
            else:
                discards.append({"seq": seq, "column": name, "value": cell, "reason": "too_many_columns"})
        for name, declared in record.declared.items():
            if name in columns.extras:
                columns.extras[name].add(declared)
        rows.append({"seq": seq, **row})
    names = dict.fromkeys(name for row in rows for name in row)
    table = engine.text_table(rows, names)
    most = max(1, table.num_rows * MOST_BYTES // max(1, table.nbytes))
    pq.write_table(table, context.path("records"), row_group_size=most, compression="zstd")
    if discards:
        with engine.registered(context.con, found=engine.text_table(discards, discards[0])):
            context.con.execute("INSERT INTO discards BY NAME FROM found")


def _open_records(context: _SnapshotContext, seen: int) -> int:
    """Creates the view `current` of the last record of each key, among `seen` records; returns how many it has."""
    files = context.paths("records")
    empty = ", ".join(f"NULL::VARCHAR AS {key}" for key in context.keys)
    source = f"FROM read_parquet({files}, union_by_name = true)" if seen else f"SELECT {empty}, 0 AS seq LIMIT 0"
    context.con.execute(_SQL["records"].format(source=source, keys=", ".join(context.keys)))
    count = engine.count(context.con, "last")
    context.con.execute(_SQL["current"].format(last="" if count == seen else " SEMI JOIN last USING (seq)"))
    return count


def _drop_outdated(context: _SnapshotContext, stored: ReadTable) -> int:
    """Removes records from `current` if their stored rows were received after the scan began and are newer.

    Returns how many it removes.
    """
    con, key = context.con, context.table.key
    if "x:updated_at" not in con.table("records").columns:
        return 0
    con.execute("CREATE TABLE older (seq BIGINT)")
    sql = _SQL["older"].format(
        same=context.same_key, received_at=context.received_at, updated_at=f"c.{_cell('updated_at')}"
    )
    engine.read_stored(con, stored(context.table.name, [*key, "received_at", "updated_at"]), sql)
    count = engine.count(con, "older")
    if count:
        con.execute(_SQL["newest"])
    return count


def _type_records(
    context: _SnapshotContext, extras: Mapping[str, Collection[Type]], existing: Mapping[str, Type]
) -> dict[str, Type]:
    """Creates the view `current_rows` of typed values, and discards values that do not fit their column.

    Returns the types of the columns, by their names in the destination.
    """
    catalogue = declared_types(context.table)
    cells = set(context.con.table("records").columns)
    own_time = f"as_moment({_cell('received_at')})" if "x:received_at" in cells else "NULL"
    stamps = {"received_at": f"coalesce({own_time}, {context.received_at})", "uuid_ts": context.loaded_at}
    select = [f"{sql} AS {name}" for name, sql in stamps.items()]
    types = catalogue | _extra_types(context, extras, existing)
    casts: dict[str, tuple[str, str]] = {}
    for name, type_ in types.items():
        if name in stamps:
            continue
        is_time = type_ == "timestamp" and (name in catalogue or name.startswith("custom_"))
        has_cell = f"x:{name}" in cells
        cast = f"as_{'moment' if is_time else type_}({_cell(name)})" if has_cell else "NULL"
        select.append(f"{cast}::{SQL_TYPES[type_]} AS {engine.name(context.shorten(name))}")
        if has_cell and type_ != "text":
            casts[name] = cast, "not_a_time" if is_time else "does_not_fit"
    _discard_misfits(context, casts)
    context.con.execute(f"CREATE VIEW current_rows AS SELECT {', '.join(select)} FROM current")
    return {context.shorten(name): type_ for name, type_ in types.items()}


def _extra_types(
    context: _SnapshotContext, extras: Mapping[str, Collection[Type]], existing: Mapping[str, Type]
) -> dict[str, Type]:
    """Returns each extra's type: the existing column's, otherwise the declared one, otherwise that of all values.

    A type counts as declared only if the origin declared no other for the same extra.
    """
    types: dict[str, Type] = {}
    for name, declared in extras.items():
        if (type_ := existing.get(context.shorten(name))) is not None:
            types[name] = type_
        elif len(declared) == 1:
            [types[name]] = declared
    others = [name for name in extras if name not in types]
    all_bits = _aggregate(context, [f"type_bits({_cell(name)})" for name in others])
    return types | {name: type_of_bits(bits or 0) for name, bits in zip(others, all_bits, strict=True)}


def _discard_misfits(context: _SnapshotContext, casts: Mapping[str, tuple[str, str]]) -> None:
    """Discards values that a cast turns into null; `casts` has each column's cast and the reason for the discard."""
    misfits = {name: f"{_cell(name)} IS NOT NULL AND {cast} IS NULL" for name, (cast, _) in casts.items()}
    counts = _aggregate(context, [f"count(*) FILTER ({misfit})" for misfit in misfits.values()])
    for (name, misfit), count in zip(misfits.items(), counts, strict=True):
        if count:
            sql = _SQL["discard"].format(cell=_cell(name), misfit=misfit)
            context.con.execute(sql, {"column_name": name, "reason": casts[name][1]})


def _aggregate(context: _SnapshotContext, aggregates: Sequence[str]) -> list[int]:
    """Returns aggregates over all current records; computes only some at a time to save memory."""
    results: list[int] = []
    for part in engine.batched(aggregates, AGGREGATES_AT_ONCE):
        results += context.con.execute(f"SELECT {', '.join(part)} FROM current").fetchone() or ()
    return results


def _find_deleted(context: _SnapshotContext, existing: Mapping[str, Type], stored: ReadTable) -> int:
    """Creates the view `deleted` of the stored rows whose records this scan did not find; returns how many it has.

    The rows are read batch by batch, because the engine's join would hold all of them in memory.
    """
    con, key = context.con, context.table.key
    keys = ", ".join(map(engine.name, key))
    con.execute(f"CREATE TABLE missing ({', '.join(f'{engine.name(name)} VARCHAR' for name in key)})")
    sql = _SQL["missing"].format(keys=keys, same=context.same_key, received_at=context.received_at)
    engine.read_stored(con, stored(context.table.name, [*key, "received_at", "deleted_at"]), sql)
    if not engine.count(con, "missing"):
        return 0
    sql = _SQL["deleted"].format(loaded_at=context.loaded_at, received_at=context.received_at, keys=keys)
    for batch in stored(context.table.name, list(existing)):
        with engine.registered(con, stored=pa.Table.from_batches([batch])):
            deleted = con.sql(sql).to_arrow_table()
        if deleted.num_rows:
            pq.write_table(deleted, context.path("deleted"))
    con.execute(f"CREATE OR REPLACE VIEW deleted AS FROM read_parquet({context.paths('deleted')})")
    return engine.count(con, "deleted")


def _cell(column: str) -> str:
    """Returns the SQL name of a column's JSON text."""
    return engine.name(f"x:{column}")
