"""What a table should be in each destination: data that loads, printed statements and upgrades share."""

import pytest

from autopilothq.catalog import LIMITS, TABLES, Type
from autopilothq.warehouses.native import Shape, beside_views, native_of, shape_of

COLUMNS: dict[str, Type] = {"id": "text", "received_at": "timestamp", "uuid_ts": "timestamp", "n": "double"}
NUMERIC = {"n": "numeric"}
NAIVE = dict.fromkeys(("received_at", "uuid_ts"), "timestamp without time zone")
COPY = {"loaded_at": "uuid_ts"}


@pytest.mark.parametrize(
    ("kind", "table", "shape"),
    [
        ("postgres", "tracks", Shape(NUMERIC, ("id",), ("received_at",))),
        ("postgres", "any_event", Shape(NUMERIC, ("id",), ("received_at",))),
        ("autopilothq.warehouses.postgres.postgres", "accounts", Shape(NUMERIC, ("id",), ("received_at",))),
        ("postgres", "lists_contacts", Shape(NUMERIC, ("list_id", "contact_id"), ("received_at",))),
        ("postgres", "_suppressions", Shape()),
        ("dlt.destinations.redshift", "users", Shape(NAIVE)),
        ("bigquery", "tracks", Shape(copies=COPY, view="tracks_view")),
        ("bigquery", "any_event", Shape(copies=COPY, view="any_event_view")),
        ("bigquery", "users", Shape(copies=COPY)),
        ("bigquery", "contacts", Shape()),
        ("duckdb", "tracks", Shape()),
        ("snowflake", "users", Shape()),
    ],
)
def test_a_tables_shape(kind: str, table: str, shape: Shape) -> None:
    assert shape_of(table, COLUMNS, kind) == shape


def test_a_table_has_what_its_columns_allow() -> None:
    assert shape_of("_audit", {"file": "text", "version": "text"}, "postgres") == Shape({}, ("file", "version"))
    assert shape_of("tracks", {"id": "text"}, "bigquery") == Shape(view="tracks_view")


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
    assert beside_views(table, native_of("bigquery"), there) == name
    assert beside_views(table, native_of("postgres"), there) == table


def test_no_property_has_the_name_of_a_copy() -> None:
    for kind in ("postgres", "redshift", "bigquery"):
        assert native_of(kind).copies.keys() <= LIMITS[kind].reserved
    assert not any(
        "loaded_at" in {column.name for column in table.columns}
        for table in TABLES.values()
        if "uuid_ts" in {column.name for column in table.columns}
    )
