"""What an account has now: cells in, rows of one table out (spec: Values, as for messages).

Cells wait in Parquet files until all are there, because only then the type of each column is known.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

from ..catalog import DISCARDS, Table, Type
from ..messages import Thing
from . import values
from .tables import SQL_TYPES, Rows, Stored, ordered

MAX_COLUMNS = 1_000  # beyond the catalogue's; warehouses take 1,600 a table and fewer


class Things:
    """One table's things: add them all, then take the rows and what was discarded. Of one key the last stays.

    `received_at` is when the scan began, `scratch` an empty folder, which the caller deletes. `shorten` gives a column
    the name that it has in the destination.
    """

    def __init__(
        self,
        table: Table,
        received_at: datetime,
        loaded_at: datetime,
        scratch: str,
        memory: int = 200,
        shorten: Callable[[str], str] = str,
    ) -> None:
        self.table = table
        self._received_at, self._loaded_at = (
            f"TIMESTAMPTZ '{clock.isoformat()}'" for clock in (received_at, loaded_at)
        )
        self._scratch = scratch
        self._shorten = shorten
        self._catalogue: dict[str, Type] = {column.name: column.type for column in table.columns}
        self._extras: dict[str, set[Type]] = {}
        self._seen = 0
        self._parts = itertools.count()
        self._con = values.connect(scratch, memory, threads=1)
        self._con.execute(
            'CREATE TABLE discards (seq BIGINT, "column" VARCHAR, value VARCHAR, reason VARCHAR);'
            "CREATE TABLE gone (uuid_ts TIMESTAMPTZ)"
        )
        self._keys = [values.name(f"k:{number}") for number in range(len(table.key))]

    def close(self) -> None:
        """Gives back the memory."""
        self._con.close()

    def add(self, things: Sequence[Thing]) -> None:
        """Takes some things."""
        if not things:
            return
        rows, discards = [], []
        for seq, thing in enumerate(things, self._seen):
            row = {f"k:{number}": part for number, part in enumerate(thing.key)}
            discards += [{"seq": seq, **discard._asdict()} for discard in thing.discards]
            for name, cell in thing.cells.items():
                if self._has_room(name):
                    row[f"x:{name}"] = cell
                else:
                    discards.append({"seq": seq, "column": name, "value": cell, "reason": "too_many_columns"})
            for name, declared in thing.declared.items():
                if name in self._extras:
                    self._extras[name].add(declared)
            rows.append({"seq": seq, **row})
        self._seen += len(rows)
        names = dict.fromkeys(name for row in rows for name in row)
        part = f"{self._scratch}/things-{next(self._parts)}.parquet"
        pq.write_table(_table(rows, list(names)), part, compression="zstd")
        if discards:
            found = _table(discards, list(discards[0]))
            self._con.register("found", found)
            self._con.execute("INSERT INTO discards BY NAME FROM found")
            self._con.unregister("found")

    def _has_room(self, name: str) -> bool:
        if name in self._catalogue or name in self._extras:
            return True
        if len(self._extras) < MAX_COLUMNS:
            self._extras[name] = set()
            return True
        return False

    def rows(self, known: Mapping[str, Type], stored: Stored | None = None) -> Rows:
        """The rows; columns that are `known` keep their types.

        With `stored`, which reads the table as it is, the scan was complete: what is there, and was not found, is
        deleted, and comes as it is there with the time in `deleted_at`.
        """
        self._open()
        types = {self._shorten(name): of for name, of in self._types(known).items()}
        if stored is not None and known:
            self._find_gone(known, stored)
            types = dict(known) | types
        columns = ordered(types, self.table.key)
        select = ", ".join(map(values.name, columns))
        relation = self._con.sql(f"SELECT {select} FROM (FROM now UNION ALL BY NAME FROM gone)")
        return Rows(self.table.name, columns, relation, self._count("now") + self._count("gone"))

    def _open(self) -> None:
        parts = values.literal(f"{self._scratch}/things-*.parquet")
        empty = ", ".join(f"NULL::VARCHAR AS {key}" for key in self._keys)
        source = (
            f"FROM read_parquet({parts}, union_by_name = true)" if self._seen else f"SELECT {empty}, 0 AS seq LIMIT 0"
        )
        self._con.execute(f"""
            CREATE VIEW things AS {source};
            CREATE TABLE last AS SELECT max(seq) AS seq FROM things GROUP BY {", ".join(self._keys)};
            CREATE VIEW live AS FROM things SEMI JOIN last USING (seq)""")

    def _types(self, known: Mapping[str, Type]) -> dict[str, Type]:
        """The type of each column; the view `now` has them. What does not fit is discarded."""
        there = set(self._con.table("things").columns)
        types = self._catalogue | {
            name: known.get(self._shorten(name)) or self._type(name, declared)
            for name, declared in self._extras.items()
        }
        own = {"received_at": self._received_at, "uuid_ts": self._loaded_at}
        cells = {name: f"{clock} AS {name}" for name, clock in own.items()}
        for name, of in types.items():
            if name in own:
                continue
            cell = values.name(f"x:{name}")
            dated = of == "timestamp" and (name in self._catalogue or name.startswith("custom_"))
            cast = f"as_{'moment' if dated else of}({cell})" if f"x:{name}" in there else "NULL"
            cells[name] = f"{cast}::{SQL_TYPES[of]} AS {values.name(self._shorten(name))}"
            if cast != "NULL" and of != "text":
                self._con.execute(
                    f"INSERT INTO discards SELECT seq, ?, {cell}, ? FROM live"
                    f" WHERE {cell} IS NOT NULL AND {cast} IS NULL",
                    [name, "not_a_time" if dated else "does_not_fit"],
                )
        self._con.execute(f"CREATE VIEW now AS SELECT {', '.join(cells.values())} FROM live")
        return types

    def _type(self, name: str, declared: set[Type]) -> Type:
        if len(declared) == 1:
            return next(iter(declared))
        found = self._con.execute(f"SELECT value_kinds({values.name(f'x:{name}')}) FROM live").fetchone()
        return values.type_of_kinds(found[0]) if found and found[0] is not None else "text"

    def _find_gone(self, known: Mapping[str, Type], stored: Stored) -> None:
        """What is there from an earlier scan, and was not found by this one."""
        same = " AND ".join(
            f"l.{own} = s.{values.name(key)}" for own, key in zip(self._keys, self.table.key, strict=True)
        )
        keys = ", ".join(map(values.name, self.table.key))
        empty = ", ".join(f"NULL::VARCHAR AS {values.name(key)}" for key in self.table.key)
        self._con.execute(f"CREATE TABLE missing AS SELECT {empty} LIMIT 0")
        self._read(
            stored(self.table.name, [*self.table.key, "received_at", "deleted_at"]),
            f"INSERT INTO missing SELECT {keys} FROM stored s ANTI JOIN live l ON {same}"
            f" WHERE s.deleted_at IS NULL AND s.received_at < {self._received_at}",
        )
        columns = ", ".join(f"NULL::{SQL_TYPES[of]} AS {values.name(name)}" for name, of in known.items())
        self._con.execute(f"CREATE OR REPLACE TABLE gone AS SELECT {columns} LIMIT 0")
        if self._count("missing"):
            self._read(
                stored(self.table.name, list(known)),
                "INSERT INTO gone BY NAME SELECT"
                f" * REPLACE ({self._loaded_at} AS uuid_ts, {self._received_at} AS deleted_at)"
                f" FROM stored SEMI JOIN missing USING ({keys})",
            )

    def discards(self) -> Rows | None:
        """`_discards` of the rows, None where there are none; complete once the rows were taken."""
        row_id = f"concat_ws(' ', {', '.join(self._keys)})"
        self._con.execute(f"""
            CREATE OR REPLACE TABLE discarded AS
            SELECT sha256(concat_ws(chr(10), table_name, row_id, column_name, value)) AS id, *
            FROM (SELECT DISTINCT {values.literal(self.table.name)} AS table_name, {row_id} AS row_id,
                "column" AS column_name, value, reason, {self._received_at} AS received_at,
                {self._loaded_at} AS discarded_at FROM discards JOIN live USING (seq))
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY reason) = 1""")
        columns: dict[str, Type] = {column.name: column.type for column in DISCARDS.columns}
        count = self._count("discarded")
        relation = self._con.sql(f"SELECT {', '.join(columns)} FROM discarded")
        return Rows(DISCARDS.name, columns, relation, count) if count else None

    def _read(self, batches: Iterable[pa.RecordBatch], sql: str) -> None:
        """Runs `sql` over `stored`, which streams the batches; nothing is run where there are none."""
        stream = iter(batches)
        first = next(stream, None)
        if first is not None:
            reader = pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], stream))
            self._con.register("stored", reader)
            self._con.execute(sql)
            self._con.unregister("stored")

    def _count(self, table: str) -> int:
        found = self._con.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(found[0]) if found else 0


def _table(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> pa.Table:
    fields = [(name, pa.int64() if name == "seq" else pa.string()) for name in names]
    return pa.Table.from_pylist(rows, pa.schema(fields))
