"""An archive restores the texts that Segment cut in adopted rows (docs/contract/adopt.md#cut-text)."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dlt
import psycopg2
import pyarrow as pa
import pytest

import autopilothq
import forked
from adopted import Row
from autopilothq.warehouses.delta import KILL_POINT_ROWS_REPLACED
from cut import CHANGED, DUCKS, URL, archive, of_duckdb, of_lake, of_postgres, opened, tables, unload, write
from faults.killed import MAIN
from servers import Postgres, ask
from shared_loads import command, isolation

PAGE = {"context_page_url": URL}
WHOLE = {
    "email_opened": {
        "o1": {"note": DUCKS, "campaign_name": URL, "tree_deep": URL, **PAGE},
        "o2": PAGE,
        "o3": PAGE,
        "o4": PAGE,
        "o5": {"note": URL, **PAGE},
        "o6": {"note": URL, **PAGE},
        "nowhere": {},
    },
    "tracks": {"o1": PAGE, "o2": PAGE, "o3": PAGE, "o4": PAGE, "o5": PAGE, "o6": PAGE, "t1": PAGE, "nowhere": {}},
    "identifies": {"i1": {"bio": URL, **PAGE}},
}
NEW = {"email_opened": {"new", "early"}, "tracks": {"new", "early"}, "identifies": set()}
MERGE = "dlt.destinations.job_client_impl:SqlLoadJob.run"
Tables = dict[str, list[Row]]


def check(before: Tables, after: Tables) -> None:
    """Checks that cut texts are whole, all other cells are unchanged, and new rows are stored."""
    for table, whole in WHOLE.items():
        old, found = ({row["id"]: row for row in of[table]} for of in (before, after))
        assert {id_: found[id_] for id_ in old} == {id_: old[id_] | whole[id_] for id_ in old}, table
        assert found.keys() - old.keys() == NEW[table]
    [user], [was] = ([row | {"uuid_ts": ""} for row in of["users"]] for of in (after, before))
    assert user == was | {"bio": URL, **PAGE}


class Mended:
    """An adoption, a load of an archive, and another load of that archive with a changed message."""

    def __init__(self, home: Path) -> None:
        rows = of_duckdb("autopilot.duckdb")
        self.archive = archive(home / "archive")
        assert command("adopt", str(unload(home / "unload"))).status == 0
        self.before = tables(rows)
        self.adopted = shutil.copy("autopilot.duckdb", home / "adopted.duckdb")
        self.said = command("load", "archive", str(self.archive))
        self.after = tables(rows)
        self.status = command("status")
        again = write(shutil.copytree(self.archive, home / "again"), {"3.json": CHANGED})
        self.again = command("load", "archive", str(again), "--json")
        self.at_last = tables(rows)


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mended]:
    home = tmp_path_factory.mktemp("mended")
    with isolation(home):
        yield Mended(home)


def test_what_was_cut_becomes_whole_and_nothing_else_changes(mended: Mended) -> None:
    check(mended.before, mended.after)
    assert [row["mended"] for row in mended.after["_audit"]] == [10, 4, 0, 0, 0]
    assert "\n14 texts that were cut are whole again\n" in mended.said.out
    assert ", 8 duplicates, 0 rejected, 14 mended" in mended.status.out


def test_what_is_whole_or_was_no_adopted_row_stays(mended: Mended) -> None:
    report = json.loads(mended.again.out)
    assert (report["lines"], report["stored"], report["duplicates"], report["mended"]) == (12, 0, 12, 0)
    assert {table: mended.at_last[table] for table in WHOLE} == {table: mended.after[table] for table in WHOLE}


def load_with_a_kill(point: tuple[str, str, int], *words: str) -> None:
    """Kills a load, and loads again on a machine that knows only the destination."""
    code = f"from faults.killed import kill_at; kill_at(*{point!r}); {MAIN}"
    assert forked.start("-c", code, *words).wait(60) == -signal.SIGKILL
    shutil.rmtree(os.environ["DLT_DATA_DIR"])
    shutil.rmtree("lake/autopilothq/_locks", ignore_errors=True)  # its lease would expire in a minute
    said = command(*words)
    assert said.status == 0, said.err


def test_the_load_after_a_killed_one_mends_the_texts(mended: Mended) -> None:
    shutil.copy(mended.adopted, "autopilot.duckdb")
    load_with_a_kill((MERGE, "before", 4), "load", "archive", str(mended.archive))
    check(mended.before, tables(of_duckdb("autopilot.duckdb")))


def test_the_same_in_a_lake(mended: Mended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", "lake")
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
    rows, words = of_lake("lake"), ("--destination", "filesystem")
    assert command("adopt", str(unload(tmp_path / "unload")), *words).status == 0
    before = tables(rows)
    load_with_a_kill((KILL_POINT_ROWS_REPLACED, "after", 2), "load", "archive", str(mended.archive), *words)
    check(before, tables(rows))


@pytest.fixture(scope="module")
def adopted_postgres(postgresql: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL with the adopted tables, which tests copy."""
    home = tmp_path_factory.mktemp("unloaded")
    with postgresql.database() as url:
        with isolation(home):
            said = command("adopt", str(unload(home / "unload")), "--destination", "postgres", "--credentials", url)
        assert said.status == 0, said.err
        yield url


