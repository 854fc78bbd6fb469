"""Adopts tables directly from a database: read-only, streamed, as the tables were when it was opened.

PostgreSQL is read in one transaction through ADBC, which streams a table as Arrow with PostgreSQL's own COPY. A DuckDB
file is attached, which keeps others from writing to it.
"""

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

import duckdb

from ...disk import local_path
from ...errors import NotSupported, RunError
from ...extras import install
from ...projection import engine
from ...warehouses.dataset import UNTIMED
from ...warehouses.duckdb_parts import split_table
from ...warehouses.sql_files import sql_file
from .buffer import ANY_ORDER, BufferedRows, Source, buffer_file, buffer_rows
from .columns import Form, form_of
from .files import TableFile, folded_name, unchanged

# By PostgreSQL's type, the form of a column, and a template of the SQL that selects it.
_POSTGRES_FORMS: dict[str, tuple[Form, str]] = {
    **dict.fromkeys(("smallint", "integer", "bigint"), ("bigint", "{}::bigint")),
    **dict.fromkeys(("real", "double precision"), ("double", "{}::float8")),
    "boolean": ("bool", "{}"),
    "timestamp with time zone": ("timestamp", "{}"),
    "timestamp without time zone": ("timestamp", "{} AT TIME ZONE 'UTC'"),
    "numeric": ("json", "{}::text"),
    **dict.fromkeys(("json", "jsonb"), ("json", "{}::text")),
    "ARRAY": ("json", "to_json({})::text"),
}
_AS_TEXT: tuple[Form, str] = ("text", "{}::text")
_WITHIN_YEARS = "({}) BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'"
"""SQL for whether ADBC can hand over a time: infinity, and times beyond these years, would become other times."""
# Settings of a database or a role would change values: ADBC expects UTF-8, and the others change how text looks. With
# `row_security` off, a query of a table whose policies hide rows is an error.
_SETTINGS = (
    "client_encoding TO 'UTF8'",
    "timezone TO 'UTC'",
    "datestyle TO 'ISO'",
    "intervalstyle TO 'postgres'",
    "bytea_output TO 'hex'",
    "extra_float_digits TO 1",
    "row_security TO off",
)
_NEWEST = ("received_at", "uuid_ts")  # their maximums and the number of rows are the version of a table


class DatabaseTable(NamedTuple):
    """A table of a database. `url` (a permanent name without secrets), `version` and `size` are as in `Work`.

    `table` is its name here; `schema`, `name` and `columns` (types by name) are those in the database.
    """

    url: str
    version: str
    size: int
    table: str
    schema: str
    name: str
    columns: Mapping[str, str]
    database: "Database"


class Database(ABC):
    """A database, which is read as it was when it was opened."""

    url: str
    """Where it is, without secrets."""
    dialect: ClassVar[str]
    """The dialect of SQL that the types of its columns are spelled in."""

    @abstractmethod
    def column_types(self, schema: str) -> list[tuple[str, str, str]]:
        """Returns the table, name and type of each column of a schema's tables and views."""

    @abstractmethod
    def path(self, schema: str, name: str) -> str:
        """Returns the name of a table in queries."""

    @abstractmethod
    def query_row(self, sql: str) -> tuple[Any, ...]:
        """Returns the only row of a query's result."""

    @abstractmethod
    @contextmanager
    def opened(self, con: duckdb.DuckDBPyConnection, table: DatabaseTable) -> Iterator[Source]:
        """Yields a source from which the engine can read a table's rows during the block."""

    @staticmethod
    @abstractmethod
    def form(type_: str) -> Form:
        """Returns the form in which values of one of the database's types are buffered."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connection."""


