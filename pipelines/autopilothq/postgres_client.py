"""Connections to PostgreSQL that give up, and a look at what they wait for from another connection."""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, AnyStr, cast

import psycopg2
from dlt import Schema
from dlt.common.destination.typing import PreparedTableSchema

from .lock import Busy
from .postgres import PostgresConfiguration, Waits
from .warehouses.dlt_internals import (
    DatabaseTransientException,
    DBApiCursor,
    DBTransaction,
    DestinationCapabilitiesContext,
    LoadJob,
    PostgresClient,
    PostgresCredentials,
    PostgresParquetCopyJob,
    Psycopg2SqlClient,
    client_of,
    connecting,
    get_adbc_driver_location,
)

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection

LOOK = 10.0  # seconds between two looks at what a connection waits for
AGAIN = 1.0  # seconds for a lock that was waited for in vain before
# A server that is gone without a word is noticed after two minutes, not after the system's two hours.
KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}
LOCK_NOT_AVAILABLE = "55P03"

_log = logging.getLogger(__name__)


class Client(PostgresClient):
    """dlt's, on connections that do not wait for ever."""

    def __init__(
        self, schema: Schema, config: PostgresConfiguration, capabilities: DestinationCapabilitiesContext
    ) -> None:
        super().__init__(schema, config, capabilities)
        names = self.create_dataset_names(schema, config)
        self.sql_client = SqlClient(*names, patient(config), capabilities)
        self.sql_client.config = config

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        """The job that loads a file."""
        job = super().create_load_job(table, file_path, load_id, restore)
        return CopyJob(file_path) if isinstance(job, PostgresParquetCopyJob) else job


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


class SqlClient(Psycopg2SqlClient):
    """dlt's, which says what it waits for."""

    config: PostgresConfiguration
    _closed: threading.Event | None = None

    def open_connection(self) -> "psycopg2.extensions.connection":
        """A connection that is looked at while it is open."""
        connection: psycopg2.extensions.connection = super().open_connection()
        self._closed = threading.Event()
        look_at(connection.info.backend_pid, self.config, self._closed)
        return connection

    def close_connection(self) -> None:
        """The end of it."""
        if self._closed:
            self._closed.set()
        super().close_connection()

    @contextmanager
    def execute_query(self, query: AnyStr, *args: Any, **kwargs: Any) -> Iterator[DBApiCursor]:
        """A statement's answer."""
        with giving_up(self.config), super().execute_query(query, *args, **kwargs) as cursor:
            yield cursor

    @contextmanager
    def begin_transaction(self) -> Iterator[DBTransaction]:
        """A transaction, whose statements need not be this client's."""
        with giving_up(self.config), super().begin_transaction() as transaction:
            yield transaction


@connecting
class CopyJob(PostgresParquetCopyJob):
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

    def connect(self) -> "Connection":
        """Opens a connection that is looked at while it is open."""
        from adbc_driver_manager import dbapi

        config = cast(PostgresConfiguration, client_of(self).config)
        connection = dbapi.connect(driver=get_adbc_driver_location(), db_kwargs={"uri": url_of(patient(config))})
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            look_at(cursor.fetchall()[0][0], config, self._closed)
        return connection


def url_of(credentials: PostgresCredentials) -> str:
    """The URL as PostgreSQL's library reads it, to which a plus sign is no blank."""
    url, mark, query = credentials.to_native_representation().partition("?")
    return f"{url}{mark}{query.replace('+', '%20')}"


@contextmanager
def giving_up(config: PostgresConfiguration) -> Iterator[None]:
    """Raises Busy where a lock was not given in time."""
    try:
        yield
    except Exception as error:
        told = getattr(error, "dbapi_exception", error)
        if LOCK_NOT_AVAILABLE not in (getattr(told, "pgcode", None), getattr(told, "sqlstate", None)):
            raise
        waits: Waits = config.waits
        waits.gave_up = True
        raise Busy(
            f"Waited for {waits.last}, and gave up after {config.lock_timeout:g} s.\nEnd that there and run this again,"
            " or wait longer: lock_timeout (seconds) under [destination.postgres] of dlt's configuration"
        ) from error


def look_at(pid: int, config: PostgresConfiguration, closed: threading.Event) -> None:
    """Begins to look at what the connection of this server process waits for, until it is `closed`."""
    threading.Thread(target=_look, args=(pid, config, closed), daemon=True).start()


def _look(pid: int, config: PostgresConfiguration, closed: threading.Event) -> None:
    waits: Waits = config.waits
    while not closed.wait(min(LOOK, config.lock_timeout / 2 or LOOK)):
        with suppress(psycopg2.Error):  # the connection itself will say that the server cannot be asked
            found = _blocking(pid, patient(config))
            if found:
                waits.last = found
            if found and found not in waits.told:
                waits.told.add(found)
                end = f"; giving up after {config.lock_timeout:g} s" if config.lock_timeout else ""
                _log.warning("Waiting for %s%s", found, end)


_BLOCKING = """
    SELECT n.nspname || '.' || c.relname, b.pid, a.usename, a.application_name, host(a.client_addr), a.state
    FROM unnest(pg_blocking_pids(%(pid)s)) AS b (pid) LEFT JOIN pg_stat_activity a ON a.pid = b.pid
    LEFT JOIN pg_locks l ON l.pid = %(pid)s AND NOT l.granted
    LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    LIMIT 1"""


def _blocking(pid: int, credentials: PostgresCredentials) -> str | None:
    """What a server process waits for and who has it, None where it waits for no lock."""
    with closing(psycopg2.connect(url_of(credentials))) as connection, connection.cursor() as cursor:
        cursor.execute(_BLOCKING, {"pid": pid})
        found = cursor.fetchone()
    if found is None:
        return None
    table, holder, user, application, address, state = found
    about = [f"user {user}" if user else "", application, address and f"from {address}", state]
    who = f"process {holder} ({', '.join(filter(None, about))})" if holder else "a prepared transaction"
    return f"{f'the table {table}' if table else 'rows'} of PostgreSQL that {who} has locked"
