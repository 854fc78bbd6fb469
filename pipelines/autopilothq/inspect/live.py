"""What a destination has. All that is asked is read, nothing is made or changed."""

import base64
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import unquote

import dlt
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from .. import catalog, runner
from ..warehouses.books import BooksSqlClient, is_book
from ..warehouses.dlt_internals import (
    DLT_NAME_PREFIX,
    LOADS_TABLE_NAME,
    VERSION_TABLE_NAME,
    DatabaseException,
    Destination,
    DestinationConnectionError,
    SqlJobClientBase,
    TDataType,
    information_schema,
    schema_components,
    stored_columns,
)
from .diff import Schema, SchemaTable, type_of
from .schema import ColumnInfo, Statistics, TableInfo, described

LONGEST = 65_535
_LOCKED = re.compile(r'Could not set lock on file "(.*?)".*?(?:\(PID (\d+)\)|$)')
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


class NothingThere(runner.RunError):
    """The destination has no such dataset yet."""


class NativeType(NamedTuple):
    """A column's type: the destination's word, and dlt's for it."""

    name: str
    type: TDataType


Columns = dict[str, NativeType]


def target(destination: str | None, credentials: str | None, dataset: str | None) -> tuple[Destination[Any, Any], str]:
    """What the words of a load mean, without connecting."""
    with TemporaryDirectory() as folder:
        pipeline = runner.pipeline(destination, credentials, dataset, pipelines_dir=folder, create=False)
        return pipeline.destination, dataset_name(dataset)


def kind_of(destination: str | None, credentials: str | None, dataset: str | None) -> tuple[str, str | None]:
    """dlt's name of the destination that the words of a load mean, and SQLGlot's of its SQL, without connecting."""
    there, _ = target(destination, credentials, dataset)
    return there.destination_type.rpartition(".")[2], there.capabilities().sqlglot_dialect


def dataset_name(dataset: str | None) -> str:
    """The dataset of a load with these words."""
    return str(dataset or runner.setting("dataset_name") or runner.DATASET)


def elsewhere(
    against: str, destination: str | None, credentials: str | None
) -> AbstractContextManager["DatasetInspector"]:
    """A reader of `DATASET`, or of `DATASET/CREDENTIALS`: the first slash divides them.

    The scheme of a URL names the kind of destination where it is another one.
    """
    dataset, _, other = against.partition("/")
    scheme = other.partition("://")[0] if "://" in other else ""
    kind = {"postgresql": "postgres"}.get(scheme, scheme) or destination
    return reading(kind, other or credentials, dataset, exactly=True)


@contextmanager
def reading(
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    exactly: bool = False,
) -> Iterator["DatasetInspector"]:
    """An open reader of the dataset; the words mean what they mean to a load.

    A DuckDB file is opened for reading alone, and a load has to wait until it is closed again. `exactly`: dlt's rules
    for names are not applied to the dataset. Raises NothingThere, and RunError where the destination cannot be asked.
    """
    # The pipeline lives in a folder that goes again: one that runs now must not be touched.
    with runner.explained(), TemporaryDirectory() as folder:
        pipeline = runner.pipeline(destination, credentials, dataset, pipelines_dir=folder, create=False)
        file = pipeline.destination.config_params.get("credentials")
        if isinstance(file, DuckDbCredentials):
            file.read_only = True
        client = answering(pipeline)
        name = str(pipeline.dataset_name)
        with (
            _opened(client),
            client.sql_client.with_alternative_dataset_name(name if exactly else client.sql_client.dataset_name),
        ):
            if not client.is_storage_initialized():
                hint = "Check how it is spelt." if exactly else "Load something first: autopilothq load archive URL"
                name = client.sql_client.dataset_name
                raise NothingThere(f"There is no dataset {name} in {_where(client, credentials)}. {hint}")
            yield DatasetInspector(client)


def answering(pipeline: dlt.Pipeline) -> SqlJobClientBase:
    """The client of a pipeline's destination. Raises RunError where it cannot be asked what tables there are."""
    client = pipeline.destination_client()
    if not isinstance(client, SqlJobClientBase):
        raise runner.RunError(
            f"Expected a destination that answers SQL, but {pipeline.destination.destination_name} does not."
        )
    if getattr(client.sql_client, "dialect_name", "") == "sqlite":
        raise runner.RunError(
            "Expected a destination with an information_schema, but SQLite has none.\n"
            "`load archive` works there; to look at the tables ask SQLite itself, or load into DuckDB too."
        )
    return client


