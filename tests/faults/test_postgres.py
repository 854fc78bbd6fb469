"""A real PostgreSQL gets the same tables as DuckDB, row by row and type by type."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random
from string import ascii_letters
from typing import Any, NamedTuple

import psycopg2
import pytest

import forked
from autopilothq.catalog import LIMITS
from autopilothq.warehouses.dataset import open_dataset, sql_arrow
from autopilothq.warehouses.postgres import postgres as postgres_destination
from faults import killed
from faults.killed import Plan
from faults.loads import (
    ODDITIES,
    Table,
    assert_same,
    assert_sound,
    content,
    file,
    in_memory,
    load,
    messages,
    odd_archive,
    pipeline,
    track,
)
from servers import Postgres, ask
from shared_loads import isolation

LONG_EVENT = "An event whose name is longer than the sixty three bytes that PostgreSQL has for it"
LONG = "a_property_whose_name_is_longer_than_the_sixty_three_bytes_that_postgresql_has_for_it"

# Settings that a database or role may have for its sessions, and that change how values are read or written.
SETTINGS = (
    "client_encoding = 'LATIN1'",
    "extra_float_digits = -15",
    "datestyle = 'SQL, DMY'",
    "timezone = 'Asia/Kathmandu'",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "search_path = ''",
    "quote_all_identifiers = on",
)


def test_has_the_same_tables_as_duckdb_and_stores_nothing_twice(tmp_path: Path, postgres: str) -> None:
    archive = odd_archive(tmp_path / "archive", 300, [*ODDITIES, track(14, properties={"price": 0.1 + 0.2})])
    ask(postgres, "".join(f"ALTER DATABASE {postgres.rpartition('/')[2]} SET {setting};" for setting in SETTINGS))
    into = pipeline(tmp_path / "postgres", postgres_destination(f"{postgres}?client_encoding=latin1"))
    assert load(into, archive).files_known == 0
    database = in_memory()
    load(pipeline(tmp_path, database), archive)
    tables = content(f"{postgres}?client_encoding=utf8")
    assert_sound(tables)
    assert_same(tables, content(database))
    assert tables["_audit"].total("stored") == messages(tables) > 300

    replay = tmp_path / "replay"
    shutil.copytree(archive, replay)
    report = load(into, replay)
    assert (report.stored, report.duplicates + report.rejected) == (0, report.lines)
    again = content(f"{postgres}?client_encoding=utf8")
    assert len(again["_audit"].rows) == 2 * len(tables["_audit"].rows)
    # A rejected line has a row for each of its places.
    assert len(again["_rejects"].rows) == 2 * len(tables["_rejects"].rows)
    # All other rows are untouched by the replay.
    assert_same(again, tables, but=["_audit", "_rejects"])
    assert load(into, replay).files == 0


def test_goes_on_with_the_tables_that_another_loader_made(tmp_path: Path, postgres: str) -> None:
    """Segment's own loader created the schema: its rows stay, and are not loaded again."""
    archive = tmp_path / "archive"
    file(archive, "a.gz", [track(1), track(2)])
    with closing(psycopg2.connect(postgres)) as server, server, server.cursor() as cursor:
        cursor.execute("CREATE SCHEMA autopilothq")
        for table in ("tracks", "email_opened"):
            cursor.execute(
                f"CREATE TABLE autopilothq.{table} (id varchar(512), received_at timestamptz, uuid bigint,"
                " uuid_ts timestamptz, user_id varchar(512), event varchar(512))"
            )
            cursor.execute(
                f"INSERT INTO autopilothq.{table} VALUES ('m-1', now(), 1, now(), 'segment', 'email_opened')"
            )
    report = load(pipeline(tmp_path, postgres_destination(postgres)), archive)
    assert (report.stored, report.duplicates) == (1, 1)
    for table in ("tracks", "email_opened"):
        rows = content(postgres)[table].dicts()
        assert sorted((row["id"], row["user_id"]) for row in rows) == [("m-1", "segment"), ("m-2", "u")]


