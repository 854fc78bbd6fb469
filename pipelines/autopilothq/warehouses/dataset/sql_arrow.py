"""Reads the results of queries as Arrow, in the contract's types, from destinations that answer SQL."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from dlt.common.schema import TColumnSchema

from ...catalog import Type
from ...projection.engine import lacks_memory
from ...projection.types import ARROW
from ..dlt_internals import DatabaseException, SqlClientBase, TTableSchemaColumns
from ..duckdb_parts import LONG, MOST_ROWS, VECTOR, has_rowid, longest_texts, rowid_range, stored_column_names
from .sql_statements import UNTIMED
from .unfit import CALENDAR, EXPECTED, INFINITE, cell_text, unfit_error

CELLS_PER_READ = 40_000
BYTES_PER_READ = 16 << 20  # from a table with long texts
_PERSON_IDS = {"anonymous_id", "user_id"}
_NUMBERS = ("bigint", "double", "decimal")
_CHAR = 1042  # PostgreSQL's number of its type `char(n)`, which adds blanks to values
_ENDS = {datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)}
"""What PostgreSQL's driver makes of the infinities. They may also be times of their own."""
_BEYOND = """
    SELECT {cell}::text FROM ({sql}) AS rows_of({names})
    WHERE NOT {cell} BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00' LIMIT 1"""


