"""What the destination holds already, as far as a load must know it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import dlt
import pyarrow as pa
from dlt import Schema
from dlt.common.schema import TColumnSchema
from dlt.destinations import postgres

from ..catalog import AUDIT, SUPPRESSIONS, TRACKS, Type
from ..projection import ExistingTables
from ..projection.types import ARROW
from ..segment.identity import NOBODY, HashedIds
from . import suppression_key
from .dlt_internals import (
    LOADS_TABLE_NAME,
    VERSION_TABLE_NAME,
    DestinationUndefinedEntity,
    SqlClientBase,
    SqlJobClientBase,
    StorageSchemaInfo,
    TTableSchemaColumns,
    get_columns_names_with_prop,
)
from .hints import SOURCE, capabilities_of
from .query import QueryRows, for_reading, run_query
from .selection import Selected, from_text

CELLS_PER_READ = 200_000


class Loaded(NamedTuple):
    """What is loaded of a file: by which load, how many lines it stored, and what of them (None: all)."""

    load_id: str
    stored: int
    selected: Selected | None


class Dataset:
    """The tables of a pipeline's dataset. It changes nothing, but where copies must go."""

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        self._pipeline = pipeline
        self._known: dict[str, dict[str, Type]] = {}
        self.widths: dict[str, int] = {}
        """How many columns each table has that was asked for, whatever their types."""
        self.zoned: set[str] = set()
        """The tables among them whose times have a time zone."""
        self.schema_name = SOURCE
        """The schema that has the tables: a resource that is run without its source is in the pipeline's own."""

    def loaded_files(self) -> dict[tuple[str, str], "Loaded"]:
        """The files, with their versions, of which a complete load stored something."""
        there = self.tables([AUDIT.name]).get(AUDIT.name)
        if there is None:
            return {}
        complete = self.complete_loads()
        columns = [name for name in ("file", "version", "load_id", "stored", "tables") if name in there]
        return {
            (row["file"], row["version"]): Loaded(row["load_id"], row["stored"], from_text(row.get("tables")))
            for batch in self.read(AUDIT.name, columns)
            for row in batch.to_pylist()
            if row["load_id"] in complete
        }

    def audit_row(self, file: str, version: str) -> dict[str, Any] | None:
        """The row of `_audit` of a file and its version, None where there is none."""
        there = self.tables([AUDIT.name]).get(AUDIT.name, {})
        columns = [column.name for column in AUDIT.columns if column.name in there]
        if not set(AUDIT.key) <= set(columns):
            return None
        with self._pipeline.sql_client() as client:
            found = client.execute_sql(
                f"SELECT {', '.join(map(client.escape_column_name, columns))}"
                f" FROM {client.make_qualified_table_name(AUDIT.name)} WHERE {client.escape_column_name('file')} = %s"
                f" AND {client.escape_column_name('version')} = %s",
                file,
                version,
            )
        return (
            dict.fromkeys(column.name for column in AUDIT.columns) | dict(zip(columns, found[0], strict=True))
            if found
            else None
        )

    def answers(self, query: str) -> Iterator[QueryRows]:
        """The rows of a query of the user's own, some at a time. Raises InvalidQuery where it is something else."""
        with run_query(for_reading(self._pipeline), query) as (_, rows):
            yield from rows

    def complete_loads(self) -> set[str]:
        """The ids of dlt's loads that were not killed; `_dlt_loads` has them."""
        if LOADS_TABLE_NAME not in self.tables([LOADS_TABLE_NAME]):
            return set()
        with self._pipeline.sql_client() as client:
            loads, load_id = client.make_qualified_table_name(LOADS_TABLE_NAME), client.escape_column_name("load_id")
            return {row[0] for row in client.execute_sql(f"SELECT {load_id} FROM {loads} WHERE status = 0") or ()}

    def forgotten(self) -> HashedIds:
        """Returns the hashed ids of forgotten persons. Raises SuppressionKeyError without the key that some need."""
        if SUPPRESSIONS.name not in self.tables([SUPPRESSIONS.name]):
            return NOBODY
        batches = self.read(SUPPRESSIONS.name, ["salt", "id"])
        return suppression_key.hashes((row["salt"], row["id"]) for batch in batches for row in batch.to_pylist())

    def first_event_but_of(self, library: str) -> datetime | None:
        """The time of the first event that another library sent, None where there is none."""
        if "context_library_name" not in self.tables([TRACKS.name]).get(TRACKS.name, {}):
            return None
        with self._pipeline.sql_client() as client:
            name, time = map(client.escape_column_name, ("context_library_name", "timestamp"))
            found = client.execute_sql(
                f"SELECT min({time}) FROM {client.make_qualified_table_name(TRACKS.name)}"
                f" WHERE {name} IS NULL OR {name} <> %s",
                library,
            )
        return _utc(found[0][0]) if found and found[0][0] else None

    def drop_copies(self) -> None:
        """Leaves one row where there are several of one key.

        A load that was killed goes on in the next run of dlt. A file that was loaded, but not yet noted as loaded, is
        then loaded into staging once more, and what merges from there inserts every copy.
        """
        schema = self._schema()
        if schema is None or capabilities_of(self._pipeline).supports_transactions is False:
            return
        there = self.tables(schema.data_table_names())
        with self._pipeline.sql_client() as client:
            for name in there:
                keys = get_columns_names_with_prop(schema.tables[name], "primary_key")
                self._drop_copies(client, name, [client.escape_column_name(key) for key in keys])

    def _schema(self) -> Schema | None:
        """What the destination says its tables are: on a new machine the pipeline may not know, if all were killed."""
        with self._pipeline.destination_client() as client:
            if not isinstance(client, SqlJobClientBase) or not client.is_storage_initialized():
                return None
            if VERSION_TABLE_NAME not in self.tables([VERSION_TABLE_NAME]):
                return None
            return stored_schema(client, self.schema_name)

    @staticmethod
    def _drop_copies(client: SqlClientBase[Any], name: str, keys: Sequence[str]) -> None:
        table, copies = client.make_qualified_table_name(name), client.make_qualified_table_name("_copies")
        twice = f"SELECT {', '.join(keys)} FROM {table} GROUP BY {', '.join(keys)} HAVING count(*) > 1"
        if not client.execute_sql(f"SELECT count(*) FROM ({twice}) t")[0][0]:  # type: ignore[index]
            return
        same = " AND ".join(f"t.{key} = c.{key}" for key in keys)
        client.execute_sql(f"DROP TABLE IF EXISTS {copies}")
        client.execute_sql(f"CREATE TABLE {copies} AS SELECT DISTINCT t.* FROM {table} t JOIN ({twice}) c ON {same}")
        with client.begin_transaction():
            client.execute_sql(f"DELETE FROM {table} AS t WHERE EXISTS (SELECT 1 FROM {copies} c WHERE {same})")
            client.execute_sql(f"INSERT INTO {table} SELECT * FROM {copies}")
        client.execute_sql(f"DROP TABLE {copies}")

    def tables(self, names: Sequence[str]) -> ExistingTables:
        """Those of the tables that are there, with the types of their columns."""
        with self._pipeline.destination_client() as client:
            if not isinstance(client, SqlJobClientBase) or not client.is_storage_initialized():
                return {}
            found = dict(client.get_storage_tables(list(dict.fromkeys(names))))
        unbounded = isinstance(self._pipeline.destination, postgres)
        self._known |= {name: _known_types(columns, unbounded) for name, columns in found.items() if columns}
        self.widths |= {name: len(columns) for name, columns in found.items()}
        self.zoned |= {name for name, columns in found.items() if any(map(_is_zoned, columns.values()))}
        return {name: self._known[name] for name in names if name in self._known}

    def read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of a table, streamed."""
        schema = pa.schema([(column, ARROW[self._known[table][column]]) for column in columns])
        rows = max(CELLS_PER_READ // len(columns), 1)
        with self._pipeline.sql_client() as client:
            select = ", ".join(map(client.escape_column_name, columns))
            sql = f"SELECT {select} FROM {client.make_qualified_table_name(table)}"
            if isinstance(self._pipeline.destination, postgres):
                yield from _read_postgres(client, sql, schema, rows)
                return
            with client.execute_query(sql) as cursor:
                for chunk in cursor.iter_arrow(chunk_size=rows):
                    cells = [_typed(column, field.type) for column, field in zip(chunk.columns, schema, strict=True)]
                    yield from pa.table(cells, schema=schema).to_batches()


def stored_schema(client: SqlJobClientBase, name: str) -> Schema | None:
    """Returns what dlt has made in a dataset by the schema of that name, None where dlt does not know any.

    Then it makes whatever is missing by itself.
    """
    try:
        found = cast(StorageSchemaInfo | None, client.get_stored_schema(name))
    except DestinationUndefinedEntity:
        return None
    return Schema.from_dict(json.loads(found.schema)) if found else None


def _read_postgres(
    client: SqlClientBase[Any], sql: str, schema: pa.Schema, rows_at_once: int
) -> Iterator[pa.RecordBatch]:
    """The answer to a query, which the server keeps: the driver would hold the whole of it in memory."""
    with client.begin_transaction(), client.native_connection.cursor("autopilothq") as cursor:
        cursor.execute(sql)
        while rows := cursor.fetchmany(rows_at_once):
            cells = zip(*rows, strict=True)
            yield pa.record_batch(
                [_from_driver(column, field.type) for column, field in zip(cells, schema, strict=True)], schema=schema
            )


def _from_driver(column: tuple[Any, ...], type_: pa.DataType) -> pa.Array:
    """Cells as the driver gives them; those of `numeric` are decimals."""
    if pa.types.is_floating(type_):
        column = tuple(None if cell is None else float(cell) for cell in column)
    return pa.array(column, type_)


def _typed(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """The cells in the catalogue's type. Times without a zone are UTC: SQLite has them as text, MySQL as they are."""
    if pa.types.is_timestamp(type_) and pa.types.is_string(column.type):
        with suppress(pa.ArrowInvalid):  # where they have a zone
            column = column.cast(pa.timestamp(type_.unit))
    return column.cast(type_)


def _utc(found: datetime | str) -> datetime:
    time = datetime.fromisoformat(found) if isinstance(found, str) else found
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _known_types(columns: TTableSchemaColumns, unbounded: bool) -> dict[str, Type]:
    """The contract's types of columns; `unbounded`: where PostgreSQL's `numeric` has no bounds it is a float."""
    types = {name: column.get("data_type") for name, column in columns.items()}
    if unbounded:
        types |= {name: "double" for name, of in types.items() if of == "decimal" and "precision" not in columns[name]}
    # Snowflake tells names in upper case; the contract's are in lower case.
    return {name.lower(): of for name, of in types.items() if of in ARROW}


def _is_zoned(column: TColumnSchema) -> bool:
    return column.get("data_type") == "timestamp" and column.get("timezone") is not False
