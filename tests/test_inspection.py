"""Schemas are printed in each format and compared with each other and with real destinations."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml
from dlt.common.schema import Schema

from autopilothq import catalog, inspect, runner
from autopilothq.inspect import ColumnInfo, Difference, Statistics, TableInfo
from autopilothq.inspect.diff import ColumnType, SchemaTable, type_of
from autopilothq.inspect.formats import FORMATS, as_table, percent
from autopilothq.inspect.schema import table_info
from autopilothq.warehouses.dataset import tables_of
from inspected import FIRST, LAST, kind, make_tables

TABLE = TableInfo(
    "links",
    "Links | and more.",
    (ColumnInfo("id", "text", "The id."), ColumnInfo("n", "bigint"), ColumnInfo("uuid_ts", "timestamp", "The load.")),
    ("id",),
)
LIVE = TABLE._replace(
    columns=(
        ColumnInfo("id", "text", "The id.", "VARCHAR", FIRST, 0.0),
        ColumnInfo("n", "bigint", "", "BIGINT", None, 0.25),
        ColumnInfo("uuid_ts", "timestamp", "The load.", "TIMESTAMP WITH TIME ZONE", FIRST, None),
    ),
    statistics=Statistics(1234, FIRST, LAST),
)


@pytest.fixture(params=["duckdb", "postgres"])
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The options for a destination and its credentials."""
    name: str = request.param
    return name, "events.duckdb" if name == "duckdb" else request.getfixturevalue("postgres")


# ---- the catalogue, and texts --------------------------------------------------------------------------------------


def test_the_catalogue_is_whole_and_in_the_order_of_the_warehouse() -> None:
    tables = {table.name: table for table in inspect.catalogue()}
    assert list(tables) == list(catalog.TABLES)
    for name, table in catalog.TABLES.items():
        assert {(c.name, c.type, c.description) for c in tables[name].columns} == {c[:3] for c in table.columns}
    assert [column.name for column in tables["groups"].columns][:5] == [
        "id", "received_at", "uuid_ts", "anonymous_id", "context_integration_name",
    ]  # fmt: skip
    assert [column.name for column in tables["_audit"].columns][:3] == ["file", "version", "size"]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (
            "table",
            """\
links: Links | and more.
  column   type       description
  id       text       The id.
  n        bigint
  uuid_ts  timestamp  The load.""",
        ),
        (
            "markdown",
            """\
# mail

## `links`

Links | and more.

| column | type | description |
| --- | --- | --- |
| `id` | text | The id. |
| `n` | bigint |  |
| `uuid_ts` | timestamp | The load. |""",
        ),
        (
            "mermaid",
            """\
erDiagram
    links{
    text id PK "The id."
    bigint n
    timestamp uuid_ts "The load."
}""",
        ),
    ],
)
def test_formats(form: str, text: str) -> None:
    assert FORMATS[form]([TABLE], "mail") == text


def test_live_formats_tell_more() -> None:
    assert FORMATS["table"]([LIVE], "mail") == (
        "links: 1,234 rows, received 2019-03-01 00:00:00 to 2019-03-07 18:58:42. Links | and more.\n"
        "  column   type                      null  first came           description\n"
        "  id       VARCHAR                   0 %   2019-03-01 00:00:00  The id.\n"
        "  n        BIGINT                    25 %  -\n"
        "  uuid_ts  TIMESTAMP WITH TIME ZONE  -     2019-03-01 00:00:00  The load."
    )
    assert "| `n` | BIGINT | 25 % | - |  |" in FORMATS["markdown"]([LIVE], "mail").splitlines()
    unnamed = LIVE._replace(columns=(LIVE.columns[1]._replace(native=None),))
    assert "| `n` | bigint | 25 % | - |  |" in FORMATS["markdown"]([unnamed], "mail").splitlines()


@pytest.mark.parametrize(("first", "last"), [(FIRST, None), (None, LAST)])
def test_times_are_told_where_both_are_known(first: datetime | None, last: datetime | None) -> None:
    live = LIVE._replace(statistics=Statistics(1, first, last))
    assert FORMATS["table"]([live], "mail").splitlines()[0] == "links: 1 row. Links | and more."


def test_the_indent_is_part_of_the_width() -> None:
    table = TABLE._replace(columns=(ColumnInfo("id", "text", f"{'x' * 14} {'y' * 15}"),))
    narrow, wide = (as_table([table], "mail", width).splitlines()[-2:] for width in (45, 46))
    assert (narrow, wide[-1]) == (
        [f"  id      text  {'x' * 14}", f"                {'y' * 15}"],
        f"  id      text  {'x' * 14} {'y' * 15}",
    )


