"""The models: each number is what plain Python counts, on DuckDB and on PostgreSQL, and elsewhere the SQL is read."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import duckdb
import psycopg2
import pytest

import counted_models as counted
from autopilothq import models
from contract.loading import write
from servers import Postgres
from shared_loads import command, isolation

Row = dict[str, Any]
WHERE = ("duckdb", "postgres")
DIALECTS = ("redshift", "bigquery", "snowflake", "databricks", "clickhouse", "tsql", "mysql", "athena", "trino")


class Loaded:
    """The archive, loaded and with its models applied."""

    def __init__(self, kind: str, credentials: str) -> None:
        self.kind, self.credentials = kind, credentials
        self.target = ("--destination", kind, "--credentials", credentials)

    def rows(self, sql: str) -> list[Row]:
        if self.kind == "duckdb":
            with duckdb.connect(self.credentials) as con:
                con.execute("SET TimeZone = 'Pacific/Auckland'")  # days are UTC's all the same
                found = con.execute(sql)
                return [dict(zip((d[0] for d in found.description), row, strict=True)) for row in found.fetchall()]
        with closing(psycopg2.connect(self.credentials)) as server, server, server.cursor() as cursor:
            cursor.execute("SET TimeZone = 'Pacific/Auckland'")
            cursor.execute(sql)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []


@pytest.fixture(scope="module", params=WHERE)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgresql: Postgres
) -> Iterator[Loaded]:
    folder = tmp_path_factory.mktemp(request.param)
    with isolation(folder), postgresql.database() as url:
        found = Loaded(request.param, url if request.param == "postgres" else str(folder / "events.duckdb"))
        write("1.ndjson", *counted.archive())
        assert command("load", "archive", "archive", *found.target).status == 0
        said = command("models", "apply", *found.target)
        assert (said.status, said.out) == (0, "8 views in autopilothq_models: 8 created.\n"), said.err
        yield found


def comparable(rows: list[Row], key: tuple[str, ...]) -> list[Row]:
    return sorted(
        ({name: round(v, 9) if isinstance(v, float) else v for name, v in row.items()} for row in rows),
        key=lambda row: [(row[name] is None, str(row[name])) for name in key],
    )


@pytest.mark.parametrize("name", [name for name in models.BY_NAME if name not in ("person_timeline", "identities")])
def test_each_number_is_what_plain_python_counts(loaded: Loaded, name: str) -> None:
    model = models.BY_NAME[name]
    found = loaded.rows(f"SELECT * FROM autopilothq_models.{name}")
    expected = getattr(counted, name)(counted.stored(counted.archive()))
    assert comparable(found, model.key) == comparable(expected, model.key)
