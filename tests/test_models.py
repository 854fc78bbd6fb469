"""Each number of the models is what plain Python counts, on DuckDB and PostgreSQL; other dialects are parsed."""

import re
from collections.abc import Iterator
from contextlib import closing, nullcontext
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
import sqlglot

import counted_models as counted
import generate_dbt
import generate_docs
from autopilothq import InvalidSetting, models
from calling import Call
from contract.duck import held
from contract.loading import write
from servers import Postgres
from shared_loads import command, isolation

Row = dict[str, Any]
WHERE = ("duckdb", "postgres")
HOUR = timedelta(hours=1)
DIALECTS = ("redshift", "bigquery", "snowflake", "databricks", "clickhouse", "tsql", "mysql", "athena", "trino")


class Loaded:
    """The archive, loaded and with its models applied."""

    def __init__(self, kind: str, credentials: str) -> None:
        self.kind, self.credentials = kind, credentials
        self.target = ("--destination", kind, "--credentials", credentials)

    def rows(self, sql: str) -> list[Row]:
        if self.kind == "duckdb":
            with duckdb.connect(self.credentials) as con:
                con.execute("SET TimeZone = 'Pacific/Auckland'")  # days must be in UTC all the same
                found = con.execute(sql)
                return [dict(zip((d[0] for d in found.description), row, strict=True)) for row in found.fetchall()]
        with closing(psycopg2.connect(self.credentials)) as server, server, server.cursor() as cursor:
            cursor.execute("SET TimeZone = 'Pacific/Auckland'")
            cursor.execute(sql)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []


@pytest.fixture(scope="module", params=WHERE)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgresql: Postgres
) -> Iterator[Loaded]:
    folder = tmp_path_factory.mktemp(request.param)
    with isolation(folder), postgresql.database() as url:
        found = Loaded(request.param, url if request.param == "postgres" else str(folder / "events.duckdb"))
        write("1.ndjson", *counted.archive())
        with held(found.credentials) if request.param == "duckdb" else nullcontext():
            assert command("load", "archive", "archive", *found.target).status == 0
            said = command("models", "apply", *found.target)
        assert (said.status, said.out) == (0, "8 views in autopilothq_models: 8 created.\n"), said.err
        yield found


def comparable(rows: list[Row], key: tuple[str, ...]) -> list[Row]:
    return sorted(
        ({name: round(v, 9) if isinstance(v, float) else v for name, v in row.items()} for row in rows),
        key=lambda row: [(row[name] is None, str(row[name])) for name in key],
    )


@pytest.mark.parametrize("name", [name for name in models.BY_NAME if name not in ("person_timeline", "identities")])
def test_each_number_is_what_plain_python_counts(loaded: Loaded, name: str) -> None:
    model = models.BY_NAME[name]
    found = loaded.rows(f"SELECT * FROM autopilothq_models.{name}")
    expected = getattr(counted, name)(counted.stored(counted.archive()))
    assert comparable(found, model.key) == comparable(expected, model.key)


def test_the_timeline_has_every_message_once(loaded: Loaded) -> None:
    columns = "person, occurred_at, type, id, event_text, campaign_id, email_id, link_url"
    found = loaded.rows(f"SELECT {columns} FROM autopilothq_models.person_timeline")
    assert comparable(found, ("id",)) == comparable(counted.person_timeline(counted.stored(counted.archive())), ("id",))


def test_identities_are_joined_by_ids_that_messages_share(loaded: Loaded) -> None:
    found = comparable(loaded.rows("SELECT * FROM autopilothq_models.identities"), ("person",))
    assert found == comparable(counted.identities(counted.stored(counted.archive())), ("person",))
    rows = {row["person"]: row for row in found}
    ada = rows["ada@example.com"]
    assert (ada["identity"], ada["persons"], ada["joined_by"]) == (rows["u1"]["identity"], 3, "user id")
    assert rows["many3@example.com"]["joined_by"] == "nothing"
    assert rows["cleo@example.com"]["identity"] == rows["cleo-device"]["identity"]
    assert rows["abe@example.com"]["identity"] == "vic@example.com"


