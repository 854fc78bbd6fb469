"""What an account has now: cells in, rows of one table out (spec: Values, as for messages).

Cells wait in Parquet files until all are there, because only then the type of each column is known.
"""

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

from ..catalog import DISCARDS, OTHER_LIMITS, Table, Type
from ..segment.identity import NOBODY, HashedIds, Id, ids_in, kinds_of
from ..segment.message import Record
from . import engine
from .context import ReadTable, TableRows, ordered_columns
from .types import SQL_TYPES, type_of_bits

COLUMN_MEMORY = 3  # MB that a column more may take


class Snapshot:
    """One table's things: add them all, then take the rows and what was discarded. Of one key the last stays.

    `received_at` is when the scan began, `scratch` an empty folder, which the caller deletes. `shorten` gives a column
    the name that it has in the destination. `left_out` counts the things of `forgotten` persons. The table has the
    columns `there` already, and room for `room` more.
    """

    def __init__(
        self,
        table: Table,
        received_at: datetime,
        loaded_at: datetime,
        scratch: str,
        memory: int = 200,
        shorten: Callable[[str], str] = str,
        forgotten: HashedIds = NOBODY,
        there: Collection[str] = (),
        room: int = OTHER_LIMITS.columns,
    ) -> None:
        self.table = table
        self.left_out = 0
        self._forgotten = forgotten
        self._there = there
        self._room = room
        self._received_at, self._loaded_at = (
            f"TIMESTAMPTZ '{clock.isoformat()}'" for clock in (received_at, loaded_at)
        )
        self._scratch = scratch
        self._shorten = shorten
        self._catalogue: dict[str, Type] = {column.name: column.type for column in table.columns}
        self._memory = memory
        self._extras: dict[str, set[Type]] = {}
        self._seen = 0
        self._parts = itertools.count()
        self._con = engine.connect(scratch, memory, threads=1)
        self._con.execute(
            'CREATE TABLE discards (seq BIGINT, "column" VARCHAR, value VARCHAR, reason VARCHAR);'
            "CREATE VIEW gone AS SELECT NULL::TIMESTAMPTZ AS uuid_ts LIMIT 0"
        )
        self._keys = [engine.name(f"k:{number}") for number in range(len(table.key))]

    def close(self) -> None:
        """Gives back the memory."""
        self._con.close()

    def add(self, things: Sequence[Record]) -> None:
        """Takes some things, and leaves out those of forgotten persons."""
        some = len(things)
        things = [thing for thing in things if not any(id_ in self._forgotten for id_ in self._ids(thing))]
        self.left_out += some - len(things)
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
        pq.write_table(engine.text_table(rows, names), part, compression="zstd")
        if discards:
            found = engine.text_table(discards, discards[0])
            self._con.register("found", found)
            self._con.execute("INSERT INTO discards BY NAME FROM found")
            self._con.unregister("found")

    def _ids(self, thing: Record) -> Iterator[Id]:
        """The ids of persons in a thing."""
        keys = zip(self.table.key, map(json.dumps, thing.key), strict=True)
        for name, cell in (*keys, *thing.cells.items()):
            if (kinds := kinds_of(self.table.name, name)) and cell.startswith('"'):
                yield from ids_in(kinds, json.loads(cell))

    def _has_room(self, name: str) -> bool:
        if name in self._catalogue or name in self._extras:
            return True
        if self._shorten(name) not in self._there:
            if not self._room:
                return False
            self._room -= 1
        self._extras[name] = set()
        return True

    def rows(self, known: Mapping[str, Type], stored: ReadTable | None = None) -> TableRows:
        """The rows; columns that are `known` keep their types.

        With `stored`, which reads the table as it is, the scan was complete: what is there, and was not found, is
        deleted, and comes as it is there with the time in `deleted_at`.
        """
        self._open()
        types = {self._shorten(name): of for name, of in self._types(known).items()}
        if stored is not None and known and self._find_gone(known, stored):
            types = dict(known) | types
        columns = ordered_columns(types, self.table.key)
        # Each column takes buffers of its own in the file that is written.
        self._con.execute(f"SET memory_limit = '{self._memory + COLUMN_MEMORY * len(columns)}MB'")
        select = ", ".join(map(engine.name, columns))
        relation = self._con.sql(f"SELECT {select} FROM (FROM now UNION ALL BY NAME FROM gone)")
        return TableRows(self.table.name, columns, relation, self._number + self._count("gone"))

    def _open(self) -> None:
        """Makes the view `live`: all things, but of those that came several times the last."""
        parts = engine.literal(f"{self._scratch}/things-*.parquet")
        empty = ", ".join(f"NULL::VARCHAR AS {key}" for key in self._keys)
        source = (
            f"FROM read_parquet({parts}, union_by_name = true)" if self._seen else f"SELECT {empty}, 0 AS seq LIMIT 0"
        )
        self._con.execute(f"""
            CREATE VIEW things AS {source};
            CREATE TABLE last AS SELECT max(seq) AS seq FROM things GROUP BY {", ".join(self._keys)}""")
        self._number = self._count("last")
        once = "" if self._number == self._seen else " SEMI JOIN last USING (seq)"
        self._con.execute(f"CREATE VIEW live AS FROM things{once}")

    def _types(self, known: Mapping[str, Type]) -> dict[str, Type]:
        """The type of each column; the view `now` has them. What does not fit is discarded."""
        there = set(self._con.table("things").columns)
        types = self._catalogue | self._extra_types(known)
        own = {"received_at": self._received_at, "uuid_ts": self._loaded_at}
        cells = [f"{clock} AS {name}" for name, clock in own.items()]
        doubtful: dict[str, tuple[str, str]] = {}
        for name, of in types.items():
            if name in own:
                continue
            dated = of == "timestamp" and (name in self._catalogue or name.startswith("custom_"))
            cast = f"as_{'moment' if dated else of}({_cell(name)})" if f"x:{name}" in there else "NULL"
            cells.append(f"{cast}::{SQL_TYPES[of]} AS {engine.name(self._shorten(name))}")
            if cast != "NULL" and of != "text":
                doubtful[name] = cast, "not_a_time" if dated else "does_not_fit"
        self._discard(doubtful)
        self._con.execute(f"CREATE VIEW now AS SELECT {', '.join(cells)} FROM live")
        return types

    def _extra_types(self, known: Mapping[str, Type]) -> dict[str, Type]:
        """The type that a column has already, else the one that is declared, else by all its values."""
        types = {name: known.get(self._shorten(name)) for name in self._extras}
        types |= {
            name: next(iter(declared))
            for name, declared in self._extras.items()
            if types[name] is None and len(declared) == 1
        }
        open_ones = [name for name, of in types.items() if of is None]
        kinds = self._ask([f"type_bits({_cell(name)})" for name in open_ones])
        of_kinds = {name: type_of_bits(kind or 0) for name, kind in zip(open_ones, kinds, strict=True)}
        return {name: of or of_kinds[name] for name, of in types.items()}

    def _discard(self, doubtful: Mapping[str, tuple[str, str]]) -> None:
        """Discards what a cast makes null; `doubtful` are the casts and the reasons by column."""
        misfits = {name: f"{_cell(name)} IS NOT NULL AND {cast} IS NULL" for name, (cast, _) in doubtful.items()}
        counts = self._ask([f"count(*) FILTER ({misfit})" for misfit in misfits.values()])
        for (name, misfit), count in zip(misfits.items(), counts, strict=True):
            if count:
                self._con.execute(
                    f"INSERT INTO discards SELECT seq, ?, {_cell(name)}, ? FROM live WHERE {misfit}",
                    [name, doubtful[name][1]],
                )

    def _ask(self, questions: Sequence[str]) -> list[int]:
        """Aggregates over all things, as many at a time as the memory has room for."""
        answers: list[int] = []
        for start in range(0, len(questions), 50):
            part = ", ".join(questions[start : start + 50])
            answers += self._con.execute(f"SELECT {part} FROM live").fetchone() or ()
        return answers

    def _find_gone(self, known: Mapping[str, Type], stored: ReadTable) -> bool:
        """Makes the view `gone`: what is there from an earlier scan, and was not found by this one, if anything."""
        same = " AND ".join(
            f"l.{own} = s.{engine.name(key)}" for own, key in zip(self._keys, self.table.key, strict=True)
        )
        keys = ", ".join(map(engine.name, self.table.key))
        empty = ", ".join(f"NULL::VARCHAR AS {engine.name(key)}" for key in self.table.key)
        self._con.execute(f"CREATE TABLE missing AS SELECT {empty} LIMIT 0")
        engine.read_stored(
            self._con,
            stored(self.table.name, [*self.table.key, "received_at", "deleted_at"]),
            f"INSERT INTO missing SELECT {keys} FROM stored s ANTI JOIN live l ON {same}"
            f" WHERE s.deleted_at IS NULL AND s.received_at < {self._received_at}",
        )
        if not self._count("missing"):
            return False
        # Batch by batch: all rows at once would be held in memory by the engine's join.
        for batch in stored(self.table.name, list(known)):
            self._con.register("stored", pa.Table.from_batches([batch]))
            found = self._con.sql(
                f"SELECT * REPLACE ({self._loaded_at} AS uuid_ts, {self._received_at} AS deleted_at)"
                f" FROM stored SEMI JOIN missing USING ({keys})"
            ).to_arrow_table()
            if found.num_rows:
                pq.write_table(found, f"{self._scratch}/gone-{next(self._parts)}.parquet")
            self._con.unregister("stored")
        parts = engine.literal(f"{self._scratch}/gone-*.parquet")
        self._con.execute(f"CREATE OR REPLACE VIEW gone AS FROM read_parquet({parts})")
        return True

    def discards(self) -> TableRows | None:
        """`_discards` of the rows, None where there are none; complete once the rows were taken."""
        if not self._count("discards"):
            return None
        row_id = f"concat_ws(' ', {', '.join(self._keys)})"
        self._con.execute(f"""
            CREATE OR REPLACE TABLE discarded AS
            SELECT sha256(concat_ws(chr(10), table_name, row_id, column_name, value)) AS id, *
            FROM (SELECT DISTINCT {engine.literal(self.table.name)} AS table_name, {row_id} AS row_id,
                "column" AS column_name, value, reason, {self._received_at} AS received_at,
                {self._loaded_at} AS discarded_at FROM discards JOIN live USING (seq))
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY reason) = 1""")
        columns: dict[str, Type] = {column.name: column.type for column in DISCARDS.columns}
        count = self._count("discarded")
        relation = self._con.sql(f"SELECT {', '.join(columns)} FROM discarded")
        return TableRows(DISCARDS.name, columns, relation, count) if count else None

    def _count(self, table: str) -> int:
        found = self._con.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(found[0]) if found else 0


def _cell(column: str) -> str:
    """The JSON text of a column."""
    return engine.name(f"x:{column}")
