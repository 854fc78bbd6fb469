"""The SQLAlchemy destination on SQLite: several loads, times without a zone, and what is not supported."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import dlt
import duckdb
import pyarrow as pa
import pytest
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.destinations.impl.sqlalchemy.dialect import get_dialect_capabilities
from sqlalchemy.dialects.mysql.base import MySQLDialect

import autopilothq
from autopilothq import sample
from autopilothq.catalog import LOCKS
from autopilothq.errors import InvalidQuery
from autopilothq.warehouses.dataset import sql_arrow
from autopilothq.warehouses.dlt_internals.mysql import use_exact_text
from calling import Call, errors
from contract.duck import held
from sending import answer, log_in

SQLITE = ("--destination", "sqlalchemy", "--credentials", "sqlite:///here.db")
FILE = "here__autopilothq.db"  # dlt attaches a file for each dataset
# Columns that differ in each load.
CLOCKS = {"uuid_ts", "load_id", "loaded_at", "rejected_at", "discarded_at"}


def plain(value: Any) -> Any:
    """Returns a value of DuckDB in the form that SQLite stores."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return int(value) if isinstance(value, bool) else value


def rows(table: str, columns: Sequence[str]) -> tuple[list[Any], list[Any]]:
    sql = f"SELECT {', '.join(columns)} FROM {{}}{table}"
    with duckdb.connect("autopilot.duckdb", read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        wanted = [tuple(map(plain, row)) for row in con.execute(sql.format("autopilothq.")).fetchall()]
    return sorted(sqlite3.connect(FILE).execute(sql.format("")).fetchall(), key=repr), sorted(wanted, key=repr)


@pytest.mark.filterwarnings("ignore:implicitly coercing SELECT")
def test_several_loads_give_what_they_give_in_duckdb(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    for events in (60, 120):  # the same people, and partly the same messages
        sample.write(f"archive{events}", events)
        with held():
            assert call("load", "archive", f"archive{events}").status == 0
        said = call("load", "archive", f"archive{events}", *SQLITE)
        assert (said.status, errors(said)) == (0, [])
        assert f"\ninto sqlite:///{Path.cwd()}/here.db, dataset autopilothq, pipeline " in said.out
    with duckdb.connect("autopilot.duckdb", read_only=True) as con:
        tables = con.execute(
            "SELECT table_name, list(column_name) FROM duckdb_columns() WHERE schema_name = 'autopilothq'"
            " AND table_name NOT LIKE '\\_dlt%' ESCAPE '\\' GROUP BY table_name"
        ).fetchall()
        assert {"tracks", "users", "email_opened", "_audit", "_rejects"} <= {table for table, _ in tables}
        for table, columns in tables:
            got, wanted = rows(table, sorted(set(columns) - CLOCKS))
            assert got == wanted, table
            assert wanted or table not in ("tracks", "users", "email_opened", "_audit")

    # Rows that a killed load stored twice are removed, also from a new machine.
    with sqlite3.connect(FILE) as con:
        con.execute("INSERT INTO tracks SELECT * FROM tracks LIMIT 3")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "other"))
    said = call("load", "archive", "archive120", *SQLITE)
    assert (said.status, errors(said), said.out.splitlines()[0][:8]) == (0, [], "0 lines,")
    assert sqlite3.connect(FILE).execute(f"SELECT count(*) FROM {LOCKS}").fetchall() == [(0,)]
    got, wanted = rows("tracks", ["id"])
    assert got == wanted

    # Names that SQLite uses itself, and names of somebody's view and tables, one of which can take messages.
    with sqlite3.connect(FILE) as con:
        con.execute("CREATE VIEW seen AS SELECT 'a' AS id, NULL AS received_at")
        con.execute("CREATE TABLE owned (id WORDS, received_at)")
        con.execute("CREATE TABLE strict (id TEXT, received_at DATETIME, who TEXT NOT NULL)")
        con.execute("CREATE TABLE kept (id TEXT NOT NULL, received_at DATETIME, who TEXT NOT NULL DEFAULT 'me')")
    made = {"Sqlite Opened": "_sqlite_opened", "Seen": "seen_table", "Owned": "owned_table", "Kept": "kept"}
    made["Strict"] = "strict_table"
    lines = [
        f'{{"type":"track","event":"{event}","messageId":"s{number}","userId":"u"}}\n'
        for number, event in enumerate(made)
    ]
    Path("named.ndjson").write_text("".join(lines))
    said = call("load", "archive", "named.ndjson", *SQLITE)
    assert (said.status, errors(said)) == (0, [])
    for number, table in enumerate(made.values()):
        wanted = [(f"s{number}", table)]
        assert sqlite3.connect(FILE).execute(f"SELECT id, event FROM {table}").fetchall() == wanted

    Path("email_clicked.csv").write_text("id,received_at,user_id\nadopted,2019-03-04T05:06:07Z,u\n")
    assert call("adopt", "email_clicked.csv", *SQLITE).status == 0
    adopted = "SELECT user_id, received_at FROM email_clicked WHERE id = 'adopted'"
    assert sqlite3.connect(FILE).execute(adopted).fetchall() == [("u", "2019-03-04 05:06:07.000000")]

    said = call("status", *SQLITE)
    assert (said.status, errors(said)) == (
        1,
        [
            "Error: Expected a destination whose tables dlt can list, but it cannot list those of SQLite.",
            "Loads and `adopt` work there; to look at the tables ask SQLite itself, or load into DuckDB too.",
        ],
    )
    assert call("forget", "--email", "ada@example.com", *SQLITE).err == said.err


