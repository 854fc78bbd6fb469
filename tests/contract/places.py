"""The destinations in which whole loads are checked against the contract: DuckDB, PostgreSQL, and a lake on disk."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import duckdb
import psycopg2
import pyarrow as pa
from deltalake import DeltaTable

import autopilothq
from autopilothq.projection.types import ARROW
from autopilothq.warehouses.delta import lake
from autopilothq.warehouses.duckdb import direct
from autopilothq.warehouses.postgres import postgres
from contract.duck import held
from contract.loading import Line, Row, write

DATASET = "autopilothq"
Ask = Callable[[str], list[tuple[Any, ...]]]
"""Returns the rows of a query."""


class Found(NamedTuple):
    """A table: its columns in order, with the contract's names of their types, and its rows in the order of keys."""

    columns: list[tuple[str, str]]
    rows: list[Row]


class Place(ABC):
    """A destination, with a way to read it that does not use the loader."""

    longest = 80
    """The length of the longest name that the tests try there."""
    options: dict[str, Any] = {}  # noqa: RUF012 - the source's options there

    def __init__(self, destination: Any) -> None:
        self._destination = destination
        self._found: dict[str, Found] = {}

    def pipeline(self) -> dlt.Pipeline:
        """Returns the pipeline that loads there."""
        return dlt.pipeline("autopilot_events", destination=self._destination, dataset_name=DATASET)

    def load(self, *lines: Line, file: str = "1.ndjson") -> dict[str, list[Row]]:
        """Writes the lines to a file of the archive, loads the archive, and returns the rows of all tables."""
        write(file, *lines)
        return self.load_again()

    def load_again(self) -> dict[str, list[Row]]:
        """Loads the archive, and returns the rows of all tables except dlt's, with times in UTC."""
        with self.held():
            self.pipeline().run(autopilothq.archive("archive", **self.options))
        self._found = self.found()
        return {name: table.rows for name, table in self._found.items()}

    def columns_of(self, table: str) -> list[tuple[str, str]]:
        """Returns a table's columns in order after the last load, with the contract's names for their types."""
        return self._found[table].columns

    def held(self) -> AbstractContextManager[object]:
        """Keeps the destination open during a load if opening it takes long."""
        return nullcontext()

    @abstractmethod
    def found(self) -> dict[str, Found]:
        """Returns all tables of the dataset except dlt's."""

    @abstractmethod
    def complete_loads(self) -> list[str]:
        """Returns the ids of the complete loads, as dlt keeps them."""


class Warehouse(Place):
    """A destination that answers SQL."""

    words: dict[str, str]
    """The contract's names for its types."""

    @abstractmethod
    def connected(self) -> AbstractContextManager[Ask]:
        """Opens a connection, and returns the function that runs queries on it."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a query."""
        with self.connected() as ask:
            return ask(sql)

    def found(self) -> dict[str, Found]:
        """Returns the tables that its information_schema lists."""
        columns: dict[str, list[tuple[str, str]]] = {}
        with self.connected() as ask:
            for table, column, of in ask(
                "SELECT table_name, column_name, data_type FROM information_schema.columns"
                f" WHERE table_schema = '{DATASET}' ORDER BY table_name, ordinal_position"
            ):
                if not table.startswith("_dlt_"):
                    columns.setdefault(table, []).append((column, self.words[of]))
            return {table: made(of, ask(f'SELECT * FROM {DATASET}."{table}"')) for table, of in sorted(columns.items())}

    def complete_loads(self) -> list[str]:
        """Returns the ids in dlt's table."""
        return [load for (load,) in self.query(f"SELECT load_id FROM {DATASET}._dlt_loads WHERE status = 0 ORDER BY 1")]


class DuckDb(Warehouse):
    """The command's DuckDB: `autopilot.duckdb` in the current folder."""

    words = {  # noqa: RUF012
        "VARCHAR": "text", "BIGINT": "bigint", "DOUBLE": "double", "BOOLEAN": "bool",
        "TIMESTAMP WITH TIME ZONE": "timestamp",
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__(direct("autopilot.duckdb"))

    def held(self) -> AbstractContextManager[object]:
        """Keeps the file open."""
        return held()

    @contextmanager
    def connected(self) -> Iterator[Ask]:
        """Opens the file, and yields the function that runs queries on it."""
        with duckdb.connect("autopilot.duckdb", read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            yield lambda sql: [tuple(row.values()) for row in con.sql(sql).to_arrow_table().to_pylist()]


class PostgreSql(Warehouse):
    """The command's destination on a real PostgreSQL."""

    longest = 63
    words = {  # noqa: RUF012
        "character varying": "text", "bigint": "bigint", "numeric": "double", "boolean": "bool",
        "timestamp with time zone": "timestamp",
    }  # fmt: skip

    def __init__(self, url: str) -> None:
        super().__init__(postgres(url))
        self._url = url

    @contextmanager
    def connected(self) -> Iterator[Ask]:
        """Connects to the server, and yields the function that runs queries on it."""
        with closing(psycopg2.connect(self._url)) as server, server.cursor() as cursor:

            def ask(sql: str) -> list[tuple[Any, ...]]:
                cursor.execute(sql)
                return cursor.fetchall()

            yield ask


class Lake(Place):
    """The command's lake: Delta tables in the folder `bucket` of the current folder.

    On a real S3 API, each request takes as long as all the rest. Other tests compare whole tables there with DuckDB's.
    """

    options = {"table_format": "delta"}  # noqa: RUF012

    def __init__(self) -> None:
        self._dataset = Path("bucket", DATASET).absolute()
        super().__init__(lake(self._dataset.parent.as_uri()))

    def found(self) -> dict[str, Found]:
        """Returns the tables in folders that are Delta tables."""
        words: dict[pa.DataType, str] = {of: str(name) for name, of in ARROW.items()}
        tables = {}
        for log in self._dataset.glob("*/_delta_log"):
            table = DeltaTable(log.parent)
            schema = pa.schema(table.schema().to_arrow())
            rows = [tuple(row.values()) for row in pa.table(table.scan()).select(schema.names).to_pylist()]
            tables[log.parent.name] = made([(field.name, words[field.type]) for field in schema], rows)
        return dict(sorted(tables.items()))

    def complete_loads(self) -> list[str]:
        """Returns the ids in dlt's files."""
        loads = [json.loads(path.read_bytes()) for path in (self._dataset / "_dlt_loads").iterdir()]
        return sorted(load["load_id"] for load in loads if load["status"] == 0)


def made(columns: list[tuple[str, str]], rows: list[tuple[Any, ...]]) -> Found:
    names = [name for name, _ in columns]
    cells = [list(map(_cell, row)) for row in rows]
    return Found(columns, [dict(zip(names, row, strict=True)) for row in sorted(cells, key=lambda row: row[:2])])


def _cell(cell: Any) -> Any:
    if isinstance(cell, Decimal):
        return float(cell)
    return cell.astimezone(UTC) if isinstance(cell, datetime) else cell
