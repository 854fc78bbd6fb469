"""If a destination fails, the run fails, and after the next good run all is as if nothing had happened."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from dlt.destinations.job_client_impl import SqlLoadJob
from dlt.pipeline.exceptions import PipelineStepFailed

import autopilothq
import forked
from autopilothq.warehouses.postgres import postgres as postgres_destination
from contract.loading import identify, message, write
from faults import holder, small_disk
from faults.loads import (
    FEW_TABLES,
    Table,
    assert_same,
    assert_sound,
    content,
    file,
    in_memory,
    load,
    messages,
    odd_archive,
    pipeline,
    track,
)
from servers import Postgres


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = odd_archive(tmp_path_factory.mktemp("house") / "archive", 0, FEW_TABLES)
    file(folder / "later", "more.gz", [track(n, userId=f"u{n % 9}") for n in range(20, 1_520)])
    return folder


@pytest.fixture(scope="module")
def made() -> dict[str, Table]:
    return {}


@pytest.fixture
def undisturbed(archive: Path, made: dict[str, Table]) -> dict[str, Table]:
    """The tables of an undisturbed load; the first test that needs them loads for all."""
    if not made:
        database = in_memory()
        load(pipeline(archive.with_name("undisturbed"), database), archive)
        made |= content(database)
    return made


def assert_complete(tables: dict[str, Table], undisturbed: dict[str, Table]) -> None:
    assert_sound(tables)
    assert_same(tables, undisturbed)
    assert tables["_audit"].total("stored") == messages(tables)


@contextmanager
def held(database: Path, *how: str) -> Iterator[None]:
    """Keeps the DuckDB file open in another process."""
    with forked.start(holder.__file__, str(database), *how, stdin=forked.PIPE, stdout=forked.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"open\n"
        yield
        process.communicate()


def test_a_duckdb_file_that_another_process_holds(tmp_path: Path, archive: Path, undisturbed: dict[str, Table]) -> None:
    load(pipeline(tmp_path), archive / "segment-logs" / "AbC123xYz9")
    before = content(tmp_path / "autopilot.duckdb")
    for how in ("write", "read"):
        with held(tmp_path / "autopilot.duckdb", how), pytest.raises(PipelineStepFailed, match="Could not set lock"):
            pipeline(tmp_path).run(autopilothq.archive(str(archive)))
        assert content(tmp_path / "autopilot.duckdb") == before, how
    load(pipeline(tmp_path), archive)
    tables = content(tmp_path / "autopilot.duckdb")
    assert_sound(tables)
    assert_same(tables, undisturbed)


def test_a_wrong_password_and_a_database_that_refuses_to_be_written(
    tmp_path: Path, archive: Path, postgres: str, postgresql: Postgres, undisturbed: dict[str, Table]
) -> None:
    wrong = postgres_destination(postgres.replace(postgresql.password, "wrong"))
    with pytest.raises(PipelineStepFailed, match="password authentication failed"):
        load(pipeline(tmp_path, wrong), archive)
    assert content(postgres) == {}
    into = pipeline(tmp_path, postgres_destination(postgres))
    with closing(psycopg2.connect(postgres)) as server:
        server.autocommit = True
        name = postgres.rpartition("/")[2]
        server.cursor().execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with pytest.raises(PipelineStepFailed, match="read-only transaction"):
            load(into, archive)
        server.cursor().execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert content(postgres) == {}
    load(into, archive)
    assert_complete(content(postgres), undisturbed)


def test_a_database_whose_connections_break_in_the_middle(
    tmp_path: Path, archive: Path, postgres: str, undisturbed: dict[str, Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = SqlLoadJob.run, iter(range(1000))

    def breaking(self: SqlLoadJob) -> None:
        if next(calls) >= 3:
            with closing(psycopg2.connect(postgres)) as server, server.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
        run(self)

    into = pipeline(tmp_path, postgres_destination(postgres))
    with monkeypatch.context() as patch:
        patch.setattr(SqlLoadJob, "run", breaking)
        with pytest.raises(PipelineStepFailed):
            load(into, archive)
    load(into, archive)
    tables = content(postgres)
    assert_sound(tables)
    assert_same(tables, undisturbed, but=["_audit"])


@pytest.mark.parametrize("room", [20_000, 300_000], ids=["for the pipeline", "for the database"])
def test_a_disk_that_is_full(room: int, tmp_path: Path, archive: Path, undisturbed: dict[str, Table]) -> None:
    said = tmp_path / "said"  # longer than a pipe's buffer
    with said.open("wb") as stderr:
        assert forked.start(small_disk.__file__, str(archive), str(tmp_path), str(room), stderr=stderr).wait() == 1
    assert "File too large" in said.read_text()
    load(pipeline(tmp_path), archive)
    tables = content(tmp_path / "autopilot.duckdb")
    assert_sound(tables)
    assert_same(tables, undisturbed, but=["_audit"])


@pytest.mark.parametrize("database", ["duckdb", "postgres"])
def test_rows_of_files_follow_those_that_a_step_made_dicts_of(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """For dicts, dlt adds its own not-null columns to the tables, also to existing ones."""
    place = in_memory() if database == "duckdb" else request.getfixturevalue("postgres")
    destination = place if database == "duckdb" else postgres_destination(place)

    def load_with_steps(number: int, *dicts: str) -> None:
        write(f"{number}.ndjson", message(messageId=f"m{number}"), identify(messageId=f"i{number}", userId=f"{number}"))
        source = autopilothq.archive("archive").with_resources(
            "tracks", "email_opened", "identifies", "users", "_audit"
        )
        for table in dicts:
            source.resources[table].add_yield_map(lambda rows: iter(rows.to_pylist()))
        pipeline(tmp_path, destination).run(source)

    load_with_steps(1, "email_opened", "users")
    load_with_steps(2)
    load_with_steps(3, "email_opened", "identifies")
    load_with_steps(4)
    found = content(place)
    made = {
        table: [bool(row["_dlt_load_id"]) for row in sorted(found[table].dicts(), key=lambda row: row["id"])]
        for table in ("email_opened", "users", "identifies")
    }
    assert made == {
        "email_opened": [True, False, True, False],
        "users": [True, False, False, False],
        "identifies": [False, False, True, False],
    }
