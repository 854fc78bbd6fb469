"""Batches of lines in, cells put aside: the first half of a load.

DuckDB reads a batch as columns, in a few statements. What these cannot read for sure (broken lines, keys that collide,
numbers whose digits would change) is read by `messages.read`, line by line, into the same cells. All cells wait in
Parquet files until the load is complete, because only then it is known which of two messages with one id stays, and
which type a column takes from all its values.
"""

import itertools
import json
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..catalog import CONTEXT, KINDS, LINK, MESSAGE_TABLES, PROPERTIES, TRACKS
from ..messages import CLOCK_FIELDS, EXTRA, Batch, Reject, Rejected, digest, read, storable
from ..naming import table_name
from . import values
from .shapes import Frame, Shapes
from .tables import Known, Settled, Stored

FIRST = 1_000  # lines that are read ahead of all others, to learn which objects their messages hold
ODD_LINES = 5_000  # as many odd lines are held as Python objects at a time
LINES = 1 << 40  # a line's number in the load is its file's number times this, plus its number in the file
PIECE = 1 << 17  # bytes that are looked at while they are in the processor's cache
_CONTEXT_NAMES = frozenset(column.name for column in CONTEXT)
_TEXTS = ("id", "anonymous_id", "user_id", "previous_id", "group_id", "name", "category")
_DECLARED = (*CONTEXT, *PROPERTIES, *LINK)


