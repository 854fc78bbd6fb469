"""Whole loads into a DuckDB file in the current folder, as the command makes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dlt
import duckdb

import autopilothq
from autopilothq.warehouses.duckdb import direct
from calling import Call, Said
from contract.loading import Line, Row, write


def pipeline() -> dlt.Pipeline:
    """Returns the command's pipeline into `autopilot.duckdb` in the current folder."""
    destination = direct("autopilot.duckdb")
    return dlt.pipeline("autopilot_events", destination=destination, dataset_name="autopilothq")


def load(*lines: Line, file: str = "1.ndjson") -> dict[str, list[Row]]:
    """Writes the lines to a file of the archive, loads the archive, and returns the rows of all tables in order."""
    write(file, *lines)
    with held() as con:
        pipeline().run(autopilothq.archive("archive"))
        return _tables(con)


@contextmanager
def held(database: Path | str = "autopilot.duckdb") -> Iterator[duckdb.DuckDBPyConnection]:
    """Keeps the database open while the block runs, because a load opens the file twenty times, a third of its time.

    It has one thread: so few rows leave no work for a second one, and waking it takes a twentieth of a load.
    """
    with duckdb.connect(str(database)) as con:
        con.execute("SET TimeZone = 'UTC'; SET threads = 1")
        yield con


def holding(call: Call, *command: str) -> Call:
    """Returns a function that calls a command with more arguments, each time with the database kept open."""

    def called(*words: str) -> Said:
        with held():
            return call(*command, *words)

    return called


def tables() -> dict[str, list[Row]]:
    """Returns the rows of all tables of the dataset except dlt's, in order, with times in UTC."""
    with _connected() as con:
        return _tables(con)


def rows_in(table: str) -> list[Row]:
    """Returns the rows of one table as `tables` does, in half the time."""
    with _connected() as con:
        found = con.execute(f'SELECT * FROM autopilothq."{table}" ORDER BY ALL')
        names = [name for name, *_ in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _tables(con: duckdb.DuckDBPyConnection) -> dict[str, list[Row]]:
    columns: dict[str, list[str]] = {}
    listed = (
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'autopilothq' ORDER BY table_name, ordinal_position"
    )
    for table, column in _rows(con, listed):  # one query for all tables, because it takes longer than reading the rows
        if not table.startswith("_dlt_"):
            columns.setdefault(table, []).append(column)
    return {
        table: [
            dict(zip(names, row, strict=True))
            for row in _rows(con, f'SELECT * FROM autopilothq."{table}" ORDER BY ALL')
        ]
        for table, names in columns.items()
    }


def query(sql: str) -> list[tuple[Any, ...]]:
    """Returns the rows of a query of `autopilot.duckdb`."""
    with _connected() as con:
        return _rows(con, sql)


@contextmanager
def _connected() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect("autopilot.duckdb") as con:  # in the same mode as `held`, which may have it open
        con.execute("SET TimeZone = 'UTC'")
        yield con


def _rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return con.execute(sql).fetchall()
