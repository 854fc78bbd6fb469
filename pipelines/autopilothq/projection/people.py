"""People to ask an API for: all of them in, those who are due out, those who were asked for as rows.

There may be millions: they wait in the engine, not in Python.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import NamedTuple

import pyarrow as pa

from ..catalog import PROFILES, Type
from ..segment.identity import HashedIds
from . import engine, suppression
from .context import TableRows

_TEXT, _TIME = pa.string(), pa.timestamp("us", "UTC")
_TAKEN = 1_000  # that are handed out together


class DuePeople(NamedTuple):
    """Who is due. Nobody who was asked for since `begun`, because that is this run, or the one that it goes on with.

    With `look_back` those alone who were never answered for, or whose last activity is not longer than that before
    their watermark; without it all.
    """

    begun: datetime
    look_back: timedelta | None = None


class People:
    """The people of a run: add all, choose, take, note who was asked for, take the rows.

    `key` are the space and the scope that rows are about. `scratch` is an empty folder for what does not fit into
    `memory` (MB); the caller deletes it.
    """

    def __init__(self, key: tuple[str, str], scratch: str, memory: int = 100) -> None:
        self._key = key
        self._con = engine.connect(scratch, memory, threads=1)
        self._con.execute(_TABLES_SQL)
        self.due = 0

    def close(self) -> None:
        """Gives back the memory."""
        self._con.close()

    def add(self, people: Sequence[tuple[str, datetime | None]]) -> None:
        """Takes some people, each with the time of their last activity; the same one may come again."""
        self._insert("INSERT INTO people FROM given", [("person", _TEXT), ("active_at", _TIME)], people)

    def leave_out(self, hashes: HashedIds) -> None:
        """Who was added and is forgotten is not asked for."""
        suppression.register_suppressed(self._con, hashes.pairs(), hashes.key)
        self._con.execute(f"DELETE FROM people WHERE person IN (SELECT person FROM ({suppression.people('people')}))")

    def choose(self, stored: Iterable[pa.RecordBatch], complete: Collection[str], due: DuePeople) -> None:
        """Finds those who are due; `stored` is what the destination's table has, `complete` the loads that count."""
        self._con.register("complete", pa.table({"load_id": pa.array(list(complete), _TEXT)}))
        batches = iter(stored)
        if (first := next(batches, None)) is not None:
            self._con.register("stored", pa.RecordBatchReader.from_batches(first.schema, chain([first], batches)))
            self._con.execute(_ASKED_SQL, self._key)
            self._con.unregister("stored")
        active = "active_at > watermark - to_microseconds(?)" if due.look_back is not None else "? IS NULL"
        microseconds = due.look_back // timedelta(microseconds=1) if due.look_back is not None else None
        self._con.execute(_DUE_SQL.format(active=active), [due.begun, microseconds])
        self.due = self._count("due")

    def take(self, most: int | None = None) -> Iterator[tuple[str, datetime | None]]:
        """Those who are due with their watermarks, those first who were never asked for.

        Shuffled: people whom the API always fails for would otherwise come together, and look like an outage.
        """
        con = self._con.cursor()
        end = self.due if most is None else min(most, self.due)
        try:
            for start in range(0, end, _TAKEN):
                bounds = [start, min(start + _TAKEN, end)]
                taken = con.execute(
                    "SELECT person, watermark FROM due WHERE number > ? AND number <= ? ORDER BY number", bounds
                ).to_arrow_table()
                yield from zip(taken["person"].to_pylist(), taken["watermark"].to_pylist(), strict=True)
        finally:
            con.close()

    def note(self, answered: Sequence[tuple[str, datetime | None, datetime]]) -> None:
        """Takes people who were asked for: their new watermarks, and when it was."""
        columns = [("person", _TEXT), ("watermark", _TIME), ("asked_at", _TIME)]
        self._insert("INSERT INTO answered FROM given", columns, answered)

    def rows(self, load_id: str) -> TableRows:
        """Who was asked for, as rows of `_profiles`."""
        types: dict[str, Type] = {column.name: column.type for column in PROFILES.columns}
        space, scope, load = map(engine.literal, (*self._key, load_id))
        cells = {"space": space, "scope": scope, "load_id": load}
        select = ", ".join(f"{cells.get(name, name)} AS {name}" for name in types)
        return TableRows(PROFILES.name, types, self._con.sql(f"SELECT {select} FROM answered"), self._count("answered"))

    def _insert(self, sql: str, columns: list[tuple[str, pa.DataType]], rows: Sequence[Sequence[object]]) -> None:
        if rows:
            arrays = [pa.array(cells, of) for cells, (_, of) in zip(zip(*rows, strict=True), columns, strict=True)]
            self._con.register("given", pa.Table.from_arrays(arrays, [name for name, _ in columns]))
            self._con.execute(sql)
            self._con.unregister("given")

    def _count(self, table: str) -> int:
        found = self._con.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(found[0]) if found else 0


_TABLES_SQL = """
    CREATE TABLE people (person VARCHAR, active_at TIMESTAMPTZ);
    CREATE TABLE asked (person VARCHAR, watermark TIMESTAMPTZ, asked_at TIMESTAMPTZ);
    CREATE TABLE answered (person VARCHAR, watermark TIMESTAMPTZ, asked_at TIMESTAMPTZ)"""
_ASKED_SQL = """
    INSERT INTO asked SELECT person, max(watermark), max(asked_at) FROM stored SEMI JOIN complete USING (load_id)
    WHERE space = ? AND scope = ? GROUP BY person"""
_DUE_SQL = """
    CREATE TABLE due AS
    SELECT row_number() OVER (ORDER BY asked_at IS NOT NULL, md5(person)) AS number, person, watermark
    FROM (SELECT person, max(active_at) AS active_at FROM people GROUP BY person) LEFT JOIN asked USING (person)
    WHERE (asked_at IS NULL OR asked_at < ?) AND (watermark IS NULL OR {active})"""