JOBS = "dlt.destinations.job_client_impl:SqlLoadJob.run"
COPIES = "dlt.destinations._adbc_jobs:AdbcParquetCopyJob.run"
# The machine of the next load, and the kill.
KILLS: dict[str, tuple[str, tuple[str, str, int]]] = {
    "on a new machine": ("new machine", (JOBS, "after", 5)),
    "on the same machine": ("killed", (COPIES, "after", 9)),
}


def test_completes_loads_that_were_killed(tmp_path: Path, postgresql: Postgres) -> None:
    archive = tmp_path / "archive"
    with ExitStack() as stack:
        databases = {name: stack.enter_context(postgresql.database()) for name in KILLS}
        # These persons are stored already, and the killed load changes them.
        file(archive, "1.gz", [track(1, type="identify", userId=f"{n}", messageId=f"i-{n}") for n in range(5)])
        for name, url in databases.items():
            load(pipeline(tmp_path / name / "killed", postgres_destination(url)), archive)
        odd_archive(archive, 0)
        file(archive, "2.gz", [track(2, type="identify", userId=f"{n}", messageId=f"j-{n}") for n in range(5)])
        kill(tmp_path, archive, databases)

        database = in_memory()
        load(pipeline(tmp_path, database), archive)
        undisturbed = content(database)
        for name, url in databases.items():
            machine, _ = KILLS[name]
            load(pipeline(tmp_path / name / machine, postgres_destination(url)), archive)
            tables = content(url)
            assert_sound(tables)
            assert_same(tables, undisturbed, but=["_audit"])


def kill(folder: Path, archive: Path, databases: dict[str, str]) -> None:
    """Runs a load for each of KILLS, which ends by `kill -9`."""
    plans = [
        Plan(str(archive), str(folder / name / "killed"), point, postgres=databases[name])
        for name, (_, point) in KILLS.items()
    ]
    (folder / "plans.json").write_text(json.dumps(plans))
    done = forked.run(killed.__file__, str(folder / "plans.json"), env={"RUNTIME__DLTHUB_TELEMETRY": "false"})
    assert sorted(done.stdout.splitlines()) == [f"{number} -9" for number in range(len(KILLS))], done.stderr


TEXT = "🎉 \\N \\\\ \t\r\n 'quoted' \"double\" ,; NULL"
WORDS = {word: f"{word}!" for word in ("order", "user", "select", "table", "primary", "when")}


KEYS = ["".join(Random(1).choices(ascii_letters, k=LIMITS["postgres"].key_bytes or 0)) + more for more in ("", "x")]
# The path of this file is too long for a key as well; its parts are as long as a file system allows.
KEYS_FILE = "/".join([*(KEYS[0][at : at + 240] for at in range(0, 2_640, 240)), "keys.gz"])


def write_loads(archive: Path) -> Iterator[None]:
    """Writes the files of three loads, pausing after each; each test below has its own files."""
    file(archive, "parts.gz", [track(n, event="Parts") for n in range(200, 205)])
    keys: list[Any] = [track(501, messageId=key, event="Keys") for key in KEYS]
    keys += [track(0, type="group", messageId=f"k-{number}", groupId=key) for number, key in enumerate(KEYS)]
    keys += [track(0, type="identify", messageId="l", userId=KEYS[1])]
    file(archive, KEYS_FILE, keys)
    file(archive, "text.gz", [track(301, event="Text", properties={"note": TEXT, "nul": "a\0b", "empty": ""})])
    file(archive, "words 1.gz", [track(401, event="Order", properties=WORDS), track(402, event="Select")])
    for number in (1, 2, 3):
        long_one = {LONG: number if number < 3 else "three", "context": number}
        lines = [track(number, event=LONG_EVENT, properties=long_one), track(0, event=LONG_EVENT)]
        lines += [track(number + 10, properties={LONG: f"{number}"})]
        lines += [track(number, type="identify", userId="u", messageId=f"i-{number}", traits={LONG: number})]
        file(archive, f"long {number}.gz", lines)
        if number == 2:
            file(archive, "words 2.gz", [track(403, event="Order", properties=WORDS), track(401, event="Order")])
        yield


