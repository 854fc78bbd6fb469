"""A table's messages become rows and discards, step by step (docs/contract/warehouse.md#limits)."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import duckdb
import pyarrow.parquet as pq
import pytest

from autopilothq.catalog import (
    COLUMN_RESERVE,
    LIMITS,
    LINK,
    MESSAGE_TABLES,
    PROPERTIES,
    Limits,
    Type,
    event_table,
)
from autopilothq.projection import engine, tables
from autopilothq.projection.columns import (
    ColumnPlan,
    ExaminedValues,
    Extra,
    discard_columns,
    discard_without_table,
    find_too_wide,
    row_bytes,
    row_values,
)
from autopilothq.projection.context import ProjectionContext, TableNumbers, TableRows, declared_types
from autopilothq.projection.deduplicate import limit_tables
from autopilothq.projection.line_reader import LineReader
from autopilothq.projection.parse import Parser
from autopilothq.projection.projection import open_load
from autopilothq.projection.tables import TableBuilder, TableMessages, TableValues, plan_table
from autopilothq.projection.types import ARRAY, INTEGER, TEXT, TIME_TEXT, ColumnValues
from contract.loading import NOW, RECEIVED, Row, batches, filled, identify, message, projection_context

OWN = [table.name for table in MESSAGE_TABLES]
ALONE = {"x": None, "X": None}  # a line with two keys for one column is read by itself: its values are buffered as rows
WIDE = {f"w{at}": "x" * 30 for at in range(6)}
LINES = [
    message(
        "Opened", messageId="a", properties={"n": 1, "s": "x", "b": 5, "campaign_id": '"\\', "transactional": "maybe"}
    ),
    message("Opened", messageId="b", properties={"n": "no", "s": "y", "c": "\\", "d": [1], "transactional": True}),
    message("Opened", messageId="c", properties={**ALONE, "n": 2, "s": "z", "b": 6, "r": "soon", "q": "?"}),
    message("Opened", messageId="d", properties={**ALONE, "n": "none", "r": "2024-03-04T05:06:07Z"}),
    message("Other", messageId="e", properties={"n": "no", "b": 1, "o": 2, "transactional": "maybe", "link_id": "l"}),
    message("Other", messageId="f", properties={**ALONE, "n": "no", "b": 1, "r": "soon", "q": 1}, context={"zoo": 1}),
    message("Wide", messageId="g", properties={**ALONE, **WIDE}),
    message("購入", messageId="h", properties={"b": 3}, context={"zoo": 2}),
    message("購入", messageId="i", properties={**ALONE, "r": 4}),
    identify(messageId="j", traits={"b": 1}),
]
NAMES = [*OWN, "Opened", "Other", "Wide"]
OPENED, OTHER, WIDE_TABLE = range(len(OWN), len(NAMES))
IDENTIFIES = OWN.index("identifies")
OPENED_COLUMNS = 24  # including the four existing ones


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProjectionContext]:
    folder = str(tmp_path_factory.mktemp("load"))
    with engine.connect(folder, 200, 1) as con:
        cells = Parser(folder).parse(LineReader(con), next(batches([LINES])))
        named = lambda key: "" if key == "購入" else key.title()  # noqa: E731
        yield open_load(projection_context(con, folder, cells, event_table=named))


@pytest.fixture
def context(load: ProjectionContext) -> Iterator[ProjectionContext]:
    """The context of a load of LINES, before any step."""
    with load.con.cursor() as con:
        con.execute("BEGIN")
        yield dataclasses.replace(load, con=con)
        con.execute("ROLLBACK")


def discards(context: ProjectionContext) -> list[tuple[str, ...]]:
    """Returns the discards: message id, table, column, value and reason."""
    found = "SELECT id, table_name, column_name, value, reason FROM discards JOIN messages USING (seq) ORDER BY ALL"
    return context.con.execute(found).fetchall()


def test_a_table_discards_what_has_no_column_and_what_does_not_fit(context: ProjectionContext) -> None:
    """Only values of this table are discards, wherever they are buffered; text always fits."""
    taken: dict[str, Extra] = {
        "n": Extra("bigint", "n", True, True, False),
        "s": Extra("bool", "s", True, False, True),
        "r": Extra("timestamp", "_r", False, True, False),
        "c": Extra("text", "c", True, False, False),
    }
    left_out = {"same_column": ["b"], "too_many_columns": ["d", "q"]}
    assert context.tables.names == NAMES
    examined = ExaminedValues.of(context.tables.where(OPENED))
    discard_columns(context, OPENED, examined, ColumnPlan(taken, left_out, frozenset("bcdns"), frozenset("bnqr")))
    assert discards(context) == [
        ("a", "Opened", "b", "5", "same_column"),
        ("a", "Opened", "s", '"x"', "does_not_fit"),
        ("a", "Opened", "transactional", '"maybe"', "does_not_fit"),
        ("b", "Opened", "d", "[1]", "too_many_columns"),
        ("b", "Opened", "n", '"no"', "does_not_fit"),
        ("b", "Opened", "s", '"y"', "does_not_fit"),
        ("c", "Opened", "b", "6", "same_column"),
        ("c", "Opened", "q", '"?"', "too_many_columns"),
        ("c", "Opened", "r", '"soon"', "does_not_fit"),
        ("d", "Opened", "n", '"none"', "does_not_fit"),
    ]


def test_tracks_have_no_properties_that_could_not_fit(context: ProjectionContext) -> None:
    examined = ExaminedValues.of(context.tables.where_of_rows(0))
    discard_columns(context, 0, examined, ColumnPlan({}, {}, frozenset(), frozenset()))
    assert discards(context) == []


@pytest.mark.parametrize(("spare", "kept"), [(4 * 24, 4), (4 * 24 - 1, 3), (6 * 24, 6), (6 * 24 - 1, 5)])
def test_a_row_keeps_what_it_has_room_for(context: ProjectionContext, spare: int, kept: int) -> None:
    """Existing columns come first, then others by name. Each text here takes 24 bytes."""
    declared: dict[str, Type] = {"id": "text", "transactional": "bool"}
    extras = {name: Extra("text", f"_{name}", False, True, name == "w5") for name in WIDE}
    extras["b"] = Extra("bigint", "b", True, False, False)
    limits = LIMITS["postgres"]._replace(row_bytes=row_bytes(declared.values(), 9) + spare)
    context = dataclasses.replace(context, limits=limits)
    where = context.tables.where(WIDE_TABLE)
    table = find_too_wide(context, WIDE_TABLE, ExaminedValues.of(where).extras, declared, extras)
    lost = ["w0", "w1", "w2", "w3", "w4"][kept - 1 :]
    assert table == (f"too_wide_{WIDE_TABLE}" if lost else None)
    if table:
        [(seq,)] = context.con.execute(f"SELECT seq FROM messages WHERE {where}").fetchall()
        found = context.con.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()
        assert found == [(seq, name) for name in lost]
    assert discards(context) == [("g", "Wide", name, f'"{WIDE[name]}"', "row_too_wide") for name in lost]


def test_other_destinations_have_room_in_a_row(context: ProjectionContext) -> None:
    extras = {name: Extra("text", name, False, True, False) for name in WIDE}
    rows = ExaminedValues.of(context.tables.where(WIDE_TABLE)).extras
    assert find_too_wide(context, WIDE_TABLE, rows, {}, extras) is None


def test_events_without_a_table_lose_their_properties(context: ProjectionContext) -> None:
    """For events whose names have no slug, and those beyond the number of tables; `tracks` keeps their context."""
    numbers, without_table = limit_tables(context, [], 1)
    assert without_table == {"Other": 2, "Wide": 1}
    discard_without_table(dataclasses.replace(context, tables=numbers))
    many = {
        "e": {"b": "1", "link_id": '"l"', "n": '"no"', "o": "2", "transactional": '"maybe"'},
        "f": {"b": "1", "n": '"no"', "q": "1", "r": '"soon"'},
        "g": {name: f'"{text}"' for name, text in WIDE.items()},
    }
    assert discards(context) == [
        *((id_, "tracks", *cell, "too_many_tables") for id_, cells in many.items() for cell in cells.items()),
        ("h", "tracks", "b", "3", "no_column"),
        ("i", "tracks", "r", "4", "no_column"),
    ]


def test_if_each_event_has_a_table_no_query_runs(context: ProjectionContext) -> None:
    events = {event: number for event, number in context.tables.events.items() if number}
    discard_without_table(dataclasses.replace(context, con=None, tables=TableNumbers(NAMES, events)))  # type: ignore[arg-type]


@pytest.fixture
def reserved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records for how many columns memory is reserved."""
    found: list[int] = []
    monkeypatch.setattr(ProjectionContext, "reserve", lambda _, columns=0: found.append(columns))
    return found


