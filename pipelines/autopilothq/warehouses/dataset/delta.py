"""The tables of a dataset in a lake: Delta tables, and dlt's own tables as files next to them.

DuckDB in process reads them; the Delta library writes. Each write is one commit to one table: it is visible as a whole
or not at all, and readers of an earlier version continue with that version.
"""

import json
import logging
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from ...catalog import TRACKS, Table, Type
from ...errors import CannotMerge
from ...extras import install, is_own_import_error
from ...projection import ExistingTables, engine
from ...projection.context import declared_types
from ...projection.types import ARROW
from ..delta import ENGINE, warn_incomplete
from ..dlt_internals import (
    FILENAME_SEPARATOR,
    LOADS_TABLE_NAME,
    VERSION_TABLE_NAME,
    DestinationUndefinedEntity,
    FilesystemClient,
)
from ..hints import arrow_schema, check_lake_path
from ..query_check import check_query
from .interface import Columns, Dataset, NativeType, Row

QueryRows = Sequence[Sequence[Any]]
ROWS_PER_BATCH = 10_000
# DuckDB's optimizers that push conditions down to Arrow. They are disabled, because Arrow cannot compare values with
# the Delta library's text ("no kernel matching input types (string, string_view)").
PUSHDOWN = "filter_pushdown,join_filter_pushdown,top_n"
MOST_FILES = 25  # a table with more is compacted: each commit adds a file, and all later reads open it
# DuckDB's names for the contract's types; DuckDB reads the tables.
DELTA_TYPES: dict[Type, str] = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
}
_TYPES = {of: name for name, of in ARROW.items()}
# dlt's own tables, which are JSON files in a lake, with the columns that this module reads.
_DLT_TABLES: dict[str, dict[str, Type]] = {
    LOADS_TABLE_NAME: {"load_id": "text", "status": "bigint", "inserted_at": "timestamp"},
    VERSION_TABLE_NAME: {"schema_name": "text", "inserted_at": "timestamp", "schema": "text"},
}

_log = logging.getLogger(__name__)


