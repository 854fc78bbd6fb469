"""If threads together need more memory than there is, fewer run at a time, and nothing is lost or rejected."""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

import autopilothq
from autopilothq.catalog import Type
from autopilothq.explain import explain
from autopilothq.machine import LargestFirst
from autopilothq.privacy.rewrite import rewrite
from autopilothq.projection import Projection, TableRows, cells, engine, mend, parse, tables, users
from autopilothq.projection import projection as projection_module
from autopilothq.projection import texts as texts_module
from autopilothq.projection.cells import CellWriter, ParsedCells
from autopilothq.projection.line_reader import LineReader
from autopilothq.projection.parse import Parser, number_lines
from autopilothq.projection.types import ARROW
from autopilothq.sources.adopt import buffer, in_parts, latest
from autopilothq.warehouses import duckdb as warehouse
from autopilothq.warehouses import duckdb_parts as parts
from autopilothq.warehouses import duckdb_pool
from autopilothq.warehouses.dataset import sql_arrow
from autopilothq.warehouses.dlt_internals import DatabaseTransientException, DuckDbConnectionPool, SqlLoadJob
from autopilothq.warehouses.dlt_internals.clients import file_of
from autopilothq.warehouses.duckdb import direct
from calling import Call, errors
from contract.loading import NOW, batches, identify, message, new_projection, write
from faults.loads import content, in_memory, pipeline


def wide(event: str, number: int, keys: int) -> dict[str, Any]:
    """A message with many properties, each with a text of its own."""
    return message(event, messageId=f"{event} {number}", properties=texts(f"{event} {number}", keys))


def texts(of: object, keys: int) -> dict[str, str]:
    """Many properties or traits."""
    return {f"p{key}": f"{of} {key}" * 3 for key in range(keys)}


# Threads, and the engine's memory (MB): enough for some of them, and not even for one, which is given more then.
PRESSED = [(8, 400), (4, 200), (2, 200), (1, 150)]


@pytest.mark.parametrize(("threads", "memory"), PRESSED)
def test_no_message_is_rejected_because_many_threads_read(
    threads: int, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection_module, "SMALL_LOAD", 0)  # as in a load that takes all threads
    lines = [wide("Wide", number, 190) for number in range(50 * max(threads, 2))]
    first, *others = batches([lines], lambda _: 50)
    projection = new_projection(tmp_path, memory=memory, threads=threads)
    projection.add(first)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(projection.add, others))
    if memory < 400:
        assert projection._parser._turns_taken > threads  # one was left alone
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
    """What a parser tried: the turns that it took, the memory and the threads of its engine, the lines."""

    turns: int
    memory: str
    threads: int
    lines: list[int]


def tries(parser: Parser, missed: Callable[[Tried], bool], monkeypatch: pytest.MonkeyPatch) -> list[Tried]:
    """Lets a parser miss memory where `missed` says so, and parse nothing otherwise; gives what it tries."""
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
            parser._note_shortage(1)  # nor does it for a thread beside this one
        return now.turns < needed

    tried = tries(parser, missed, monkeypatch)
    lines = number_lines(next(batches([[message()]])).lines)
    with engine.connect(None, memory=200, threads=1) as con:
        for batch in range(120):
            needed = 4 if batch < 48 else 1
            parser._parse_in_turn(LineReader(con), lines, CellWriter(str(tmp_path)))
    # One of four threads goes on; two are tried and fail, then again after twice as long, until all go on again.
    assert [now.turns for now in tried] == [1, 2, *[4] * 16, 2, *[4] * 32, *[2] * 32, *[1] * 40]


