"""Which columns a table gets for its values, without DuckDB (docs/contract/warehouse.md#limits)."""

import dataclasses
from typing import cast

import duckdb
import pytest

from autopilothq.catalog import COLUMN_RESERVE, LATEST, LIMITS, MESSAGE_TABLES, Limits, Type, event_table
from autopilothq.projection.cells import ParsedCells
from autopilothq.projection.columns import (
    ColumnPlan,
    Extra,
    escape_reserved,
    plan_columns,
    plan_existing_columns,
    row_bytes,
)
from autopilothq.projection.context import ProjectionContext, TableNumbers, declared_types, name_events
from autopilothq.projection.tables import TablePlan, TableValues, plan_table
from autopilothq.projection.types import (
    BOOLEAN,
    FLOAT,
    INTEGER,
    TEXT,
    TIME_TEXT,
    TYPES,
    ColumnValues,
    merge_values,
    type_case,
)
from autopilothq.projection.users import latest_columns


def shorten(name: str) -> str:
    return name[:5] if name.startswith("abcde") else name


NO_ENGINE = cast("duckdb.DuckDBPyConnection", None)
CONTEXT = ProjectionContext(
    con=NO_ENGINE, scratch="", cells=ParsedCells(), loaded_at="2024-01-02T03:04:05+00:00", memory=200,
    shorten=shorten, event_table=str,
    existing={"opened": {"have": "bigint", "_xmin": "text"}},
    limits=LIMITS["postgres"],
    tables=TableNumbers.of(name_events(['"opened"', '"email_opened"'], str)),
)  # fmt: skip
IN_COLUMNS = {
    "have": ColumnValues(TEXT, 1),
    "xmin": ColumnValues(BOOLEAN, 2),
    "often": ColumnValues(INTEGER, 9),
    "both": ColumnValues(INTEGER, 3),
    "abcdef1": ColumnValues(TEXT, 1),
}
IN_ROWS = {
    "both": ColumnValues(FLOAT, 3),
    "abcdef2": ColumnValues(TEXT, 2),
    "rare": ColumnValues(TEXT, 1),
    "also": ColumnValues(TIME_TEXT, 1),
}
KNOWN = {"have": Extra("bigint", "have", True, False, True), "xmin": Extra("text", "_xmin", True, False, True)}
NEW = {
    "often": Extra("bigint", "often", True, False, False),
    "both": Extra("double", "both", True, True, False),
    "abcdef2": Extra("text", "abcde", False, True, False),
    "also": Extra("timestamp", "also", False, True, False),
    "rare": Extra("text", "rare", False, True, False),
}


@pytest.mark.parametrize("room", [-2, 0, 1, 4, 5])
def test_a_table_keeps_its_columns_and_gets_those_with_most_values(room: int) -> None:
    """The catalogue's columns do not count. If two names are shortened to the same one, the more frequent stays."""
    taken = dict(list(NEW.items())[: max(0, room)])
    assert plan_columns(CONTEXT, "opened", IN_COLUMNS, IN_ROWS, room) == ColumnPlan(
        KNOWN | taken,
        {"same_column": ["abcdef1"], "too_many_columns": [name for name in NEW if name not in taken]},
        frozenset(IN_COLUMNS),
        frozenset(IN_ROWS),
    )


def test_a_table_gets_no_new_columns_for_rows_that_are_there() -> None:
    assert plan_existing_columns(CONTEXT, "opened", ["have", "often"], ["often", "xmin"]) == ColumnPlan(
        {
            "have": Extra("bigint", "have", True, False, True),
            "xmin": Extra("text", "_xmin", False, True, True),
        },
        {"same_column": [], "too_many_columns": ["often"]},
        frozenset({"have", "often"}),
        frozenset({"often", "xmin"}),
    )


def planned(context: ProjectionContext, table: str) -> TablePlan:
    """Returns the plan of a table with many extra columns and the catalogue's `email_id` and `link_id`."""
    declared = [*declared_types(event_table("email_clicked")), "link_id"]
    seen = {name: ColumnValues(0, int(name in ("email_id", "link_id"))) for name in declared}
    values = TableValues(seen, {f"p{n}": ColumnValues(TEXT, 1) for n in range(9)}, {})
    number = context.tables.names.index(table)
    return plan_table(context, number, values)


