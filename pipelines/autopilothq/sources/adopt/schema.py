"""The columns of tables that are to be adopted, before their rows are read."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import duckdb
import pyarrow.parquet as pq

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
    """Returns the columns of the tables; of files the first of each table is looked at.

    Left out are tables in JSON lines and Avro, and those in a bucket that are not in Parquet: they would be read whole.
    """
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
            elif work.format == "parquet":
                tables[work.table] = _columns_in_bucket(con, work)
    close_databases(works)
    return AdoptedSchema(tables, dialect)


def _columns_of(con: duckdb.DuckDBPyConnection, file: TableFile) -> dict[str, str | None]:
    sql = file_source(con, Path(file.path), file).sql
    described = con.execute(f"DESCRIBE FROM {sql}").fetchall()
    typed = file.format == "parquet"
    return {
        folded_name(str(name)): str(of) if typed else None for name, of, *_ in described if name != "file_row_number"
    }


def _columns_in_bucket(con: duckdb.DuckDBPyConnection, file: TableFile) -> dict[str, str | None]:
    with file.fs.open(file.path) as opened, engine.registered(con, there=pq.read_schema(opened).empty_table()):
        described = con.execute("DESCRIBE FROM there").fetchall()
    return {folded_name(str(name)): str(of) for name, of, *_ in described}
