"""What the second half of a load works with: cells that wait, rows of a table, and what all its parts know."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from ..catalog import KINDS, MESSAGE_TABLES, Limits, Table, Type
from ..segment.naming import table_name
from . import engine

LINES_PER_FILE = 1 << 40  # a line's number in the load is its file's number times this, plus its number in the file
CELLS_AT_ONCE = 4_000_000  # cells of a wide table that are made in memory at a time
PLACE_OF_KIND = {"track": 0} | {kind: MESSAGE_TABLES.index(table) for kind, table, _ in KINDS}

ExistingTables = Mapping[str, Mapping[str, Type]]
"""Tables that are there already, with the types of their columns."""
ReadTable = Callable[[str, Sequence[str]], Iterable[pa.RecordBatch]]
"""Reads columns of a table of the destination."""

SQL_TYPES: dict[Type, str] = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
}


class TableRows(NamedTuple):
    """Rows for one table: its columns in the order of a new table, their types, and a relation that has them."""

    table: str
    columns: Mapping[str, Type]
    relation: duckdb.DuckDBPyRelation
    number: int

    def write(self, path: str) -> None:
        """Writes them into a Parquet file. Rows of many columns stand in small groups, which take less memory."""
        group = max(2_048, min(122_880, CELLS_AT_ONCE // len(self.columns)))
        self.relation.to_parquet(path, compression="snappy", row_group_size=group)


class FileCount(NamedTuple):
    """What became of a file's lines: `lines == stored + duplicates + rejected`. `number` is the file's in the load."""

    number: int
    lines: int
    stored: int
    duplicates: int
    rejected: int
    first_received_at: datetime | None
    last_received_at: datetime | None


@dataclass
class ParsedCells:
    """What waits for the end of the lines: files of messages, files of cells that the catalogue does not know.

    `columns` are, by the kind of message and the event's name as JSON text, the columns beyond the catalogue's that the
    files of messages have.
    """

    messages: list[str] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)
    columns: dict[tuple[str, str | None], dict[str, None]] = field(default_factory=dict)
    numbers: Counter[str] = field(default_factory=Counter)
    """How many messages each event has, by its name as JSON text."""

    def learn(self, con: duckdb.DuckDBPyConnection, source: str, extras: Sequence[str]) -> None:
        """Learns the kinds and events among some messages, and which of `extras` each has."""
        counts = "".join(f", count({engine.name(extra)})" for extra in extras)
        for kind, event, messages, *numbers in con.execute(
            f"SELECT kind, event, count(*){counts} FROM {source} GROUP BY kind, event"
        ).fetchall():
            columns = self.columns.setdefault((kind, event), {})
            if event is not None:
                self.numbers[event] += messages
            columns |= dict.fromkeys(extra for extra, number in zip(extras, numbers, strict=True) if number)

    def extend(self, more: "ParsedCells") -> None:
        """Takes what another one has."""
        self.messages += more.messages
        self.extras += more.extras
        for key, columns in more.columns.items():
            self.columns.setdefault(key, {}).update(columns)
        self.numbers.update(more.numbers)

    def delete(self) -> None:
        """Deletes the files."""
        for path in (*self.messages, *self.extras):
            Path(path).unlink(missing_ok=True)

    def tables(self, most: int) -> list[str]:
        """The names of events' tables, before any is shortened: of the events with most messages, at most so many."""
        names = (table_name(json.loads(event)) for event, _ in self.numbers.most_common(most))
        return list(dict.fromkeys(filter(None, names)))


@dataclass
class ProjectionContext:
    """What all parts of a load know once its lines are read.

    `places` are the names of the tables; the place of an event's table, by the event's name as JSON text, is in
    `events`. `loaded_at` is an SQL literal. `known` and `widths` are of the tables that the destination has.
    """

    con: duckdb.DuckDBPyConnection
    scratch: str
    memory: int
    cells: ParsedCells
    known: ExistingTables
    loaded_at: str
    shorten: Callable[[str], str]
    event_table: Callable[[str], str]
    limits: Limits
    widths: Mapping[str, int]
    places: list[str] = field(default_factory=lambda: [table.name for table in MESSAGE_TABLES])
    events: dict[str, int] = field(default_factory=dict)
    events_of: dict[int, list[str]] = field(default_factory=dict)
    """The events of each place; made by `place`."""

    def place(self, events: Mapping[str, int]) -> None:
        """Gives events their places."""
        self.events = dict(events)
        self.events_of = {}
        for event, place in events.items():
            self.events_of.setdefault(place, []).append(event)

    def where(self, place: int) -> str:
        """The messages of a table, in words that the engine can use to skip what is not asked for."""
        if place == 0:
            return "kind = 'track' AND place = 0"
        if place < len(MESSAGE_TABLES):
            return f"kind = {engine.literal(next(kind for kind, table, _ in KINDS if table is MESSAGE_TABLES[place]))}"
        events = [engine.literal(event) for event in self.events_of.get(place, ())]
        return f"event IN ({', '.join(events)})" if events else "false"

    def count(self, source: str) -> int:
        """How many rows a table or a query has."""
        found = self.con.execute(f"SELECT count(*) FROM {source}").fetchone()
        return int(found[0]) if found else 0


def ordered_columns(types: Mapping[str, Type], key: Sequence[str] = ("id",)) -> dict[str, Type]:
    """The columns of a new table: its key, `received_at`, `uuid_ts`, then the rest by name (spec: Columns)."""
    first = (*key, "received_at", "uuid_ts")
    return {name: types[name] for name in (*first, *sorted(types.keys() - set(first)))}


def declared_types(table: Table) -> dict[str, Type]:
    return {column.name: column.type for column in table.columns}
