"""The engine: DuckDB in this process with the macros that type values, and helpers that compose its SQL.

SQL of more than a few lines is in the `.sql` files next to this module: `script` reads a file that is run as a whole,
and `queries` a file of named statements.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

Batched = TypeVar("Batched")


@cache
def script(file: str) -> str:
    """Returns the text of a `.sql` file of this package."""
    return files(__package__).joinpath(file).read_text(encoding="utf-8")


@cache
def queries(file: str) -> Mapping[str, str]:
    """Returns the statements of a `.sql` file of this package by name; the line above each is `-- name: x`.

    Words in braces are for `str.format`: names of columns and tables, for which SQL has no parameters.
    """
    return statements(script(file))


def statements(text: str) -> Mapping[str, str]:
    """Returns the named statements in the text of a `.sql` file."""
    _, *parts = re.split(r"(?m)^-- name: (\w+)\n", text)
    return dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))


ALONE_MEMORY = 400  # MB for a thread that works alone: enough blocks for each column of the widest statement
COLUMN_MEMORY = 1.25  # MB that one more column can take: DuckDB counts a block as full, however little it holds
WIDE_TABLE = 150  # columns; the rows of a wider table can need more memory than a load usually has
BYTES = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}
"""How many bytes each unit of DuckDB's settings is."""
STREAMED = 8 << 20  # bytes of a part of a batch that is streamed into the engine
MACROS = script("macros.sql")
# Ids and emails are hardly ever repeated: a dictionary of them would cost more than all other work.
PARQUET = "FORMAT parquet, DICTIONARY_SIZE_LIMIT 1000"
# Compressing files that are read again at once would take a tenth of a load's processor time.
UNCOMPRESSED = "COMPRESSION uncompressed"
_QUOTED_SQL = re.compile(r"\n\s*LINE \d+: ")  # what follows is a line of the program's own statement


def connect(scratch: str | None, memory: int, threads: int) -> duckdb.DuckDBPyConnection:
    """Returns an engine with the macros; whatever exceeds `memory` (MB) spills into the folder `scratch`, if given."""
    con = duckdb.connect(":memory:")
    con.execute(f"SET memory_limit = '{memory}MB'")
    con.execute(f"SET threads = {threads}")
    con.execute("SET preserve_insertion_order = false")
    con.execute("SET enable_progress_bar = false")  # the program shows its own
    con.execute("SET GLOBAL TimeZone = 'UTC'")  # GLOBAL reaches cursors; the default is the machine's zone
    if scratch:
        con.execute(f"SET temp_directory = {literal(scratch + '/spill')}")
    con.execute(MACROS)
    return con


@contextmanager
def one_thread(execute: Callable[[str], Any], memory: int) -> Iterator[None]:
    """Limits an engine to one thread and gives it at least `memory` (MB) while the block runs.

    `execute` runs SQL in the engine. Fewer threads need less memory, because each has its own buffers for each column.
    """
    before = memory_limit(execute)
    [threads] = execute("SELECT current_setting('threads')").fetchone()
    needs_more = before < memory * 1_000_000
    try:
        execute("SET GLOBAL threads = 1")
        if needs_more:
            execute(f"SET GLOBAL memory_limit = '{memory}MB'")
        yield
    finally:
        execute(f"SET GLOBAL threads = {threads}")
        if needs_more:
            with suppress(duckdb.OutOfMemoryException):  # more is in use than before; that must not fail the block
                execute(f"SET GLOBAL memory_limit = '{before}B'")


def memory_limit(execute: Callable[[str], Any]) -> int:
    """Returns the memory (bytes) that an engine may use; `execute` runs SQL in it."""
    [limit] = execute("SELECT current_setting('memory_limit')").fetchone()
    number, _, unit = str(limit).partition(" ")
    return int((float(number) + 0.05) * BYTES[unit])  # DuckDB prints it truncated to one decimal


@contextmanager
def memory_for_columns(con: duckdb.DuckDBPyConnection, columns: int) -> Iterator[None]:
    """Gives an engine a single thread, and memory for rows of this many columns, while the block runs.

    Does nothing for fewer than WIDE_TABLE columns.
    """
    if columns < WIDE_TABLE:
        yield
        return
    with one_thread(con.execute, ALONE_MEMORY + int(COLUMN_MEMORY * columns)):
        yield


@contextmanager
def registered(con: duckdb.DuckDBPyConnection, **tables: pa.Table) -> Iterator[None]:
    """Lets SQL read these Arrow tables by their names while the block runs."""
    for name, table in tables.items():
        con.register(name, table)
    try:
        yield
    finally:
        for name in tables:
            con.unregister(name)


def read_stored(
    con: duckdb.DuckDBPyConnection,
    batches: Iterable[pa.RecordBatch],
    sql: str,
    parameters: Mapping[str, object] | None = None,
) -> None:
    """Runs `sql`, which reads the batches as `stored`; does nothing if there are none."""
    with streamed(con, batches) as has_any:
        if has_any:
            con.execute(sql, parameters)


