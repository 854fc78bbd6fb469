"""The jobs that copy Parquet files into PostgreSQL's tables."""

import logging
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from .dlt_internals import DatabaseTerminalException, DatabaseTransientException, PostgresParquetCopyJob
from .dlt_internals.clients import client_of, file_of, hooked, set_file, table_of
from .merging import keys_of
from .postgres import PostgresConfiguration
from .postgres_waits import log_waits, raising_busy, url_of, with_timeouts
from .sql_files import sql_file

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection, Cursor

    from .postgres_adbc import SharedConnection

LARGE_FILE = 4 * 2**20  # bytes; indexing the rows of a smaller file takes hardly any time
UNIQUE_VIOLATION = "23505"
DATA_EXCEPTION = "22"  # the class of SQL states

_log = logging.getLogger(__name__)


@hooked
class PostgresCopyJob(PostgresParquetCopyJob):
    """dlt's copy job, which reports what it waits for."""

    def run(self) -> None:
        """Loads the file."""
        from adbc_driver_manager import AdbcStatusCode, Error

        self._closed = threading.Event()
        try:
            with raising_busy(cast(PostgresConfiguration, client_of(self).config)):
                super().run()
        except Error as error:
            if (error.sqlstate or "").startswith(DATA_EXCEPTION):
                raise DatabaseTerminalException(error) from error  # a retry would not store the value either
            if error.status_code == AdbcStatusCode.IO and not error.sqlstate:
                # The driver gives no SQL state for a broken connection, so dlt could not tell it from other errors.
                raise DatabaseTransientException(error) from error
            raise
        finally:
            self._closed.set()

    def connect(self, usual: Callable[[], "Connection"]) -> "SharedConnection":  # noqa: ARG002 - dlt's logs no waits
        """Opens a connection whose waits are logged while it is open."""
        from .postgres_adbc import SharedConnection

        config = cast(PostgresConfiguration, client_of(self).config)
        connection = SharedConnection(url_of(with_timeouts(config)))
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                log_waits(cursor.fetchall()[0][0], config, self._closed)
        except Exception:  # the server may drop the connection right after opening it
            connection.close()
            raise
        return connection


@hooked
class CopyNew(PostgresCopyJob):
    """Copies a file straight into its table. If the table already has some of the rows, copies only the others."""

    _indexes_last = False

    def run(self) -> None:
        """Loads the file, whole or not at all."""
        from adbc_driver_manager import Error

        try:
            self._copy()
        except Error as error:
            if error.sqlstate != UNIQUE_VIOLATION:
                raise
            # Some rows are there, for example because a load was killed between copying the file and recording that.
            whole = file_of(self)
            with TemporaryDirectory() as folder:
                rest = str(Path(folder, Path(whole).name))
                if self._write_new_rows(rest):
                    set_file(self, rest)
                    try:
                        super().run()
                    finally:
                        set_file(self, whole)

    def connect(self, usual: Callable[[], "Connection"]) -> "SharedConnection":
        """Opens a connection; if the table's indexes are created last, drops them in its transaction."""
        connection = cast("SharedConnection", usual())
        if self._indexes_last:
            create_indexes_last(connection, self._table_name())
        return connection

    def _copy(self) -> None:
        """Copies the file. The first file of a new table, if large, is copied before the table's indexes are created.

        That takes PostgreSQL half the time, because it sorts all rows at once. If something prevents it, the file is
        copied as usual. The table's other files wait for the first one, which locks the table.
        """
        from adbc_driver_manager import Error

        new_tables, table = cast(PostgresConfiguration, client_of(self).config).new_tables, self._table_name()
        with new_tables.get(table, nullcontext()):
            if table in new_tables:
                self._indexes_last = Path(file_of(self)).stat().st_size >= LARGE_FILE
                try:
                    return super().run()
                except (Error, DatabaseTerminalException) as error:
                    if not self._indexes_last or getattr(error, "sqlstate", None) == UNIQUE_VIOLATION:
                        raise
                    _log.info("The indexes of %s stay while rows are copied, which takes longer: %s", table, error)
                finally:
                    self._indexes_last = False
                    del new_tables[table]
        return super().run()

    def _table_name(self) -> str:
        return str(client_of(self).sql_client.make_qualified_table_name(self.load_table_name))

    def _write_new_rows(self, path: str) -> int:
        """Writes the rows whose keys the table does not have, each once, to another file; returns their number."""
        client, seen, rows = client_of(self).sql_client, set[Any](), 0
        [key] = keys_of(table_of(self))
        column = client.escape_column_name(key)
        with pq.ParquetFile(file_of(self)) as file, pq.ParquetWriter(path, file.schema_arrow) as writer:
            as_text = "::text" if file.schema_arrow.field(key).type == pa.string() else ""  # without blanks of char(n)
            stored_keys = f"SELECT {column}{as_text} FROM {self._table_name()} WHERE {column} = ANY(%s)"
            for batch in file.iter_batches():
                keys = batch[key].to_pylist()
                seen.update(value for (value,) in client.execute_sql(stored_keys, keys) or ())
                new = []
                for number, value in enumerate(keys):
                    if value not in seen:
                        seen.add(value)
                        new.append(number)
                writer.write_batch(batch.take(pa.array(new, pa.int64())))
                rows += len(new)
        return rows


def create_indexes_last(connection: "SharedConnection", table: str) -> None:
    """Drops the indexes of an empty table, to be created again at the end of the same transaction.

    If anybody uses the table, or it has rows, or the database refuses, everything stays as it is.
    """
    from adbc_driver_manager import Error

    with connection.cursor() as cursor:
        try:
            cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")
            cursor.execute(f"SELECT FROM {table} LIMIT 1")
            indexes = [] if cursor.fetchall() else _indexes_of(cursor, table)
            for drop, _ in indexes:
                cursor.execute(drop)
        except Error as error:
            _log.info("The indexes of %s stay while rows are copied, which takes longer: %s", table, error)
            indexes = []
        if indexes:
            connection.last_statements = [create for _, create in indexes]
        else:
            connection.rollback()


def _indexes_of(cursor: "Cursor", table: str) -> list[tuple[str, str]]:
    """Returns, for each index of a table, the statement that drops it and the one that creates it again."""
    cursor.execute(sql_file("indexes_postgres.sql"), (table,))
    return [(str(drop), str(create)) for drop, create in cursor.fetchall()]