def test_a_table_of_an_event_is_known_by_its_columns_and_others_by_their_names_alone() -> None:
    event = [ColumnInfo("event", "text"), ColumnInfo("event_text", "text")]
    found = [table_info(name, columns, comment="Mine.") for name, columns in (
        ("tracks", event), ("demo", event), ("own", event[:1]), ("_rejects", []),
    )]  # fmt: skip
    assert [table.description for table in found] == [
        catalog.TRACKS.description, catalog.EVENT_DESCRIPTION, "Mine.", catalog.REJECTS.description,
    ]  # fmt: skip


def test_a_cell_of_markdown_may_hold_a_bar() -> None:
    column = ColumnInfo("c", "text", "a | b")
    assert FORMATS["markdown"]([TABLE._replace(columns=(column,))], "mail").endswith("| `c` | text | a \\| b |")


@pytest.mark.parametrize(("form", "read"), [("yaml", yaml.safe_load), ("json", json.loads)])
def test_yaml_and_json_are_a_schema_of_dlt(form: str, read: Callable[[str], Any]) -> None:
    exported = read(FORMATS[form]([LIVE], "mail"))
    made = Schema.from_dict(exported, remove_processing_hints=False)
    assert made.data_table_names() == ["links"]
    assert exported["tables"]["links"]["x-rows"] == 1234
    assert exported["tables"]["links"]["x-last-received-at"] == "2019-03-07T18:58:42.033000+00:00"
    assert made.tables["links"]["columns"]["n"] == {
        "name": "n", "data_type": "bigint", "nullable": True, "x-native-type": "BIGINT", "x-null-share": 0.25,
    }  # fmt: skip


def test_dbt_tests_keys_and_freshness() -> None:
    audit = next(table for table in inspect.catalogue() if table.name == "_audit")
    audit = audit._replace(
        columns=tuple(c for c in audit.columns if c.name in ("file", "version", "size", "loaded_at"))
    )
    assert (
        FORMATS["dbt"]([LIVE, audit], "mail")
        == """\
version: 2
sources:
- name: mail
  schema: mail
  description: Autopilot's email events, loaded by dlt-autopilothq.
  tables:
  - name: links
    description: Links | and more.
    config:
      loaded_at_field: uuid_ts
    columns:
    - name: id
      description: The id.
      data_type: VARCHAR
      data_tests:
      - unique
      - not_null
    - name: n
      data_type: BIGINT
    - name: uuid_ts
      description: The load.
      data_type: TIMESTAMP WITH TIME ZONE
      data_tests:
      - not_null
  - name: _audit
    description: 'One row per file and version of it that was loaded: lines = stored
      + duplicates + rejected + skipped.'
    config:
      loaded_at_field: loaded_at
      freshness:
        warn_after:
          count: 1
          period: day
        error_after:
          count: 2
          period: day
    data_tests:
    - unique:
        arguments:
          column_name: (file || '|' || version)
    columns:
    - name: file
      description: The file's URL or path.
      data_tests:
      - not_null
    - name: version
      description: 'The file''s version: its etag, or its size and the time of its
        last change.'
      data_tests:
      - not_null
    - name: size
      description: The file's size in bytes, as stored.
    - name: loaded_at
      description: When that load processed it.
      data_tests:
      - not_null"""
    )


def test_dbt_has_the_words_of_dbt_alone() -> None:
    """Only properties that dbt's schema for a sources.yml allows; `checks/check_dbt.py` asks a real dbt."""
    (source,) = yaml.safe_load(FORMATS["dbt"](inspect.catalogue(), "mail"))["sources"]
    assert set(source) == {"name", "schema", "description", "tables"}
    tested = set()
    for table in source["tables"]:
        assert set(table) <= {"name", "description", "config", "data_tests", "columns"}
        assert set(table["config"]) <= {"loaded_at_field", "freshness"}
        assert table["config"]["loaded_at_field"] in {column["name"] for column in table["columns"]}
        if table.get("data_tests"):
            tested.add(table["name"])
        for column in table["columns"]:
            assert set(column) <= {"name", "description", "data_type", "data_tests"}
            if column.get("data_tests"):
                tested.add(table["name"])
    assert tested == {table.name for table in catalog.ALWAYS}
    assert [t["name"] for t in source["tables"] if "freshness" in t["config"]] == ["tracks", "_audit"]
    assert "not_null" not in FORMATS["dbt"]([LIVE._replace(key=())], "mail")


