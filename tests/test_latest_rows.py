"""Rows of persons, from stored messages and those of a load, step by step (docs/contract/warehouse.md#identity)."""

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from autopilothq.catalog import LATEST, MESSAGE_TABLES, OTHER_LIMITS, Type
from autopilothq.projection import engine, texts, users
from autopilothq.projection.cells import ParsedCells
from autopilothq.projection.columns import row_bytes
from autopilothq.projection.context import ProjectionContext, TableRows, declared_types
from autopilothq.projection.tables import TableBuilder
from autopilothq.projection.types import ARROW
from contract.loading import NOW, Row, filled, projection_context

USERS, ACCOUNTS = LATEST
OLD, NEW = (datetime(2019, 3, day, tzinfo=UTC) for day in (1, 2))
DECLARED: dict[str, Type] = declared_types(USERS.messages)
FRESH: dict[str, Type] = {**DECLARED, "plan": "text", "seats": "bigint", "at": "timestamp"}
# The table of messages in the destination has one column more and one less than the load.
STORED: dict[str, Type] = {**DECLARED, "plan": "text", "seats": "bigint", "city": "text"}
PERSONS: list[Row] = [
    {"id": "m1", "received_at": OLD, "user_id": "u1", "plan": "free", "seats": 1, "city": "Bonn"},
    {"id": "m2", "received_at": OLD, "user_id": "u2", "plan": "free", "seats": None, "city": None},
    {"id": "m3", "received_at": OLD, "user_id": " ", "plan": "nobody's", "seats": 3, "city": None},
]
LOADED = {"id": "m4", "received_at": NEW, "user_id": "u1", "plan": "pro", "seats": None, "at": NEW}
U1 = {"id": "u1", "received_at": NEW, "plan": "pro", "seats": 1, "at": NEW}
U2 = {"id": "u2", "received_at": OLD, "plan": "free"}


def relation(context: ProjectionContext, rows: Sequence[Row], types: dict[str, Type]) -> TableRows:
    table = pa.Table.from_pylist(list(rows), pa.schema([(name, ARROW[of]) for name, of in types.items()]))
    context.con.register("fresh", table)
    return TableRows("identifies", types, context.con.sql("FROM fresh"), len(rows))


@pytest.fixture
def load() -> Iterator[ProjectionContext]:
    """Yields the context of a load of LOADED, whose person will get a row."""
    with engine.connect(None, 200, 1) as con:
        con.execute(engine.script("state.sql"))
        con.execute("CREATE TABLE latest_ids AS SELECT 'u1' AS id")
        cells = ParsedCells(columns={("identify", None): {}, ("group", None): {}})
        yield projection_context(con, cells=cells)


