"""Batches of lines in, cells put aside: the first half of a load.

DuckDB reads a batch as columns, in a few statements. What these cannot read for sure (broken lines, keys that collide,
numbers whose digits would change) is read by `messages.read`, line by line, into the same cells. All cells wait in
Parquet files until the load is complete, because only then it is known which of two messages with one id stays, and
which type a column takes from all its values. Lines that the engine reads have a column for each key; of all others
the keys that the catalogue does not know wait as rows (`seq`, `column`, `value`), so that a message with many keys, or
messages with a new key each, cost what they hold and no more.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..catalog import CONTEXT, LINK, MAX_DEPTH, MAX_EVENT_TABLES, MESSAGE_TABLES, OTHER_LIMITS, PROPERTIES, Limits
from ..segment.identity import NOBODY, HashedIds
from ..segment.message import (
    BLANK,
    CLOCK_FIELDS,
    EXTRA,
    Batch,
    Message,
    Reject,
    Rejected,
    digest,
    read_message,
    without_bom,
)
from . import engine
from .context import LINES_PER_FILE, ExistingTables, ParsedCells, ProjectionContext, ReadTable
from .deduplicate import Deduplicated
from .shapes import Frame, Shapes

FIRST = 1_000  # lines that are read ahead of all others, to learn which objects their messages hold
ODD_LINES = 5_000  # as many odd lines are held as Python objects at a time, or
ODD_BYTES = 4 << 20  # so many bytes of them
FREQUENT = 10  # odd lines of a batch that hold an object before the engine is asked for its keys
PIECE = 1 << 17  # bytes that are looked at while they are in the processor's cache
_CONTEXT_NAMES = frozenset(column.name for column in CONTEXT)
_TEXTS = ("id", "anonymous_id", "user_id", "previous_id", "group_id", "name", "category")
_DECLARED = (*CONTEXT, *PROPERTIES, *LINK)
# What goes wrong with the machine, not with a line.
ENVIRONMENT_ERRORS = (OSError, MemoryError, duckdb.IOException, duckdb.InterruptException, duckdb.FatalException)


class Projection:
    """One load: add all batches, settle, take the rows of each table.

    `scratch` is an empty folder for what waits and for what does not fit into `memory` (MB); the caller deletes it.
    `shorten` gives a column the name that it has in the destination, `event_table` (else `shorten`) a table of an event
    by its slug. Example:

        warehouse = Warehouse(loaded_at=datetime.now(UTC), scratch=folder)
        warehouse.add(batch)
        for rows in warehouse.settle().tables():
            rows.write(f"{rows.table}.parquet")
    """

    def __init__(
        self,
        loaded_at: datetime,
        scratch: str,
        memory: int = 400,
        threads: int = 2,
        shorten: Callable[[str], str] = str,
        event_table: Callable[[str], str] | None = None,
    ) -> None:
        self._scratch = scratch
        self._memory = memory
        self._shorten = shorten
        self._event_table = event_table or shorten
        self._threads = threads
        # While lines are added, each thread that adds brings its own core.
        self._con = engine.connect(scratch, memory, threads=1)
        self._loaded_at = loaded_at
        self._lock = threading.Lock()
        self._shapes = Shapes()
        self._numbers = itertools.count()
        self._cells = ParsedCells()
        self._known: ExistingTables = {}
        self._con.execute(_TABLES_SQL)
        empty = ", ".join(f"NULL::{of} AS {engine.name(name)}" for name, (of, _) in _STORED.items())
        self._keep_messages(self._con, f"SELECT {empty}, false AS again LIMIT 0")

    def close(self) -> None:
        """Gives back the memory; the scratch folder is the caller's to delete."""
        self._con.close()

    # Lines in -----------------------------------------------------------------------------------------------------

    def add(self, batch: Batch) -> None:
        """Takes a batch of lines; threads may add side by side.

        Bad lines become rejects, whatever they hold: where anything unexpected is raised, the lines that cause it are
        found and rejected, and all others stay. What is raised nevertheless is not about the lines.
        """
        con = self._con.cursor()
        try:
            self._reject(con, batch.rejects)
            lines = _numbered(batch.lines)
            if not self._cells.columns:
                self._add_lines(con, lines.slice(0, FIRST))
                lines = lines.slice(FIRST)
            self._add_lines(con, lines)
        finally:
            con.close()

    def _add_lines(self, con: duckdb.DuckDBPyConnection, lines: pa.Table) -> None:
        """Adds lines, all or none; where that raises, each half, down to the lines that cannot be read."""
        if not lines.num_rows:
            return
        try:
            self._add_at_once(con, lines)
        except ENVIRONMENT_ERRORS:
            raise
        except Exception as error:
            if lines.num_rows > 1:
                half = lines.num_rows // 2
                self._add_lines(con, lines.slice(0, half))
                self._add_lines(con, lines.slice(half))
            elif lines["seq"][0].as_py() == HARMLESS_SEQ or not self._reads_harmless_line(con):
                raise
            else:
                self._reject(con, [_unreadable(lines, error)])

    def _reads_harmless_line(self, con: duckdb.DuckDBPyConnection) -> bool:
        """Whether a line that has nothing odd can be read; it is not kept."""
        try:
            self._add_at_once(con, _HARMLESS, keep=False)
        except Exception:  # noqa: BLE001 - whatever it is, it is not about a line
            return False
        return True

    def _add_at_once(self, con: duckdb.DuckDBPyConnection, lines: pa.Table, keep: bool = True) -> None:
        added = ParsedCells()
        con.execute("BEGIN")
        try:
            self._read_lines(con, lines, added)
        except BaseException:
            con.execute("ROLLBACK")
            added.delete()
            raise
        if not keep:
            con.execute("ROLLBACK")
            added.delete()
            return
        con.execute("COMMIT")
        with self._lock:
            self._cells.extend(added)

    def _read_lines(self, con: duckdb.DuckDBPyConnection, lines: pa.Table, added: ParsedCells) -> None:
        shapes = self._shapes
        con.register("lines", lines)
        lenient, deep = _look_at(lines["text"])
        con.execute(_PROBE_SQL.format(pointers=engine.literals(shapes.pointers()), lenient=lenient, deep=deep))
        counts = con.execute("SELECT shape, count(*) FROM probe WHERE shape <> '' GROUP BY shape").fetchall()
        plain = shapes.plain(dict(counts))
        odd = _odd_ones(con, plain, len(counts))
        if odd.num_rows:
            con.register("lines", lines.filter(pc.invert(pc.is_in(lines["seq"], odd["seq"]))))
        frame = shapes.frame(plain.values())
        again = self._read_plain(con, frame, added)
        con.unregister("lines")
        chunks = [*odd.filter(pc.is_valid(odd["shape"]))["seq"].chunks, *again.chunks]
        if chunks:
            self._read_odd(con, lines.filter(pc.is_in(lines["seq"], pa.chunked_array(chunks, pa.int64()))), added)

    def _read_plain(self, con: duckdb.DuckDBPyConnection, frame: Frame, added: ParsedCells) -> pa.ChunkedArray:
        """Puts the cells of the lines aside in one go; the `seq` of those that are odd for all that."""
        part = self._keep_messages(
            con, f"SELECT {_stored_cells(frame.cells)}, odd AS again FROM ({frame.sql('lines')})", added
        )
        _discard_clocks(con, part)
        added.learn(con, f"read_parquet({part}) WHERE NOT again", frame.extras)
        found: pa.Table = con.sql(f"SELECT seq FROM read_parquet({part}) WHERE again").to_arrow_table()
        return found["seq"]

    def _read_odd(self, con: duckdb.DuckDBPyConnection, lines: pa.Table, added: ParsedCells) -> None:
        """Reads the odd lines one by one; what is rejected or discarded of them goes into the books."""
        objects: Counter[tuple[str, ...]] = Counter()
        for piece in _pieces(lines):
            messages, rejects = _read_each(piece)
            self._reject(con, rejects)
            _keep_discards(con, messages)
            for message in messages.values():
                objects.update(set(message.objects))
            if messages:
                self._keep_odd(con, piece, messages, added)
        with self._lock:
            enough = max(FREQUENT, lines.num_rows // 100)
            self._shapes = self._shapes.with_objects([path for path, count in objects.items() if count >= enough])

    def _keep_odd(
        self, con: duckdb.DuckDBPyConnection, lines: pa.Table, messages: Mapping[int, Message], added: ParsedCells
    ) -> None:
        """Puts the cells of messages aside, those that are not in the catalogue as rows of their own."""
        rows = [
            {"seq": seq} | {name: cell for name, cell in message.cells.items() if not name.startswith(EXTRA)}
            for seq, message in messages.items()
        ]
        con.register("odd_lines", lines)
        con.register("odd_cells", engine.text_table(rows, ["seq", *_ODD_CELLS]))
        read_clocks = ", ".join(f"clock({engine.name(name)}) AS {name}_read" for name in CLOCK_FIELDS)
        source = f"SELECT *, hash(text) AS tie, {read_clocks} FROM odd_cells JOIN odd_lines USING (seq)"
        columns = ["tie", *_ODD_CELLS]
        part = self._keep_messages(con, f"SELECT {_stored_cells(columns)}, false AS again FROM ({source})", added)
        con.unregister("odd_lines")
        con.unregister("odd_cells")
        _discard_clocks(con, part)
        added.learn(con, f"read_parquet({part})", ())
        self._keep_extras(messages, added)

    def _keep_extras(self, messages: Mapping[int, Message], added: ParsedCells) -> None:
        """Puts aside as rows what the catalogue does not know."""
        numbers: list[int] = []
        names: list[str] = []
        cells: list[str] = []
        for seq, message in messages.items():
            found = [(name, cell) for name, cell in message.cells.items() if name.startswith(EXTRA)]
            numbers += [seq] * len(found)
            names += [name[len(EXTRA) :] for name, _ in found]
            cells += [cell for _, cell in found]
        if numbers:
            added.extras.append(f"{self._scratch}/{next(self._numbers)}-extras.parquet")
            table = pa.table({"seq": numbers, "column": pa.array(names, pa.string()), "value": cells})
            pq.write_table(table, added.extras[-1], compression="zstd")

    def _keep_messages(self, con: duckdb.DuckDBPyConnection, select: str, added: ParsedCells | None = None) -> str:
        """Writes cells of messages into a file; gives its name as a literal."""
        path = f"{self._scratch}/{next(self._numbers)}.parquet"
        (added or self._cells).messages.append(path)
        con.execute(f"COPY ({select}) TO {engine.literal(path)} (FORMAT parquet)")
        return engine.glob_literal(path)

    def _reject(self, con: duckdb.DuckDBPyConnection, rejects: Sequence[Reject]) -> None:
        rows = [
            {
                "seq": reject.file * LINES_PER_FILE + reject.line,
                "id": digest(reject.raw),
                "reason": reject.reason,
                "message": reject.message,
                "raw": engine.printable(reject.raw),
            }
            for reject in rejects
        ]
        _insert(con, "rejects", rows, "seq, id, reason, message, raw")

    def tables(self, most: int = 10_000) -> list[str]:
        """The tables that the lines so far may have rows for, those of the `most` frequent events among them."""
        return [*(table.name for table in MESSAGE_TABLES), *map(self._event_table, self._cells.tables(most))]

    def settle(
        self,
        known: ExistingTables | None = None,
        stored: ReadTable | None = None,
        complete: Collection[str] = (),
        hashes: HashedIds = NOBODY,
        limits: Limits = OTHER_LIMITS,
        widths: Mapping[str, int] | None = None,
        event_tables: Collection[str] = (),
        max_event_tables: int = MAX_EVENT_TABLES,
        refused: Mapping[str, str] = MappingProxyType({}),
        refused_made: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
        lines: Callable[[Collection[int]], Iterable[tuple[int, bytes]]] | None = None,
    ) -> Deduplicated:
        """After the last batch: decides which messages stay, one of each id, and none that is stored already.

        Args:
            known: The tables that are there, whose columns keep their types.
            stored: `stored(table, columns)` gives their rows as Arrow batches; it is asked for keys only, and for no
                more tables than must be read.
            complete: The ids of the loads that were not killed: what was discarded in others is discarded again.
            hashes: The ids of forgotten persons: their messages are rejected.
            limits: What a table of the destination can have.
            widths: How many columns the tables have that are there.
            event_tables: The tables of events that are there, beside those of the catalogue.
            max_event_tables: How many there may be.
            refused: By the ids of messages, why they cannot be stored: they are rejected.
            refused_made: By table (`users`, `accounts`) and id, why rows cannot be stored that are made of messages:
                these messages are rejected.
            lines: Gives lines by their numbers in the load, whole, for what is rejected of them.
        """
        self._con.execute(f"SET threads = {self._threads}")
        self._known = known or {}
        settled = self._settled(self._con, self._scratch, self._cells, limits, widths or {})
        if refused or any(refused_made.values()):
            settled.refuse(refused, refused_made, lines or (lambda _: ()))
        settled.settle(stored, complete, hashes, event_tables, max_event_tables)
        return settled

    def _settled(
        self,
        con: duckdb.DuckDBPyConnection,
        scratch: str,
        cells: ParsedCells,
        limits: Limits = OTHER_LIMITS,
        widths: Mapping[str, int] = MappingProxyType({}),
        only: str = "true",
    ) -> Deduplicated:
        loaded_at = f"TIMESTAMPTZ '{self._loaded_at.isoformat()}'"
        names = self._shorten, self._event_table
        context = ProjectionContext(con, scratch, self._memory, cells, self._known, loaded_at, *names, limits, widths)
        return Deduplicated(context, only)

    # What cannot become rows --------------------------------------------------------------------------------------

    def unreadable(self) -> dict[str, str]:
        """After `settle`, or taking its rows, raised: the ids of the messages that cause it, with the errors.

        Halves of the messages are tried, and halves of the halves that raise, down to single messages. None are found
        where what was raised is not about messages: even one that has nothing odd cannot be stored then.
        """
        parts = ", ".join(map(engine.glob_literal, self._cells.messages))
        found = self._con.execute(
            f"SELECT seq, id FROM read_parquet([{parts}], union_by_name = true) WHERE NOT again ORDER BY seq"
        ).fetchall()
        if not found or self._attempt(self._harmless_cells(), "true") is not None:
            return {}
        return dict(self._narrow(found))

    def _narrow(self, messages: Sequence[tuple[int, str]]) -> Iterator[tuple[str, str]]:
        error = self._attempt(self._cells, f"seq BETWEEN {messages[0][0]} AND {messages[-1][0]}")
        if error is None:
            return
        if len(messages) == 1:
            yield messages[0][1], engine.error_line(error)
            return
        half = len(messages) // 2
        yield from self._narrow(messages[:half])
        yield from self._narrow(messages[half:])

    def _attempt(self, cells: ParsedCells, only: str) -> Exception | None:
        """Makes the rows of some messages, as if nothing was stored; what that raises."""
        with TemporaryDirectory(dir=self._scratch) as folder, engine.connect(folder, self._memory, 1) as con:
            try:
                con.execute(_TABLES_SQL)
                settled = self._settled(con, folder, cells, only=only)
                settled.settle()
                for rows in (*settled.tables(), *settled.latest(), settled.discards()):
                    if rows is not None:
                        rows.write(f"{folder}/rows")
            except ENVIRONMENT_ERRORS:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                return error
        return None

    def _harmless_cells(self) -> ParsedCells:
        """The cells of a message that has nothing odd."""
        cells = ParsedCells()
        with self._con.cursor() as con:
            self._read_lines(con, _HARMLESS, cells)
        return cells


# The line that shows whether anything can be read at all. No file has a negative number.
HARMLESS_SEQ = -1
_HARMLESS_LINE = (
    b'{"type":"track","event":"Email Opened","messageId":"m","userId":"u","receivedAt":"2019-03-04T05:06:07.412Z",'
    b'"properties":{"a":1}}\n'
)
_HARMLESS = pa.table(
    {"seq": pa.array([HARMLESS_SEQ]), "text": pa.array([_HARMLESS_LINE], pa.large_binary()).cast(pa.large_string())}
)


def _unreadable(lines: pa.Table, error: Exception) -> Reject:
    seq, text = lines["seq"][0].as_py(), lines["text"].cast(pa.large_binary())[0].as_py()
    return Reject(seq // LINES_PER_FILE, seq % LINES_PER_FILE, "unreadable", engine.error_line(error), text)


def _pieces(lines: pa.Table) -> Iterable[pa.Table]:
    """Lines in pieces that may be held as Python objects."""
    sizes = np.cumsum(pc.binary_length(lines["text"]).to_numpy())
    start = 0
    while start < lines.num_rows:
        before = sizes[start - 1] if start else 0
        end = int(np.searchsorted(sizes, before + ODD_BYTES, side="right"))
        end = max(start + 1, min(end, start + ODD_LINES))
        yield lines.slice(start, end - start)
        start = end


def _read_each(lines: pa.Table) -> tuple[dict[int, Message], list[Reject]]:
    """The messages of lines by their numbers, and the lines that are none."""
    messages: dict[int, Message] = {}
    rejects: list[Reject] = []
    for seq, line in zip(lines["seq"].to_pylist(), lines["text"].cast(pa.large_binary()).to_pylist(), strict=True):
        if not without_bom(line).strip(BLANK.encode()):
            continue
        try:
            messages[seq] = read_message(line, _CONTEXT_NAMES)
        except Rejected as error:
            reason, text = error.args
            rejects.append(Reject(seq // LINES_PER_FILE, seq % LINES_PER_FILE, reason, text, line))
    return messages, rejects


def _numbered(lines: pa.Table) -> pa.Table:
    """The lines with their number in the load. The engine takes any bytes: `json_valid` finds what is not UTF-8."""
    seq = pc.add(pc.multiply(lines["file"].cast(pa.int64()), LINES_PER_FILE), lines["line"])
    return pa.table({"seq": seq, "text": lines["text"].cast(pa.large_string(), safe=False)})


# What the engine's reader takes for JSON and is not.
_TRAILING_COMMA = r"regexp_matches(text, ',\s*[\]}]')"
# Objects and arrays that may nest too deeply.
_MANY_BRACKETS = f"length(text) - length(translate(text, '}}]', '')) > {MAX_DEPTH}"


def _look_at(text: pa.ChunkedArray) -> tuple[str, str]:
    """Conditions for lines whose JSON the engine reads otherwise than it must: after trailing commas, and too deep.

    They are looked for in the bytes of all lines at once, because a pattern in the engine would take as long as reading
    all the JSON: a comma may stand before a bracket only where a bracket comes after a comma or white space, which
    machine-made JSON has not, and few lines have so many brackets.
    """
    looks = [_look_at_brackets(chunk) for chunk in text.chunks]
    lenient = any(loose for loose, _ in looks)
    deep = any(many for _, many in looks)
    return _TRAILING_COMMA if lenient else "false", _MANY_BRACKETS if deep else "false"


def _look_at_brackets(lines: pa.LargeStringArray) -> tuple[bool, bool]:
    """Whether a closing bracket stands after a comma or a blank, and whether a line has more of them than may nest."""
    if not len(lines):
        return False, False
    _, offsets, content = lines.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[lines.offset : lines.offset + len(lines) + 1]
    bytes_ = np.frombuffer(content, dtype=np.uint8)[bounds[0] : bounds[-1]]
    loose, found = False, [np.empty(0, np.int64)]
    for start in range(0, len(bytes_), PIECE):
        piece = bytes_[start : start + PIECE + 1]
        before, bracket = piece[:-1], (piece[1:] | 0x20) == ord("}")  # 0x20 is what `]` lacks to be `}`
        loose = loose or bool((bracket & ((before == ord(",")) | (before <= ord(" ")))).any())
        found.append(np.flatnonzero(bracket) + start)
    per_line = np.diff(np.searchsorted(np.concatenate(found), bounds - bounds[0]))
    return loose, bool((per_line > MAX_DEPTH).any())


# A shape is the text of all keys: nobody can make another line that has the same. Blank lines have none, lines that
# are not JSON for sure an empty one.
_PROBE_SQL = r"""
    CREATE OR REPLACE TEMP TABLE probe AS
    SELECT seq, CASE
        WHEN NOT starts_with(text, '{{') AND regexp_full_match(text, '\s*') THEN NULL
        WHEN NOT json_valid(text) OR contains(text, '\u0000') OR {lenient} OR {deep} THEN ''
        ELSE to_json(json_keys(text, {pointers}))::VARCHAR END AS shape
    FROM lines"""


def _odd_ones(con: duckdb.DuckDBPyConnection, plain: Collection[str], shapes: int) -> pa.Table:
    """`seq` and `shape` of the probed lines that are of no plain shape, of `shapes` in all."""
    con.register("plain_shapes", pa.table({"shape": pa.array(list(plain), pa.string())}))
    doubt = (
        "shape IS NULL OR shape = ''"
        if len(plain) == shapes
        else "shape IS NULL OR shape NOT IN (SELECT shape FROM plain_shapes)"
    )
    found: pa.Table = con.sql(f"SELECT seq, shape FROM probe WHERE {doubt}").to_arrow_table()
    con.unregister("plain_shapes")
    return found


def _discard_clocks(con: duckdb.DuckDBPyConnection, part: str) -> None:
    """Clocks that could not be read."""
    for name in CLOCK_FIELDS:
        con.execute(
            f"INSERT INTO discards SELECT seq, NULL, '{name}', {name}_unread, 'not_a_time' FROM read_parquet({part})"
            f" WHERE {name}_unread IS NOT NULL AND NOT again"
        )


def _keep_discards(con: duckdb.DuckDBPyConnection, messages: Mapping[int, Message]) -> None:
    """What has no cell, of each message."""
    found = [(seq, discard) for seq, message in messages.items() for discard in message.discards]
    if found:
        columns = zip(*(discard for _, discard in found), strict=True)
        arrays = [pa.array([seq for seq, _ in found]), *(pa.array(column, pa.string()) for column in columns)]
        con.register("new_rows", pa.table(arrays, ["seq", "column", "value", "reason"]))
        con.execute('INSERT INTO discards SELECT seq, NULL, "column", value, reason FROM new_rows')
        con.unregister("new_rows")


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]], select: str) -> None:
    if rows:
        con.register("new_rows", engine.text_table(rows, rows[0]))
        con.execute(f"INSERT INTO {table} SELECT {select} FROM new_rows")
        con.unregister("new_rows")


# The cells that are put aside: name, type, and what it is made of.
_STORED: dict[str, tuple[str, str]] = {
    "seq": ("BIGINT", "seq"),
    "tie": ("UBIGINT", "tie"),
    "kind": ("VARCHAR", "kind"),
    "event": ("VARCHAR", "event"),
    **{name: ("VARCHAR", engine.name(name)) for name in _TEXTS},
    **{column.name: ("VARCHAR", engine.name(column.name)) for column in _DECLARED},
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
    **{
        f"{name}_unread": ("VARCHAR", f"CASE WHEN {name}_read IS NULL THEN {engine.name(name)} END")
        for name in CLOCK_FIELDS
    },
}
_ODD_CELLS = ("kind", "event", *_TEXTS, *CLOCK_FIELDS, *(column.name for column in _DECLARED))


def _stored_cells(columns: Sequence[str]) -> str:
    """What is selected of a query that has these columns, to be put aside."""
    made = {"seq", *columns, *(f"{name}_unread" for name in CLOCK_FIELDS)}
    cells = {name: cell if name in made else "NULL" for name, (_, cell) in _STORED.items()}
    select = [f"({cell})::{_STORED[name][0]} AS {engine.name(name)}" for name, cell in cells.items()]
    return ", ".join([*select, *(engine.name(column) for column in columns if column.startswith(EXTRA))])


_TABLES_SQL = """
    CREATE TABLE rejects (seq BIGINT, id VARCHAR, reason VARCHAR, message VARCHAR, raw VARCHAR);
    CREATE TABLE discards (seq BIGINT, table_name VARCHAR, column_name VARCHAR, value VARCHAR, reason VARCHAR);"""