class PostgresSource(Database):
    """A PostgreSQL database."""

    dialect = "postgres"

    def __init__(self, url: str) -> None:
        """Connects. Raises NotSupported without ADBC, RunError if the database cannot be opened."""
        try:
            from adbc_driver_manager import Error
            from adbc_driver_postgresql import dbapi
            from psycopg2 import ProgrammingError
            from psycopg2.extensions import parse_dsn
        except ImportError as error:
            raise NotSupported(
                f"Reading PostgreSQL needs a package that is not installed: {error}\nInstall it: {install('postgres')}"
            ) from error
        try:
            given = parse_dsn(url)  # as the driver reads it: with any character in the password, and several hosts
        except ProgrammingError as error:
            raise RunError(
                f"Expected a URL of a PostgreSQL database, but it cannot be read: {engine.error_line(error)}\n"
                "In the user and the password, write / as %2F, @ as %40, and % as %25."
            ) from error
        database = f"/{quote(given['dbname'])}" if "dbname" in given else ""
        self.url = f"postgresql://{given.get('host', 'localhost').lower()}:{given.get('port', 5432)}{database}"
        try:
            self._connection: Any = dbapi.connect(url.replace(" ", "%20"))  # libpq refuses blanks
            with self._connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                for setting in _SETTINGS:
                    cursor.execute(f"SET LOCAL {setting}")
                cursor.execute(UNTIMED)
        except Error as error:
            self.close()
            raise RunError(
                f"Expected a database at {self.url}, but it cannot be opened: {engine.error_line(error)}"
            ) from error

    def column_types(self, schema: str) -> list[tuple[str, str, str]]:
        """Returns the table, name and type of each column of a schema's tables and views."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql_file("columns_postgres.sql"), (schema,))
            return list(cursor.fetchall())

    def path(self, schema: str, name: str) -> str:
        """Returns the name of a table in queries."""
        return f"{engine.name(schema)}.{engine.name(name)}"

    def query_row(self, sql: str) -> tuple[Any, ...]:
        """Returns the only row of a query's result."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return tuple(cursor.fetchone())

    @contextmanager
    def opened(self, con: duckdb.DuckDBPyConnection, table: DatabaseTable) -> Iterator[Source]:
        """Yields a source from which the engine reads a table's rows as a stream."""
        forms: dict[str, tuple[Form, str]] = {}
        cells, unfit = [], {}
        for number, (column, type_) in enumerate(table.columns.items()):
            form, template = _POSTGRES_FORMS.get(type_, _AS_TEXT)
            # Numbers, because the engine does not distinguish names that differ only in case.
            forms[column] = form, f"c{number}"
            cell = template.format(engine.name(column))
            if form == "timestamp":
                fits, unfit[column] = _WITHIN_YEARS.format(cell), f"t{number}"
                cells.append(f"CASE WHEN NOT {fits} THEN {engine.name(column)}::text END AS t{number}")
                cell = f"CASE WHEN {fits} THEN {cell} END"
            cells.append(f"{cell} AS c{number}")
        with self._connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(cells)} FROM {self.path(table.schema, table.name)}")
            with engine.registered(con, database_rows=cursor.fetch_record_batch()):
                yield Source("database_rows", ANY_ORDER, forms, table.columns, unfit=unfit)

    @staticmethod
    def form(type_: str) -> Form:
        """Returns the form in which values of one of the database's types are buffered."""
        return _POSTGRES_FORMS.get(type_, _AS_TEXT)[0]

    def close(self) -> None:
        """Closes the connection."""
        with suppress(Exception):  # nothing was written
            self._connection.close()


class DuckdbSource(Database):
    """A DuckDB file."""

    dialect = "duckdb"

    def __init__(self, url: str) -> None:
        """Opens the file. Raises RunError if it does not exist or is not a DuckDB file."""
        self._path = os.path.abspath(local_path(url.removeprefix("duckdb:///").removeprefix("duckdb:")))
        self.url = f"duckdb:///{self._path}"
        if not Path(self._path).is_file():
            raise RunError(f"Expected a DuckDB file at {self._path}, but there is none.\nCheck the spelling.")
        self._connection = duckdb.connect(":memory:")
        self._attach(self._connection)

    def _attach(self, con: duckdb.DuckDBPyConnection) -> None:
        try:
            con.execute(f"ATTACH IF NOT EXISTS {engine.literal(self._path)} AS adopted (READ_ONLY)")
        except duckdb.Error as error:
            raise RunError(
                f"Expected a DuckDB file at {self._path} that nobody writes to, but it cannot be opened: {error}"
            ) from error

    def column_types(self, schema: str) -> list[tuple[str, str, str]]:
        """Returns the table, name and type of each column of a schema's tables and views."""
        return self._connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns()"
            " WHERE database_name = 'adopted' AND schema_name = ? ORDER BY table_name, column_index",
            [schema],
        ).fetchall()

    def path(self, schema: str, name: str) -> str:
        """Returns the name of a table in queries."""
        return f"adopted.{engine.name(schema)}.{engine.name(name)}"

    def query_row(self, sql: str) -> tuple[Any, ...]:
        """Returns the only row of a query's result."""
        return self._connection.execute(sql).fetchone() or ()

    @contextmanager
    def opened(self, con: duckdb.DuckDBPyConnection, table: DatabaseTable) -> Iterator[Source]:
        """Yields a source from which the engine reads a table of the attached file."""
        self._attach(con)
        try:
            path = self.path(table.schema, table.name)
            forms = {column: form_of(type_) for column, type_ in table.columns.items()}
            yield Source(path, ANY_ORDER, forms, table.columns, partial(_table_in_parts, con, path))
        finally:
            con.execute("DETACH adopted")

    @staticmethod
    def form(type_: str) -> Form:
        """Returns the form in which values of one of the database's types are buffered."""
        return form_of(type_)[0]

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()