def test_a_destination_accepts_the_ddl(place: tuple[str, str]) -> None:
    make_tables(place)
    with inspect.reading(*place) as reader:
        there = {table: {c: of.type for c, of in columns.items()} for table, columns in tables_of(reader).items()}
        schema = inspect.schema_of(reader)
    assert there == {table.name: {c.name: c.type for c in table.columns} for table in inspect.catalogue()}
    assert inspect.differences(inspect.schema_of_catalogue(), schema, inspect.CATALOGUE) == []


def test_ddl_is_written_without_asking() -> None:
    text = inspect.ddl([TABLE], kind("postgres"), "mail")
    assert text == (
        'CREATE SCHEMA IF NOT EXISTS "mail";\n\n'
        'CREATE TABLE "mail"."links" (\n'
        '    "id" varchar,\n    "n" bigint,\n    "uuid_ts" timestamp with time zone,\n    PRIMARY KEY ("id")\n);'
    )
    assert '"id" varchar(max),' in inspect.ddl([TABLE], kind("redshift"), "mail")
    # Loads create times like Segment's there; tables of other commands have times like dlt's.
    tables = [table for table in inspect.catalogue() if table.name in ("aliases", "_deliveries")]
    text = inspect.ddl(tables, kind("redshift"), "mail")
    assert '"received_at" timestamp without time zone,' in text
    assert '"sent_at" timestamp with time zone' in text
    with pytest.raises(runner.RunError, match="Expected a destination that answers SQL, but filesystem does"):
        inspect.ddl([TABLE], kind("filesystem"), "mail")


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (0.0, "0 %"), (1e-9, "<0.1 %"), (0.001, "0.1 %"), (0.5, "50 %"), (0.9999, ">99.9 %"), (1.0, "100 %")],
)
def test_percent(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (7384, "2 h 3 min"),
        (93_600, "1 d 2 h"),
        (86_400 * 9, "9 d"),
    ],
)
def test_age(seconds: int, text: str) -> None:
    assert inspect.age(timedelta(seconds=seconds)) == text


# ---- differences ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dialect", "length", "of"),
    [
        ("character varying", "postgres", 512, ColumnType("character varying(512)", "text", length=512)),
        ("varchar(9)", "postgres", 9, ColumnType("varchar(9)", "text", length=9)),
        ("text", "postgres", None, ColumnType("text", "text")),
        ("STRING", "bigquery", None, ColumnType("STRING", "text")),
        ("integer", "postgres", None, ColumnType("integer", "number")),
        ("NUMBER", "snowflake", None, ColumnType("NUMBER", "number")),
        ("double precision", "redshift", None, ColumnType("double precision", "number", exact=False)),
        ("boolean", "postgres", None, ColumnType("boolean", "boolean")),
        ("bit", "tsql", None, ColumnType("bit", "boolean")),
        ("timestamp with time zone", "postgres", None, ColumnType("timestamp with time zone", "time")),
        (
            "timestamp without time zone",
            "redshift",
            None,
            ColumnType("timestamp without time zone", "time", zoned=False),
        ),
        ("TIMESTAMP WITH TIME ZONE", "duckdb", None, ColumnType("TIMESTAMP WITH TIME ZONE", "time")),
        ("TIMESTAMP", "bigquery", None, ColumnType("TIMESTAMP", "time")),
        ("DateTime64(6, 'UTC')", "clickhouse", None, ColumnType("DateTime64(6, 'UTC')", "time")),
        ("date", "postgres", None, ColumnType("date", "date")),
        ("jsonb", "postgres", None, ColumnType("jsonb", "other")),
        ("no type at all", "postgres", None, ColumnType("no type at all", "other")),
    ],
)
def test_types_of_destinations(name: str, dialect: str, length: int | None, of: ColumnType) -> None:
    assert type_of(name, dialect, length) == of


WHOLE = "whole, where the other schema cuts texts; those that it does not cut compare as before"
CUT = "longer text does not fit"
FAILS = "comparisons fail or mean something else; cast it in the queries"
ROUNDED = "numbers compare as before, but one of the two rounds them beyond 15 digits"
UTC_ALONE = "the same points in time where the session's time zone is UTC"


