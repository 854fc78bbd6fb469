"""How files come into PostgreSQL's tables."""

import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from .dlt_internals import (
    DatabaseTransientException,
    PostgresParquetCopyJob,
    client_of,
    file_of,
    hooked,
    set_file,
    table_of,
)
from .postgres import PostgresConfiguration
from .postgres_merge import keys_of
from .postgres_waits import giving_up, look_at, patient, url_of

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection

UNIQUE_VIOLATION = "23505"


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
