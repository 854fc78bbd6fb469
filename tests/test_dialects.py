"""Statements for warehouses that cannot be run here are captured from dlt and parsed in their dialects."""

import json
import re
from typing import Any, NamedTuple

import pytest
import sqlglot
from sqlglot import exp

import dialects
import forked
from autopilothq.catalog import DELIVERIES

Found = dict[str, Any]


class Expected(NamedTuple):
    """What a warehouse gets: the merge of messages, the file format, and its names for the five types."""

    messages: str
    files: str
    text: str
    bigint: str
    double: str
    bool: str
    timestamp: str


KINDS = {
    "bigquery": Expected("insert-only", "parquet", "STRING", "INT64", "FLOAT64", "BOOL", "TIMESTAMP"),
    "snowflake": Expected(
        "insert-only", "parquet", "VARCHAR", "DECIMAL(19, 0)", "DOUBLE", "BOOLEAN", "TIMESTAMPLTZ"
    ),
    # Without a staging bucket it takes INSERT statements.
    "redshift": Expected(
        "delete-insert", "insert_values", "VARCHAR(MAX)", "BIGINT", "DOUBLE PRECISION", "BOOLEAN",
        "TIMESTAMP",
    ),
    "redshift, staged": Expected(
        "delete-insert", "parquet", "VARCHAR(MAX)", "BIGINT", "DOUBLE PRECISION", "BOOLEAN",
        "TIMESTAMP",
    ),
    dialects.BEFORE: Expected(
        "delete-insert", "insert_values", "VARCHAR(MAX)", "BIGINT", "DOUBLE PRECISION", "BOOLEAN",
        "TIMESTAMP WITH TIME ZONE",
    ),
    "databricks": Expected("insert-only", "parquet", "STRING", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP"),
    "clickhouse": Expected(
        "delete-insert", "parquet", "Nullable(String)", "Nullable(Int64)", "Nullable(Float64)", "Nullable(Bool)",
        "Nullable(DateTime64(6, 'UTC'))",
    ),
    "motherduck": Expected("insert-only", "parquet", "TEXT", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMPTZ"),
    "synapse": Expected(
        "delete-insert", "insert_values", "NVARCHAR(MAX)", "BIGINT", "FLOAT", "BIT", "DATETIMEOFFSET"
    ),
}  # fmt: skip
TYPES = {
    "user_id": "text",
    "n": "bigint",
    "f": "double",
    "flag": "bool",
    "when": "timestamp",
    "received_at": "timestamp",
}


@pytest.fixture(scope="module")
def said() -> dict[str, Found]:
    """Returns the captured statements, from a process of its own, which has stand-ins for the drivers."""
    done = forked.run(dialects.__file__)
    assert done.returncode == 0, done.stderr
    found: dict[str, Found] = json.loads(done.stdout)
    assert found.keys() == KINDS.keys()
    return found


def without_sort_key(sql: str) -> str:
    """Returns the statement without the sort key, which sqlglot cannot parse there and another test reads."""
    return re.sub(r" SORTKEY\b", "", sql)


def parsed(found: Found, sql: str) -> list[exp.Expr]:
    """Returns the parsed statements; checks that the dialect knows each of them."""
    statements = sqlglot.parse(without_sort_key(sql), dialect=found["dialect"])
    assert not any(isinstance(statement, exp.Command) for statement in statements)
    return [statement for statement in statements if statement is not None]


def columns(found: Found, table: str) -> dict[str, exp.ColumnDef]:
    create = parsed(found, found["create"][table][0])[0]
    return {column.name.lower(): column for column in create.find_all(exp.ColumnDef)}


@pytest.mark.parametrize("kind", KINDS)
def test_columns_have_the_types_of_the_contract(kind: str, said: dict[str, Found]) -> None:
    found, expected = said[kind], KINDS[kind]._asdict()
    there = {name: column.kind.sql(found["dialect"]) for name, column in columns(found, "order").items() if column.kind}
    assert {name: there[name] for name in TYPES} == {name: expected[of] for name, of in TYPES.items()}
    assert list(there)[:3] == ["id", "received_at", "uuid_ts"]
    assert list(there)[3:] == sorted(list(there)[3:])
    # The next load reads the same types back.
    assert {name: found["stored"][name] for name in TYPES} == TYPES
    assert found["stored"].keys() == there.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_quoted_and_fit(kind: str, said: dict[str, Found]) -> None:
    found = said[kind]
    for table in ("order", "users", "_audit"):
        create = parsed(found, found["create"][table][0])[0]
        assert all(name.args["quoted"] for name in create.this.find_all(exp.Identifier))
        name = create.find(exp.Table)
        assert name is not None
        assert name.name == {"clickhouse": f"autopilothq___{table}", "snowflake": table.upper()}.get(kind, table)
    longest = max(len(name) for names in found["names"].values() for name in names)
    assert longest == 127  # because all of these allow longer names


@pytest.mark.parametrize("kind", KINDS)
def test_messages_are_inserted_once_and_persons_are_replaced(kind: str, said: dict[str, Found]) -> None:
    found, expected = said[kind], KINDS[kind]
    replaced = {"users", "accounts", "_audit"}
    assert {name: of for name, of in found["strategies"].items() if name not in replaced} == dict.fromkeys(
        found["strategies"].keys() - replaced, expected.messages
    )
    assert all(found["staged"].values())
    statements = {table: parsed(found, ";".join(separated(found["merge"][table]))) for table in dialects.TABLES}
    for table, (first, *more) in statements.items():
        if table not in replaced and expected.messages == "insert-only":
            assert isinstance(first, exp.Merge)
            assert not more
            [when] = first.args["whens"].expressions
            assert not when.args["matched"]
            assert isinstance(when.args["then"], exp.Insert)
        else:
            assert found["strategies"][table] == "delete-insert"
            assert isinstance(first, exp.Delete)
            assert [type(statement) for statement in more] == [exp.Insert]
    deleted = statements["_audit"][0].sql().lower()
    assert "file" in deleted
    assert "version" in deleted


def separated(merge: list[str]) -> list[str]:
    """Yields single statements; dlt may write several, one a line."""
    return [part for text in merge for part in text.replace("\nINSERT INTO", ";INSERT INTO").split(";") if part.strip()]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_go_in_files_that_the_warehouse_takes(kind: str, said: dict[str, Found]) -> None:
    formats = said[kind]["formats"]
    assert formats == dict.fromkeys(formats, KINDS[kind].files)
    # All tables of the catalogue that have rows or always exist.
    assert {"tracks", "order", "users", "identifies", "_audit", "_rejects", "email_opened"} <= formats.keys()


def test_clickhouse_sorts_by_keys_that_are_never_null(said: dict[str, Found]) -> None:
    found = said["clickhouse"]
    for table, keys in (("order", ["id"]), ("users", ["id"]), ("_audit", ["file", "version"])):
        assert f"PRIMARY KEY ({', '.join(f'`{key}`' for key in keys)})" in found["create"][table][0]
        for key in keys:
            kind = columns(found, table)[key].kind
            assert kind is not None
            assert kind.sql("clickhouse") == "String"


def test_cells_are_changed_by_the_statement_that_the_warehouse_has(said: dict[str, Found]) -> None:
    for kind in KINDS:
        statement, values = said[kind]["update"]
        assert values == [None, "ada"]
        if kind == "clickhouse":
            assert re.fullmatch(
                r"ALTER TABLE \S+users\S* UPDATE `email` = %s WHERE id = %s SETTINGS mutations_sync = 1", statement
            )
        else:
            assert isinstance(
                sqlglot.parse_one(statement.replace("%s", "NULL"), dialect=said[kind]["dialect"]), exp.Update
            )


def test_delivery_logs_have_nulls(said: dict[str, Found]) -> None:
    for kind in KINDS:
        [log] = parsed(said[kind], said[kind]["log"])
        columns = list(log.find_all(exp.ColumnDef))
        assert [column.name.lower() for column in columns] == [column.name for column in DELIVERIES.columns]
        assert not list(log.find_all(exp.NotNullColumnConstraint))
        nullable = [column.kind is not None and bool(column.kind.args.get("nullable")) for column in columns]
        assert set(nullable) == {kind == "clickhouse"}, kind


def test_only_the_datasets_own_tables_are_seen(said: dict[str, Found]) -> None:
    own = dict.fromkeys(dialects.LISTED) | {"autopilothq___tracks": "tracks"}
    for kind in KINDS:
        assert said[kind]["own_tables"] == (own if kind == "clickhouse" else {name: name for name in dialects.LISTED})


def test_bigquery_has_the_views_and_the_clock_of_segments_tables(said: dict[str, Found]) -> None:
    found = said["bigquery"]
    dataset = "`project`.`autopilothq`"
    views = {table: [parsed(found, sql)[0] for sql in found["create"][table][1:]] for table in dialects.TABLES}
    assert {table: [view.sql("bigquery") for view in these] for table, these in views.items()} == {
        "order": [f"CREATE OR REPLACE VIEW {dataset}.`order_view` AS SELECT * FROM {dataset}.`order`"],
        "tracks": [f"CREATE OR REPLACE VIEW {dataset}.`tracks_view` AS SELECT * FROM {dataset}.`tracks`"],
        "users": [],
        "accounts": [],
        "_audit": [],
    }
    for table in ("order", "tracks", "users", "accounts"):
        assert columns(found, table)["loaded_at"].kind == columns(found, table)["uuid_ts"].kind
        rows = found["rows"][table]
        assert rows
        assert all(row["loaded_at"] == row["uuid_ts"] for row in rows)
    # No property and no event table takes the views' names.
    names = found["names"]
    assert {"loaded_at", "_loaded_at"} <= set(names["tracks_view_table"])
    assert "tracks_view" not in names
    [row] = found["rows"]["tracks_view_table"]
    assert (row["_loaded_at"], row["event"], row["event_text"]) == ("property", "tracks_view_table", "Tracks View")
    assert "tracks_view" in said["snowflake"]["names"]
    assert ["loaded_at" in said[kind]["names"]["order"] for kind in KINDS] == [kind == "bigquery" for kind in KINDS]


@pytest.mark.parametrize("kind", ["redshift", "redshift, staged"])
def test_redshifts_times_are_in_utc_without_a_zone(kind: str, said: dict[str, Found]) -> None:
    found = said[kind]
    for table in dialects.TABLES:
        kinds = {column.kind.sql("redshift") for column in columns(found, table).values() if column.kind}
        assert "TIMESTAMP WITH TIME ZONE" not in kinds
    [row] = said[kind]["rows"]["order"]
    assert (row["received_at"], row["when"]) == ("2019-03-04 05:06:07.412000", "2019-03-01 00:00:00")
    for other in ("snowflake", dialects.BEFORE):
        assert said[other]["rows"]["order"][0]["received_at"] == "2019-03-04 05:06:07.412000+00:00"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != dialects.BEFORE])
