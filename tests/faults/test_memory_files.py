"""Rows are stored in a DuckDB file, merged and read again with less memory than their size."""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Event
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

import autopilothq
from autopilothq.privacy.rewrite import rewrite
from autopilothq.projection import engine
from autopilothq.warehouses import duckdb as warehouse
from autopilothq.warehouses import duckdb_parts as parts
from autopilothq.warehouses import duckdb_pool
from autopilothq.warehouses.dataset import sql_arrow
from autopilothq.warehouses.dlt_internals import DatabaseException, DuckDbConnectionPool, SqlLoadJob
from autopilothq.warehouses.dlt_internals.clients import file_of
from autopilothq.warehouses.duckdb import direct
from contract.loading import identify, message, write
from faults.loads import content, in_memory, pipeline
from faults.long_texts import later, long


def people(load: int, persons: range, characters: int) -> Iterator[dict[str, Any]]:
    """Yields an identify for each person, with a trait of so many characters; those of later loads are newer."""
    for n in persons:
        plan = {"plan": long(f"{load} {n}", characters), "n": n}
        yield identify(messageId=f"m{load} {n}", userId=f"u{n}", receivedAt=later(load), traits=plan)


def stored_plans(database: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Returns the rows of `users` and `identifies`: the id, and the text's first word and length if it is whole."""
    whole = "CASE WHEN rtrim(plan, 'e') = split_part(plan, ' ', 1) || ' ' || n || ' ' THEN strlen(plan) END"
    with duckdb.connect(str(database), read_only=True) as con:
        users, messages = (
            con.execute(f"SELECT id, split_part(plan, ' ', 1) || '-' || {whole} FROM autopilothq.{table}").fetchall()
            for table in ("users", "identifies")
        )
    return sorted(users), sorted(messages)


def plans(loads: Mapping[int, range], characters: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Returns what `stored_plans` must find after loads of `people`."""
    users = {f"u{n}": f"{load}-{characters}" for load, persons in loads.items() for n in persons}
    messages = [(f"m{load} {n}", f"{load}-{characters}") for load, persons in loads.items() for n in persons]
    return sorted(users.items()), sorted(messages)


def test_large_traits_are_stored_replaced_and_read_again_with_less_memory_than_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB takes 2,048 rows at a time, however large they are, so they are written and read in parts."""
    monkeypatch.setattr(engine, "one_thread", lambda *_: nullcontext())
    monkeypatch.setattr(parts, "BYTES_AT_ONCE", 2 << 20)
    credentials = DuckDbCredentials(str(tmp_path / "autopilot.duckdb"))
    credentials.global_config = {"threads": 1, "memory_limit": "30MB", "preserve_insertion_order": False}
    loads = {1: range(150), 2: range(0, 150, 10)}
    for load, persons in loads.items():
        write(f"{load}.ndjson", *people(load, persons, 60_000))
        pipeline(tmp_path, direct(credentials)).run(autopilothq.archive("archive"))
    assert stored_plans(tmp_path / "autopilot.duckdb") == plans(loads, 60_000)


@pytest.mark.parametrize("asked", [True, False])  # whether long texts are detected first
def test_what_a_file_s_log_has_is_written_without_memory_for_long_texts_that_are_stored(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB merges row groups as it closes a file, and writes nothing if it has no memory for 2,048 rows.

    The file can also be rewritten with that memory.
    """
    left_out = "_checkpoint" if asked else "_has_long_rows"
    monkeypatch.setattr(duckdb_pool, left_out, lambda *_: False)
    file = tmp_path / "autopilot.duckdb"
    credentials = DuckDbCredentials(str(file))
    credentials.global_config = {"threads": 1, "memory_limit": "20MB"}
    target = pipeline(tmp_path, direct(credentials))
    for number in range(4):
        with target.sql_client() as client:
            client.execute_sql("SET GLOBAL checkpoint_threshold = '2MB'")
            client.execute_sql('CREATE TABLE IF NOT EXISTS main."a.b" (n BIGINT, t VARCHAR)')
            rows = f"SELECT range, range || repeat('x', 100000) FROM range({70 * number}, {70 * number + 70})"
            client.execute_sql(f'INSERT INTO main."a.b" {rows}')
            client.execute_sql("CREATE TABLE main.short AS FROM range(3)" if number == 3 else "SELECT 1")
        assert not Path(f"{file}.wal").exists()
    if asked:
        monkeypatch.setattr(parts, "BYTES_AT_ONCE", 1 << 20)
        monkeypatch.setitem(parts.EARLY_CHECKPOINTS, "checkpoint_threshold", "2MB")
        assert rewrite(target).done == [str(file)]
    with duckdb.connect(str(file), read_only=True) as con:
        found = con.execute("""SELECT count(*), count(DISTINCT n), min(strlen(t)) FROM main."a.b" """).fetchall()
    assert found == [(280, 280, 100_001)]


def test_small_groups_of_rows_are_merged_as_a_file_is_closed(tmp_path: Path) -> None:
    target = pipeline(tmp_path, direct(str(tmp_path / "autopilot.duckdb")))
    for _ in range(3):
        with target.sql_client() as client:
            client.execute_sql("CREATE TABLE IF NOT EXISTS main.a (n BIGINT)")
            with pytest.raises(duckdb.CatalogException):  # a connection that fails to open does not count
                client.credentials.conn_pool.borrow_conn(pragmas=["of_no_duckdb"])
            for _ in range(2):
                client.execute_sql("INSERT INTO main.a FROM range(5)")
                client.execute_sql("CHECKPOINT")
            client.execute_sql("INSERT INTO main.a FROM range(5)")
    with duckdb.connect(str(tmp_path / "autopilot.duckdb"), read_only=True) as con:
        groups = "SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('main.a')"
        assert con.execute(groups).fetchall() == [(1,)]


def test_a_file_whose_rest_is_written_is_opened_for_others_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process opens a DuckDB file once, for all connections with the same settings."""
    writing, file = Event(), tmp_path / "autopilot.duckdb"
    one, other = (duckdb_pool.WaitingPool(DuckDbCredentials(str(file)), 0) for _ in range(2))

    def slowly(path: Path, more_than: int = 0) -> None:
        if not more_than:  # as the file is closed
            with duckdb.connect(path, config={"threads": 1}):
                writing.set()
                time.sleep(0.2)

    con = one.borrow_conn()
    monkeypatch.setattr(duckdb_pool, "_checkpoint", slowly)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(one.return_conn, con)
        assert writing.wait(10)
        assert other.borrow_conn().execute("SELECT 42").fetchone() == (42,)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("global_config", {"max_vacuum_tasks": 7}), ("statements", ["SET GLOBAL max_vacuum_tasks = 7"]), (None, None)],
)
def test_how_many_groups_of_rows_are_merged_is_the_user_s_choice(
    setting: str | None, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, found = DuckDbConnectionPool.return_conn, list[Any]()

    def seen(pool: duckdb_pool.WaitingPool, con: duckdb.DuckDBPyConnection) -> int:
        found.extend(con.execute("SELECT current_setting('max_vacuum_tasks')").fetchall())
        return close(pool, con)

    monkeypatch.setattr(DuckDbConnectionPool, "return_conn", seen)
    credentials = DuckDbCredentials(str(tmp_path / "autopilot.duckdb"))
    if setting:
        setattr(credentials, setting, value)
    pool = duckdb_pool.WaitingPool(credentials, 0)
    pool.return_conn(pool.borrow_conn(credentials.global_config))
    assert found == [(7 if setting else 100,)]


def test_a_file_that_is_deleted_while_it_is_open_is_created_again(tmp_path: Path) -> None:
    file = tmp_path / "autopilot.duckdb"
    target = pipeline(tmp_path, direct(str(file)))
    for _ in range(2):
        with target.sql_client() as client:
            client.execute_sql("CREATE TABLE main.a AS FROM range(5)")
            file.unlink()
    assert list(tmp_path.glob("autopilot.duckdb*")) == []


def test_what_was_read_of_a_file_in_parts_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "BYTES_AT_ONCE", 1 << 20)
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 4)
    path, texts_of = (
        str(tmp_path / "rows.parquet"),
        [[long(n, 100_000) for n in range(m, m + 10)] for m in range(0, 310, 10)],
    )
    form: dict[str, Any] = {"use_dictionary": False, "compression": "none"}
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())]), **form) as file:
        for some in texts_of:
            file.write_table(pa.table([some], ["text"]))
    before, taken, found, rows = pa.total_allocated_bytes(), list[int](), list[str](), list[int]()
    for part in parts.split_file(path):
        found += part["text"].to_pylist()
        rows.append(part.num_rows)
        taken.append(pa.total_allocated_bytes() - before)
    assert found == [text for some in texts_of for text in some]
    assert max(taken) < os.path.getsize(path) / 4
    assert rows == [*[12] * 25, 10]
    [full] = pa.table([["text" * 250_000, "text" * 30_000]], ["text"]).to_batches()  # nothing is left of it for a part
    assert [part.num_rows for part in parts.split_batches([full])] == [2]