class DeltaDataset(Dataset):
    """The Delta tables of a dataset in a bucket or a folder."""

    kind = "filesystem"
    dialect = "duckdb"

    def __init__(self, client: FilesystemClient) -> None:
        super().__init__()
        self.client = client
        self.name = client.dataset_name
        self.target = self.title = f"{self.kind} {client.config}, dataset {self.name}"
        self._table = cache(lambda name: open_table(client, name))
        self._columns: dict[str, Columns] | None = None

    # ---- metadata ----------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Returns whether the dataset was ever loaded into."""
        return bool(self.client.is_storage_initialized())

    def columns(self) -> dict[str, Columns]:
        """Returns the columns of all Delta tables, and those of dlt's tables that are read here."""
        if self._columns is None:
            self._columns = {
                name: {column: NativeType(DELTA_TYPES[of], of) for column, of in types.items()}
                for name, types in _DLT_TABLES.items()
            }
            for name in table_folders(self.client):
                if name not in self._columns and (table := self._table(name)) is not None:
                    fields = pa.schema(table.schema().to_arrow())
                    self._columns[name] = {field.name: _native(field.type) for field in fields}
        return self._columns

    def tables(self, names: Sequence[str]) -> ExistingTables:
        """Returns the tables among these that exist, with the contract's types of their columns."""
        found: dict[str, dict[str, Type]] = {}
        # Most of a load's tables may not exist, and each would cost a request.
        for name in _with_folders(self.client, names) if len(names) > 1 else names:
            if (table := self._table(name)) is not None:
                fields = pa.schema(table.schema().to_arrow())
                self.widths[name] = len(fields)
                found[name] = {field.name: _TYPES[field.type] for field in fields if field.type in _TYPES}
        return found

    def complete_loads(self) -> set[str]:
        """Returns the ids of dlt's completed loads: each leaves a file that is named after it."""
        names = (posixpath.splitext(posixpath.basename(file))[0] for file in dlt_files(self.client, LOADS_TABLE_NAME))
        return {name.rpartition(FILENAME_SEPARATOR)[2] for name in names}

    # ---- reading -----------------------------------------------------------------------------------------------------

    def read(self, table: str, columns: Sequence[str], ids: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        """Yields columns of a table that `tables` has found, in the contract's types."""
        found = self._table(table)
        fields = pa.schema(found.schema().to_arrow())
        schema = pa.schema([fields.field(column) for column in columns])
        yield from pa.RecordBatchReader.from_stream(found.scan(columns=list(columns))).cast(schema)

    def stream(self, before: str, table: str, after: str = "", values: Sequence[Any] = ()) -> Iterator[Row]:
        """Yields the rows of the statement `{before} {table} {after}`, whose `%s` are the values."""
        text = _filled(f"{before} {quoted(table)} {after}", lambda: "?")
        with self._reader([table]) as con:
            cursor = con.execute(text, list(values))
            while rows := cursor.fetchmany(ROWS_PER_BATCH):
                yield from rows

    @contextmanager
    def answer(self, sql: str) -> Iterator[tuple[list[str], Iterator[QueryRows]]]:
        """Yields a query's column names, and its rows in batches. Raises InvalidQuery unless it only reads."""
        check_query(sql, self.dialect)
        mentioned = [name for name in self.columns() if name in sql.lower()]
        with self._reader(mentioned) as con:
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {engine.name(self.name)}")
            for name in mentioned:
                view = f"{engine.name(self.name)}.{engine.name(name)}"
                con.execute(f"CREATE VIEW {view} AS FROM temp.{engine.name(name)}")
            con.execute("SET enable_external_access = false")
            con.execute("SET lock_configuration = true")
            cursor = con.execute(sql)
            names = [column[0] for column in cursor.description or ()]
            yield names, iter(lambda: cursor.fetchmany(ROWS_PER_BATCH), [])

    def quoted(self, table: str, column: str) -> str:  # noqa: ARG002
        """Returns a column's quoted name for a statement."""
        return quoted(column)

    def text_type(self) -> str:
        """Returns the type of text."""
        return DELTA_TYPES["text"]

    # ---- writing -----------------------------------------------------------------------------------------------------

    def create(self, table: Table) -> None:
        """Creates a table of the catalogue, and the dataset's folder, if they are missing."""
        from deltalake import DeltaTable

        if self._table(table.name) is None:
            schema = arrow_schema(declared_types(table))
            location, options = _location_of(self.client, table.name)
            self.client.initialize_storage()
            DeltaTable.create(location, schema, mode="ignore", storage_options=options)
            self._table.cache_clear()
            self._columns = None

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Inserts rows, with a cell for each column of the catalogue's table."""
        from deltalake import write_deltalake

        schema = arrow_schema(declared_types(table))
        cells = zip(*rows, strict=True) if rows else ((),) * len(schema)
        arrays = [pa.array(column, field.type) for column, field in zip(cells, schema, strict=True)]
        write_deltalake(self._current(table.name), pa.table(arrays, schema=schema), mode="append", schema_mode="merge")

    def update(self, table: str, changes: Mapping[str, Any], where: str, values: Sequence[Any]) -> None:
        """Sets columns of the rows that meet a condition."""
        sets = {quoted(column): _delta_literal(value) for column, value in changes.items()}
        self._current(table).update(updates=sets, predicate=bound(where, values))

    def delete(self, table: str, where: str, values: Sequence[Any]) -> None:
        """Deletes the rows that meet a condition."""
        self._current(table).delete(bound(where, values))

    def compact(self, table: str) -> None:
        """Compacts a table that has many files."""
        compact_tables([table], self._current)

    def drop_copies(self) -> None:
        """Does nothing: a file is written to a Delta table as a whole or not at all, and merged by its key."""

    # ---- Delta tables ------------------------------------------------------------------------------------------------

    def _current(self, name: str) -> Any:
        """Returns the table at its newest version."""
        table = self._table(name)
        table.update_incremental()
        return table

    @contextmanager
    def _reader(self, names: Sequence[str]) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yields a DuckDB connection that has these tables as they are now."""
        with TemporaryDirectory() as folder, duckdb.connect(config=ENGINE | {"temp_directory": folder}) as con:
            con.execute("SET TimeZone = 'UTC'")
            con.execute(f"SET disabled_optimizers = {engine.literal(PUSHDOWN)}")
            for name in names:
                rows = _dlt_table(self.client, name) if name in _DLT_TABLES else _rows(name, self._current(name))
                con.register(name, rows)
            yield con


def table_folders(client: FilesystemClient) -> list[str]:
    """Returns the names of a dataset's tables, and of other folders next to them."""
    if not client.is_storage_initialized():
        return []
    parent, folder = _folder_of(client, TRACKS.name)
    before, _, after = folder.rpartition(TRACKS.name)
    ours = (name for name in _folders(client, parent) if name.startswith(before) and name.endswith(after))
    return sorted(filter(None, (name.removeprefix(before).removesuffix(after) for name in ours)))


def _with_folders(client: FilesystemClient, names: Sequence[str]) -> list[str]:
    """Returns those of the tables that have a folder."""
    found = {name: _folder_of(client, name) for name in names}
    listed = {parent: set(_folders(client, parent)) for parent in {parent for parent, _ in found.values()}}
    return [name for name, (parent, folder) in found.items() if folder in listed[parent]]


def _folder_of(client: FilesystemClient, table: str) -> tuple[str, str]:
    """Returns the parent's path and the name of a table's folder, which dlt's setting `layout` determines."""
    parent, folder = posixpath.split(client.get_table_prefix(table).rstrip("/"))
    return parent, folder


def _folders(client: FilesystemClient, parent: str) -> list[str]:
    """Returns the names of the folders in a folder; none if it does not exist."""
    try:
        listed = client.fs_client.ls(parent, detail=True, refresh=True)
    except FileNotFoundError:
        return []
    return [posixpath.basename(entry["name"].rstrip("/")) for entry in listed if entry["type"] != "file"]


def dlt_files(client: FilesystemClient, table: str) -> list[str]:
    """Returns the paths of the files of one of dlt's own tables."""
    if not client.is_storage_initialized():
        return []
    try:
        return list(client.list_table_files(table))
    except DestinationUndefinedEntity:
        return []


def _dlt_table(client: FilesystemClient, name: str) -> pa.Table:
    """Returns one of dlt's own tables, with only the columns that are read here."""
    columns = _DLT_TABLES[name]
    files = dlt_files(client, name)
    # In one call, because a bucket's client then fetches many at a time. An empty list would be an error.
    texts = client.fs_client.cat(files) if files else {}
    rows = [row for path, text in texts.items() if (row := _dlt_row(path, text))]
    return pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows], arrow_schema(columns))