def test_a_table_has_room_for_columns_in_addition_to_its_own() -> None:
    """Known columns, others that the destination has, and those that the catalogue adds all count."""
    common: dict[str, Type] = declared_types(event_table("opened"))
    present: dict[str, Type] = {"email_id": "text", "link_id": "text"}
    all_new = len(common) + len(present)
    known: dict[str, Type] = common | {"campaign_id": "text", "link_id": "text", "p8": "bigint"}
    widest = len(known) + 4
    cases: list[tuple[dict[str, Type], dict[str, int], dict[str, Type], int]] = [
        ({}, {}, common | present, all_new),
        (known, {"opened": 0}, common | present | {"campaign_id": "text"}, len(known) + 1),
        (known, {"opened": widest}, common | present | {"campaign_id": "text"}, widest + 1),
    ]
    for there, widths, expected, used in cases:
        limits = Limits(used + 3 + COLUMN_RESERVE)
        context = dataclasses.replace(CONTEXT, existing={"opened": there}, widths=widths, limits=limits)
        plan = planned(context, "opened")
        assert (plan.name, plan.declared) == ("opened", expected)
        beside: dict[str, Type] = {"p0": "text", "p1": "text", "p2": "text"}
        beside |= {name: of for name, of in there.items() if name == "p8"}
        assert {name: extra.type for name, extra in plan.extras.taken.items()} == beside
        assert list(plan.types.items())[:3] == [(name, common[name]) for name in ("id", "received_at", "uuid_ts")]
        assert plan.types == {**expected, **beside}


def test_tables_of_the_catalogue_have_its_columns() -> None:
    for table in (*MESSAGE_TABLES, event_table("email_opened")):
        declared = declared_types(table)
        plan = planned(CONTEXT, table.name)
        more: dict[str, Type] = {"email_id": "text", "link_id": "text"} if table.name == "email_opened" else {}
        assert (plan.name, plan.declared) == (table.name, {**declared, **more})


def test_values_of_two_workers_are_one() -> None:
    first = TableValues({"a": ColumnValues(1, 2)}, {"b": ColumnValues(2, 3)}, {"c": ColumnValues(4, 5)})
    second = TableValues({"a": ColumnValues(1, 1)}, {"c": ColumnValues(8, 1)}, {"c": ColumnValues(5, 20)})
    assert first.merge(second) == TableValues(
        {"a": ColumnValues(1, 3)}, {"b": ColumnValues(2, 3), "c": ColumnValues(8, 1)}, {"c": ColumnValues(5, 25)}
    )
    assert merge_values() == {}


def test_a_name_that_the_destination_has_for_itself_gets_an_underscore() -> None:
    names = ["xmin", "oid", "_table_x", "_partitiontime", "loaded_at", "plan"]
    found = {place: [escape_reserved(name, LIMITS[place]) for name in names] for place in ("postgres", "bigquery")}
    assert found == {
        "postgres": ["_xmin", *names[1:]],
        "bigquery": ["xmin", "oid", "__table_x", "__partitiontime", "_loaded_at", "plan"],
    }


def test_a_row_takes_its_head_a_bit_a_column_and_the_declared_values() -> None:
    assert row_bytes([], 0) == 24 + COLUMN_RESERVE // 8
    assert row_bytes([], 700) == 24 + (700 + COLUMN_RESERVE) // 8
    assert row_bytes(["text", "double", "bool"], 0) == row_bytes([], 0) + 24 + 17 + 15


def test_types_are_chosen_in_one_order() -> None:
    assert type_case("as_{}(value)", ["text", "bool", "text"]) == (
        "CASE type WHEN 'bool' THEN as_bool(value) WHEN 'text' THEN as_text(value) END"
    )
    assert [name in type_case("{}", TYPES) for name in ("bigint", "bool", "double", "text", "timestamp")] == [True] * 5


def test_traits_are_columns_of_the_person_or_the_group() -> None:
    users, accounts = LATEST
    types: dict[str, Type] = {
        "sent_at": "timestamp", "user_id": "text", "group_id": "text", "context_zoo": "text", "plan": "bool",
    }  # fmt: skip
    for of, traits in ((users, ("context_zoo", "group_id", "plan")), (accounts, ("plan",))):
        found = latest_columns(of, types)
        assert found == declared_types(of.table) | {name: types[name] for name in traits}
        assert list(found) == ["id", "received_at", "uuid_ts", *sorted(found.keys() - {"id", "received_at", "uuid_ts"})]
