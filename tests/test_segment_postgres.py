"""PostgreSQL's tables have Segment's types and keys, so SQL for Segment's runs (docs/contract/warehouse.md#types)."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from typing import Any, NamedTuple, cast

import dlt
import psycopg2
import pyarrow as pa
import pytest
from adbc_driver_manager import AdbcConnection, AdbcDatabase
from dlt import Schema
from dlt.destinations import postgres as dlt_postgres
from dlt.load import Load
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.sources import DltSource

import autopilothq
from autopilothq import catalog
from autopilothq.catalog import LOCKS
from autopilothq.errors import RunError
from autopilothq.sources import resources
from autopilothq.warehouses import postgres_adbc, postgres_copies, postgres_waits
from autopilothq.warehouses.dlt_internals.clients import client_for
from autopilothq.warehouses.native import SEGMENT_TABLE_HINT
from autopilothq.warehouses.postgres import postgres as segment_postgres
from calling import Call
from contract.loading import Line, identify, message, raw, write
from servers import Postgres
from shared_loads import command, isolation

# Every column with its type and nullability, the keys and the indexes, as psql's \d shows them.
DESCRIBED = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, NULL
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind = 'r' AND a.attnum > 0
    UNION ALL SELECT c.relname, o.contype::text, pg_get_constraintdef(o.oid), NULL, NULL
    FROM pg_class c JOIN pg_constraint o ON o.conrelid = c.oid
    WHERE c.relnamespace = %(schema)s::regnamespace AND o.contype <> 'n'
    UNION ALL SELECT tablename, indexname, replace(indexdef, schemaname || '.', ''), NULL, NULL
    FROM pg_indexes WHERE schemaname = %(schema)s
    ORDER BY 1, 2, 3"""


def query(url: str, sql: str, **values: Any) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as server, server, server.cursor() as cursor:
        cursor.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else []


def described(url: str, schema: str = "autopilothq") -> dict[str, list[tuple[Any, ...]]]:
    tables: dict[str, list[tuple[Any, ...]]] = {}
    for table, *what in query(url, DESCRIBED, schema=schema):
        if not table.startswith(("_dlt_", LOCKS)):
            tables.setdefault(table, []).append(tuple(what))
    return tables


def load(call: Call, url: str, *more: str) -> None:
    said = call("load", "archive", "archive", "--destination", "postgres", "--credentials", url, *more)
    assert said.status == 0, said.err


def order(id_: str, **numbers: str) -> str:
    """Returns an order whose properties are these JSON numbers."""
    return event("Order Completed", id_, **numbers)


def event(name: str, id_: str, **numbers: str) -> str:
    properties = {key: f"${key}" for key in numbers}
    return raw(message(name, messageId=id_, properties=properties), **numbers)


EVERY_KIND: list[Line] = [
    *(message(event.name, messageId=event.table) for event in catalog.EVENTS),
    *(message(None, type=kind, messageId=kind, event=..., groupId="g", previousId="p") for kind, *_ in catalog.KINDS),
    "no JSON",
]


class Made(NamedTuple):
    """A database with a message of every type, and the number of connections being opened or closed at each time."""

    url: str
    under_way: list[int]


