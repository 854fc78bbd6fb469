"""The hints and rows that dlt gets for the tables of a load, without a load."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dlt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt import Schema
from dlt.sources import DltResource

from autopilothq.catalog import AUDIT, LINK, TABLES, TRACKS, Type, event_table
from autopilothq.errors import CannotMerge, NotSupported
from autopilothq.projection import TableRows, engine
from autopilothq.projection.context import declared_types
from autopilothq.sources.extraction import Extraction
from autopilothq.sources.load_target import LoadTarget, Replacement
from autopilothq.sources.row_files import RowFiles
from autopilothq.sources.table_hints import TableHints
from autopilothq.sources.user_hints import check_schema
from autopilothq.warehouses.dlt_internals import resources as dlt_resources
from autopilothq.warehouses.duckdb import direct
from autopilothq.warehouses.hints import arrow_schema
from autopilothq.warehouses.native import native_of

TYPES: dict[str, Type] = {
    "id": "text",
    "received_at": "timestamp",
    "uuid_ts": "timestamp",
    "event": "text",
    "n": "double",
}
DESCRIBED = {column.name: column.description for column in TRACKS.columns}


def resource(name: str = "tracks", **hints: Any) -> DltResource:
    """Returns a resource with a user's own hints."""
    made: DltResource = dlt.resource([], name=name, **hints)
    return made


def hints_for(
    kind: str,
    own: DltResource | None = None,
    there: Mapping[str, Any] | None = None,
    pipeline: dlt.Pipeline | None = None,
    existing: Mapping[str, Mapping[str, Type]] | None = None,
    **target: Any,
) -> TableHints:
    """Returns the hints of a load into a kind of destination, where `tracks` has the columns `there` already."""
    schema = Schema("autopilothq")
    if there is not None:
        columns: Any = {name: {"name": name, **of} for name, of in there.items()}
        schema.update_table({"name": "tracks", "columns": columns})
    resources = {} if own is None else {own.name: own}
    hints = {name: dlt_resources.hints(each) for name, each in resources.items()}
    extraction = Extraction(resources, hints, frozenset(), schema, pipeline, None)
    return TableHints(extraction, LoadTarget(Path(), native=native_of(kind), **target), existing or {})


def test_a_column_has_its_type_and_description() -> None:
    assert hints_for("duckdb").columns(TRACKS, TYPES) == {
        name: {"name": name, "data_type": of, "nullable": True}
        | ({"description": DESCRIBED[name]} if name in DESCRIBED else {})
        for name, of in TYPES.items()
    }


def test_an_emails_property_is_described_in_the_table_of_any_event() -> None:
    types: dict[str, Type] = {"id": "text", "link_url": "text", "plan": "text"}
    made = hints_for("duckdb").columns(event_table("trial_extended"), types)
    described = {"id": DESCRIBED["id"], "link_url": LINK[1].description, "plan": None}
    assert {name: made[name].get("description") for name in made} == described
    assert "description" not in hints_for("duckdb").columns(TABLES["pages"], types)["link_url"]


def test_rows_of_a_users_step_have_types_of_their_own() -> None:
    made = hints_for("duckdb").columns(TRACKS, TYPES, typed=False)
    assert [column.keys() & {"data_type"} for column in made.values()] == [set()] * len(TYPES)


def test_keys_are_declared_where_the_destination_sorts_by_them() -> None:
    made = hints_for("clickhouse", declares_keys=True).columns(TRACKS, TYPES)
    assert [name for name, column in made.items() if not column["nullable"]] == ["id"]


def test_a_table_is_stored_as_segments_own() -> None:
    made = hints_for("bigquery").columns(TRACKS, TYPES)
    assert [name for name, column in made.items() if column.get("partition")] == ["received_at"]
    assert made["loaded_at"]["data_type"] == "timestamp"
    assert made["loaded_at"]["description"] == "The same as uuid_ts, as Segment's tables call it."
    assert list(made) == ["id", "received_at", "uuid_ts", "event", "loaded_at", "n"]
    made = hints_for("redshift").columns(event_table("other"), TYPES)
    assert [name for name, column in made.items() if column.get("timezone") is False] == ["received_at", "uuid_ts"]


