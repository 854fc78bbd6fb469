"""Rows on their way to dlt get the right table and columns, and users' steps get batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from autopilothq.catalog import resource_of
from autopilothq.errors import NotSupported
from autopilothq.projection import TableRows
from autopilothq.sources import row_files
from refusals import NOON, relation_of


class Filtered(dict[int, str]):
    """Stands in for a column of a filtered pandas frame: iterates its values, indexed by the original row numbers."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())


def test_the_table_of_an_item_is_where_it_says_so() -> None:
    rows = TableRows("order_done", {}, relation_of("SELECT 1"), 1)
    table = pa.table({"event": ["order_paid"]})
    marked = table.replace_schema_metadata({b"autopilothq_table": b"order_done"})
    for item, name in [
        (rows, "order_done"), (marked, "order_done"), ({"event": "order_paid"}, "order_paid"),
        ({"event": ["order_paid", "x"]}, "order_paid"), (table, "order_paid"),
        ({"event": Filtered({3: "order_paid", 5: "x"})}, "order_paid"),
    ]:  # fmt: skip
        assert row_files.event_table_of(item) == name
    for item in ({"id": 1}, {"event": []}, {"event": Filtered()}, table.schema.empty_table(), 7):
        with pytest.raises(NotSupported) as error:
            row_files.event_table_of(item)
        assert str(error.value) == (
            "Expected a row with the column event in what a step makes of other_events, but there is none: it says"
            " which table the rows are for.\nReturn that column too, and None if no row is left."
        )
    assert [resource_of(name) for name in ("tracks", "order_done")] == ["tracks", "other_events"]


def test_rows_have_the_columns_of_the_schema_first() -> None:
    rows = TableRows("t", {"id": "text", "n": "bigint"}, relation_of("SELECT 'a' AS id, 7 AS n"), 1)
    there: Any = {
        "n": {"data_type": "bigint"}, "at": {"data_type": "timestamp"}, "odd": {}, "x y": {"data_type": "double"},
    }  # fmt: skip
    found = row_files._in_order(rows, there)
    assert list(found.columns.items()) == [("n", "bigint"), ("at", "timestamp"), ("x y", "double"), ("id", "text")]
    assert (found.relation.columns, found.relation.fetchall()) == (["n", "at", "x y", "id"], [(7, None, None, "a")])
    assert [str(of) for of in found.relation.types[1:3]] == ["TIMESTAMP WITH TIME ZONE", "DOUBLE"]


def test_copies_repeat_their_column() -> None:
    rows = TableRows(
        "t",
        {"id": "text", "received_at": "timestamp", "uuid_ts": "timestamp"},
        relation_of("SELECT 'a' AS id, now() AS received_at, now() AS uuid_ts"),
        1,
    )
    assert row_files._with_copies(rows, {}) is rows
    found = row_files._with_copies(rows, {"loaded at": "received_at"})
    assert list(found.columns) == ["id", "received_at", "uuid_ts", "loaded at"]
    assert found.columns["loaded at"] == "timestamp"
    [[_, first, second]] = found.relation.project('id, received_at, "loaded at"').fetchall()
    assert first == second


def test_times_without_a_zone_are_in_utc() -> None:
    sql = "SELECT TIMESTAMPTZ '2019-03-01 14:00:00+02' AS \"at\", 'a' AS \"i d\""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'America/New_York'")
        rows = TableRows("t", {"at": "timestamp", "i d": "text"}, con.sql(sql), 1)
        found = row_files._in_utc(rows)
        assert (found.relation.columns, found.relation.fetchall()) == (
            ["at", "i d"],
            [(NOON.replace(tzinfo=None), "a")],
        )


@pytest.mark.parametrize(
    ("cells", "sizes"), [(1_000_000, [2_500]), (2_400, [1_200, 1_200, 100]), (1, [1_000, 1_000, 500])]
)
def test_tables_for_the_steps_of_users_come_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(row_files, "CELLS_PER_BATCH", cells)
    path = tmp_path / "x.parquet"
    relation = relation_of("SELECT n, n::VARCHAR AS id, 1 AS more FROM range(2500) t(n)")
    rows = TableRows("tracks", {"id": "text", "n": "bigint"}, relation, 2_500)
    rows.write(str(path))
    tables = list(row_files._batches(path, rows))
    assert [len(table) for table in tables] == sizes
    assert {tuple(table.schema.names) for table in tables} == {("id", "n")}
    assert {table.schema.metadata[b"autopilothq_table"] for table in tables} == {b"tracks"}
    assert [n for table in tables for n in table["n"].to_pylist()] == list(range(2_500))
    empty = list(row_files._batches(path, rows._replace(row_count=0)))
    assert [(len(table), table.schema.names, table.schema.metadata) for table in empty] == [
        (0, ["id", "n"], {b"autopilothq_table": b"tracks"})
    ]