def test_rows_of_a_file_are_long_if_there_are_many_bytes_of_them_and_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "rows.parquet")
    pq.write_table(pa.table([[long(n, 1000) for n in range(30)]], ["text"]), path, row_group_size=10)
    size = sum(pq.read_metadata(path).row_group(n).total_byte_size for n in range(3))
    of_each = size * parts.VECTOR // 30
    for all_bytes, bytes_of_each, expected in (
        (size - 1, of_each - 1, True), (size, of_each - 1, False), (size - 1, of_each + 1, False),
    ):  # fmt: skip
        monkeypatch.setattr(parts, "BYTES_AT_ONCE", all_bytes)
        monkeypatch.setattr(parts, "LONG", bytes_of_each)
        assert parts.file_has_long_rows(path) == expected


def missing_once(ask: Callable[[str], Any]) -> Callable[[str], Any]:
    """Lets memory run out when the lengths in the second part of a table are read."""
    looked = list[str]()

    def asked(sql: str) -> Any:
        if "strlen" in sql:
            looked.append(sql)
            if len(looked) == 2:
                raise duckdb.OutOfMemoryException("rows are long")
        return ask(sql)

    return asked


@pytest.mark.parametrize("source", ["a table", "a view", "a table whose column is rowid", "an empty table"])
def test_all_rows_with_long_texts_are_read_once(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_arrow, "BYTES_PER_READ", 200_000)
    monkeypatch.setattr(parts, "BYTES_AT_ONCE", 200_000)
    rows = "SELECT range AS {}, range || repeat('x', 20000 * (range // 20)) AS a FROM range({})"
    with pipeline(tmp_path, direct(str(tmp_path / "autopilot.duckdb"))).sql_client() as client:
        name, number = "rowid" if "rowid" in source else "n", 0 if "empty" in source else 60
        client.execute_sql(f"CREATE TABLE main.stored AS {rows.format(name, number)}")
        client.execute_sql("DELETE FROM main.stored WHERE a LIKE '7%'")
        client.execute_sql("CREATE VIEW main.seen AS FROM main.stored")
        of, schema = "main.seen" if "view" in source else "main.stored", pa.schema([("a", pa.string())])
        batches = list(sql_arrow.read_table(client, of, f"SELECT a FROM {of}", schema, "duckdb"))
        cut = list(parts.split_table(missing_once(client.execute_sql), "main.stored"))
        ids = [client.execute_sql(f"SELECT {name} FROM main.stored WHERE {part}") or () for part in cut]
    found = sorted(text for batch in batches for text in batch["a"].to_pylist())
    assert found == sorted(f"{n}{'x' * (20000 * (n // 20))}" for n in range(number) if n != 7)
    assert len(batches) == {"a table": 7, "an empty table": 0}.get(source, 1)
    assert [n for some in ids for (n,) in some] == [n for n in range(number) if n != 7]
    assert len(cut) == {"a table whose column is rowid": 1, "an empty table": 1}.get(source, 11)