class Loaded(NamedTuple):
    """A database after three loads: its URL and its tables."""

    url: str
    tables: dict[str, Table]

    def counts(self, name: str) -> tuple[int, int]:
        """Returns how many lines of a file were stored, and how many were duplicates."""
        [row] = [row for row in self.tables["_audit"].dicts() if Path(row["file"]).name == name]
        return row["stored"], row["duplicates"]

    def discard(self, id_: str) -> tuple[str, str, str, str]:
        """Returns the table, column, value and reason of a row's only discard."""
        [row] = [row for row in self.tables["_discards"].dicts() if row["row_id"] == id_]
        return row["table_name"], row["column_name"], row["value"], row["reason"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, postgresql: Postgres) -> Iterator[Loaded]:
    home = tmp_path_factory.mktemp("loaded")
    with postgresql.database() as url:
        with isolation(home):
            for number, _ in enumerate(write_loads(home / "archive"), 1):
                # The third load runs on a machine that knows only the destination.
                machine = home / ("new machine" if number == 3 else "machine")
                load(pipeline(machine, postgres_destination(url)), home / "archive")
        yield Loaded(url, content(url))


def test_reads_what_is_there_in_parts(tmp_path: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_arrow, "CELLS_PER_READ", 4)
    into = pipeline(tmp_path, postgres_destination(loaded.url))
    into.sync_destination()
    there = open_dataset(into)
    assert there.tables(["parts", "nothing"]).keys() == {"parts"}
    parts = [batch.to_pydict() for batch in there.read("parts", ["id", "sent_at"])]
    assert [len(part["id"]) for part in parts] == [2, 2, 1]
    assert sorted(id_ for part in parts for id_ in part["id"]) == [f"m-{n}" for n in range(200, 205)]
    assert {time for part in parts for time in part["sent_at"]} == {None}


def test_keeps_text_that_is_hard_to_keep(loaded: Loaded) -> None:
    [row] = loaded.tables["text"].dicts()
    assert (row["note"], row["empty"], "nul" in row) == (TEXT, "", False)
    assert loaded.discard("m-301") == ("text", "nul", '"a\\u0000b"', "not_text")


def test_has_rows_of_the_longest_keys_and_rejects_longer_ones(loaded: Loaded) -> None:
    """They are rejected before the load: if the load failed, finding them would take many loads in parts."""
    assert loaded.counts("keys.gz") == (2, 0)
    assert [row["id"] for name in ("keys", "accounts") for row in loaded.tables[name].dicts()] == [KEYS[0]] * 2
    assert sorted(row["line"] for row in loaded.tables["_rejects"].dicts()) == [2, 4, 5]


def test_quotes_reserved_words(loaded: Loaded) -> None:
    assert loaded.counts("words 2.gz") == (1, 1)
    tables = loaded.tables
    assert [row["id"] for row in tables["order"].dicts()] == ["m-401", "m-403"]
    assert all(row[word] == WORDS[word] for row in tables["order"].dicts() for word in WORDS)
    assert [row["id"] for row in tables["select"].dicts()] == ["m-402"]


def test_finds_shortened_names_again(loaded: Loaded) -> None:
    assert [loaded.counts(f"long {number}.gz") for number in (1, 2, 3)] == [(4, 0), (3, 1), (3, 1)]
    tables = loaded.tables
    [name] = [table for table in tables if table.startswith("an_event")]
    [column] = [column for column in tables[name].columns if column.startswith("a_property")]
    assert (len(name), len(column)) == (63, 63)
    # A value that does not fit the first load's column is a discard under the column's unshortened name.
    assert cells(tables[name], column) == [("m-0", None), ("m-1", 1), ("m-2", 2), ("m-3", None)]
    assert tables[name].columns[column] == "bigint"
    assert loaded.discard("m-3")[:2] == (name, LONG)
    assert {row["row_id"] for row in tables["_discards"].dicts()} == {"m-3", "m-301"}
    assert cells(tables["email_opened"], column) == [("m-11", "1"), ("m-12", "2"), ("m-13", "3")]
    assert cells(tables["users"], column) == [("u", 3)]
    assert_sound(tables)


def cells(table: Table, column: str) -> list[tuple[object, object]]:
    return sorted((row["id"], row[column]) for row in table.dicts())