@pytest.mark.parametrize("words", ["status", "schema --live", "schema diff", "export out", "forget --email a@b.c"])
def test_other_databases_of_this_destination_do_not_list_their_tables_either(call: Call, words: str) -> None:
    nowhere = ("--destination", "sqlalchemy", "--credentials", "postgresql+psycopg2://me:s3cret@127.0.0.1:1/there")
    said = call(*words.split(), *nowhere)
    assert (said.status, errors(said)) == (
        1,
        [
            "Error: Expected a destination whose tables dlt can list, but it cannot list those of postgresql.",
            "Loads and `adopt` work there; to look at the tables ask postgresql itself, or load into DuckDB too.",
        ],
    )


@pytest.mark.parametrize(
    ("is_mariadb", "collation"), [(True, "utf8mb4_nopad_bin"), (False, "utf8mb4_0900_bin")], ids=["MariaDB", "MySQL"]
)
def test_text_in_mysql_is_long_and_compared_byte_by_byte(is_mariadb: bool, collation: str) -> None:
    use_exact_text()
    dialect = MySQLDialect(is_mariadb=is_mariadb)
    capabilities = DestinationCapabilitiesContext.generic_capabilities()
    for name in ("mysql", "mariadb"):
        mapper = cast(Any, get_dialect_capabilities(name)).type_mapper_class()(capabilities, dialect)
        made = mapper.to_destination_type({"name": "id", "data_type": "text"}, {})
        assert made.compile(dialect=dialect) == f"LONGTEXT CHARACTER SET utf8mb4 COLLATE {collation}"
        assert str(mapper.to_destination_type({"data_type": "text", "precision": 9}, {})) == "VARCHAR(9)"
        for table, of in (
            ({"name": "tracks", "x-segment-table": True}, "LONGTEXT"),
            ({"name": "_dlt_version"}, "LONGTEXT"),
            ({"name": "words"}, "TEXT"),  # a pipeline of a user may have tables of its own
        ):
            made = mapper.to_destination_type({"name": "id", "data_type": "text"}, table)
            assert made.compile(dialect=dialect).split()[0] == of


def test_a_log_into_which_dlt_can_write_no_text_is_refused(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """dlt cannot quote text for SQLAlchemy, so an id such as `'); DELETE ...` would be executed."""
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__API_KEY", "none is asked")
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__BASE_URL", "http://127.0.0.1:9")
    Path("a.ndjson").write_text('{"type":"identify","messageId":"x","traits":{"email":"a@b.c"}}\n')
    refused = [
        "Error: Expected a warehouse for which dlt can write text into SQL, to keep the delivery log, got sqlalchemy.",
        "Name another one: --destination.",
    ]
    for more in ((), ("--dry-run",)):
        said = call("send", "messages", "a.ndjson", *SQLITE, *more)
        assert (said.status, errors(said)) == (1, refused)


@pytest.mark.filterwarnings("ignore:implicitly coercing SELECT")
def test_the_rows_of_a_load_in_steps_are_looked_up() -> None:
    """Like those of every load that may have been interrupted. Here they are gone, so the file is read again."""
    line = {"type": "track", "event": "Seen", "messageId": "a", "userId": "u", "receivedAt": "2019-03-01T00:00:00Z"}
    Path("a.ndjson").write_text(json.dumps(line))
    pipeline = dlt.pipeline("steps", destination=dlt.destinations.sqlalchemy("sqlite:///here.db"), dataset_name="data")
    source = autopilothq.archive("a.ndjson").with_resources("tracks", "_audit")
    pipeline.extract(source)
    pipeline.normalize()
    pipeline.load()
    with closing(sqlite3.connect("here__data.db")) as con, con:
        con.execute("DELETE FROM tracks")
    pipeline.run(source)
    with closing(sqlite3.connect("here__data.db")) as con:
        assert con.execute("SELECT id FROM tracks").fetchall() == [("a",)]


@pytest.mark.parametrize(
    "cells",
    [
        pa.array(["2019-03-01 05:45:00.000001", None]),
        pa.array(["2019-03-01 05:45:00.000001Z", None]),
        pa.array(["2019-03-01 11:30:00.000001+05:45", None]),
        pa.array([datetime(2019, 3, 1, 5, 45, 0, 1), None], pa.timestamp("us")),  # noqa: DTZ001
        pa.array([datetime(2019, 3, 1, 11, 30, 0, 1, timezone(timedelta(minutes=345))), None]),
    ],
)
def test_times_without_a_zone_are_in_utc(cells: Any) -> None:
    typed = sql_arrow.typed(pa.chunked_array([cells]), pa.timestamp("us", "UTC"))
    assert typed.to_pylist() == [datetime(2019, 3, 1, 5, 45, 0, 1, UTC), None]


def test_a_query_of_the_users_own_reads() -> None:
    with sqlite3.connect("here.db") as con:
        con.execute("CREATE TABLE people AS SELECT 'a@b.c' AS email, 1 AS plan")
    con.close()
    place = dlt.destinations.sqlalchemy("sqlite:///here.db")
    assert answer("SELECT * FROM people -- all", place) == (["email", "plan"], [("a@b.c", 1)])
    assert answer("SELECT query_only FROM pragma_query_only", place)[1] == [(1,)]
    with pytest.raises(InvalidQuery, match=r"got 2 statements \(SELECT, DELETE\)"):
        answer("SELECT 1; DELETE FROM people", place)
    with log_in(place).sql_client as client:
        assert client.execute_sql("PRAGMA query_only") == [(0,)]