@contextmanager
def streamed(con: duckdb.DuckDBPyConnection, batches: Iterable[pa.RecordBatch]) -> Iterator[bool]:
    """Lets SQL read the batches as `stored`, once, while the block runs; yields whether there are any batches.

    While the block runs, joins hold their right sides in memory, as written. DuckDB estimates a stream at one row, so
    it would otherwise hold the stream.
    """
    stream = itertools.chain.from_iterable(map(split_batch, batches))
    first = next(stream, None)
    if first is None:
        yield False
        return
    reader = pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], stream))
    with registered(con, stored=reader), _joined_as_written(con):
        yield True


def join_as_written(con: duckdb.DuckDBPyConnection) -> None:
    """Makes joins hold their right sides in memory, in the order in which they are written."""
    con.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")


@contextmanager
def _joined_as_written(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Does the same as `join_as_written`, but only while the block runs."""
    [(before,)] = con.execute("SELECT current_setting('disabled_optimizers')").fetchall()
    join_as_written(con)
    try:
        yield
    finally:
        con.execute(f"SET disabled_optimizers = {literal(before)}")


def split_batch(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yields a batch in parts of at most STREAMED bytes or one row: the engine takes 2,048 rows of a part at once."""
    if batch.nbytes <= STREAMED or batch.num_rows < 2:
        yield batch
        return
    half = batch.num_rows // 2
    yield from split_batch(batch.slice(0, half))
    yield from split_batch(batch.slice(half))


def lacks_memory(error: Exception) -> bool:
    """Returns whether DuckDB, or dlt because of DuckDB, raised an error because memory ran out."""
    cause = getattr(error, "dbapi_exception", error)
    if isinstance(cause, duckdb.TransactionException):  # all that DuckDB reports if memory runs out during a commit
        return bool(re.search("Failed to commit: .*(allocate|pin) ", str(cause)))
    return isinstance(cause, duckdb.OutOfMemoryException)


def count(con: duckdb.DuckDBPyConnection, source: str) -> int:
    """Returns how many rows a table, or a query in parentheses, has."""
    [(found,)] = con.execute(f"SELECT count(*) FROM {source}").fetchall()
    return int(found)


def parquet_files(paths: Iterable[str], **options: str) -> str:
    """Returns the SQL call of `read_parquet` for these files; `options` are its named parameters.

    Example: `parquet_files(["a.parquet"], union_by_name="true")`.
    """
    listed = ", ".join(map(glob_literal, paths))
    return f"read_parquet([{listed}]{''.join(f', {name} = {value}' for name, value in options.items())})"


def copy_statement(query: str, path: str) -> str:
    """Returns the statement that writes a query's rows to a Parquet file, uncompressed because it is read at once."""
    return f"COPY ({query}) TO {literal(path)} ({PARQUET}, {UNCOMPRESSED})"


def batched(items: Iterable[Batched], size: int) -> Iterator[tuple[Batched, ...]]:
    """Yields the items in groups of at most `size`."""
    remaining = iter(items)
    while group := tuple(itertools.islice(remaining, size)):
        yield group


def printable(line: bytes) -> str:
    """Returns a line as text that any warehouse can store: NUL and bytes that are not UTF-8 become escapes."""
    return line.rstrip(b"\r\n").decode(errors="backslashreplace").replace("\0", "\\x00")


def error_line(error: BaseException) -> str:
    """Returns an error's type and message on one line of at most 300 characters, without SQL that DuckDB quotes."""
    message = _QUOTED_SQL.split(str(error))[0] if isinstance(error, duckdb.Error) else str(error)
    text = " ".join(f"{type(error).__name__}: {message}".split())
    return printable(text.encode(errors="backslashreplace"))[:300]


def text_table(rows: Sequence[Mapping[str, object]], names: Iterable[str]) -> pa.Table:
    """Returns rows as an Arrow table with these columns, all of them text except `seq`."""
    fields = [(name, pa.int64() if name == "seq" else pa.string()) for name in names]
    return pa.Table.from_pylist(rows, pa.schema(fields))


def name(identifier: str) -> str:
    """Returns a quoted SQL name."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Returns a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Iterable[str]) -> str:
    """Returns texts as an SQL list literal."""
    return "[" + ", ".join(map(literal, texts)) + "]"


def is_one_of(column: str, texts: Iterable[str]) -> str:
    """Returns the SQL condition that a column holds one of these texts.

    Example: `is_one_of("a", []) == "false"`.
    """
    listed = ", ".join(map(literal, texts))
    return f"{column} IN ({listed})" if listed else "false"


def coalesce(values: Sequence[str]) -> str:
    """Returns the SQL of the first of these values that is not null."""
    return values[0] if len(values) == 1 else f"coalesce({', '.join(values)})"


def glob_literal(path: str) -> str:
    """Returns an SQL literal that names this one file where DuckDB expects a glob, as in `read_parquet`.

    Example: `glob_literal("a[1]/b.parquet") == "'a[[]1]/b.parquet'"`.
    """
    if any(sign in path for sign in "[*?"):
        # In a glob a backslash separates folders, so only a range of characters can match it: `[[-]]` is `[`, `\`, `]`.
        path = path.translate({ord("["): "[[]", ord("*"): "[*]", ord("?"): "[?]", ord("\\"): "[[-]]"})
    return literal(path)
