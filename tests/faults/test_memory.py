"""If threads need more memory than there is, fewer run at a time, and no message is lost or rejected."""

import errno
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

import autopilothq
from autopilothq.explain import explain
from autopilothq.machine import LargestFirst
from autopilothq.projection import context, engine, parse
from autopilothq.projection import projection as projection_module
from autopilothq.projection.cells import CellWriter, ParsedCells
from autopilothq.projection.context import TableRows
from autopilothq.projection.line_reader import LineReader
from autopilothq.projection.parse import Parser, number_lines
from autopilothq.warehouses import duckdb as warehouse
from autopilothq.warehouses.dlt_internals import DatabaseTransientException
from autopilothq.warehouses.duckdb import direct
from calling import Call, errors
from contract.loading import batches, identify, message, new_projection, write
from faults.loads import content, pipeline


def wide(event: str, number: int, keys: int) -> dict[str, Any]:
    """Returns a message with `keys` properties, each with its own text."""
    return message(event, messageId=f"{event} {number}", properties=texts(f"{event} {number}", keys))


def texts(of: object, keys: int) -> dict[str, str]:
    """Returns `keys` properties or traits."""
    return {f"p{key}": f"{of} {key}" * 3 for key in range(keys)}


# Threads, and DuckDB's memory in MB: enough for some of them, or not even for one, which then gets more.
PRESSED = [(8, 400), (4, 200), (2, 200), (1, 150)]


@pytest.mark.parametrize(("threads", "memory"), PRESSED)
def test_no_message_is_rejected_because_many_threads_read(
    threads: int, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection_module, "SMALL_LOAD", 0)  # otherwise a small load takes one thread
    lines = [wide("Wide", number, 190) for number in range(50 * max(threads, 2))]
    first, *others = batches([lines], lambda _: 50)
    projection = new_projection(tmp_path, memory=memory, threads=threads)
    projection.add(first)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(projection.add, others))
    if memory < 400:
        assert projection._parser._turns_taken > threads  # a thread had to run alone
    deduplicated = projection.deduplicate()
    written: dict[str, list[Mapping[str, Any]]] = {}
    for rows in deduplicated.tables():
        rows.write(str(tmp_path / rows.table))
        written[rows.table] = pq.read_table(tmp_path / rows.table).sort_by("id").to_pylist()
    assert deduplicated.rejects_by_reason() == {}
    projection.close()
    assert {table: len(rows) for table, rows in written.items()} == {"wide": len(lines), "tracks": len(lines)}
    expected = {line["messageId"]: line["properties"] for line in lines}
    assert {row["id"]: {key: row[key] for key in expected[row["id"]]} for row in written["wide"]} == expected


class Tried(NamedTuple):
    """One try of a parser: the turns that it took, the memory and threads of its DuckDB, and the lines."""

    turns: int
    memory: str
    threads: int
    lines: list[int]


def tries(parser: Parser, missed: Callable[[Tried], bool], monkeypatch: pytest.MonkeyPatch) -> list[Tried]:
    """Lets a parser run out of memory where `missed` says so, and parse nothing otherwise; returns its tries."""
    tried, turns, turn = list[Tried](), list[int](), parser._turns.turn

    def noted(size: float, taken: int) -> AbstractContextManager[None]:
        turns.append(taken)
        return turn(size, taken)

    def parsed(_: Parser, reader: LineReader, lines: pa.Table) -> ParsedCells:
        settings = "SELECT current_setting('memory_limit'), current_setting('threads')"
        [(memory, threads)] = reader.con.execute(settings).fetchall()
        tried.append(Tried(turns[-1], memory, threads, lines["seq"].to_pylist()))
        if missed(tried[-1]):
            raise duckdb.OutOfMemoryException("others have it")
        return ParsedCells()

    monkeypatch.setattr(parser._turns, "turn", noted)
    monkeypatch.setattr(Parser, "_parse_at_once", parsed)
    return tried


def test_more_threads_parse_again_when_the_memory_long_sufficed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser, needed = Parser(str(tmp_path), threads=4), 4

    def missed(now: Tried) -> bool:
        if len(tried) == 1:
            parser._note_shortage(1)  # a thread beside this one runs out of memory as well
        return now.turns < needed

    tried = tries(parser, missed, monkeypatch)
    lines = number_lines(next(batches([[message()]])).lines)
    with engine.connect(None, memory=200, threads=1) as con:
        for batch in range(120):
            needed = 4 if batch < 48 else 1
            parser._parse_in_turn(LineReader(con), lines, CellWriter(str(tmp_path)))
    # One of four threads goes on. After a while two are tried; when they fail, the wait doubles before the next try.
    assert [now.turns for now in tried] == [1, 2, *[4] * 16, 2, *[4] * 32, *[2] * 32, *[1] * 40]