def test_what_a_users_hints_say_of_a_column_stays() -> None:
    said: Any = {"name": "event", "description": "mine", "nullable": False, "data_type": "text", "precision": 9}
    own = resource(columns={"event": said})
    made = hints_for("duckdb", own).columns(TRACKS, TYPES)
    assert made["event"] == {"name": "event", "data_type": "text"}
    assert made["id"] == {"name": "id", "data_type": "text", "nullable": True, "description": DESCRIBED["id"]}


@pytest.mark.parametrize(("edits", "description"), [(True, None), (False, DESCRIBED["event"])])
def test_descriptions_of_an_import_schema_stay(tmp_path: Path, edits: bool, description: str | None) -> None:
    edited: Any = {"import_schema_path": str(tmp_path)} if edits else {}
    pipeline = dlt.pipeline("p", pipelines_dir=str(tmp_path), **edited)
    mine = {"description": "mine"}
    there = {"event": {"data_type": "text", **mine}, "id": {"data_type": "text"}, "n": {"data_type": "double", **mine}}
    made = hints_for("duckdb", there=there, pipeline=pipeline).columns(TRACKS, TYPES)
    assert (made["event"].get("description"), made["id"].get("description")) == (description, DESCRIBED["id"])


@pytest.mark.parametrize(
    ("existing", "there", "copies"),
    [
        (False, {}, {"loaded_at": "uuid_ts"}),
        (True, {}, {}),
        (True, {"loaded_at": {"data_type": "timestamp"}}, {}),
        (True, {"loaded_at": {"data_type": "timestamp", "x-copy-of": "uuid_ts"}}, {"loaded_at": "uuid_ts"}),
    ],
)
def test_a_table_that_exists_gets_no_copies(existing: bool, there: dict[str, Any], copies: dict[str, str]) -> None:
    hints = hints_for("bigquery", there=there, existing={"tracks": TYPES} if existing else {})
    assert hints.copies("tracks", TYPES) == copies
    assert hints.columns(TRACKS, TYPES).keys() - TYPES.keys() == copies.keys()
    assert hints.copies("contacts", TYPES) == {}  # `contacts` has no messages


def test_times_of_a_table_that_exists_stay_as_they_are() -> None:
    dataset: Any = SimpleNamespace(zoned={"tracks"})
    hints = hints_for("redshift", dataset=dataset)
    assert [hints.is_zoned(table) for table in ("tracks", "pages")] == [True, False]
    assert ["timezone" in hints.columns(table, TYPES)["uuid_ts"] for table in (TRACKS, event_table("x"))] == [
        False,
        True,
    ]
    assert [hints_for(kind).is_zoned("tracks") for kind in ("duckdb", "redshift")] == [True, False]


def test_how_rows_are_merged() -> None:
    hints = hints_for("postgres", replacement=Replacement(replaced=frozenset({"pages"})))
    insert, replace = ({"disposition": "merge", "strategy": strategy} for strategy in ("insert-only", "delete-insert"))
    assert [hints.disposition(table) for table in ("tracks", "users", "pages")] == [
        insert, replace, {"disposition": "replace"},
    ]  # fmt: skip
    hints.mended.add("tracks")
    assert hints.disposition("tracks") == replace
    asked = resource(write_disposition={"disposition": "merge", "strategy": "delete-insert"})
    assert hints_for("postgres", asked).disposition("tracks") == replace
    with pytest.raises(CannotMerge, match=r"^Expected one of insert-only to merge tracks, but got delete-insert\.$"):
        hints_for("postgres", asked, strategies=("insert-only",)).disposition("tracks")


