"""Checks that a user's query only reads. Queries for DuckDB are parsed by DuckDB itself, others by sqlglot."""

import itertools
import re
from typing import Any

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from ..errors import InvalidQuery

# Table functions of DuckDB that change settings or write files, and those that run SQL from a text.
_WRITING = frozenset(
    {
        "checkpoint", "disable_logging", "disable_profiling", "enable_logging", "enable_profiling", "force_checkpoint",
        "json_execute_serialized_sql", "query", "truncate_duckdb_logs",
    }
)  # fmt: skip
_SPACES = re.compile("[\u00a0\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff]")  # DuckDB reads these as blanks, too
_TABLE = re.compile(r"\A\s*TABLE\s", re.IGNORECASE)  # PostgreSQL's short form of SELECT * FROM, unknown to sqlglot
_TOKEN = re.compile(rb'"[^"]*|[\w$\x80-\xff]+|.', re.DOTALL)  # a word, quoted or not, or one other character
# Expressions of sqlglot that change or lock rows, or that it does not parse further.
_CHANGES = (exp.DML, exp.DDL, exp.Into, exp.Lock, exp.Command, exp.Set, exp.Copy)


def check_query(sql: str, dialect: str | None) -> None:
    """Raises InvalidQuery unless the text is one read-only statement. Raises DuckDB's error if DuckDB cannot parse it.

    Example: `check_query("SELECT 1; DROP TABLE people", "postgres")` raises.
    """
    found = _kinds_in_duckdb(sql) if dialect == "duckdb" else _kinds_elsewhere(sql, dialect)
    if found != ["SELECT"]:
        got = f"{len(found)} statements ({', '.join(found[:5])})" if len(found) > 1 else found[0] if found else "none"
        raise InvalidQuery(
            f"Expected one query that only reads, such as SELECT ... or WITH ... SELECT, got {got}.\n"
            "Keep one SELECT, and do everything else in the warehouse itself."
        )


def _kinds_in_duckdb(sql: str) -> list[str]:
    """Returns the kind of each statement, or only the name of a called function that writes.

    A kind is SELECT only if the statement only reads.
    """
    # PIVOT is two statements: the first one, which has no text, creates a temporary type.
    statements = [(statement.type.name, statement.query) for statement in duckdb.extract_statements(sql)]
    kinds = [kind for kind, text in statements if kind != "CREATE" or text]
    text = _SPACES.sub(" ", sql)
    encoded = text.encode()
    found = [_TOKEN.match(encoded, start) for start, _ in duckdb.tokenize(text)]
    tokens = [token[0].decode(errors="replace").strip('"').lower() for token in found if token]
    if tokens[:1] == ["pragma"]:
        return ["PRAGMA"]
    called = next((name for name, sign in itertools.pairwise(tokens) if sign == "(" and name in _WRITING), None)
    return [f"{called}()"] if called else kinds


def _kinds_elsewhere(sql: str, dialect: str | None) -> list[str]:
    if dialect == "postgres":
        sql = _TABLE.sub("SELECT * FROM ", sql)
    try:
        parsed = sqlglot.parse(sql, dialect=dialect)
    except SqlglotError as error:
        first: Any = next(iter(getattr(error, "errors", ())), {})
        where = f" in line {first['line']}, column {first['col']}" if first else ""
        kind = f"{dialect} SQL" if dialect else "SQL"
        return [f"text that is not valid {kind}{where}"]
    return [_kind(statement) for statement in parsed if statement and not isinstance(statement, exp.Semicolon)]


def _kind(statement: exp.Expr) -> str:
    changes = next((node for node in statement.walk() if isinstance(node, _CHANGES) and node is not statement), None)
    if not isinstance(statement, exp.Query):
        return str(statement.this).upper() if isinstance(statement, exp.Command) else statement.key.upper()
    return "SELECT" if changes is None else f"SELECT with {changes.key.upper()}"
