"""With `--books-dataset`, the events' dataset has only tables of events, and everything still works."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg2
import pytest

from autopilothq import archive, runner
from autopilothq.warehouses.settings import DUCKDB_FILE
from calling import Call, errors
from contract.duck import held
from contract.loading import identify, message
from prepared import as_prepared, preparing
from sending import write
from servers import Postgres
from shared_loads import command

EVENTS = {
    "tracks", "identifies", "users", "email_bounced", "email_clicked", "email_delivered", "email_marked_as_spam",
    "email_opened", "email_replied", "email_unsubscribed",
}  # fmt: skip
BOOKS = {"_audit", "_rejects", "_discards", "_dlt_loads", "_dlt_pipeline_state", "_dlt_version"}


@pytest.fixture(params=["duckdb", "postgres"])
def target(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    if request.param == "duckdb":
        yield ()
        return
    server: Postgres = request.getfixturevalue("postgresql")
    with server.database() as url:
        yield ("--destination", "postgres", "--credentials", url)


def ask(target: tuple[str, ...], query: str) -> list[tuple[Any, ...]]:
    if not target:
        with duckdb.connect("autopilot.duckdb") as con:
            return con.sql(query).fetchall()
    connection = psycopg2.connect(target[-1])
    with connection, connection.cursor() as cursor:
        cursor.execute(query)
        found = cursor.fetchall()
    connection.close()
    return found


def tables(target: tuple[str, ...]) -> dict[str, set[str]]:
    """Returns the tables of each schema."""
    found: dict[str, set[str]] = {}
    for schema, table in ask(target, "SELECT table_schema, table_name FROM information_schema.tables"):
        if schema not in ("pg_catalog", "information_schema"):
            found.setdefault(schema, set()).add(table)
    return found


FIRST = (message(messageId="m1"), identify(messageId="i1", traits={"plan": "a"}), "no json at all")


def loaded(call: Call, file: str, *words: str) -> tuple[int, ...]:
    with nullcontext() if "postgres" in words else held():
        said = call("load", "archive", file, *words, "--json")
    assert said.status == 0, said.err
    told = json.loads(said.out)
    return told["files"], told["stored"], told["duplicates"], told["rejected"]


def test_books_stand_apart_and_all_goes_on(call: Call, target: tuple[str, ...]) -> None:
    dlt.config["books_dataset"] = "keeping"  # as a user of dlt sets it
    assert loaded(call, write(FIRST, "one.ndjson"), *target) == (1, 2, 0, 1)
    there = tables(target)
    assert there["autopilothq"] == EVENTS
    assert there["keeping"] >= BOOKS
    assert set(there) <= {"autopilothq", "keeping", "keeping_staging"}
    assert_dlt_finds_both(target)

    dlt.config["books_dataset"] = None  # from here on each call has the option
    apart = (*target, "--books-dataset", "keeping")
    write([message(messageId="m1"), message(messageId="m2")], "two.ndjson")
    assert loaded(call, "*.ndjson", *apart) == (1, 1, 1, 0)  # the first file is known
    assert ask(target, "SELECT file, stored FROM keeping._audit ORDER BY file") == [
        (f"{Path.cwd()}/one.ndjson", 2),
        (f"{Path.cwd()}/two.ndjson", 1),
    ]
    assert "1 file, 2 lines, 1 stored, 1 duplicate, 0 rejected" in call("status", *apart).out
    live = json.loads(call("schema", "--live", "--format", "json", *apart).out)["tables"]
    assert {*EVENTS, "_audit", "_rejects", "_discards"} == {name for name in live if not name.startswith("_dlt")}
    assert call("schema", "diff", *apart).status == 0
    if target:
        run(target, ["ALTER TABLE autopilothq.tracks DROP CONSTRAINT tracks_pkey"])
        said = call("schema", "upgrade", *apart)
        assert said.out.split("\n\n")[:-1] == ['ALTER TABLE "autopilothq"."tracks" ADD PRIMARY KEY ("id");']
    # If no books are to be moved, loads did not use the dataset of that name before.
    run(target, ["CREATE SCHEMA autopilothq_staging", "CREATE TABLE autopilothq_staging.tracks (id text)"])
    assert call("schema", "upgrade", *apart).out.startswith("Nothing to upgrade in ")
    run(target, ["DROP SCHEMA autopilothq_staging CASCADE"])

    said = call("forget", "--user-id", "u1", *apart)
    assert said.status == 0, said.err
    assert tables(target)["keeping"] >= BOOKS | {"_suppressions"}
    assert ask(target, "SELECT count(*) FROM autopilothq.tracks") == [(0,)]
    # What runs without the option have left beside the events is not moved: locks, and books that exist there, too.
    left = ["_audit", *([] if target else ["_locks"])]
    run(target, [f"CREATE TABLE autopilothq.{name} (id int)" for name in left])
    write([message(messageId="m3"), message(messageId="m4", userId="other")], "three.ndjson")
    assert loaded(call, "*.ndjson", *apart) == (1, 1, 0, 1)
    run(target, [f"DROP TABLE autopilothq.{name}" for name in left])
    assert tables(target)["autopilothq"] == EVENTS
    assert_dlt_drops_both(target)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a load into DuckDB with its books among the events; returns the folder."""
    with preparing(tmp_path_factory.mktemp("older")) as home:
        assert loaded(command, write(FIRST, "one.ndjson")) == (1, 2, 0, 1)
    return home