def test_the_printed_statements_are_those_that_make_the_tables(kind: str, said: dict[str, Found]) -> None:
    """Compared column by column and view by view for destinations that cannot be run here."""
    found = said[kind]
    printed = [
        sqlglot.parse_one(without_sort_key(sql), dialect=found["dialect"])
        for sql in found["printed"].removesuffix(";").split(";\n\n")
    ]
    for table in ("tracks", "_audit"):
        tables = [one for one in printed if isinstance(one, exp.Create) and one.kind == "TABLE"]
        [told] = [one for one in tables if named(one).endswith(table)]
        made = columns(found, table)
        assert [column.sql() for column in told.find_all(exp.ColumnDef)] == [column.sql() for column in made.values()]
    views = {named(one) for one in printed if one.args.get("kind") == "VIEW"}
    assert ("tracks_view" in views, "users_view" in views) == (kind == "bigquery", False)


def named(statement: exp.Expr) -> str:
    table = statement.find(exp.Table)
    return table.name.lower() if table else ""


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("bigquery", ["PARTITION BY DATE(`received_at`)", "CLUSTER BY `event`"]),
        ("snowflake", ['CLUSTER BY ("RECEIVED_AT","EVENT")']),
        ("redshift", ['"received_at" timestamp without time zone SORTKEY']),
        ("databricks", ["CLUSTER BY (`received_at`,`event`)"]),
    ],
)
def test_tracks_is_stored_by_time_and_event(kind: str, stored: list[str], said: dict[str, Found]) -> None:
    create = {table: " ".join(statements[0].split()) for table, statements in said[kind]["create"].items()}
    for clause in stored:
        assert clause in create["tracks"]
        assert clause.partition(" (")[0] in " ".join(said[kind]["printed"].split())
        assert [table for table in create if clause in create[table]] == ["tracks"]