def test_an_import_schema_may_not_append() -> None:
    schema = Schema("autopilothq")
    for disposition in ("merge", "replace", "append"):
        schema.update_table({"name": "tracks", "write_disposition": disposition, "columns": {}})
        if disposition != "append":
            check_schema(schema, TRACKS)
    with pytest.raises(NotSupported) as error:
        check_schema(schema, TRACKS)
    assert str(error.value) == (
        "Expected the write disposition merge for tracks in the import schema, but got append.\nChange it back there."
    )


@pytest.mark.parametrize(
    ("kind", "table_format", "form"),
    [("postgres", None, "insert_values"), ("postgres", "delta", "parquet"), ("duckdb", None, "parquet")],
)
def test_the_format_of_files_without_rows(tmp_path: Path, kind: str, table_format: str | None, form: str) -> None:
    pipeline = dlt.pipeline("p", pipelines_dir=str(tmp_path), destination=kind)
    assert hints_for(kind, pipeline=pipeline, table_format=table_format).empty_format() == form
    assert hints_for(kind).empty_format() == "parquet"


def test_hints_of_a_load_are_taken_back() -> None:
    own = resource(columns={"event": {"name": "event", "description": "mine"}})
    hints = hints_for("bigquery", own)
    hints.mended.add("tracks")
    before = dlt_resources.hints(own)
    made = hints.make(TRACKS, TYPES, file_format="parquet")
    assert made["columns"] == hints.columns(TRACKS, TYPES)
    assert made["write_disposition"] == hints.disposition("tracks")
    assert made["file_format"] == "parquet"
    assert made["additional_table_hints"] == {"x-bigquery-cluster-columns": ["event"]}
    assert hints.added == {"tracks": made}
    own.apply_hints(columns=made["columns"], write_disposition=made["write_disposition"])
    hints.remove_row_hints()
    after = dlt_resources.hints(own)
    assert (after["columns"], after.get("write_disposition")) == (before["columns"], before.get("write_disposition"))


# ---- rows ----------------------------------------------------------------------------------------------------------

AT = datetime(2019, 3, 4, 5, 6, 7, tzinfo=UTC)
ROWS: dict[str, Type] = {"id": "text", "received_at": "timestamp", "uuid_ts": "timestamp", "n": "bigint"}


def rows_for(table: str, number: int = 2) -> TableRows:
    """Returns up to two rows, `a` and `b`, of a table."""
    sql = f"SELECT chr(97 + i::INT) AS id, $at AS received_at, $at AS uuid_ts, 7 AS n FROM range({number}) t(i)"
    con = engine.connect(None, memory=400, threads=1)
    return TableRows(table, ROWS, con.sql(sql, params={"at": AT}), number)


def files_for(folder: Path, hints: TableHints, feeds: frozenset[str] = frozenset()) -> RowFiles:
    """Returns the files of a load with these hints."""
    hints.extraction = hints.extraction._replace(feeds=feeds)
    hints.target = replace(hints.target, folder=folder)
    return RowFiles(hints)


def load_of(
    folder: Path, *resources: DltResource, kind: str = "duckdb", destination: Any = None, **target: Any
) -> TableHints:
    """Returns the hints of a pipeline's load of some resources."""
    pipeline = dlt.pipeline("p", pipelines_dir=str(folder / kind), destination=destination or kind)
    hints = hints_for(kind, pipeline=pipeline, **target)
    for each in resources:
        cast(dict[str, Any], hints.extraction.resources)[each.name] = each
    return hints


