"""If two loads stage rows in the same tables at the same time, each merges only its own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any

import dlt
import pytest
from dlt.destinations.exceptions import DatabaseTerminalException, DestinationConnectionError
from dlt.destinations.job_client_impl import SqlJobClientBase, SqlLoadJob
from dlt.destinations.sql_jobs import SqlMergeFollowupJob
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.sources import DltSource

import stock
from autopilothq import archive
from autopilothq.sources import own_rows
from autopilothq.warehouses.dlt_internals.clients import file_of
from autopilothq.warehouses.postgres import postgres as segment_postgres
from dlt_habits.habits import archive_of, at, identify, track

DESTINATIONS: dict[str, Callable[[str], Any]] = {
    "DuckDB": lambda _: stock.duckdb("own.duckdb"),
    "dlt's PostgreSQL": stock.postgres,
    "this PostgreSQL": segment_postgres,
}
SELECTED = ("pages", "email_opened", "identifies", "users", "_audit")


def source_of(name: str) -> DltSource:
    """Returns a source with its own columns, one with its own event; PostgreSQL stages it because it has floats."""
    page = {"type": "page", "userId": name, "messageId": name, "receivedAt": at(1), "properties": {f"page_{name}": 1.5}}
    events = [track("m", "Email Opened", 1, event_b=3.5)] if name == "b" else []
    lines = page, identify(f"i{name}", name, 1, **{f"user_{name}": 2.5}), *events
    return archive(archive_of(f"{name}.ndjson", *lines)).with_resources(*SELECTED)


@pytest.mark.parametrize("kind", DESTINATIONS)
def test_a_load_leaves_the_rows_alone_that_another_one_has_staged(
    kind: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The other load has merged its users, whose rows are replaced, but not its messages, which are only inserted."""
    url = request.getfixturevalue("postgres") if "PostgreSQL" in kind else ""
    first, other = (dlt.pipeline(name, destination=DESTINATIONS[kind](url), dataset_name="data") for name in "ab")
    merge, begins, begun, has_users = SqlLoadJob.run, Lock(), list[str](), Event()

    def overtaken(job: SqlLoadJob) -> None:
        if Path(other.working_dir) in Path(file_of(job)).parents:
            if job.load_table_name in ("pages", "email_opened"):
                assert has_users.wait(60)
                raise DatabaseTerminalException(ValueError("not yet"))
        else:
            with begins, ThreadPoolExecutor(1) as pool:
                if not begun:
                    begun.append(job.load_table_name)
                    assert isinstance(pool.submit(other.run, source_of("b")).exception(), PipelineStepFailed)
        merge(job)
        if begun and job.load_table_name == "users":
            has_users.set()

    monkeypatch.setattr(SqlLoadJob, "run", overtaken)
    first.run(source_of("a"))
    monkeypatch.setattr(SqlLoadJob, "run", merge)
    other.run()

    def found(name: str) -> list[float]:
        columns = {f"page_{name}": "pages", f"user_{name}": "users"}
        if name == "b":
            columns["event_b"] = "email_opened"
        queries = [f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL" for column, table in columns.items()]
        with other.sql_client() as client:
            return [number for query in queries for (number,) in client.execute_sql(query) or ()]

    assert found("b") == [1.5, 2.5, 3.5]
    first.run(source_of("a"))
    assert (found("a"), found("b")) == ([1.5, 2.5], [1.5, 2.5, 3.5])


def test_all_rows_are_merged_from_staging_tables_that_keep_times_otherwise(postgres: str) -> None:
    """Staging tables may outlive their dataset or be shared with another one, whose times have other hints."""
    pipeline = dlt.pipeline("a", destination=stock.postgres(postgres), dataset_name="data")
    types = {"pages": "timestamptz(3)", "users": "timestamp", "identifies": "timestamptz"}
    with pipeline.sql_client() as client:
        client.execute_sql(f"ALTER DATABASE {postgres.rpartition('/')[2]} SET TimeZone = 'Asia/Kolkata'")
        client.execute_sql("CREATE SCHEMA data_staging")
        for table, type_ in types.items():
            client.execute_sql(f"CREATE TABLE data_staging.{table} (id varchar, uuid_ts {type_})")
    pipeline.run(source_of("a").with_resources(*types))
    with pipeline.sql_client() as client:
        assert [client.execute_sql(f"SELECT id FROM {table}") for table in types] == [[("a",)], [("a",)], [("ia",)]]


def test_all_rows_are_merged_if_the_staging_tables_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load does not fail for that, and the following jobs try again to connect."""
    client = dlt.pipeline("a", destination=stock.duckdb("own.duckdb"), dataset_name="data").destination_client()
    assert isinstance(client, SqlJobClientBase)

    def refuse() -> None:
        raise DestinationConnectionError("duckdb", "data", "another program has it open", OSError())

    monkeypatch.setattr(client.sql_client, "open_connection", refuse)
    assert not own_rows._is_staged_exactly(client, "pages", Path("1.0"))


def test_staged_rows_that_are_selected_have_an_alias() -> None:
    """PostgreSQL before 16 requires one."""
    selected = SqlMergeFollowupJob.gen_select_from_dedup_sql("(SELECT * FROM staged WHERE true)", ["id"], ["id"])
    assert "FROM (SELECT * FROM staged WHERE true) AS s" in selected
