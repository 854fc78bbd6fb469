"""The first half of a load: lines become cells, which wait in Parquet files.

The engine reads a batch of lines as columns, in a few statements: the fast path. Lines that it may read wrongly (broken
ones, keys that collide, numbers whose digits would change) are irregular; `irregular.py` reads them one by one into the
same cells: the slow path. Cells wait until all lines are parsed, because only then it is known which of two messages
with one id stays, and which type a column takes from all its values.

A worker of any kind can parse: lines and the folder for the files go in, `ParsedCells` come out.
"""

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import nullcontext

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..catalog import MAX_DEPTH
from ..machine import LargestFirst
from ..segment.message import Batch, Reject
from . import engine
from .cells import LINES_PER_FILE, LONG_LINE, MOST_BYTES, NO_MESSAGES_SQL, CellWriter, ParsedCells, select_columns
from .irregular import parse_irregular, pieces
from .keys import has_long_key
from .line_reader import LineReader
from .shapes import RegularShape, Shapes

FIRST_LINES = 1_000  # lines that are parsed before all others, to learn which objects their messages hold
FREQUENT = 10  # irregular lines of a batch that must hold an object before its keys become part of shapes
LARGE_LINE = 1 << 20  # bytes of a single line that can be rejected because it needs too much memory
ENOUGH = 4  # times that the memory has to suffice before more threads parse; doubled each time that it does not
PIECE = 1 << 17  # bytes that are examined at a time, so that they fit into the processor's cache
KILL_POINT_LINES_PARSED = f"{__name__}:parse_lines"  # for tests/faults
# Errors of the machine, not of a line.
ENVIRONMENT_ERRORS = (OSError, MemoryError, duckdb.IOException, duckdb.InterruptException, duckdb.FatalException)
_SQL = engine.queries("parse.sql")


