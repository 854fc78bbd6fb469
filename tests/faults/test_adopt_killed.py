"""After `kill -9` during an adoption, and after two adoptions at once, all is as if nothing had happened."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import forked
from adopted import exported, tables
from autopilothq.sources.adopt.buffer import KILL_POINT_ROWS_BUFFERED
from autopilothq.sources.adopt.latest import KILL_POINT_OWN_ROWS_MADE
from autopilothq.warehouses.duckdb import KILL_POINT_ROWS_INSERTED
from faults.killed import MAIN
from shared_loads import command, isolation

TABLES = ("email_opened", "email_clicked", "email_bounced", "identifies", "users", "accounts", "tracks", "_rejects")
POINTS = {
    "some files are buffered": (KILL_POINT_ROWS_BUFFERED, "after", 3),
    "the rows of users are made": (KILL_POINT_OWN_ROWS_MADE, "after", 1),
    "the rows of a table are stored": (KILL_POINT_ROWS_INSERTED, "after", 1),
    "the rows of most tables are stored": (KILL_POINT_ROWS_INSERTED, "after", 5),
    "the load is to be noted": ("dlt.destinations.job_client_impl:SqlJobClientBase.complete_load", "before", 1),
}
Content = dict[str, list[dict[str, object]]]


def content(file: Path) -> Content:
    """Returns the tables without the cells that differ between any two loads."""
    return tables(file, TABLES, without=("rejected_at",))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Content]]:
    home = tmp_path_factory.mktemp("undisturbed")
    with isolation(home):
        folder = exported(home / "unload")
        assert command("adopt", str(folder)).status == 0
        yield folder, content(Path("autopilot.duckdb").absolute())


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_adoption_is_completed_by_the_next(undisturbed: tuple[Path, Content], point: str) -> None:
    folder, expected = undisturbed
    code = f"from faults.killed import kill_at; kill_at(*{POINTS[point]!r}); {MAIN}"
    assert forked.start("-c", code, "adopt", str(folder)).wait(60) == -signal.SIGKILL
    said = command("adopt", str(folder))
    assert said.status == 0, said.err
    assert content(Path("autopilot.duckdb")) == expected


def test_two_adoptions_at_once_store_each_row_once(undisturbed: tuple[Path, Content]) -> None:
    folder, expected = undisturbed
    words = ("-c", MAIN, "adopt", str(folder), "--wait", "1m")
    both = [forked.start(*words), forked.start(*words)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert content(Path("autopilot.duckdb")) == expected
