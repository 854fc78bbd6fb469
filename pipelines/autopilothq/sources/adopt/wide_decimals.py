"""Copies Parquet files with decimals of more than 38 digits, which the engine would turn into other numbers."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ...warehouses.duckdb_parts import split_file
from .avro import json_of_value

_OF_BUCKETS = (ConnectionError, FileNotFoundError, PermissionError, TimeoutError)


def copied_with_wide_decimals(local: Path, copy: Path) -> dict[str, str]:
    """Copies a Parquet file if it has decimals of more than 38 digits; their columns are JSON text in the copy.

    Returns these columns, with their types in SQL; empty if nothing was copied.
    """
    try:
        schema = pq.read_schema(local)
    except (pa.ArrowException, OSError):
        return {}  # Arrow lacks a type, or the file is damaged, which the engine will report
    wide = [number for number, field in enumerate(schema) if _has_wide(field.type)]
    if not wide:
        return {}
    types = {schema[number].name: _sql_type(schema[number].type) for number in wide}
    for number in wide:
        schema = schema.set(number, pa.field(schema[number].name, pa.json_()))
    try:
        with pq.ParquetWriter(copy, schema) as copied:
            for rows in split_file(str(local)):
                columns = [_as_json(column) if number in wide else column for number, column in enumerate(rows.columns)]
                copied.write_table(pa.table(columns, schema))
    except (pa.ArrowException, OSError) as error:
        if is_of_disk(error):
            raise
        raise duckdb.InvalidInputException(str(error)) from error  # as the engine raises for other files
    return types


def is_of_disk(error: Exception) -> bool:
    """Returns whether an error is about a disk or a network, not about the content of a file.

    Errors of buckets may have no number, such as a time-out or a denied permission.
    """
    return isinstance(error, OSError) and (error.errno is not None or isinstance(error, _OF_BUCKETS))


def _sql_type(of: pa.DataType) -> str:
    return f"DECIMAL({of.precision},{of.scale})" if pa.types.is_decimal256(of) else "JSON"


def _has_wide(of: pa.DataType) -> bool:
    return pa.types.is_decimal256(of) or any(_has_wide(of.field(number).type) for number in range(of.num_fields))


def _as_json(column: pa.ChunkedArray) -> pa.ExtensionArray:
    texts = [None if value is None else json_of_value(value) for value in column.to_pylist(maps_as_pydicts="lossy")]
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))
