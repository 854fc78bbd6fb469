"""`--books-dataset`: the events' dataset has tables of events alone, and everything goes on working."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg2
import pytest

from calling import Call
from contract.loading import identify, message
from servers import Postgres

EVENTS = {
    "tracks", "identifies", "users", "email_bounced", "email_clicked", "email_delivered", "email_marked_as_spam",
    "email_opened", "email_replied", "email_unsubscribed",
}  # fmt: skip
BOOKS = {"_audit", "_rejects", "_discards", "_dlt_loads", "_dlt_pipeline_state", "_dlt_version"}


@pytest.fixture(params=["duckdb", "postgres"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    if request.param == "duckdb":
        yield ()
        return
    server: Postgres = request.getfixturevalue("postgresql")
    with server.database() as url:
        yield ("--destination", "postgres", "--credentials", url)


def ask(place: tuple[str, ...], query: str) -> list[tuple[Any, ...]]:
    if not place:
        with duckdb.connect("autopilot.duckdb") as con:
            return con.sql(query).fetchall()
    connection = psycopg2.connect(place[-1])
    with connection, connection.cursor() as cursor:
        cursor.execute(query)
        found = cursor.fetchall()
    connection.close()
    return found


def tables(place: tuple[str, ...]) -> dict[str, set[str]]:
    """The tables of each schema."""
    found: dict[str, set[str]] = {}
    for schema, table in ask(place, "SELECT table_schema, table_name FROM information_schema.tables"):
        if schema not in ("pg_catalog", "information_schema"):
            found.setdefault(schema, set()).add(table)
    return found


def write(name: str, *lines: Any) -> str:
    Path(name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return name


FIRST = (message(messageId="m1"), identify(messageId="i1", traits={"plan": "a"}), "no json at all")


def loaded(call: Call, file: str, *words: str) -> tuple[int, ...]:
    said = call("load", "archive", file, *words, "--json")
    assert said.status == 0, said.err
    told = json.loads(said.out)
    return told["files"], told["stored"], told["duplicates"], told["rejected"]


def test_books_stand_apart_and_all_goes_on(call: Call, place: tuple[str, ...]) -> None:
    apart = (*place, "--books-dataset", "keeping")
    write("one.ndjson", *FIRST)

    assert loaded(call, "*.ndjson", *apart) == (1, 2, 0, 1)
    there = tables(place)
    assert there["autopilothq"] == EVENTS
    assert there["keeping"] >= BOOKS
    assert set(there) <= {"autopilothq", "keeping", "keeping_staging"}

    write("two.ndjson", message(messageId="m1"), message(messageId="m2"))
    assert loaded(call, "*.ndjson", *apart) == (1, 1, 1, 0)
    assert loaded(call, "*.ndjson", *apart) == (0, 0, 0, 0)
    assert ask(place, "SELECT file, stored FROM keeping._audit ORDER BY file") == [
        (f"{Path.cwd()}/one.ndjson", 2),
        (f"{Path.cwd()}/two.ndjson", 1),
    ]
    assert "1 files, 2 lines, 1 stored, 1 duplicates, 0 rejected" in call("status", *apart).out
    live = json.loads(call("schema", "--live", "--format", "json", *apart).out)["tables"]
    assert {*EVENTS, "_audit", "_rejects", "_discards"} == {name for name in live if not name.startswith("_dlt")}
    assert call("schema", "diff", *apart).status == 0
    assert call("schema", "upgrade", *apart).out.startswith("Nothing is to be upgraded in ")

    said = call("forget", "--user-id", "u1", *apart)
    assert said.status == 0, said.err
    assert tables(place)["keeping"] >= BOOKS | {"_suppressions"}
    assert ask(place, "SELECT count(*) FROM autopilothq.tracks") == [(0,)]
    write("three.ndjson", message(messageId="m3"), message(messageId="m4", userId="other"))
    assert loaded(call, "*.ndjson", *apart) == (1, 1, 0, 1)
    assert tables(place)["autopilothq"] == EVENTS


def test_a_dlt_user_sets_it_in_the_configuration(call: Call, place: tuple[str, ...]) -> None:
    dlt.config["books_dataset"] = "keeping"
    assert loaded(call, write("one.ndjson", *FIRST), *place) == (1, 2, 0, 1)
    kind = "postgres" if place else "duckdb"
    dlt.config[f"destination.{kind}.books_dataset"] = "keeping"
    if place:
        dlt.secrets["destination.postgres.credentials"] = place[-1]
    dataset = dlt.attach("autopilot_events").dataset()
    assert [row[0] for row in dataset.tracks.select("id").fetchall()] == ["m1"]
    assert [row[0] for row in dataset("SELECT stored FROM _audit").fetchall()] == [2]


def test_an_older_dataset_moves_its_books(call: Call, place: tuple[str, ...]) -> None:
    apart = (*place, "--books-dataset", "keeping")
    assert loaded(call, write("one.ndjson", *FIRST), *place) == (1, 2, 0, 1)
    before = ask(place, "SELECT * FROM autopilothq._audit")

    said = call("load", "archive", "one.ndjson", *apart)
    assert said.status == 1
    assert said.err.splitlines()[0] == (
        "Error: The books of autopilothq are in autopilothq itself. Move them first: autopilothq schema upgrade"
        " --books-dataset keeping"
    )
    assert "_audit" not in tables(place).get("keeping", set())
    planned = call("schema", "upgrade", "--dry-run", *apart)
    said = call("schema", "upgrade", *apart)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[:-1][0] == planned.out.splitlines()[0] != ""
    assert tables(place)["autopilothq"] == EVENTS
    assert ask(place, "SELECT * FROM keeping._audit") == before
    assert loaded(call, "one.ndjson", *apart) == (0, 0, 0, 0)
    assert loaded(call, write("two.ndjson", message(messageId="m2"), FIRST[0]), *apart) == (1, 1, 1, 0)
    assert tables(place)["autopilothq"] == EVENTS


def test_other_destinations_and_the_same_name_are_refused(call: Call) -> None:
    file = write("one.ndjson", *FIRST)
    said = call("load", "archive", file, "--books-dataset", "AutopilotHQ")
    assert (said.status, said.err) == (
        1,
        "Error: Expected another dataset for the books than autopilothq, which the events' tables are in.\n",
    )
    said = call("load", "archive", file, "--destination", "filesystem", "--credentials", "lake", "--books-dataset", "b")
    assert said.status == 1
    assert said.err == (
        "Error: Expected DuckDB or PostgreSQL, where the books can have a dataset of their own, but got filesystem.\n"
        "Leave --books-dataset, or the setting books_dataset, out.\n"
    )
    assert not Path("autopilot.duckdb").exists()


def test_books_that_are_not_its_own_are_refused(call: Call, place: tuple[str, ...]) -> None:
    apart = (*place, "--books-dataset", "keeping")
    file = write("one.ndjson", *FIRST)
    assert loaded(call, file, *apart) == (1, 2, 0, 1)
    before = tables(place)

    lost = (
        "Error: Expected the books of autopilothq in {}, but there are none; there are books in keeping."
        " Say where they are: --books-dataset keeping\n"
    )
    for books, where in (("", "autopilothq"), ("other", "other")):
        dlt.config["books_dataset"] = books
        for command in (("load", "archive", file), ("forget", "--user-id", "u1", "--dry-run")):
            said = call(*command, *place)
            assert (said.status, said.err) == (1, lost.format(where))

    said = call("load", "archive", file, *apart, "--dataset", "second")
    assert said.status == 1
    assert said.err == (
        "Error: The books in keeping tell of files that were loaded into another dataset than second, or into tables"
        " that are gone. Give each dataset books of its own: --books-dataset second_books. Or drop the schema"
        " keeping, and all files are read again.\n"
    )
    assert tables(place)["keeping"] == before["keeping"]
    assert not tables(place).get("second")
    assert "_audit" not in tables(place)["autopilothq"] | tables(place).get("other", set())

    assert loaded(call, file, *place, "--dataset", "second", "--books-dataset", "second_books") == (1, 2, 0, 1)
    assert loaded(call, file, *apart) == (0, 0, 0, 0)