class Warehouse:
    """One load: add all batches, settle, take the rows of each table.

    `scratch` is an empty folder for what waits and for what does not fit into `memory` (MB); the caller deletes it.
    `shorten` gives a table or a column the name that it has in the destination. Example:

        warehouse = Warehouse(loaded_at=datetime.now(UTC), scratch=folder)
        warehouse.add(batch)
        for rows in warehouse.settle().tables():
            rows.relation.to_parquet(f"{rows.table}.parquet")
    """

    def __init__(
        self,
        loaded_at: datetime,
        scratch: str,
        memory: int = 400,
        threads: int = 2,
        shorten: Callable[[str], str] = str,
    ) -> None:
        self._scratch = scratch
        self._memory = memory
        self._extra_names: dict[str, None] = {}
        self._shorten = shorten
        self._threads = threads
        # While lines are added, each thread that adds brings its own core.
        self._con = values.connect(scratch, memory, threads=1)
        self._loaded_at = f"TIMESTAMPTZ '{loaded_at.isoformat()}'"
        self._lock = threading.Lock()
        self._shapes = Shapes()
        self._places = [table.name for table in MESSAGE_TABLES]
        self._events: dict[str, int] = {}
        self._extras: dict[int, dict[str, None]] = {}
        self._parts = itertools.count()
        self._con.execute(_TABLES_SQL)
        empty = ", ".join(f"NULL::{of} AS {values.name(name)}" for name, (of, _) in _STORED.items())
        _copy(self._con, f"SELECT {empty}, false AS again LIMIT 0", self._part())

    def close(self) -> None:
        """Gives back the memory; the scratch folder is the caller's to delete."""
        self._con.close()

    # Lines in -----------------------------------------------------------------------------------------------------

    def add(self, batch: Batch) -> None:
        """Takes a batch of lines; threads may add side by side.

        Bad lines become rejects, whatever they hold; nothing in them raises.
        """
        con = self._con.cursor()
        try:
            self._reject(con, batch.rejects)
            lines = batch.lines
            if lines.num_rows and not self._events:
                self._add_lines(con, lines.slice(0, FIRST))
                lines = lines.slice(FIRST)
            if lines.num_rows:
                self._add_lines(con, lines)
        finally:
            con.close()

    def _add_lines(self, con: duckdb.DuckDBPyConnection, lines: pa.Table) -> None:
        shapes = self._shapes
        lines = _numbered(lines)
        con.register("lines", lines)
        lenient = _TRAILING_COMMA if _may_trail(lines["text"]) else "false"
        con.execute(_PROBE_SQL.format(pointers=values.literals(shapes.pointers()), lenient=lenient))
        plain, doubt = _learn_shapes(con, shapes)
        doubted = con.sql(f"SELECT seq, shape FROM probe WHERE {doubt}").to_arrow_table()
        if doubted.num_rows:
            con.register("lines", lines.filter(pc.invert(pc.is_in(lines["seq"], doubted["seq"]))))
        frame = shapes.frame(plain)
        with self._lock:
            self._extra_names |= dict.fromkeys(frame.extras)
        again = self._put_aside(con, frame)
        con.unregister("lines")
        odd = [*doubted.filter(pc.is_valid(doubted["shape"]))["seq"].chunks, *again.filter(again["odd"])["seq"].chunks]
        rest = again.filter(pc.invert(again["odd"]))["seq"].chunks
        if odd or rest:
            self._add_slowly(con, frame, _among(lines, rest), _among(lines, odd))

    def _put_aside(self, con: duckdb.DuckDBPyConnection, frame: Frame) -> pa.Table:
        """Puts the cells of the lines aside in one go; `seq` and `odd` of those that need more than that."""
        part = self._part()
        repeats = [f"{values.name(REPEATED)} IS NOT NULL"] if REPEATED in frame.extras else []
        unread = [f"({name} IS NOT NULL AND {name}_read IS NULL)" for name in CLOCK_FIELDS]
        more = " OR ".join(["odd", *unread, _BAD_TRANSACTIONAL, *repeats])
        _copy(con, f"SELECT {_stored_cells(frame.cells)}, odd, {more} AS again FROM ({frame.sql('lines')})", part)
        self._learn_events(con, f"read_parquet({part}) WHERE NOT again", frame.extras)
        return con.sql(f"SELECT seq, odd FROM read_parquet({part}) WHERE again").to_arrow_table()

    def _add_slowly(self, con: duckdb.DuckDBPyConnection, frame: Frame, lines: pa.Table, odd: pa.Table) -> None:
        """Adds lines that the engine reads in several steps, and odd ones."""
        con.register("lines", lines)
        con.execute(f"CREATE OR REPLACE TEMP TABLE frame AS {frame.sql('lines')}")
        con.unregister("lines")
        for start in range(0, odd.num_rows, ODD_LINES):
            self._read_odd(con, odd.slice(start, ODD_LINES))
        self._stage(con)

    def _part(self) -> str:
        return values.literal(f"{self._scratch}/{next(self._parts)}.parquet")

    def _read_odd(self, con: duckdb.DuckDBPyConnection, lines: pa.Table) -> None:
        """Reads the odd lines one by one into the frame; their rejects and discards go into the books."""
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        discards: list[dict[str, Any]] = []
        objects: set[tuple[str, ...]] = set()
        for seq, line in zip(lines["seq"].to_pylist(), lines["text"].cast(pa.large_binary()).to_pylist(), strict=True):
            try:
                message = read(line, _CONTEXT_NAMES)
            except Rejected as error:
                reason, text = error.args
                rejects.append(Reject(seq // LINES, seq % LINES, reason, text, line))
                continue
            rows.append({"seq": seq, **message.cells})
            discards.extend({"seq": seq, **discard._asdict()} for discard in message.discards)
            objects.update(message.objects)
        with self._lock:
            self._shapes = self._shapes.with_objects(objects)
            for row in rows:
                discards.extend(self._too_many(row))
        self._reject(con, rejects)
        _insert(con, "discards", discards, 'seq, NULL, "column", value, reason')
        # Each column takes buffers of its own, in every table and file that has it.
        con.execute(f"SET memory_limit = '{self._memory + values.COLUMN_MEMORY * len(self._extra_names)}MB'")
        if rows:
            _add_to_frame(con, rows, lines)

    def _too_many(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Takes the cells from a row whose columns are more than a table can have, as discards."""
        extras = [name for name in row if name.startswith(EXTRA)]
        room = values.MAX_EXTRAS - len(self._extra_names)
        new = [name for name in extras if name not in self._extra_names]
        self._extra_names |= dict.fromkeys(new[:room])
        return [
            {
                "seq": row["seq"],
                "column": name.removeprefix(EXTRA),
                "value": row.pop(name),
                "reason": "too_many_columns",
            }
            for name in new[room:]
        ]

    def _reject(self, con: duckdb.DuckDBPyConnection, rejects: Sequence[Reject]) -> None:
        rows = [
            {
                "seq": reject.file * LINES + reject.line,
                "id": digest(reject.raw),
                "reason": reject.reason,
                "message": reject.message,
                "raw": reject.raw.rstrip(b"\r\n").decode(errors="backslashreplace").replace("\0", "\\x00"),
            }
            for reject in rejects
        ]
        _insert(con, "rejects", rows, "seq, id, reason, message, raw")

    def _stage(self, con: duckdb.DuckDBPyConnection) -> None:
        """Reads clocks in unusual notations, and puts the frame's cells aside until all lines are there."""
        unread = [name for name in CLOCK_FIELDS if _count(con, "frame", f"{name} IS NOT NULL AND {name}_read IS NULL")]
        for name in unread:
            con.execute(
                f"UPDATE frame SET {name}_read = clock({name}) WHERE {name} IS NOT NULL AND {name}_read IS NULL"
            )
            con.execute(f"""
                INSERT INTO discards SELECT seq, NULL, '{name}', {name}, 'not_a_time' FROM frame
                WHERE {name} IS NOT NULL AND {name}_read IS NULL""")
        con.execute(f"""
            INSERT INTO discards SELECT seq, NULL, 'transactional', transactional, 'does_not_fit' FROM frame
            WHERE {_BAD_TRANSACTIONAL}""")
        columns = con.table("frame").columns
        extras = [column for column in columns if column.startswith(EXTRA)]
        if REPEATED in extras:
            con.execute(_REPEATED_EVENT_SQL)
        self._learn_events(con, "frame", extras)
        con.execute(
            f"COPY (SELECT {_stored_cells(columns)}, false AS again FROM frame) TO {self._part()} (FORMAT parquet)"
        )

    def _learn_events(self, con: duckdb.DuckDBPyConnection, source: str, extras: Sequence[str]) -> None:
        """The events of some cells, and which extra columns each table has."""
        counts = "".join(f", count({values.name(extra)})" for extra in extras)
        found = con.execute(f"SELECT kind, event{counts} FROM {source} GROUP BY kind, event").fetchall()
        with self._lock:
            for kind, event, *numbers in found:
                place = self._place(kind, event)
                names = self._extras.setdefault(place, {})
                names |= dict.fromkeys(extra for extra, number in zip(extras, numbers, strict=True) if number)

    def _place(self, kind: str, event: str | None) -> int:
        """The number of a message's table, which is made known where the event is new."""
        if event is None:
            return next(self._places.index(table.name) for of, table, _ in KINDS if of == kind)
        if event not in self._events:
            name = json.loads(event)
            table = self._shorten(table_name(name) or TRACKS.name)
            if table not in self._places:
                self._places.append(table)
            self._events[event] = self._places.index(table)
            row = [event, self._events[event], table_name(name) or None, name if storable(name) else None]
            self._con.execute("INSERT INTO events VALUES (?, ?, ?, ?)", row)
        return self._events[event]

    def tables(self) -> list[str]:
        """The tables that the lines so far may have rows for."""
        return list(self._places)

    def settle(
        self,
        known: Known | None = None,
        stored: Stored | None = None,
        complete: Collection[str] = (),
        hashes: Collection[tuple[str, str]] = (),
        refused: Mapping[str, str] = MappingProxyType({}),
        refused_users: Mapping[str, str] = MappingProxyType({}),
        lines: Callable[[Collection[int]], Iterable[tuple[int, bytes]]] | None = None,
    ) -> Settled:
        """After the last batch: decides which messages stay, one of each id, and none that is stored already.

        `known` are the tables that are there, whose columns keep their types. `stored(table, columns)` gives their rows
        as Arrow batches; it is asked for keys only, and for no more tables than must be read. `complete` are the ids of
        the loads that were not killed: what was discarded in others is discarded again.
        `hashes` are the ids of forgotten persons, with their salts: their messages are rejected.
        `refused` are the ids of messages that the destination refuses, with its error, `refused_users` the ids of users
        whose rows it refuses: these messages, and the identifies of these users, are rejected. `lines` gives the lines
        with these numbers in the load.
        """
        self._con.execute(f"SET threads = {self._threads}")
        settled = Settled(
            self._con,
            self._scratch,
            self._places,
            self._events,
            self._extras,
            known or {},
            self._loaded_at,
            self._shorten,
        )
        if refused or refused_users:
            settled.refuse(refused, refused_users, lines or (lambda _: ()))
        settled.settle(stored, complete, hashes)
        return settled


def _among(lines: pa.Table, numbers: list[pa.Array]) -> pa.Table:
    return lines.filter(pc.is_in(lines["seq"], pa.chunked_array(numbers, pa.int64())))


def _numbered(lines: pa.Table) -> pa.Table:
    """The lines with their number in the load. The engine takes any bytes: `json_valid` finds what is not UTF-8."""
    seq = pc.add(pc.multiply(lines["file"].cast(pa.int64()), LINES), lines["line"])
    return pa.table({"seq": seq, "text": lines["text"].cast(pa.large_string(), safe=False)})


# What the engine's reader takes for JSON and is not.
_TRAILING_COMMA = r"regexp_matches(text, ',\s*[\]}]')"


def _may_trail(text: pa.ChunkedArray) -> bool:
    """Whether a comma may stand before a bracket: no bracket comes after a comma or white space.

    A pattern in the engine would take as long as reading all the JSON; machine-made JSON has neither of these.
    """
    return any(map(_has_loose_bracket, text.chunks))


def _has_loose_bracket(lines: pa.LargeStringArray) -> bool:
    _, offsets, content = lines.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[lines.offset : lines.offset + len(lines) + 1]
    bytes_ = np.frombuffer(content, dtype=np.uint8)[bounds[0] : bounds[-1]] if len(lines) else np.empty(0, np.uint8)
    for start in range(0, len(bytes_), PIECE):
        piece = bytes_[start : start + PIECE + 1]
        before, bracket = piece[:-1], (piece[1:] | 0x20) == ord("}")  # 0x20 is what `]` lacks to be `}`
        if (bracket & ((before == ord(",")) | (before <= ord(" ")))).any():
            return True
    return False


# Blank lines have no shape, lines that are not JSON for sure have none that is known.
_PROBE_SQL = r"""
    CREATE OR REPLACE TEMP TABLE probe AS
    SELECT seq, CASE
        WHEN NOT starts_with(text, '{{') AND regexp_full_match(text, '\s*') THEN NULL
        WHEN NOT json_valid(text) OR contains(text, '\u0000') OR {lenient} THEN 0
        ELSE hash(json_keys(text, {pointers})) END AS shape
    FROM lines"""


def _learn_shapes(con: duckdb.DuckDBPyConnection, shapes: Shapes) -> tuple[list[int], str]:
    """The shapes among the probed lines that the engine can read, and the condition that all other lines meet."""
    found = [shape for (shape,) in con.execute("SELECT DISTINCT shape FROM probe WHERE shape <> 0").fetchall()]
    new = [shape for shape in found if not shapes.knows(shape)]
    if new:
        for shape, keys in con.execute(
            f"SELECT shape, any_value(json_keys(text, {values.literals(shapes.pointers())}))"
            f" FROM probe JOIN lines USING (seq) WHERE shape IN ({', '.join(map(str, new))}) GROUP BY shape"
        ).fetchall():
            shapes.learn(shape, keys)
    plain = [shape for shape in found if shapes.is_plain(shape)]
    if len(plain) == len(found):
        return plain, "shape IS NULL OR shape = 0"
    return plain, f"shape IS NULL OR shape NOT IN ({', '.join(map(str, plain))})" if plain else "true"


def _add_to_frame(con: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]], lines: pa.Table) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in set(names) - set(con.table("frame").columns):
        con.execute(f"ALTER TABLE frame ADD COLUMN {values.name(name)} VARCHAR")
    con.register("odd_cells", values.text_table(rows, names))
    con.register("odd_lines", lines)
    select = ", ".join(f"c.{values.name(name)}" for name in names)
    con.execute(
        f"INSERT INTO frame BY NAME SELECT {select}, hash(l.text) AS tie"
        " FROM odd_cells c JOIN odd_lines l ON l.seq = c.seq"
    )
    con.unregister("odd_cells")
    con.unregister("odd_lines")


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]], select: str) -> None:
    if rows:
        con.register("new_rows", values.text_table(rows, rows[0]))
        con.execute(f"INSERT INTO {table} SELECT {select} FROM new_rows")
        con.unregister("new_rows")


