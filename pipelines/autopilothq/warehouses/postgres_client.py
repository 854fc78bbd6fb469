"""The tables of the contract in PostgreSQL, and connections that give up waiting and report what they wait for."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, AnyStr, NamedTuple, cast

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
from dlt import Schema
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema import TColumnSchema

from ..errors import BusyError
from .books import BooksClient, BooksSqlClient, is_book, stage_books_together
from .comments import comment_statements
from .dlt_internals import (
    DatabaseTransientException,
    DBApiCursor,
    DBTransaction,
    DestinationCapabilitiesContext,
    FollowupJobRequest,
    LoadJob,
    PostgresClient,
    PostgresCredentials,
    PostgresParquetCopyJob,
    Psycopg2SqlClient,
    TColumnType,
    TPartialTableSchema,
    client_of,
    file_of,
    hooked,
    set_file,
    table_of,
)
from .native import DIRECT_HINT, SEGMENT_TABLE_HINT, TableShape, shape_of
from .postgres import PostgresConfiguration, Waits
from .postgres_merge import Merge, MergeAnew, MergeNew, Replace, is_plain, keys_of
from .sql_files import sql_file

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection

LOOK = 10.0  # seconds between two looks at what a connection waits for
AGAIN = 1.0  # seconds for a lock that was waited for in vain before
# A server that is gone without a word is noticed after two minutes, not after the system's two hours.
KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}
LOCK_NOT_AVAILABLE, UNIQUE_VIOLATION = "55P03", "23505"

_log = logging.getLogger(__name__)


class StoredTable(NamedTuple):
    """The columns of a table's unique indexes, and whether files can be copied straight into it."""

    keys: set[frozenset[str]]
    takes_files: bool


@hooked
class SegmentPostgresClient(BooksClient, PostgresClient):
    """dlt's, which makes the tables of the contract as Segment does, on connections that do not wait for ever."""

    config: PostgresConfiguration

    def __init__(
        self, schema: Schema, config: PostgresConfiguration, capabilities: DestinationCapabilitiesContext
    ) -> None:
        stage_books_together(config)
        super().__init__(schema, config, capabilities)
        names = self.create_dataset_names(schema, config)
        self.sql_client = PostgresSqlClient(*names, patient(config), capabilities)
        self.sql_client.config = config
        self.sql_client.keep_books_in(config.books_dataset, schema.naming)

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        """Returns the job that loads a file."""
        job = super().create_load_job(table, file_path, load_id, restore)
        if not isinstance(job, PostgresParquetCopyJob):
            return job
        return CopyNew(file_path) if self._is_direct(table) else PostgresCopyJob(file_path)

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        """Whether a table's files go to staging first."""
        staged: bool = super().should_load_data_to_staging_dataset(table_name)
        return staged and not self._is_direct(self.prepare_load_table(table_name))

    def prepare_load_table(self, table_name: str) -> PreparedTableSchema:
        """Returns a table as it is loaded: a replacement goes through staging, where numbers become numeric."""
        table = super().prepare_load_table(table_name)
        if table.get(SEGMENT_TABLE_HINT) and table["write_disposition"] == "replace":
            table["x-replace-strategy"] = "insert-from-staging"  # type: ignore[typeddict-unknown-key]
        return table

    # What tables are ----------------------------------------------------------------------------------------------

    def _shape(self, table: Mapping[str, Any] | None) -> TableShape:
        """What a table should be; in the staging dataset all is as dlt makes it."""
        if table is None or not table.get(SEGMENT_TABLE_HINT) or self.sql_client.is_staging_dataset_active:
            return TableShape()
        types = {name: column["data_type"] for name, column in table["columns"].items() if "data_type" in column}
        return shape_of(table["name"], types, "postgres")

    def column_sql(self, usual: Callable[..., str], column: TColumnSchema, table: Any = None) -> str:
        """Returns the definition of a column."""
        native = self._shape(table).types.get(str(column["name"]))
        if native is None:
            return usual(column, table)
        not_null = "" if column.get("nullable") is not False else "NOT NULL"
        return f"{self.sql_client.escape_column_name(str(column['name']))} {native} {not_null}"

    def constraints_sql(
        self, usual: Callable[..., str], table_name: str, new_columns: Sequence[TColumnSchema], generate_alter: bool
    ) -> str:
        """Returns what follows the columns of a new table."""
        constraints = usual(table_name, new_columns, generate_alter)
        key = self._shape(self.prepare_load_table(table_name)).key
        if generate_alter or not key:
            return constraints
        return f"{constraints},\nPRIMARY KEY ({', '.join(map(self.sql_client.escape_column_name, key))})"

    def sql_after(self, usual: Callable[..., list[str]], partial_table: TPartialTableSchema) -> list[str]:
        """Returns the statements that follow those that make new columns."""
        table = self.sql_client.make_qualified_table_name(str(partial_table["name"]))
        indexes = self._shape(partial_table).indexes if self.config.index_received_at else ()
        return [
            *usual(partial_table),
            *(f"CREATE INDEX ON {table} ({self.sql_client.escape_column_name(column)})" for column in indexes),
            *comment_statements(self.sql_client, partial_table),
        ]

    def type_of(
        self, usual: Callable[..., TColumnType], native: str, precision: int | None, scale: int | None
    ) -> TColumnType:
        """Returns dlt's type of a column that is there."""
        return {"data_type": "double"} if native == "numeric" and precision is None else usual(native, precision, scale)

    # How rows come from staging -------------------------------------------------------------------------------------

    def merge_jobs(
        self, usual: Callable[..., list[FollowupJobRequest]], table_chain: Sequence[PreparedTableSchema]
    ) -> list[FollowupJobRequest]:
        """Returns the jobs that merge a table's rows from staging."""
        if not is_plain(table_chain):
            return usual(table_chain)
        [table] = table_chain
        if self._is_direct(table):
            return []
        insert_only = table.get("x-merge-strategy") == "insert-only"
        job = MergeNew if insert_only and self._is_unique(table) else Merge if insert_only else MergeAnew
        return [job.from_table_chain(table_chain, self.sql_client)]

    def replace_jobs(
        self, usual: Callable[..., list[FollowupJobRequest]], table_chain: Sequence[PreparedTableSchema]
    ) -> list[FollowupJobRequest]:
        """Returns the jobs that replace all rows of a table by those in staging."""
        if not table_chain[0].get(SEGMENT_TABLE_HINT):
            return usual(table_chain)
        return [Replace.from_table_chain(table_chain, self.sql_client)]

    def _is_direct(self, table: PreparedTableSchema) -> bool:
        """Whether a table's files are copied straight into it, which takes half of what staging and merging take.

        Numbers with digits are in no file as the table has them, and a copy casts no value. What waits in staging may
        be of a load that was killed: the rest of it goes the same way.
        """
        return (
            bool(table.get(DIRECT_HINT))
            and not is_book(str(table["name"]))
            and table["write_disposition"] == "merge"
            and table.get("x-merge-strategy") == "insert-only"
            and is_plain([table])
            and not self._shape(table).types
            and self._is_unique(table)
            and ((stored := self._stored(table)) is None or stored.takes_files)
        )

    def _is_unique(self, table: PreparedTableSchema) -> bool:
        """Whether a table's key is unique by an index, as in all that this version makes; earlier ones' have none."""
        stored = self._stored(table)
        return stored is None or frozenset(keys_of(table)) in stored.keys

    def _stored(self, table: PreparedTableSchema) -> StoredTable | None:
        """Returns what a dataset had of a table as it was first asked for its tables."""
        dataset, name = self.sql_client.make_qualified_table_name_path(table["name"], quote=False)
        known: dict[str, dict[str, StoredTable]] = self.config.stored_tables
        if dataset not in known:
            with nullcontext() if self.sql_client.native_connection else self:
                staging = self.sql_client.staging_dataset_name
                found = self.sql_client.execute_sql(sql_file("stored_tables_postgres.sql"), staging, dataset) or ()
            known[dataset] = {}
            for there, columns, takes_files in found:
                known[dataset].setdefault(there, StoredTable(set(), takes_files))
                known[dataset][there].keys.update([frozenset(columns)] if columns else ())
        return known[dataset].get(name)


