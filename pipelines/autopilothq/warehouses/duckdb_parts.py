"""Loads rows with long texts into DuckDB in parts of some 16 MB, each in a transaction of its own.

DuckDB handles 2,048 rows at a time, however large they are. It holds all of their texts in memory when it reads a table
or commits inserted rows, and those of one column when it writes rows to the file. A part that is loaded again, for
example after a kill, changes nothing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..projection import engine
from .duckdb_pool import MERGED_GROUPS

VECTOR = 2048  # rows that DuckDB handles at a time
LONG = 64 << 20  # bytes; a vector of rows that is no larger fits into any memory limit that DuckDB works with
BYTES_AT_ONCE = 16 << 20  # bytes of a part
PAGE_BYTES = 1 << 16  # bytes read at a time from a column of Parquet, instead of a whole row group
ROWS_AT_ONCE = 16  # rows that make a part if each has a MiB, the most that a line can have
STAGED_ROWS = 128  # rows of a part of a staging table
MOST_ROWS = 8192  # the most rows in a part, where the rows of a table with long texts are short
EARLY_CHECKPOINTS = {"checkpoint_threshold": "128MB", MERGED_GROUPS: 0}  # DuckDB's settings
PART_MEMORY = 450  # MB, for a part and for rows that are written to the file


def file_has_rows(file: str) -> bool:
    """Returns whether a Parquet file has any row."""
    return bool(pq.read_metadata(file).num_rows)


def file_has_long_rows(file: str) -> bool:
    """Returns whether the rows of a Parquet file are so long that they have to be loaded in parts."""
    rows = pq.read_metadata(file)
    size: int = sum(rows.row_group(number).total_byte_size for number in range(rows.num_row_groups))
    return bool(size > BYTES_AT_ONCE and size * VECTOR > LONG * rows.num_rows)


def split_file(file: str) -> Iterator[pa.Table]:
    """Yields the rows of a Parquet file in parts of about BYTES_AT_ONCE bytes."""
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=PAGE_BYTES) as rows:  # the defaults keep all that was read
        yield from split_batches(rows.iter_batches(ROWS_AT_ONCE))


def split_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yields the rows of small batches in parts of about BYTES_AT_ONCE bytes."""
    part, size = list[pa.RecordBatch](), 0
    for batch in batches:
        part.append(batch)
        size += batch.nbytes
        if size >= BYTES_AT_ONCE:
            yield pa.Table.from_batches(part)
            part, size = [], 0
    if part:
        yield pa.Table.from_batches(part)


@contextmanager
def checkpoint_early(execute: Callable[[str], Any]) -> Iterator[None]:
    """Makes DuckDB write rows to the database's file as they are committed, while the block runs.

    Until then they are in memory. dlt lets a gigabyte of them wait, which is more than DuckDB may usually use.
    """
    before = [execute(f"SELECT current_setting('{name}')").fetchone()[0] for name in EARLY_CHECKPOINTS]
    try:
        for name, value in EARLY_CHECKPOINTS.items():
            execute(f"SET GLOBAL {name} = '{value}'")
        yield
    finally:
        for name, value in zip(EARLY_CHECKPOINTS, before, strict=True):
            execute(f"SET GLOBAL {name} = '{value}'")


def replace_rows(client: Any, table: str, rows: str, keys: Sequence[str]) -> None:
    """Inserts `rows`, a relation in SQL, each key once, in place of the rows of the table that have the same keys."""
    key = ", ".join(map(client.escape_column_name, keys))
    with client.begin_transaction():
        client.execute_sql(f"DELETE FROM {table} WHERE ({key}) IN (SELECT ({key}) FROM {rows})")
        client.execute_sql(f"INSERT INTO {table} BY NAME SELECT DISTINCT ON ({key}) * FROM {rows}")