def test_a_load_works_with_the_views_present_and_status_tells_when_they_are_out_of_date(loaded: Loaded) -> None:
    status = command("status", *loaded.target)
    assert "models     8 views in autopilothq_models\n" in status.out
    late = {"event": "Email Delivered", "messageId": "late", "timestamp": "2024-04-01", "properties": {"price": 1.5}}
    new = {"type": "screen", "messageId": "new", "userId": "u2", "name": "Home"}
    write("2.ndjson", {"type": "track", "userId": "u2", **late}, new)
    assert command("load", "archive", "archive", *loaded.target).status == 0
    [day] = loaded.rows("SELECT * FROM autopilothq_models.daily WHERE day = DATE '2024-04-01'")
    assert (day["delivered"], day["people"]) == (1, 1)
    if loaded.kind == "postgres":  # its views fix the types of the columns that they read
        loaded.rows("ALTER TABLE autopilothq.email_delivered ALTER COLUMN price TYPE double precision")
        said = command("schema", "upgrade", *loaded.target)
        assert (said.status, "1 statement run" in said.out) == (0, True), said.err
    said = command("status", *loaded.target)
    assert "8 views in autopilothq_models; out of date: person_timeline, identities: run models apply\n" in said.out
    said = command("models", "apply", *loaded.target)
    assert (said.status, said.out) == (0, "8 views in autopilothq_models: 2 replaced, 6 unchanged.\n"), said.err
    screens = "SELECT name FROM autopilothq_models.person_timeline WHERE type = 'screen'"
    assert loaded.rows(screens) == [{"name": "Home"}]


def test_comments_reach_the_database(loaded: Loaded) -> None:
    if loaded.kind == "duckdb":
        column = (
            "SELECT comment FROM duckdb_columns() WHERE (schema_name, table_name, column_name) = ('{}', '{}', '{}')"
        )
        table = "SELECT comment FROM duckdb_tables() WHERE (schema_name, table_name) = ('{}', '{}')"
    else:
        column = (
            "SELECT col_description(attrelid, attnum) AS comment FROM pg_attribute"
            " WHERE attrelid = '{}.{}'::regclass AND attname = '{}'"
        )
        table = "SELECT obj_description('{}.{}'::regclass) AS comment"
    rates = models.BY_NAME["email_overview"].columns
    assert loaded.rows(table.format("autopilothq", "email_clicked")) == [
        {"comment": "Email Clicked: The recipient clicked a link in the email."}
    ]
    assert loaded.rows(column.format("autopilothq", "email_clicked", "link_url")) == [
        {"comment": "The URL of the link that was clicked."}
    ]
    assert loaded.rows(column.format("autopilothq", "_audit", "lines")) == [
        {"comment": "Its lines, blank ones not counted."}
    ]
    assert loaded.rows(column.format("autopilothq_models", "email_overview", "open_rate")) == [
        {"comment": rates["open_rate"]}
    ]
    loaded.rows("COMMENT ON COLUMN autopilothq.trial_extended.user_id IS 'ours'")
    loaded.rows("COMMENT ON TABLE autopilothq.daily IS 'Theirs, which the catalogue describes'")
    said = command("schema", "trial_extended", "--live", "--format", "markdown", *loaded.target)
    assert "An event other than Autopilot's seven; its properties are columns." in said.out


def test_the_queries_of_the_pages_run(loaded: Loaded) -> None:
    pages = "".join((generate_docs.DOCS / "how-to" / name).read_text() for name in ("query.md", "models.md"))
    blocks = [block for block in re.findall(r"```sql\n(.*?)```", pages, re.DOTALL) if "autopilothq_models" in block]
    queries = [query for block in blocks for query in block.split("\n\n")]
    assert len(queries) == 7
    assert all(isinstance(loaded.rows(query), list) for query in queries)


