"""The context of a load's second half: an engine, files of cells, and plain data about the destination."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from ..catalog import KINDS, MESSAGE_TABLES, OTHER_LIMITS, TRACKS, Limits, Table, Type
from ..segment.json_text import is_storable, to_json
from ..segment.message import EXTRA
from ..segment.naming import event_key, snake_case
from .cells import DECLARED, ParsedCells, short_event
from .engine import ALONE_MEMORY, COLUMN_MEMORY, PARQUET, UNCOMPRESSED, count, is_one_of, literal, name, one_thread

CELLS_AT_ONCE = 4_000_000  # cells (rows times columns) of a wide table that are made in memory at a time
GROUP_BYTES = 32 << 20  # bytes of rows that each thread buffers before it writes them
THREAD_COLUMN_MEMORY = 0.6  # MB for a column in each thread: two blocks of 256 KiB, and their overhead
USUAL_COLUMNS = 60  # columns that the cells of any message have
WIDE_ROWS = 400  # columns; files of wider rows have dictionaries, without which destinations need more memory
NUMBER_OF_KIND = {"track": 0} | {kind: MESSAGE_TABLES.index(table) for kind, table, _ in KINDS}
"""The number of the table of each type of message; `tracks` is 0."""
_KIND_OF_NUMBER = {number: kind for kind, number in NUMBER_OF_KIND.items()}

ExistingTables = Mapping[str, Mapping[str, Type]]
"""The destination's tables, with the types of their columns."""
CountedMessages = Mapping[int, tuple[frozenset[str], bool]]
"""Which messages of a file earlier loads have counted, by the file's number: those of the named tables or, if the flag
is true, those of all tables except these."""
ReadTable = Callable[[str, Sequence[str]], Iterable[pa.RecordBatch]]
"""Reads columns of one of the destination's tables, as Arrow batches."""