def test_files_are_handed_over_whole(tmp_path: Path) -> None:
    hints = load_of(tmp_path, resource(), resource("other_events"), resource("pages"))
    files = files_for(tmp_path, hints)
    for rows in (rows_for("tracks"), rows_for("order_done", 1), rows_for("pages", 0)):
        files.write(rows)
    assert files.other_tables() == ["order_done"]
    assert (list(files.items("screens")), files.are_seen("tracks")) == ([], False)
    [tracks], [order], [pages] = (list(files.items(table)) for table in ("tracks", "order_done", "pages"))
    assert [Path(item.meta.file_path).name for item in (tracks, order)] == ["rows-0-tracks", "rows-1-order_done"]
    assert pq.read_table(tracks.meta.file_path).to_pylist() == [
        {"id": id_, "received_at": AT, "uuid_ts": AT, "n": 7} for id_ in "ab"
    ]
    assert (tracks.meta.file_format, tracks.meta.metrics.items_count) == ("parquet", 2)
    assert (tracks.data, tracks.meta.hints["columns"]) == (None, hints.columns(TRACKS, ROWS))
    assert (order.meta.file_format, order.meta.metrics.items_count, order.meta.hints) == ("parquet", 1, None)
    assert (order.data.table, files.columns_of(order.data)) == (
        "order_done", hints.columns(event_table("order_done"), ROWS),
    )  # fmt: skip
    assert (pages.data.num_rows, pages.data.schema, pages.meta.hints["file_format"]) == (
        0, arrow_schema(ROWS), "parquet",
    )  # fmt: skip
    assert [Path(item.meta.file_path).name for item in files.items("tracks")] == ["rows-0-tracks"]  # used again


def test_files_for_a_network_are_compressed(tmp_path: Path) -> None:
    compressions = []
    for kind, destination in (("postgres", None), ("duckdb", direct(str(tmp_path / "x.duckdb")))):
        hints = load_of(tmp_path, resource(), kind=kind, destination=destination)
        files = files_for(tmp_path / kind, hints)  # the folder of the pipeline
        files.write(rows_for("tracks"))
        [item] = files.items("tracks")
        metadata = pq.read_metadata(item.meta.file_path)
        compressions.append(metadata.row_group(0).column(0).compression)
    assert compressions == ["SNAPPY", "UNCOMPRESSED"]


def test_rows_that_a_step_sees_are_arrow_tables(tmp_path: Path) -> None:
    tracks, events = (resource(name).add_map(lambda row: row) for name in ("tracks", "other_events"))
    hints = load_of(tmp_path, tracks, events)
    files = files_for(tmp_path, hints)
    for table in ("tracks", "order_done"):
        files.write(rows_for(table))
    assert files.are_seen("tracks")
    [item], [order] = (list(files.items(table)) for table in ("tracks", "order_done"))
    assert [row["id"] for row in item.data.to_pylist()] == ["a", "b"]
    assert item.meta.hints["columns"] == hints.columns(TRACKS, ROWS, typed=False)
    assert (order.meta.table_name, order.data.num_rows) == ("order_done", 2)
    assert files.columns_of(order.data) == hints.columns(
        event_table("order_done"), dict.fromkeys(ROWS, "text"), typed=False
    )
    assert files.columns_of({"event": "order_done"}) == {}
    hints = hints_for("bigquery", existing={"order_done": ROWS})
    assert files_for(tmp_path, hints).columns_of(order.data).keys() == ROWS.keys()  # without copies of columns


def test_a_schema_contract_sees_rows(tmp_path: Path) -> None:
    files = files_for(tmp_path, load_of(tmp_path, resource(schema_contract="freeze"), resource("pages")))
    assert (files.are_seen("tracks"), files.are_seen("pages")) == (True, False)


def test_what_a_transformer_takes_has_no_hints_of_its_own(tmp_path: Path) -> None:
    tracks = resource()
    hints = load_of(tmp_path, tracks, resource("other_events"))
    columns = hints.columns(TRACKS, ROWS, typed=False)
    fed: list[list[bool]] = []
    for feeds, folder in (("tracks", tmp_path), ("other_events", tmp_path / "duckdb")):
        files = files_for(folder, hints, feeds=frozenset({feeds}))
        for table in ("tracks", "order_done"):
            files.write(rows_for(table))
        items = [item for table in ("tracks", "order_done") for item in files.items(table)]
        fed.append([isinstance(item, pa.Table) and item.num_rows == 2 for item in items])
    assert fed == [[True, False], [False, True]]
    assert tracks.columns == columns
    assert tracks.write_disposition == hints.disposition("tracks")