def test_a_dry_run_prints_statements_that_run(loaded: Loaded) -> None:
    said = command("models", "apply", "--dry-run", "--models-dataset", "printed", *loaded.target)
    loaded.rows(f"CREATE SCHEMA IF NOT EXISTS printed; {said.out}")
    said = command("models", "drop", "--models-dataset", "printed", *loaded.target)
    assert (said.status, said.out) == (0, "8 views dropped in printed.\n"), said.err


def test_a_schema_that_cannot_be_dropped_stays(loaded: Loaded) -> None:
    assert command("models", "apply", "--models-dataset", "shared", *loaded.target).status == 0
    loaded.rows("CREATE SEQUENCE shared.theirs")
    said = command("models", "drop", "--models-dataset", "shared", *loaded.target)
    assert (said.status, said.out) == (0, "8 views dropped in shared.\n"), said.err
    assert loaded.rows("SELECT nextval('shared.theirs') AS value") == [{"value": 1}]


def test_what_others_made_is_left_alone(loaded: Loaded) -> None:
    loaded.rows("CREATE VIEW autopilothq_models.theirs AS SELECT 1 AS one")
    said = command("models", "drop", *loaded.target)
    assert (said.status, said.out) == (0, "8 views dropped in autopilothq_models.\n"), said.err
    assert loaded.rows("SELECT * FROM autopilothq_models.theirs") == [{"one": 1}]
    loaded.rows("CREATE TABLE autopilothq_models.daily AS SELECT 1 AS one")
    loaded.rows("CREATE VIEW autopilothq_models.identities AS SELECT 1 AS one")
    said = command("models", "apply", *loaded.target)
    assert said.status == 1
    assert said.err == (
        "Error: Expected no table or view in autopilothq_models that has the name of a model and was not made by this"
        " command, but found identities, daily.\n"
        "Rename or drop what is not needed, or name another dataset: --models-dataset NAME\n"
    )
    said = command("models", "apply", "--models-dataset", "autopilothq", *loaded.target)
    assert (said.status, said.err.partition(":")[0]) == (1, "Error")
    assert "Expected a dataset for the models alone, but autopilothq has the tables of loads" in said.err
    if loaded.kind == "postgres":
        return
    said = command("models", "apply", "--models-dataset", "marts", *loaded.target)
    assert (said.status, said.out) == (0, "8 views in marts: 8 created.\n"), said.err
    assert command("models", "drop", "--models-dataset", "marts", *loaded.target).status == 0
    assert loaded.rows("SELECT schema_name FROM information_schema.schemata WHERE schema_name = 'marts'") == []


# ---- without a destination -------------------------------------------------------------------------------------------

SOME = {"email_opened": ["id", "email_id", "context_traits_email", "timestamp"]}


@pytest.mark.parametrize("name", models.BY_NAME)
@pytest.mark.parametrize("existing", [{}, SOME, {"tracks": ["id", "event"]}], ids=["nothing", "some", "tracks"])
def test_what_a_dataset_lacks_counts_as_empty(name: str, existing: dict[str, list[str]]) -> None:
    with duckdb.connect() as con:
        for table, columns in existing.items():
            types = (f'"{column}" {"TIMESTAMPTZ" if column == "timestamp" else "TEXT"}' for column in columns)
            con.execute(f"CREATE TABLE {table} ({', '.join(types)})")
        if "email_opened" in existing:
            con.execute("INSERT INTO email_opened VALUES ('m1', 'e1', ' Ada@Example.com', '2024-03-01 12:00:00+00')")
        found = con.execute(models.sql(name, existing))
        assert [column[0] for column in found.description] == [*models.BY_NAME[name].columns] or name == "person_email"
        assert {column[0] for column in found.description} == models.BY_NAME[name].columns.keys()
        opens = name in ("link_overview", "journey_overview")
        assert len(found.fetchall()) == (1 if existing is SOME and not opens else 0)