def patient(config: PostgresConfiguration) -> PostgresCredentials:
    """The credentials with the limits that their own options leave open."""
    credentials: PostgresCredentials = config.credentials.copy()
    query = KEEPALIVES | (credentials.query or {})
    options = [str(query.pop("options", ""))]
    lock_timeout = min(AGAIN, config.lock_timeout) if config.waits.gave_up else config.lock_timeout
    for name, seconds in (("lock_timeout", lock_timeout), ("statement_timeout", config.statement_timeout)):
        if seconds and name not in options[0]:
            options.append(f"-c {name}={max(round(seconds * 1000), 1)}")
    credentials.query = query | {"options": " ".join(filter(None, options))}
    return credentials


class PostgresSqlClient(BooksSqlClient, Psycopg2SqlClient):
    """dlt's, which says what it waits for."""

    config: PostgresConfiguration
    _closed: threading.Event | None = None

    def open_connection(self) -> "psycopg2.extensions.connection":
        """Opens a connection whose waits are watched while it is open."""
        connection: psycopg2.extensions.connection = super().open_connection()
        self._closed = threading.Event()
        look_at(connection.info.backend_pid, self.config, self._closed)
        return connection

    def close_connection(self) -> None:
        """Closes the connection."""
        if self._closed:
            self._closed.set()
        super().close_connection()

    @contextmanager
    def execute_query(self, query: AnyStr, *args: Any, **kwargs: Any) -> Iterator[DBApiCursor]:
        """Runs a statement."""
        with giving_up(self.config), super().execute_query(query, *args, **kwargs) as cursor:
            yield cursor

    @contextmanager
    def begin_transaction(self) -> Iterator[DBTransaction]:
        """A transaction, whose statements need not be this client's."""
        with giving_up(self.config), super().begin_transaction() as transaction:
            yield transaction


