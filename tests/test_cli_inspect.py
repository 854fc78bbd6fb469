"""`schema`, `schema diff` and `status` as a user sees them: exact texts and the exit status for given arguments."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import duckdb
import psycopg2
import pytest
import yaml
from dlt.common.runtime.run_context import active

import forked
from autopilothq import catalog, sample
from autopilothq.cli import inspect as cli_inspect
from calling import Call
from contract.loading import identify, message
from sending import write
from shared_loads import command, isolation

PAGE = Path(__file__).parent.parent / "pipelines" / "docs" / "how-to" / "inspect.md"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a load of a broken line, a message of today, an odd one, and a custom event."""
    folder = tmp_path_factory.mktemp("home")
    with isolation(folder):
        now = message(receivedAt=datetime.now(UTC).isoformat())
        odd = message(messageId="m2", properties={"transactional": "perhaps"})
        demo = message("Demo", messageId="m3", properties={"plan": "a"})
        said = command("load", "archive", write(["nonsense", now, odd, demo], "a.ndjson"))
        assert said.status == 0, said.err
    return folder


@pytest.fixture
def loaded(home: Path, tmp_path: Path) -> None:
    """Works in a copy of that folder, including dlt's working folder."""
    shutil.copytree(home / "work", Path(), dirs_exist_ok=True)
    shutil.copytree(home / "dlt", tmp_path / "dlt", dirs_exist_ok=True)


# ---- schema --------------------------------------------------------------------------------------------------------


def test_schema_prints_the_catalogue(call: Call) -> None:
    said = call("schema")
    assert said.status == 0
    heads = [line for line in said.out.splitlines() if line and not line.startswith(" ")]
    assert heads == [f"{table.name}: {table.description}" for table in catalog.TABLES.values()]
    assert call("schema", "show").out == said.out
    assert list(Path().iterdir()) == []


def test_schema_of_one_table(call: Call) -> None:
    assert (
        call("schema", "_rejects").out
        == """\
_rejects: Lines that no table can hold, complete, with the reason.
  column       type       description
  id           text       A digest of the file, the line's number and the line: each place has a row of its own.
  file         text       The file that holds the line.
  line         bigint     The line's number in the file, from 1.
  reason       text       Why it was rejected, one word.
  message      text       What is wrong with it, for a person.
  raw          text       The line itself, up to 1 MiB.
  rejected_at  timestamp  When the load that rejected it processed it.
"""
    )


def test_schema_as_sql_of_the_chosen_destination(call: Call) -> None:
    said = call("schema", "_rejects", "--format", "sql", "--dataset", "mail", "--destination", "postgres")
    assert said == (
        0,
        """\
CREATE SCHEMA IF NOT EXISTS "mail";

CREATE TABLE "mail"."_rejects" (
    "id" varchar,
    "file" varchar,
    "line" bigint,
    "reason" varchar,
    "message" varchar,
    "raw" varchar,
    "rejected_at" timestamp with time zone,
    PRIMARY KEY ("id")
);
""",
        "",
    )
    sql = call("schema", "--format", "sql").out
    with duckdb.connect() as con:
        con.execute(sql)
        assert {name for _, _, name, *_ in con.execute("SHOW ALL TABLES").fetchall()} == set(catalog.TABLES)
    assert list(Path().iterdir()) == []


def test_the_printed_statements_are_those_that_make_the_tables_of_duckdb(call: Call) -> None:
    kinds = [message(None, type=kind, messageId=kind, event=..., groupId="g") for kind, *_ in catalog.KINDS]
    assert call("load", "archive", write([message(), *kinds, "no JSON"], "1.ndjson")).status == 0
    made = columns_and_constraints("autopilot.duckdb")
    with duckdb.connect("printed.duckdb") as con:
        con.execute(call("schema", "--format", "sql").out)
    printed = columns_and_constraints("printed.duckdb")
    assert {"tracks", "email_opened", "accounts", "pages", "users", "_audit"} <= made.keys()
    assert {table: printed[table] for table in made if table != "_locks"} == made


