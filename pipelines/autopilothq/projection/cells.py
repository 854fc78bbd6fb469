"""The output of parsing: Parquet files of cells, and facts about them that later steps need without reading them.

A cell is the text of one value of a message. Extras are the cells whose columns the catalogue does not know. Those of
regular lines are columns of the messages' files, named `x:` and the column's name; those of irregular lines are rows
(`seq`, `column`, `value`) of separate files. So a message with many keys takes no more room than its values, and
neither do many messages with a new key each.
"""

import copy
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..catalog import CONTEXT, LINK, PROPERTIES
from ..segment.message import EXTRA, TIMESTAMP_FIELDS, Message, Reject, digest
from ..segment.naming import table_name
from . import engine

LINES_PER_FILE = 1 << 40  # a line's number in the load is its file's number times this, plus its number in the file
LONGEST_EVENT = 1_000  # bytes of an event's name as JSON; SQL often repeats the name, so a digest replaces a longer one
# The engine takes 2,048 rows at a time, however long they are. If lines of more than LONG_LINE bytes add up to more
# than MOST_BYTES, it gets pieces of at most MOST_BYTES.
LONG_LINE = 16 << 10
MOST_BYTES = 8 << 20
CELL_FILES = ("messages", "extras", "rejects", "discards")  # the fields of `ParsedCells` that hold names of files


