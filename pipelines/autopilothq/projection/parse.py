"""The first half of a load: lines become cells, which are buffered in Parquet files.

The engine reads a batch of lines as columns, in a few statements: the fast path. Lines that it may read wrongly (broken
ones, keys that collide, numbers whose digits would change) are irregular; `irregular.py` reads them one by one into the
same cells: the slow path. Cells are buffered until all lines are parsed, because only then is it known which of two
messages with the same id is kept, and which type a column takes from all its values.

Any worker can parse: lines and a folder for the files go in, `ParsedCells` come out.
"""

import threading
from collections import Counter
from collections.abc import Collection
from contextlib import nullcontext

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..catalog import MAX_DEPTH
from ..machine import LargestFirst
from ..segment.message import Batch, Reject, without_bom
from . import engine
from .cells import LINES_PER_FILE, LONG_LINE, MOST_BYTES, NO_MESSAGES_SQL, CellWriter, ParsedCells, select_columns
from .irregular import parse_irregular, pieces
from .keys import long_key_condition
from .line_reader import LineReader
from .shapes import ProjectionQuery, RegularShape, Shapes

FIRST_LINES = 1_000  # lines that are parsed before all others, to learn which objects their messages hold
FREQUENT = 10  # the fewest irregular lines of a batch that must hold an object before its keys become part of shapes
LARGE_LINE = 1 << 20  # bytes; a smaller line is never rejected for needing too much memory
FIRST_SUCCESSES = 4  # successes in a row before more threads parse again; doubled whenever the memory does not suffice
PIECE = 1 << 17  # bytes that are examined at a time, so that they fit into the processor's cache
KILL_POINT_LINES_PARSED = f"{__name__}:parse_lines"  # for tests/faults
# Errors that the machine causes, not a line.
ENVIRONMENT_ERRORS = (OSError, MemoryError, duckdb.IOException, duckdb.InterruptException, duckdb.FatalException)
_SQL = engine.queries("parse.sql")