def _table_in_parts(con: duckdb.DuckDBPyConnection, table: str) -> Generator[str]:
    """Yields SQL for the rows of a table in parts, or for all rows of a view at once."""
    parts = split_table(lambda sql: con.execute(sql).fetchall(), table)
    try:
        first = next(parts)
    except duckdb.BinderException:  # a view has no `rowid`
        first = "true"
    for part in itertools.chain([first], parts):
        yield f"{table} WHERE {part}"


def open_database(url: str) -> Database:
    """Opens the database of a URL. Raises NotSupported for one of another kind, RunError if it cannot be opened."""
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresSource(url)
    if url.startswith("duckdb:"):
        return DuckdbSource(url)
    raise NotSupported(
        f"Expected postgresql://... or duckdb:///file to adopt from, but got {url.partition(':')[0]}.\n"
        "Export the tables of other warehouses as Parquet, and adopt the folder."
    )


def database_tables(url: str, schema: str) -> list[DatabaseTable]:
    """Returns the tables of a schema that have a column `id`; their database is open if there are any.

    Raises NotSupported for a database of another kind, RunError if it cannot be opened or the schema has no tables.
    """
    database = open_database(url)
    found: list[DatabaseTable] = []
    try:
        found.extend(_tables_with_ids(database, schema))
    except BaseException:
        database.close()
        raise
    if not found:
        database.close()
    return found


def _tables_with_ids(database: Database, schema: str) -> Iterator[DatabaseTable]:
    tables: dict[str, dict[str, str]] = {}
    for table, column, type_ in database.column_types(schema):
        tables.setdefault(table, {})[column] = type_
    if not tables:
        raise RunError(
            f"Expected tables in the schema {schema} of {database.url}, but it has none.\nName another with --schema."
        )
    for name, columns in tables.items():
        if "id" not in map(folded_name, columns):
            continue
        # Times are compared as times, because the greatest text need not be the latest time. Values of other types are
        # compared as text, because every type can be cast to it.
        newest = [
            f"max({engine.name(column)})::text"
            if database.form(type_) == "timestamp"
            else f"max({engine.name(column)}::text)"
            for column, type_ in columns.items()
            if folded_name(column) in _NEWEST
        ]
        cells = ", ".join(["count(*)", *newest])
        found = database.query_row(f"SELECT {cells} FROM {database.path(schema, name)}")
        url = f"{database.url}/{schema}/{name}"
        version = "-".join(map(str, found))
        yield DatabaseTable(url, version, 0, folded_name(name), schema, name, columns, database)


AdoptedWork = TableFile | DatabaseTable


def buffer_work(con: duckdb.DuckDBPyConnection, work: AdoptedWork, number: int, scratch: Path) -> BufferedRows:
    """Buffers the rows of a file, or of a table of a database. Raises ArchiveError if the file changes meanwhile."""
    if isinstance(work, TableFile):
        with unchanged(work):
            return buffer_file(con, work, number, scratch)
    with work.database.opened(con, work) as source:
        return buffer_rows(con, source, number, work.table, scratch)


def close_databases(work: Sequence[object]) -> None:
    """Closes the databases of all tables among the work."""
    for database in {id(each.database): each.database for each in work if isinstance(each, DatabaseTable)}.values():
        database.close()
