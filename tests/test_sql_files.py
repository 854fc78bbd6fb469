"""Each SQL file for destinations is read by a module, and returns the right rows for a schema with oddities."""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
import sqlglot

from autopilothq.warehouses.sql_files import sql_file
from servers import Postgres
from waiting import wait_for

PACKAGE = Path(__file__).parents[1] / "pipelines" / "autopilothq"
FILES = sorted(path.name for path in (PACKAGE / "warehouses").glob("*.sql"))


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_read_by_a_module(name: str) -> None:
    assert [path.name for path in PACKAGE.rglob("*.py") if f'"{name}"' in path.read_text()] != []


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_one_statement_that_reads(name: str) -> None:
    """The test puts a column in place of parameters and of names that are filled in later."""
    dialect = name.removesuffix(".sql").rpartition("_")[2] if "_" in name else None
    text = sql_file(name).replace("%(pid)s", "x").replace("%%", "%").replace("%s", "x").replace("$1", "x")
    text = re.sub(r"\{(\w+)\}", r"\1", text)
    [statement] = sqlglot.parse(text, dialect=dialect if dialect in ("postgres", "duckdb") else None)
    assert isinstance(statement, sqlglot.exp.Query)


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------

# Next to everything in `odd` is something similar that must not count: in another schema, not unique, not valid.
ODD = """
CREATE SCHEMA odd; CREATE SCHEMA other; CREATE SCHEMA staging;
CREATE TABLE odd.keyed (n bigint, id text COLLATE "C" NOT NULL, note varchar(5), gone int, PRIMARY KEY (id, n));
ALTER TABLE odd.keyed DROP COLUMN gone;
CREATE INDEX ON odd.keyed (note, n);
CREATE INDEX ON odd.keyed (n) WHERE n > 0;
CREATE TABLE odd.plain (id text, at timestamptz, ok boolean, few char(3), blank bpchar);
CREATE UNIQUE INDEX ON odd.plain (id) WHERE ok;
CREATE UNIQUE INDEX ON odd.plain (lower(id));
CREATE UNIQUE INDEX ON odd.plain (id) INCLUDE (ok);
ALTER TABLE odd.plain ADD UNIQUE (at) DEFERRABLE;
CREATE INDEX ON odd.plain (few);
CREATE TABLE odd.typed (id text UNIQUE, price numeric(10, 2));
CREATE TABLE odd.waits (id text PRIMARY KEY);
CREATE TABLE odd.staged (id text PRIMARY KEY, other text UNIQUE);
CREATE TABLE odd.parts (id text) PARTITION BY LIST (id);
CREATE SEQUENCE odd.numbers;
CREATE TABLE other.keyed (n bigint, id text PRIMARY KEY, other text);
CREATE TABLE other.staged (id text PRIMARY KEY);
CREATE TABLE staging.waits (id text);
CREATE TABLE staging.staged (id text);
INSERT INTO other.staged VALUES ('a');
INSERT INTO staging.waits VALUES ('a');
INSERT INTO odd.keyed SELECT n, chr((65 + n % 3)::int), chr((65 + n % 2)::int) FROM generate_series(1, 30) n;
INSERT INTO other.keyed SELECT n, n::text, chr((65 + n % 2)::int) FROM generate_series(1, 30) n;
ANALYZE odd.keyed; ANALYZE other.keyed;
CREATE VIEW odd.seen AS SELECT note, n FROM odd.keyed;
CREATE VIEW odd.bare AS SELECT 1 AS one;
CREATE MATERIALIZED VIEW odd.kept AS SELECT id FROM odd.plain;
CREATE VIEW other.shown AS SELECT k.note, o.id FROM odd.keyed k, other.keyed o;
COMMENT ON TABLE odd.keyed IS 'a table'; COMMENT ON COLUMN odd.keyed.note IS 'a column';
COMMENT ON VIEW odd.seen IS 'a view'; COMMENT ON INDEX odd.keyed_pkey IS 'an index';
COMMENT ON TABLE other.keyed IS 'another table'; COMMENT ON SEQUENCE odd.numbers IS 'a sequence';
COMMENT ON CONSTRAINT keyed_pkey ON odd.keyed IS 'a constraint'; COMMENT ON SCHEMA odd IS 'a schema';
CREATE FUNCTION odd.omit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TABLE other.part PARTITION OF odd.parts DEFAULT PARTITION BY LIST (id);
CREATE TABLE other.of_part PARTITION OF other.part DEFAULT;
CREATE TRIGGER t BEFORE INSERT ON other.of_part FOR EACH ROW EXECUTE FUNCTION odd.omit();
CREATE TABLE other.heir () INHERITS (odd.typed);
CREATE TRIGGER t BEFORE INSERT ON other.heir FOR EACH ROW EXECUTE FUNCTION odd.omit();
CREATE TRIGGER t BEFORE INSERT OR UPDATE ON odd.staged FOR EACH ROW EXECUTE FUNCTION odd.omit();
CREATE RULE r AS ON INSERT TO odd.waits DO INSTEAD NOTHING; CREATE RULE r AS ON INSERT TO odd.plain DO ALSO NOTHING;
CREATE TRIGGER a AFTER INSERT ON odd.keyed FOR EACH ROW EXECUTE FUNCTION odd.omit();
CREATE TRIGGER b BEFORE UPDATE ON odd.keyed FOR EACH ROW EXECUTE FUNCTION odd.omit();
CREATE TRIGGER c BEFORE INSERT ON odd.keyed EXECUTE FUNCTION odd.omit();
CREATE TRIGGER t BEFORE INSERT ON odd.typed FOR EACH ROW EXECUTE FUNCTION odd.omit();
ALTER TABLE odd.typed DISABLE TRIGGER t;
CREATE SCHEMA published;
CREATE TABLE published.keyed (id text PRIMARY KEY); CREATE TABLE published.plain (id text UNIQUE);
CREATE TABLE published.added (id text); CREATE TABLE published.whole (id text); CREATE TABLE published.never (id text);
ALTER TABLE published.whole REPLICA IDENTITY FULL; ALTER TABLE published.never REPLICA IDENTITY NOTHING;
CREATE TABLE published.deleted (id text); CREATE TABLE published.apart (id text);
CREATE PUBLICATION changes FOR TABLE published.keyed, published.plain, published.whole, published.never
    WITH (publish = 'insert, update');
CREATE PUBLICATION deletes FOR TABLE published.deleted WITH (publish = 'delete');
CREATE PUBLICATION additions FOR TABLE published.added, odd.plain WITH (publish = 'insert, truncate');
CREATE SCHEMA named;
CREATE SCHEMA texts; CREATE TYPE texts.mood AS ENUM ('sad'); CREATE DOMAIN texts.word AS varchar(9);
CREATE DOMAIN texts.email AS texts.word; CREATE DOMAIN texts.code AS uuid; CREATE DOMAIN texts.key AS texts.code;
CREATE DOMAIN texts.count AS int; CREATE DOMAIN texts.number AS texts.count;
CREATE TABLE texts.plain (
    a text, b varchar(9), c char(3), d texts.word, e text COLLATE "C", f boolean, g smallint, h int, i bigint,
    j numeric(9, 2), k float8, l date, m timestamp, n timestamptz, o texts.email, p texts.count);
CREATE TABLE texts.odd (
    id uuid, "Mood" texts.mood, name name, sums real[], bytes bytea, at inet, key texts.key, words texts.word[],
    number texts.number, span int4range);
ALTER TABLE texts.odd DROP COLUMN span;
CREATE TABLE named.opened (id text, received_at timestamptz);
CREATE TABLE named.opened_earlier (received_at timestamp, id varchar(9)) PARTITION BY LIST (id);
CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none;
CREATE FOREIGN TABLE named.opened_there (id text, received_at timestamptz) SERVER far;
CREATE TABLE named."Half" (id text);
CREATE TABLE named.numbered (id bigint, received_at timestamptz);
CREATE TABLE named.dated (id text, received_at date);
CREATE TABLE named.renamed (name text, at timestamptz);
CREATE INDEX by_both ON named.opened (id, received_at);
CREATE SEQUENCE named.numbers;
CREATE VIEW named.seen AS SELECT * FROM named.opened;
CREATE MATERIALIZED VIEW named.kept AS SELECT * FROM named.opened;
CREATE TYPE named.mood AS ENUM ('sad'); CREATE TYPE named.both AS (id text, received_at timestamptz);
CREATE DOMAIN named.words AS text[];
CREATE TABLE other.opened (id text, received_at timestamptz);
CREATE ROLE sql_reader LOGIN PASSWORD 'secret';
GRANT USAGE ON SCHEMA odd TO sql_reader; GRANT SELECT ON odd.keyed, odd.seen TO sql_reader;
"""
FOUND: dict[str, tuple[Sequence[str], list[tuple[Any, ...]]]] = {
    "columns_in_views_postgres.sql": (
        ["odd"],
        [
            ("plain", "id", "odd.kept"),
            ("keyed", "n", "odd.seen"), ("keyed", "note", "odd.seen"), ("keyed", "note", "other.shown"),
        ],
    ),
    "comments_postgres.sql": (
        ["odd"],
        [
            ("keyed", None, "a table"), ("keyed", "note", "a column"), ("keyed_pkey", None, "an index"),
            ("numbers", None, "a sequence"), ("seen", None, "a view"),
        ],
    ),
    "indexed_columns_postgres.sql": (
        ["odd"],
        [
            ("keyed", "id"), ("keyed", "note"), ("plain", "at"), ("plain", "few"), ("plain", "id"), ("staged", "id"),
            ("staged", "other"), ("typed", "id"), ("waits", "id"),
        ],
    ),
    "unknown_types_postgres.sql": (
        ["texts"],
        [
            ("odd", "Mood", "texts.mood", False), ("odd", "at", "inet", False), ("odd", "bytes", "bytea", False),
            ("odd", "id", "uuid", False), ("odd", "key", "texts.key", False), ("odd", "name", "name", True),
            ("odd", "number", "texts.number", False), ("odd", "sums", "real[]", False),
            ("odd", "words", "texts.word[]", False),
        ],
    ),
    "primary_keys_postgres.sql": (["odd"], [("keyed", "id"), ("keyed", "n"), ("staged", "id"), ("waits", "id")]),
    "sampled_columns_postgres.sql": (
        ["odd", "keyed"], [("id", 'text COLLATE "C"'), ("n", "bigint"), ("note", "character varying(5)")],
    ),
    "stored_tables_postgres.sql": (
        ["staging", "odd"],
        [
            ("bare", None, True, False, {"one": "integer"}), ("kept", None, True, False, {"id": "text"}),
            ("keyed", ["id", "n"], True, False, {"id": "text", "n": "bigint", "note": "character varying"}),
            ("parts", None, True, True, {"id": "text"}),
            (
                "plain", None, True, False,
                {
                    "id": "text", "at": "timestamp with time zone", "ok": "boolean", "few": "character",
                    "blank": "character",
                },
            ),
            ("seen", None, True, False, {"note": "character varying", "n": "bigint"}),
            ("staged", ["id"], True, True, {"id": "text", "other": "text"}),
            ("staged", ["other"], True, True, {"id": "text", "other": "text"}),
            ("typed", ["id"], True, False, {"id": "text", "price": "numeric"}),
            ("waits", ["id"], False, True, {"id": "text"}),
        ],
    ),
    "table_names_postgres.sql": (
        ["named"],
        [
            ("Half", "other"), ("both", "other"), ("by_both", "other"), ("dated", "other"), ("kept", "view"),
            ("mood", "other"), ("numbered", "other"), ("numbers", "other"), ("opened", "messages"),
            ("opened_earlier", "messages"), ("opened_there", "other"), ("renamed", "other"), ("seen", "view"),
            ("words", "other"),
        ],
    ),
    "unidentified_rows_postgres.sql": (["published"], [("deleted",), ("plain",)]),
    "view_comments_postgres.sql": (
        ["odd"],
        [
            ("bare", ""), ("kept", None), ("keyed", None), ("parts", None), ("plain", None), ("seen", "a view"),
            ("staged", None), ("typed", None), ("waits", None),
        ],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def odd(postgresql: Postgres) -> Iterator[str]:
    with postgresql.database() as url:
        rows(url, ODD)
        yield url
        rows(url, "DROP OWNED BY sql_reader; DROP ROLE sql_reader")


def rows(url: str, sql: str, values: Sequence[str] | Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as server, server, server.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


def _without_objects(row: tuple[Any, ...]) -> str:
    """Returns what to sort a row by; PostgreSQL has an order of its own for the keys of an object."""
    return str([cell for cell in row if not isinstance(cell, dict)])


@pytest.mark.parametrize("name", FOUND)
def test_postgresql_gives_whole_rows(odd: str, name: str) -> None:
    values, expected = FOUND[name]
    # The order of an index's columns is not fixed.
    found = [
        tuple(sorted(cell) if isinstance(cell, list) else cell for cell in row)
        for row in rows(odd, sql_file(name), values)
    ]
    assert sorted(found, key=_without_objects) == sorted(expected, key=_without_objects)
    if "ORDER BY" in sql_file(name):
        assert found == expected


def test_postgresql_refuses_a_table_with_a_name_that_is_told(odd: str) -> None:
    """Except names of array types, which PostgreSQL then renames."""
    told = [name for name, _ in FOUND["table_names_postgres.sql"][1]]
    refused = []
    with closing(psycopg2.connect(odd)) as server, server.cursor() as cursor:
        for name in (*told, "_opened", "_mood"):
            try:
                cursor.execute(f'CREATE TABLE named."{name}" (n int)')
            except (psycopg2.errors.DuplicateTable, psycopg2.errors.DuplicateObject):
                refused.append(name)
            server.rollback()
    assert refused == told


def test_a_role_is_told_the_tables_that_it_may_not_read(odd: str) -> None:
    unreadable = sql_file("unreadable_tables_postgres.sql")
    assert rows(odd, unreadable, ["odd"]) == []
    role = re.sub(r"//.*@", "//sql_reader:secret@", odd)
    tables = ["parts", "plain", "staged", "typed", "waits"]
    assert rows(role, unreadable, ["odd"]) == [(name,) for name in tables]
    assert rows(role, sql_file("primary_keys_postgres.sql"), ["odd"]) == FOUND["primary_keys_postgres.sql"][1]


def test_columns_come_in_their_order(odd: str) -> None:
    found = rows(odd, sql_file("columns_postgres.sql").replace("$1", "%s"), ["odd"])
    assert [row for row in found if row[0] in ("keyed", "seen")] == [
        ("keyed", "n", "bigint"), ("keyed", "id", "text"), ("keyed", "note", "character varying"),
        ("seen", "note", "character varying"), ("seen", "n", "bigint"),
    ]  # fmt: skip
    assert [row[0] for row in found] == sorted(row[0] for row in found)


LOCK, WAIT = "LOCK TABLE odd.typed", "SELECT FROM odd.keyed, odd.typed"
ROW = "SELECT FROM odd.keyed WHERE n = 1 FOR UPDATE"
HOLDER = ("postgres", "", "127.0.0.1", "idle in transaction")


@pytest.mark.parametrize(
    ("held", "wanted", "prepared", "told"),
    [
        (LOCK, WAIT, False, ("odd.typed", *HOLDER)),
        (ROW, ROW, False, (None, *HOLDER)),  # waits for another transaction, not for a table
        (LOCK, WAIT, True, ("odd.typed", None, None, None, None)),  # the process is unknown
    ],
)
def test_who_holds_a_lock_is_told(odd: str, held: str, wanted: str, prepared: bool, told: tuple[str | None]) -> None:
    blocking = sql_file("blocking_postgres.sql")
    with (
        closing(psycopg2.connect(odd)) as holder,
        closing(psycopg2.connect(odd)) as waiter,
        ThreadPoolExecutor() as pool,
    ):
        assert rows(odd, blocking, {"pid": waiter.info.backend_pid}) == []
        process = 0 if prepared else holder.info.backend_pid
        holder.tpc_begin("held")
        holder.cursor().execute(held)
        if prepared:
            holder.tpc_prepare()
        waiting = pool.submit(waiter.cursor().execute, wanted)
        try:
            wait_for(lambda: rows(odd, blocking, {"pid": waiter.info.backend_pid}))
            [(table, pid, *who)] = rows(odd, blocking, {"pid": waiter.info.backend_pid})
            assert (pid, table, *who) == (process, *told)
        finally:
            holder.tpc_rollback()
            waiting.result(30)


# ---- DuckDB ----------------------------------------------------------------------------------------------------------

ODD_DUCKDB = """
CREATE SCHEMA odd; CREATE SCHEMA other;
CREATE TABLE odd.keyed (n BIGINT DEFAULT 5, id VARCHAR, note VARCHAR NOT NULL, PRIMARY KEY (id, n), UNIQUE (note));
CREATE TABLE odd.plain (id VARCHAR UNIQUE, n BIGINT CHECK (n > 0));
CREATE TABLE other.keyed (id VARCHAR PRIMARY KEY);
CREATE VIEW odd.seen AS SELECT note FROM odd.keyed;
CREATE VIEW odd.bare AS SELECT id FROM odd.plain;
CREATE VIEW other.shown AS SELECT note FROM odd.keyed;
CREATE INDEX by_id ON odd.plain (id);
CREATE SEQUENCE odd.numbers START 7;
CREATE MACRO odd.twice(a) AS a * 2;
CREATE TYPE odd.mood AS ENUM ('sad', 'ok');
COMMENT ON TABLE odd.keyed IS 'a table'; COMMENT ON COLUMN odd.keyed.note IS 'a column';
COMMENT ON VIEW odd.seen IS 'a view'; COMMENT ON TABLE other.keyed IS 'another table';
COMMENT ON COLUMN other.keyed.id IS 'another column'; COMMENT ON VIEW other.shown IS 'another view';
"""


@pytest.fixture(scope="module")
def odd_duckdb() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that is attached next to another one with almost the same content."""
    with duckdb.connect() as con:
        con.execute("ATTACH ':memory:' AS odd_file; ATTACH ':memory:' AS beside")
        beside = ODD_DUCKDB.replace("plain", "flat").replace("IS 'a", "IS 'its")
        con.execute(f"USE beside.main; {beside}; CREATE TABLE odd.apart (id VARCHAR PRIMARY KEY)")
        con.execute(f"USE odd_file.main; {ODD_DUCKDB}")
        yield con


def of_duckdb(con: duckdb.DuckDBPyConnection, name: str) -> list[tuple[Any, ...]]:
    sql = sql_file(name).format(
        constraints="information_schema.table_constraints", key_columns="information_schema.key_column_usage"
    )
    return con.execute(sql.replace("%s", "'odd'")).fetchall()


def test_duckdb_gives_the_comments_of_its_own_schema(odd_duckdb: duckdb.DuckDBPyConnection) -> None:
    assert sorted(of_duckdb(odd_duckdb, "comments_duckdb.sql"), key=str) == [
        ("keyed", "note", "a column"), ("keyed", None, "a table"), ("seen", None, "a view"),
    ]  # fmt: skip
    assert sorted(of_duckdb(odd_duckdb, "view_comments_duckdb.sql")) == [
        ("bare", ""), ("keyed", None), ("plain", None), ("seen", "a view"),
    ]  # fmt: skip


def test_duckdb_gives_the_names_of_tables_of_messages_of_views_and_of_other_tables() -> None:
    with duckdb.connect() as con:
        con.execute("ATTACH ':memory:' AS beside; CREATE SCHEMA beside.odd; CREATE SCHEMA odd; CREATE SCHEMA other")
        for schema in ("beside.odd", "other"):
            con.execute(f"CREATE TABLE {schema}.bounced (id VARCHAR, received_at TIMESTAMP)")
            con.execute(f"CREATE VIEW {schema}.seen_there AS FROM {schema}.bounced")
        con.execute("""
            CREATE TABLE odd.opened (id VARCHAR, received_at TIMESTAMP WITH TIME ZONE);
            CREATE TABLE odd.Clicked ("Received_At" TIMESTAMP, n BIGINT, "ID" VARCHAR);
            CREATE TABLE odd.half (id VARCHAR);
            CREATE TABLE odd.numbered (id BIGINT, received_at TIMESTAMP);
            CREATE TABLE odd.dated (id VARCHAR, received_at DATE);
            CREATE TABLE odd.renamed (name VARCHAR, time TIMESTAMP);
            CREATE TABLE odd.bounced (n BIGINT);
            CREATE VIEW odd.Seen AS FROM odd.opened;
            CREATE TABLE odd.gone (id VARCHAR); CREATE VIEW odd.stale AS FROM odd.gone; DROP TABLE odd.gone;
            CREATE SEQUENCE odd.numbers; CREATE TYPE odd.mood AS ENUM ('sad'); CREATE INDEX by_id ON odd.opened (id)
        """)
        assert sorted(of_duckdb(con, "table_names_duckdb.sql")) == [
            ("bounced", "other"), ("clicked", "messages"), ("dated", "other"), ("half", "other"),
            ("numbered", "other"), ("opened", "messages"), ("renamed", "other"), ("seen", "view"),
            ("stale", "view"),
        ]  # fmt: skip


def test_duckdb_gives_the_primary_keys_of_its_own_schema_in_their_order(odd_duckdb: duckdb.DuckDBPyConnection) -> None:
    assert of_duckdb(odd_duckdb, "primary_keys_duckdb.sql") == [("keyed", "id"), ("keyed", "n")]


def test_information_schema_gives_primary_keys_in_their_order() -> None:
    with duckdb.connect() as con:
        con.execute(ODD_DUCKDB)
        assert of_duckdb(con, "primary_keys.sql") == [("keyed", "id"), ("keyed", "n")]


def test_all_but_the_rows_of_a_duckdb_file_is_told(odd_duckdb: duckdb.DuckDBPyConnection) -> None:
    found = odd_duckdb.execute(sql_file("schema_duckdb.sql"), {"name": "odd_file"}).fetchall()
    kinds = {kind: sorted((name, what) for of, name, what in found if of == kind) for kind, _, _ in found}
    column = [None, "1", "VARCHAR", None, "true"]
    assert [(name, what[0]) for name, what in kinds["table"]] == [
        ("odd.keyed", "a table"), ("odd.plain", None), ("other.keyed", "another table"),
    ]  # fmt: skip
    assert kinds["column"] == [
        ("odd.bare.id", column),
        ("odd.keyed.id", [None, "2", "VARCHAR", None, "false"]),
        ("odd.keyed.n", [None, "1", "BIGINT", "5", "false"]),
        ("odd.keyed.note", ["a column", "3", "VARCHAR", None, "false"]),
        ("odd.plain.id", column),
        ("odd.plain.n", [None, "2", "BIGINT", None, "true"]),
        ("odd.seen.note", column),
        ("other.keyed.id", ["another column", "1", "VARCHAR", None, "false"]),
        ("other.shown.note", column),
    ]
    assert [(name, what[:2]) for name, what in kinds["index"]] == [("odd.by_id", [None, "plain"])]
    assert [(name, what[0]) for name, what in kinds["view"]] == [
        ("odd.bare", None), ("odd.seen", "a view"), ("other.shown", "another view"),
    ]  # fmt: skip
    assert [(name, what[:3]) for name, what in kinds["sequence"]] == [("odd.numbers", [None, "7", None])]
    assert kinds["macro"] == [("odd.twice", [None, "[a]", "(a * 2)"])]
    assert kinds["type"] == [("odd.mood", [None, "ENUM", "[sad, ok]"])]
    assert [name for name, _ in kinds["schema"]] == ["odd", "other"]
    assert all("SELECT" in what[1] for _, what in kinds["view"])
    assert all("CREATE TABLE" in what[1] for _, what in kinds["table"])
    assert len(found) == sum(map(len, kinds.values())) == 3 + 9 + 1 + 3 + 1 + 1 + 1 + 2
