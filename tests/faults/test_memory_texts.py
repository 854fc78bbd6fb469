"""Long texts are read, projected and adopted with less memory than their total size."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import autopilothq
from autopilothq.catalog import Type
from autopilothq.projection import Projection, TableRows, cells, engine, mend, parse, tables, users
from autopilothq.projection import projection as projection_module
from autopilothq.projection import texts as texts_module
from autopilothq.projection.types import ARROW
from autopilothq.sources.adopt import buffer, csv_dialect, csv_rows, latest
from autopilothq.warehouses import duckdb_parts as parts
from contract.loading import NOW, batches, identify, message, new_projection
from faults.loads import content, in_memory, pipeline
from faults.long_texts import LONG, later, long


def test_batches_with_long_texts_are_cut_for_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STREAMED", 5 * LONG)
    rows = [{"id": n, "text": long(n) * (n % 7)} for n in range(30)]
    cut = list(engine.split_batch(pa.RecordBatch.from_pylist(rows)))
    assert [row for batch in cut for row in batch.to_pylist()] == rows
    assert {batch.num_rows == 1 or batch.nbytes <= engine.STREAMED for batch in cut} == {True}
    assert len(cut) < len(rows)
    small = pa.RecordBatch.from_pylist(rows[:2])
    assert list(engine.split_batch(small)) == [small]


def long_lines(number: int) -> Iterator[dict[str, Any]]:
    """Yields a line for each place that a long text can be in, and a short line."""
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


def written(made: Iterable[TableRows | None], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Writes tables as a load does; returns their rows as read from the files."""
    found = {}
    for rows in made:
        if rows is not None:
            rows.write(str(folder / rows.table))
            found[rows.table] = pq.read_table(folder / rows.table).to_pylist()
            assert rows.row_count == len(found[rows.table])
    return found


def take_few_bytes_at_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for module in (cells, latest, mend, parse, tables, texts_module, users):
        monkeypatch.setattr(module, "MOST_BYTES", number)


def test_long_texts_of_any_kind_are_stored_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read, gathered and written in pieces, except values that fit no column and rejected lines."""
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

    def texts_of(table: str, column: str) -> dict[str, str]:
        return {row["id"]: row[column] for row in rows[table] if row[column] is not None and not row[column].isdigit()}

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
    """DuckDB takes 2,048 rows at a time, however large they are."""
    monkeypatch.setattr(projection_module, "SMALL_LOAD", 0)
    lines = [message(messageId=f"m{n}", properties={"html": long(n, 100_000)}) for n in range(900)]
    projection = new_projection(tmp_path)
    for batch in batches([lines], lambda _: 320):  # as many lines as in a batch of an archive
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
    """Yields a projection of PLANS that has little memory."""
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
    """As if there were no memory for 2,048 rows. The second time, stored rows only get values for their null cells."""
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
    assert sorted((row["stored"], row["duplicates"]) for row in tables["_audit"].dicts()) == [(2, 39), (40, 0)]


def read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has rows adopted in parts, as if they were long and DuckDB could not read 2,048 of them at once."""
    write = buffer._write
    monkeypatch.setattr(buffer, "_write", lambda con, source, *more: write(con, source._replace(sql=""), *more))
    monkeypatch.setattr(parts, "LONG", 0)
    for module in (parts, csv_dialect, csv_rows):
        monkeypatch.setattr(module, "BYTES_AT_ONCE", 20_000)
    monkeypatch.setattr(buffer, "_CHUNK", 7_000)
    take_few_bytes_at_once(monkeypatch, 20_000)


def exported_users(rows: pa.Table, form: str) -> dict[str, Any]:
    """Writes a table of users in this form; returns the arguments of `adopt` for it."""
    Path("exported").mkdir(exist_ok=True)
    if form == "parquet":
        pq.write_table(rows, "exported/users.parquet", use_dictionary=False)
        return {"tables_url": "exported"}
    with duckdb.connect("users.duckdb") as con:
        con.execute("CREATE SCHEMA IF NOT EXISTS autopilothq; CREATE OR REPLACE TABLE autopilothq.users AS FROM rows")
        if form != "duckdb":
            con.execute(f"COPY autopilothq.users TO 'exported/users.{form}'")
    return {"database": f"duckdb:///{Path.cwd()}/users.duckdb"} if form == "duckdb" else {"tables_url": "exported"}
