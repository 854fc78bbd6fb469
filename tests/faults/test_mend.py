"""Tables and columns that somebody dropped are created again with a warning, or an error says what to do."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path

import duckdb
import psycopg2
import pytest

from autopilothq.catalog import key_of
from calling import Call, errors
from contract.duck import held
from faults.loads import Table, assert_same, assert_sound, content, line, track

PROPERTIES = {"price": 5.5, "pieces": 1, "weight": 1.5, "points": 7, "due": "2019-03-01T12:00:00Z"}
ORDER = track(3, event="Order", properties=PROPERTIES)
EVENTS = [track(1), track(2, properties={"price": 3}), ORDER, b"no JSON"]
PERSON = {"type": "identify", "userId": "u", "messageId": "i-1", "receivedAt": "2019-03-01T00:00:00Z"}


class Place:
    """A destination, with the command's options for it, its content, and its own SQL."""

    def __init__(self, target: str | duckdb.DuckDBPyConnection) -> None:
        self.words = ["--destination", "postgres", "--credentials", target] if isinstance(target, str) else []
        self._target = target

    def content(self) -> dict[str, Table]:
        return content(self._target)

    def execute(self, *statements: str) -> None:
        if isinstance(self._target, str):
            with closing(psycopg2.connect(self._target)) as server, server, server.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        else:
            for statement in statements:
                self._target.execute(statement)