@pytest.fixture(params=[2, 200], ids=["by way of values", "at once"])
def context(
    load: ProjectionContext, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> ProjectionContext:
    """The context of a load, once with the query for many traits and once with that for few."""
    monkeypatch.setattr(users, "MANY_TRAITS", request.param)
    return load


def persons(rows: TableRows) -> list[Row]:
    found = sorted(rows.relation.to_arrow_table().to_pylist(), key=lambda row: str(row["id"]))
    assert [list(row) for row in found] == [list(rows.columns)] * rows.row_count
    assert {row["uuid_ts"] for row in found} == {NOW}
    return [filled(row) for row in found]


@pytest.mark.parametrize("exists", [True, False])
def test_a_row_is_made_of_what_is_stored_and_what_comes(context: ProjectionContext, exists: bool) -> None:
    """If there is no table of persons yet, all persons with stored messages get rows as well."""
    asked: list[tuple[str, list[str]]] = []

    def stored(table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        asked.append((table, list(columns)))
        schema = pa.schema([(name, ARROW[STORED[name]]) for name in columns])
        yield from pa.Table.from_pylist(PERSONS, schema).to_batches()

    there: dict[str, dict[str, Type]] = {"users": {"id": "text"}} if exists else {}
    context = dataclasses.replace(context, existing={"identifies": STORED, **there})
    rows = users.make_latest(context, USERS, relation(context, [LOADED], FRESH), stored)
    assert asked == [("identifies", list(STORED))]
    gathered = context.con.execute("SELECT id FROM latest_messages ORDER BY id").fetchall()
    assert [id_ for (id_,) in gathered] == (["m1", "m4"] if exists else ["m1", "m2", "m3", "m4"])
    assert persons(rows) == [U1 | {"city": "Bonn"}, *([] if exists else [U2])]
    assert rows.table == "users"
    traits: dict[str, Type] = {"at": "timestamp", "city": "text", "plan": "text", "seats": "bigint"}
    assert rows.columns == declared_types(USERS.table) | traits


def test_stored_messages_about_others_take_no_memory(load: ProjectionContext) -> None:
    load.con.execute("SET memory_limit = '30MB'")
    load.con.execute("INSERT INTO latest_ids SELECT 'w' || i FROM range(100) r(i)")

    def stored(_: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for number in range(40):
            rows = [{"id": f"{number} {n}", "user_id": f"v{number}", "plan": "a" * 100_000} for n in range(20)]
            schema = pa.schema([(name, ARROW[STORED[name]]) for name in columns])
            yield from pa.Table.from_pylist(rows, schema).to_batches()

    known = {"identifies": STORED, "users": declared_types(USERS.table)}
    rows = users.make_latest(
        dataclasses.replace(load, memory=30, existing=known), USERS, relation(load, [LOADED], FRESH), stored
    )
    assert persons(rows) == [{name: value for name, value in U1.items() if name != "seats"}]


def test_stored_messages_about_these_persons_may_be_long(load: ProjectionContext, tmp_path: Path) -> None:
    load.con.execute("SET memory_limit = '50MB'")
    load.con.execute("INSERT INTO latest_ids SELECT 'v' || i FROM range(300) r(i)")

    def stored(_: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([(name, ARROW[STORED[name]]) for name in columns])
        for n in range(300):
            row = {"id": f"s{n}", "received_at": OLD, "user_id": f"v{n}", "plan": str(n % 10) * 200_000}
            yield from pa.Table.from_pylist([row], schema).to_batches()

    known = {"identifies": STORED, "users": declared_types(USERS.table)}
    context = dataclasses.replace(load, scratch=str(tmp_path), memory=50, existing=known)
    fresh = [LOADED, *({**LOADED, "id": f"f{n}", "user_id": f"v{n}", "plan": None, "seats": n} for n in range(300))]
    rows = users.make_latest(context, USERS, relation(load, fresh, FRESH), stored)
    columns = 'id, received_at, substr(plan, 1, 3), length(plan), seats, "at"'
    found = rows.relation.query("rows", f"SELECT {columns} FROM rows").fetchall()
    others = [(f"v{n}", NEW, str(n % 10) * 3, 200_000, n, NEW) for n in range(300)]
    assert sorted(found) == [("u1", NEW, "pro", 3, None, NEW), *sorted(others)]
    assert rows.row_count == 301


def test_where_nothing_is_stored_it_is_made_of_what_comes(context: ProjectionContext) -> None:
    fresh = [LOADED, {**LOADED, "id": "m0", "received_at": None, "seats": 1, "plan": "free"}]
    for stored, known in ((None, {"identifies": STORED}), (lambda *_: 1 / 0, {"users": {"id": "text"}})):
        asking: Any = stored
        loaded = dataclasses.replace(context, existing=known)  # type: ignore[arg-type]
        assert persons(users.make_latest(loaded, USERS, relation(context, fresh, FRESH), asking)) == [U1]


def test_rows_of_persons_and_of_groups_are_made_before_any_is_written(context: ProjectionContext) -> None:
    made = users.make_latest(context, USERS, relation(context, [LOADED], FRESH))
    context.con.execute("UPDATE latest_ids SET id = 'g1'")
    types: dict[str, Type] = {**FRESH, "group_id": "text"}
    group = {**LOADED, "group_id": "g1", "plan": "team", "context_ip": "::1"}
    of_groups = users.make_latest(context, ACCOUNTS, relation(context, [group], types))
    assert persons(made) == [{"id": "u1", "received_at": NEW, "plan": "pro", "at": NEW}]
    assert persons(of_groups) == [{"id": "g1", "received_at": NEW, "plan": "team", "at": NEW}]


def test_a_group_without_traits_has_a_row_among_long_lines_too(load: ProjectionContext, tmp_path: Path) -> None:
    long = dataclasses.replace(load, scratch=str(tmp_path), cells=ParsedCells(long_bytes=1 << 30))
    types = declared_types(ACCOUNTS.messages)
    rows = users.make_latest(long, ACCOUNTS, relation(long, [{**LOADED, "group_id": "u1"}], types))
    assert persons(rows) == [{"id": "u1", "received_at": NEW}]


def test_whole_texts_replace_those_that_were_cut(context: ProjectionContext) -> None:
    number = MESSAGE_TABLES.index(USERS.messages)
    context.con.execute(f"INSERT INTO mends VALUES ({number}, 1, 'm4', 'plan', 'professional')")
    rows = users.make_latest(context, USERS, relation(context, [LOADED], FRESH), None, ["plan"])
    assert [row["plan"] for row in persons(rows)] == ["professional"]


@pytest.mark.parametrize("long", [False, True])
def test_the_last_value_that_fits_the_type_of_its_column_counts(
    context: ProjectionContext, tmp_path: Path, long: bool
) -> None:
    """Adopted rows may have given the table another type. One load or several make the same row."""
    of_table: dict[str, Type] = {"id": "text", "plan": "bigint", "seats": "text", "at": "text"}
    cells = ParsedCells(long_bytes=1 << 30 if long else 0)
    context = dataclasses.replace(context, scratch=str(tmp_path), existing={"users": of_table}, cells=cells)
    context.con.execute("INSERT INTO latest_ids VALUES ('u2')")
    fresh = [
        {**LOADED, "id": "a", "received_at": OLD, "plan": "3", "seats": 5},
        LOADED,
        {**LOADED, "id": "b", "user_id": "u2", "received_at": OLD, "plan": "x"},
        {**LOADED, "id": "c", "user_id": "u2", "plan": "8", "at": None},
    ]
    texts.prepare_for_long_lines(context)
    made = users.make_latest(context, USERS, relation(context, fresh, FRESH))
    at = "2019-03-02T00:00:00.000000Z"
    assert persons(made) == [
        {"id": "u1", "received_at": NEW, "plan": 3, "seats": "5", "at": at},
        {"id": "u2", "received_at": NEW, "plan": 8, "at": at},
    ]
    assert {name: made.columns[name] for name in ("plan", "seats", "at")} == {
        "plan": "bigint", "seats": "text", "at": "text",
    }  # fmt: skip
    assert context.con.execute("FROM discards_of_latest").fetchall() == [
        ("users", "u1", "plan", '"pro"', "does_not_fit", NEW)
    ]


def test_memory_is_asked_for_where_values_become_columns(
    context: ProjectionContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved: list[int] = []
    monkeypatch.setattr(ProjectionContext, "reserve", lambda _, columns=0: reserved.append(columns))
    rows = users.make_latest(context, USERS, relation(context, [LOADED], FRESH))
    assert reserved == [len(rows.columns) if users.MANY_TRAITS == 2 else 0]


@pytest.mark.parametrize(("room", "there", "lost"), [(96, "de", ["c"]), (95, "de", ["b", "c"]), (96, "", ["e"])])
def test_a_person_loses_what_a_row_has_no_room_for(
    load: ProjectionContext, room: int, there: str, lost: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Existing columns come first, then others by name; declared ones always fit. Texts here take 24 bytes."""
    monkeypatch.setattr(users, "MANY_TRAITS", 2)
    texts = {name: name * 30 for name in "abcde"}
    types: dict[str, Type] = DECLARED | dict.fromkeys(texts, "text")
    declared = declared_types(USERS.table)
    limits = OTHER_LIMITS._replace(row_bytes=row_bytes(declared.values(), len(declared) + len(texts)) + room)
    fresh = {"id": "m1", "received_at": NEW, "user_id": "u1", "context_ip": "::1" * 9, **texts}
    known: dict[str, dict[str, Type]] = {"users": dict.fromkeys(there, "text")} if there else {}
    context = dataclasses.replace(load, existing=known, limits=limits)
    rows = users.make_latest(context, USERS, relation(context, [fresh], types))
    kept = {name: text for name, text in texts.items() if name not in lost}
    assert persons(rows) == [{"id": "u1", "received_at": NEW, "context_ip": "::1" * 9, **kept}]
    assert load.con.execute("FROM discards_of_latest ORDER BY ALL").fetchall() == [
        ("users", "u1", name, f'"{texts[name]}"', "row_too_wide", NEW) for name in lost
    ]


def test_which_rows_are_made(load: ProjectionContext) -> None:
    """Those of persons or groups in the load's messages, and of those that lose a refused message."""
    load.con.execute(
        "CREATE TABLE messages AS FROM (VALUES "
        "('identify', 'u1', NULL), ('identify', 'u1', NULL), ('identify', ' ', NULL), ('group', 'u2', 'g1'), "
        "('track', 'u3', 'g2')) m(kind, user_id, group_id)"
    )
    load.con.execute(
        "INSERT INTO refused VALUES (1, 'm', 'no', 'users', 'u4', true), "
        "(2, 'm', 'no', 'users', 'u5', false), (3, 'm', 'no', 'accounts', 'g3', true)"
    )
    for latest, ids in ((USERS, ["u1", "u4"]), (ACCOUNTS, ["g1", "g3"])):
        assert users.find_changed(load, latest) == len(ids)
        assert load.con.execute("FROM latest_ids ORDER BY id").fetchall() == [(id_,) for id_ in ids]


def test_without_messages_about_persons_no_rows_are_made(load: ProjectionContext) -> None:
    load.con.execute("CREATE TABLE messages (kind VARCHAR, user_id VARCHAR)")
    for context in (load, projection_context(load.con)):
        assert users.latest_rows(context, USERS, TableBuilder(context, {})) is None


def test_rows_are_made_of_the_rows_of_their_messages(load: ProjectionContext, monkeypatch: pytest.MonkeyPatch) -> None:
    class Builder:
        def rows(self, number: int) -> str:
            return f"rows of {MESSAGE_TABLES[number].name}"

    builder: Any = Builder()
    stored: Any = object()
    monkeypatch.setattr(users, "make_latest", lambda *given: given)
    load.con.execute(
        "CREATE TABLE messages AS FROM (VALUES ('identify', 'u1', NULL), ('group', 'u1', 'g1')) "
        "m(kind, user_id, group_id)"
    )
    number = MESSAGE_TABLES.index(ACCOUNTS.messages)
    load.con.execute(f"INSERT INTO mends VALUES ({number}, 1, 'm4', 'plan', 'professional')")
    for latest, messages, mended in ((USERS, "identifies", []), (ACCOUNTS, "groups", ["plan"])):
        found: Any = users.latest_rows(load, latest, builder, stored)
        assert found == (load, latest, f"rows of {messages}", stored, mended)
