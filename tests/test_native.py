"""The shape of a table in each destination, which loads, printed statements and upgrades share."""

from types import SimpleNamespace
from typing import Any

import pytest
from dlt import Schema

from autopilothq.catalog import LIMITS, TABLES, Type
from autopilothq.sources.table_hints import TableHints
from autopilothq.warehouses.duckdb import _is_direct
from autopilothq.warehouses.merging import merges_by_key_alone, replaces_by_key
from autopilothq.warehouses.native import TableShape, avoid_view_name, holds_messages, native_of, shape_of
from autopilothq.warehouses.repair import _in_files

COLUMNS: dict[str, Type] = {"id": "text", "received_at": "timestamp", "uuid_ts": "timestamp", "n": "double"}
NUMERIC = {"n": "numeric"}
NAIVE = dict.fromkeys(("received_at", "uuid_ts"), "timestamp without time zone")
COPY = {"loaded_at": "uuid_ts"}
LOGS = ("_deliveries", "_deliveries_ortto", "_forwards")


@pytest.mark.parametrize(
    ("kind", "table", "shape"),
    [
        ("postgres", "tracks", TableShape(NUMERIC, ("id",), ("received_at",))),
        ("postgres", "any_event", TableShape(NUMERIC, ("id",), ("received_at",))),
        ("autopilothq.warehouses.postgres.postgres", "accounts", TableShape(NUMERIC, ("id",), ("received_at",))),
        ("postgres", "lists_contacts", TableShape(NUMERIC, ("list_id", "contact_id"), ("received_at",))),
        ("postgres", "_suppressions", TableShape()),
        *(("postgres", table, TableShape(indexes=("message_id",))) for table in LOGS),
        *(("duckdb", table, TableShape()) for table in LOGS),
        ("dlt.destinations.redshift", "users", TableShape(NAIVE)),
        ("bigquery", "tracks", TableShape(copies=COPY, view="tracks_view")),
        ("bigquery", "any_event", TableShape(copies=COPY, view="any_event_view")),
        ("bigquery", "users", TableShape(copies=COPY)),
        ("bigquery", "contacts", TableShape()),
        ("duckdb", "tracks", TableShape()),
        ("snowflake", "users", TableShape()),
    ],
)
def test_a_tables_shape(kind: str, table: str, shape: TableShape) -> None:
    assert shape_of(table, COLUMNS, kind) == shape


def test_a_table_has_what_its_columns_allow() -> None:
    assert shape_of("_audit", {"file": "text", "version": "text"}, "postgres") == TableShape({}, ("file", "version"))
    assert shape_of("tracks", {"id": "text"}, "bigquery") == TableShape(view="tracks_view")


@pytest.mark.parametrize(
    ("table", "there", "name"),
    [
        ("tracks_view", (), "tracks_view_table"),
        ("email_opened_view", (), "email_opened_view_table"),
        ("page_view", (), "page_view"),
        ("page_view", ("page",), "page_view_table"),
        ("page_view", ("page", "page_view"), "page_view"),
        ("users_view", (), "users_view"),
        ("view", (), "view"),
    ],
)
def test_no_events_table_has_the_name_of_a_view(table: str, there: tuple[str, ...], name: str) -> None:
    assert avoid_view_name(table, native_of("bigquery"), there) == name
    assert avoid_view_name(table, native_of("postgres"), there) == table


def test_no_property_has_the_name_of_a_copy() -> None:
    for kind in ("postgres", "redshift", "bigquery"):
        assert native_of(kind).copies.keys() <= LIMITS[kind].reserved
    assert not any(
        "loaded_at" in {column.name for column in table.columns}
        for table in TABLES.values()
        if "uuid_ts" in {column.name for column in table.columns}
    )


def test_a_users_hints_for_how_tracks_is_stored_replace_the_catalogues() -> None:
    def layout(kind: str, **own: object) -> object:
        extraction: Any = SimpleNamespace(hints={"tracks": own})
        target: Any = SimpleNamespace(native=native_of(kind))
        hints = TableHints(extraction, target, {})
        assert hints.layout("email_opened") == ({}, {})
        return hints.layout("tracks")

    assert layout("snowflake") == ({"received_at": "cluster", "event": "cluster"}, {})
    assert layout("bigquery") == ({"received_at": "partition"}, {"x-bigquery-cluster-columns": ["event"]})
    assert layout("duckdb") == layout("filesystem") == ({}, {})
    assert layout("snowflake", columns={"event": {"name": "event", "description": "mine"}}) != ({}, {})
    assert layout("snowflake", columns={"event": {"name": "event", "cluster": False}}) == ({}, {})
    for hint in ("x-bigquery-partition", "x-databricks-cluster"):
        assert layout("bigquery", **{hint: {"timestamp": "day"}}) == ({}, {})