def rows_in_memory(name: str, *sent: Row) -> list[Row]:
    """Returns a model's rows over tables of the seven events and `aliases` with these messages.

    Nulls sort first where a query does not say otherwise.
    """
    columns = ["id", "user_id", "timestamp", *dict.fromkeys(key for one in sent for key in one["properties"])]
    existing = dict.fromkeys([*(event.lower().replace(" ", "_") for event in counted.NAMES), "aliases"], columns)
    with duckdb.connect() as con:
        con.execute("SET default_null_order = 'nulls_first'")
        for table in existing:
            types = (f"{column} {'TIMESTAMPTZ' if column == 'timestamp' else 'TEXT'}" for column in columns)
            con.execute(f"CREATE TABLE {table} ({', '.join(types)})")
        for one in sent:
            row = {"id": one["messageId"], "user_id": one["userId"], "timestamp": one.get("timestamp")}
            values = [{**row, **one["properties"]}.get(column) for column in columns]
            table = one["event"].lower().replace(" ", "_")  # the table name; `alias` for an alias
            con.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
        found = con.execute(models.sql(name, existing))
        return [dict(zip((d[0] for d in found.description), row, strict=True)) for row in found.fetchall()]


def event(name: str, who: str | None, day: int | None, **properties: str) -> Row:
    time = {} if day is None else {"timestamp": counted.iso(counted.FIRST + timedelta(days=day))}
    id_ = f"{name} {who} {day} {sorted(properties.items())}"
    return {"event": name, "messageId": id_, "userId": who, **time, "properties": properties}


@pytest.mark.parametrize(
    "name", ["domain_health", "email_overview", "journey_overview", "link_overview", "person_email"]
)
def test_each_number_is_told_of_people_who_got_nothing(name: str) -> None:
    """Each person did only one thing and is in no denominator, so all rates are null."""
    of = {"email_id": "e", "campaign_id": "j"}
    sent = [
        *(event("Email Replied", "replies@a.example", day, **of) for day in (1, 2)),
        event("Email Clicked", "clicks@a.example", 1, **of),
        event("Email Marked as Spam", "complains@a.example", 1, **of),
        event("Email Unsubscribed", "leaves@a.example", 1, **of),
        event("Email Bounced", "absent@a.example", 1, **of),
        event("Email Bounced", "absent@b.example", 1, email_id="bounced", campaign_id="k"),
        event("Email Opened", "opens@c.example", 1, email_id="opened", campaign_id="l"),
    ]
    key = models.BY_NAME[name].key
    expected = getattr(counted, name)(counted.stored(sent))
    assert comparable(rows_in_memory(name, *sent), key) == comparable(expected, key)


def test_each_number_of_a_link_counts_clicks_of_nobody_known_too() -> None:
    clicks = [event("Email Clicked", who, 1, email_id="e", link_url="https://x/1") for who in ("u", None)]
    [row] = rows_in_memory("link_overview", event("Email Delivered", "u", 1, email_id="e"), *clicks)
    assert [row[name] for name in ("clicks", "clickers", "clicked", "people", "click_rate")] == [2, 1, 1, 1, 1.0]


B = {"email_name": "B", "campaign_id": "j"}
NAMED = ("email_name", "email_subject", "campaign_id", "campaign_name")


