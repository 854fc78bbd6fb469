"""Whole loads into a DuckDB file in the working folder, as the command makes them."""

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
    """The pipeline into `autopilot.duckdb` in the working folder, as the command has it."""
    destination = direct("autopilot.duckdb")
    return dlt.pipeline("autopilot_events", destination=destination, dataset_name="autopilothq")


def load(*lines: Line, file: str = "1.ndjson") -> dict[str, list[Row]]:
    """Writes the lines to a file of the archive, loads the archive, and gives the rows of all tables by `id`."""
    write(file, *lines)
    with held() as con:
        pipeline().run(autopilothq.archive("archive"))
        return _tables(con)


@contextmanager
def held(database: Path | str = "autopilot.duckdb") -> Iterator[duckdb.DuckDBPyConnection]:
    """Keeps the database open meanwhile: a load connects twenty times, and opening the file is a third of its time.

    It has one thread: a second would find nothing to do in so few rows, and to wake it takes a twentieth of a load.
    """
    with duckdb.connect(str(database)) as con:
        con.execute("SET TimeZone = 'UTC'; SET threads = 1")
        yield con


def holding(call: Call, *command: str) -> Call:
    """Calls a command with more words, each time with the database open."""

    def called(*words: str) -> Said:
        with held():
            return call(*command, *words)

    return called


def tables() -> dict[str, list[Row]]:
    """The rows of all tables of the dataset, dlt's own left out, by their first column; times are in UTC."""
    with _connected() as con:
        return _tables(con)


def rows_in(table: str) -> list[Row]:
    """The rows of one table, as `tables` gives them: reading all takes twice as long."""
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
    for table, column in _rows(con, listed):  # at once: this takes longer than all of the rows
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
    """The rows of a query of `autopilot.duckdb`."""
    with _connected() as con:
        return _rows(con, sql)


@contextmanager
def _connected() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect("autopilot.duckdb") as con:  # as `held` does, so that it can be open already
        con.execute("SET TimeZone = 'UTC'")
        yield con


def _rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return con.execute(sql).fetchall()