def columns_and_constraints(database: str) -> dict[str, list[tuple[Any, ...]]]:
    """Returns each table's columns in order, with types and nullability, and its constraints."""
    tables: dict[str, list[tuple[Any, ...]]] = {}
    with duckdb.connect(database) as con:
        for table, *what in con.execute("""
            SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns()
            WHERE schema_name = 'autopilothq' AND NOT starts_with(table_name, '_dlt') ORDER BY table_name, column_index
            """).fetchall():
            tables.setdefault(table, []).append(tuple(what))
        for table, text in con.execute("SELECT table_name, constraint_text FROM duckdb_constraints()").fetchall():
            if table in tables:
                tables[table].append((text,))
    return tables


@pytest.mark.parametrize("form", ["markdown", "json", "yaml", "dbt", "mermaid"])
def test_every_format_names_every_column(call: Call, form: str) -> None:
    said = call("schema", "--format", form)
    assert (said.status, said.err) == (0, "")
    words = set(re.findall(r"\w+", said.out))
    assert all({table.name, *(column.name for column in table.columns)} <= words for table in catalog.TABLES.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("schema", "trakcs"),
            "Error: Invalid value for TABLE: The catalogue has no table trakcs: did you mean tracks?",
        ),
        (
            ("schema", "xyz", "--format", "dbt"),
            "Error: Invalid value for TABLE: The catalogue has no table xyz: there are tracks, identifies, aliases,",
        ),
        (
            ("schema", "--format", "pdf"),
            "Error: Invalid value for '--format': 'pdf' is not one of 'table', 'markdown',",
        ),
        (
            ("schema", "diff", "more"),
            "Error: Got unexpected extra argument (more): diff takes no arguments, only options (--against, ",
        ),
        (("export", "a", "b"), "Error: Got unexpected extra argument (b)"),
        (("hooks", "list", "x"), "Error: Got unexpected extra argument (x): list takes no arguments, only options."),
        (
            ("forget", "nobody@example.com"),
            (
                "Error: Got unexpected extra argument (nobody@example.com): forget takes no arguments, only options"
                " (--email, --user-id, --contact-id, --anonymous-id, …)."
            ),
        ),
        (
            ("status", "--max-age", "999999999d"),
            "Error: Invalid value for '--max-age': Expected a number with s, m, h or d, such as 2h, but got '9999999",
        ),
        (
            ("status", "--max-age", "soon"),
            "Error: Invalid value for '--max-age': Expected a number with s, m, h or d, such as 2h, but got 'soon'.",
        ),
    ],
)
def test_wrong_arguments(call: Call, words: tuple[str, ...], message: str) -> None:
    said = call(*words)
    assert said.status == 2
    assert said.err.splitlines()[-1].startswith(message)


@pytest.mark.usefixtures("loaded")
def test_schema_live(call: Call) -> None:
    said = call("schema", "demo", "--live")
    assert said.status == 0
    head, columns, *lines = said.out.splitlines()
    assert head == (
        "demo: 1 row, received 2019-03-04 05:06:07 to 2019-03-04 05:06:07."
        " An event other than Autopilot's seven; its properties are columns."
    )
    assert columns.split() == ["column", "type", "null", "first", "came", "description"]
    (received_at,) = [re.split(" {2,}", line) for line in lines if line.startswith("  received_at ")]
    assert received_at[1:4] == ["received_at", "TIMESTAMP WITH TIME ZONE", "0 %"]
    assert datetime.fromisoformat(f"{received_at[4]}Z") <= datetime.now(UTC)
    assert received_at[5:] == ["When Segment received the message."]
    (plan,) = [re.split(" {2,}", line) for line in lines if line.startswith("  plan ")]
    assert (plan[1:4], len(plan)) == (["plan", "VARCHAR", "0 %"], 5)
    (source,) = yaml.safe_load(call("schema", "--live", "--format", "dbt").out)["sources"]
    assert [table["name"] for table in source["tables"]] == [
        *(name for name, table in catalog.TABLES.items() if table in catalog.ALWAYS), "demo",
    ]  # fmt: skip
    said = call("schema", "pages", "--live")
    names = ", ".join(table["name"] for table in source["tables"])
    assert (said.status, said.err.splitlines()[-1]) == (
        2,
        f"Error: Invalid value for TABLE: The dataset autopilothq has no table pages: there are {names}",
    )