@pytest.mark.parametrize(
    ("day", "told", "others"),
    [
        (1, {"email_name": "B"}, [(2, {"campaign_id": "j", "campaign_name": "J"})]),
        (1, B, [(2, {"email_name": "A", "campaign_name": "J"})]),
        (4, B, [(1, B), (3, {**B, "email_name": "A"})]),
        (1, B, [(None, {**B, "email_name": "A"})]),
        (1, B, [(2, {**B, "email_name": " \t"}), (3, {**B, "campaign_id": "\n "})]),
        *((1, {**B, name: "a"}, [(1, {**B, name: other}) for other in "gfedcb"]) for name in NAMED),
    ],
)
def test_each_row_of_numbers_has_the_names_of_the_last_event_that_has_any(
    day: int, told: Row, others: list[tuple[int | None, Row]]
) -> None:
    """A name counts more than a journey, and a journey more than the time; among equals the first by order is taken."""
    sent = [event("Email Opened", "u", at, email_id="e", **names) for at, names in (*others, (day, told))]
    [row] = rows_in_memory("email_overview", *sent)
    assert {name: row[name] for name in NAMED if row[name]} == told


@pytest.mark.parametrize(
    ("day", "told", "others"),
    [
        (1, "B", [(2, None)]),
        (1, "B", [(2, " \t\n")]),
        (4, "B", [(1, "B"), (3, "A")]),
        (1, "B", [(None, "A")]),
        (1, "a", [(1, other) for other in "gfedcb"]),
    ],
)
def test_each_row_of_a_journey_has_its_last_name(
    day: int, told: str, others: list[tuple[int | None, str | None]]
) -> None:
    sent = [
        event("Email Opened", "u", at, campaign_id="j", **({"campaign_name": name} if name else {}))
        for at, name in (*others, (day, told))
    ]
    [row] = rows_in_memory("journey_overview", *sent)
    assert (row["campaign_id"], row["campaign_name"]) == ("j", told)


def test_identities_are_named_after_who_was_seen_first_and_joined_in_four_steps_at_most() -> None:
    def seen(day: int | None, user: str | None, email: str | None = None, **more: str) -> Row:
        return event("Email Opened", user, day, **({"context_traits_email": email} if email else {}), **more)

    sent = [
        *(seen(day, user, "a@x") for day, user in ((3, "1"), (2, "1"), (1, "2"))),
        seen(4, "2", "b@x"),
        seen(5, " 2 "),
        seen(1, None, "e@x", context_traits_contact_id="c1"),
        *(seen(6, None, "d@x", context_traits_contact_id=contact) for contact in ("c0", "c1")),
        *(event("aliases", "9", day, previous_id=was) for day, was in ((7, " D@x "), (8, " old "))),
        seen(None, "old"),
        event("aliases", "same", 8, previous_id="same"),
        seen(9, None),  # a message without a person
        *(seen(10, " ", f"blank{n}@x") for n in range(2)),
        *(seen(11, "ten", f"ten{n}@x") for n in reversed(range(10))),
        *(seen(21, "eleven", f"eleven{n}@x") for n in range(11)),
        *(seen(30 + n, f"step{n + more}", f"step{n}@x") for n in range(6) for more in range(2)),
    ]
    names = ("identity", "person", "email", "user_id", "user_ids", "contact_id", "joined_by", "persons", "messages")
    rows = rows_in_memory("identities", *sent)
    first_days = {row["person"]: row["first_seen_at"] for row in rows}
    assert (first_days["a@x"], first_days["old"]) == (counted.FIRST + timedelta(days=1), None)
    assert {row["last_seen_at"] for row in rows if row["person"] == "a@x"} == {counted.FIRST + timedelta(days=3)}
    expected: list[tuple[Any, ...]] = [
        ("a@x", "a@x", "a@x", "2", 2, None, "user id", 3, 3),
        ("a@x", "b@x", "b@x", "2", 1, None, "user id", 3, 1),
        ("a@x", "2", None, " 2 ", 1, None, "user id", 3, 1),
        ("e@x", "e@x", "e@x", None, 0, "c1", "contact id", 4, 1),
        ("e@x", "d@x", "d@x", None, 0, "c1", "alias", 4, 2),
        ("e@x", "9", None, "9", 1, None, "alias", 4, 2),
        ("e@x", "old", None, "old", 1, None, "alias", 4, 1),
        ("same", "same", None, "same", 1, None, "nothing", 1, 1),
        *((f"blank{n}@x", f"blank{n}@x", f"blank{n}@x", " ", 1, None, "nothing", 1, 1) for n in range(2)),
        *(("ten0@x", f"ten{n}@x", f"ten{n}@x", "ten", 1, None, "user id", 10, 1) for n in range(10)),
        *((f"eleven{n}@x", f"eleven{n}@x", f"eleven{n}@x", "eleven", 1, None, "nothing", 1, 1) for n in range(11)),
        *(("step0@x", f"step{n}@x", f"step{n}@x", f"step{n + 1}", 2, None, "user id", 5, 2) for n in range(5)),
        ("step1@x", "step5@x", "step5@x", "step6", 2, None, "user id", 1, 2),  # five steps from step0
    ]
    assert {row["person"]: tuple(row[name] for name in names) for row in rows} == {row[1]: row for row in expected}
    assert len(rows) == len(expected)