@hooked
class PostgresCopyJob(PostgresParquetCopyJob):
    """dlt's, which says what it waits for."""

    def run(self) -> None:
        """Loads the file."""
        from adbc_driver_manager import AdbcStatusCode, OperationalError

        self._closed = threading.Event()
        try:
            with giving_up(cast(PostgresConfiguration, client_of(self).config)):
                super().run()
        except OperationalError as error:
            if error.status_code == AdbcStatusCode.IO and not error.sqlstate:
                # Of a broken connection the driver says no state: without a word it would pass for any error.
                raise DatabaseTransientException(error) from error
            raise
        finally:
            self._closed.set()

    def connect(self, usual: Callable[[], "Connection"]) -> "Connection":  # noqa: ARG002 - dlt's does not wait so
        """Opens a connection that is looked at while it is open."""
        from .postgres_adbc import SharedConnection

        config = cast(PostgresConfiguration, client_of(self).config)
        connection = SharedConnection(url_of(patient(config)))
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                look_at(cursor.fetchall()[0][0], config, self._closed)
        except Exception:  # the server may break the connection off at once
            connection.close()
            raise
        return connection


class CopyNew(PostgresCopyJob):
    """Copies a file straight into its table; what the table has already is left out then."""

    def run(self) -> None:
        """Loads the file, whole or not at all."""
        from adbc_driver_manager import Error

        try:
            super().run()
        except Error as error:
            if error.sqlstate != UNIQUE_VIOLATION:
                raise
            # As where a load was killed after the file was copied and before that was noted.
            whole = file_of(self)
            with TemporaryDirectory() as folder:
                rest = str(Path(folder, Path(whole).name))
                if self._write_new_rows(rest):
                    set_file(self, rest)
                    try:
                        super().run()
                    finally:
                        set_file(self, whole)

    def _write_new_rows(self, path: str) -> int:
        """Writes the rows whose keys the table does not have, each once, into another file; returns their number."""
        client, seen, rows = client_of(self).sql_client, set[Any](), 0
        table = client.make_qualified_table_name(self.load_table_name)
        [key] = keys_of(table_of(self))
        there = f"SELECT {client.escape_column_name(key)} FROM {table} WHERE {client.escape_column_name(key)} = ANY(%s)"
        with pq.ParquetFile(file_of(self)) as file, pq.ParquetWriter(path, file.schema_arrow) as writer:
            for batch in file.iter_batches():
                keys = batch[key].to_pylist()
                seen.update(value for (value,) in client.execute_sql(there, keys) or ())
                first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
                new = sorted(number for value, number in first.items() if value not in seen)
                seen.update(first)
                writer.write_batch(batch.take(pa.array(new, pa.int64())))
                rows += len(new)
        return rows


def url_of(credentials: PostgresCredentials) -> str:
    """Returns the URL for PostgreSQL's library, which does not read a plus sign as a blank."""
    url, mark, query = credentials.to_native_representation().partition("?")
    return f"{url}{mark}{query.replace('+', '%20')}"


@contextmanager
def giving_up(config: PostgresConfiguration) -> Iterator[None]:
    """Raises BusyError if a lock was not granted in time."""
    try:
        yield
    except Exception as error:
        driver_error = getattr(error, "dbapi_exception", error)
        if LOCK_NOT_AVAILABLE not in (getattr(driver_error, "pgcode", None), getattr(driver_error, "sqlstate", None)):
            raise
        waits: Waits = config.waits
        waits.gave_up = True
        raise BusyError(
            f"Waited for {waits.last}, and gave up after {config.lock_timeout:g} s.\nEnd that there and run this again,"
            " or wait longer: lock_timeout (seconds) under [destination.postgres] of dlt's configuration"
        ) from error


def look_at(pid: int, config: PostgresConfiguration, closed: threading.Event) -> None:
    """Starts to report what the connection of this server process waits for, until it is `closed`."""
    threading.Thread(target=_look, args=(pid, config, closed), daemon=True).start()


def _look(pid: int, config: PostgresConfiguration, closed: threading.Event) -> None:
    waits: Waits = config.waits
    while not closed.wait(min(LOOK, config.lock_timeout / 2 or LOOK)):
        with suppress(psycopg2.Error):  # the connection itself will say that the server cannot be asked
            found = _blocking(pid, patient(config))
            if found:
                waits.last = found
            if found and found not in waits.reported:
                waits.reported.add(found)
                end = f"; giving up after {config.lock_timeout:g} s" if config.lock_timeout else ""
                _log.warning("Waiting for %s%s", found, end)


def _blocking(pid: int, credentials: PostgresCredentials) -> str | None:
    """Returns which lock a server process waits for and who has it, None if it waits for none."""
    with closing(psycopg2.connect(url_of(credentials))) as connection, connection.cursor() as cursor:
        cursor.execute(sql_file("blocking_postgres.sql"), {"pid": pid})
        found = cursor.fetchone()
    if found is None:
        return None
    table, holder, user, application, address, state = found
    about = [f"user {user}" if user else "", application, address and f"from {address}", state]
    who = f"process {holder} ({', '.join(filter(None, about))})" if holder else "a prepared transaction"
    return f"{f'the table {table}' if table else 'rows'} of PostgreSQL that {who} has locked"
