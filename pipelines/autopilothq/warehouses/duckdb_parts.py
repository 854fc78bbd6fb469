"""Rows with long texts, brought into DuckDB in parts of so many bytes, each in a transaction of its own.

DuckDB takes 2,048 rows at a time, however large they are: all their texts if it reads a table, or commits rows that
were inserted; those of one column if it writes them to the file. A part that is there already when it comes again, as
after a kill, changes nothing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..projection import engine
from .duckdb_pool import MERGED_GROUPS

VECTOR = 2048  # rows
LONG = 64 << 20  # bytes of so many rows, for which any limit that DuckDB works with has room
BYTES_AT_ONCE = 16 << 20  # bytes
PAGE_BYTES = 1 << 16  # read at a time from a column of Parquet; else a group of rows is read at once
ROWS_AT_ONCE = 16  # with a MiB each, as much as a line can have, they make a part
STAGED_ROWS = 128
MOST_ROWS = 8192  # of a table with long texts that are taken at a time, if they have short ones
WRITTEN_SOON = {"checkpoint_threshold": "128MB", MERGED_GROUPS: 0}  # DuckDB's settings
PART_MEMORY = 450  # MB, for a part and for rows that are written to the file


def are_long(file: str) -> bool:
    """Returns whether the rows of a Parquet file are to be brought in parts."""
    rows = pq.read_metadata(file)
    size: int = sum(rows.row_group(number).total_byte_size for number in range(rows.num_row_groups))
    return bool(size > BYTES_AT_ONCE and size * VECTOR > LONG * rows.num_rows)


def cut_file(file: str) -> Iterator[pa.Table]:
    """Yields the rows of a Parquet file."""
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=PAGE_BYTES) as rows:  # else all that was read is kept
        yield from cut_batches(rows.iter_batches(ROWS_AT_ONCE))


def cut_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yields the rows of small batches."""
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
def written_soon(execute: Callable[[str], Any]) -> Iterator[None]:
    """Has DuckDB write rows to the database's file as they are committed, while the block runs.

    Until then they are in memory. dlt lets a gigabyte of them wait, more than DuckDB usually may use.
    """
    before = [execute(f"SELECT current_setting('{name}')").fetchone()[0] for name in WRITTEN_SOON]
    try:
        for name, value in WRITTEN_SOON.items():
            execute(f"SET GLOBAL {name} = '{value}'")
        yield
    finally:
        for name, value in zip(WRITTEN_SOON, before, strict=True):
            execute(f"SET GLOBAL {name} = '{value}'")


def replace_rows(client: Any, table: str, rows: str, keys: Sequence[str]) -> None:
    """Inserts rows, given in SQL, into a table in place of those with the same keys, and of several only one."""
    key = ", ".join(map(client.escape_column_name, keys))
    with client.begin_transaction():
        client.execute_sql(f"DELETE FROM {table} WHERE ({key}) IN (SELECT ({key}) FROM {rows})")
        client.execute_sql(f"INSERT INTO {table} BY NAME SELECT DISTINCT ON ({key}) * FROM {rows}")


def replace_from_staging(
    client: Any, table: str, staged: str, keys: Sequence[str], order: tuple[str, str] | None
) -> None:
    """Does what dlt's merge does with the staged rows of a table that has no hints for merging beyond key and order."""
    position = ""
    if order:
        key, (column, direction) = ", ".join(map(client.escape_column_name, keys)), order
        position = f"row_number() OVER (PARTITION BY {key} ORDER BY {client.escape_column_name(column)} {direction})"
    if not has_row_numbers(columns_of(client.execute_sql, staged)):
        replace_rows(client, table, f"(FROM {staged} QUALIFY {position} = 1)" if position else staged, keys)
        return
    if position:
        others = f"SELECT number FROM (SELECT rowid AS number, {position} AS position FROM {staged}) WHERE position > 1"
        client.execute_sql(f"DELETE FROM {staged} WHERE rowid IN ({others})")
    [[start, last]] = client.execute_sql(f"SELECT coalesce(min(rowid), 0), coalesce(max(rowid), -1) FROM {staged}")
    while start <= last:
        part = f"(SELECT * FROM {staged} WHERE rowid BETWEEN {start} AND {start + STAGED_ROWS - 1})"
        replace_rows(client, table, part, keys)
        start += STAGED_ROWS


def longest_texts(ask: Callable[[str], Any], table: str, columns: Sequence[str]) -> dict[str, int]:
    """Returns how many bytes a text has at most, by column, as the statistics of a table tell; empty for no rows.

    `ask` returns the rows of a query. The names are quoted.
    """
    [[last]] = ask(f"SELECT coalesce(max(rowid), -1) FROM {table}")
    statistics = ", ".join(f"stats({column})" for column in columns)
    lengths = dict[str, int]()
    for row in ask(f"SELECT {statistics} FROM {table} WHERE rowid = {last}"):
        for column, found in zip(columns, row, strict=True):
            lengths[column] = sum(map(int, re.findall(r"Max String Length: (\d+)", str(found))))
    return lengths


def has_row_numbers(columns: Sequence[str]) -> bool:
    """Returns whether `rowid` is DuckDB's own number of a row: no column of the table has that name."""
    return all(column.lower() != "rowid" for column in columns)


def columns_of(ask: Callable[[str], Any], table: str) -> list[str]:
    """Returns the names of a table's columns."""
    return [name for name, *_ in ask(f"DESCRIBE {table}")]


def cut_table(ask: Callable[[str], Any], table: str) -> Iterator[str]:
    """Yields conditions in SQL that take all rows of a table, in their order: few at a time if they have long texts."""
    columns = columns_of(ask, table)
    lengths = longest_texts(ask, table, list(map(engine.name, columns))) if has_row_numbers(columns) else {}
    longest = sum(lengths.values())
    if longest * VECTOR <= LONG:
        yield "true"
        return
    size = " + ".join(f"coalesce(strlen({column}::VARCHAR), 0)" for column, most in lengths.items() if most)
    [[start, last]] = ask(f"SELECT min(rowid), max(rowid) FROM {table}")
    rows = max(1, BYTES_AT_ONCE // longest)
    while start <= last:
        part = f"rowid BETWEEN {start} AND {start + rows - 1}"
        found = _bytes_of(ask, f"SELECT coalesce(sum({size}), 0) FROM {table} WHERE {part}")
        if rows > 1 and (found is None or found > BYTES_AT_ONCE):
            rows //= 2
            continue
        yield part
        start += rows
        if found is not None and found < BYTES_AT_ONCE // 2:
            rows = min(rows * 2, MOST_ROWS)


def _bytes_of(ask: Callable[[str], Any], query: str) -> int | None:
    """Returns the number that a query finds; None if there is no memory for its rows."""
    try:
        [[found]] = ask(query)
    except Exception as error:
        if not engine.lacks_memory(error):
            raise
        return None
    return int(found)