class Parser:
    """Parses batches of lines into files of cells in one folder. Several `threads` may share it, each with a reader.

    It remembers the shapes of lines from one batch to the next. Lines whose keys have more than `key_bytes` are
    rejected, because the destination has no room for them. If the engine's memory does not suffice for all threads,
    fewer of them parse at a time. The first lines are parsed before all others, because they have most shapes. Example:

        with engine.connect(None, memory=400, threads=1) as con:
            cells = Parser(folder).parse(LineReader(con), batch)
    """

    def __init__(self, folder: str, threads: int = 1, key_bytes: int | None = None) -> None:
        self._files = CellWriter(folder, key_bytes)
        self._shapes = Shapes()
        self._first = True
        self._learning = threading.Lock()  # held while the first lines are parsed
        self._lock = threading.Lock()
        self._turns = LargestFirst(threads)
        self._turns_taken = 1  # by each thread: if each takes twice as many, half as many threads parse at a time
        self._successes = 0  # pieces that were parsed since `_turns_taken` changed
        self._required_successes = FIRST_SUCCESSES  # pieces to parse before twice as many threads parse again

    def parse(self, reader: LineReader, batch: Batch) -> ParsedCells:
        """Parses a batch.

        Bad lines become rejects, whatever they hold: if parsing raises an unexpected exception, the lines that cause it
        are found and rejected, and all others are kept. Raises only errors that no line has caused.
        """
        files = self._files.another()
        files.rejects(batch.rejects)
        lines = number_lines(batch.lines)
        if self._first:
            lines = self._parse_first(reader, lines, files)
        self._parse_pieces(reader, lines, files)
        return files.cells

    def _parse_first(self, reader: LineReader, lines: pa.Table, files: CellWriter) -> pa.Table:
        """Parses the first lines, while other threads wait; returns the lines that are left."""
        with self._learning:
            if not self._first:
                return lines
            self._parse_pieces(reader, lines.slice(0, FIRST_LINES), files)
            self._first = not files.cells.columns
            return lines.slice(FIRST_LINES)

    def no_messages(self, con: duckdb.DuckDBPyConnection) -> ParsedCells:
        """Returns cells with a file of messages that has all columns but no rows."""
        files = self._files.another()
        files.messages(con, NO_MESSAGES_SQL)
        return files.cells

    def parse_canary(self, reader: LineReader) -> ParsedCells:
        """Returns the cells of the canary: a plain message, which fails to parse only if all messages do."""
        return self._parse_at_once(reader, _CANARY)

    def _parse_pieces(self, reader: LineReader, lines: pa.Table, files: CellWriter) -> None:
        """Parses lines; if many are long, in pieces of MOST_BYTES, which also bounds the size of the files."""
        sizes = pc.binary_length(lines["text"]).to_numpy()
        long_bytes = int(sizes[sizes > LONG_LINE].sum())
        files.cells.long_bytes += long_bytes
        for piece in pieces(lines, MOST_BYTES) if long_bytes > MOST_BYTES else (lines,):
            self._parse_in_turn(reader, piece, files)

    def _parse_in_turn(self, reader: LineReader, lines: pa.Table, files: CellWriter) -> None:
        """Parses lines in parallel with other threads, or with fewer of them if the memory does not suffice.

        Other threads may use up the memory, so these lines are at fault only if memory runs out while no other thread
        is parsing.
        """
        while lines.num_rows:
            taken, attempt = self._turns_taken, files.another()
            alone = taken > self._turns.most
            memory = engine.one_thread(reader.con.execute, engine.ALONE_MEMORY) if alone else nullcontext()
            try:
                with self._turns.turn(0, min(taken, self._turns.most)), memory:
                    self._parse_lines(reader, lines, attempt, alone)
            except duckdb.OutOfMemoryException:
                attempt.cells.delete()
                if alone:
                    raise
                self._note_shortage(taken)
            else:
                files.cells.extend(attempt.cells)
                self._note_success(taken)
                return

    def _note_shortage(self, taken: int) -> None:
        """Halves the number of threads that parse at a time; `taken` are the turns that the failed attempt took.

        A failed attempt costs time, because its lines are parsed again. So each one doubles the number of successes
        that are required before more threads parse again.
        """
        with self._lock:
            if self._turns_taken < 2 * taken:
                self._turns_taken, self._successes = 2 * taken, 0
                self._required_successes *= 2

    def _note_success(self, taken: int) -> None:
        """Doubles the number of threads that parse at a time after enough successes, unless all do already."""
        with self._lock:
            if taken == self._turns_taken > 1:
                self._successes += 1
                if self._successes == self._required_successes:
                    self._turns_taken, self._successes = taken // 2, 0

    def _parse_lines(self, reader: LineReader, lines: pa.Table, files: CellWriter, alone: bool) -> None:
        """Parses all lines at once; if that raises, parses each half, and so on, down to the lines that raise."""
        try:
            files.cells.extend(self._parse_at_once(reader, lines))
        except ENVIRONMENT_ERRORS:
            raise
        except Exception as error:
            if isinstance(error, duckdb.OutOfMemoryException) and not (alone and _may_need_much(lines)):
                raise
            if lines.num_rows > 1:
                half = lines.num_rows // 2
                self._parse_lines(reader, lines.slice(0, half), files, alone)
                self._parse_lines(reader, lines.slice(half), files, alone)
            elif not self._parses_canary(reader):
                raise
            else:
                files.rejects([_unreadable(lines, error)])

    def _parses_canary(self, reader: LineReader) -> bool:
        try:
            self.parse_canary(reader).delete()
        except Exception:  # noqa: BLE001 - no line has caused it, whatever it is
            return False
        return True

    def _parse_at_once(self, reader: LineReader, lines: pa.Table) -> ParsedCells:
        files = self._files.another()
        try:
            objects = parse_lines(reader, lines, self._shapes, files)
        except BaseException:
            files.cells.delete()
            raise
        with self._lock:
            self._shapes = self._shapes.with_objects(objects)
        return files.cells