@pytest.fixture(params=["duckdb", "postgres"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    Path("a.ndjson").write_bytes(b"".join(map(line, [*EVENTS, PERSON | {"traits": {"plan": "pro"}}])))
    if request.param == "postgres":
        yield Place(request.getfixturevalue("postgres"))
    else:
        with held() as file:
            yield Place(file)


READ_AGAIN = (
    'DELETE FROM "autopilothq"."_audit" makes the next run read the archive again, which stores what is missing and'
    " nothing twice"
)


def gone(tables: Sequence[str], todo: str) -> list[str]:
    what = "was missing and was created again, empty"
    return [f'Warning: The table "autopilothq"."{table}" {what}; {todo}' for table in tables]


def test_dropped_tables_and_columns_are_created_again_and_filled_from_the_archive(place: Place, call: Call) -> None:
    assert call("load", "archive", "a.ndjson", *place.words).status == 0
    before = place.content()
    tables = ["_rejects", "email_opened", "order", "users"]
    place.execute(
        *(f'DROP TABLE autopilothq."{table}"' for table in tables),
        "ALTER TABLE autopilothq.tracks DROP COLUMN event_text",
        "ALTER TABLE autopilothq.identifies DROP COLUMN user_id",
        "ALTER TABLE autopilothq.identifies DROP COLUMN plan",
        'DROP TABLE autopilothq_staging."users"',
    )
    said = call("load", "archive", "a.ndjson", *place.words)
    column = (
        'Warning: The column event_text of "autopilothq"."tracks" was missing and created again, empty in the'
        ' stored rows; to get the values back, drop the table (DROP TABLE "autopilothq"."tracks"); '
    )
    assert (said.status, said.out.splitlines()[0][:7]) == (0, "0 lines")
    columns = (
        'Warning: The columns plan, user_id of "autopilothq"."identifies" were missing and created again, empty in the'
        ' stored rows; to get the values back, drop the table (DROP TABLE "autopilothq"."identifies"); '
    )
    assert sorted(errors(said)) == sorted([*gone(tables, READ_AGAIN), column + READ_AGAIN, columns + READ_AGAIN])

    again = ["identifies", "tracks"]
    place.execute(*(f"DROP TABLE autopilothq.{table}" for table in (*again, "_audit", "_dlt_loads")))
    said = call("load", "archive", "a.ndjson", *place.words)
    books = gone(["_audit", "_dlt_loads"], "all files are read again, and nothing is stored twice")
    assert (said.status, sorted(errors(said))) == (0, sorted([*books, *gone(again, READ_AGAIN)]))
    after = place.content()
    assert_sound(after)
    assert_same(after, before, but=["_audit"])
    assert errors(call("load", "archive", "a.ndjson", *place.words)) == []

    # A view in place of a table lacks columns too, but columns cannot be added to a view.
    place.execute(
        "ALTER TABLE autopilothq.tracks RENAME TO mine",
        "CREATE VIEW autopilothq.tracks AS SELECT user_id FROM autopilothq.mine",
    )
    Path("b.ndjson").write_bytes(line(track(4)))
    said = call("load", "archive", "b.ndjson", *place.words)
    refused = "Error: Expected tracks in the dataset autopilothq to be a table, because rows are loaded into it, but it"
    assert (said.status, errors(said)[0]) == (1, f"{refused} is a view.")

    # The schema is read before anything else, so a column of its table is not created again.
    place.execute("ALTER TABLE autopilothq._dlt_version DROP COLUMN engine_version")
    said = call("load", "archive", "b.ndjson", *place.words)
    table = '"autopilothq"."_dlt_version"'
    lost = f"The column engine_version of {table} is missing, and dlt cannot read the tables' schema without it."
    todo = f"Drop that table, and the next run creates it again: DROP TABLE {table}; nothing is lost by that"
    assert (said.status, errors(said)) == (1, [f"Error: {lost}", todo])


@pytest.mark.parametrize("place", ["duckdb"], indirect=True)
def test_a_missing_column_that_stored_rows_need_is_an_error_that_says_what_to_do(place: Place, call: Call) -> None:
    assert call("load", "archive", "a.ndjson", *place.words).status == 0
    theirs = "If it is somebody else's table, rename it (ALTER TABLE ... RENAME TO ...). Otherwise drop the whole"
    for table, column, why in (
        ("_dlt_loads", "status", "stored rows would have no value for it"),
        ("_audit", "version", "rows cannot be told apart without it"),
    ):
        place.execute(f"ALTER TABLE autopilothq.{table} DROP COLUMN {column} CASCADE")
        said = call("load", "archive", "a.ndjson", *place.words)
        assert said.status == 1
        todo = f'{theirs} table, and the next run creates it again: DROP TABLE "autopilothq"."{table}"; '
        assert errors(said) == [
            f'Error: The column {column} of "autopilothq"."{table}" is missing, and {why}.',
            f"{todo}all files are read again, and nothing is stored twice",
        ]
        place.execute(f"DROP TABLE autopilothq.{table}")
        assert call("load", "archive", "a.ndjson", *place.words).status == 0


# Rows go through staging, whose table must get the changed type as well.
@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_a_type_that_somebody_changed(place: Place, call: Call) -> None:
    assert call("load", "archive", "a.ndjson", *place.words).status == 0
    place.execute(
        'ALTER TABLE autopilothq."order" ALTER COLUMN price TYPE VARCHAR, ALTER COLUMN pieces TYPE SMALLINT,'
        " ALTER COLUMN weight TYPE NUMERIC(10, 2), ALTER COLUMN points TYPE NUMERIC(20, 0), ALTER due TYPE DATE,"
        " ALTER COLUMN received_at TYPE text",
        "ALTER TABLE autopilothq.users ALTER COLUMN plan TYPE BIGINT USING NULL",
        "ALTER TABLE autopilothq.tracks ALTER COLUMN received_at TYPE text",
    )
    properties = {"price": 6.5, "pieces": 2, "weight": 2, "points": 8, "due": "2019-03-02T12:00:00Z"}
    order = track(4, event="Order", properties=properties)
    Path("b.ndjson").write_bytes(line(order))
    said = call("load", "archive", "b.ndjson", *place.words)
    assert (said.status, errors(said)) == (0, [])
    tables = place.content()
    assert [[row[name] for name in PROPERTIES] for row in tables["order"].dicts()] == [
        ["5.5", 1, 1.5, 7, date(2019, 3, 1)],
        ["6.5", 2, 2, 8, date(2019, 3, 2)],
    ]
    # Columns of the contract keep their types in dlt's files, and PostgreSQL casts their values.
    for name in ("order", "tracks"):
        assert max(row["received_at"] for row in tables[name].dicts()) == "2019-03-01 00:00:04+00"
    # If the table is dropped and created again with its old type, staging must follow again.
    place.execute("DROP TABLE autopilothq.users")
    Path("c.ndjson").write_bytes(line(PERSON | {"userId": "v", "messageId": "i-2", "traits": {"plan": "free"}}))
    assert call("load", "archive", "c.ndjson", *place.words).status == 0
    assert [(row["id"], row["plan"]) for row in place.content()["users"].dicts()] == [("v", "free")]


# One load for all: each change is made in a table, the commands that read it are called, and it is made back.
CHANGED = (
    ("identifies", "received_at", "date", ("status", "models", "load")),
    ("users", "received_at", "text", ("status",)),
    ("email_opened", "uuid_ts", "date", ("status", "report", "models")),
    ("email_opened", "received_at", "time", ("status", "report", "models")),
    ("email_opened", "timestamp", "text", ("report", "models")),
    ("email_opened", "user_id", "bigint", ("report", "models")),
    ("tracks", "user_id", "bigint", ("models",)),
    ("identifies", "user_id", "jsonb", ("models", "load", "forget")),
    ("identifies", "user_id", "bigint", ("models",)),
    ("identifies", "anonymous_id", "uuid", ("models", "forget")),
    ("_rejects", "rejected_at", "text", ("status",)),
    ("identifies", "anonymous_id", "mood", ("models",)),
    ("tracks", "id", "uuid", ("models", "load")),
    ("users", "id", "bytea", ("load",)),
    ("identifies", "id", "mood", ("models", "load")),
    ("_audit", "version", "inet", ("load",)),
)
NO_TEXT = "to have a text column {}, by which loads find its rows, but it has the type {}."


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_commands_that_read_name_a_column_whose_type_somebody_changed(place: Place, call: Call) -> None:
    assert call("load", "archive", "a.ndjson", *place.words).status == 0
    place.execute("CREATE TYPE mood AS ENUM ('good')")
    Path("b.ndjson").write_bytes(line(PERSON | {"messageId": "i-2", "traits": {"plan": "free"}}))
    words = {"report": ["report", "--json"], "models": ["models", "apply"], "load": ["load", "archive", "b.ndjson"]}
    words["forget"] = ["forget", "--user-id", "u"]
    for table, column, new, commands in CHANGED:
        name = f"autopilothq.{table}"
        is_key = column in key_of(table)
        value = {"bigint": "NULL", "jsonb": f"to_jsonb({column})", "mood": "'good'", "inet": "'10.0.0.1'"}
        using = value.get(new) or (f"md5({column})::uuid" if new == "uuid" else f"{column}::{new}")
        place.execute(
            f"CREATE TABLE public.kept AS TABLE {name}",
            f'ALTER TABLE {name} ALTER COLUMN "{column}" TYPE {new} USING {using}',
        )
        for command in commands:
            said = call(*words.get(command, [command]), *place.words)
            assert said.status == 1, (column, new, command)
            dataset = "autopilothq." if command == "forget" else ""
            if is_key and command == "load":
                assert errors(said)[0].endswith(f"{table} in the dataset autopilothq {NO_TEXT.format(column, new)}")
                assert errors(said)[1].endswith(
                    "If the column was changed, change it back, or drop the table: the load makes it again."
                )
                continue
            assert f"Expected the column {column} of {dataset}{table} " in errors(said)[0]
            assert "ALTER TABLE ... ALTER COLUMN ... TYPE" in errors(said)[1]
        for command in {"status", "report"}.difference(commands):  # they do not read it
            said = call(*words.get(command, [command]), *place.words)
            assert (said.status, errors(said)) == (0, []), (table, column, command)
        old = "text" if is_key or column.endswith("id") else "timestamptz"
        place.execute(
            f"TRUNCATE {name}",
            f'ALTER TABLE {name} ALTER COLUMN "{column}" TYPE {old} USING NULL',
            f"INSERT INTO {name} TABLE public.kept",
            "DROP TABLE public.kept",
        )
    place.execute("ALTER TABLE autopilothq.tracks ALTER COLUMN user_id TYPE bigint USING 7")
    said = call("export", "out", *place.words)
    assert (said.status, errors(said)) == (0, [])
    assert call("status", *place.words).status == 0

    for new, status in (
        ("jsonb USING to_jsonb(id)", 1),
        ("text[] USING ARRAY[id]", 1),
        ("uuid USING md5(id)::uuid", 0),
    ):
        place.execute(f"ALTER TABLE autopilothq.tracks ALTER COLUMN id TYPE {new}")
        said = call("export", "ids", *place.words)
        assert (said.status, "Expected id of tracks in" in said.err) == (status, bool(status))
        said = call("forget", "--user-id", "u", "--dry-run", *place.words)
        assert (said.status, "Expected the column id of autopilothq.tracks " in said.err) == (status, bool(status))
        place.execute("ALTER TABLE autopilothq.tracks ALTER COLUMN id TYPE text USING id::text")
    # Ids that are numbers are found as they are spelt, also if somebody made numbers of them in one table alone.
    place.execute(
        "UPDATE autopilothq.identifies SET user_id = 7",
        "ALTER TABLE autopilothq.users ALTER COLUMN id TYPE bigint USING 7",
    )
    said = call("forget", "--user-id", "7", *place.words)
    assert (said.status, errors(said)) == (0, [])
    tables = place.content()
    assert [len(tables[name].rows) for name in ("users", "identifies", "tracks")] == [0, 0, 0]


# What `status` says of a table with such times of its own, and what is an error only in tables of the contract.
OWN = (
    ("date", "timestamptz", None),
    ("text", "timestamptz", None),
    ("time", "timestamptz", None),
    ("timestamptz", "date", {"received_at": None, "loaded_at": "2019-03-01T00:00:00+00:00"}),
    ("timestamp", "bigint", {"received_at": None, "loaded_at": "2019-03-01T00:00:00+00:00"}),
)


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_tables_and_views_of_ones_own_never_end_commands_that_read(place: Place, call: Call) -> None:
    assert call("load", "archive", "a.ndjson", *place.words).status == 0
    for n, (uuid_ts, received_at, _) in enumerate(OWN):
        at = "timestamptz '2019-03-01 00:00:00Z'"
        first, last = (at if "time" in of else f"{at}::text" for of in (uuid_ts, received_at))
        last = "7" if received_at == "bigint" else last
        cells = f"({first})::{uuid_ts} AS uuid_ts, ({last})::{received_at} AS received_at"
        place.execute(f"CREATE {'VIEW' if n % 2 else 'TABLE'} autopilothq.own_{n} AS SELECT {cells}")
    place.execute("CREATE TABLE autopilothq.pages AS SELECT 7 AS id, 8 AS user_id, current_date AS received_at")
    said = call("status", "--json", *place.words)
    assert (said.status, errors(said)) == (0, [])
    tables = json.loads(said.out)["tables"]
    assert [tables.get(f"own_{n}") for n in range(len(OWN))] == [shown for _, _, shown in OWN]
    said = call("report", "--json", *place.words)
    assert (said.status, errors(said)) == (0, [])