class Parser:
    """Parses batches of lines into files of cells in one folder. `threads` may share it, each with a reader of its own.

    Lines whose keys have more than `key_bytes` are rejected: a destination may have no room for such a key.
    It remembers the shapes of lines from one batch to the next. If the engine's memory does not suffice for so many
    threads, fewer of them parse at a time. Example:

        with engine.connect(None, memory=400, threads=1) as con:
            cells = Parser(folder).parse(LineReader(con), batch)
    """

    def __init__(self, folder: str, threads: int = 1, key_bytes: int | None = None) -> None:
        self._files = CellWriter(folder, key_bytes)
        self._shapes = Shapes()
        self._first = True
        self._lock = threading.Lock()
        self._turns = LargestFirst(threads)
        self._taken = 1  # turns that a thread takes; if it takes twice as many, half as many threads parse at a time
        self._parsed = 0  # how often the memory has sufficed since that changed
        self._enough = ENOUGH  # how often it has to suffice until twice as many threads are tried again

    def parse(self, reader: LineReader, batch: Batch) -> ParsedCells:
        """Parses a batch.

        Bad lines become rejects, whatever they hold: if anything unexpected is raised, the lines that cause it are
        found and rejected, and all others are kept. Raises only errors that no line has caused.
        """
        cells = ParsedCells()
        self._files.rejects(batch.rejects, cells)
        lines = number_lines(batch.lines)
        if self._first:
            self._parse_pieces(reader, lines.slice(0, FIRST_LINES), cells)
            lines = lines.slice(FIRST_LINES)
            self._first = not cells.columns
        self._parse_pieces(reader, lines, cells)
        return cells

    def no_messages(self, con: duckdb.DuckDBPyConnection) -> ParsedCells:
        """Returns cells with a file of messages that has all columns but no rows."""
        cells = ParsedCells()
        self._files.messages(con, NO_MESSAGES_SQL, (), cells)
        return cells

    def harmless(self, reader: LineReader) -> ParsedCells:
        """Returns the cells of a plain message, which can be parsed whenever any can."""
        return self._parse_at_once(reader, _HARMLESS)

    def _parse_pieces(self, reader: LineReader, lines: pa.Table, cells: ParsedCells) -> None:
        """Parses lines, in pieces of so many bytes if many are long, so that the engine can read the files so, too."""
        sizes = pc.binary_length(lines["text"]).to_numpy()
        long_bytes = int(sizes[sizes > LONG_LINE].sum())
        cells.long_bytes += long_bytes
        for piece in pieces(lines, MOST_BYTES) if long_bytes > MOST_BYTES else (lines,):
            self._parse_in_turn(reader, piece, cells)

    def _parse_in_turn(self, reader: LineReader, lines: pa.Table, cells: ParsedCells) -> None:
        """Parses lines in parallel with other threads, with fewer of them if the memory does not suffice.

        The other threads may be the ones that take the memory: an error of memory says something about the lines only
        if no other thread was parsing.
        """
        while lines.num_rows:
            taken, made = self._taken, ParsedCells()
            alone = taken > self._turns.most
            memory = engine.one_thread(reader.con.execute, engine.ALONE_MEMORY) if alone else nullcontext()
            try:
                with self._turns.turn(0, min(taken, self._turns.most)), memory:
                    self._parse_lines(reader, lines, made, alone)
            except duckdb.OutOfMemoryException:
                made.delete()
                if alone:
                    raise
                self._note_memory(taken, suffices=False)
            else:
                cells.extend(made)
                self._note_memory(taken, suffices=True)
                return

    def _note_memory(self, taken: int, suffices: bool) -> None:
        """Makes fewer threads parse at a time if the memory did not suffice, and more once it has for long.

        A failed attempt has to be parsed again, so each one doubles the wait until the next.
        """
        with self._lock:
            if not suffices:
                if self._taken < 2 * taken:
                    self._taken, self._parsed, self._enough = 2 * taken, 0, 2 * self._enough
            elif taken == self._taken > 1:
                self._parsed += 1
                if self._parsed == self._enough:
                    self._taken, self._parsed = taken // 2, 0

    def _parse_lines(self, reader: LineReader, lines: pa.Table, cells: ParsedCells, alone: bool) -> None:
        """Parses all lines at once; if that raises, each half, and so on, down to the lines that cannot be read."""
        try:
            cells.extend(self._parse_at_once(reader, lines))
        except ENVIRONMENT_ERRORS:
            raise
        except Exception as error:
            if isinstance(error, duckdb.OutOfMemoryException) and not (alone and _may_need_much(lines)):
                raise
            if lines.num_rows > 1:
                half = lines.num_rows // 2
                self._parse_lines(reader, lines.slice(0, half), cells, alone)
                self._parse_lines(reader, lines.slice(half), cells, alone)
            elif not self._parses_harmless_line(reader):
                raise
            else:
                self._files.rejects([_unreadable(lines, error)], cells)

    def _parses_harmless_line(self, reader: LineReader) -> bool:
        try:
            self.harmless(reader).delete()
        except Exception:  # noqa: BLE001 - whatever it is, no line has caused it
            return False
        return True

    def _parse_at_once(self, reader: LineReader, lines: pa.Table) -> ParsedCells:
        cells = ParsedCells()
        try:
            objects = parse_lines(reader, lines, self._shapes, self._files, cells)
        except BaseException:
            cells.delete()
            raise
        with self._lock:
            self._shapes = self._shapes.with_objects(objects)
        return cells


