"""Runs a user's query: a single read-only statement, on a connection that is as read-only as the destination allows.

`check_query` parses the query before it is sent. In addition, the connection keeps it from writing:

| destination | connection |
|---|---|
| DuckDB file | opened read-only, without access to other files, the network and extensions |
| PostgreSQL, Redshift | a READ ONLY transaction; on PostgreSQL with a named cursor, which accepts only a query |
| Delta tables | DuckDB in process, which has these tables and nothing else |
| SQLite, MySQL | a read-only session |
| others | the rights of the user whose credentials are used |
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dlt

from ..errors import AutopilothqError, InvalidQuery
from ..masking import masked
from .dataset.delta import DeltaDataset, QueryRows
from .dataset.sql_statements import UNTIMED
from .dlt_internals import (
    DBApiCursor,
    DestinationConnectionError,
    DuckDbCredentials,
    FilesystemClient,
    SqlClientBase,
)
from .dlt_internals.clients import client_for
from .query_check import check_query

QUERY_ROWS_PER_FETCH = 10_000
# By dialect, the statement that makes a session read-only, and the one that undoes that for the session's next client.
_SESSIONS = {
    "sqlite": ("PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE"),
}


@contextmanager
def run_query(dataset: dlt.Dataset, sql: str) -> Iterator[tuple[list[str], Iterator[QueryRows]]]:
    """Yields the names of the result's columns and its rows in batches, from a new connection.

    Raises InvalidQuery, before anything is sent to the warehouse, unless the query is one that only reads. Raises
    DestinationConnectionError if the connection cannot be opened.
    """
    if isinstance(dataset.destination_client, FilesystemClient):
        with DeltaDataset(dataset.destination_client).answer(sql) as answer:
            yield answer
        return
    client = dataset.sql_client
    dialect = client.capabilities.sqlglot_dialect
    check_query(sql, dialect)
    with _opened(client), _read_only_cursor(client, dialect, sql) as cursor:
        first = cursor.fetchmany(QUERY_ROWS_PER_FETCH)
        keys = getattr(cursor, "keys", None)  # SQLAlchemy's results have these and no `description`
        names = list(keys()) if keys else [column[0] for column in cursor.description or ()]
        yield names, itertools.chain([first] if first else [], iter(lambda: cursor.fetchmany(QUERY_ROWS_PER_FETCH), []))


@contextmanager
def _opened(client: SqlClientBase[Any]) -> Iterator[None]:
    """Opens a client for the block. Raises DestinationConnectionError if that fails.

    Some of dlt's clients raise the driver's error instead, which looks like that of a wrong query.
    """
    is_open = False
    try:
        with client:
            is_open = True
            yield
    except Exception as error:
        if is_open or isinstance(error, AutopilothqError | DestinationConnectionError):
            raise
        raise DestinationConnectionError(type(client).__name__, client.dataset_name, str(error), error) from error


@contextmanager
def _read_only_cursor(client: SqlClientBase[Any], dialect: str | None, sql: str) -> Iterator[DBApiCursor]:
    """Yields a cursor over the result, on a connection that cannot write if the destination supports that."""
    if dialect in ("postgres", "redshift"):
        from .postgres_values import keep_values  # needs the driver, which not everyone has

        with client.begin_transaction():
            client.native_connection.readonly = True
            # The server keeps the result of a named cursor; without a name the driver would hold all of it in memory.
            named = ["autopilothq_query"] if dialect == "postgres" else []
            if named:
                client.execute_sql(UNTIMED)
            with client.native_connection.cursor(*named) as cursor:
                keep_values(cursor)
                cursor.execute(sql)
                yield cursor
        return
    on, off = _SESSIONS.get(dialect or "", (None, None))
    credentials = getattr(client, "credentials", None)
    if isinstance(credentials, DuckDbCredentials) and credentials.read_only:
        client.execute_sql("SET enable_external_access = false")
        client.execute_sql("SET lock_configuration = true")
    if on:
        client.execute_sql(on)
    try:
        with client.execute_query(sql) as cursor:
            yield cursor
    finally:
        if off:
            client.execute_sql(off)


def _read_only_dataset(pipeline: dlt.Pipeline, schema: dlt.Schema) -> dlt.Dataset:
    """Returns the dataset of a pipeline's schema, on a new connection. A DuckDB file is opened read-only."""
    from .duckdb import direct

    client: Any = client_for(pipeline, schema)
    credentials = getattr(client.config, "credentials", None)
    destination: Any = pipeline.destination
    if isinstance(credentials, DuckDbCredentials) and credentials.external_conn() is None:
        same = DuckDbCredentials(credentials.database, read_only=True, extensions=credentials.extensions)
        same.global_config = credentials.global_config
        destination = direct(credentials=same, wait=getattr(client.config, "wait", 0))
    name = client.dataset_name if isinstance(client, FilesystemClient) else client.sql_client.dataset_name
    return dlt.dataset(destination, name, schema=schema)


def read_query(sql: str) -> Iterator[QueryRows]:
    """Yields the rows of a user's query on the dataset of the running source, in batches.

    Raises InvalidQuery if the query does not only read, or the warehouse reports an error in it.
    """
    try:
        with run_query(_read_only_dataset(dlt.current.pipeline(), dlt.current.source().schema), sql) as (_, rows):
            yield from rows
    except (AutopilothqError, DestinationConnectionError):
        raise
    except Exception as error:  # drivers have their own exceptions for wrong SQL
        raise InvalidQuery(f"The warehouse cannot answer the query: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Returns the first line of an error's text, or the error's type if there is no text, with secrets masked."""
    return masked(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__))