@pytest.mark.parametrize(
    ("wanted", "there", "verdict"),
    [
        (ColumnType("text", "text"), ColumnType("VARCHAR", "text"), None),
        (ColumnType("varchar(512)", "text", length=512), ColumnType("varchar", "text"), (False, WHOLE)),
        (ColumnType("varchar(9)", "text", length=9), ColumnType("varchar(10)", "text", length=10), (False, WHOLE)),
        (ColumnType("varchar(10)", "text", length=10), ColumnType("varchar(9)", "text", length=9), (True, CUT)),
        (ColumnType("varchar", "text"), ColumnType("varchar(512)", "text", length=512), (True, CUT)),
        (ColumnType("integer", "number"), ColumnType("bigint", "number"), None),
        (ColumnType("bigint", "number"), ColumnType("double", "number", exact=False), (False, ROUNDED)),
        (ColumnType("double", "number", exact=False), ColumnType("bigint", "number"), (False, ROUNDED)),
        (ColumnType("timestamp", "time", zoned=False), ColumnType("timestamptz", "time"), (False, UTC_ALONE)),
        (ColumnType("timestamptz", "time"), ColumnType("timestamp", "time", zoned=False), (False, UTC_ALONE)),
        (ColumnType("bigint", "number"), ColumnType("text", "text"), (True, FAILS)),
        (ColumnType("text", "text"), ColumnType("boolean", "boolean"), (True, FAILS)),
        (ColumnType("timestamp", "time"), ColumnType("date", "date"), (True, FAILS)),
        (ColumnType("json", "other"), ColumnType("JSON", "other"), None),
        (ColumnType("json", "other"), ColumnType("uuid", "other"), (True, FAILS)),
    ],
)
def test_a_change_of_type(wanted: ColumnType, there: ColumnType, verdict: tuple[bool, str] | None) -> None:
    found = inspect.differences({"t": SchemaTable({"c": wanted})}, {"t": SchemaTable({"c": there})}, inspect.SWITCH)
    expected = verdict and [(verdict[0], f"{wanted.name} -> {there.name}: {verdict[1]}")]
    assert [(difference.breaks, difference.meaning) for difference in found] == (expected or [])


def test_differences_say_what_they_mean() -> None:
    text = ColumnType("text", "text")
    wanted = {
        "gone": SchemaTable({"id": text}),
        "later": SchemaTable({"id": text}),
        "t": SchemaTable({"id": text, "lost": text, "loaded_at": text}),
    }
    there = {"t": SchemaTable({"id": text, "more": text}), "new": SchemaTable({"id": text})}
    assert inspect.differences(wanted, there, inspect.SWITCH, {"later"}) == [
        Difference("gone", "", "missing", True, "queries of it fail: no message of it was loaded"),
        Difference("later", "", "missing", False, "comes with its first row"),
        Difference("t", "lost", "missing", True, "queries that name it fail: no loaded message has it"),
        Difference(
            "t",
            "loaded_at",
            "missing",
            True,
            "queries that name it fail: it is the clock of Segment's own loader; read `uuid_ts` instead",
        ),
        Difference(
            "t",
            "more",
            "extra",
            False,
            "new: no query for the other schema names it, but `SELECT *` returns one more column",
        ),
        Difference("new", "", "extra", False, "new: no query for the other schema names it"),
    ]


def test_messages_that_did_not_come_are_no_reason_in_the_catalogue_and_a_view_has_no_key() -> None:
    text = ColumnType("text", "text")
    wanted = {
        "users": SchemaTable({"id": text}),
        "seen": SchemaTable({"id": text}, ("id",)),
        "t": SchemaTable({"id": text}, ("id",)),
    }
    there = {"seen": SchemaTable({"id": text}, is_view=True), "t": SchemaTable({"id": text})}
    meanings = [
        [(of.table, of.change, of.meaning) for of in inspect.differences(wanted, there, messages)]
        for messages in (inspect.SWITCH, inspect.CATALOGUE)
    ]
    key = ("t", "key", "PRIMARY KEY (id): the database does not keep it unique")
    assert meanings == [
        [("users", "missing", f"queries of it fail: {why}"), key]
        for why in (
            "no identify message was loaded, and it comes with the first",
            "no load made it, or another program dropped it",
        )
    ]


def test_the_catalogue_has_the_types_and_copies_of_a_destination() -> None:
    redshift, bigquery = (
        inspect.schema_of_catalogue(kind, kind)["tracks"].columns for kind in ("redshift", "bigquery")
    )
    assert redshift["received_at"] == ColumnType("timestamp without time zone", "time", zoned=False)
    assert bigquery["loaded_at"] == bigquery["uuid_ts"]  # a copy of that column
    assert "loaded_at" not in redshift


def test_a_column_of_the_catalogue_is_not_taken_for_one_of_segments_loader() -> None:
    text = ColumnType("text", "text")
    books = SchemaTable({"id": text, "loaded_at": text})
    [found] = inspect.differences({"_audit": books}, {"_audit": SchemaTable({"id": text})}, inspect.CATALOGUE)
    assert found.meaning == "queries that name it fail: another program made or changed this table"


def test_a_schema_does_not_differ_from_itself() -> None:
    schema = inspect.schema_of_catalogue()
    assert inspect.differences(schema, schema, inspect.CATALOGUE) == []