def test_without_a_pipeline_there_are_arrow_tables_alone(tmp_path: Path) -> None:
    hints = hints_for("duckdb", resource())
    files = files_for(tmp_path, hints)
    files.write(rows_for("tracks"))
    [rows] = files.items("tracks")
    audit = pa.table({"file": ["a"]})
    assert (rows.num_rows, files.empty(TRACKS, ROWS).schema) == (2, arrow_schema(ROWS))
    assert files.audit_item(audit) is audit
    assert tracks_hints(hints) == {}


def tracks_hints(hints: TableHints) -> Any:
    """Returns the hints for the columns of the resource `tracks`."""
    return hints.extraction.resources["tracks"].columns


def test_rows_are_shaped_for_the_destination(tmp_path: Path) -> None:
    hints = load_of(
        tmp_path, resource(), kind="postgres", there={"late": {"data_type": "double"}, "n": {"data_type": "bigint"}}
    )
    shaped = files_for(tmp_path, hints).shaped(rows_for("tracks", 1))
    assert list(shaped.columns) == ["late", "n", "id", "received_at", "uuid_ts"]
    hints = load_of(tmp_path, resource(), resource("pages"), resource("contacts"))
    dataset: Any = SimpleNamespace(zoned={"pages"})
    hints = replace(hints, target=replace(hints.target, native=native_of("redshift"), dataset=dataset))
    files = files_for(tmp_path, hints)
    plain, zoned = (files.shaped(rows_for(table, 1)).relation for table in ("tracks", "pages"))
    assert plain.project("id, received_at").fetchall() == [("a", AT.replace(tzinfo=None))]
    assert zoned.project("id, received_at").fetchall() == [("a", AT)]
    hints = replace(hints, target=replace(hints.target, native=native_of("bigquery")))
    assert files_for(tmp_path, hints).shaped(rows_for("contacts", 1)).columns.keys() == ROWS.keys()
    assert list(files_for(tmp_path, hints).shaped(rows_for("tracks", 1)).columns) == [
        "id", "received_at", "uuid_ts", "loaded_at", "n",
    ]  # fmt: skip
    wrong = files_for(tmp_path, load_of(tmp_path, resource(columns={"n": {"name": "n", "data_type": "text"}})))
    with pytest.raises(NotSupported):
        wrong.shaped(rows_for("tracks", 1))


@pytest.mark.parametrize(
    ("kind", "zoned", "zone"),
    [("duckdb", (), "UTC"), ("redshift", ("tracks",), None), ("redshift", ("_audit",), "UTC")],
)
def test_the_audit_has_times_as_the_destination_takes_them(
    tmp_path: Path, kind: str, zoned: tuple[str, ...], zone: str | None
) -> None:
    dataset: Any = SimpleNamespace(zoned=zoned)
    hints = load_of(tmp_path, resource("_audit"))
    hints = replace(hints, target=replace(hints.target, native=native_of(kind), dataset=dataset))
    audit = pa.table({"file": ["a"], "loaded_at": pa.array([AT], pa.timestamp("us", "UTC"))})
    files = files_for(tmp_path, hints)
    item, empty = (files.audit_item(each) for each in (audit, audit.slice(1)))
    assert item.data.schema == pa.schema([("file", pa.string()), ("loaded_at", pa.timestamp("us", zone))])
    assert item.data.to_pylist() == [{"file": "a", "loaded_at": AT if zone else AT.replace(tzinfo=None)}]
    assert item.meta.hints["columns"] == hints.columns(AUDIT, declared_types(AUDIT))
    assert ("file_format" in item.meta.hints, empty.meta.hints["file_format"]) == (False, "parquet")