def test_fewer_rows_are_read_at_once_where_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most, read, schema = 3, sql_arrow._read_query, pa.schema([("n", pa.int64()), ("a", pa.string())])

    def read_few(client: Any, sql: str, *rest: Any) -> Any:
        first, last = map(int, re.findall(r"BETWEEN (\d+) AND (\d+)", sql)[0])
        if last - first >= most:
            raise duckdb.OutOfMemoryException("rows are long")
        return read(client, sql, *rest)

    monkeypatch.setattr(sql_arrow, "_read_query", read_few)
    monkeypatch.setattr(sql_arrow, "LONG", 0)
    with pipeline(tmp_path, direct(str(tmp_path / "autopilot.duckdb"))).sql_client() as client:
        client.execute_sql("CREATE TABLE main.stored AS SELECT range AS n, repeat('x', 20000) AS a FROM range(40)")
        batches = list(sql_arrow.read_table(client, "main.stored", "SELECT n, a FROM main.stored", schema, "duckdb"))
        assert [batch.num_rows for batch in batches] == [*[3] * 13, 1]
        assert [n for batch in batches for n in batch["n"].to_pylist()] == list(range(40))
        most = 0
        with pytest.raises(duckdb.OutOfMemoryException):  # not even one row fits
            list(sql_arrow.read_table(client, "main.stored", "SELECT n, a FROM main.stored", schema, "duckdb"))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([0] * 5, [5]),
        ([50], [1]),  # a row that is larger than a part should be
        ([20] * 3, [1, 1, 1]),
        ([10] * 5, [2, 2, 1]),
        (
            [2] * 4 + [20] * 4,
            [1, 2, 1, 1, 1, 1, 1],
        ),  # twice as many rows after a small part, half as many if needed
        ([2] * 40 + [20], [1, 2, 4, 5, 5, 5, 5, 5, 5, 2, 1, 1]),  # at most MOST_ROWS
        ([10] * 3 + [20], [1, 1, 1, 1]),
        ([8] * 3 + [20], [1, 2, 1]),
    ],
)
def test_a_part_of_a_table_has_as_many_rows_as_it_has_room_for(
    sizes: list[int], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "BYTES_AT_ONCE", 20)
    monkeypatch.setattr(parts, "LONG", 0)
    monkeypatch.setattr(parts, "MOST_ROWS", 5)
    with duckdb.connect() as con:
        con.execute('CREATE TABLE t (n BIGINT, "a b" VARCHAR, c VARCHAR)')
        con.executemany(
            "INSERT INTO t VALUES (?, ?, ?)",
            [(n, "x" * (size // 2), "x" * (size // 2)) for n, size in enumerate(sizes)],
        )
        cut = list(parts.split_table(lambda sql: con.execute(sql).fetchall(), "t"))
        ids = [[n for (n,) in con.execute(f"SELECT n FROM t WHERE {part}").fetchall()] for part in cut]
    assert [n for some in ids for n in some] == list(range(len(sizes)))
    assert [len(some) for some in ids] == expected
    starts = [sum(expected[:number]) for number in range(len(expected))]
    if any(sizes):
        assert [part.split(" AND ")[0] for part in cut] == [f"rowid BETWEEN {start}" for start in starts]
    else:
        assert cut == ["true"]


def test_rows_come_one_by_one_if_there_is_no_memory_to_look_at_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "BYTES_AT_ONCE", 20)
    monkeypatch.setattr(parts, "LONG", 0)
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t AS SELECT 'text' AS a FROM range(3)")

        error: duckdb.Error = duckdb.OutOfMemoryException("rows are long")

        def ask(sql: str) -> Any:
            if "strlen" in sql:
                raise error
            return con.execute(sql).fetchall()

        assert list(parts.split_table(ask, "t")) == [f"rowid BETWEEN {row} AND {row}" for row in range(3)]
        error = duckdb.IOException("the disk was away")
        with pytest.raises(duckdb.IOException):
            list(parts.split_table(ask, "t"))


NEWEST = {"received_at": {"dedup_sort": "desc"}}  # dlt deduplicates by it, so rows go through staging


@pytest.mark.parametrize(("part", "hints"), [(2, {}), (5, {}), (5, NEWEST)])  # fails in `identifies`, and in `users`
def test_parts_that_are_there_are_stored_once_when_their_file_comes_again(
    part: int, hints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "BYTES_AT_ONCE", 100_000)
    monkeypatch.setattr(parts, "LONG", 0)
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 4)
    tried, cut = list[int](), parts.split_file

    def missing(file: str) -> Iterator[pa.Table]:
        for rows in cut(file):
            tried.append(rows.num_rows)
            if len(tried) == part:
                raise OSError("the disk was away")
            yield rows

    monkeypatch.setattr(parts, "split_file", missing)
    persons = range(10)
    write("1.ndjson", *people(1, persons, 40_000))
    source = autopilothq.archive("archive")
    source.resources["users"].apply_hints(columns=hints)
    pipeline(tmp_path, direct(str(tmp_path / "autopilot.duckdb"))).run(source)
    assert tried == {2: [4, 4, 4, 4, 2, 4, 4, 2], 5: [4, 4, 2, 4, 4, 4, 4, 2]}[part]
    assert stored_plans(tmp_path / "autopilot.duckdb") == plans({1: persons}, 40_000)


def test_rows_that_wait_in_staging_replace_others_in_parts_if_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as rows that an earlier version copied there and had no memory to merge."""
    loads, missed = {1: range(10), 2: range(5, 15)}, list[Path]()
    monkeypatch.setattr(parts, "STAGED_ROWS", 3)

    def missing(job: SqlLoadJob) -> None:
        missed.append(Path(file_of(job)))
        raise duckdb.OutOfMemoryException("rows are long")

    for load, persons in loads.items():
        write(f"{load}.ndjson", *people(load, persons, 100))
        with monkeypatch.context() as patch:
            if load == 2:
                patch.setattr(SqlLoadJob, "run", missing)
            pipeline(tmp_path, direct(str(tmp_path / "autopilot.duckdb"))).run(autopilothq.archive("archive"))
    assert sorted(file.name.split(".")[0] for file in missed) == ["_audit", "_audit", "users", "users"]
    assert stored_plans(tmp_path / "autopilot.duckdb") == plans(loads, 100)


@pytest.mark.parametrize("column", ["n", "rowid"])  # a trait may have the name of DuckDB's row number
@pytest.mark.parametrize(("direction", "first"), [("desc", 3), ("asc", 1), (None, None)])
def test_of_staged_rows_with_the_same_key_the_first_replaces_others(
    direction: str | None, first: int | None, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, replacing = parts.replace_rows, list[str]()

    def replaced(client: Any, table: str, rows: str, keys: Sequence[str]) -> None:
        replacing.append(rows)
        replace(client, table, rows, keys)

    monkeypatch.setattr(parts, "STAGED_ROWS", 2)
    monkeypatch.setattr(parts, "replace_rows", replaced)
    with pipeline(tmp_path, in_memory()).sql_client() as client:
        client.execute_sql(f"CREATE TABLE main.a AS SELECT unnest(['x', 'y', 'z']) AS id, 1 AS part, 0 AS {column}")
        rows = "('x', 2), ('y', 5), ('x', 3), ('w', 4), ('x', 1), ('x', NULL), ('v', NULL)"
        if direction is None:
            rows = "('y', 5), ('w', 4), ('v', NULL)"
        client.execute_sql(
            f"CREATE TABLE main.b AS SELECT id, 1 AS part, n AS {column} FROM (VALUES {rows}) rows(id, n)"
        )
        client.execute_sql("INSERT INTO main.b VALUES ('x', 2, 9)")
        order = (column, direction) if direction else None
        parts.replace_from_staging(client, "main.a", "main.b", ["id", "part"], order)
        found = client.execute_sql(f"SELECT id, part, {column} FROM main.a ORDER BY id, part")
    assert found == [("v", 1, None), ("w", 1, 4), ("x", 1, first or 0), ("x", 2, 9), ("y", 1, 5), ("z", 1, 0)]
    # The numbers are those of the rows, of which others with the same key are deleted first.
    parts_of_numbers = {"desc": (1, 3, 5, 7), "asc": (1, 3, 5, 7), None: (0, 2)}[direction]
    few = [f"(SELECT * FROM main.b WHERE rowid BETWEEN {start} AND {start + 1})" for start in parts_of_numbers]
    assert (len(replacing) == 1) if column == "rowid" else (replacing == few)


def test_rows_that_cannot_be_stored_replace_none(tmp_path: Path) -> None:
    with pipeline(tmp_path, in_memory()).sql_client() as client:
        client.execute_sql("CREATE TABLE main.a AS SELECT 'x' AS id")
        with pytest.raises(DatabaseException):
            parts.replace_rows(client, "main.a", "(SELECT 'x' AS id, 1 AS other)", ["id"])
        assert client.execute_sql("FROM main.a") == [("x",)]


def test_rows_that_were_inserted_before_the_memory_was_missed_are_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, tried = warehouse.InsertNew._insert, []

    def then_missing(self: warehouse.InsertNew, rows: str) -> None:
        insert(self, rows)
        tried.append(self)
        if tried.count(self) == 1:
            raise duckdb.OutOfMemoryException("as the settings are put back")

    monkeypatch.setattr(warehouse.InsertNew, "_insert", then_missing)
    write("1.ndjson", *(message(messageId=f"m{number}") for number in range(20)))
    database = in_memory()
    pipeline(tmp_path, database).run(autopilothq.archive("archive"))
    tables = content(database)
    assert (len(tables["tracks"].rows), len(tables["email_opened"].rows)) == (20, 20)
    assert len(tried) > 2


@pytest.mark.parametrize("limit", ["500MB", "1GB", "1.8GiB", "123456789B", "-1"])
def test_settings_are_as_before(limit: str) -> None:
    """Also after many changes, although DuckDB prints the limit truncated to one decimal, and after an error."""
    with duckdb.connect() as con:

        def settings() -> object:
            return con.execute("SELECT current_setting('memory_limit'), current_setting('threads')").fetchone()

        con.execute(f"SET memory_limit = '{limit}'; SET threads = 3")
        before = settings()
        for _ in range(5):
            with suppress(ValueError), engine.one_thread(con.execute, 3000):
                assert con.execute("SELECT current_setting('threads')").fetchone() == (1,)
                raise ValueError
            assert settings() == before