# ---- how rows are merged ---------------------------------------------------------------------------------------------

MERGED = {"write_disposition": "merge", "x-segment-table": True}
KEY = {"primary_key": True}


@pytest.mark.parametrize(
    ("hints", "column", "merged"),
    [
        ({}, {}, (True, True)),
        ({"x-merge-strategy": "delete-insert"}, {}, (True, True)),
        ({"x-merge-strategy": "insert-only"}, {}, (True, False)),
        ({"write_disposition": "append"}, {}, (True, False)),
        ({"x-merge-destination-scope": "1 = 1"}, {}, (True, False)),
        ({"x-merge-destination-scope": "n > 1"}, {}, (False, False)),
        ({"x-merge-source-filter": "n > 1"}, {}, (False, False)),
        ({"x-segment-table": False}, {}, (False, False)),
        ({}, {"merge_key": True}, (True, False)),
        ({}, {"hard_delete": True}, (False, False)),
        ({}, {"dedup_sort": "desc"}, (False, True)),
        ({"name": "without_key"}, {}, (True, False)),
        ({"name": "with_children"}, {}, (True, False)),
    ],
)
def test_what_hints_leave_of_a_merge_by_the_key_alone(
    hints: dict[str, Any], column: dict[str, Any], merged: tuple[bool, bool]
) -> None:
    schema = Schema("s")
    schema.tables["a_list"] = {"name": "a_list", "parent": "with_children", "columns": {}}
    key = {} if hints.get("name") == "without_key" else KEY
    columns = {"id": {"data_type": "text", **key}, "n": {"data_type": "bigint", **column}}
    named = {name: {"name": name, **of} for name, of in columns.items()}
    table: Any = {"name": "users", "columns": named, **MERGED, **hints}
    assert (merges_by_key_alone([table]), replaces_by_key(table, schema)) == merged


@pytest.mark.parametrize(
    ("hints", "direct"),
    [
        ({}, True),
        ({"write_disposition": "replace"}, False),
        ({"write_disposition": "append"}, False),
        ({"x-merge-strategy": "delete-insert"}, False),
        ({"file_format": "insert_values"}, False),  # of rows that a step made dicts of
    ],
)
def test_only_parquet_files_of_new_messages_go_straight_into_duckdbs_tables(
    hints: dict[str, Any], direct: bool
) -> None:
    table: Any = {**MERGED, "x-merge-strategy": "insert-only", "file_format": "parquet", **hints}
    assert _is_direct(table) is direct


@pytest.mark.parametrize(
    ("made", "stored", "in_files"),
    [
        ("double", "decimal", "double"),
        ("decimal", "decimal", "decimal"),
        (None, "decimal", "double"),
        ("double", "bigint", "bigint"),
    ],
)
def test_the_types_of_files_for_columns_that_somebody_changed(made: Any, stored: Any, in_files: str) -> None:
    schema = Schema("s")
    columns: Any = {"n": {"name": "n", "data_type": made}} if made else {}
    schema.tables["an_event"] = {"name": "an_event", "columns": columns}
    schema.tables["users"] = {"name": "users", "columns": {"id": {"name": "id", "data_type": "text"}}}
    now: Any = {"n": {"name": "n", "data_type": stored}}
    for dialect, of in (("postgres", in_files), ("duckdb", stored)):
        client = SimpleNamespace(capabilities=SimpleNamespace(sqlglot_dialect=dialect))
        assert _in_files(client, schema, "an_event", now)["n"]["data_type"] == of
        # The contract's own columns keep their types.
        assert _in_files(client, schema, "users", {"id": now["n"]})["id"]["data_type"] == "text"


def test_a_table_with_others_below_it_is_merged_as_dlt_does() -> None:
    table: Any = {"name": "users", "columns": {}, **MERGED}
    assert (merges_by_key_alone([table]), merges_by_key_alone([table, table])) == (True, False)


@pytest.mark.parametrize(
    ("table", "holds"),
    [
        ("tracks", True), ("identifies", True), ("email_opened", True), ("order_done", True), ("users", False),
        ("_rejects", False), ("contacts", False),
    ],
)  # fmt: skip
def test_which_tables_hold_messages(table: str, holds: bool) -> None:
    assert holds_messages(table) is holds
