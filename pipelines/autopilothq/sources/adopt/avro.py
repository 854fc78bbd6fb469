"""Reads Avro files as Arrow, a batch of records at a time, with the types of the schema in the file.

BigQuery writes TIMESTAMP as `timestamp-micros`, NUMERIC as `decimal`, and DATETIME, DATE and TIME as text that it marks
with `sqlType`, or as logical types if the export asks for them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from importlib.util import find_spec
from itertools import islice
from typing import IO, Any, NamedTuple
from uuid import UUID

import pyarrow as pa

from ...errors import NotSupported
from ...extras import install
from ...projection import engine
from ...segment.json_text import JsonNumber, JsonObject, to_json
from ...utc import to_utc
from .columns import Form
from .files import TableFile, unreadable_file

RECORDS_AT_ONCE = 5_000
RECORDS_AT_FIRST = 50


class AvroColumn(NamedTuple):
    """A column of an Avro file: its form, its types in the engine and in Arrow, and a function that converts values.

    `template` is SQL for a value in its form, in which `{}` is the column.
    """

    form: Form
    sql: str
    arrow: pa.DataType
    value: Callable[[Any], object] | None = None
    template: str = "{}"


class AvroTable(NamedTuple):
    """The columns of an Avro file, and a reader of its rows."""

    columns: Mapping[str, AvroColumn]
    rows: pa.RecordBatchReader


@contextmanager
def opened_avro(opened: IO[bytes], file: TableFile) -> Iterator[AvroTable]:
    """Yields the table in an open Avro file; the engine can read its rows, once.

    Raises NotSupported if a library is missing, and ArchiveError if the file cannot be read, even if this only shows
    inside the block.
    """
    if find_spec("fastavro") is None:
        raise _no_library(file, "", "fastavro")
    import fastavro

    failed: list[Exception] = []
    try:
        reader: Any = fastavro.reader(opened)
        columns = {str(each["name"]): _column(each["type"]) for each in reader.writer_schema["fields"]}
    except Exception as error:
        raise unreadable_file(file, error) from error
    if reader.codec == "snappy" and find_spec("cramjam") is None:
        raise _no_library(file, " with Snappy", "cramjam")
    schema = pa.schema([(name, column.arrow) for name, column in columns.items()])
    try:
        yield AvroTable(columns, pa.RecordBatchReader.from_batches(schema, _batches(reader, columns, schema, failed)))
    except Exception as error:
        if failed:  # the error of the reader's consumer does not say what failed
            raise unreadable_file(file, failed[0]) from error
        raise


def _no_library(file: TableFile, packed: str, library: str) -> NotSupported:
    return NotSupported(
        f"Expected a library that reads Avro{packed} for {file.url}, but {library} is not installed.\n"
        f"Install it: {install('avro')}, or export the table as Parquet."
    )


def _batches(
    records: Iterable[Mapping[str, Any]], columns: Mapping[str, AvroColumn], schema: pa.Schema, failed: list[Exception]
) -> Iterator[pa.RecordBatch]:
    left, number = iter(records), min(RECORDS_AT_FIRST, RECORDS_AT_ONCE)
    try:
        while part := list(islice(left, number)):
            arrays = [pa.array(_values(part, name, column), column.arrow) for name, column in columns.items()]
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            yield from engine.split_batch(batch)
            usual = engine.STREAMED * len(part) // max(1, batch.nbytes)  # fewer, if the last records were long
            number = max(1, min(RECORDS_AT_ONCE, 10 * number, usual))
    except Exception as error:
        failed.append(error)
        raise


def _values(records: Iterable[Mapping[str, Any]], name: str, column: AvroColumn) -> list[Any]:
    make, values = column.value, [record[name] for record in records]
    return values if make is None else [None if value is None else make(value) for value in values]


# ---- types -----------------------------------------------------------------------------------------------------------


def _column(schema: Any) -> AvroColumn:
    """Returns the column for a type of the Avro schema; it is JSON text if it is nested or has several types."""
    if isinstance(schema, list):
        others = [each for each in schema if each != "null"]
        return _column(others[0]) if len(others) == 1 else _JSON
    if isinstance(schema, str):
        return _PLAIN.get(schema, _JSON)
    of, logical = schema["type"], schema.get("logicalType") or schema.get("sqlType") or ""
    return _LOGICAL.get(str(logical).lower()) or _column(of)


def _text(value: object) -> str:
    """Returns a value of a type that JSON lacks as text. Bytes that are not UTF-8 are escaped."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def json_of_value(value: object) -> str:
    """Returns a value of Python as JSON text. Decimals keep their digits."""
    return to_json(_tree(value))


def _tree(value: object) -> object:
    """Converts a value, and all values nested in it, to types that `to_json` accepts."""
    if isinstance(value, dict):
        return JsonObject((str(key), _tree(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return [_tree(inner) for inner in value]
    if isinstance(value, Decimal):
        return JsonNumber(f"{value:f}")
    if isinstance(value, datetime):
        return f"{to_utc(value).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    if isinstance(value, bytes | date | time | UUID):
        return _text(value)
    return value


_JSON = AvroColumn("json", "JSON", pa.string(), json_of_value)
_TEXT = AvroColumn("text", "VARCHAR", pa.string())
_MADE_TEXT = AvroColumn("text", "VARCHAR", pa.string(), _text)
_TIME = AvroColumn("timestamp", "TIMESTAMP WITH TIME ZONE", pa.timestamp("us", "UTC"), to_utc)
_PLAIN = {
    "string": _TEXT,
    "enum": _TEXT,
    "bytes": _MADE_TEXT,
    "fixed": _MADE_TEXT,
    "boolean": AvroColumn("bool", "BOOLEAN", pa.bool_()),
    **dict.fromkeys(("int", "long"), AvroColumn("bigint", "BIGINT", pa.int64())),
    **dict.fromkeys(("float", "double"), AvroColumn("double", "DOUBLE", pa.float64())),
    "null": _TEXT,
}
_LOGICAL = {
    **dict.fromkeys((f"{where}timestamp-{unit}" for where in ("", "local-") for unit in ("micros", "millis")), _TIME),
    "datetime": AvroColumn("timestamp", "TIMESTAMP", pa.string(), None, "text_moment({})"),  # text without a zone
    "decimal": _JSON._replace(sql="DECIMAL"),
    "date": _MADE_TEXT._replace(sql="DATE"),
    **dict.fromkeys(("time-micros", "time-millis", "time"), _MADE_TEXT._replace(sql="TIME")),
    "uuid": _MADE_TEXT._replace(sql="UUID"),
}
