"""`kill -9` while a load mends adopted rows: what follows is as if nothing had happened, and no text stays cut."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import forked
from adopted import Row
from autopilothq.projection.mend import KILL_POINT_MENDS_FOUND
from autopilothq.warehouses.delta import KILL_POINT_ROWS_REPLACED
from autopilothq.warehouses.duckdb import KILL_POINT_ROWS_COPIED
from cut import archive, of_duckdb, of_lake, tables, unload
from shared_loads import command, isolation

MERGE = "dlt.destinations.job_client_impl:SqlLoadJob.run"
NOTED = "dlt.destinations.job_client_impl:SqlJobClientBase.complete_load"
POINTS = {
    "the mends are found": ((KILL_POINT_MENDS_FOUND, "after", 1), False),
    "a file is in staging": ((KILL_POINT_ROWS_COPIED, "after", 2), False),
    "a table is mended": ((MERGE, "after", 1), False),
    "some tables are mended": ((MERGE, "before", 4), False),
    "some tables are mended, on a new machine": ((MERGE, "before", 4), True),
    "all but the note": ((NOTED, "before", 1), False),
    "all but the note, on a new machine": ((NOTED, "before", 1), True),
}
LAKE_POINTS = {
    "rows are replaced": ((KILL_POINT_ROWS_REPLACED, "after", 1), False),
    "rows of some tables are replaced, on a new machine": ((KILL_POINT_ROWS_REPLACED, "after", 2), True),
}
MAIN = "import sys; sys.argv[0] = 'autopilothq'; from autopilothq.cli import main; main()"
Content = dict[str, list[Row]]
LOCK = "lake/autopilothq/_locks"
SETTINGS = {"DESTINATION__FILESYSTEM__BUCKET_URL": "lake", "SOURCES__AUTOPILOTHQ__TABLE_FORMAT": "delta"}


class Undisturbed:
    """Adopted rows in a destination, an archive, and what the tables have after a load of it."""

    def __init__(self, home: Path, rows: Callable[[str], list[Row]], *words: str) -> None:
        self.rows = rows
        assert command("adopt", str(unload(home / "unload")), *words).status == 0
        self.adopted = shutil.copytree(home / "work", home / "adopted")
        self.load = ("load", "archive", str(archive(home / "archive")), *words)
        assert command(*self.load).status == 0
        self.expected = content(rows)


def content(rows: Callable[[str], list[Row]]) -> Content:
    """The tables, without what tells one load from another."""
    clocks = ("uuid_ts", "load_id", "loaded_at")
    return {
        table: [{name: value for name, value in row.items() if name not in clocks} for row in found]
        for table, found in tables(rows).items()
    }


@pytest.fixture(scope="module")
def in_duckdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    home = tmp_path_factory.mktemp("duckdb")
    with isolation(home):
        yield Undisturbed(home, of_duckdb("autopilot.duckdb"))


@pytest.fixture(scope="module")
def in_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    home = tmp_path_factory.mktemp("lake")
    with isolation(home), pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in SETTINGS.items():
            monkeypatch.setenv(name, value)
        yield Undisturbed(home, of_lake("lake"), "--destination", "filesystem")


def kill_and_load(undisturbed: Undisturbed, point: tuple[str, str, int], new_machine: bool) -> None:
    """Kills a load into a copy of the adopted rows, loads once more, and compares."""
    shutil.copytree(undisturbed.adopted, ".", dirs_exist_ok=True)
    code = f"from faults.killed import kill_at; kill_at(*{point!r}); {MAIN}"
    assert forked.start("-c", code, *undisturbed.load).wait(60) == -signal.SIGKILL
    shutil.rmtree(LOCK, ignore_errors=True)  # a lease, which would be void in a minute
    if new_machine:
        shutil.rmtree(os.environ["DLT_DATA_DIR"])
    said = command(*undisturbed.load)
    assert said.status == 0, said.err
    found, expected = content(undisturbed.rows), undisturbed.expected
    books = {"_audit"} if new_machine else set()  # what the killed load stored and mended is not counted again
    assert {name: of for name, of in found.items() if name not in books} == {
        name: of for name, of in expected.items() if name not in books
    }


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_load_mends_in_the_next(in_duckdb: Undisturbed, point: str) -> None:
    kill_and_load(in_duckdb, *POINTS[point])


@pytest.mark.parametrize("point", LAKE_POINTS)
def test_the_same_in_a_lake(in_lake: Undisturbed, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    kill_and_load(in_lake, *LAKE_POINTS[point])
