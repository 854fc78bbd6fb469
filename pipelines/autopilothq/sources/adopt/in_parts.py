"""Reads rows of files a few at a time, if the engine has no memory for the 2,048 that it otherwise takes at once."""

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ...projection import engine
from ...warehouses.duckdb_parts import ROWS_AT_ONCE, split_batches, split_file

SHORTEST_OBJECT = 1 << 20  # bytes, the least maximum size that is set; the engine reserves memory for two such objects
LONGEST_OBJECT = 64 << 20  # bytes
LONGEST_LINE = 2 * LONGEST_OBJECT  # the engine reads at most two objects of the maximum size at once
Contents = Callable[[], Iterable[bytes]]
"""Reads the text of a file in chunks."""


class UnreadableLine(Exception):
    """A line of JSON, or a row of CSV, is invalid, or longer or more deeply nested than the engine can read."""


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
    """Yields SQL for all rows of JSON lines, once. `read` returns SQL that reads objects of at most `size` bytes."""
    longest = size = 0
    for chunk in contents():
        first, *others = chunk.split(b"\n")
        longest = max(longest, size + len(first), *map(len, others))
        size = len(others[-1]) if others else size + len(first)
    yield read(size=max(SHORTEST_OBJECT, longest + 1))