def test_columns_of_other_types_do_no_harm() -> None:
    """A property's column has the type of its first values, which may be any."""
    with duckdb.connect() as con:
        con.execute("CREATE TABLE email_opened (id TEXT, email_id TEXT, email BIGINT, machine BIGINT, user_id TEXT)")
        con.execute(
            "INSERT INTO email_opened VALUES ('1', 'e', 7, 1, 'u'), ('2', 'e', NULL, 0, 'u'), ('3', 'e', 7, 2, 'u')"
        )
        existing = {"email_opened": ["id", "email_id", "email", "machine", "user_id"]}
        found = con.execute(
            f"SELECT person, opens, machine_opens FROM ({models.sql('person_email', existing)}) ORDER BY 1"
        )
        assert found.fetchall() == [("7", 2, 1), ("u", 1, 0)]


def test_identities_are_joined_by_ids_of_one_kind_and_by_none_of_blanks_or_of_nobody() -> None:
    """Tables of other loaders may have blank ids."""
    columns = ("id", "user_id", "anonymous_id", "context_traits_email", "context_traits_contact_id")
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE identifies ({', '.join(f'{name} TEXT' for name in columns)})")
        con.execute("INSERT INTO identifies VALUES (1, '', 'a', NULL, NULL), (2, ' ', 'b', NULL, NULL)")
        con.execute("INSERT INTO identifies VALUES (3, NULL, NULL, NULL, 'c1'), (4, NULL, 'c', NULL, 'c1')")
        con.execute("INSERT INTO identifies VALUES (5, 'x', NULL, 'k@x', NULL), (6, 'x', NULL, 'l@x', NULL)")
        con.execute("INSERT INTO identifies VALUES (7, 'y', NULL, 'm@x', 'x'), (8, 'z', NULL, 'n@x', 'x')")
        text = models.sql("identities", {"identifies": columns})
        assert con.execute(f"SELECT person, identity, joined_by FROM ({text}) ORDER BY person").fetchall() == [
            ("a", "a", "nothing"), ("b", "b", "nothing"), ("c", "c", "nothing"), ("k@x", "k@x", "user id"),
            ("l@x", "k@x", "user id"), ("m@x", "m@x", "contact id"), ("n@x", "m@x", "contact id"),
        ]  # fmt: skip


def test_a_period_counts_what_occurred_in_it() -> None:
    with duckdb.connect() as con:
        con.execute("CREATE TABLE email_opened (id TEXT, user_id TEXT, timestamp TIMESTAMPTZ)")
        days = "SELECT i, 'u', TIMESTAMPTZ '2024-03-01 00:00:00+00' + INTERVAL 1 DAY * i FROM range(5) t(i)"
        con.execute(f"INSERT INTO email_opened {days}")
        existing = {"email_opened": ["id", "user_id", "timestamp"]}
        text = models.sql(
            "daily", existing, since=counted.FIRST + timedelta(days=1), until=counted.FIRST + timedelta(days=3)
        )
        assert con.execute(f"SELECT day, opens FROM ({text}) ORDER BY day").fetchall() == [
            (date(2024, 3, 2), 1),
            (date(2024, 3, 3), 1),
        ]