@dataclass
class ParsedCells:
    """The cells of some lines, as plain data that one process can send to another.

    `messages`, `extras`, `rejects` and `discards` are names of files. `columns` has the extras that are columns of the
    messages' files, by the type of message and the event's name as JSON text.
    """

    messages: list[str] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)
    rejects: list[str] = field(default_factory=list)
    discards: list[str] = field(default_factory=list)
    columns: dict[tuple[str, str | None], dict[str, None]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    """How many messages each event has, by its name as JSON text."""
    long_bytes: int = 0
    """The bytes of all lines that are longer than `LONG_LINE`."""
    has_long_stored_rows: bool = False
    """Whether rows in the destination turned out to be long."""

    @property
    def has_long_lines(self) -> bool:
        """Whether so many lines or stored rows are long that the engine must get them in pieces of few bytes."""
        return self.has_long_stored_rows or self.long_bytes > MOST_BYTES

    def extend(self, more: "ParsedCells") -> None:
        """Adds the cells of other lines."""
        self.messages += more.messages
        self.extras += more.extras
        self.rejects += more.rejects
        self.discards += more.discards
        for key, columns in more.columns.items():
            self.columns.setdefault(key, {}).update(columns)
        self.events.update(more.events)
        self.long_bytes += more.long_bytes

    def size(self) -> int:
        """Returns the size in bytes of the files of messages and of extras."""
        return sum(Path(path).stat().st_size for path in (*self.messages, *self.extras))

    def rows_of_size(self, size: int, rows: int) -> int:
        """Estimates how many rows have `size` bytes together, if these cells have `rows` rows."""
        return rows * size // max(1, self.size())

    def delete(self) -> None:
        """Deletes the files."""
        for path in (*self.messages, *self.extras, *self.rejects, *self.discards):
            Path(path).unlink(missing_ok=True)

    def event_tables(self, most: int) -> list[str]:
        """Returns the names, not shortened yet, of the tables of at most `most` events, the most frequent first."""
        names = (table_name(json.loads(event)) for event, _ in self.events.most_common(most))
        return list(dict.fromkeys(filter(None, names)))


class WrittenMessages(NamedTuple):
    """A file of messages: its name, how many rows it has, and whether any of them is irregular."""

    path: str
    rows: int
    irregular: bool


class CellWriter:
    """Writes cells into Parquet files of one folder, and notes them in `cells`. Each process needs its own folder.

    `key_bytes`, if given, is the limit for the keys among the cells; parsing rejects lines with longer ones.
    """

    def __init__(self, folder: str, key_bytes: int | None = None) -> None:
        self._folder = folder
        self.key_bytes = key_bytes
        self.cells = ParsedCells()
        self._numbers = itertools.count()

    def another(self) -> "CellWriter":
        """Returns a writer into the same folder that has no cells yet, for another thread or for an attempt."""
        other = copy.copy(self)
        other.cells = ParsedCells()
        return other

    def messages(
        self,
        con: duckdb.DuckDBPyConnection,
        select: str,
        extras: Sequence[str] = (),
        copy_to: Callable[[str, str], None] | None = None,
    ) -> WrittenMessages:
        """Writes the messages that a query selects to a file; notes in `cells` which of `extras` each event has.

        `copy_to(query, path)`, if given, writes the file instead of a plain COPY.
        """
        path, cells = self._path("messages"), self.cells
        cells.messages.append(path)
        if copy_to:
            copy_to(select, path)
        else:
            con.execute(engine.copy_statement(select, path))
        file = engine.parquet_files([path])
        counts = "".join(f", count({engine.name(extra)})" for extra in extras)
        rows = discards = 0
        has_irregular = False
        for kind, event, irregular, messages, unread, *extra_counts in con.execute(
            f"SELECT kind, coalesce(long_event, event), irregular, count(*), {_UNREAD_COUNT_SQL}{counts}"
            f" FROM {file} GROUP BY ALL"
        ).fetchall():
            rows += messages
            if irregular:
                has_irregular = True
                continue
            discards += unread
            columns = cells.columns.setdefault((kind, event), {})
            if event is not None:
                cells.events[event] += messages
            columns |= dict.fromkeys(extra for extra, count in zip(extras, extra_counts, strict=True) if count)
        if discards:
            self._write("discards", con.execute(_UNREAD_SQL.format(messages=file)).to_arrow_table(), cells.discards)
        return WrittenMessages(path, rows, has_irregular)

    def extras(self, messages: Mapping[int, Message]) -> None:
        """Writes the extras of messages as rows; `messages` are by the numbers of their lines."""
        rows = [
            (seq, name[len(EXTRA) :], cell)
            for seq, message in messages.items()
            for name, cell in message.cells.items()
            if name.startswith(EXTRA)
        ]
        self._write("extras", _table(rows, ("seq", "column", "value")), self.cells.extras)

    def discards(self, messages: Mapping[int, Message]) -> None:
        """Writes the discarded values of messages; `messages` are by the numbers of their lines."""
        rows = [(seq, *discard) for seq, message in messages.items() for discard in message.discards]
        self._write("discards", _table(rows, ("seq", "column_name", "value", "reason")), self.cells.discards)

    def rejects(self, rejects: Iterable[Reject]) -> None:
        """Writes lines that are not messages."""
        rows = [
            (seq_of(reject), digest(reject.raw), reject.reason, reject.message, engine.printable(reject.raw))
            for reject in rejects
        ]
        self._write("rejects", _table(rows, ("seq", "id", "reason", "message", "raw")), self.cells.rejects)

    def _write(self, what: str, table: pa.Table, paths: list[str]) -> None:
        if table.num_rows:
            paths.append(self._path(what))
            rows = max(1, table.num_rows * MOST_BYTES // max(1, table.nbytes))
            pq.write_table(table, paths[-1], rows, compression="zstd")

    def _path(self, what: str) -> str:
        return f"{self._folder}/{next(self._numbers)}-{what}.parquet"


def split_by_size(sizes: npt.NDArray[np.int64], most_bytes: int, most: int = sys.maxsize) -> Iterator[tuple[int, int]]:
    """Yields the start and the end of each piece of at most `most_bytes` and `most` items.

    `sizes` are the items' bytes. An item that is larger than a piece is a piece of its own.
    Example: `list(split_by_size(np.array([3, 2, 9, 1]), 5))` gives `[(0, 2), (2, 3), (3, 4)]`.
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        end = int(np.searchsorted(ends, before + most_bytes, side="right"))
        end = max(start + 1, min(end, start + most))
        yield start, end
        start = end


def short_event(event: str) -> str:
    """Returns an event's name (JSON text) as SQL and the files of messages have it: as a digest if it is long."""
    encoded = event.encode()
    return sha256(encoded).hexdigest() if len(encoded) > LONGEST_EVENT else event


def short_event_sql(cell: str) -> str:
    """Returns `short_event` as an SQL expression."""
    return f"CASE WHEN strlen({cell}) > {LONGEST_EVENT} THEN sha256({cell}) ELSE {cell} END"


def seq_of(reject: Reject) -> int:
    """Returns the number of a rejected line in the load."""
    return reject.file * LINES_PER_FILE + reject.line


def _table(rows: Sequence[tuple[object, ...]], names: Sequence[str]) -> pa.Table:
    """Returns rows as an Arrow table: `seq` first, then text."""
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    types = [pa.int64(), *[pa.string()] * (len(names) - 1)]
    return pa.table([pa.array(column, type_) for column, type_ in zip(columns, types, strict=True)], names)


TEXTS = ("id", "anonymous_id", "user_id", "previous_id", "group_id", "name", "category")
DECLARED = (*CONTEXT, *PROPERTIES, *LINK)
# The columns of the files of messages: name, SQL type, and the SQL of its value. The query of messages has the parsed
# timestamps as `received_at_read` and so on. Another column, `irregular`, marks lines for the slow path.
_COLUMNS: dict[str, tuple[str, str]] = {
    "seq": ("BIGINT", "seq"),
    "tie": ("UBIGINT", "tie"),
    "kind": ("VARCHAR", "kind"),
    "event": ("VARCHAR", short_event_sql("event")),
    "long_event": ("VARCHAR", f"CASE WHEN strlen(event) > {LONGEST_EVENT} THEN event END"),
    **{name: ("VARCHAR", engine.name(name)) for name in TEXTS},
    **{column.name: ("VARCHAR", engine.name(column.name)) for column in DECLARED},
    "received_at": (
        "TIMESTAMP",
        "coalesce(received_at_read, sent_at_read, timestamp_read, original_timestamp_read)",
    ),
    "sent_at": ("TIMESTAMP", "sent_at_read"),
    "original_timestamp": ("TIMESTAMP", "original_timestamp_read"),
    # If it is absent: `originalTimestamp`, corrected by the error of the sender's clock
    # (docs/contract/warehouse.md#timestamps).
    "timestamp": (
        "TIMESTAMP",
        """CASE WHEN "timestamp" IS NOT NULL THEN timestamp_read ELSE coalesce(
            within_years(coalesce(received_at_read, sent_at_read) - (sent_at_read - original_timestamp_read)),
            original_timestamp_read, received_at_read, sent_at_read) END""",
    ),
    **{
        f"{name}_unread": ("VARCHAR", f"CASE WHEN {name}_read IS NULL THEN {engine.name(name)} END")
        for name in TIMESTAMP_FIELDS
    },
}
_UNREAD_COUNT_SQL = " + ".join(f"count({name}_unread)" for name in TIMESTAMP_FIELDS)
# Timestamps that could not be read.
_UNREAD_SQL = " UNION ALL ".join(
    f"SELECT seq, '{name}' AS column_name, {name}_unread AS value, 'not_a_time' AS reason"
    f" FROM {{messages}} WHERE {name}_unread IS NOT NULL AND NOT irregular"
    for name in TIMESTAMP_FIELDS
)
NO_MESSAGES_SQL = (
    f"SELECT {', '.join(f'NULL::{type_} AS {engine.name(name)}' for name, (type_, _) in _COLUMNS.items())},"
    " false AS irregular LIMIT 0"
)


def with_timestamps_read(messages: str) -> str:
    """Returns a query that adds the four parsed timestamps to a query of messages: `received_at_read` and so on.

    The costly parsing of unusual notations runs only for the few timestamps that need it.
    """
    usual = ", ".join(f"usual_clock({engine.name(name)}) AS {name}_usual" for name in TIMESTAMP_FIELDS)
    unread = " OR ".join(f"({engine.name(name)} IS NOT NULL AND {name}_usual IS NULL)" for name in TIMESTAMP_FIELDS)
    texts = ", ".join(f"CASE WHEN {name}_usual IS NULL THEN {engine.name(name)} END" for name in TIMESTAMP_FIELDS)
    read = ", ".join(
        f"coalesce({name}_usual, unusual[{number}]) AS {name}_read" for number, name in enumerate(TIMESTAMP_FIELDS, 1)
    )
    return (
        f"SELECT *, {read} FROM (SELECT *, CASE WHEN {unread} THEN unusual_clocks([{texts}]) END AS unusual"
        f" FROM (SELECT *, {usual} FROM ({messages})))"
    )


def select_columns(extras: Iterable[str] = (), irregular: str = "false") -> str:
    """Returns the select list that makes the columns of a file of messages, with `extras` after the others."""
    select = [f"({cell})::{type_} AS {engine.name(name)}" for name, (type_, cell) in _COLUMNS.items()]
    return ", ".join([*select, *map(engine.name, extras), f"{irregular} AS irregular"])