@pytest.fixture
def adopted(postgresql: Postgres, adopted_postgres: str) -> Iterator[str]:
    """The URL of a PostgreSQL of the test's own with the adopted tables."""
    with postgresql.database(like=adopted_postgres) as url:
        yield url


def test_the_same_in_postgresql(mended: Mended, adopted: str) -> None:
    words = ("--destination", "postgres", "--credentials", adopted)
    before = tables(of_postgres(adopted))
    assert command("load", "archive", str(mended.archive), *words).status == 0
    after = tables(of_postgres(adopted))
    check(before, after)
    assert [row["mended"] for row in after["_audit"]] == [10, 4, 0, 0, 0]


def test_a_text_stays_cut_where_its_column_has_no_room(postgres: str, tmp_path: Path) -> None:
    with closing(psycopg2.connect(postgres)) as server, server, server.cursor() as cursor:
        cursor.execute("CREATE SCHEMA autopilothq")
        cursor.execute("CREATE TABLE autopilothq.email_opened (id varchar(512) PRIMARY KEY, note varchar(512))")
    words = ("--destination", "postgres", "--credentials", postgres)
    rows = [{"id": "o5", "note": URL[:512]}]
    assert command("adopt", str(unload(tmp_path / "unload", {"email_opened": rows})), *words).status == 0
    before = tables(of_postgres(postgres), ("email_opened", "tracks"))
    said = command("load", "archive", str(write(tmp_path / "archive", {"1.json": [opened("o5", note=URL)]})), *words)
    assert "Warning: Texts of 1 row of email_opened stay cut: note has no room for the whole texts.\n" in said.err
    assert "1 line, 0 stored, 1 duplicate, 0 rejected" in said.out
    after = tables(of_postgres(postgres), ("email_opened", "tracks"))
    assert after == before | {"tracks": [before["tracks"][0] | PAGE]}


def test_rows_that_postgresql_does_not_let_go_stay_cut(adopted: str, tmp_path: Path) -> None:
    words = ("--destination", "postgres", "--credentials", adopted)
    ask(adopted, "ALTER TABLE autopilothq.email_opened ADD upper_note text GENERATED ALWAYS AS (upper(note)) STORED")
    ask(adopted, "ALTER TABLE autopilothq.identifies ADD UNIQUE (id)")
    ask(adopted, "CREATE TABLE mine (id varchar REFERENCES autopilothq.identifies (id) ON DELETE CASCADE)")
    ask(adopted, "INSERT INTO mine VALUES ('i1')")
    said = command("load", "archive", str(archive(tmp_path / "archive")), *words)
    assert said.status == 0, said.err
    why = "stay cut: PostgreSQL generates a column of the table, or a foreign key refers to its rows."
    assert f"Texts of 6 rows of email_opened {why}" in said.err
    assert f"Texts of 1 row of identifies {why}" in said.err
    assert ask(adopted, "SELECT id FROM mine") == [("i1",)]
    lengths = "SELECT id, length(context_page_url) FROM autopilothq.{} WHERE id IN ('o1', 'i1', 'new') ORDER BY 2"
    assert ask(adopted, lengths.format("email_opened")) == [("o1", 512), ("new", len(URL))]
    assert ask(adopted, lengths.format("identifies")) == [("i1", 512)]
    assert sorted(ask(adopted, lengths.format("tracks"))) == [("new", len(URL)), ("o1", len(URL))]


def test_a_step_of_a_user_sees_no_adopted_row_again(mended: Mended) -> None:
    own = dlt.destinations.duckdb(shutil.copy(mended.adopted, "own.duckdb"))
    seen: list[str] = []

    def look(rows: pa.Table) -> pa.Table:
        seen.extend(rows["id"].to_pylist())
        return rows

    reports: list[autopilothq.LoadReport] = []
    source = autopilothq.archive(str(mended.archive), progress=reports.append)
    source.resources["email_opened"].add_map(look)
    dlt.pipeline("own", destination=own, dataset_name="autopilothq").run(source)
    assert sorted(seen) == ["early", "new"]
    found = tables(of_duckdb("own.duckdb"))
    assert {row["id"] for row in found["email_opened"] if row["context_page_url"] == URL} == {"early", "new"}
    assert {row["id"] for row in found["tracks"] if row["context_page_url"] != URL} == {"nowhere"}
    assert reports[-1].warnings == [
        "Texts of 6 rows of email_opened stay cut: a step of yours, or a schema contract, would see these rows again."
    ]