@contextmanager
def _opened(client: SqlJobClientBase) -> Iterator[None]:
    try:
        client.__enter__()
    except DestinationConnectionError as error:
        held = _LOCKED.search(str(error))
        if held is None:
            raise
        by = f"process {held[2]}" if held[2] else "another process"
        raise runner.BusyError(f"{held[1]} is being written by {by}. Ask again when that is done.") from error
    try:
        yield
    finally:
        client.__exit__(None, None, None)  # type: ignore[arg-type]


def _where(client: SqlJobClientBase, credentials: str | None) -> str:
    place = str(client.config)
    if not unquote(place).endswith(":external:"):
        return place
    # That was the stand-in for a file that is not there.
    configured = runner.setting("destination.duckdb.credentials")
    file = configured.get("database") if isinstance(configured, dict) else configured
    return str(credentials or file or runner.DUCKDB_FILE)


_ANY_KEYS = """
    SELECT c.table_name, k.column_name FROM {constraints} c
    JOIN {columns} k ON k.constraint_schema = c.constraint_schema
        AND k.constraint_name = c.constraint_name AND k.table_name = c.table_name
    WHERE c.table_schema = %s AND c.constraint_type = 'PRIMARY KEY' ORDER BY c.table_name, k.ordinal_position"""
# PostgreSQL's information_schema has no constraints for those who may read alone.
_KEYS = {
    "postgres": """
    SELECT c.relname, a.attname FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
    WHERE n.nspname = %s AND i.indisprimary ORDER BY c.relname, array_position(i.indkey::int[], a.attnum::int)"""
}