@pytest.mark.parametrize(
    "at", [datetime.max.replace(tzinfo=timezone(-HOUR)), datetime.min.replace(tzinfo=timezone(HOUR))]
)
def test_a_period_whose_ends_are_no_times_in_utc_is_refused(at: datetime) -> None:
    message = re.escape(f"Expected a time between the years 1 and 9999 in UTC, but got '{at}'.")
    with pytest.raises(InvalidSetting, match=message):
        models.sql("daily", since=at)
    with pytest.raises(InvalidSetting, match=message):
        models.query("daily", models.declared_tables(), models.Period(until=at))


def test_other_dialects_are_read_again() -> None:
    """For models that read other models or have their own expressions, over tables with all columns."""
    declared = models.declared_tables()
    tables = {name: declared[name] for name in ("email_opened", "email_clicked", "tracks", "identifies", "aliases")}
    tables |= {name: declared[name] for name in ("pages", "groups")}
    assert set().union(*tables.values()) == set().union(*declared.values())
    for name in ("link_overview", "domain_health", "identities", "daily"):
        found = models.query(name, tables)
        models.point(found, lambda table: ["autopilothq", table])
        for dialect in DIALECTS:
            text = models.in_dialect(found.copy(), dialect)
            assert not re.search(r"THEN \(1 = [01]\)", text), dialect  # SQL Server has no such value
            [parsed] = sqlglot.parse(text, dialect=dialect)
            assert isinstance(parsed, sqlglot.exp.Select)
            assert "email_opened" in {table.name.lower() for table in parsed.find_all(sqlglot.exp.Table) if table.db}
            assert not list(parsed.find_all(sqlglot.exp.Command))
            unknown = {function.name.lower() for function in parsed.find_all(sqlglot.exp.Anonymous)}
            assert unknown <= {"at_timezone"}, dialect  # a function of Trino
            if dialect == "clickhouse":
                assert text.endswith("\nSETTINGS prefer_column_name_to_alias = 1, join_use_nulls = 1")
                selected = [cell for select in parsed.find_all(sqlglot.exp.Select) for cell in select.expressions]
                assert not [
                    cell
                    for cell in selected
                    if isinstance(cell, sqlglot.exp.Column) and cell.name != "*" and cell.table
                ]


def test_each_file_has_the_columns_that_are_described() -> None:
    files = {path.stem for path in Path(models.__file__).parent.glob("*.sql")}
    assert files == {*models.BY_NAME, "blanks", "counts", "day", "domain", "measures", "person", "rates"}


def test_the_bounce_rate_of_dashboards_is_that_of_the_report() -> None:
    rates = [model.metrics["average_bounce_rate"] for model in models.MODELS if "average_bounce_rate" in model.metrics]
    assert {(rate.of, rate.per) for rate in rates} == {("bounced", "attempted")}


def test_the_dbt_package_is_made_of_the_models() -> None:
    for path, text in generate_dbt.files().items():
        assert (generate_dbt.HOME / path).read_text() == text, f"{path}: make docs"


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_models_are_listed_and_shown_without_a_destination(call: Call) -> None:
    listed = call("models", "show")
    assert [line.split()[0] for line in listed.out.splitlines()] == [*models.BY_NAME]
    said = call("models", "show", "daily", "--destination", "postgres", "--dataset", "mail")
    assert 'FROM "mail"."email_opened"' in said.out
    said = call("models", "show", "dialy")
    assert (said.status, "There is no model dialy: did you mean daily?" in said.err) == (2, True)


def test_models_need_a_dataset(call: Call) -> None:
    said = call("models", "apply", "--credentials", "none.duckdb")
    assert said.status == 1
    assert "There is no dataset autopilothq" in said.err