class TableRows(NamedTuple):
    """The rows of one table, its columns with their types in the order of a new table, and the row count."""

    table: str
    columns: Mapping[str, Type]
    relation: duckdb.DuckDBPyRelation
    row_count: int

    def write(self, path: str, compressed: bool = True) -> None:
        """Writes the rows to a Parquet file. Groups of wide rows are small, because each thread holds one in memory."""
        group = max(2_048, min(122_880, CELLS_AT_ONCE // len(self.columns)))
        form = PARQUET if len(self.columns) < WIDE_ROWS else "FORMAT parquet"
        form += "" if compressed else f", {UNCOMPRESSED}"
        form += f", ROW_GROUP_SIZE {group}, ROW_GROUP_SIZE_BYTES {GROUP_BYTES}"
        copy = f"COPY rows TO {literal(path)} ({form})"
        execute = partial(self.relation.query, "rows")
        try:
            execute(copy)
        except duckdb.OutOfMemoryException:
            # Making another table may have changed the memory that was reserved for the columns of this one.
            with one_thread(execute, ALONE_MEMORY + int(COLUMN_MEMORY * len(self.columns))):
                execute(copy)


class FileCount(NamedTuple):
    """The counts of a file's lines: `lines == stored + duplicates + rejected`. `file` is its number in the load.

    `mended` counts the cut texts in the destination that the file's messages make whole; `again` counts the lines among
    `stored` that an earlier load of the file has counted already, because it stored part of their rows.
    """

    file: int
    lines: int = 0
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    first_received_at: datetime | None = None
    last_received_at: datetime | None = None
    mended: int = 0
    again: int = 0


class RefusedIds(NamedTuple):
    """What the destination refused, with the errors: messages by id, rows of `users` and `accounts` by table and id."""

    messages: Mapping[str, str] = MappingProxyType({})
    rows: Mapping[str, Mapping[str, str]] = MappingProxyType({})

    def __bool__(self) -> bool:
        return bool(self.messages) or any(self.rows.values())


class EventName(NamedTuple):
    """An event: its name as JSON text (`event`) and as plain text, its table, and the texts that only repeat its name.

    `text` is None if no warehouse can store it, `table` is None if the event has none. `text` and `repeats` are as
    `short_event` returns them.
    """

    event: str
    text: str | None
    table: str | None
    repeats: tuple[str, ...]


@dataclass(frozen=True)
class TableNumbers:
    """The tables of a load's messages.

    A table's number is its position in `names`, which begins with the catalogue's tables of messages; `events` has the
    number of each event's table, by the event's name as JSON text.
    """

    names: Sequence[str]
    events: Mapping[str, int]

    @classmethod
    def of(cls, events: Iterable[EventName]) -> "TableNumbers":
        """Numbers the tables of events. Events without a table are in `tracks` alone."""
        numbers = {table.name: number for number, table in enumerate(MESSAGE_TABLES)}
        of_events = {event.event: numbers.setdefault(event.table or TRACKS.name, len(numbers)) for event in events}
        return cls(list(numbers), of_events)

    def without(self, numbers: Iterable[int]) -> "TableNumbers":
        """Returns the same tables, but with the events of the tables with these numbers in `tracks` alone."""
        left_out = frozenset(numbers)
        events = {event: 0 if number in left_out else number for event, number in self.events.items()}
        return TableNumbers(self.names, events)

    def where(self, number: int) -> str:
        """Returns the SQL condition that selects a table's messages, in a form that lets the engine skip the others."""
        if number == 0:
            return "kind = 'track' AND table_number = 0"
        if number < len(MESSAGE_TABLES):
            return f"kind = {literal(_KIND_OF_NUMBER[number])}"
        return is_one_of("event", map(short_event, self._events_of.get(number, ())))

    def where_any(self, numbers: Sequence[int]) -> str:
        """Returns the SQL condition that selects the messages of several tables, none of which is number 0."""
        kinds = [self.where(number) for number in numbers if number < len(MESSAGE_TABLES)]
        events = [short_event(event) for number in numbers for event in self._events_of.get(number, ())]
        return " OR ".join([*kinds, is_one_of("event", events)])

    def where_of_rows(self, number: int) -> str:
        """Returns the SQL condition that selects messages with a row in a table; all tracks have one in `tracks`."""
        return self.where(number) if number else "kind = 'track'"

    @cached_property
    def _events_of(self) -> Mapping[int, Sequence[str]]:
        events: dict[int, list[str]] = {}
        for event, number in self.events.items():
            events.setdefault(number, []).append(event)
        return events


def name_events(events: Iterable[str], event_table: Callable[[str], str]) -> list[EventName]:
    """Returns the `EventName` of each of these names (JSON text).

    `event_table` returns the name of an event's table in the destination, by its `event_key`, or "" if it has none.
    """
    named = []
    for event in events:
        text: str = json.loads(event)
        repeats = tuple(map(short_event, map(to_json, (text, snake_case(text), f"_{snake_case(text)}"))))
        stored_text = short_event(text) if is_storable(text) else None
        named.append(EventName(event, stored_text, event_table(event_key(text)) or None, repeats))
    return named


def every_table(_: str) -> bool:
    """Returns True: the load fills every table."""
    return True


@dataclass(frozen=True, kw_only=True)
class SharedContext:
    """What all processes of a load have in common, as plain data that can be sent to any worker.

    About the destination: its tables (`existing`), how many columns they have (`widths`), its `limits`, and how it
    names columns (`shorten`) and events' tables (`event_table`). `tables` are those of the load's messages, `loaded_at`
    is a time in ISO 8601, and `memory` (MB) is what each engine may use. `fills` returns whether the load fills a
    table; in the other tables, it does not add rows that stored messages lack.
    """

    loaded_at: str
    memory: int
    shorten: Callable[[str], str]
    event_table: Callable[[str], str]
    existing: ExistingTables = field(default_factory=dict)
    limits: Limits = OTHER_LIMITS
    widths: Mapping[str, int] = field(default_factory=dict)
    tables: TableNumbers = field(default_factory=lambda: TableNumbers.of(()))
    fills: Callable[[str], bool] = every_table

    def shared_fields(self) -> dict[str, Any]:
        """Returns the fields of this class by name, without those of a subclass."""
        return {each.name: getattr(self, each.name) for each in fields(SharedContext)}


@dataclass(frozen=True, kw_only=True)
class ProjectionContext(SharedContext):
    """What all steps of the second half share, in one process.

    `con` is a connection to an engine of its own, which may use `threads` and whose tables docs/projection.md draws;
    `scratch` is a folder. `cells` are those of the messages that this process has.
    """

    con: duckdb.DuckDBPyConnection
    scratch: str
    cells: ParsedCells
    threads: int = 1

    @property
    def loaded_at_sql(self) -> str:
        """`loaded_at` as an SQL literal."""
        return f"TIMESTAMPTZ '{self.loaded_at}'"

    @cached_property
    def declared_fit(self) -> bool:
        """Whether all values fit the catalogue's columns. They nearly always do; then no table needs a check."""
        misfit = " OR ".join(
            f"{name(column.name)} IS NOT NULL AND as_{column.type}({name(column.name)}) IS NULL"
            for column in DECLARED
            if column.type != "text"
        )
        return not self.con.execute(f"SELECT 1 FROM messages WHERE {misfit} LIMIT 1").fetchone()

    def affordable_threads(self, most: int) -> int:
        """Returns how many threads, up to `most`, have enough memory: each reads and writes whole blocks."""
        widest = max(map(len, self.cells.columns.values()), default=0)
        return max(1, min(most, int(self.memory / (THREAD_COLUMN_MEMORY * (USUAL_COLUMNS + widest)))))

    def reserve(self, columns: int = 0) -> None:
        """Sets the engine's threads and memory for rows of this many columns, until the next call.

        Each thread has its own buffers for each column. If those of all threads would fill a quarter of the memory, the
        engine gets a single thread, and more memory.
        """
        more = int(COLUMN_MEMORY * columns)
        is_wide = more * self.threads > self.memory / 4
        self.con.execute(f"SET threads = {1 if is_wide else self.threads}")
        self.con.execute(f"SET memory_limit = '{self.memory + more * is_wide}MB'")

    def extras_in_columns(self) -> dict[int, list[str]]:
        """Returns the extras that are columns of the messages' files, by table; for `tracks`, only the context's."""
        extras: dict[int, dict[str, None]] = {}
        for (kind, event), cells in self.cells.columns.items():
            number = self.tables.events[event] if event is not None else NUMBER_OF_KIND[kind]
            names = [cell.removeprefix(EXTRA) for cell in cells]
            if number:
                extras.setdefault(number, {}).update(dict.fromkeys(names))
            if kind == "track":
                of_context = [name for name in names if name.startswith("context_")]
                extras.setdefault(0, {}).update(dict.fromkeys(of_context))
        return {number: list(names) for number, names in extras.items()}


def book_rows(con: duckdb.DuckDBPyConnection, source: str, table: Table) -> TableRows | None:
    """Returns the rows of a bookkeeping table, which the engine has in `source`, or None if there are none."""
    number = count(con, source)
    columns = declared_types(table)
    relation = con.sql(f"SELECT {', '.join(columns)} FROM {source}")
    return TableRows(table.name, columns, relation, number) if number else None


def ordered_columns(types: Mapping[str, Type], key: Sequence[str] = ("id",)) -> dict[str, Type]:
    """Returns the columns of a new table: its key, `received_at`, `uuid_ts`, then the rest by name.

    (docs/contract/warehouse.md#columns) Example: `list(ordered_columns({"b": "text", "uuid_ts": "timestamp",
    "received_at": "timestamp", "id": "text"})) == ["id", "received_at", "uuid_ts", "b"]`.
    """
    first = (*key, "received_at", "uuid_ts")
    return {name: types[name] for name in (*first, *sorted(types.keys() - set(first)))}


def declared_types(table: Table) -> dict[str, Type]:
    """Returns the types of the columns that the catalogue declares for a table."""
    return {column.name: column.type for column in table.columns}