class DatasetInspector:
    """Asks an open destination."""

    def __init__(self, client: SqlJobClientBase) -> None:
        self.client = client
        self._sql = client.sql_client
        self._tables: dict[str, Columns] | None = None
        # As other programs spelt them: in capitals they are found in quotes alone.
        self._spelt: dict[tuple[str, str], tuple[str, str]] = {}
        self.dialect: str | None = client.capabilities.sqlglot_dialect
        self.dataset = self._sql.dataset_name
        self.kind = client.config.destination_type.rpartition(".")[2]
        self.place = f"{self.kind} {client.config}, dataset {self.dataset}"

    def tables(self) -> dict[str, Columns]:
        """The tables and views that are there, those of the catalogue first; dlt's own are not among them."""
        there = self._all_tables()
        known = [name for name in catalog.TABLES if name in there]
        others = sorted(
            name
            for name in there
            if name not in catalog.TABLES and not name.startswith((DLT_NAME_PREFIX, catalog.LOCKS))
        )
        return {name: there[name] for name in (*known, *others)}

    def described(self, names: Sequence[str] = ()) -> list[TableInfo]:
        """The tables, all or these, with their statistics; reads each of them once, whole."""
        came = self._first_came()
        return [self._described(name, came) for name in self.tables() if not names or name in names]

    def lengths(self) -> dict[tuple[str, str], int]:
        """The most characters that text columns take, where the destination limits and tells that."""
        columns = information_schema(self._sql, "COLUMNS")
        rows = self.told(
            f"SELECT table_name, column_name, character_maximum_length FROM {columns} WHERE table_schema = %s"
            " AND character_maximum_length IS NOT NULL"
        )
        # -1 and the largest text there is stand for no limit.
        return {(t.lower(), c.lower()): length for t, c, length in rows if 0 < length < LONGEST}

    def keys(self) -> dict[str, tuple[str, ...]]:
        """The primary keys of the tables, in the order of their columns; empty where the destination tells none."""
        views = {"constraints": "TABLE_CONSTRAINTS", "columns": "KEY_COLUMN_USAGE"}
        names = {name: information_schema(self._sql, view) for name, view in views.items()}
        rows = self.told(_KEYS.get(self.kind, _ANY_KEYS).format_map(names))
        keys: dict[str, tuple[str, ...]] = {}
        for table, column in rows:
            keys[table.lower()] = (*keys.get(table.lower(), ()), column.lower())
        return keys

    def views(self) -> set[str]:
        """The names of the views."""
        tables = information_schema(self._sql, "TABLES")
        rows = self.told(f"SELECT table_name FROM {tables} WHERE table_schema = %s AND table_type LIKE '%%VIEW'")
        return {name.lower() for (name,) in rows}

    def told(self, query: str) -> Sequence[Sequence[Any]]:
        """Returns the rows, a table's name first, of a query by schema; none where the destination cannot tell."""
        rows: list[Sequence[Any]] = []
        for dataset, belongs in self._datasets():
            with dataset, suppress(DatabaseException):
                found = self._sql.execute_sql(query, schema_components(self._sql)[1]) or ()
                rows += [row for row in found if belongs(row[0])]
        return rows

    def _datasets(self) -> Iterator[tuple[AbstractContextManager[Any], Callable[[str], bool]]]:
        """The dataset, and that of the books where it is another one, each with which tables count there."""
        apart = isinstance(self._sql, BooksSqlClient) and self._sql.has_books_apart
        yield nullcontext(), lambda table: not (apart and is_book(table.lower()))
        if isinstance(self._sql, BooksSqlClient) and apart:
            yield self._sql.with_books(), lambda table: is_book(table.lower())

    def rows(self, select: str, table: str, rest: str = "", *values: Any) -> list[tuple[Any, ...]]:
        """The answer to `SELECT {select} FROM table {rest}`; `{name}` in both stands for the column of that name.

        Empty where the table is not there. Times are in UTC.
        """
        if table not in self._all_tables():
            return []
        before, after = (
            _PLACEHOLDER.sub(lambda found: self._sql.escape_column_name(found[1]), words) for words in (select, rest)
        )
        return self._answer(before, table, after, *values)

    def _answer(self, select: str, table: str, rest: str = "", *values: Any) -> list[tuple[Any, ...]]:
        spelt = next(as_spelt for (name, _), (as_spelt, _) in self._spelt.items() if name == table)
        sql = f"SELECT {select} FROM {self._sql.make_qualified_table_name(spelt, casefold=False)} {rest}"
        return [tuple(map(_utc, row)) for row in self._sql.execute_sql(sql, *values) or ()]

    def last_load(self) -> tuple[str, datetime] | None:
        """The id and the time of the newest load that is complete, None where there is none."""
        found = self.rows(
            "{load_id}, {inserted_at}", LOADS_TABLE_NAME, "WHERE {status} = 0 ORDER BY {inserted_at} DESC"
        )
        return (found[0][0], found[0][1]) if found else None

    def _all_tables(self) -> dict[str, Columns]:
        if self._tables is None:
            self._tables = {}
            for dataset, belongs in self._datasets():
                with dataset:
                    for table, column, native, of in filter(lambda row: belongs(row[0]), stored_columns(self.client)):
                        self._tables.setdefault(table.lower(), {})[column.lower()] = NativeType(native, of or "text")
                        self._spelt[table.lower(), column.lower()] = (table, column)
        return self._tables

    def _described(self, name: str, came: dict[tuple[str, str], datetime]) -> TableInfo:
        columns = self.tables()[name]
        quoted = {
            column: self._sql.escape_column_name(self._spelt[name, column][1], casefold=False) for column in columns
        }
        clock = quoted["received_at"] if "received_at" in columns else "NULL"
        counts = "".join(f", count({quoted[column]})" for column in columns)  # other programs' names may have braces
        (rows, first, last, *filled), *_ = self._answer(f"count(*), min({clock}), max({clock}){counts}", name)
        return described(
            name,
            [
                ColumnInfo(
                    column, of.type, "", of.name, came.get((name, column)), 1 - filled[i] / rows if rows else None
                )
                for i, (column, of) in enumerate(columns.items())
            ],
            Statistics(rows, first, last),
        )

    def _first_came(self) -> dict[tuple[str, str], datetime]:
        """When each column was made: dlt stores the schema each time that it changes."""
        came: dict[tuple[str, str], datetime] = {}
        for at, text in self.rows("{inserted_at}, {schema}", VERSION_TABLE_NAME, "ORDER BY {inserted_at}"):
            for table, hints in json.loads(_unpacked(text)).get("tables", {}).items():
                for column in hints.get("columns", {}):
                    came.setdefault((table.lower(), column.lower()), at)
        return came


def schema_of(reader: DatasetInspector) -> Schema:
    """The tables and types of a destination, to be compared."""
    lengths, keys, views = reader.lengths(), reader.keys(), reader.views()
    return {
        table: SchemaTable(
            {column: type_of(of.name, reader.dialect, lengths.get((table, column))) for column, of in columns.items()},
            keys.get(table, ()),
            table in views,
        )
        for table, columns in reader.tables().items()
    }


def _unpacked(schema: str) -> str:
    """A stored schema; dlt compresses those that are too long for a column of the destination."""
    return schema if schema.startswith("{") else zlib.decompress(base64.b64decode(schema)).decode()


def _utc(value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