@pytest.mark.parametrize("bad", ["large line", "small line", "lines together"])
def test_a_thread_that_is_alone_rejects_the_large_line_that_needs_still_more_memory(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small line needs no more memory than others, so if one fails, the machine lacks memory."""
    parser, files, text = Parser(str(tmp_path)), CellWriter(str(tmp_path)), "x" * 100
    lines = number_lines(next(batches([["{", text, "}"]])).lines)
    monkeypatch.setattr(parse, "LARGE_LINE", lines.slice(1, 1).nbytes if bad == "large line" else lines.nbytes + 1)
    enough = [2] if bad == "lines together" else []
    tried = tries(parser, lambda now: 2 in now.lines and now.lines != enough, monkeypatch)
    error = pytest.raises(duckdb.OutOfMemoryException, match=r"^others have it$")
    with engine.connect(None, memory=200, threads=2) as con, error if bad == "small line" else nullcontext():
        parser._parse_in_turn(LineReader(con), lines, files)
    last = {"large line": [[parse.CANARY_SEQ], [3]], "small line": [], "lines together": [[3]]}
    alone = [[1, 2, 3], [1], [2, 3], [2], *last[bad]]
    assert tried == [(1, "190.7 MiB", 2, [1, 2, 3]), *((1, "381.4 MiB", 1, seqs) for seqs in alone)]
    names = ["seq", "message", "raw"]
    rejects = [row for path in files.cells.rejects for row in pq.read_table(path, columns=names).to_pylist()]
    told = {"seq": 2, "message": "OutOfMemoryException: others have it", "raw": text}
    assert rejects == [told] * (bad == "large line")


def test_a_wide_table_gets_memory_for_its_columns_when_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "ALONE_MEMORY", 30)  # low, so that few columns need more
    columns = [f"c{number}" for number in range(400)]
    cells = ", ".join(f"CASE WHEN hash(range + {name[1:]}) % 3 = 0 THEN range || 'x' END AS {name}" for name in columns)
    with engine.connect(str(tmp_path), 400, threads=1) as con:
        con.execute(f"CREATE TABLE made AS SELECT {cells} FROM range(3000)")
        con.execute("SET memory_limit = '30MB'")  # the limit as a later narrow table sets it
        rows = TableRows("users", dict.fromkeys(columns, "text"), con.sql("FROM made"), 3000)
        rows.write(str(tmp_path / "users.parquet"))
        assert engine.memory_limit(con.execute) < 31_000_000
        con.execute("SET memory_limit = '400MB'")
        assert pq.read_table(tmp_path / "users.parquet").equals(con.sql("FROM made").to_arrow_table())


@pytest.mark.parametrize("megabytes", [30, 100])
def test_tables_that_run_out_of_memory_next_to_others_are_inserted_alone(
    megabytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warehouse, "_queue", LargestFirst(4))
    people = (identify(messageId=f"i{number}", userId=f"u{number}", traits=texts(number, 120)) for number in range(10))
    write("1.ndjson", *(wide(f"Wide {number % 4}", number, 250) for number in range(40)), *people)
    credentials = DuckDbCredentials(str(tmp_path / "autopilot.duckdb"))
    credentials.global_config = {"memory_limit": f"{megabytes}MB", "threads": 2}
    pipeline(tmp_path, direct(credentials)).run(autopilothq.archive("archive"))
    tables = content(tmp_path / "autopilot.duckdb")
    assert {table: len(found.rows) for table, found in tables.items() if found.rows} == {
        "_audit": 1, "identifies": 10, "tracks": 40, "users": 10, **{f"wide_{number}": 10 for number in range(4)},
    }  # fmt: skip
    with duckdb.connect(str(tmp_path / "autopilot.duckdb")) as database:
        for table, column in (("wide_3", "p249"), ("users", "p119")):
            counts = f"SELECT count(*), count(DISTINCT {column}) FROM autopilothq.{table}"
            assert database.sql(counts).fetchall() == [(10, 10)]


@pytest.mark.parametrize(
    "error",
    [
        duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block of size 256.0 KiB"),
        duckdb.TransactionException("TransactionContext Error: Failed to commit: could not allocate block"),
    ],
)
def test_copies_and_merges_are_tried_again_alone(
    error: duckdb.Error, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    execute, tried = warehouse.DirectSqlClient.execute_sql, dict[str, list[tuple[int, ...]]]()

    def missing_at_first(self: warehouse.DirectSqlClient, sql: str, *values: Any) -> Any:
        if "INSERT INTO" in sql and '."_dlt' not in sql:
            tried.setdefault(sql, []).extend(
                self.native_connection.execute("SELECT current_setting('threads')").fetchall()
            )
            if len(tried[sql]) == 1:
                raise DatabaseTransientException(error)
        return execute(self, sql, *values)

    monkeypatch.setattr(warehouse.DirectSqlClient, "execute_sql", missing_at_first)
    # There is no memory to end the transaction either.
    monkeypatch.setattr(warehouse.DirectSqlClient, "rollback_transaction", lambda _: None)
    write("1.ndjson", message(messageId="m1"), identify(messageId="m2"))
    database = duckdb.connect(":memory:", config={"threads": 2})
    pipeline(tmp_path, database).run(autopilothq.archive("archive"))
    stored = {table: len(found.rows) for table, found in content(database).items() if found.rows}
    assert stored == dict.fromkeys(("_audit", "email_opened", "identifies", "tracks", "users"), 1)
    merges = sorted(sql.partition(" as d ")[0] for sql in tried if sql.startswith("DELETE"))
    assert merges == ['DELETE FROM "autopilothq"."_audit"', 'DELETE FROM "autopilothq"."users"']
    # One statement for each of three tables with direct inserts, two for each that merges from staging.
    assert len(tried) == 3 + 2 * 2
    assert set(map(tuple, tried.values())) == {((2,), (1,))}
    assert [record.message for record in caplog.records if "Transient" in record.message] == []


COMMIT = "TransactionContext Error: Failed to commit: "


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (duckdb.OutOfMemoryException("Out of Memory Error: failed to pin block of size 256.0 KiB"), True),
        (duckdb.TransactionException(f"{COMMIT}could not allocate block of size 256.0 KiB"), True),
        (
            duckdb.TransactionException(f"{COMMIT}failed to pin block of size 256.0 KiB (476.6 MiB/476.8 MiB used)"),
            True,
        ),
        (duckdb.TransactionException(f"{COMMIT}write-write conflict on key"), False),
        (duckdb.TransactionException("cannot rollback - no transaction is active"), False),
        (duckdb.IOException("No space left on device"), False),
    ],
)
def test_errors_that_more_memory_would_spare_are_told_from_others(error: duckdb.Error, lacks: bool) -> None:
    assert engine.lacks_memory(error) == engine.lacks_memory(DatabaseTransientException(error)) == lacks


AS_IT_WRITES = "FATAL Error: Transaction COMMIT succeeded and is durable, but the autocheckpoint failed: "


@pytest.mark.parametrize("where", ["Out of Memory Error: ", COMMIT, AS_IT_WRITES])
def test_who_lacks_memory_learns_how_to_allow_more(where: str) -> None:
    text = f"{where}failed to pin block of size 256.0 KiB (476.5 MiB/476.8 MiB used)"
    assert str(explain(duckdb.Error(text))) == (
        f"{text}\n"
        "Allow more: memory (MB, 400 unless set) under [sources.autopilothq], or for the load step memory_limit under"
        " [destination.duckdb.credentials.global_config]."
    )


@pytest.mark.parametrize(
    "error",
    [
        duckdb.OutOfMemoryException("Out of Memory Error: Failed to allocate block of 262144 bytes (bad allocation)"),
        MemoryError(),
        pa.ArrowMemoryError("malloc of size 64 failed"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
    ],
)
def test_who_lacks_memory_of_the_system_learns_that_no_setting_allows_more(error: Exception) -> None:
    assert str(explain(error)).endswith(
        "\nThe system gives this program no more memory, or no more threads: allow more (ulimit -v, ulimit -u, the"
        " container's limits), or let it take less: memory = 200 under [sources.autopilothq], workers = 1 under [load]."
    )


def test_the_setting_is_named_where_no_way_suffices(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__MEMORY", "40")
    monkeypatch.setattr(engine, "ALONE_MEMORY", 20)
    write("1.ndjson", *(wide("Wide", number, 190) for number in range(50)))
    said = call("load", "archive", "archive")
    assert said.status == 1
    first, second = errors(said)
    assert first.startswith("Error: The extract step failed: Out of Memory Error: ")
    assert second == (
        "Allow more: memory (MB, 400 unless set) under [sources.autopilothq], or for the load step memory_limit under"
        " [destination.duckdb.credentials.global_config]. Nothing of it counts as loaded."
    )
    monkeypatch.undo()
    assert call("load", "archive", "archive").status == 0
    assert len(content(Path("autopilot.duckdb"))["wide"].rows) == 50


@pytest.mark.parametrize("threads", [1, 2])
def test_long_texts_need_no_memory_for_all_of_them(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 50 MB of them: row groups are limited by bytes, not by rows."""
    monkeypatch.setattr(projection_module, "SMALL_LOAD", 0)
    monkeypatch.setattr(engine, "ALONE_MEMORY", 0)  # a thread that is alone gets no more either
    lines = [message(messageId=f"m{number}", properties={"html": f"{number} <p>" * 2000}) for number in range(3000)]
    projection = new_projection(tmp_path, memory=80, threads=threads)
    for batch in batches([lines], lambda _: 500):
        projection.add(batch)
    written = {}
    for rows in projection.deduplicate().tables():
        rows.write(str(tmp_path / rows.table))
        written[rows.table] = pq.ParquetFile(tmp_path / rows.table)
    projection.close()
    assert {table: file.metadata.num_rows for table, file in written.items()} == {"email_opened": 3000, "tracks": 3000}
    html = written["email_opened"].read(["id", "html"]).to_pylist()
    assert {row["id"]: row["html"] for row in html} == {line["messageId"]: line["properties"]["html"] for line in lines}
