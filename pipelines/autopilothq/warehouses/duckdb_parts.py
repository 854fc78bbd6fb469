"""Rows with long texts, brought into DuckDB in parts of so many bytes, each in a transaction of its own.

DuckDB takes 2,048 rows at a time, however large they are: all their texts if it reads a table, or commits rows that
were inserted; those of one column if it writes them to the file. A part that is there already when it comes again, as
after a kill, changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .duckdb_pool import MERGED_GROUPS

VECTOR = 2048  # rows
LONG = 64 << 20  # bytes of so many rows, for which any limit that DuckDB works with has room
BYTES_AT_ONCE = 16 << 20  # bytes
ROWS_AT_ONCE = 16  # with a MiB each, as much as a line can have, they make a part
STAGED_ROWS = 128
PART_MEMORY = 450  # MB, for a part and for rows that are written to the file


def are_long(file: str) -> bool:
    """Returns whether the rows of a Parquet file are to be brought in parts."""
    rows = pq.read_metadata(file)
    size: int = sum(rows.row_group(number).total_byte_size for number in range(rows.num_row_groups))
    return bool(size > BYTES_AT_ONCE and size * VECTOR > LONG * rows.num_rows)


def cut_file(file: str) -> Iterator[pa.Table]:
    """Yields the rows of a Parquet file."""
    part, size = list[pa.RecordBatch](), 0
    with pq.ParquetFile(file, pre_buffer=False) as rows:  # else all that was read is kept
        for batch in rows.iter_batches(ROWS_AT_ONCE):
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
    settings = {"checkpoint_threshold": "128MB", MERGED_GROUPS: 0}
    before = [execute(f"SELECT current_setting('{name}')").fetchone()[0] for name in settings]
    try:
        for name, value in settings.items():
            execute(f"SET GLOBAL {name} = '{value}'")
        yield
    finally:
        for name, value in zip(settings, before, strict=True):
            execute(f"SET GLOBAL {name} = '{value}'")


def replace_rows(client: Any, table: str, rows: str, keys: Sequence[str]) -> None:
    """Inserts rows, given in SQL, into a table in place of those with the same keys, and of several only one."""
    key = ", ".join(map(client.escape_column_name, keys))
    with client.begin_transaction():
        client.execute_sql(f"DELETE FROM {table} WHERE ({key}) IN (SELECT ({key}) FROM {rows})")
        client.execute_sql(f"INSERT INTO {table} BY NAME SELECT DISTINCT ON ({key}) * FROM {rows}")


def replace_from_staging(client: Any, table: str, staged: str, keys: Sequence[str]) -> None:
    """Does what dlt's merge does with the staged rows of a table that has no hints for merging beyond its key."""
    [[start, last]] = client.execute_sql(f"SELECT coalesce(min(rowid), 0), coalesce(max(rowid), -1) FROM {staged}")
    while start <= last:
        part = f"(SELECT * FROM {staged} WHERE rowid BETWEEN {start} AND {start + STAGED_ROWS - 1})"
        replace_rows(client, table, part, keys)
        start += STAGED_ROWS
