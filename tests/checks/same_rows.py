"""Compares what a destination has with what DuckDB has after the same loads."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import duckdb

from faults.loads import line

KEYS = ("bob", "Bob", "bob ", " bob", "böb", "bo\u0308b", "bob\U0001f986", "b" * 300, "b" * 299 + "B")
LONG = "é\U0001f986" * 40_000
# Columns that differ in each load.
CLOCKS = {"uuid_ts", "load_id", "loaded_at", "rejected_at", "discarded_at"}


def write_keys(file: str, number: int = 0, keys: Sequence[str] = KEYS) -> None:
    """Writes a track and an identify call of each key, one of them with a long text, and a broken line."""
    lines = [
        line({"type": "track", "event": "Order", "messageId": key, "userId": key, "properties": {"text": text}})
        + line({"type": "identify", "messageId": f"i{number} {key}", "userId": key, "traits": {"plan": f"{number}"}})
        for key, text in zip_longest(keys, [LONG], fillvalue="short")
    ]
    Path(file).write_bytes(b"".join([*lines, b"no JSON\n"]))


def assert_same_rows(
    rows: Callable[[str, Sequence[str]], list[tuple[Any, ...]]],
    stored: Callable[[Any], Any] = lambda value: value,
    file: str = "autopilot.duckdb",
) -> None:
    """Fails unless a destination has the tables and rows that DuckDB has.

    `rows` returns the destination's rows of a table with these columns, sorted by `repr`. `stored` returns a value of
    DuckDB as the destination has it.
    """
    with duckdb.connect(file, read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        tables = con.execute(
            "SELECT table_name, list(column_name ORDER BY column_name) FROM duckdb_columns()"
            " WHERE schema_name = 'autopilothq' AND NOT starts_with(table_name, '_dlt') GROUP BY table_name"
        ).fetchall()
        assert {"tracks", "users", "email_opened", "_audit", "_rejects", "_discards"} <= {table for table, _ in tables}
        for table, columns in tables:
            names = [column for column in columns if column not in CLOCKS]
            cells = ", ".join(f'"{name}"' for name in names)
            found = con.execute(f'SELECT {cells} FROM autopilothq."{table}"').fetchall()
            assert rows(table, names) == sorted((tuple(map(stored, row)) for row in found), key=repr), table
