"""A query of the user's own: one statement that reads, on a connection that can do nothing else.

Before it is sent, the query is parsed: by DuckDB's own parser for DuckDB, by sqlglot for others. What holds it then:

| destination | connection |
|---|---|
| DuckDB file | opened for reading alone, without access to other files, the network and extensions |
| PostgreSQL, Redshift | a transaction that is READ ONLY; on PostgreSQL with a cursor, which takes a query only |
| SQLite, MySQL | a session that is read-only |
| others | the rights of the user whose credentials are used |
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dlt
import duckdb
import sqlglot
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from sqlglot import exp
from sqlglot.errors import SqlglotError

from ..errors import InvalidQuery
from .dlt_internals import DBApiCursor, SqlClientBase

QueryRows = Sequence[Sequence[Any]]
ROWS = 10_000  # that are fetched at a time
# Table functions of DuckDB that change settings or write files, and those that run what a text says.
_ACTING = frozenset(
    {
        "checkpoint", "disable_logging", "disable_profiling", "enable_logging", "enable_profiling", "force_checkpoint",
        "json_execute_serialized_sql", "query", "truncate_duckdb_logs",
    }
)  # fmt: skip
# What sqlglot may find in a query that changes or locks rows, or that it knows by name only.
_CHANGES = (exp.DML, exp.DDL, exp.Into, exp.Lock, exp.Command, exp.Set, exp.Copy)
# Sessions that several clients use one after the other: made read-only, and made as they were.
_SESSIONS = {
    "sqlite": ("PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE"),
}


def check_query(sql: str, dialect: str | None) -> None:
    """Raises InvalidQuery unless the text is one statement that reads; DuckDB's error where DuckDB cannot parse it.

    Example: `check("SELECT 1; DROP TABLE people", "postgres")` raises.
    """
    found = _of_duckdb(sql) if dialect == "duckdb" else _of_others(sql, dialect)
    if found != ["SELECT"]:
        got = f"{len(found)} statements ({', '.join(found[:5])})" if len(found) > 1 else found[0] if found else "none"
        raise InvalidQuery(
            f"Expected one query that only reads, such as SELECT ... or WITH ... SELECT, got {got}.\n"
            "Leave one SELECT, and do all else in the warehouse itself."
        )


def _of_duckdb(sql: str) -> list[str]:
    """What kind each statement is of; SELECT is one that reads."""
    # PIVOT is two: it makes a temporary type first. What stands for that has no text of its own.
    found = [one.type.name for one in duckdb.extract_statements(sql) if one.type.name != "CREATE" or one.query]
    starts = [start for start, _ in duckdb.tokenize(sql)]
    text = sql.encode()
    words = [text[start:end].split() for start, end in itertools.pairwise([*starts, len(text)])]
    tokens = [word[0].decode(errors="replace").strip('"').lower() if word else "" for word in words]
    if tokens[:1] == ["pragma"]:
        return ["PRAGMA"]
    called = next((name for name, sign in itertools.pairwise(tokens) if sign == "(" and name in _ACTING), None)
    return [f"{called}()"] if called else found


def _of_others(sql: str, dialect: str | None) -> list[str]:
    try:
        parsed = sqlglot.parse(sql, dialect=dialect)
    except SqlglotError as error:
        first: Any = next(iter(getattr(error, "errors", ())), {})
        place = f" in line {first['line']}, column {first['col']}" if first else ""
        return [f"what cannot be read as SQL of {dialect or 'any kind'}{place}"]
    return [_kind(one) for one in parsed if one and not isinstance(one, exp.Semicolon)]


def _kind(statement: exp.Expr) -> str:
    changes = next((node for node in statement.walk() if isinstance(node, _CHANGES) and node is not statement), None)
    if not isinstance(statement, exp.Query):
        return str(statement.this).upper() if isinstance(statement, exp.Command) else statement.key.upper()
    return "SELECT" if changes is None else f"SELECT with {changes.key.upper()}"


@contextmanager
def run_query(dataset: dlt.Dataset, sql: str) -> Iterator[tuple[list[str], Iterator[QueryRows]]]:
    """The names of the answer's columns, and its rows, some at a time. The connection is the query's own.

    Raises InvalidQuery, before the warehouse is asked.
    """
    client = dataset.sql_client
    dialect = client.capabilities.sqlglot_dialect
    check_query(sql, dialect)
    with client, _reading(client, dialect, sql) as cursor:
        first = cursor.fetchmany(ROWS)
        keys = getattr(cursor, "keys", None)  # SQLAlchemy's word
        names = list(keys()) if keys else [column[0] for column in cursor.description or ()]
        yield names, itertools.chain([first] if first else [], iter(lambda: cursor.fetchmany(ROWS), []))


@contextmanager
def _reading(client: SqlClientBase[Any], dialect: str | None, sql: str) -> Iterator[DBApiCursor]:
    """A cursor over the answer, on a connection that cannot write as far as the destination knows such."""
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
    """The dataset of a pipeline, on a connection of its own; a DuckDB file is opened for reading alone."""
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
