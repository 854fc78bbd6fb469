"""Features of dlt that depend on the destination, on PostgreSQL and in a lake of Delta tables."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest
from deltalake import DeltaTable

import stock
from autopilothq import archive
from dlt_habits.habits import Rows, Target


class PostgresTarget(Target):
    """A dataset in PostgreSQL, read through one connection because there is a query for each table."""

    def __init__(self, url: str, connection: Any) -> None:
        self.dataset = "data"
        self._connection = connection
        connection.autocommit = True  # no lock is held between queries
        self.pipeline = dlt.pipeline("habits", destination=stock.postgres(url), dataset_name="data")

    def names(self, dataset: str | None = None) -> list[str]:
        """Returns the dataset's tables, without dlt's own."""
        sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s ORDER BY 1"
        return [row["table_name"] for row in self._ask(sql, dataset) if not row["table_name"].startswith("_dlt")]

    def rows(self, table: str, dataset: str | None = None) -> list[dict[str, Any]]:
        """Returns a table's rows without null cells."""
        return self._ask(f'SELECT * FROM "{dataset or self.dataset}"."{table}"')

    def _ask(self, sql: str, dataset: str | None = None) -> list[dict[str, Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, [dataset or self.dataset] if "%s" in sql else None)
            names = [column.name for column in cursor.description or ()]
            return [
                {name: cell for name, cell in zip(names, row, strict=True) if cell is not None}
                for row in cursor.fetchall()
            ]


def sizes(tables: Rows) -> dict[str, int]:
    return {name: len(rows) for name, rows in tables.items()}


@pytest.fixture
def here(whole: Rows) -> dict[str, int]:
    """Returns how many rows a plain load stores in DuckDB, by table."""
    return sizes(whole)


@pytest.fixture
def postgres_target(postgres: str) -> Iterator[PostgresTarget]:
    with closing(psycopg2.connect(postgres)) as connection:
        yield PostgresTarget(postgres, connection)


def test_dlts_features_work_on_postgresql(postgres_target: PostgresTarget, folder: Path, here: dict[str, int]) -> None:
    """Steps that leave rows or none, a selection, a limit, `replace`, `refresh` and another dataset work as usual."""
    url = str(folder)
    target, mine = postgres_target, archive(url)
    for resource in mine.resources.values():
        resource.add_map(lambda rows: rows)
    target.run(mine.with_resources("tracks", "users", "identifies", "_audit"))
    target.run(mine.with_resources("email_opened", "_discards", "_audit").add_limit(1))
    emptied = archive(url).with_resources("email_delivered", "other_events", "_audit").add_limit(1)
    for resource in (emptied.email_delivered, emptied.other_events):
        resource.add_map(lambda rows: rows.slice(0, 0))
    target.run(emptied)
    target.run(mine)
    whole = target.tables()
    assert sizes(whole) == here
    assert target.balances()
    target.run(archive(url), write_disposition="replace")
    assert target.tables() == whole
    target.run(archive(url), refresh="drop_resources")
    assert target.tables() == whole
    target.run(archive(url), dataset_name="third")
    assert target.tables("third") == whole


def test_dlts_features_work_in_a_lake(tmp_path: Path, folder: Path, here: dict[str, int]) -> None:
    url = str(folder)
    lake = dlt.pipeline("habits", destination=stock.filesystem(str(tmp_path / "lake")), dataset_name="data")

    def there() -> dict[str, int]:
        logs = (tmp_path / "lake" / "data").glob("*/_delta_log")
        found = {log.parent.name: DeltaTable(str(log.parent)).count() for log in logs}
        return {name: number for name, number in found.items() if number and not name.startswith("_dlt")}

    mine = archive(url, table_format="delta")
    lake.run(mine.with_resources("email_opened", "_audit"))
    mine.tracks.add_map(lambda rows: rows)
    for words in ({}, {"write_disposition": "replace"}, {"refresh": "drop_resources"}, {}):
        lake.run(archive(url, table_format="delta") if words else mine, **words)  # type: ignore[arg-type]
        assert there() == here, words