# ---- schema diff ---------------------------------------------------------------------------------------------------

COMMON = """
    id varchar(512) PRIMARY KEY, received_at timestamptz, uuid_ts timestamptz, anonymous_id varchar(512),
    user_id varchar(512), event varchar(512), event_text varchar(512), original_timestamp timestamptz,
    sent_at timestamptz, "timestamp" timestamptz, context_traits_email varchar(512)"""
SEGMENT = f"""
    CREATE SCHEMA segment;
    CREATE TABLE segment.tracks ({COMMON}, uuid bigint);
    CREATE TABLE segment.email_opened ({COMMON}, campaign_id varchar(512), transactional varchar(512),
        theme varchar(512));
    CREATE TABLE segment.webinar_joined ({COMMON});
    CREATE TABLE segment.users (id varchar(512), received_at timestamp, seats double precision)"""


@pytest.fixture
def segment(postgres: str) -> str:
    """A PostgreSQL with a schema `segment` like that of Segment's own loader."""
    con = psycopg2.connect(postgres)
    con.cursor().execute(SEGMENT)
    con.commit()
    con.close()
    return postgres


BREAKING = """\
breaks queries:
  missing column, queries that name it fail: it is a number of Segment's own loader; read `id` instead
    tracks: uuid
  type character varying(512) -> {boolean}: comparisons fail or mean something else; cast it in the queries
    email_opened: transactional
  missing column, queries that name it fail{theme}
    email_opened: theme
  missing table, queries of it fail{webinar}
    webinar_joined
"""


def test_diff_with_segments_schema_in_the_same_database(call: Call, segment: str) -> None:
    lines = (
        message(messageId="m1"),
        identify(messageId="m2", userId="u", traits={"seats": 3}),
    )
    there = ("--destination", "postgres", "--credentials", segment)
    assert call("load", "archive", write(lines, "a.ndjson"), *there).status == 0
    said = call("schema", "diff", "--against", "segment", *there)
    assert said.status == 1
    head, breaks, harmless, sums = said.out.split("\n\n")
    assert [re.sub(r"postgres postgres\S+", "postgres URL", line) for line in head.splitlines()] == [
        "queries for  postgres URL dataset segment",
        "run on       postgres URL dataset autopilothq",
    ]
    assert sorted(breaks.splitlines()) == sorted(
        BREAKING.format(
            boolean="boolean", theme=": no loaded message has it", webinar=": no message of it was loaded"
        ).splitlines()
    )
    assert (
        "  type character varying(512) -> character varying: whole, where the other schema cuts texts; those that it"
        " does not cut compare as before\n"
        "    tracks: id, anonymous_id, user_id, event, event_text, context_traits_email\n"
    ) in harmless
    assert "    users: received_at\n" in harmless
    assert (
        "  type double precision -> bigint: numbers compare as before, but one of the two rounds them beyond"
        " 15 digits\n"
        "    users: seats\n"
    ) in harmless
    assert (
        "  type timestamp without time zone -> timestamp with time zone: the same points in time where the session's"
        " time zone is UTC\n"
    ) in harmless
    assert "  extra table, new: no query for the other schema names it\n    identifies, email_bounced," in harmless
    assert re.fullmatch(r"4 differences break queries, \d+ do not\.\n", sums)