@pytest.fixture
def older(call: Call, target: tuple[str, ...], request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """A target with its books among the events."""
    if not target:
        with as_prepared(request.getfixturevalue("prepared")):
            yield target
        return
    assert loaded(call, write(FIRST, "one.ndjson"), *target) == (1, 2, 0, 1)
    yield target


def assert_dlt_finds_both(target: tuple[str, ...]) -> None:
    """Checks that dlt finds events and books through the destination's setting `books_dataset`."""
    setting = f"destination.{'postgres' if target else 'duckdb'}.books_dataset"
    dlt.config[setting] = "keeping"
    if target:
        dlt.secrets["destination.postgres.credentials"] = target[-1]
    dataset = dlt.attach("autopilot_events").dataset()
    assert [row[0] for row in dataset.tracks.select("id").fetchall()] == ["m1"]
    assert [row[0] for row in dataset("SELECT stored FROM _audit").fetchall()] == [2]
    dlt.config[setting] = None


def assert_dlt_drops_both(target: tuple[str, ...]) -> None:
    """Checks that dropping the storage with dlt leaves no books, which would make files count as loaded."""
    setting = f"destination.{'postgres' if target else 'duckdb'}.books_dataset"
    dlt.config[setting] = "keeping"
    with dlt.attach("autopilot_events").destination_client() as client:
        client.drop_storage()
    assert tables(target) == {}
    dlt.config[setting] = None


def test_an_older_dataset_moves_its_books(call: Call, older: tuple[str, ...]) -> None:
    target, apart = older, (*older, "--books-dataset", "keeping")
    before = ask(target, "SELECT * FROM autopilothq._audit")

    said = call("load", "archive", "one.ndjson", *apart)
    assert said.status == 1
    assert said.err.splitlines()[0] == (
        "Error: The books of autopilothq are in autopilothq itself. Move them first: autopilothq schema upgrade"
        " --books-dataset keeping"
    )
    assert "_audit" not in tables(target).get("keeping", set())
    if target:  # the other parts of an upgrade come before the move
        run(target, ["ALTER TABLE autopilothq.tracks DROP CONSTRAINT tracks_pkey"])
    planned = call("schema", "upgrade", "--dry-run", *apart)
    said = call("schema", "upgrade", *apart)
    assert (said.status, said.err) == (0, "")
    assert said.out.split("\n\n")[:-1] == planned.out.split("\n\n")[:-1]
    first = (
        'ALTER TABLE "autopilothq"."tracks" ADD PRIMARY KEY ("id");'
        if target
        else 'CREATE SCHEMA IF NOT EXISTS "keeping";'
    )
    assert said.out.partition("\n\n")[0] == first
    assert tables(target)["autopilothq"] == EVENTS
    assert ask(target, "SELECT * FROM keeping._audit") == before
    write([message(messageId="m2"), FIRST[0]], "two.ndjson")
    assert loaded(call, "*.ndjson", *apart) == (1, 1, 1, 0)  # the first file is known
    assert tables(target)["autopilothq"] == EVENTS


def test_an_upgrade_drops_and_moves_nothing_that_is_still_needed(call: Call, prepared: Path) -> None:
    words = ("schema", "upgrade", "--books-dataset", "keeping")

    def planned() -> tuple[int, list[str]]:
        """Returns the exit status of a dry run, and its output without the moves of tables."""
        said = call(*words, "--dry-run")
        texts = said.out.split("\n\n")[:-1]
        statements = [text for text in texts if text.endswith(";")]
        assert ['"_audit"' in text for text in statements[:-1]] == [False] * len(statements[:-1])  # `_audit` moves last
        return said.status, [text for text in texts if " SCHEMA " in text or "stays as it is" in text]

    made = 'CREATE SCHEMA IF NOT EXISTS "keeping";'
    with as_prepared(prepared):
        run((), [f"CREATE TABLE autopilothq_staging.{name} (id TEXT)" for name in "ba"])
        strange = "it has tables that loads did not make (a, b): drop what is not needed."
        assert planned() == (1, [made, f"autopilothq_staging stays as it is: {strange}"])
        run((), ["DROP TABLE autopilothq_staging.a", "DROP TABLE autopilothq_staging.b", "CREATE SCHEMA keeping"])
        assert planned() == (0, ['DROP SCHEMA "autopilothq_staging" CASCADE;'])
        both = ("_audit", "_rejects")
        run((), [f"CREATE TABLE keeping.{name} (id TEXT)" for name in both])
        why = "keeping has that table too: name another dataset for the books, or drop the one that is not needed."
        assert planned() == (1, [f"{name} stays as it is: {why}" for name in both])
        run((), ["DROP SCHEMA keeping CASCADE"])
        before = tables(())
        dlt.config["books_dataset"] = ""  # another process does not know what these calls said
        runner.pipeline().extract(archive(write([message(messageId="m2")], "two.ndjson")))
        said = call(*words)
        cut_off = "A load was cut off, and some of its rows wait in the staging dataset, which does not move."
        hint = (
            "Load once more without --books-dataset, or give that load up: dlt pipeline autopilot_events abort-packages"
        )
        assert (said.status, said.out, errors(said)) == (1, "", [f"Error: {cut_off}", hint])
        assert tables(()) == before
        dlt.config["books_dataset"] = ""
        said = call("schema", "upgrade")  # if nothing moves, a waiting load does not matter
        assert (said.status, said.out.partition(" in ")[0]) == (0, "Nothing to upgrade")


def test_other_destinations_and_the_same_name_are_refused(call: Call) -> None:
    file = write(FIRST, "one.ndjson")
    said = call("load", "archive", file, "--books-dataset", "AutopilotHQ")
    assert (said.status, said.err) == (
        1,
        "Error: Expected a dataset for the books other than autopilothq, which has the events' tables.\n",
    )
    said = call("load", "archive", file, "--destination", "filesystem", "--credentials", "lake", "--books-dataset", "b")
    assert said.status == 1
    assert said.err == (
        "Error: Expected DuckDB or PostgreSQL, where the books can have a dataset of their own, but got filesystem.\n"
        "Leave out --books-dataset, or the setting books_dataset.\n"
    )
    said = call("load", "archive", file, "--books-dataset", "Autopilot")
    assert said.err == (
        f"Error: The DuckDB file {DUCKDB_FILE} is named like the dataset Autopilot, and DuckDB cannot tell them"
        " apart.\nName another file (--credentials other.duckdb) or another dataset (--books-dataset other).\n"
    )
    assert not Path("autopilot.duckdb").exists()


@pytest.mark.parametrize("where", ["environment", "secrets.toml", "config.toml"])
def test_the_option_takes_precedence_over_the_setting(where: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOKS_DATASET", "elsewhere")
    if where != "environment":
        monkeypatch.delenv("BOOKS_DATASET")
        Path(".dlt").mkdir()
        Path(".dlt", where).write_text('books_dataset = "elsewhere"\n')
    said = call("load", "archive", write(FIRST, "one.ndjson"), "--books-dataset", "autopilothq")
    assert (said.status, said.err) == (
        1,
        "Error: Expected a dataset for the books other than autopilothq, which has the events' tables.\n",
    )


def run(target: tuple[str, ...], statements: list[str]) -> None:
    if not target:
        with duckdb.connect("autopilot.duckdb") as con:
            for statement in statements:
                con.execute(statement)
        return
    connection = psycopg2.connect(target[-1])
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


NOT_MOVED = (
    "Error: The books of autopilothq are in autopilothq itself. Move them first: autopilothq schema upgrade"
    " --books-dataset keep_ing_s\n"
)
NOT_KNOWN = (
    "Error: autopilothq has no books, and keep_ing_s has only books. If they belong to autopilothq, add"
    " --books-dataset keep_ing_s, or set books_dataset; else load into another dataset: --dataset NAME\n"
)
OF_ANOTHER = (
    "Error: keep_ing_s has books of loads, but second has no tables: they belong to another dataset, or to one that"
    " was dropped. Name another dataset for the books of second: --books-dataset NAME\n"
)


def test_nothing_is_done_while_books_are_in_another_dataset(
    call: Call, older: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__API_KEY", "none is asked")
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__BASE_URL", "http://127.0.0.1:9")
    target, file = older, "one.ndjson"
    apart = (*target, "--books-dataset", "Keep-Ing%s")  # dlt's naming convention makes this `keep_ing_s`
    assert call("forget", "--user-id", "u1", *target).status == 0
    if target:
        assert "autopilothq_staging" in tables(target)
        # A run that does not know the books' dataset keeps its lock among the events.
        run(target, ["INSERT INTO autopilothq._locks VALUES ('1 elsewhere', now())"])
        said = call("schema", "upgrade", *apart)
        assert (said.status, said.err.partition(" is at work.")[0]) == (
            75,
            "Error: Another run into autopilothq, on elsewhere,",
        )
        run(target, ["DELETE FROM autopilothq._locks"])

    # The upgrade was interrupted before its last statement.
    planned = call("schema", "upgrade", "--dry-run", *apart).out.split("\n\n")[:-1]
    *first, last = [statement.removesuffix(";") for statement in planned]
    assert '"_audit"' in last
    run(target, first)
    there = tables(target)
    assert there["autopilothq"] == EVENTS | {"_audit"}
    assert there["keep_ing_s"] - {"_locks", "_locks_send"} == (BOOKS | {"_suppressions"}) - {"_audit"}
    for words in (("load", "archive", file), ("forget", "--user-id", "u2"), ("send", "messages", file)):
        said = call(*words, *apart)
        assert (said.status, said.err) == (1, NOT_MOVED), words
    assert call("schema", "upgrade", *apart).out.startswith(f"{last};\n\n1 statement run in ")

    # The list of forgotten persons moved with the rest.
    both = write([FIRST[0], message(messageId="o1", userId="other")], "two.ndjson")
    assert loaded(call, both, *apart) == (1, 1, 0, 1)
    assert ask(target, "SELECT id FROM autopilothq.tracks") == [("o1",)]
    there = tables(target)
    assert {name for name in there if not name.startswith("keep_ing_s")} == {"autopilothq"}
    assert there["autopilothq"] == EVENTS

    dlt.config["books_dataset"] = ""  # another process does not know what these calls said
    # Another dataset has its own books, and its staging dataset tables named like them; both come first by name.
    books = [f"CREATE TABLE {of}.{name} (id int)" for of in ("a", "a_staging") for name in ("_audit", "_dlt_version")]
    run(target, ["CREATE SCHEMA a", "CREATE SCHEMA a_staging", "CREATE TABLE a.tracks (id int)", *books])
    for words in (("load", "archive", file), ("forget", "--user-id", "other")):
        said = call(*words, *target)
        assert (said.status, said.err) == (1, NOT_KNOWN), words
    for line in ("status --json", "report --json", "export out"):
        said = call(*line.split(), *target)
        assert (said.status, said.err) == (0, NOT_KNOWN.replace("Error", "Warning")), line
    # The dataset with its own books is not asked whether the others are its own.
    assert "has only books" not in call("status", *target, "--dataset", "a").err
    said = call("load", "archive", file, *apart, "--dataset", "second")
    assert (said.status, said.err) == (1, OF_ANOTHER)


def test_who_may_not_make_schemas_loads_into_those_that_are_there(call: Call, postgresql: Postgres) -> None:
    with postgresql.database() as url:
        admin, role = ("--destination", "postgres", "--credentials", url), f"loader_{url[-6:]}"
        schemas = "".join(f"CREATE SCHEMA {name} AUTHORIZATION {role};" for name in ("autopilothq", "b", "b_staging"))
        run(admin, [f"CREATE ROLE {role} LOGIN PASSWORD 'x'"])
        target = (*admin[:3], url.replace(url.partition("://")[2].partition("@")[0], f"{role}:x"))
        said = call("load", "archive", write(FIRST, "one.ndjson"), *target)
        right = (
            "Create the missing schema and let that user use it (GRANT USAGE, CREATE ON SCHEMA), or let it create"
            " schemas (GRANT CREATE ON DATABASE). A load has two: NAME and NAME_staging."
        )
        assert (said.status, errors(said)) == (
            1,
            [f"Error: permission denied for database {url.rpartition('/')[2]}", right],
        )
        run(admin, [schemas])
        assert loaded(call, "one.ndjson", *target, "--books-dataset", "b") == (1, 2, 0, 1)
        assert loaded(call, "one.ndjson", *target, "--books-dataset", "b") == (0, 0, 0, 0)
        assert tables(admin)["b"] >= BOOKS