@pytest.fixture(scope="module")
def made(postgresql: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Makes a load with connections that are slow to open and to close."""
    under_way: list[int] = []
    seen: list[int] = []

    class Slow(AdbcConnection):
        def __init__(self, database: AdbcDatabase) -> None:
            with self.counted():
                super().__init__(database)

        def close(self) -> None:
            with self.counted():
                super().close()

        @staticmethod
        @contextmanager
        def counted() -> Iterator[None]:
            under_way.append(1)
            time.sleep(0.01)
            seen.append(len(under_way))
            yield
            under_way.pop()

    with postgresql.database() as url:
        with isolation(tmp_path_factory.mktemp("made")), pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(postgres_adbc, "AdbcConnection", Slow)
            write("1.ndjson", *EVERY_KIND)
            load(command, url)
        yield Made(url, seen)


def test_connections_that_copy_are_opened_and_closed_one_at_a_time(made: Made) -> None:
    """The driver counts them without a lock, so closing two at the same time fails."""
    assert len(made.under_way) > 20
    assert set(made.under_way) == {1}


def test_the_printed_statements_are_those_that_make_the_tables(call: Call, made: Made) -> None:
    postgres = made.url
    call("forget", "--user-id", "nobody", "--destination", "postgres", "--credentials", postgres)
    printed = call("schema", "--format", "sql", "--destination", "postgres", "--dataset", "printed").out
    query(postgres, printed)
    tables, said = described(postgres), described(postgres, "printed")
    # An archive does not fill the tables of an account and of requests for profiles.
    account = {each.name for each in (*catalog.ACCOUNT, *catalog.ORTTO_ACCOUNT)}
    assert said.keys() - tables.keys() == {"_profiles", "_deliveries", "_deliveries_ortto", "_forwards", *account}
    assert {table: said[table] for table in tables} == tables
    assert ("p", "PRIMARY KEY (id)", None, None) in tables["tracks"]
    assert ("p", "PRIMARY KEY (file, version)", None, None) in tables["_audit"]
    indexed = {table for table, what in tables.items() if any("(received_at)" in str(line[1]) for line in what)}
    assert indexed == {table for table, what in tables.items() if any(line[0] == "received_at" for line in what)}
    assert {"tracks", "email_opened", "users", "accounts", "pages", "_discards"} <= indexed


NUMBERS = [
    "0.1",
    "0.2",
    "5358.69",
    "-7.25",
    "1.10",
    "1e-7",
    "123456789.123456789",
    "0.12345678901234567",
    "1e300",
    "-0.0",
]


TAKEN = """CREATE SEQUENCE autopilothq.ticket; CREATE TYPE autopilothq.mood AS ENUM ('good');
    CREATE MATERIALIZED VIEW autopilothq.seen AS SELECT 1 AS n; CREATE INDEX shoe ON autopilothq.tracks (event);
    CREATE TABLE autopilothq.bill (id int, received_at timestamptz);
    CREATE TABLE autopilothq.receipt (id text NOT NULL, received_at timestamptz, total int NOT NULL);
    CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none;
    CREATE FOREIGN TABLE autopilothq.abroad (id text, received_at timestamptz) SERVER far"""
NAMES_TAKEN = ["Abroad", "Ticket", "Mood", "Seen", "Shoe", "Bill", "Receipt", "Late Pkey", "Tracks Received At Idx"]


def test_numbers_are_exact_and_segments_sql_runs(call: Call, postgres: str) -> None:
    query(postgres, f"ALTER DATABASE {postgres.rpartition('/')[2]} SET timezone = 'Asia/Tokyo'")
    lines = [order(f"m{n}", revenue=number, total="7.5") for n, number in enumerate(NUMBERS)]
    last = "9999-12-31T23:59:59Z"  # in Tokyo in a year that the driver does not have
    person = identify(messageId="i1", traits={"ltv": 5358.99, "name": "Ada", "age": 40, "until": last})
    write("1.ndjson", *lines, person, event("Order Changed", "c1", revenue="0.1", n="1"))
    load(call, postgres)
    # A second load, of another version of the file, has duplicates, new rows, a new column and a person's new value.
    # Staging is created again, because somebody changed a column's type.
    query(postgres, f"ALTER TABLE autopilothq.order_changed ALTER COLUMN n TYPE varchar; {TAKEN}")
    write(
        "1.ndjson", *lines[:2], order("n1", revenue="2", tax="0.07"),
        message("Late", messageId="l", properties={"f": 0.3}),
        identify(messageId="i2", receivedAt="2020-01-01T00:00:00Z", traits={"plan": "pro"}),
        event("Order Changed", "c2", revenue="0.2", n="2"),
        *(message(name, messageId=name) for name in NAMES_TAKEN),
    )  # fmt: skip
    load(call, postgres)
    assert query(postgres, "SELECT count(*), count(DISTINCT file) FROM autopilothq._audit") == [(2, 1)]
    # Names of events are taken by other objects in the schema, or by an index of a table that this load creates.
    tables = [f"{name.replace(' ', '_').lower()}_table" for name in NAMES_TAKEN]
    assert query(postgres, " UNION ALL ".join(f"SELECT id FROM autopilothq.{table}" for table in tables)) == [
        (name,) for name in NAMES_TAKEN
    ]
    assert query(postgres, "SELECT id, revenue, n FROM autopilothq.order_changed ORDER BY id") == [
        ("c1", Decimal("0.1"), "1"), ("c2", Decimal("0.2"), "2"),
    ]  # fmt: skip
    rows = query(postgres, "SELECT revenue FROM autopilothq.order_completed ORDER BY id")
    assert [row[0] for row in rows] == [*(Decimal(repr(float(number))) for number in NUMBERS), Decimal(2)]
    asked = """SELECT round(sum(o.revenue), 2), max(mod(o.total, 5)), sum(o.tax) FROM autopilothq.order_completed o
        WHERE o.revenue BETWEEN 0.1 AND 6000"""
    assert query(postgres, asked) == [(Decimal("5362.21"), Decimal("2.5"), Decimal("0.07"))]
    asked = """SELECT u.id, u.name, u.ltv, u.age, u.plan, count(*) FROM autopilothq.users u
        JOIN autopilothq.identifies i ON i.user_id = u.id GROUP BY u.id"""
    assert query(postgres, asked) == [("u1", "Ada", Decimal("5358.99"), 40, "pro", 2)]
    assert numeric(postgres) == {
        ("identifies", "ltv"), ("late", "f"), ("order_changed", "revenue"), ("order_completed", "revenue"),
        ("order_completed", "tax"),
        ("order_completed", "total"), ("users", "ltv"),
    }  # fmt: skip
    live = call("schema", "--live", "late", "--format", "json", "--destination", "postgres", "--credentials", postgres)
    column = json.loads(live.out)["tables"]["late"]["columns"]["f"]
    assert (column["data_type"], column["x-native-type"]) == ("double", "numeric")
    # dlt's own destination can continue with these tables, although it rounds to 15 digits.
    before = described(postgres)
    write("3.ndjson", lines[0], order("n2", revenue="0.3"), identify(messageId="i3", traits={"name": "Eve", "age": 41}))
    pipeline(dlt_postgres(postgres)).run(autopilothq.archive("archive"))
    assert described(postgres) == before
    sql = "SELECT id, revenue FROM autopilothq.order_completed WHERE id IN ('m0', 'n2') ORDER BY id"
    assert query(postgres, sql) == [("m0", Decimal("0.1")), ("n2", Decimal("0.3"))]
    sql = "SELECT ltv, plan, (until AT TIME ZONE 'UTC')::text FROM autopilothq.users"
    assert query(postgres, sql) == [(Decimal("5358.99"), "pro", "9999-12-31 23:59:59")]


def numeric(url: str, type_: str = "numeric") -> set[tuple[str, str]]:
    sql = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'autopilothq'"
    return set(query(url, f"{sql} AND data_type = %(type)s", type=type_))


def opened() -> DltSource:
    """A load of the archive into only `email_opened` and `tracks`, because each table takes time."""
    return autopilothq.archive("archive").with_resources("email_opened", "tracks", "_audit", "_discards", "_rejects")


def pipeline(destination: Any) -> dlt.Pipeline:
    return dlt.pipeline("autopilot_events", destination=destination, dataset_name="autopilothq")


def test_tables_that_an_earlier_version_made_stay_as_they_are(call: Call, postgres: str) -> None:
    write("1.ndjson", *EVERY_KIND, *(order(f"m{n}", revenue=number) for n, number in enumerate(NUMBERS)))
    pipeline(dlt_postgres(postgres)).run(autopilothq.archive("archive"))  # creates tables like earlier versions
    before = described(postgres)
    assert not any(what[0] == "p" for table in before.values() for what in table)
    write(
        "2.ndjson", order("m1", revenue="0.2"), order("n1", revenue="0.3"),
        message("Late", messageId="l", properties={"f": 1.5}),
        identify(messageId="i2", traits={"plan": "pro"}),
    )  # fmt: skip
    load(call, postgres)
    after = described(postgres)
    changed = {table: set(after[table]) - set(before.get(table, ())) for table in after}
    plan = ("plan", "character varying", False, None)
    assert {table: what for table, what in changed.items() if what and table != "late"} == {
        "identifies": {plan}, "users": {plan},
    }  # fmt: skip
    assert ("p", "PRIMARY KEY (id)", None, None) in after["late"]
    rows = query(postgres, "SELECT revenue FROM autopilothq.order_completed ORDER BY id")
    assert [row[0] for row in rows] == [*map(float, NUMBERS), 0.3]
    assert numeric(postgres) == {("late", "f")}
    assert numeric(postgres, "double precision") == {("order_completed", "revenue")}


def test_a_view_with_the_name_of_a_table_is_refused(postgres: str) -> None:
    def tables() -> list[Any]:
        return query(postgres, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'autopilothq'")

    write("1.ndjson", message("Email Opened", messageId="m"))
    query(postgres, "CREATE SCHEMA autopilothq")
    query(postgres, "CREATE VIEW autopilothq.tracks AS SELECT 'm'::text AS id")
    expected = (
        "Expected tracks in the dataset autopilothq to be a table, because rows are loaded into it, but it is a view"
    )
    with pytest.raises(PipelineStepFailed, match=expected):
        pipeline(dlt_postgres(postgres)).run(opened())
    assert tables() == [("tracks",)]

    # A materialized view is refused too, and a view in place of a table that a load had created.
    query(postgres, "DROP VIEW autopilothq.tracks")
    query(postgres, "CREATE MATERIALIZED VIEW autopilothq.tracks AS SELECT 'm'::text AS id")
    with pytest.raises(PipelineStepFailed, match=expected):
        pipeline(dlt_postgres(postgres)).run(opened())
    query(postgres, "DROP MATERIALIZED VIEW autopilothq.tracks")
    pipeline(dlt_postgres(postgres)).run(opened())
    query(postgres, "ALTER TABLE autopilothq.tracks RENAME TO mine")
    query(postgres, "CREATE VIEW autopilothq.tracks AS SELECT id FROM autopilothq.mine")
    write("2.ndjson", message("Email Opened", messageId="n"))
    before = tables()
    with pytest.raises(PipelineStepFailed, match=expected):
        pipeline(dlt_postgres(postgres)).run(opened())
    assert (tables(), query(postgres, "SELECT id FROM autopilothq.mine")) == (before, [("m",)])


def counted(url: str, tables: list[str]) -> dict[str, int]:
    """Returns the number of rows of each table."""
    counts = (f"SELECT '{table}', count(*) FROM autopilothq.{table}" for table in tables)
    return dict(query(url, " UNION ALL ".join(counts)))


class Twice(NamedTuple):
    """A database into which every file was copied twice: its state after the load, and after replacing all tables."""

    url: str
    staged: set[str]
    described: list[dict[str, list[tuple[Any, ...]]]]
    counts: list[dict[str, int]]


@pytest.fixture(scope="module")
def twice(postgresql: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twice]:
    """Makes a load that copies each file twice, as after a kill between the copy and its record."""
    run = postgres_copies.PostgresCopyJob.run

    def run_twice(self: postgres_copies.PostgresCopyJob) -> None:
        run(self)
        run(self)

    with postgresql.database() as url:
        with isolation(tmp_path_factory.mktemp("twice")), pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(postgres_copies.PostgresCopyJob, "run", run_twice)
            key = "id char(40) PRIMARY KEY"  # which adds blanks to values
            query(url, f"CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.pages ({key}, received_at timestamptz)")
            write("1.ndjson", *EVERY_KIND, order("m1", revenue="0.1"))
            into = pipeline(segment_postgres(url))
            into.run(autopilothq.archive("archive"))
            staged = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'autopilothq_staging'"
            found = Twice(url, {name for (name,) in query(url, staged)}, [described(url)], [])
            tables = [table for table in found.described[0] if table != "_suppressions"]
            found.counts.append(counted(url, tables))
            into.run(autopilothq.archive("archive"), write_disposition="replace")
            found.described.append(described(url))
            found.counts.append(counted(url, tables))
        yield found


def test_rows_that_came_into_staging_twice_are_stored_once(twice: Twice) -> None:
    first, replaced = twice.counts
    assert first == {table: first[table] and 1 for table in first} | {"tracks": 8}
    # After replacing all tables with the same rows, keys and types are unchanged.
    assert twice.described[1] == twice.described[0]
    assert replaced == first
    assert query(twice.url, "SELECT revenue FROM autopilothq.order_completed") == [(Decimal("0.1"),)]


def test_messages_go_past_staging(twice: Twice) -> None:
    # Only the books, replaced rows, and tables with decimal numbers go through staging.
    assert twice.staged == {
        "_audit", "_discards", "_dlt_version", "_rejects", "accounts", "order_completed", "users",
    }  # fmt: skip


def test_the_index_is_a_setting(call: Call, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__INDEX_RECEIVED_AT", "false")
    write("1.ndjson", message())
    load(call, postgres)
    definitions = [line[1] for table in described(postgres).values() for line in table if "INDEX" in str(line[1])]
    assert definitions
    assert not [definition for definition in definitions if "received_at" in definition]
    printed = call("schema", "tracks", "--format", "sql", "--destination", "postgres").out
    assert "INDEX" not in printed


def test_a_connection_that_breaks_at_once_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    class Broken:
        def __init__(self, _: object) -> None: ...

        def set_autocommit(self, _: bool) -> None:
            raise ConnectionError("broken off")

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(postgres_adbc, "AdbcConnection", Broken)
    monkeypatch.setattr(postgres_adbc, "_database", lambda _: None)
    with pytest.raises(ConnectionError, match="broken off"):
        postgres_adbc.SharedConnection("postgresql://")
    assert closed == [True]


def test_rows_that_a_users_step_doubles_are_stored_once(postgres: str, caplog: pytest.LogCaptureFixture) -> None:
    write("1.ndjson", *(message(messageId=f"m{number}") for number in range(3)))
    into = pipeline(segment_postgres(postgres))
    doubled = opened()
    doubled.resources["tracks"].add_map(lambda rows: pa.concat_tables([rows, rows]))
    before = set(threading.enumerate())
    into.run(doubled)
    for thread in set(threading.enumerate()) - before:  # each would ask the server forever what it waits for
        thread.join(5)
        assert not thread.is_alive()
    rows = query(postgres, "SELECT id, event FROM autopilothq.tracks ORDER BY id")
    assert rows == [(f"m{number}", "email_opened") for number in range(3)]
    assert query(postgres, "SELECT count(*) FROM autopilothq.email_opened") == [(3,)]
    assert query(postgres, "SELECT count(*) FROM autopilothq._discards") == [(0,)]
    slow = "For data items in `{}` yielded as arrow: this will degrade performance."  # dlt's own warning
    for table in ("mine", "_rejects"):  # the user's own table has rows
        logging.getLogger("dlt").warning(slow.format(table))
    assert caplog.messages == [slow.format("mine")]


def test_a_users_own_tables_are_loaded_as_by_dlt(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'autopilothq_staging'"
    for n in (1, 2):
        rows = [{"id": 1, "n": n, "parts": [{"m": n}]}]
        merged = dlt.resource(rows, name="merged", primary_key="id", write_disposition="merge")
        replaced = dlt.resource(rows, name="replaced", write_disposition="replace")
        pipeline(segment_postgres(postgres)).run([merged, replaced])
        assert {name for (name,) in query(postgres, staged)} == {
            "_dlt_version", "merged", "merged__parts", *(("replaced", "replaced__parts") if n == 2 else ()),
        }  # fmt: skip
        for table in ("merged", "replaced"):
            found = f"SELECT (SELECT array_agg(n) FROM {{}}.{table}), (SELECT array_agg(m) FROM {{}}.{table}__parts)"
            assert query(postgres, found.format(*["autopilothq"] * 2)) == [([n], [n])]
        monkeypatch.setenv("DESTINATION__REPLACE_STRATEGY", "insert-from-staging")


def test_a_load_of_an_earlier_version_is_completed_from_staging(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier version had copied its rows into staging and was killed before it merged them."""
    write("1.ndjson", *(message(messageId=f"m{number}") for number in range(3)))
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")
    into = pipeline(segment_postgres(postgres))

    def killed(*_: Any) -> None:
        raise ConnectionError("killed")

    with monkeypatch.context() as earlier:
        earlier.setattr(resources, "TABLE_HINTS", {SEGMENT_TABLE_HINT: True})
        earlier.setattr("dlt.destinations.job_client_impl.SqlLoadJob.run", killed)
        with pytest.raises(PipelineStepFailed):
            into.run(opened())
    count = "SELECT (SELECT count(*) FROM autopilothq{}.tracks), (SELECT count(*) FROM autopilothq{}.email_opened)"
    assert query(postgres, count.format("", "")) == [(0, 0)]
    assert query(postgres, count.format("_staging", "_staging")) == [(3, 3)]
    into.run()
    assert query(postgres, count.format("", "")) == [(3, 3)]
    write("2.ndjson", message(messageId="m4"))
    into.run(opened())
    assert query(postgres, count.format("", "")) == [(4, 4)]


def test_what_is_in_staging_is_stored_although_an_index_was_made_since(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table had no index when its rows were copied into staging; the load was killed before it merged them."""
    write("1.ndjson", message(messageId="m1"))
    pipeline(segment_postgres(postgres)).run(opened())
    [(key,)] = query(
        postgres, "SELECT conname FROM pg_constraint WHERE conrelid = 'autopilothq.tracks'::regclass AND contype = 'p'"
    )
    query(postgres, f"ALTER TABLE autopilothq.tracks DROP CONSTRAINT {key}")
    write("2.ndjson", message(messageId="m2"))
    followed = Load.create_followup_jobs

    def killed(self: Load, load_id: str, state: Any, job: Any, schema: dlt.Schema) -> Any:
        if job.job_file_info().table_name == "tracks":
            raise ConnectionError("killed")
        return followed(self, load_id, state, job, schema)

    with monkeypatch.context() as first:
        first.setattr(Load, "create_followup_jobs", killed)
        with pytest.raises(PipelineStepFailed):
            pipeline(segment_postgres(postgres)).run(opened())
    ids = "SELECT string_agg(id, ' ' ORDER BY id) FROM autopilothq{}.tracks"
    assert (query(postgres, ids.format("")), query(postgres, ids.format("_staging"))) == ([("m1",)], [("m2",)])
    query(postgres, "ALTER TABLE autopilothq.tracks ADD UNIQUE (id)")
    pipeline(segment_postgres(postgres)).run()
    assert query(postgres, ids.format("")) == [("m1 m2",)]


@pytest.mark.parametrize(("columns", "is_staged"), [("n integer", True), ("n bigint, mine numeric DEFAULT 2", False)])
def test_a_column_of_a_smaller_type_is_filled_by_way_of_staging(postgres: str, columns: str, is_staged: bool) -> None:
    """A direct copy takes no value of a type other than the column's; columns that loads do not know do not matter."""
    query(postgres, "CREATE SCHEMA autopilothq")
    query(postgres, f"CREATE TABLE autopilothq.email_opened (id text PRIMARY KEY, received_at timestamptz, {columns})")
    write("1.ndjson", message(messageId="m1", properties={"n": 5}))
    pipeline(segment_postgres(postgres)).run(opened())
    assert query(postgres, "SELECT id, n FROM autopilothq.email_opened") == [("m1", 5)]
    assert query(postgres, "SELECT count(*) FROM autopilothq._rejects") == [(0,)]
    staged = query(postgres, "SELECT to_regclass('autopilothq_staging.email_opened') IS NOT NULL")
    assert staged == [(is_staged,)]


def test_settings_of_sessions_that_a_pooler_drops(
    postgres: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """PgBouncer drops them if it is told to ignore them; otherwise it refuses such connections."""
    monkeypatch.setattr(postgres_waits, "SESSION", "")
    for _ in range(2):  # like the query and the log of `send`
        client = cast(Any, client_for(pipeline(segment_postgres(postgres)), Schema("autopilothq"))).sql_client
        for _ in range(2):
            with client:
                pass
    [warning] = caplog.messages
    assert warning == (
        "A connection pooler drops the settings of sessions, so lock_timeout and statement_timeout are the server's."
        " To use yours, name the host and port of PostgreSQL itself in the credentials."
    )
    query(postgres, f"ALTER DATABASE {postgres.rpartition('/')[2]} SET extra_float_digits = 0")
    client = cast(Any, client_for(pipeline(segment_postgres(postgres)), Schema("autopilothq"))).sql_client
    for _ in range(2):
        with pytest.raises(RunError) as raised, client:
            pass
        assert str(raised.value) == (
            "A connection pooler drops the settings of sessions, and the server's own would change values:"
            " extra_float_digits = 0, quote_all_identifiers = off.\n"
            "Name the host and port of PostgreSQL itself in the credentials, or set extra_float_digits = 1 and"
            " quote_all_identifiers = off for the user (ALTER ROLE ... SET)."
        )
    left = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    for _ in range(50):  # a server process lives slightly longer than its connection
        if query(postgres, left) == [(0,)]:
            return
        time.sleep(0.1)
    pytest.fail("a connection that was refused is still open")
