"""Answers ClickHouse's drivers with its engine in this process (chDB), because no package has its server.

Statements and files go to the engine as the drivers would send them; only the connection is missing. A program that
shall use it calls `install` before dlt imports the drivers' functions.
"""

import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

READS = ("SELECT", "WITH", "SHOW", "EXISTS", "DESCRIBE")
URL = "clickhouse://tests:tests@localhost:9000/default"


class Engine:
    """The engine with its data in `folder`. Only one process at a time can have it open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._client: Any = None

    def open(self) -> Any:
        """Returns the client of the open engine."""
        from clickhouse_connect.driver import create_client

        if self._client is None:
            self._client = create_client(dsn=f"chdb://{self._folder}", tz_mode="schema")
        return self._client

    def close(self) -> None:
        """Lets another process open the engine."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Runs a statement, and returns its rows."""
        if statement.lstrip("( \n").upper().startswith(READS):
            return list(map(tuple, self.open().query(statement).result_rows))
        self.open().command(statement)
        return []

    def rows(self, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """Returns the rows of a table of the dataset `autopilothq`, sorted."""
        names = ", ".join(f"`{column}`" for column in columns)
        return sorted(self.ask(f"SELECT {names} FROM `autopilothq___{table}`"), key=repr)


class Cursor:
    """A cursor as `clickhouse_driver` has it, which writes the values into the statement."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: list[tuple[Any, ...]] = []
        self.description: list[tuple[Any, ...]] | None = None

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, statement: str, values: Any) -> None:
        """Runs a statement; errors begin with ClickHouse's code, as the driver's do."""
        from clickhouse_connect.driver.exceptions import Error
        from clickhouse_driver.dbapi import OperationalError
        from clickhouse_driver.util.escape import escape_params

        server = SimpleNamespace(get_timezone=lambda: "UTC")
        text = statement % escape_params(values, SimpleNamespace(server_info=server))
        try:
            if text.lstrip("( \n").upper().startswith(READS):
                found = self._engine.open().query(text)
                self._rows = list(map(tuple, found.result_rows))
                self.description = [(name, None, None, None, None, None, None) for name in found.column_names]
            else:
                self._engine.open().command(text)
                self._rows, self.description = [], None
        except Error as error:
            told = re.search(r"Code: \d+\..*", str(error), re.DOTALL)
            raise OperationalError(told[0] if told else str(error)) from error

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.fetchmany(len(self._rows))

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(iter(self.fetchmany(1)), None)

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows

    def close(self) -> None:
        """Does nothing, as the engine stays open."""


class Connection:
    """A connection as `clickhouse_driver` has it: every statement is committed at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def cursor(self) -> Cursor:
        return Cursor(self._engine)

    def commit(self) -> None:
        """Does nothing."""

    rollback = close = commit


class FileClient:
    """A client as `clickhouse_connect` has it, for its function that inserts a file."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> "FileClient":
        return self

    def __exit__(self, *_: object) -> None:
        """Does nothing, as the engine stays open."""

    def raw_insert(
        self,
        table: str,
        column_names: Iterable[str],
        insert_block: IO[bytes],
        *,
        settings: Mapping[str, Any],
        fmt: str,
        compression: str,
    ) -> Any:
        """Inserts a file, without the settings for a connection."""
        rows = insert_block.read()
        rows = gzip.decompress(rows) if compression == "gz" else rows
        kept = {name: value for name, value in settings.items() if "http" not in name and "lightweight" not in name}
        return self._engine.open().raw_insert(table, column_names, rows, settings=kept, fmt=fmt)


def install(folder: Path) -> Engine:
    """Replaces the drivers' functions that connect; returns the engine that answers."""
    import clickhouse_connect
    import clickhouse_driver

    engine = Engine(folder)
    clickhouse_driver.connect = lambda **_: Connection(engine)
    clickhouse_connect.create_client = lambda **_: FileClient(engine)
    return engine