def parse_lines(reader: LineReader, lines: pa.Table, shapes: Shapes, files: CellWriter) -> Collection[tuple[str, ...]]:
    """Parses lines (`seq`, `text`) into `files`; returns the paths of objects that many irregular lines hold.

    First come the lines of known shapes, then those of regular shapes that were new, then the irregular lines.
    """
    misread = misread_conditions(lines["text"])
    rest, seqs = _parse_known(reader, lines, misread, shapes, files)
    if rest.num_rows:
        regular, irregular = _probe(reader, rest, misread, shapes)
        seqs += irregular.filter(pc.is_valid(irregular["shape"]))["seq"].chunks  # blank lines have no shape
        if regular:
            rest = rest.filter(pc.invert(pc.is_in(rest["seq"], irregular["seq"])))
            readable = _READABLE.format(misread="false")
            others, irregulars = _parse_regular(reader, rest, readable, shapes.query(regular), files)
            seqs += [*others["seq"].chunks, *irregulars]
    if not seqs:
        return ()
    lines = lines.filter(pc.is_in(lines["seq"], pa.chunked_array(seqs)))
    objects: Counter[tuple[str, ...]] = parse_irregular(reader.con, lines, files)
    enough = max(FREQUENT, lines.num_rows // 100)
    return [path for path, count in objects.items() if count >= enough]


# The SQL condition for lines that look like JSON objects and that the engine reads correctly.
_READABLE = "starts_with(text, '{{') AND NOT contains(text, '\\u0000') AND NOT ({misread})"


def _parse_known(
    reader: LineReader, lines: pa.Table, misread: tuple[str, str], shapes: Shapes, files: CellWriter
) -> tuple[pa.Table, list[pa.Array]]:
    """Parses the lines of known shapes; returns the lines of other shapes, and the `seq` of irregular lines.

    Nearly all lines are JSON, so the engine checks for it only after it has met a line that is not.
    """
    known = shapes.known()
    while known:
        valid = () if shapes.all_json else ("NOT json_valid(text)",)
        readable = _READABLE.format(misread=" OR ".join((*valid, *misread)))
        attempt = files.another()
        try:
            found = _parse_regular(reader, lines, readable, shapes.query(known), attempt)
        except (duckdb.InvalidInputException, UnicodeDecodeError):  # the latter if the message quotes invalid UTF-8
            attempt.cells.delete()
            if not shapes.all_json:
                raise
            shapes.all_json = False
        else:
            files.cells.extend(attempt.cells)
            return found
    return lines, []


def _probe(
    reader: LineReader, lines: pa.Table, misread: tuple[str, str], shapes: Shapes
) -> tuple[dict[str, RegularShape], pa.Table]:
    """Finds the shapes of lines; returns the regular ones, and the lines (`seq`, `shape`) of all others."""
    lenient, deep = misread
    pointers = engine.literals(shapes.pointers())
    con = reader.con
    reader.read(lines)
    con.execute(_SQL["probe"].format(pointers=pointers, lenient=lenient, deep=deep))
    counts = dict(con.execute(_SQL["shapes"]).fetchall())
    regular = shapes.regular(counts)
    if len(regular) == len(counts):
        return regular, con.execute(_SQL["irregular"]).to_arrow_table()
    with engine.registered(con, regular_shapes=pa.table({"shape": pa.array(list(regular), pa.string())})):
        return regular, con.execute(_SQL["irregular_shapes"]).to_arrow_table()


def _parse_regular(
    reader: LineReader, lines: pa.Table, readable: str, query: ProjectionQuery, files: CellWriter
) -> tuple[pa.Table, list[pa.Array]]:
    """Writes the cells of the lines that match `readable` and have shapes of the query, in one statement.

    Returns the other lines, and the `seq` of the lines that turned out to be irregular.
    """
    irregular = f"(irregular OR {long_key_condition(files.key_bytes)})"
    select = f"SELECT {select_columns(query.extras, irregular)} FROM ({query.sql(readable)})"
    reader.read(lines, query.shapes)
    written = files.messages(reader.con, select, query.extras, reader.copy)
    file = engine.parquet_files([written.path])
    irregulars = (
        reader.con.execute(f"SELECT seq FROM {file} WHERE irregular").to_arrow_table()["seq"].chunks
        if written.irregular
        else []
    )
    if written.rows == lines.num_rows:
        return lines.slice(0, 0), irregulars
    read = reader.con.execute(f"SELECT seq FROM {file}").to_arrow_table()["seq"]
    return lines.filter(pc.invert(pc.is_in(lines["seq"], read))), irregulars


# The canary: a line that fails to parse only if no line can be parsed. Lines of files never have a negative number.
CANARY_SEQ = -1
_CANARY_LINE = (
    b'{"type":"track","event":"Email Opened","messageId":"m","userId":"u","receivedAt":"2019-03-04T05:06:07.412Z",'
    b'"properties":{"a":1}}\n'
)
_CANARY = pa.table(
    {"seq": pa.array([CANARY_SEQ]), "text": pa.array([_CANARY_LINE], pa.large_binary()).cast(pa.large_string())}
)


def _may_need_much(lines: pa.Table) -> bool:
    """Returns whether these lines may need too much memory: several lines, or a single large one."""
    return bool(lines.num_rows > 1 or lines.nbytes >= LARGE_LINE)


def _unreadable(lines: pa.Table, error: Exception) -> Reject:
    seq, text = lines["seq"][0].as_py(), without_bom(lines["text"].cast(pa.large_binary())[0].as_py())
    return Reject(seq // LINES_PER_FILE, seq % LINES_PER_FILE, "unreadable", engine.error_line(error), text)


def number_lines(lines: pa.Table) -> pa.Table:
    """Returns lines with their numbers in the load, as `seq` and `text`.

    The text can be any bytes: the engine's `json_valid` refuses invalid UTF-8.
    """
    seq = pc.add(pc.multiply(lines["file"].cast(pa.int64()), LINES_PER_FILE), lines["line"])
    return pa.table({"seq": seq, "text": lines["text"].cast(pa.large_string(), safe=False)})


# Text that is not JSON although the engine reads it: trailing commas, and `nan` and `inf` in any case. (Python's JSON
# reader accepts `NaN` as a number; no column does.)
_LENIENT = r"regexp_matches(text, ',\s*[\]}]|(?i)[:\[,]\s*-?(nan|inf|infinity)\s*[,\]}]')"
# Lines whose objects and arrays may be nested too deeply. The brackets are counted by lengths, because DuckDB's
# `translate` makes the engine unusable if a text is not UTF-8.
_MANY_BRACKETS = f"2 * strlen(text) - strlen(replace(text, '}}', '')) - strlen(replace(text, ']', '')) > {MAX_DEPTH}"


def misread_conditions(text: pa.ChunkedArray) -> tuple[str, str]:
    """Returns two SQL conditions for lines that the engine misreads: too leniently, or because they nest too deeply.

    A condition is `false` if no line can match. That is decided from the bytes of all lines at once, because a pattern
    in the engine would take as long as reading all the JSON. Only the bytes before commas and closing brackets are
    examined (machine-made JSON has no comma, blank or `nan` there), and brackets are counted.
    """
    scans = [_scan_ends(chunk) for chunk in text.chunks]
    lenient = any(may_be_lenient for may_be_lenient, _ in scans)
    deep = any(has_many_brackets for _, has_many_brackets in scans)
    return _LENIENT if lenient else "false", _MANY_BRACKETS if deep else "false"


# Bytes that machine-made JSON does not have before a comma or a closing bracket, except in texts: white space, a comma,
# and the last letters of these names.
_NAMES = (b"nan", b"inf", b"infinity")
_LENIENT_ENDS = np.isin(np.arange(256), [*range(33), *b",nfyNFY"])
_BEFORE_VALUES = np.isin(np.arange(256), [*range(33), *b":[,-"])


def _scan_ends(lines: pa.LargeStringArray) -> tuple[bool, bool]:
    """Returns whether some line may hold text that only the engine takes for JSON, and whether one nests too deeply."""
    if not len(lines):
        return False, False
    _, offsets, content = lines.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[lines.offset : lines.offset + len(lines) + 1]
    bytes_ = np.frombuffer(content, dtype=np.uint8)[bounds[0] : bounds[-1]]
    lenient, found = False, [bounds[:0]]
    for start in range(0, len(bytes_), PIECE):
        piece = bytes_[start : start + PIECE]
        bracket = (piece | 0x20) == ord("}")  # `]` and `}` differ only in the bit 0x20
        ends = np.flatnonzero(bracket | (piece == ord(","))) + start
        suspect_ends = ends[_LENIENT_ENDS.take(bytes_.take(ends - 1, mode="wrap"))]
        lenient = lenient or (bool(len(suspect_ends)) and _may_be_lenient(bytes_, suspect_ends))
        found.append(np.flatnonzero(bracket) + start)
    per_line = np.diff(np.searchsorted(np.concatenate(found), bounds - bounds[0]))
    return lenient, bool((per_line > MAX_DEPTH).any())


def _may_be_lenient(bytes_: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> bool:
    """Returns whether one of the commas and brackets at `ends` may follow a trailing comma or one of `_NAMES`.

    One blank may be between. Prose has many commas after the letters of `_LENIENT_ENDS` ("Our city, your way"), so
    those letters alone do not justify searching the lines with a pattern.
    """
    blank = bytes_.take(ends - 1, mode="wrap") <= ord(" ")
    last = bytes_.take(ends - blank - 1, mode="wrap")
    if ((last <= ord(" ")) | ((last == ord(",")) & (bytes_.take(ends) != ord(",")))).any():
        return True
    return any(_is_name(bytes_, ends - blank, name) for name in _NAMES)


def _is_name(bytes_: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], name: bytes) -> bool:
    """Returns whether one of the values that end before `ends` is this name, in upper or lower case."""
    starts = ends - len(name)
    starts = starts[_BEFORE_VALUES.take(bytes_.take(starts - 1, mode="wrap"))]
    for at, letter in enumerate(name):
        starts = starts[(bytes_.take(starts + at, mode="wrap") | 0x20) == letter]
    return bool(len(starts))
