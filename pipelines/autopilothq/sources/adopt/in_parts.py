"""Reads rows of files a few at a time, if the engine has no memory for the 2,048 that it otherwise takes at once."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ...projection import engine
from ...warehouses.duckdb_parts import BYTES_AT_ONCE, LONG, ROWS_AT_ONCE, VECTOR, split_batches, split_file
from .csv_quotes import detected_signs

SHORTEST_OBJECT = 1 << 20  # bytes, the least maximum size that is set; the engine reserves memory for two such objects
LONGEST_OBJECT = 64 << 20  # bytes
LONGEST_LINE = 2 * LONGEST_OBJECT  # the engine reads at most two objects of the maximum size at once
Contents = Callable[[], Iterable[bytes]]
"""Reads the text of a file in chunks."""


class UnreadableLine(Exception):
    """A line that is no JSON, or is longer, or nested deeper, than the engine can read."""


def check_length(size: int, number: int) -> None:
    """Raises UnreadableLine if a line with `size` bytes is too long; `number` is the line's number in its file."""
    if size > LONGEST_LINE:
        raise UnreadableLine(f"line {number} is longer than {LONGEST_LINE >> 20} MB; each line must be one object")


def check_row_length(size: int) -> None:
    """Raises UnreadableLine if a CSV row with `size` bytes is too long for the engine."""
    if size > LONGEST_LINE:
        raise UnreadableLine(f"a row is longer than {LONGEST_LINE >> 20} MB; check its line ends and quotes")


def write_in_parts(con: duckdb.DuckDBPyConnection, parts: Iterable[str], select: str, first: int, path: str) -> None:
    """Writes cells of the rows of `parts` (SQL) into a Parquet file with small row groups.

    The first cell is a row's number in its query; in the file, `first` and the number of earlier rows are added to it.
    """
    con.execute("SET enable_caching_operators = false")
    with ExitStack() as opened, engine.one_thread(con.execute, engine.ALONE_MEMORY):
        written = None
        for part in parts:
            rows = con.execute(f"SELECT {first} + {select} FROM {part}").to_arrow_reader(ROWS_AT_ONCE)
            written = written or opened.enter_context(pq.ParquetWriter(path, rows.schema, use_dictionary=False))
            for group in split_batches(rows):
                written.write_table(group)
                first += group.num_rows


def parquet_in_parts(con: duckdb.DuckDBPyConnection, local: Path, scratch: Path, read: str) -> Generator[str]:
    """Yields SQL for the rows of a copy of a file with small row groups. `read` is SQL that reads the file `{}`.

    Raises OutOfMemoryException if Arrow cannot copy the columns with their types.
    """
    path = scratch / "few.parquet"
    try:
        with pq.ParquetFile(local) as file, pq.ParquetWriter(path, file.schema_arrow) as groups:
            for rows in split_file(str(local)):
                groups.write_table(rows)
        original, copy = (read.format(engine.glob_literal(str(each))) for each in (local, path))
        if con.execute(f"DESCRIBE FROM {original}").fetchall() != con.execute(f"DESCRIBE FROM {copy}").fetchall():
            raise pa.ArrowNotImplementedError("other types")
        yield copy
    except pa.ArrowNotImplementedError as error:
        raise duckdb.OutOfMemoryException(f"Out of Memory Error: 2,048 rows of {local} do not fit") from error
    finally:
        path.unlink(missing_ok=True)


def json_in_parts(contents: Contents, read: Callable[..., str]) -> Generator[str]:
    """Yields SQL for all rows of JSON lines. `read` returns SQL that reads objects of at most `size` bytes."""
    longest = size = 0
    for chunk in contents():
        first, *others = chunk.split(b"\n")
        longest = max(longest, size + len(first), *map(len, others))
        size = len(others[-1]) if others else size + len(first)
    yield read(size=max(SHORTEST_OBJECT, longest + 1))


def csv_in_parts(con: duckdb.DuckDBPyConnection, contents: Contents, piece: Path, read: str) -> Generator[str]:
    """Yields SQL for pieces of a file, each with the header line. `read` is SQL that reads the file `{}`."""
    delimiters = ""
    try:
        for text in _pieces(contents()):
            piece.write_bytes(text)
            delimiters = delimiters or _delimiters(con, piece)
            yield f"{read.format(engine.glob_literal(str(piece))).removesuffix(')')}, {delimiters})"
    finally:
        piece.unlink(missing_ok=True)


def has_long_rows(contents: Contents) -> bool:
    """Returns whether the first rows of a CSV file are so long that the engine may have no memory for 2,048 of them."""
    piece = next(_pieces(contents()), b"")
    if len(piece) < BYTES_AT_ONCE:
        return False
    end = 0
    for _ in range(len(piece) * VECTOR // LONG):
        end = row_end(piece, end) or len(piece)
    return end >= len(piece)


def _delimiters(con: duckdb.DuckDBPyConnection, piece: Path) -> str:
    """Returns the options for the delimiters and quotes of a CSV file, as detected in its first piece.

    The quotes, and those within quotes, are the usual ones if only later pieces have any.
    """
    delimiter, quote, escape = detected_signs(con, engine.glob_literal(str(piece)))
    signs = {"delim": delimiter, "quote": quote or '"', "escape": escape or quote or '"'}
    return ", ".join(f"{name} = {engine.literal(sign)}" for name, sign in signs.items())


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the text of a CSV file in pieces of whole rows, each with the header line."""
    kept, header = b"", b""
    for chunk in chunks:
        kept += chunk
        if len(kept) < BYTES_AT_ONCE:
            continue
        if not (end := last_row_end(kept)):
            check_row_length(len(kept))
            continue
        yield header + kept[:end]
        header = header or kept[: row_end(kept, 0)]
        kept = kept[end:]
    if kept:
        yield header + kept


def last_row_end(text: bytes) -> int:
    """Returns the end of the last complete row of a CSV text; 0 if none is complete. Rows do not end within quotes."""
    end, quotes = len(text), text.count(b'"')
    while (newline := text.rfind(b"\n", 0, end)) >= 0:
        quotes -= text.count(b'"', newline, end)
        if quotes % 2 == 0:
            return newline + 1
        end = newline
    return 0


def row_end(text: bytes, start: int) -> int:
    """Returns the end of the row that begins at `start`, 0 if it is not complete."""
    end, quotes = start, 0
    while newline := text.find(b"\n", end) + 1:
        quotes += text.count(b'"', end, newline)
        end = newline
        if quotes % 2 == 0:
            return end
    return 0
