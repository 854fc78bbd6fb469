"""If two loads stage rows in the same tables at the same time, each merges only its own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt.destinations.exceptions import DatabaseTerminalException, DestinationConnectionError
from dlt.destinations.job_client_impl import SqlJobClientBase, SqlLoadJob
from dlt.destinations.sql_jobs import SqlMergeFollowupJob
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.sources import DltSource

import stock
from autopilothq import archive
from autopilothq.sources import own_rows
from autopilothq.sources.earlier_load import BOOK_TIMES, Brought
from autopilothq.warehouses.dlt_internals.clients import file_of
from autopilothq.warehouses.native import SEGMENT_TABLE_HINT
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


def test_a_loads_own_rows_have_its_times_in_staging_tables_that_keep_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all staged rows are merged. The tables are looked up once per load and dataset."""
    client, other = (
        dlt.pipeline("a", destination=stock.duckdb("own.duckdb"), dataset_name=name).destination_client()
        for name in ("data", "other")
    )
    assert isinstance(client, SqlJobClientBase)
    assert isinstance(other, SqlJobClientBase)
    ours: Any = {SEGMENT_TABLE_HINT: True}
    names = ("pages", "_rejects", "rounded", "tracks", "mine", "_discards")
    hinted = ours | {"columns": {"discarded_at": {"precision": 0}}}
    for each in (client, other):
        each.schema.tables.update(dict.fromkeys(names, ours) | {"mine": {}, "_discards": hinted})
    one, two = datetime(2019, 3, 20, 10, tzinfo=UTC), datetime(2019, 3, 20, 10, 0, 0, 1, UTC)
    noted = {(tmp_path, "1.0"): [Brought(one.isoformat(), {"pages": 2})]}
    monkeypatch.setattr(own_rows, "rows_noted", lambda *of: noted.get(of, ()))

    def condition(table: str, *times: object, load: str = "1.0", suffix: str = "parquet", of: Any = client) -> Any:
        path = tmp_path / "load" / "normalized" / load / "completed_jobs" / f"{table}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        column = BOOK_TIMES.get(table, "uuid_ts")
        pq.write_table(pa.table({column: pa.array(times, pa.timestamp("us", "UTC"))}), path)
        return own_rows._condition(of, table, [path])

    def stage(table: str, column: str = "uuid_ts", type_: str = "TIMESTAMPTZ") -> None:
        client.sql_client.execute_sql(f"CREATE TABLE data_staging.{table} ({column} {type_})")

    first, second = (f"TIMESTAMPTZ '{at.isoformat()}'" for at in (one, two))
    of_one = f'"uuid_ts" IN ({first})'
    with client:
        client.sql_client.execute_sql("CREATE SCHEMA data_staging")
        columns = ((), ("rejected_at",), ("uuid_ts", "TIMESTAMP_MS"), ("id",), (), ("discarded_at",))
        for table, more in zip(names, columns, strict=True):
            stage(table, *more)
        assert condition("pages", two, one, one) == f'"uuid_ts" IN ({first}, {second})'
        assert client.sql_client.native_connection  # it was open before
    assert condition("_rejects", one) == f'"rejected_at" IN ({first})'
    assert condition("pages") == "1 = 0"
    assert [condition(name, one) for name in names[2:]] == [None] * 4
    assert condition("pages", None) is None
    assert condition("pages", one, of=other) is None  # it has no staging tables
    loads = ("1.0", "2.0")  # of the second one nothing is noted
    assert [condition("pages", suffix="insert_values", load=load) for load in loads] == [of_one, None]
    with client:
        client.sql_client.execute_sql("DROP TABLE data_staging.pages")
    assert [condition("pages", one, load=load) for load in ("1.0", "3.0")] == [of_one, None]
    for load, catalogue in (("4.0", "elsewhere"), ("5.0", "own")):
        monkeypatch.setattr(client.sql_client, "catalog_name", lambda name=catalogue, **_: name)
        assert bool(condition("_rejects", one, load=load)) is (catalogue == "own")
    monkeypatch.setattr(client.capabilities, "sqlglot_dialect", "snowflake")
    assert condition("_rejects", one) is None


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
