"""Whole loads into a DuckDB file in the working folder, as the command makes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dlt
import duckdb

import autopilothq
from autopilothq.warehouses.duckdb import direct
from contract.loading import Line, Row, write


def pipeline() -> dlt.Pipeline:
    """The pipeline into `autopilot.duckdb` in the working folder, as the command has it."""
    destination = direct("autopilot.duckdb")
    return dlt.pipeline("autopilot_events", destination=destination, dataset_name="autopilothq")


def load(*lines: Line, file: str = "1.ndjson") -> dict[str, list[Row]]:
    """Writes the lines to a file of the archive, loads the archive, and gives the rows of all tables by `id`."""
    write(file, *lines)
    with held():
        pipeline().run(autopilothq.archive("archive"))
    return tables()


@contextmanager
def held(database: Path | str = "autopilot.duckdb") -> Iterator[None]:
    """Keeps the database open meanwhile: a load connects twenty times, and opening the file is a third of its time."""
    with duckdb.connect(str(database)):
        yield


def tables() -> dict[str, list[Row]]:
    """The rows of all tables of the dataset, dlt's own left out, by their first column; times are in UTC."""
    with _connected() as con:  # once: connecting takes longer than all of these queries
        names = _rows(
            con, "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = 'autopilothq'"
        )
        found = {}
        for name in sorted(name for (name,) in names if not name.startswith("_dlt_")):
            columns = [column for column, _ in _rows(con, _columns(name))]
            rows = _rows(con, f'SELECT * FROM autopilothq."{name}" ORDER BY ALL')
            found[name] = [dict(zip(columns, row, strict=True)) for row in rows]
        return found


def columns_of(table: str) -> list[tuple[str, str]]:
    """A table's columns in their order, with DuckDB's words for their types."""
    return query(_columns(table))


def query(sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query of `autopilot.duckdb`."""
    with _connected() as con:
        return _rows(con, sql)


def _columns(table: str) -> str:
    return (
        "SELECT column_name, data_type FROM information_schema.columns"
        f" WHERE table_schema = 'autopilothq' AND table_name = '{table}' ORDER BY ordinal_position"
    )


@contextmanager
def _connected() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect("autopilot.duckdb", read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


def _rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in con.sql(sql).to_arrow_table().to_pylist()]