def test_diff_with_segments_schema_elsewhere_before_a_load(call: Call, segment: str) -> None:
    said = call("schema", "diff", "--against", f"segment/{segment}")
    assert said.status == 1
    head, breaks, *_ = said.out.split("\n\n")
    assert head.splitlines()[1] == "run on       the catalogue, because nothing was loaded yet"
    later = ", unless it comes with a message: load the archive, then compare again"
    missing = BREAKING.format(boolean="bool", theme=later, webinar=later).splitlines()
    # `seats` is a trait, and the catalogue knows no traits.
    missing.insert(-2, "    users: seats")
    assert sorted(breaks.splitlines()) == sorted(missing)
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("loaded")
def test_diff_with_the_catalogue(call: Call) -> None:
    said = call("schema", "diff")
    assert said.status == 0
    later = ", ".join(name for name, table in catalog.TABLES.items() if table not in catalog.ALWAYS)
    assert said.out.splitlines()[1:] == [
        f"run on       duckdb {Path.cwd()}/autopilot.duckdb, dataset autopilothq",
        "",
        "breaks nothing:",
        "  missing table, comes with its first row",
        f"    {later}",
        "  extra table, not of the catalogue: an event of your own, or another program's",
        "    demo",
        "",
        f"0 differences break queries, {later.count(',') + 2} do not.",
    ]
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("ALTER TABLE autopilothq.tracks DROP COLUMN event_text")
    assert call("schema", "diff").out.endswith(f"\n1 difference breaks queries, {later.count(',') + 2} do not.\n")
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("ALTER TABLE autopilothq.email_opened ALTER COLUMN transactional TYPE varchar")
        con.execute("DROP TABLE autopilothq._discards")
    said = call("schema", "diff")
    assert said.status == 1
    assert said.out.split("\n\n")[1].splitlines() == [
        "breaks queries:",
        "  missing column, queries that name it fail: another program made or changed this table",
        "    tracks: event_text",
        "  type bool -> VARCHAR: comparisons fail or mean something else; cast it in the queries",
        "    email_opened: transactional",
        "  missing table, queries of it fail: no load made it, or another program dropped it",
        "    _discards",
    ]


def test_the_first_slash_divides_dataset_and_credentials(call: Call) -> None:
    folder = Path("one/two")
    folder.mkdir(parents=True)
    with duckdb.connect(folder / "old.duckdb") as con:
        con.execute('CREATE SCHEMA "Seg Ment"; CREATE TABLE "Seg Ment".tracks (id varchar)')
    said = call("schema", "diff", "--against", f"Seg Ment/{folder}/old.duckdb")
    assert (said.status, said.out.splitlines()[0]) == (
        0,
        f"queries for  duckdb {Path.cwd()}/one/two/old.duckdb, dataset Seg Ment",
    )
    said = call("schema", "diff", "--against", "other/one/two/old.duckdb")
    assert (said.status, said.err) == (
        1,
        f"Error: There is no dataset other in {Path.cwd()}/one/two/old.duckdb. Check the spelling.\n",
    )


# ---- status --------------------------------------------------------------------------------------------------------


def test_status_of_a_sample(call: Call) -> None:
    sample.write("archive", events=1200)
    call("load", "archive", "archive")
    said = call("status", "--max-age", "2h")
    assert said.status == 0
    counts = r"14 files, 1,200 lines, 1,\d{3} stored, \d duplicates, 0 rejected"
    lines = said.out.splitlines()
    assert lines[0] == f"place      duckdb {Path.cwd()}/autopilot.duckdb, dataset autopilothq"
    assert re.fullmatch(r"last run   20\S+ \S+, \d+ s ago: loaded", lines[1])
    assert re.fullmatch(rf"last load  20\S+ \S+, \d+ s ago: {counts}", lines[2])
    assert lines[4] == "table                 newest received (UTC)  newest load (UTC)"
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("SET TimeZone = 'UTC'")
        found = con.execute("SELECT max(received_at), max(uuid_ts) FROM autopilothq.tracks").fetchall()
    assert lines[5] == f"tracks                {found[0][0]:%Y-%m-%d %H:%M:%S}    {found[0][1]:%Y-%m-%d %H:%M:%S}"
    assert lines[-2:] == ["rejects of the last load  none", "discards                  none"]


