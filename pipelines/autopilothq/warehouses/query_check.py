"""Checks that a user's query only reads. DuckDB's own parser parses it for DuckDB, sqlglot for others."""

import itertools
from typing import Any

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from ..errors import InvalidQuery

# Table functions of DuckDB that change settings or write files, and those that run SQL from a text.
_ACTING = frozenset(
    {
        "checkpoint", "disable_logging", "disable_profiling", "enable_logging", "enable_profiling", "force_checkpoint",
        "json_execute_serialized_sql", "query", "truncate_duckdb_logs",
    }
)  # fmt: skip
# Expressions of sqlglot that change or lock rows, or that it does not parse further.
_CHANGES = (exp.DML, exp.DDL, exp.Into, exp.Lock, exp.Command, exp.Set, exp.Copy)


def check_query(sql: str, dialect: str | None) -> None:
    """Raises InvalidQuery unless the text is one read-only statement, or DuckDB's error if DuckDB cannot parse it.

    Example: `check_query("SELECT 1; DROP TABLE people", "postgres")` raises.
    """
    found = _of_duckdb(sql) if dialect == "duckdb" else _of_others(sql, dialect)
    if found != ["SELECT"]:
        got = f"{len(found)} statements ({', '.join(found[:5])})" if len(found) > 1 else found[0] if found else "none"
        raise InvalidQuery(
            f"Expected one query that only reads, such as SELECT ... or WITH ... SELECT, got {got}.\n"
            "Keep one SELECT, and do everything else in the warehouse itself."
        )


def _of_duckdb(sql: str) -> list[str]:
    """Returns the kind of each statement; SELECT is one that only reads."""
    # PIVOT counts as two: it creates a temporary type first, in a statement that has no text of its own.
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
        where = f" in line {first['line']}, column {first['col']}" if first else ""
        kind = f"{dialect} SQL" if dialect else "SQL"
        return [f"text that is not valid {kind}{where}"]
    return [_kind(one) for one in parsed if one and not isinstance(one, exp.Semicolon)]


def _kind(statement: exp.Expr) -> str:
    changes = next((node for node in statement.walk() if isinstance(node, _CHANGES) and node is not statement), None)
    if not isinstance(statement, exp.Query):
        return str(statement.this).upper() if isinstance(statement, exp.Command) else statement.key.upper()
    return "SELECT" if changes is None else f"SELECT with {changes.key.upper()}"