def _copy(con: duckdb.DuckDBPyConnection, select: str, part: str) -> None:
    con.execute(f"COPY ({select}) TO {part} (FORMAT parquet)")


def _count(con: duckdb.DuckDBPyConnection, table: str, where: str = "true") -> int:
    found = con.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()
    return int(found[0]) if found else 0


# A property `event` that only repeats the event's name or slug is dropped.
REPEATED = f"{EXTRA}_event"
_REPEATED_EVENT_SQL = f"""
    UPDATE frame SET "{REPEATED}" = NULL WHERE is_text("{REPEATED}")
    AND as_text("{REPEATED}") IN (as_text(event), snake_case(as_text(event)), '_' || snake_case(as_text(event)))"""

_BAD_TRANSACTIONAL = "(transactional IS NOT NULL AND as_bool(transactional) IS NULL)"

# The cells that are put aside: name, type, and what it is made of in a frame.
_STORED: dict[str, tuple[str, str]] = {
    "seq": ("BIGINT", "seq"),
    "tie": ("UBIGINT", "tie"),
    "kind": ("VARCHAR", "kind"),
    "event": ("VARCHAR", "event"),
    **{name: ("VARCHAR", values.name(name)) for name in _TEXTS},
    **{column.name: ("VARCHAR", column.name) for column in _DECLARED},
    "transactional": ("BOOLEAN", "as_bool(transactional)"),
    "received_at": (
        "TIMESTAMP",
        "coalesce(received_at_read, sent_at_read, timestamp_read, original_timestamp_read)",
    ),
    "sent_at": ("TIMESTAMP", "sent_at_read"),
    "original_timestamp": ("TIMESTAMP", "original_timestamp_read"),
    # Where it is absent, the time is the sender's, moved by how far the sender's clock is off (spec: Clocks).
    "timestamp": (
        "TIMESTAMP",
        """CASE WHEN "timestamp" IS NOT NULL THEN timestamp_read ELSE coalesce(
            within_years(coalesce(received_at_read, sent_at_read) - (sent_at_read - original_timestamp_read)),
            original_timestamp_read, received_at_read, sent_at_read) END""",
    ),
}


def _stored_cells(columns: Sequence[str]) -> str:
    cells = {name: cell if name in columns else "NULL" for name, (_, cell) in _STORED.items()}
    select = [f"({cell})::{_STORED[name][0]} AS {values.name(name)}" for name, cell in cells.items()]
    return ", ".join([*select, *(values.name(column) for column in columns if column.startswith(EXTRA))])


_KINDS = ", ".join(f"('{kind}', {MESSAGE_TABLES.index(table)})" for kind, table, _ in KINDS)
_TABLES_SQL = f"""
    CREATE TABLE kinds (kind VARCHAR, place INTEGER);
    INSERT INTO kinds VALUES {_KINDS};
    CREATE TABLE events (event VARCHAR, place INTEGER, slug VARCHAR, event_text VARCHAR);
    CREATE TABLE rejects (seq BIGINT, id VARCHAR, reason VARCHAR, message VARCHAR, raw VARCHAR);
    CREATE TABLE discards (seq BIGINT, table_name VARCHAR, column_name VARCHAR, value VARCHAR, reason VARCHAR);"""