def _dlt_row(path: str, text: bytes) -> dict[str, Any] | None:
    """Returns the row in one of dlt's files; logs a warning and returns None if a kill cut the file off."""
    try:
        row: dict[str, Any] = json.loads(text)
        return row | {"inserted_at": datetime.fromisoformat(row["inserted_at"])}
    except (ValueError, TypeError, KeyError):
        warn_incomplete(path)
        return None


def _location_of(client: FilesystemClient, name: str) -> tuple[str, dict[str, str]]:
    """Returns the URL of a Delta table and the storage options of its credentials.

    On a new machine dlt does not know the tables of loads that were killed, so they are found by their folder.
    Raises CannotMerge if the Delta library is not installed, or cannot open a folder of this name.
    """
    try:
        import deltalake  # noqa: F401 - dlt's module may have been imported before it was removed

        from ..dlt_internals import deltalake_storage_options
    except ImportError as error:
        if is_own_import_error(error):
            raise
        raise CannotMerge(
            f"Delta tables need the package deltalake, which is not installed.\nInstall it: {install('deltalake')}"
        ) from error
    config = client.config
    check_lake_path(config)
    options = deltalake_storage_options(config.credentials, config.deltalake_storage_options)
    return client.get_open_table_location("delta", name), options


def open_table(client: FilesystemClient, name: str) -> Any:
    """Returns a Delta table, or None if there is none. Raises the library's error with the table's name."""
    location, options = _location_of(client, name)
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    if not DeltaTable.is_deltatable(location, options):
        return None
    try:
        return DeltaTable(location, storage_options=options)
    except DeltaError as error:
        raise type(error)(f"The table {name} cannot be opened: {error}") from None


def _rows(name: str, table: Any) -> Any:
    """Returns the rows of a Delta table. Raises the library's error with the table's name."""
    from deltalake.exceptions import DeltaProtocolError

    try:
        return table.to_pyarrow_dataset()
    except DeltaProtocolError as error:
        raise DeltaProtocolError(f"The table {name} cannot be opened: {error}") from None


def required_columns(client: FilesystemClient, name: str) -> list[str]:
    """Returns the columns of a Delta table that must not be null; none if there is no such table."""
    table = open_table(client, name)
    return [] if table is None else [field.name for field in table.schema().fields if not field.nullable]


def has_many_files(table: Any) -> bool:
    """Returns whether a Delta table has so many files that it should be compacted."""
    return len(table.file_uris()) > MOST_FILES


def compact_tables(names: Iterable[str], opened: Callable[[str], Any]) -> None:
    """Merges many small files of tables into few, and deletes removed files that a table need not keep any longer.

    `opened` returns the Delta table with a name, None if there is none. A table keeps removed files for
    `delta.deletedFileRetentionDuration`, by default a week. Failures are only logged, because a table that is not
    compacted is merely slower to read and larger.
    """
    from deltalake.exceptions import DeltaError

    failed: dict[str, Exception] = {}
    for name in names:
        try:
            if (table := opened(name)) is None:
                continue
            if has_many_files(table):
                table.optimize.compact(max_concurrent_tasks=1)  # each task holds rows in memory
                table.create_checkpoint()  # without it, all later reads replay up to a hundred commits
            table.vacuum(dry_run=False)
        except (DeltaError, OSError) as error:
            failed[name] = error
    if failed:
        why = next(iter(failed.values()))
        _log.warning("Could not compact Delta tables, which are slow to read now: %s; %s", ", ".join(failed), why)


def quoted(column: str) -> str:
    """Returns a quoted name for a statement of DuckDB or the Delta library, with each `%` doubled."""
    return engine.name(column).replace("%", "%%")


def bound(text: str, given: Sequence[Any]) -> str:
    """Returns a condition with its values as literals, for the Delta library, which takes no parameters."""
    rest = iter(given)
    return _filled(text, lambda: _delta_literal(next(rest)))


def _filled(text: str, placeholder: Callable[[], str]) -> str:
    """Replaces each `%s` of a statement, and `%%` by `%`: a column named `a%s` is written `a%%s`."""
    return re.sub("%[s%]", lambda found: placeholder() if found[0] == "%s" else "%", text)


def _delta_literal(value: Any) -> str:
    """Returns a value as a literal in the Delta library's SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, datetime):  # the library cannot compare times of different types
        return f"arrow_cast('{value.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else engine.literal(str(value))


def _native(of: pa.DataType) -> NativeType:
    known = _TYPES.get(of)
    return NativeType(DELTA_TYPES[known], known) if known else NativeType(str(of), "text")
