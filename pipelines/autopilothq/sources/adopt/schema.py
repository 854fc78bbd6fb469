"""The columns of tables that are to be adopted, before their rows are read."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import duckdb

from ...projection import engine
from .databases import DatabaseTable, PostgresSource, close_databases
from .files import TableFile, folded_name
from .origin import AdoptedTables
from .waiting import file_source


class AdoptedSchema(NamedTuple):
    """The types of the columns of each table, as a dialect of SQL spells them; None where files have no types."""

    tables: Mapping[str, Mapping[str, str | None]]
    dialect: str


def read_adopted_schema(origin: AdoptedTables) -> AdoptedSchema:
    """Returns the columns of the tables; of files the first of each table is looked at, but none in a bucket."""
    works, _ = origin.works()
    tables: dict[str, dict[str, str | None]] = {}
    dialect = "duckdb"
    with TemporaryDirectory() as scratch, engine.connect(scratch, 200, 1) as con:
        for work in works:
            if work.table in tables:
                continue
            if isinstance(work, DatabaseTable):
                dialect = "postgres" if isinstance(work.database, PostgresSource) else dialect
                tables[work.table] = {folded_name(name): of for name, of in work.columns.items()}
            elif work.fs is None and work.format in ("parquet", "csv"):
                tables[work.table] = _columns_of(con, work)
    close_databases(works)
    return AdoptedSchema(tables, dialect)


def _columns_of(con: duckdb.DuckDBPyConnection, file: TableFile) -> dict[str, str | None]:
    sql = file_source(con, Path(file.path), file).sql
    described = con.execute(f"DESCRIBE FROM {sql}").fetchall()
    typed = file.format == "parquet"
    return {
        folded_name(str(name)): str(of) if typed else None for name, of, *_ in described if name != "file_row_number"
    }
