"""`autopilothq.warehouses.duckdb_pool` opens DuckDB files, and decides when their logs and row groups are written."""

import json
import os
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pytest
from dlt.common.destination.client import RunnableLoadJob
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from duckdb import DuckDBPyConnection

from autopilothq import archive
from autopilothq.projection import engine
from autopilothq.warehouses import duckdb_open, duckdb_pool
from autopilothq.warehouses.dlt_internals import DuckDbConnectionPool
from autopilothq.warehouses.duckdb_pool import WaitingPool


def pool_of(database: object, **settings: Any) -> WaitingPool:
    credentials = DuckDbCredentials(str(database))
    credentials.global_config = settings
    return WaitingPool(credentials, 0)


def setting(con: DuckDBPyConnection, name: str) -> object:
    [(value,)] = con.execute(f"SELECT current_setting('{name}')").fetchall()
    return value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "autopilot.duckdb"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Records each checkpoint, and how many row groups DuckDB may merge when a connection is closed."""
    write, close, steps = duckdb_pool._checkpoint, DuckDbConnectionPool.return_conn, list[object]()

    def written(*what: Any) -> None:
        steps.append(what)
        write(*what)

    def closed(self: DuckDbConnectionPool, con: DuckDBPyConnection) -> int:
        steps.append(setting(con, "max_vacuum_tasks"))
        return close(self, con)

    monkeypatch.setattr(duckdb_pool, "_checkpoint", written)
    monkeypatch.setattr(DuckDbConnectionPool, "return_conn", closed)
    return steps


@pytest.mark.parametrize(("settings", "usual"), [({}, 100), ({"max_vacuum_tasks": 7}, 7)])
def test_groups_are_merged_as_the_last_connection_is_closed(
    settings: dict[str, Any], usual: int, file: Path, steps: list[object]
) -> None:
    pool = pool_of(file, **settings)
    first = pool.borrow_conn({"threads": 3}, {"TimeZone": "Asia/Tokyo"}, ["default_order='desc'"])
    assert [setting(first, name) for name in ("threads", "TimeZone", "default_order", "max_vacuum_tasks")] == [
        3, "Asia/Tokyo", "DESC", 0,
    ]  # fmt: skip
    second = pool.borrow_conn()
    assert steps == [(file, 128 << 20)]
    with pytest.raises(duckdb.CatalogException):  # a failed opening does not count
        pool.borrow_conn(pragmas=["of_no_duckdb"])
    steps.clear()
    assert [pool.return_conn(second), pool.return_conn(first)] == [1, 0]
    assert steps == [0, usual, (file,)]
    assert pool.return_conn(pool.borrow_conn()) == 0
    assert steps[3:] == [(file, 128 << 20), usual, (file,)]


@pytest.mark.parametrize("lost", [False, True])
def test_no_groups_are_merged_if_their_rows_are_long_or_nobody_can_tell(
    lost: bool, file: Path, steps: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def are_long(_: DuckDBPyConnection, of: Path) -> bool:
        if lost:
            raise duckdb.FatalException("the database is lost")
        return of == file

    monkeypatch.setattr(duckdb_pool, "_has_long_rows", are_long)
    pool = pool_of(file)
    assert pool.return_conn(pool.borrow_conn()) == 0
    assert steps[1:] == [0, (file,)]


def test_nothing_is_written_of_what_is_no_file_or_only_read(file: Path, steps: list[object]) -> None:
    read = pool_of(file)
    duckdb.connect(file).close()
    read.credentials.read_only = True
    for pool in (pool_of(":memory:"), WaitingPool(read.credentials, 0)):
        assert pool.return_conn(pool.borrow_conn()) == 0
    assert steps == [100, 100]
    unnamed: list[Any] = [SimpleNamespace(read_only=False), SimpleNamespace(database=None, read_only=False)]
    assert [duckdb_pool._file(credentials) for credentials in unnamed] == [None, None]


def test_what_only_reads_leaves_out_statements_that_write(file: Path) -> None:
    duckdb.connect(file).close()
    writing = ["CREATE SCHEMA raw", f"ATTACH '{file}.other' AS beside"]
    pool = pool_of(file)
    for read_only, schemas in ((True, []), (False, [("raw",)])):
        pool.credentials.read_only = read_only
        pool.credentials.statements = [*writing, "SET GLOBAL default_order = 'DESC'"]
        pool = WaitingPool(pool.credentials, 0)
        con = pool.borrow_conn()
        assert setting(con, "default_order") == "DESC"
        assert con.execute("SELECT schema_name FROM duckdb_schemas() WHERE schema_name = 'raw'").fetchall() == schemas
        pool.return_conn(con)
    pool.credentials.read_only, pool.credentials.statements = True, ["FROM nope"]
    with pytest.raises(duckdb.CatalogException, match="nope does not exist"):
        WaitingPool(pool.credentials, 0).borrow_conn()


@pytest.mark.parametrize(
    ("wait", "errors", "slept"),
    [
        (60, ["IO Error: Could not set lock on file"] * 2, [0.5, 0.5]),
        (0, ["IO Error: Could not set lock on file"], []),
        (60, ["IO Error: Cannot open file"], []),
    ],
)
def test_who_may_wait_asks_again_for_a_file_in_use(
    wait: float, errors: list[str], slept: list[float], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    borrow, left, times = DuckDbConnectionPool.borrow_conn, list(errors), list[float]()

    def borrowed(*given: Any) -> DuckDBPyConnection:
        if left:
            raise duckdb.IOException(left.pop())
        return borrow(*given)

    monkeypatch.setattr(DuckDbConnectionPool, "borrow_conn", borrowed)
    monkeypatch.setattr(time, "sleep", times.append)
    pool = WaitingPool(pool_of(file).credentials, wait)
    with nullcontext() if slept else pytest.raises(duckdb.IOException, match=errors[0]):
        assert pool.return_conn(pool.borrow_conn()) == 0
    assert (times, left) == (slept, [])


def leave_log(file: Path) -> int:
    """Leaves a row in a file's log, like a program that was killed; returns the log's size."""
    with duckdb.connect(file) as con:
        con.execute("PRAGMA disable_checkpoint_on_shutdown; CREATE TABLE a AS SELECT 1 AS n")
    return Path(f"{file}.wal").stat().st_size


@pytest.mark.parametrize(("more", "left"), [(1, False), (0, True)])
def test_a_log_with_much_is_written_before_the_file_is_opened(
    more: int, left: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb_pool, "_LARGE_LOG", leave_log(file) - more)
    pool = pool_of(file)
    con = pool.borrow_conn()
    assert Path(f"{file}.wal").exists() is left
    assert con.execute("FROM a").fetchall() == [(1,)]
    pool.return_conn(con)
    assert not Path(f"{file}.wal").exists()


def test_a_log_that_another_connection_writes_is_left_to_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_log(file)
    connect, settings = duckdb.connect, list[object]()

    def connected(path: Path, config: dict[str, Any]) -> DuckDBPyConnection:
        settings.append(config)
        return connect(path, config=config)

    monkeypatch.setattr(duckdb, "connect", connected)
    with duckdb.connect(file, config={"threads": 3}) as con:  # a connection with other settings
        duckdb_pool._checkpoint(file)
        assert con.execute("FROM a").fetchall() == [(1,)]
    assert not Path(f"{file}.wal").exists()
    assert settings == [{"threads": 3}, {"max_vacuum_tasks": 0, "threads": 1}]


@pytest.mark.parametrize(
    ("made", "memory", "expected"),
    [
        ("CREATE TABLE a AS {long}", 1_200_000, True),
        ("CREATE TABLE b AS {short}; CREATE TABLE a AS {long}", 1_200_000, True),
        ("CREATE SCHEMA s; CREATE TABLE s.a AS {long}", 1_200_000, True),
        ("CREATE TABLE a AS {long}", 100_000_000, False),
        ("CREATE TABLE a AS {short}", 1_200_000, False),
        ('CREATE TABLE "a""" AS {long}', 1_200_000, False),  # DuckDB cannot be asked about this name
        ("CREATE TABLE b AS {short}; CREATE TABLE a AS {long} LIMIT 1", 1_200_000, False),  # few bytes in all
    ],
)
def test_whether_rows_are_so_long_that_there_may_be_no_memory_to_merge_them(
    made: str, memory: int, expected: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "memory_limit", lambda _: memory)
    text = "(SELECT string_agg(md5(n || '-' || range), '') FROM range({}) of_one(n))"
    long, short = (f"SELECT {text.format(parts)} AS t FROM range({rows})" for parts, rows in ((500, 100), (1, 50_000)))
    with duckdb.connect(file) as con:
        con.execute(f"{made.format(long=long, short=short)}; CHECKPOINT")
        assert not duckdb_pool._has_long_rows(con, file)  # the log is empty
        con.execute("CREATE TABLE last AS SELECT 1 AS n")
        assert duckdb_pool._has_long_rows(con, file) is expected
        if "LIMIT" in made or "long" not in made:  # the log may have long rows, if there are any
            con.execute(f"CREATE TABLE more AS {short}")
            assert duckdb_pool._has_long_rows(con, file) is ("long" in made)