@pytest.mark.usefixtures("loaded")
def test_status_for_a_monitor(call: Call) -> None:
    now = datetime.fromisoformat(json.loads(Path("a.ndjson").read_text().splitlines()[1])["receivedAt"])
    told = json.loads(call("status", "--json", "--max-age", "1h").out)
    assert (told["fresh"], told["rejects"], told["discards"]) == (True, {"not_json": 1}, {"does_not_fit": 1})
    assert told["events_per_day"][now.date().isoformat()] == 1
    assert datetime.fromisoformat(told["tables"]["email_opened"]["received_at"]) == now
    assert 0 < told["age_seconds"] < (datetime.now(UTC) - now).total_seconds()
    said = call("status", "--max-age", "0s")
    assert said.status == 1
    assert re.fullmatch(
        r"Too old: the newest load was \d+ (s|min|min \d+ s) ago, more than 0 s\.", said.out.splitlines()[-1]
    )
    said = call("status", "--max-age", "0s", "--json")
    assert (said.status, json.loads(said.out)["fresh"]) == (1, False)
    with duckdb.connect("autopilot.duckdb") as con:
        for name in ("tracks", "email_opened", "demo"):
            con.execute(f"DELETE FROM autopilothq.{name}")
    said = call("status", "--max-age", "9d")
    assert (said.status, said.out.splitlines()[-1]) == (1, "Too old: no row was loaded yet.")
    assert call("status").status == 0


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("schema", "--live"), ("schema", "diff")])
def test_nothing_there_is_one_line(call: Call, words: tuple[str, ...]) -> None:
    said = call(*words)
    hint = "Load something first: autopilothq load archive URL"
    assert said == (1, "", f"Error: There is no dataset autopilothq in {Path.cwd()}/autopilot.duckdb. {hint}\n")
    assert list(Path().iterdir()) == []


def test_nothing_in_the_file_of_the_configuration(call: Call) -> None:
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text('[destination.duckdb]\ncredentials = "elsewhere.duckdb"\n')
    active().reload()
    assert call("status").err.startswith(f"Error: There is no dataset autopilothq in {Path.cwd()}/elsewhere.duckdb. ")


def test_no_dataset_in_postgresql(call: Call, postgres: str) -> None:
    said = call("status", "--destination", "postgres", "--credentials", postgres, "--dataset", "mail")
    assert (said.status, said.out) == (1, "")
    assert re.fullmatch(r"Error: There is no dataset mail in postgres\S+\. Load something first: .*\n", said.err)


def test_a_password_is_not_printed(call: Call, segment: str) -> None:
    wrong = "postgresql://loader:s3cret@127.0.0.1:1/warehouse"
    for words in (
        ("status", "--destination", "postgres", "--credentials", wrong),
        ("schema", "diff", "--against", f"segment/{wrong}"),
        ("schema", "diff", "--against", f"segment/{segment}?password=s3cret"),
        ("schema", "--format", "sql", "--destination", "postgres", "--credentials", wrong),
    ):
        said = call(*words)
        assert "s3cret" not in said.out + said.err


@contextmanager
def held(file: str) -> Iterator[int]:
    """Yields the id of another process that writes to a DuckDB file."""
    code = f"import duckdb, sys; c = duckdb.connect({file!r}); print('open', flush=True); sys.stdin.read()"
    with forked.start("-c", code, stdin=forked.PIPE, stdout=forked.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        child.kill()


def test_a_file_that_another_program_has_open(call: Call) -> None:
    with held("autopilot.duckdb") as process:
        said = call("status")
        loaded = call("load", "archive", "archive")
    program = os.path.realpath(sys.executable)
    assert said == loaded
    assert said == (
        75,
        "",
        (
            f"Error: The DuckDB file {Path.cwd()}/autopilot.duckdb is open in another program:"
            f" {program} (PID {process}).\n"
            "Close it there and run this again, or wait for that: --wait 10m\n"
        ),
    )


def test_every_option_is_documented() -> None:
    text = PAGE.read_text()
    commands: list[click.Command] = [*cli_inspect.schema.commands.values(), cli_inspect.status]
    options = {name for command in commands for param in command.params for name in param.opts if name.startswith("--")}
    assert [name for name in sorted(options) if name not in text] == []
    assert [form for form in cli_inspect.SCHEMA_FORMATS if f"`{form}`" not in text] == []