def parse_lines(
    reader: LineReader, lines: pa.Table, shapes: Shapes, files: CellWriter, cells: ParsedCells
) -> Collection[tuple[str, ...]]:
    """Parses lines (`seq`, `text`) into `cells`; returns the paths of objects that many irregular lines hold."""
    doubts = doubt_conditions(lines["text"])
    rest, seqs = _parse_known(reader, lines, doubts, shapes, files, cells)
    if rest.num_rows:
        regular, irregular = _probe(reader, rest, doubts, shapes)
        seqs += irregular.filter(pc.is_valid(irregular["shape"]))["seq"].chunks  # blank lines have no shape
        if regular:
            rest = rest.filter(pc.invert(pc.is_in(rest["seq"], irregular["seq"])))
            others, doubted = _parse_regular(reader, rest, _PLAIN.format(doubts="false"), regular, shapes, files, cells)
            seqs += [*others["seq"].chunks, *doubted]
    if not seqs:
        return ()
    lines = lines.filter(pc.is_in(lines["seq"], pa.chunked_array(seqs)))
    objects: Counter[tuple[str, ...]] = parse_irregular(reader.con, lines, files, cells)
    enough = max(FREQUENT, lines.num_rows // 100)
    return [path for path, number in objects.items() if number >= enough]


# Lines that may be JSON objects which the engine reads correctly.
_PLAIN = "starts_with(text, '{{') AND NOT contains(text, '\\u0000') AND NOT ({doubts})"


def _parse_known(
    reader: LineReader,
    lines: pa.Table,
    doubts: tuple[str, str],
    shapes: Shapes,
    files: CellWriter,
    cells: ParsedCells,
) -> tuple[pa.Table, list[pa.Array]]:
    """Parses the lines of known shapes; returns the other lines, and the `seq` of those whose reading is in doubt.

    Nearly all lines are JSON, so the engine checks for it only after it has met a line that is not.
    """
    known = shapes.known()
    while known:
        valid = () if shapes.all_json else ("NOT json_valid(text)",)
        plain = _PLAIN.format(doubts=" OR ".join((*valid, *doubts)))
        made = ParsedCells()
        try:
            found = _parse_regular(reader, lines, plain, known, shapes, files, made)
        except (duckdb.InvalidInputException, UnicodeDecodeError):  # the latter if its text quotes bytes not in UTF-8
            made.delete()
            if not shapes.all_json:
                raise
            shapes.all_json = False
        else:
            cells.extend(made)
            return found
    return lines, []


def _probe(
    reader: LineReader, lines: pa.Table, doubts: tuple[str, str], shapes: Shapes
) -> tuple[dict[str, RegularShape], pa.Table]:
    """Returns the regular shapes among some lines, and the other lines (`seq`, `shape`)."""
    lenient, deep = doubts
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
    reader: LineReader,
    lines: pa.Table,
    plain: str,
    known: Mapping[str, RegularShape],
    shapes: Shapes,
    files: CellWriter,
    cells: ParsedCells,
) -> tuple[pa.Table, list[pa.Array]]:
    """Writes the cells of the lines that match `plain` and have known shapes, in one statement.

    Returns the other lines, and the `seq` of those whose reading is in doubt.
    """
    query = shapes.query(known.values())
    known_shapes = pa.table({"shape": list(known), "has_nulls": [bool(shape.nulls) for shape in known.values()]})
    irregular = f"(irregular OR {has_long_key(files.key_bytes)})"
    select = f"SELECT {select_columns(query.extras, irregular)} FROM ({query.sql(plain)})"
    reader.read(lines, known_shapes)
    written = files.messages(reader.con, select, query.extras, cells, reader.copy)
    file = engine.parquet_files([written.path])
    doubted = (
        reader.con.execute(f"SELECT seq FROM {file} WHERE irregular").to_arrow_table()["seq"].chunks
        if written.irregular
        else []
    )
    if written.rows == lines.num_rows:
        return lines.slice(0, 0), doubted
    read = reader.con.execute(f"SELECT seq FROM {file}").to_arrow_table()["seq"]
    return lines.filter(pc.invert(pc.is_in(lines["seq"], read))), doubted


# A line that shows whether anything can be read at all. No file has a negative number.
HARMLESS_SEQ = -1
_HARMLESS_LINE = (
    b'{"type":"track","event":"Email Opened","messageId":"m","userId":"u","receivedAt":"2019-03-04T05:06:07.412Z",'
    b'"properties":{"a":1}}\n'
)
_HARMLESS = pa.table(
    {"seq": pa.array([HARMLESS_SEQ]), "text": pa.array([_HARMLESS_LINE], pa.large_binary()).cast(pa.large_string())}
)


def _may_need_much(lines: pa.Table) -> bool:
    """Whether these are several lines, or one so large that the memory may not suffice for it."""
    return bool(lines.num_rows > 1 or lines.nbytes >= LARGE_LINE)