def test_where_a_database_is_is_asked_once_and_no_connection_stays_open_if_it_cannot_be_told(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(file)
    first = pool.borrow_conn()
    monkeypatch.setattr(duckdb_pool, "_WHERE", "SELECT error('no memory for that')")
    assert pool.return_conn(pool.borrow_conn()) == 1
    assert pool.return_conn(first) == 0
    with pytest.raises(duckdb.InvalidInputException, match="no memory for that"):
        pool.borrow_conn()
    duckdb.connect(file, read_only=True).close()  # fails if the file is still open for writing


def is_open(file: Path) -> bool:
    return any(os.path.realpath(each) == str(file) for each in Path("/proc/self/fd").iterdir())


def test_a_file_stays_open_until_the_outermost_block_ends(file: Path) -> None:
    pipeline = dlt.pipeline("opened", destination=dlt.destinations.duckdb(str(file)), dataset_name="autopilothq")
    duckdb_open.reopen_database(pipeline)
    assert not is_open(file)
    with duckdb_open.close_database_after(pipeline):
        assert not is_open(file)
        duckdb_open.reopen_database(pipeline)
        assert is_open(file)
        duckdb_open.close_database(pipeline)
        assert not is_open(file)
        with duckdb_open.keep_database_open(pipeline):
            assert is_open(file)
        assert is_open(file)
    assert not is_open(file)
    with duckdb_open.keep_database_open(pipeline):
        assert is_open(file)
    duckdb_open.reopen_database(pipeline)
    duckdb_open.close_database(pipeline)
    assert not is_open(file)


def test_nothing_is_opened_for_what_has_no_file() -> None:
    nowhere = dlt.destinations.postgres("postgresql://me:secret@127.0.0.1:1/there")
    for pipeline in (None, dlt.pipeline("unopened", destination=nowhere, dataset_name="autopilothq")):
        with duckdb_open.close_database_after(pipeline):
            duckdb_open.reopen_database(pipeline)
            duckdb_open.close_database(pipeline)


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_file_is_open_as_long_as_dlt_loads_it_and_no_longer(
    is_kept: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each job would open it, which is slow with many tables. With many columns, closing saves memory."""
    if not is_kept:
        monkeypatch.setattr(duckdb_open, "MOST_OPEN_COLUMNS", 10)
    Path("email.ndjson").write_text(json.dumps({"type": "track", "event": "Email Opened", "messageId": "1"}))
    monkeypatch.setenv("LOAD__WORKERS", "1")
    seen, run_managed = list[bool](), RunnableLoadJob.run_managed

    def noted(*what: Any) -> None:
        seen.append(is_open(file))
        run_managed(*what)

    pipeline = dlt.pipeline("opened", destination=dlt.destinations.duckdb(str(file)), dataset_name="autopilothq")
    pipeline.extract(archive("email.ndjson"))
    pipeline.normalize()
    assert not is_open(file)
    monkeypatch.setattr(RunnableLoadJob, "run_managed", noted)
    # Arrow's unused memory is released: a load of a million events through steps held 1.3 GB.
    released, unused = list[bool](), SimpleNamespace(release_unused=lambda: released.append(is_open(file)))
    monkeypatch.setattr(pa, "default_memory_pool", lambda: unused)
    pipeline.load()
    assert all(seen) is is_kept
    assert released == [False]
    assert not is_open(file)


def test_a_load_is_given_up_also_where_the_file_cannot_be_opened(file: Path) -> None:
    """As dlt does with other destinations."""
    Path("email.ndjson").write_text(json.dumps({"type": "track", "event": "Email Opened", "messageId": "1"}))
    pipeline = dlt.pipeline("given_up", destination=dlt.destinations.duckdb(str(file)), dataset_name="autopilothq")
    pipeline.extract(archive("email.ndjson").with_resources("email_opened", "_audit"))
    pipeline.normalize()
    file.write_bytes(b"no database" * 1000)
    pipeline.abort_packages()
    assert not pipeline.has_pending_data