TRACK = {"received_at": RECEIVED, "timestamp": RECEIVED, "user_id": "u1", "event": "Opened", "event_text": "Opened"}


def stored(rows: TableRows) -> list[Row]:
    """Returns the rows by id without nulls; checks that each has the time of the load."""
    found = sorted(rows.relation.to_arrow_table().to_pylist(), key=lambda row: str(row["id"]))
    assert {row["uuid_ts"] for row in found} == {NOW}
    return [filled(row) for row in found]


# ---- rows ----------------------------------------------------------------------------------------------------------


def test_small_tables_are_gathered_first(context: ProjectionContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many of the smallest tables as fit into memory; `tracks` counts with the messages of all events."""
    monkeypatch.setattr(tables, "GATHERED_ROWS", 2)
    builder = TableBuilder(context, {})
    found = builder.gather()
    assert found == {IDENTIFIES: 1, WIDE_TABLE: 1, OTHER: 2, OPENED: 4, 0: 9}
    assert list(found.values()) == [1, 1, 2, 4, 9]
    assert context.con.execute("SELECT id FROM gathered ORDER BY id").fetchall() == [("g",), ("j",)]
    assert [builder.messages(number).source for number in (IDENTIFIES, WIDE_TABLE, OTHER, 0)] == [
        "gathered WHERE kind = 'identify'",
        "gathered WHERE event IN ('\"Wide\"')",
        "kept WHERE event IN ('\"Other\"')",
        "kept WHERE kind = 'track'",
    ]
    groups = OWN.index("groups")
    assert builder.messages(groups) == TableMessages(
        groups, "kept WHERE kind = 'group'", ExaminedValues.of("kind = 'group'"), (), {}
    )
    context.con.execute("INSERT INTO duplicates SELECT seq FROM messages WHERE kind = 'track'")
    assert TableBuilder(context, {}).gather() == {IDENTIFIES: 1}


def test_values_in_rows_are_gathered_by_table(context: ProjectionContext) -> None:
    """So a table need not search the values of all others; a single table would gain nothing."""
    found = row_values(context, "kept")
    builder = TableBuilder(context, found)
    builder.gather()
    opened = "event IN ('\"Opened\"')"
    assert builder.messages(OPENED).examined == ExaminedValues(
        f"gathered WHERE {opened}", f"(FROM gathered_extras WHERE table_number = {OPENED})"
    )
    counts = context.con.execute("SELECT table_number, count(*) FROM gathered_extras GROUP BY ALL").fetchall()
    assert dict(counts) == {OPENED: 7, OTHER: 5, WIDE_TABLE: 6}
    alone = TableBuilder(context, {OPENED: found[OPENED]})
    alone.gather()
    assert alone.messages(OPENED).examined.extras == ExaminedValues.of(opened).extras


@pytest.mark.parametrize("again", [False, True])
def test_a_stored_message_is_discarded_again_wherever_its_table_is(context: ProjectionContext, again: bool) -> None:
    """Only if a killed load may have lost its discards."""
    context.con.execute("INSERT INTO duplicates SELECT seq FROM messages WHERE id IN ('a', 'd')")
    if again:
        context.con.execute("INSERT INTO discarded_again SELECT seq FROM messages WHERE id = 'a'")
    builder = TableBuilder(context, row_values(context, "kept"))
    assert [rows.table for rows in builder.tables()][-1] == "tracks"
    found = {value for id_, _, column, value, _ in discards(context) if id_ == "a" and column == "transactional"}
    assert found == ({'"maybe"'} if again else set())


def test_where_nothing_can_be_gathered_all_is_read(context: ProjectionContext) -> None:
    class Full:
        def execute(self, *_: object) -> None:
            raise duckdb.OutOfMemoryException

    full = cast("duckdb.DuckDBPyConnection", Full())
    assert tables.gather_small_tables(dataclasses.replace(context, con=full), {IDENTIFIES: 1}) == {}
    too_many = {0: 1, OPENED: tables.GATHERED_ROWS}
    assert tables.gather_small_tables(dataclasses.replace(context, con=full), too_many) == {}


def test_what_is_known_of_a_tables_values(context: ProjectionContext) -> None:
    rows = row_values(context, "kept")
    builder = TableBuilder(context, rows)
    number = {"campaign_id": 1, "transactional": 2}
    assert builder.values(OPENED) == TableValues(
        {column.name: ColumnValues(0, number.get(column.name, 0)) for column in (*PROPERTIES, *LINK)},
        {
            "n": ColumnValues(INTEGER | TEXT, 2), "s": ColumnValues(TEXT, 2), "b": ColumnValues(INTEGER, 1),
            "c": ColumnValues(TEXT, 1), "d": ColumnValues(ARRAY, 1),
        },
        {
            "n": ColumnValues(INTEGER | TEXT, 2), "s": ColumnValues(TEXT, 1), "b": ColumnValues(INTEGER, 1),
            "r": ColumnValues(TEXT | TIME_TEXT, 2), "q": ColumnValues(TEXT, 1),
        },
    )  # fmt: skip
    assert builder.values(IDENTIFIES) == TableValues({}, {"b": ColumnValues(INTEGER, 1)}, {})
    zoo = {"context_zoo": ColumnValues(INTEGER, 1)}
    assert builder.values(0) == TableValues({}, zoo, zoo)


@pytest.mark.parametrize(("at_once", "files"), [(100, []), (3, [3, 1]), (0, [1, 1, 1, 1])])
def test_rows_have_what_waits_in_columns_and_as_rows(
    context: ProjectionContext,
    reserved: list[int],
    at_once: int,
    files: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If there are many rows, a few are made at a time."""
    known: dict[str, Type] = {"n": "bigint", "s": "text", "b": "bigint", "r": "timestamp"}
    context = dataclasses.replace(context, existing={"Opened": known}, limits=Limits(OPENED_COLUMNS + COLUMN_RESERVE))
    monkeypatch.setattr(tables, "CELLS_AT_ONCE", at_once * OPENED_COLUMNS)
    builder = TableBuilder(context, row_values(context, "kept"))
    rows = builder.rows(OPENED, 4)
    assert (rows.table, rows.row_count, builder.rows(OPENED), reserved) == ("Opened", 4, rows, [OPENED_COLUMNS])
    declared = declared_types(event_table("Opened"))
    assert rows.columns == declared | {"campaign_id": "text", "transactional": "bool"} | known
    assert list(rows.columns)[:5] == ["id", "received_at", "uuid_ts", "anonymous_id", "b"]
    assert stored(rows) == [
        TRACK | {"id": "a", "b": 5, "campaign_id": '"\\', "n": 1, "s": "x"},
        TRACK | {"id": "b", "s": "y", "transactional": True},
        TRACK | {"id": "c", "b": 6, "n": 2, "s": "z"},
        TRACK | {"id": "d", "r": datetime(2024, 3, 4, 5, 6, 7, tzinfo=UTC)},
    ]
    written = [Path(context.scratch, f"{OPENED}-{part}-rows.parquet") for part in range(len(files))]
    assert [pq.read_metadata(path).num_rows for path in written] == files
    assert [entry[1:3] + entry[4:] for entry in discards(context) if entry[0] == "b"] == [
        ("Opened", "c", "too_many_columns"), ("Opened", "d", "too_many_columns"), ("Opened", "n", "does_not_fit"),
    ]  # fmt: skip


def test_rows_lack_what_they_have_no_room_for(context: ProjectionContext) -> None:
    declared = declared_types(event_table("Wide"))
    limits = Limits(200, row_bytes(declared.values(), len(declared) + len(WIDE)) + 4 * 24)
    context = dataclasses.replace(context, limits=limits)
    rows = TableBuilder(context, row_values(context, "kept")).rows(WIDE_TABLE, 1)
    kept = {name: WIDE[name] for name in ("w0", "w1", "w2", "w3")}
    assert stored(rows) == [TRACK | {"id": "g", "event": "Wide", "event_text": "Wide"} | kept]
    assert list(rows.columns)[-6:-4] == ["w0", "w1"]


def test_tracks_have_the_context_of_all_events(context: ProjectionContext, reserved: list[int]) -> None:
    builder = TableBuilder(context, row_values(context, "kept"))
    rows = builder.rows(0, 9)
    names = dict.fromkeys("abcd", "Opened") | dict.fromkeys("ef", "Other") | {"g": "Wide"}
    zoo = {"f": {"context_zoo": 1}, "h": {"context_zoo": 2}}
    no_slug = [{**TRACK, "id": id_, "event_text": "購入"} | zoo.get(id_, {}) for id_ in "hi"]
    for row in no_slug:
        del row["event"]
    assert stored(rows) == [
        *(TRACK | {"id": id_, "event": name, "event_text": name} | zoo.get(id_, {}) for id_, name in names.items()),
        *no_slug,
    ]
    [person] = stored(builder.rows(IDENTIFIES, 1))
    assert person == {"id": "j", "received_at": RECEIVED, "timestamp": RECEIVED, "user_id": "u1", "b": 1}
    assert reserved == [len(rows.columns), 0]


def test_rows_are_made_by_the_plans_that_there_are(context: ProjectionContext) -> None:
    """The plans are made for all partitions together."""
    plan = plan_table(context, IDENTIFIES, TableValues({}, {"b": ColumnValues(TEXT, 9)}, {}))
    made = TableBuilder(context, {}, {IDENTIFIES: plan})
    assert [(rows.table, rows.row_count, rows.columns.get("b")) for rows in made.tables()][:1] == [
        ("identifies", 1, "text")
    ]
    assert made.rows(IDENTIFIES).columns["b"] == "text"
    assert TableBuilder(context, {}).rows(IDENTIFIES).row_count == 0  # if they were not counted


def test_a_table_whose_messages_are_all_stored_has_its_columns(context: ProjectionContext) -> None:
    builder = TableBuilder(context, row_values(context, "kept"))
    context.con.execute("INSERT INTO duplicates SELECT seq FROM messages")
    rows = builder.rows(WIDE_TABLE)
    assert (rows.relation.fetchall(), WIDE.keys() <= rows.columns.keys()) == ([], True)