@pytest.mark.parametrize("bad", ["large line", "small line", "lines together"])
def test_a_thread_that_is_alone_rejects_the_large_line_that_needs_still_more_memory(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small line needs no more memory than others, so an error at one is the machine's."""
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
    # Nor is there memory to end the transaction.
    monkeypatch.setattr(warehouse.DirectSqlClient, "rollback_transaction", lambda _: None)
    write("1.ndjson", message(messageId="m1"), identify(messageId="m2"))
    database = duckdb.connect(":memory:", config={"threads": 2})
    pipeline(tmp_path, database).run(autopilothq.archive("archive"))
    stored = {table: len(found.rows) for table, found in content(database).items() if found.rows}
    assert stored == dict.fromkeys(("_audit", "email_opened", "identifies", "tracks", "users"), 1)
    merges = sorted(sql.partition(" as d ")[0] for sql in tried if sql.startswith("DELETE"))
    assert merges == ['DELETE FROM "autopilothq"."_audit"', 'DELETE FROM "autopilothq"."users"']
    assert len(tried) == 11 + 2 * 2  # tables whose rows are inserted at once, and those of which they come from staging
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


def test_batches_with_long_texts_are_cut_for_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STREAMED", 5 * LONG)
    rows = [{"id": n, "text": long(n) * (n % 7)} for n in range(30)]
    cut = list(engine.split_batch(pa.RecordBatch.from_pylist(rows)))
    assert [row for batch in cut for row in batch.to_pylist()] == rows
    assert {batch.num_rows == 1 or batch.nbytes <= engine.STREAMED for batch in cut} == {True}
    assert len(cut) < len(rows)
    small = pa.RecordBatch.from_pylist(rows[:2])
    assert list(engine.split_batch(small)) == [small]


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
    """Fifty megabytes of them: rows are written in groups of so many bytes, not of so many rows."""
    monkeypatch.setattr(projection_module, "SMALL_LOAD", 0)
    monkeypatch.setattr(engine, "ALONE_MEMORY", 0)  # nor is there more for a thread that is alone
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


LONG = 20_000  # characters


def long(of: object, characters: int = LONG) -> str:
    return f"{of} ".ljust(characters, "e")


def long_lines(number: int) -> Iterator[dict[str, Any]]:
    """A line of each kind that has long texts, and a short one."""
    yield message(messageId=f"property {number}", properties={"html": long(number)})
    yield message("Email Clicked", messageId=f"link {number}", properties={"link_url": long(number)})
    yield message(f"Event {number % 2}", messageId=f"event {number}", properties={"deep": {"a": {"b": long(number)}}})
    yield message(long("Name"), messageId=f"name {number}", properties={"n": number})
    yield message(messageId=long(f"id {number}"), userId=long(number))
    yield message(messageId=f"irregular {number}", properties={"html": long(number), "Html": 1})
    yield message(messageId=f"misfit {number}", properties={"transactional": long(number)})
    yield message(messageId=f"reject {number}", event=None, properties={"html": long(number)})
    yield message(messageId=f"short {number}", properties={"html": str(number)})
    traits = {"deep": {"a": {"b": long(number)}}, "name": long(f"name {number}")}
    yield identify(messageId=f"identify {number}", userId=f"u{number % 20}", receivedAt=later(number), traits=traits)
    yield identify(messageId=f"group {number}", type="group", groupId=f"g{number}", traits={"plan": long(number)})


def later(seconds: int) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def written(made: Iterable[TableRows | None], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Writes tables as a load does, and reads them."""
    found = {}
    for rows in made:
        if rows is not None:
            rows.write(str(folder / rows.table))
            found[rows.table] = pq.read_table(folder / rows.table).to_pylist()
            assert rows.number == len(found[rows.table])
    return found


def take_few_bytes_at_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for module in (cells, latest, mend, parse, tables, texts_module, users):
        monkeypatch.setattr(module, "MOST_BYTES", number)


def test_long_texts_of_any_kind_are_stored_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read, gathered and written in pieces, but for values that no column takes, and lines that none can."""
    take_few_bytes_at_once(monkeypatch, 3 * LONG)
    monkeypatch.setattr(tables, "GATHERED_BYTES", 10 * LONG)
    numbers = range(3)
    projection = new_projection(tmp_path, shorten=lambda name: name[:40])
    for batch in batches([[line for number in numbers for line in long_lines(number)]], lambda _: 30):
        projection.add(batch)
    made = projection.deduplicate()
    rows = written((*made.tables(), *made.latest(), made.rejects(["1.gz"]), made.discards()), tmp_path)
    assert made.rejects_by_reason() == {"event_not_defined": len(numbers)}
    projection.close()

    def texts_of(table: str, column: str, key: str = "id") -> dict[str, str]:
        return {row[key]: row[column] for row in rows[table] if row[column] is not None and not row[column].isdigit()}

    kinds = ("property", "link", "event", "name", "irregular", "misfit", "short", "id")
    ids = {kind: [long(f"id {n}") if kind == "id" else f"{kind} {n}" for n in numbers] for kind in kinds}
    assert {row["id"] for row in rows["tracks"]} == {id_ for of_kind in ids.values() for id_ in of_kind}
    htmls = {id_: long(n) for kind in ("property", "irregular") for n, id_ in enumerate(ids[kind])}
    assert texts_of("email_opened", "html") == htmls
    assert texts_of("email_clicked", "link_url") == {id_: long(n) for n, id_ in enumerate(ids["link"])}
    assert {n: texts_of(f"event_{n}", "deep_a_b") for n in (0, 1)} == {
        n: {f"event {of}": long(of) for of in numbers if of % 2 == n} for n in (0, 1)
    }
    assert texts_of("tracks", "event_text") | dict.fromkeys(ids["name"], long("Name")) == texts_of(
        "tracks", "event_text"
    )
    assert {row["id"]: row["user_id"] for row in rows["tracks"] if row["id"] in ids["id"]} == {
        id_: long(n) for n, id_ in enumerate(ids["id"])
    }
    identified = {f"identify {n}": long(n) for n in numbers}
    assert texts_of("identifies", "deep_a_b") == identified
    assert texts_of("users", "name") == {f"u{n % 20}": long(f"name {n}") for n in numbers}
    assert texts_of("accounts", "plan") == {f"g{n}": long(n) for n in numbers}
    discards = {(row["row_id"], row["column_name"]): row["value"] for row in rows["_discards"]}
    assert discards == {(f"misfit {n}", "transactional"): f'"{long(n)}"' for n in numbers} | {
        (f"irregular {n}", "html"): "1" for n in numbers
    }
    assert {json.loads(row["raw"])["properties"]["html"] for row in rows["_rejects"]} == {long(n) for n in numbers}


def test_nine_hundred_large_texts_are_loaded_with_the_memory_that_is_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine takes 2,048 rows at a time, however large they are."""
    monkeypatch.setattr(projection_module, "SMALL_LOAD", 0)
    lines = [message(messageId=f"m{n}", properties={"html": long(n, 100_000)}) for n in range(900)]
    projection = new_projection(tmp_path)
    for batch in batches([lines], lambda _: 320):  # what a batch of an archive has
        projection.add(batch)
    rows = written(projection.deduplicate().tables(), tmp_path)
    projection.close()
    assert {row["id"]: row["html"] for row in rows["email_opened"]} == {
        line["messageId"]: line["properties"]["html"] for line in lines
    }
    assert len(rows["tracks"]) == len(lines)


PLANS = {f"u{n}": long(n, 300_000) for n in range(60)}


def test_large_traits_need_no_memory_for_those_of_all_persons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ALONE_MEMORY", 0)
    take_few_bytes_at_once(monkeypatch, 1 << 20)
    with with_large_traits(tmp_path) as projection:
        made = projection.deduplicate()
        rows = written((*made.tables(), *made.latest()), tmp_path)
    assert {row["id"]: row["plan"] for row in rows["users"]} == PLANS
    assert {row["id"]: row["plan"] for row in rows["identifies"]} == PLANS


@contextmanager
def with_large_traits(folder: Path) -> Iterator[Projection]:
    """A load of PLANS with little memory."""
    lines = [identify(messageId=user, userId=user, traits={"plan": plan}) for user, plan in PLANS.items()]
    with closing(new_projection(folder, memory=40, threads=1)) as projection:
        for batch in batches([lines], lambda _: 20):
            projection.add(batch)
        yield projection


def test_large_texts_of_adopted_rows_are_made_whole_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ALONE_MEMORY", 0)
    take_few_bytes_at_once(monkeypatch, 1 << 20)
    types: dict[str, Type] = {"id": "text", "received_at": "timestamp", "uuid_ts": "timestamp", "plan": "text"}
    known = {"identifies": types}
    adopted = {"received_at": NOW, "uuid_ts": NOW.replace(year=2020)}

    def stored(_: str, columns: Sequence[str], _ids: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        rows = [{"id": user, "plan": plan[:512], **adopted} for user, plan in PLANS.items()]
        fields = [(name, ARROW[types[name]]) for name in columns]
        yield from pa.Table.from_pylist(rows, pa.schema(fields)).to_batches()

    with with_large_traits(tmp_path) as projection:
        made = projection.deduplicate(known, stored)
        made.find_mends(stored, known, [])
        rows = written(made.with_mended_rows(stored), tmp_path)
    assert {row["id"]: row["plan"] for row in rows["identifies"]} == PLANS


def test_large_texts_are_adopted_with_less_memory_than_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__MEMORY", "40")
    monkeypatch.setattr(engine, "ALONE_MEMORY", 0)
    monkeypatch.setattr(engine, "STREAMED", 1 << 20)
    take_few_bytes_at_once(monkeypatch, 1 << 20)
    rows = [{"id": user, "user_id": user, "received_at": NOW, "plan": plan} for user, plan in PLANS.items()]
    Path("exported").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), "exported/identifies.parquet", row_group_size=4)
    database = in_memory()
    pipeline(tmp_path, database).run(autopilothq.adopt("exported"))
    tables = content(database)
    for table in ("identifies", "users"):
        assert {row["id"]: row["plan"] for row in tables[table].dicts()} == PLANS


@pytest.mark.parametrize("form", ["parquet", "csv", "json", "duckdb"])
def test_long_rows_of_any_export_are_adopted_few_at_a_time(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there is no memory for 2,048 of them; twice: rows that are stored already stay, but for null cells."""
    read_in_parts(monkeypatch)
    database, texts = in_memory(), {f"u{n}": long(f'{n},\n"x"', 3_000) for n in range(40)}
    for plans in (texts | {"u2": None}, texts | {"u1": "later", "new": None}):
        rows = [
            {"id": user, "received_at": NOW, "plan": plan, "file_row_number": f"r{user}"}
            for user, plan in plans.items()
        ]
        source = autopilothq.adopt(**exported_users(pa.Table.from_pylist(rows), form))
        pipeline(tmp_path, database).run(source)
    tables = content(database)
    found = {row["id"]: (row["plan"], row["file_row_number"]) for row in tables["users"].dicts()}
    assert found == {user: (plan, f"r{user}") for user, plan in {**texts, "new": None}.items()}
    assert sorted(row["stored"] for row in tables["_audit"].dicts()) == [40, 41]


def read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has rows adopted as if they were long, and memory missed whenever the engine takes as many as it likes."""
    write = buffer._write
    monkeypatch.setattr(buffer, "_write", lambda con, source, *more: write(con, source._replace(sql=""), *more))
    monkeypatch.setattr(parts, "LONG", 0)
    for module in (parts, in_parts):
        monkeypatch.setattr(module, "BYTES_AT_ONCE", 20_000)
    monkeypatch.setattr(buffer, "_CHUNK", 7_000)
    take_few_bytes_at_once(monkeypatch, 20_000)


def exported_users(rows: pa.Table, form: str) -> dict[str, Any]:
    """Writes a table of users; returns the arguments that adopt it."""
    Path("exported").mkdir(exist_ok=True)
    if form == "parquet":
        pq.write_table(rows, "exported/users.parquet", use_dictionary=False)
        return {"tables_url": "exported"}
    with duckdb.connect("users.duckdb") as con:
        con.execute("CREATE SCHEMA IF NOT EXISTS autopilothq; CREATE OR REPLACE TABLE autopilothq.users AS FROM rows")
        if form != "duckdb":
            con.execute(f"COPY autopilothq.users TO 'exported/users.{form}'")
    return {"database": f"duckdb:///{Path.cwd()}/users.duckdb"} if form == "duckdb" else {"tables_url": "exported"}


def people(load: int, persons: range, characters: int) -> Iterator[dict[str, Any]]:
    """Each with a trait as long; the later load's are newer."""
    for n in persons:
        plan = {"plan": long(f"{load} {n}", characters), "n": n}
        yield identify(messageId=f"m{load} {n}", userId=f"u{n}", receivedAt=later(load), traits=plan)


def stored_plans(database: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Returns the rows of `users` and of `identifies`, with the first word of a text that is whole."""
    whole = "CASE WHEN rtrim(plan, 'e') = split_part(plan, ' ', 1) || ' ' || n || ' ' THEN strlen(plan) END"
    with duckdb.connect(str(database), read_only=True) as con:
        users, messages = (
            con.execute(f"SELECT id, split_part(plan, ' ', 1) || '-' || {whole} FROM autopilothq.{table}").fetchall()
            for table in ("users", "identifies")
        )
    return sorted(users), sorted(messages)


def plans(loads: Mapping[int, range], characters: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Returns what `stored_plans` is to find after loads of `people`."""
    users = {f"u{n}": f"{load}-{characters}" for load, persons in loads.items() for n in persons}
    messages = [(f"m{load} {n}", f"{load}-{characters}") for load, persons in loads.items() for n in persons]
    return sorted(users.items()), sorted(messages)


def test_large_traits_are_stored_replaced_and_read_again_with_less_memory_than_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB takes 2,048 rows at a time, however large they are: they come and go in parts."""
    monkeypatch.setattr(engine, "one_thread", lambda *_: nullcontext())
    monkeypatch.setattr(parts, "BYTES_AT_ONCE", 2 << 20)
    credentials = DuckDbCredentials(str(tmp_path / "autopilot.duckdb"))
    credentials.global_config = {"threads": 1, "memory_limit": "30MB", "preserve_insertion_order": False}
    loads = {1: range(150), 2: range(0, 150, 10)}
    for load, persons in loads.items():
        write(f"{load}.ndjson", *people(load, persons, 60_000))
        pipeline(tmp_path, direct(credentials)).run(autopilothq.archive("archive"))
    assert stored_plans(tmp_path / "autopilot.duckdb") == plans(loads, 60_000)


@pytest.mark.parametrize("asked", [True, False])  # whether the texts are found before DuckDB merges their rows
def test_what_a_file_s_log_has_is_written_without_memory_for_long_texts_that_are_stored(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB merges groups of rows as it closes a file; if it has no memory for 2,048 of them it writes nothing.

    The file is rewritten with the same memory.
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
            with pytest.raises(duckdb.CatalogException):  # a connection that cannot be had does not count
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
    """DuckDB opens a file once in a process, for all who have the same settings."""
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
    """Lets memory run out as the second part of a table's rows is looked at."""
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
        with pytest.raises(duckdb.OutOfMemoryException):  # for a single row
            list(sql_arrow.read_table(client, "main.stored", "SELECT n, a FROM main.stored", schema, "duckdb"))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([0] * 5, [5]),
        ([50], [1]),  # a row that is longer than a part is to be
        ([20] * 3, [1, 1, 1]),
        ([10] * 5, [2, 2, 1]),
        (
            [2] * 4 + [20] * 4,
            [1, 2, 1, 1, 1, 1, 1],
        ),  # twice as many after few bytes, half as many if needed
        ([2] * 40 + [20], [1, 2, 4, 5, 5, 5, 5, 5, 5, 2, 1, 1]),  # never more than so many
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

        def ask(sql: str) -> Any:
            if "strlen" in sql:
                raise duckdb.OutOfMemoryException("rows are long")
            return con.execute(sql).fetchall()

        assert list(parts.split_table(ask, "t")) == [f"rowid BETWEEN {row} AND {row}" for row in range(3)]


NEWEST = {"received_at": {"dedup_sort": "desc"}}  # of a person's rows this one is merged: they come to staging first


@pytest.mark.parametrize(("part", "hints"), [(2, {}), (5, {}), (5, NEWEST)])  # of identifies, and of users
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
    """As those that an earlier version copied there, and had no memory to merge."""
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


@pytest.mark.parametrize("column", ["n", "rowid"])  # a trait's, too, although DuckDB numbers rows by that name
@pytest.mark.parametrize(("direction", "first"), [("desc", 3), ("asc", 1), (None, None)])
def test_of_staged_rows_with_the_same_key_the_first_replaces_others(
    direction: str | None, first: int | None, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "STAGED_ROWS", 2)
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
    """Also after many times, although DuckDB prints a limit truncated to one decimal, and after an error."""
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
