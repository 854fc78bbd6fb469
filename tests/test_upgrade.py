"""`schema diff` judges tables of an earlier version, as queries prove; `schema upgrade` changes them without loss."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg2
import pytest
from dlt.common.schema import TColumnSchema

from autopilothq import archive, inspect, runner
from autopilothq.inspect.diff import SchemaTable, type_of
from autopilothq.warehouses import lock
from calling import Call, errors
from contract.loading import identify, message
from sending import write
from servers import Postgres

JANUARY, FEBRUARY = "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"
LINES = [
    message("Order", messageId="t1", properties={"revenue": 5358.99, "share": 0.1}),
    message("Order", messageId="t2", properties={"revenue": 1e-7, "share": 123456789.12345679}),
    message(None, type="group", messageId="g1", groupId="a", receivedAt=JANUARY, traits={"plan": "x", "gone": "old"}),
    message(None, type="group", messageId="g2", groupId="a", receivedAt=FEBRUARY, traits={"plan": "y", "seats": 2.5}),
    message(None, type="group", messageId="g3", groupId="b", receivedAt=JANUARY, traits={"plan": "z"}),
    message(None, type="group", messageId="g4", groupId="b", receivedAt=JANUARY, traits={"plan": "later id"}),
    message(None, type="group", messageId="g5", groupId="b", receivedAt=None, traits={"plan": "at an unknown time"}),
    message(None, type="group", messageId="g0", groupId=" \t\n\f\r", traits={"plan": "no group's"}),
    message(None, type="page", messageId="p1", properties={"path": "/"}),
    message(None, type="page", messageId="p2", name="Named"),
    message(None, type="screen", messageId="s1", name="Start"),
    identify(messageId="i1", traits={"age": 1.5}),
]
# How earlier versions stored a page whose name is among its properties.
NAMES = """
    ALTER TABLE autopilothq.pages ADD COLUMN _name {text}; ALTER TABLE autopilothq.pages ADD COLUMN _category {text};
    UPDATE autopilothq.pages SET _name = 'Home', _category = 'C' WHERE id = 'p1';
    UPDATE autopilothq.pages SET _name = 'Named' WHERE id = 'p2';
    DROP TABLE autopilothq.accounts"""

# What users add themselves: names in capitals, and views over our tables.
OWN = '''
    ALTER TABLE autopilothq.tracks ADD COLUMN "Own Col" double precision;
    ALTER TABLE autopilothq.groups ADD COLUMN "Own Col" double precision;
    CREATE TABLE autopilothq."Own ""T""" (id text, "X" double precision);
    INSERT INTO autopilothq."Own ""T""" VALUES ('o', NULL);
    CREATE SCHEMA marts; CREATE MATERIALIZED VIEW marts.ages AS SELECT id, age FROM autopilothq.users'''


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        rows = cursor.fetchall() if cursor.description else []
    connection.close()
    return rows


@pytest.fixture(scope="module")
def old(postgresql: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A database with a dataset of an earlier version, which has dlt's types, no keys and no accounts."""
    with postgresql.database() as url, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("old"))
        pages: list[TColumnSchema] = [{"name": name, "data_type": "text"} for name in ("_name", "_category")]
        source = archive(write(LINES, "old.ndjson"))
        source.pages.apply_hints(columns=pages)
        pipeline = dlt.pipeline(
            "old", destination=dlt.destinations.postgres(url), dataset_name="autopilothq", pipelines_dir="."
        )
        pipeline.run(source)
        ask(url, NAMES.replace("ADD COLUMN", "ADD COLUMN IF NOT EXISTS").format(text="text"))
        ask(url, OWN)
        yield url


def test_an_old_dataset_is_judged_upgraded_and_loaded_into(call: Call, old: str) -> None:
    there = ("--destination", "postgres", "--credentials", old)
    rows = 'SELECT id, revenue::text, share::text FROM autopilothq."order" ORDER BY id'
    before = ask(old, rows)

    said = call("schema", "diff", *there)
    assert said.status == 1
    assert said.out.split("\n\n")[1].splitlines()[0] == "breaks queries:"
    assert (
        "  missing PRIMARY KEY (id): queries that group by id and select other columns fail, and the database does not"
        " keep it unique; autopilothq schema upgrade makes it\n"
    ) in said.out
    assert (
        "  missing table, queries of it fail: it is made of `groups`, which an earlier version did not do;"
        " autopilothq schema upgrade makes it\n    accounts\n"
    ) in said.out

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DESTINATION__POSTGRES__INDEX_RECEIVED_AT", "false")
        said = call("schema", "upgrade", "--dry-run", *there)
    assert (said.status, "CREATE INDEX" in said.out) == (1, False)
    assert (
        "\n\nusers.age stays as it is: marts.ages uses it: drop that view, run this again, recreate the view.\n\n"
    ) in said.out
    ask(old, "DROP MATERIALIZED VIEW marts.ages")

    planned = call("schema", "upgrade", "--dry-run", *there)
    assert planned.status == 0
    assert ask(old, rows) == before
    assert ask(old, "SELECT to_regclass('autopilothq.accounts')") == [(None,)]

    done = call("schema", "upgrade", *there)
    statements = done.out.split("\n\n")[:-1]
    assert (done.status, planned.out.split("\n\n")[:-1]) == (0, statements)
    assert (
        'ALTER TABLE "autopilothq"."order" ALTER COLUMN "revenue" TYPE numeric USING "revenue"::text::numeric,'
        ' ALTER COLUMN "share" TYPE numeric USING "share"::text::numeric;'
    ) in statements
    assert [statement for statement in statements if "Own Col" in statement] == []
    assert 'ALTER TABLE "autopilothq"."_audit" ADD PRIMARY KEY ("file", "version");' in statements
    assert 'CREATE INDEX ON "autopilothq"."tracks" ("received_at");' in statements
    assert 'CREATE INDEX ON "autopilothq"."accounts" ("received_at");' in statements
    assert re.fullmatch(
        rf"{len(statements)} statements run in postgresql://\S+, dataset autopilothq\.\n", done.out.split("\n\n")[-1]
    )
    assert re.fullmatch(r"Nothing to upgrade in \S+, dataset autopilothq\.\n", call("schema", "upgrade", *there).out)
    assert call("schema", "diff", *there).status == 0
    assert call("schema", "--live", *there, 'own "t"').out.splitlines() == [
        'own "t": 1 row.',
        "  column  type              null   first came  description",
        "  id      text              0 %    -",
        "  x       double precision  100 %  -",
    ]

    assert ask(old, 'SELECT sum(revenue), round(max(share), 3), mod(max(revenue), 5) FROM autopilothq."order"') == [
        (Decimal("5358.9900001"), Decimal("123456789.123"), Decimal("3.99"))
    ]
    assert ask(old, "SELECT id, name, category FROM autopilothq.pages ORDER BY id") == [
        ("p1", "Home", "C"),
        ("p2", "Named", None),
    ]
    assert ask(old, "SELECT u.id, u.age, count(*) FROM autopilothq.users u GROUP BY u.id") == [
        ("u1", Decimal("1.5"), 1)
    ]
    columns = "WHERE table_schema = 'autopilothq' AND table_name = 'accounts' ORDER BY 1"
    assert ask(old, f"SELECT column_name FROM information_schema.columns {columns}") == [
        (name,) for name in ("gone", "id", "plan", "received_at", "seats", "uuid_ts")
    ]
    accounts = "SELECT id, plan, gone, seats FROM autopilothq.accounts ORDER BY id"
    assert ask(old, accounts) == [("a", "y", "old", Decimal("2.5")), ("b", "later id", None, None)]

    more = [
        message(None, type="group", messageId="g6", groupId="a", receivedAt=JANUARY, traits={"plan": "w", "new": "n"}),
        message("Order", messageId="t2", properties={"revenue": 1}),
        message("Order", messageId="t3", properties={"revenue": 0.3}),
    ]
    loaded = call("load", "archive", write(more, "more.ndjson"), *there, "--json")
    assert (json.loads(loaded.out)["stored"], json.loads(loaded.out)["duplicates"]) == (2, 1)
    assert ask(old, accounts) == [("a", "y", "old", Decimal("2.5")), ("b", "later id", None, None)]
    assert ask(old, "SELECT new FROM autopilothq.accounts WHERE id = 'a'") == [("n",)]
    assert ask(old, 'SELECT sum(revenue) FROM autopilothq."order"') == [(Decimal("5359.2900001"),)]


def test_duplicate_and_missing_ids_are_only_reported(call: Call, postgres: str) -> None:
    there = ("--destination", "postgres", "--credentials", postgres)
    assert call("load", "archive", write(LINES, "a.ndjson"), *there).status == 0
    for table in ("tracks", "pages"):
        ask(postgres, f"ALTER TABLE autopilothq.{table} DROP CONSTRAINT {table}_pkey, ALTER id DROP NOT NULL")
    ask(postgres, "INSERT INTO autopilothq.tracks SELECT * FROM autopilothq.tracks WHERE id = 't1'")
    ask(postgres, "ALTER TABLE autopilothq._audit DROP CONSTRAINT _audit_pkey")
    ask(postgres, "INSERT INTO autopilothq._audit SELECT * FROM autopilothq._audit")
    ask(postgres, "ALTER TABLE autopilothq.pages DROP COLUMN name, ADD COLUMN _name text, ADD COLUMN _category int")
    ask(postgres, "INSERT INTO autopilothq.pages (_name, _category) VALUES ('mine', 5)")
    ask(postgres, "ALTER TABLE autopilothq.identifies RENAME TO kept")
    ask(postgres, "CREATE VIEW autopilothq.identifies AS SELECT * FROM autopilothq.kept")
    ask(postgres, 'ALTER TABLE autopilothq."order" ALTER revenue TYPE float8, ALTER share TYPE float8')
    ask(postgres, 'CREATE SCHEMA models; CREATE VIEW models.money AS SELECT revenue FROM autopilothq."order"')

    said = call("schema", "upgrade", *there)

    assert said.status == 1
    # A column that a view uses stays; everything else is done.
    assert said.out.split("\n\n")[:-1] == [
        'ALTER TABLE "autopilothq"."order" ALTER COLUMN "share" TYPE numeric USING "share"::text::numeric;',
        "tracks stays as it is: rows have the same id: delete the copies, then run this again.",
        "pages stays as it is: rows have no id: give them one or delete them, then run this again.",
        "_audit stays as it is: rows have the same file, version: delete the copies, then run this again.",
        "order.revenue stays as it is: models.money uses it: drop that view, run this again, recreate the view.",
    ]
    for table in ("tracks", "_audit"):
        copies = f"a USING autopilothq.{table} b WHERE a = b AND a.ctid < b.ctid"
        ask(postgres, f"DELETE FROM autopilothq.{table} {copies}")
    ask(postgres, "DELETE FROM autopilothq.pages WHERE id IS NULL; DROP VIEW models.money")
    said = call("schema", "upgrade", *there)
    assert (said.status, said.out.split("\n\n")[:-1]) == (
        0,
        [
            'ALTER TABLE "autopilothq"."tracks" ADD PRIMARY KEY ("id");',
            'ALTER TABLE "autopilothq"."pages" ADD PRIMARY KEY ("id");',
            'ALTER TABLE "autopilothq"."_audit" ADD PRIMARY KEY ("file", "version");',
            'ALTER TABLE "autopilothq"."order" ALTER COLUMN "revenue" TYPE numeric USING "revenue"::text::numeric;',
        ],
    )


def test_duckdb_gets_accounts_and_names(call: Call) -> None:
    assert call("load", "archive", write(LINES, "a.ndjson")).status == 0
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute(NAMES.format(text="varchar"))
        con.execute("CREATE VIEW autopilothq.tracks_view AS FROM autopilothq.tracks")
    said = call("schema", "upgrade")
    assert (said.status, said.out.count(";\n"), said.out.splitlines()[-1]) == (
        0,
        3,
        f"3 statements run in {Path.cwd()}/autopilot.duckdb, dataset autopilothq.",
    )
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.sql("SELECT id, name, category FROM autopilothq.pages ORDER BY id").fetchall() == [
            ("p1", "Home", "C"),
            ("p2", "Named", None),
        ]
        assert con.sql("SELECT id, plan, gone, seats FROM autopilothq.accounts ORDER BY id").fetchall() == [
            ("a", "y", "old", 2.5),
            ("b", "later id", None, None),
        ]


def test_what_cannot_be_upgraded_says_so(call: Call) -> None:
    said = call("schema", "upgrade")
    why = "There is no dataset autopilothq, so there is nothing to upgrade."
    assert (said.status, errors(said)) == (1, [f"Error: {why}"])
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.tracks (id text)")
    said = call("schema", "upgrade")  # not created by a load
    assert (said.status, said.out.partition(" in ")[0]) == (0, "Nothing to upgrade")


@pytest.mark.parametrize("work", ["", "send"])
def test_nothing_is_upgraded_while_a_run_writes(call: Call, work: str) -> None:
    with lock.held(runner.pipeline(), 0, work):
        said = call("schema", "upgrade")
    assert (said.status, said.err.partition(" is at work.")[0]) == (
        75,
        "Error: Another run of the pipeline autopilot_events",
    )


# A query for the first type, which fails with the second if the verdict is that the change breaks queries.
PROOFS = [
    ("numeric", "double precision", "round(c, 2)", "1.25"),
    ("numeric", "double precision", "mod(c, 5)", "7"),
    ("bigint", "double precision", "mod(c, 5)", "7"),
    ("double precision", "numeric", "power(c, 2) + sqrt(c)", "1.25"),
    ("integer", "bigint", "c / 2", "7"),
    ("character varying(512)", "character varying", "upper(c) || left(c, 1)", "'x'"),
    ("character varying(512)", "boolean", "upper(c)", "'true'"),
    ("bigint", "text", "c + 1", "'1'"),
    ("timestamp with time zone", "date", "extract(hour FROM c)", "'2024-01-01'"),
    ("timestamp without time zone", "timestamp with time zone", "date_trunc('day', c)", "'2024-01-01'"),
]


@pytest.fixture(scope="module")
def database(postgresql: Postgres) -> Any:
    with postgresql.database() as url:
        yield url


@pytest.mark.parametrize(("wanted", "there", "query", "value"), PROOFS)
def test_a_verdict_is_what_postgresql_says(database: str, wanted: str, there: str, query: str, value: str) -> None:
    def runs(of: str) -> bool:
        connection = psycopg2.connect(database)
        try:
            connection.cursor().execute(f"SELECT {query} FROM (SELECT CAST({value} AS {of}) AS c) t")
        except psycopg2.Error:
            return False
        finally:
            connection.close()
        return True

    one, other = ({"t": SchemaTable({"c": type_of(of, "postgres")})} for of in (wanted, there))
    found = inspect.differences(one, other, inspect.SWITCH, dialect="postgres")
    assert runs(wanted)
    assert runs(there) is not any(difference.breaks for difference in found)


def test_a_missing_key_breaks_what_postgresql_refuses(database: str) -> None:
    text = type_of("text", "postgres")
    keyed, plain = SchemaTable({"id": text}, ("id",)), SchemaTable({"id": text})
    for name, key, fails in (("keyed", "PRIMARY KEY", False), ("plain", "", True)):
        ask(database, f"CREATE TABLE {name} (id text {key}, x text)")
        query = f"SELECT id, x, count(*) FROM {name} GROUP BY id"
        if fails:
            with pytest.raises(psycopg2.errors.GroupingError):
                ask(database, query)
        else:
            assert ask(database, query) == []
    for dialect, breaks in (("postgres", True), ("duckdb", False), ("snowflake", False)):
        [found] = inspect.differences({"t": keyed}, {"t": plain}, inspect.SWITCH, dialect=dialect)
        assert (found.change, found.breaks) == ("key", breaks)
    assert inspect.differences({"t": plain}, {"t": keyed}, inspect.SWITCH, dialect="postgres") == []


# By Redshift's documentation, MOD takes only integers and numeric, and DATEDIFF and DATEADD no times with a zone.
@pytest.mark.parametrize(
    ("wanted", "there", "meaning"),
    [
        ("numeric", "double precision", "MOD fails on it, and sums are not exact; cast it to numeric in the queries"),
        (
            "timestamp without time zone",
            "timestamp with time zone",
            "DATEDIFF and DATEADD fail on it; convert it in the queries: x AT TIME ZONE 'UTC'",
        ),
    ],
)
def test_a_verdict_of_redshift(wanted: str, there: str, meaning: str) -> None:
    one, other = ({"t": SchemaTable({"c": type_of(of, "redshift")})} for of in (wanted, there))
    [found] = inspect.differences(one, other, inspect.SWITCH, dialect="redshift")
    assert (found.breaks, found.meaning) == (True, f"{wanted} -> {there}: {meaning}")
    assert [back.breaks for back in inspect.differences(other, one, inspect.SWITCH, dialect="redshift")] == [False]


def test_missing_tables_have_their_reasons() -> None:
    text = SchemaTable({"id": type_of("text", "postgres")})
    wanted = {"accounts": text, "tracks_view": text._replace(is_view=True), "demo": text}
    found = inspect.differences(wanted, {}, inspect.SWITCH, dialect="postgres")
    assert [(one.table, one.breaks, one.meaning) for one in found] == [
        ("accounts", True, "queries of it fail: no group message was loaded, and it comes with the first"),
        ("tracks_view", True, "queries of it fail: it is a view, which no load makes; create it here as it is there"),
        ("demo", True, "queries of it fail: no message of it was loaded"),
    ]
