"""Writes each table of a dataset to a Parquet file."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from ..catalog import Type
from ..warehouses.dataset import Dataset, tables_of
from ..warehouses.hints import arrow_schema
from .target import ExportTarget

ROWS_PER_GROUP = 100_000


class ExportedTables(NamedTuple):
    """What was exported: rows by table, and what was left out."""

    rows: dict[str, int]
    left_out: list[str]


def export_parquet(dataset: Dataset, target: ExportTarget) -> ExportedTables:
    """Writes each table, except views, dlt's own tables and locks, to a file `<table>.parquet` of a target.

    Returns the number of rows of each, and the columns that were left out.
    """
    rows, left_out = {}, []
    views = dataset.views()
    for name, columns in tables_of(dataset).items():
        if name in views:
            continue
        types = dataset.tables([name]).get(name, {})
        others = sorted(columns.keys() - types.keys())
        if others:
            left_out.append(f"{name}: {', '.join(others)}")
        if types:
            rows[name] = _write(dataset, target, name, types)
    target.publish()
    return ExportedTables(rows, left_out)


def _write(dataset: Dataset, target: ExportTarget, name: str, types: Mapping[str, Type]) -> int:
    count = 0
    with target.create(f"{quote(name, safe='')}.parquet") as out:
        writer: pq.ParquetWriter | None = None
        for table in _grouped(dataset.read(name, list(types))):
            writer = writer or pq.ParquetWriter(out, table.schema, compression="zstd")
            writer.write_table(table)
            count += len(table)
        if writer is None:
            writer = pq.ParquetWriter(out, arrow_schema(types))
        writer.close()
    return count


def _grouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yields rows in tables, each of which becomes a row group: of at least ROWS_PER_GROUP rows, except the last."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= ROWS_PER_GROUP:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)
