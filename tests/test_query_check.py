"""Of users' SQL, anything but a query is refused before it is sent, and a query cannot write."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg2
import pytest

from autopilothq.destination import opening
from autopilothq.errors import InvalidQuery
from autopilothq.warehouses.query_check import check_query
from calling import Call
from fake_autopilot import FakeAutopilot
from sending import IMPATIENT, answer, configure, posts

HINT = "\nKeep one SELECT, and do everything else in the warehouse itself."
SECRET = "key = 'a secret'"


def refused(sql: str, dialect: str | None) -> str:
    """Returns what the error says that it got."""
    with pytest.raises(InvalidQuery) as raised:
        check_query(sql, dialect)
    before = "Expected one query that only reads, such as SELECT ... or WITH ... SELECT, got "
    assert str(raised.value).startswith(before)
    assert str(raised.value).endswith(HINT)
    return str(raised.value).removeprefix(before).removesuffix(HINT).rstrip(".")


EVERYWHERE = [
    ("SELECT 1; DROP TABLE people", "2 statements (SELECT, DROP)"),
    ("SELECT 1; SELECT 2", "2 statements (SELECT, SELECT)"),
    ("SELECT 1 -- one\r; DROP TABLE people", "2 statements (SELECT, DROP)"),
    ("SELECT ';' AS a /* ; */; DELETE FROM people", "2 statements (SELECT, DELETE)"),
    ("DELETE FROM people", "DELETE"),
    ("INSERT INTO people VALUES (1)", "INSERT"),
    ("UPDATE people SET email = '' RETURNING email", "UPDATE"),
    ("CREATE TABLE more AS SELECT 1", "CREATE"),
    ("WITH a AS (SELECT 1) INSERT INTO people SELECT * FROM a", "INSERT"),
    ("", "none"),
    ("-- nothing\n;", "none"),
]


@pytest.mark.parametrize("dialect", ["duckdb", "postgres", "mysql", "sqlite", "snowflake", "bigquery", "tsql", None])
@pytest.mark.parametrize(("sql", "got"), EVERYWHERE)
def test_what_is_not_one_query_is_refused_everywhere(sql: str, got: str, dialect: str | None) -> None:
    assert refused(sql, dialect) == got


@pytest.mark.parametrize(
    ("dialect", "sql", "got"),
    [
        ("postgres", "WITH gone AS (DELETE FROM people RETURNING *) SELECT * FROM gone", "SELECT with DELETE"),
        ("postgres", "WITH a AS (INSERT INTO people SELECT 1 RETURNING *) SELECT 1", "SELECT with INSERT"),
        ("postgres", "SELECT * INTO more FROM people", "SELECT with INTO"),
        ("postgres", "SELECT * FROM people FOR UPDATE", "SELECT with LOCK"),
        ("postgres", "COPY people TO PROGRAM 'sh'", "COPY"),
        ("postgres", "DO $$ BEGIN DROP TABLE people; END $$", "DO"),
        ("postgres", "CALL change()", "CALL"),
        ("postgres", "SELEC 1", "text that is not valid postgres SQL in line 1, column 7"),
        ("postgres", "SELECT 'a", "text that is not valid postgres SQL"),
        ("postgres", "EXPLAIN ANALYZE DELETE FROM people", "EXPLAIN"),
        ("postgres", "SET default_transaction_read_only = off", "SET"),
        ("snowflake", "CALL change()", "CALL"),
        ("duckdb", "PRAGMA database_list", "PRAGMA"),
        ("duckdb", "/* a */ pragma enable_profiling", "PRAGMA"),
        ("duckdb", "ATTACH 'other.duckdb'", "ATTACH"),
        ("duckdb", "INSTALL httpfs", "LOAD"),
        ("duckdb", "LOAD httpfs", "LOAD"),
        ("duckdb", "CALL pragma_version()", "CALL"),
        ("duckdb", "CHECKPOINT", "CALL"),
        ("duckdb", "COPY people TO 'people.csv'", "COPY"),
        ("duckdb", "EXPLAIN ANALYZE SELECT 1", "EXPLAIN"),
        ("duckdb", "EXPORT DATABASE 'here'", "EXPORT"),
        ("duckdb", "FROM enable_profiling(save_location = 'a.json')", "enable_profiling()"),
        ("duckdb", "SELECT 'é', * FROM \"Enable_Logging\" ()", "enable_logging()"),
        ("duckdb", "FROM query('FROM force_checkpoint()')", "query()"),
        ("duckdb", "FROM query/**/('FROM a')", "query()"),
        ("duckdb", "FROM \"query\"--\n('FROM a')", "query()"),
        ("duckdb", "SELECT 'é\u3000', (FROM\u00a0\u2003main.query\ufeff('FROM a'))", "query()"),
    ],
)
def test_what_changes_something_is_refused(dialect: str, sql: str, got: str) -> None:
    assert refused(sql, dialect) == got


@pytest.mark.parametrize("dialect", ["duckdb", "postgres", "snowflake", "bigquery"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'a;b' AS email -- ; DROP TABLE people",
        "select 1 as query, 2 as checkpoint;",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a UNION ALL SELECT 2;;",
        "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1",
    ],
)
def test_a_query_is_taken(sql: str, dialect: str) -> None:
    check_query(sql, dialect)


@pytest.mark.parametrize(
    "sql", ["FROM people", "PIVOT people ON plan USING count(*)", "VALUES ('é')", "TABLE people", "FROM queryé('a')"]
)
def test_duckdbs_own_forms_of_a_query_are_taken(sql: str) -> None:
    check_query(sql, "duckdb")


def test_postgres_short_form_of_a_query_is_taken() -> None:
    check_query("\n table people", "postgres")
    assert refused("TABLE people; DROP TABLE people", "postgres") == "2 statements (SELECT, DROP)"


# ---- on the connection ---------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    monkeypatch.setattr(opening, "Autopilot", IMPATIENT)
    with FakeAutopilot(contacts=1) as server:
        configure(monkeypatch, server)
        yield server


def files() -> dict[str, bytes]:
    """Returns all files in the test's folder, and below the pipelines' folder next to it."""
    return {str(path): path.read_bytes() for path in Path("..").resolve().rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT nextval('numbers') AS email", 'attached in read-only mode'),
        ("SELECT content AS email FROM read_text('secrets.toml')", "Permission Error: Cannot access file"),
        ("SELECT * FROM read_csv('secrets.toml')", "Permission Error: Cannot access file"),
        ("FROM 'secrets.toml'", "Catalog Error: Table with name secrets.toml does not exist"),
        ("SELECT file AS email FROM glob('*')", "Permission Error: Cannot access file"),
        ("SELECT * FROM read_text('https://127.0.0.1:9/')", "Cannot access file"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_query_of_a_duckdb_file_reads_that_file_alone(
    server: FakeAutopilot, call: Call, sql: str, said: str, more: list[str]
) -> None:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("CREATE SEQUENCE numbers; CREATE TABLE people AS SELECT 'a@b.c' AS email, 1 AS plan")
    Path("secrets.toml").write_text(SECRET)
    told = call("send", "traits", "--query", sql, *more)
    assert (told.status, posts(server)) == (1, [])
    assert told.err.startswith("Error: The warehouse cannot answer the query: ")
    assert said in told.err
    assert told.err.endswith("\nNothing was sent.\n")


def test_a_dry_run_changes_nothing(server: FakeAutopilot, call: Call) -> None:
    for sql in ("SELECT 'a@b.c' AS email, 1 AS plan", "FROM read_text('autopilot.toml')"):  # there is no file yet
        call("send", "traits", "--dry-run", "--query", sql)
        assert files() == {}
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("CREATE TABLE people AS SELECT 'a@b.c' AS email, 1 AS plan")
    before = files()
    evil = "SELECT 1 AS email) AS asked; DROP TABLE people; SELECT * FROM (SELECT 2 AS email"
    for words in (
        ["traits", "--query", "FROM people"],
        ["audience", "All", "--query", "SELECT email FROM people"],
        ["traits", "--query", "FROM people; DROP TABLE people"],
        ["traits", "--query", evil],
    ):
        status = call("send", *words, "--dry-run").status
        assert status == ("DROP" in words[-1])
        assert files() == before
    assert call("deliveries").status == 0
    assert files() == before
    assert posts(server) == []


def test_a_query_of_postgresql_cannot_write(server: FakeAutopilot, call: Call, postgres: str) -> None:
    with psycopg2.connect(postgres) as con, con.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE people AS SELECT 'a@b.c' AS email, 1 AS plan; CREATE SEQUENCE numbers;"
            "CREATE FUNCTION change() RETURNS text LANGUAGE plpgsql AS"
            " $$ BEGIN DELETE FROM public.people; RETURN 'a'; END $$"
        )
    con.close()
    where = ["--destination", "postgres", "--credentials", postgres]

    def asked(sql: str, *more: str) -> str:
        said = call("send", "traits", "--query", sql, *where, *more)
        assert (said.status, posts(server)) == (1, [])
        return said.err.splitlines()[0].partition(": ")[2]

    cannot = "The warehouse cannot answer the query: cannot"
    for sql, said in (
        ("SELECT change() AS email", f"{cannot} execute DELETE in a read-only transaction"),
        ("SELECT nextval('numbers')", f"{cannot} execute nextval() in a read-only transaction"),
        (
            "SELECT set_config('transaction_read_only', 'off', false), change() AS email",
            "The warehouse cannot answer the query: transaction read-write mode must be set before any query",
        ),
        (
            "SELECT query_to_xml('DELETE FROM public.people', true, true, '') AS email",
            "The warehouse cannot answer the query: DELETE is not allowed in a non-volatile function",
        ),
    ):
        assert {asked(sql), asked(sql, "--dry-run")} == {said}
    said = asked("SELECT 1 AS email; DROP TABLE public.people", "--dry-run")
    assert said.endswith("got 2 statements (SELECT, DROP).")
    assert (
        call("send", "traits", "--query", "SELECT * FROM public.people", *where, "--dry-run", "--dataset", "dry").status
        == 0
    )
    with psycopg2.connect(postgres) as con, con.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM people), (SELECT last_value FROM numbers WHERE is_called),"
            " (SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'dry')"
        )
        assert cursor.fetchall() == [(1, None, 0)]
    con.close()


def test_an_answer_of_postgresql_comes_whole(postgres: str) -> None:
    names, rows = answer("SELECT n, '50%' AS t FROM generate_series(1, 25000) n;", dlt.destinations.postgres(postgres))
    assert (names, len(rows), rows[0], rows[-1]) == (["n", "t"], 25_000, (1, "50%"), (25_000, "50%"))
    assert answer("SELECT 1 AS n WHERE false", dlt.destinations.postgres(postgres)) == (["n"], [])


def test_postgresql_does_not_end_a_query_whose_rows_are_worked_on(postgres: str) -> None:
    setting = "idle_in_transaction_session_timeout"
    destination = dlt.destinations.postgres(f"{postgres}?options=-c{setting}%3D1h")
    assert answer(f"SELECT current_setting('{setting}') AS n", destination)[1] == [("0",)]


AS_THEY_ARE: list[tuple[str, Any]] = [
    ("'infinity'::timestamptz", "infinity"),
    ("'-infinity'::timestamp", "-infinity"),
    ("'infinity'::date", "infinity"),
    ("'9999-12-31'::date", date.max),
    ("'0044-03-15 BC'::date", "0044-03-15 BC"),
    ("'12000-01-01 10:00'::timestamp", "12000-01-01 10:00:00"),
    ("'24:00'::time", "24:00:00"),
    ("'23:59:59'::time", time(23, 59, 59)),
    ("'24:00+02'::timetz", "24:00:00+02"),
    ("'1 year 2 mons 04:05'::interval", "1 year 2 mons 04:05:00"),
    ("int4range(1, 5)", "[1,5)"),
    ("daterange('2020-01-01', 'infinity')", "[2020-01-01,infinity)"),
    ("ARRAY['infinity', '2020-01-01', NULL]::date[]", ["infinity", date(2020, 1, 1), None]),
    ("ARRAY[ARRAY['24:00']]::time[]", [["24:00:00"]]),
    ("ARRAY['1 mon']::interval[]", ["1 mon"]),
    ("ARRAY[daterange(NULL, 'infinity')]", ["(,infinity)"]),
    (
        "'{\"a\": [1.10, 12345678901234567890.123]}'::json",
        {"a": [Decimal("1.10"), Decimal("12345678901234567890.123")]},
    ),
    ("ARRAY['1.10']::jsonb[]", [Decimal("1.10")]),
    ("ROW('x', 'infinity'::date)", "(x,infinity)"),
    ("NULL::date", None),
    ("NULL::interval", None),
]


def test_an_answer_of_postgresql_has_no_value_that_the_driver_made(postgres: str) -> None:
    expressions, expected = zip(*AS_THEY_ARE, strict=True)
    query = f"SELECT {', '.join(f'{each} AS c{number}' for number, each in enumerate(expressions))}"
    assert answer(query, dlt.destinations.postgres(postgres))[1] == [expected]
    with closing(psycopg2.connect(postgres)) as con, con.cursor() as cursor:  # other connections read as before
        cursor.execute("SELECT 'infinity'::date")
        assert cursor.fetchone() == (date.max,)