def replace_from_staging(
    client: Any, table: str, staged: str, keys: Sequence[str], order: tuple[str, str] | None
) -> None:
    """Merges staged rows as dlt does, in parts, for a table whose only hints for merging are its key and an order."""
    position = ""
    if order:
        key, (column, direction) = ", ".join(map(client.escape_column_name, keys)), order
        position = f"row_number() OVER (PARTITION BY {key} ORDER BY {client.escape_column_name(column)} {direction})"
    if not has_rowid(stored_column_names(client.execute_sql, staged)):
        replace_rows(client, table, f"(FROM {staged} QUALIFY {position} = 1)" if position else staged, keys)
        return
    if position:
        others = f"SELECT number FROM (SELECT rowid AS number, {position} AS position FROM {staged}) WHERE position > 1"
        client.execute_sql(f"DELETE FROM {staged} WHERE rowid IN ({others})")
    start, last = rowid_range(client.execute_sql, staged)
    while start <= last:
        part = f"(SELECT * FROM {staged} WHERE rowid BETWEEN {start} AND {start + STAGED_ROWS - 1})"
        replace_rows(client, table, part, keys)
        start += STAGED_ROWS


def longest_texts(execute: Callable[[str], Any], table: str, columns: Sequence[str]) -> dict[str, int]:
    """Returns the bytes of the longest text by column, from a table's statistics; an empty dict if it has no rows.

    `execute` returns the rows of a query. The names of table and columns are quoted.
    """
    _, last = rowid_range(execute, table)
    statistics = ", ".join(f"stats({column})" for column in columns)
    lengths = dict[str, int]()
    for row in execute(f"SELECT {statistics} FROM {table} WHERE rowid = {last}"):
        for column, found in zip(columns, row, strict=True):
            lengths[column] = sum(map(int, re.findall(r"Max String Length: (\d+)", str(found))))
    return lengths


def rowid_range(execute: Callable[[str], Any], table: str) -> tuple[int, int]:
    """Returns the first and the last `rowid` of a table; 0 and -1 if it has no rows."""
    [[first, last]] = execute(f"SELECT coalesce(min(rowid), 0), coalesce(max(rowid), -1) FROM {table}")
    return first, last


def has_rowid(columns: Sequence[str]) -> bool:
    """Returns whether `rowid` is DuckDB's pseudocolumn, because no column of the table has that name."""
    return all(column.lower() != "rowid" for column in columns)


def stored_column_names(execute: Callable[[str], Any], table: str) -> list[str]:
    """Returns the names of a table's columns."""
    return [name for name, *_ in execute(f"DESCRIBE {table}")]


def split_table(execute: Callable[[str], Any], table: str) -> Iterator[str]:
    """Yields SQL conditions that select all rows of a table in order: few at a time if they have long texts."""
    columns = stored_column_names(execute, table)
    lengths = longest_texts(execute, table, list(map(engine.name, columns))) if has_rowid(columns) else {}
    longest = sum(lengths.values())
    if longest * VECTOR <= LONG:
        yield "true"
        return
    size = " + ".join(f"coalesce(strlen({column}::VARCHAR), 0)" for column, most in lengths.items() if most)
    start, last = rowid_range(execute, table)
    rows = max(1, BYTES_AT_ONCE // longest)
    while start <= last:
        part = f"rowid BETWEEN {start} AND {start + rows - 1}"
        found = _bytes_of(execute, f"SELECT coalesce(sum({size}), 0) FROM {table} WHERE {part}")
        if rows > 1 and (found is None or found > BYTES_AT_ONCE):
            rows //= 2
            continue
        yield part
        start += rows
        if found is not None and found < BYTES_AT_ONCE // 2:
            rows = min(rows * 2, MOST_ROWS)


def _bytes_of(execute: Callable[[str], Any], query: str) -> int | None:
    """Returns the number that a query returns; None if its rows do not fit into memory."""
    try:
        [[found]] = execute(query)
    except Exception as error:
        if not engine.lacks_memory(error):
            raise
        return None
    return int(found)