def _unreadable(lines: pa.Table, error: Exception) -> Reject:
    seq, text = lines["seq"][0].as_py(), lines["text"].cast(pa.large_binary())[0].as_py()
    return Reject(seq // LINES_PER_FILE, seq % LINES_PER_FILE, "unreadable", engine.error_line(error), text)


def number_lines(lines: pa.Table) -> pa.Table:
    """Returns lines with their numbers in the load, as `seq` and `text`.

    The text can be any bytes: the engine's `json_valid` finds what is not UTF-8.
    """
    seq = pc.add(pc.multiply(lines["file"].cast(pa.int64()), LINES_PER_FILE), lines["line"])
    return pa.table({"seq": seq, "text": lines["text"].cast(pa.large_string(), safe=False)})


# Text that is not JSON, but that the engine's reader accepts: trailing commas, and `nan` and `inf` in any case. (`NaN`,
# which is JSON to Python, is a number to no column.)
_LENIENT = r"regexp_matches(text, ',\s*[\]}]|(?i)[:\[,]\s*-?(nan|inf|infinity)\s*[,\]}]')"
# Objects and arrays that may nest too deeply. Counted in bytes, because `translate` invalidates the engine if a text is
# not UTF-8.
_MANY_BRACKETS = f"2 * strlen(text) - strlen(replace(text, '}}', '')) - strlen(replace(text, ']', '')) > {MAX_DEPTH}"


def doubt_conditions(text: pa.ChunkedArray) -> tuple[str, str]:
    """Returns SQL conditions for lines that the engine reads wrongly: too leniently, or nested too deeply.

    A condition is `false` if no line can match. That is decided from the bytes of all lines at once, because a pattern
    in the engine would take as long as reading all the JSON. The bytes before a comma or a closing bracket are enough:
    machine-made JSON has neither a comma, nor several blanks, nor `nan` and the like there, and few lines have so many
    brackets.
    """
    looks = [_look_at_ends(chunk) for chunk in text.chunks]
    lenient = any(loose for loose, _ in looks)
    deep = any(many for _, many in looks)
    return _LENIENT if lenient else "false", _MANY_BRACKETS if deep else "false"


# Bytes that end no value of machine-made JSON before a comma or a bracket, as white space, a comma and these names do.
_NAMES = (b"nan", b"inf", b"infinity")
_LOOSE_ENDS = np.isin(np.arange(256), [*range(33), *b",nfyNFY"])
_BEFORE_VALUES = np.isin(np.arange(256), [*range(33), *b":[,-"])


def _look_at_ends(lines: pa.LargeStringArray) -> tuple[bool, bool]:
    """Whether a value may end as none does in machine-made JSON, and whether a line has too many closing brackets."""
    if not len(lines):
        return False, False
    _, offsets, content = lines.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[lines.offset : lines.offset + len(lines) + 1]
    bytes_ = np.frombuffer(content, dtype=np.uint8)[bounds[0] : bounds[-1]]
    loose, found = False, [bounds[:0]]
    for start in range(0, len(bytes_), PIECE):
        piece = bytes_[start : start + PIECE]
        bracket = (piece | 0x20) == ord("}")  # 0x20 is what `]` lacks to be `}`
        ends = np.flatnonzero(bracket | (piece == ord(","))) + start
        loose_ends = ends[_LOOSE_ENDS.take(bytes_.take(ends - 1, mode="wrap"))]
        loose = loose or (bool(len(loose_ends)) and _is_loose(bytes_, loose_ends))
        found.append(np.flatnonzero(bracket) + start)
    per_line = np.diff(np.searchsorted(np.concatenate(found), bounds - bounds[0]))
    return loose, bool((per_line > MAX_DEPTH).any())


def _is_loose(bytes_: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> bool:
    """Whether a bracket at `ends` may come after a comma, or a comma or a bracket after a name; a blank may be between.

    Texts have many a comma after a blank or such letters ("Our city, your way"), and are no reason to look closer.
    """
    blank = bytes_.take(ends - 1, mode="wrap") <= ord(" ")
    last = bytes_.take(ends - blank - 1, mode="wrap")
    if ((last <= ord(" ")) | ((last == ord(",")) & (bytes_.take(ends) != ord(",")))).any():
        return True
    return any(_is_name(bytes_, ends - blank, name) for name in _NAMES)


def _is_name(bytes_: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], name: bytes) -> bool:
    """Whether one of the values that may end before `ends` is a name, in any case."""
    starts = ends - len(name)
    starts = starts[_BEFORE_VALUES.take(bytes_.take(starts - 1, mode="wrap"))]
    for at, letter in enumerate(name):
        starts = starts[(bytes_.take(starts + at, mode="wrap") | 0x20) == letter]
    return bool(len(starts))