def _read_query(
    client: SqlClientBase[Any], sql: str, table: str, schema: pa.Schema, kind: str
) -> Iterator[pa.RecordBatch]:
    """Yields the result of a query of a table in the types of a schema, in batches."""
    rows = max(CELLS_PER_READ // len(schema), 1)
    if kind == "postgres":
        yield from _read_postgres(client, sql, table, schema, rows)
        return
    with client.execute_query(sql) as cursor:
        for chunk in cursor.iter_arrow(chunk_size=rows):
            cells = [_fitted(column, field, table) for column, field in zip(chunk.columns, schema, strict=True)]
            yield from pa.table(cells, schema=schema).to_batches()


def _fitted(column: pa.ChunkedArray, field: pa.Field, table: str) -> pa.ChunkedArray:
    """Returns a column in the type of a field. Raises RunError with the first value that the type cannot hold."""
    try:
        return typed(column, field.type)
    except pa.ArrowInvalid:
        for number in range(len(column)):
            try:
                typed(column.slice(number, 1), field.type)
            except pa.ArrowInvalid as error:
                expected = EXPECTED.get(field.type, str(field.type))
                raise unfit_error(expected, f"{field.name} of {table}", cell_text(column[number])) from error
        raise


def selected(name: str, type_: pa.DataType, kind: str) -> str:
    """Returns SQL for a column that `read_table` reads as a type; `name` is quoted.

    dlt reports DuckDB's bit strings, intervals, nested values and so on as text, so DuckDB casts them to text.
    """
    return f"CAST({name} AS VARCHAR)" if kind == "duckdb" and pa.types.is_string(type_) else name


def read_table(
    client: SqlClientBase[Any], table: str, sql: str, schema: pa.Schema, kind: str
) -> Iterator[pa.RecordBatch]:
    """Yields columns of a table, which a query selects, in the types of a schema, in batches.

    DuckDB handles 2,048 rows at a time, however large they are, so fewer are selected from a table with long texts.
    """
    longest = _longest_row(client, table, schema) if kind == "duckdb" else 0
    if longest * VECTOR > LONG and has_rowid(stored_column_names(client.execute_sql, table)):
        yield from _read_in_parts(client, table, sql, schema, max(1, BYTES_PER_READ // longest))
    else:
        yield from _read_query(client, sql, table, schema, kind)


def _longest_row(client: SqlClientBase[Any], table: str, schema: pa.Schema) -> int:
    """Returns the most bytes that the texts of a row may have, by DuckDB's statistics of the table; 0 for a view."""
    texts = [client.escape_column_name(field.name) for field in schema if pa.types.is_string(field.type)]
    with suppress(DatabaseException):  # raised for a view
        return sum(longest_texts(client.execute_sql, table, texts).values()) if texts else 0
    return 0


def _read_in_parts(
    client: SqlClientBase[Any], table: str, sql: str, schema: pa.Schema, rows: int
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a DuckDB table, about BYTES_PER_READ at a time; `rows` is how many to read first."""
    start, last = rowid_range(client.execute_sql, table)
    while start <= last:
        part = f"{sql} WHERE rowid BETWEEN {start} AND {start + rows - 1}"
        try:
            batches = list(_read_query(client, part, table, schema, "duckdb"))
        except Exception as error:
            if rows == 1 or not lacks_memory(error):
                raise
            rows //= 2
            continue
        yield from batches
        start += rows
        size = sum(batch.nbytes for batch in batches)
        if size > BYTES_PER_READ:
            rows = max(1, rows // 2)
        elif size < BYTES_PER_READ // 2:
            rows = min(rows * 2, MOST_ROWS)


def _read_postgres(
    client: SqlClientBase[Any], sql: str, table: str, schema: pa.Schema, rows_at_once: int
) -> Iterator[pa.RecordBatch]:
    """Yields the result from a named cursor: without one the driver would hold all of it in memory."""
    is_checked = False
    with client.begin_transaction(), client.native_connection.cursor("autopilothq") as cursor:
        # The driver reads no time that is not within the years 1 to 9999 in the session's zone; dlt sets none.
        client.execute_sql(f"SET LOCAL TimeZone = 'UTC'; {UNTIMED}")
        cursor.execute(sql)
        while rows := _fetched(client, sql, table, schema, cursor, rows_at_once):
            codes = [column.type_code for column in cursor.description]
            columns = zip(zip(*rows, strict=True), schema.types, codes, strict=True)
            batch = pa.record_batch([_from_driver(*column) for column in columns], schema=schema)
            if not is_checked and any(map(_may_be_infinite, batch.columns)):
                _check_times(client, sql, table, schema)
                is_checked = True
            yield batch


def _fetched(
    client: SqlClientBase[Any], sql: str, table: str, schema: pa.Schema, cursor: Any, rows: int
) -> list[tuple[Any, ...]]:
    try:
        found: list[tuple[Any, ...]] = cursor.fetchmany(rows)
    except ValueError:  # the driver has no such year
        _check_times(client, sql, table, schema)
        raise
    return found


def _may_be_infinite(column: pa.Array) -> bool:
    return pa.types.is_timestamp(column.type) and not _ENDS.isdisjoint(pc.min_max(column).as_py().values())


def _check_times(client: SqlClientBase[Any], sql: str, table: str, schema: pa.Schema) -> None:
    """Raises RunError with a time that is beyond the driver's calendar, if a query of a table of PostgreSQL has one."""
    names = [f"c{number}" for number in range(len(schema))]
    for name, field in zip(names, schema, strict=True):
        if pa.types.is_timestamp(field.type):
            query = _BEYOND.format(cell=name, sql=sql, names=", ".join(names))
            for (value,) in client.execute_sql(query) or ():
                raise unfit_error(CALENDAR, f"{field.name} of {table}", value)


def _from_driver(column: tuple[Any, ...], type_: pa.DataType, code: int) -> pa.Array:
    """Returns the cells of a column as Arrow. The driver returns `numeric` as `Decimal`, `char(n)` with its blanks."""
    if pa.types.is_floating(type_):
        column = tuple(None if cell is None else float(cell) for cell in column)
    elif code == _CHAR:
        column = tuple(None if cell is None else cell.rstrip(" ") for cell in column)
    try:
        return pa.array(column, type_)
    except pa.ArrowTypeError:
        # dlt reports all types that it does not know as text, but the driver returns other objects for `real`, arrays,
        # ranges and so on.
        return _texts(column).cast(type_)


def _texts(cells: Iterable[Any]) -> pa.Array:
    """Returns values of any type as text."""
    return pa.array([None if cell is None else str(cell) for cell in cells], pa.string())


def typed(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """Returns a column cast to a type. Times without a zone count as UTC; SQLite returns them as text.

    Nanoseconds, which DuckDB may have, are left out. Raises ArrowInvalid if the type cannot hold a value.
    """
    if column.type == pa.timestamp("ns") and pc.any(pc.equal(pc.abs(column.cast(pa.int64())), INFINITE)).as_py():
        raise pa.ArrowInvalid("infinity")
    if pa.types.is_timestamp(type_) and pa.types.is_string(column.type):
        with suppress(pa.ArrowInvalid):  # raised for text with a zone
            column = column.cast(pa.timestamp(type_.unit))
    try:
        return column.cast(options=pc.CastOptions(type_, allow_time_truncate=True))
    except pa.ArrowNotImplementedError:  # DuckDB's lists, structs and intervals, which dlt reports as text
        return pa.chunked_array([_texts(column.to_pylist()).cast(type_)])


def contract_types(
    table: str, columns: TTableSchemaColumns, postgres_names: Mapping[tuple[str, str], tuple[str, str]] | None
) -> dict[str, Type]:
    """Returns the contract's types of columns, by lower-case name; columns of other types are left out.

    `postgres_names` has PostgreSQL's spelling of tables and columns, where it is known, by their names in lower case;
    other spellings of the same columns are left out. In PostgreSQL a `numeric` is a float. Ids of persons are text,
    even if somebody made them numbers.
    """
    types = {name: column.get("data_type") for name, column in columns.items()}
    if postgres_names is not None:
        types |= {name: "double" for name, of in types.items() if of == "decimal"}
        lower = {name: (table, name.lower()) for name in types}
        types = {name: of for name, of in types.items() if postgres_names.get(lower[name], lower[name])[1] == name}
    # Snowflake reports names in upper case; the contract's are in lower case. If a table has both, the latter counts.
    spelt = sorted(types, key=lambda name: name == name.lower())
    found = {name.lower(): types[name] for name in spelt}
    found |= {name: "text" for name in _PERSON_IDS & found.keys() if found[name] in _NUMBERS}
    return {name.lower(): of for name in types if (of := found[name.lower()]) in ARROW}


def is_zoned(column: TColumnSchema) -> bool:
    """Returns whether a column holds times with a time zone."""
    return column.get("data_type") == "timestamp" and column.get("timezone") is not False
