"""Runs a user's query: one statement that reads, on a connection that can do nothing else.

Before it is sent, `check_query` parses it. What keeps it from writing then:

| destination | connection |
|---|---|
| DuckDB file | opened for reading alone, without access to other files, the network and extensions |
| PostgreSQL, Redshift | a transaction that is READ ONLY; on PostgreSQL with a cursor, which takes a query only |
| Delta tables | DuckDB in process, which has these tables and nothing else |
| SQLite, MySQL | a session that is read-only |
| others | the rights of the user whose credentials are used |
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dlt
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from .dataset.delta import DeltaDataset, QueryRows
from .dlt_internals import DBApiCursor, FilesystemClient, SqlClientBase
from .query_check import check_query

ROWS_PER_ANSWER = 10_000  # that are fetched at a time
# Sessions that several clients use one after the other: made read-only, and made as they were.
_SESSIONS = {
    "sqlite": ("PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE"),
}


@contextmanager
def run_query(dataset: dlt.Dataset, sql: str) -> Iterator[tuple[list[str], Iterator[QueryRows]]]:
    """Gives the names of the answer's columns, and its rows, some at a time. The connection is the query's own.

    Raises InvalidQuery, before the warehouse is asked.
    """
    if isinstance(dataset.destination_client, FilesystemClient):
        with DeltaDataset(dataset.destination_client).answer(sql) as answer:
            yield answer
        return
    client = dataset.sql_client
    dialect = client.capabilities.sqlglot_dialect
    check_query(sql, dialect)
    with client, _reading(client, dialect, sql) as cursor:
        first = cursor.fetchmany(ROWS_PER_ANSWER)
        keys = getattr(cursor, "keys", None)  # SQLAlchemy's word
        names = list(keys()) if keys else [column[0] for column in cursor.description or ()]
        yield names, itertools.chain([first] if first else [], iter(lambda: cursor.fetchmany(ROWS_PER_ANSWER), []))


@contextmanager
def _reading(client: SqlClientBase[Any], dialect: str | None, sql: str) -> Iterator[DBApiCursor]:
    """Gives a cursor over the answer, on a connection that cannot write where the destination supports that."""
    if dialect in ("postgres", "redshift"):
        with client.begin_transaction():
            client.native_connection.readonly = True
            # The server keeps the answer of a named cursor: the driver would hold the whole of it in memory.
            named = ["autopilothq_query"] if dialect == "postgres" else []
            with client.native_connection.cursor(*named) as cursor:
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


def for_reading(pipeline: dlt.Pipeline) -> dlt.Dataset:
    """Returns the dataset of a pipeline, on a connection of its own; a DuckDB file is opened read-only."""
    from .duckdb import direct

    config = pipeline.destination_client().config
    credentials = getattr(config, "credentials", None)
    destination: Any = pipeline.destination
    if isinstance(credentials, DuckDbCredentials) and credentials.external_conn() is None:
        same = DuckDbCredentials(credentials.database, read_only=True, extensions=credentials.extensions)
        same.global_config = credentials.global_config
        destination = direct(credentials=same, wait=getattr(config, "wait", 0))
    # Files in a bucket are tables by what the schema says of them.
    schema = pipeline.default_schema if pipeline.schema_names else dlt.Schema("autopilothq")
    return dlt.dataset(destination, pipeline.dataset_name, schema=schema)


def answers(pipeline: dlt.Pipeline, sql: str) -> Iterator[QueryRows]:
    """Yields the rows of a user's query of a pipeline's dataset, some at a time. Raises InvalidQuery."""
    with run_query(for_reading(pipeline), sql) as (_, rows):
        yield from rows
