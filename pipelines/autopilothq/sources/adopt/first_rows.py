"""Reads the first rows of a file, which show the forms of its columns before any file is read completely."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ...projection import engine
from ...warehouses.duckdb_parts import BYTES_AT_ONCE, PAGE_BYTES, ROWS_AT_ONCE
from .avro import opened_avro
from .buffer import (
    BufferedRows,
    Source,
    avro_source,
    buffer_rows,
    decompressed_text,
    local_source,
    raising_archive_error,
)
from .csv_dialect import first_csv_rows
from .files import TableFile, unreadable_file
from .in_parts import check_length
from .wide_decimals import is_of_disk

FIRST_ROWS = 2_000
FIRST_BYTES = 1 << 20


def buffer_first_rows(
    con: duckdb.DuckDBPyConnection, file: TableFile, number: int, scratch: Path
) -> tuple[BufferedRows, Source]:
    """Buffers the first rows of a file; also returns their source. Raises ArchiveError if they cannot be read."""
    if file.format == "avro":
        return _first_records(con, file, number, scratch)
    part = Path(file.path)
    if file.format != "parquet":
        part = scratch / f"first-{number}.{file.format}"
        with raising_archive_error(file), _opened(file) as opened:
            text = decompressed_text(opened, file.path)
            is_csv = file.format == "csv"
            part.write_bytes(first_csv_rows(con, text, FIRST_BYTES, part)[0] if is_csv else _first_lines(text))
    elif file.fs is not None:
        part = scratch / f"first-{number}.parquet"
        _copy_rows(file, part)
    with raising_archive_error(file, part), TemporaryDirectory(dir=scratch) as copies:
        source = local_source(con, part, file, Path(copies))
        if file.format == "parquet":
            in_parts = partial(_few_rows, con, file, scratch / f"few-{number}.parquet", scratch)
            source = source._replace(sql=f"(FROM {source.sql} LIMIT {FIRST_ROWS})", in_parts=in_parts)
        return buffer_rows(con, source, number, file.table, scratch), source


def _first_records(
    con: duckdb.DuckDBPyConnection, file: TableFile, number: int, scratch: Path
) -> tuple[BufferedRows, Source]:
    with _opened(file) as opened, opened_avro(opened, file) as table:
        first = pa.Table.from_batches(_first_batches(table.rows), table.rows.schema)
        with engine.registered(con, avro_rows=first):
            source = avro_source(table)
            return buffer_rows(con, source, number, file.table, scratch), source


@contextmanager
def _opened(file: TableFile) -> Iterator[IO[bytes]]:
    with open(file.path, "rb") if file.fs is None else file.fs.open(file.path) as opened:
        yield opened


def _few_rows(con: duckdb.DuckDBPyConnection, file: TableFile, part: Path, scratch: Path) -> Generator[str]:
    """Yields SQL for a copy of the first rows of a Parquet file, with small row groups that fit into memory."""
    _copy_rows(file, part)
    yield local_source(con, part, file, scratch).sql


def _copy_rows(file: TableFile, part: Path) -> None:
    """Copies the first rows of a Parquet file to a file on this machine."""
    try:
        with _opened(file) as opened:
            rows = pq.ParquetFile(opened, buffer_size=PAGE_BYTES, pre_buffer=False)
            with pq.ParquetWriter(part, rows.schema_arrow) as first:
                for batch in _first_batches(rows.iter_batches(ROWS_AT_ONCE)):
                    first.write_table(pa.Table.from_batches([batch]))  # a batch by itself would not end its row group
    except (pa.ArrowException, OSError) as error:
        if is_of_disk(error):
            raise
        raise unreadable_file(file, error) from error


def _first_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yields the first FIRST_ROWS rows in batches; fewer rows if they are long."""
    rows = size = 0
    for batch in batches:
        yield batch[: FIRST_ROWS - rows]
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= FIRST_ROWS or size >= BYTES_AT_ONCE:
            return


def _first_lines(text: Iterator[bytes]) -> bytes:
    """Returns the first complete lines of a text: those that end within FIRST_BYTES, or else the first."""
    kept = b""
    for chunk in text:
        kept += chunk
        end = kept.rfind(b"\n", 0, FIRST_BYTES) + 1 or kept.find(b"\n") + 1
        if len(kept) >= FIRST_BYTES and end:
            return kept[:end]
        check_length(len(kept), 1)
    return kept
