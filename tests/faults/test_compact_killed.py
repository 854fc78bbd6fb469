"""Small files of a receiver that are put together, and kills between all steps: nothing is stored or counted twice."""

import json
import shutil
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

import forked
from autopilothq import compaction
from autopilothq.receive import files
from autopilothq.receive.publishing import alone
from calling import Call, errors
from faults import killed_compaction
from faults.test_killed import clean_environment
from receiving import hidden, published
from servers import Postgres

DAY = 86_400.0
# After the n-th call of each step, in their order, of the first of two new files.
POINTS: dict[str, tuple[str, str, int]] = {
    "begin": (compaction.KILL_POINT_JOINED, "before", 1),
    "joined": (compaction.KILL_POINT_JOINED, "after", 1),
    "journal": (compaction.KILL_POINT_JOURNAL_WRITTEN, "after", 1),
    "row": (compaction.KILL_POINT_ROW_INSERTED, "after", 1),
    "named": (compaction.KILL_POINT_FILE_NAMED, "after", 1),
    "old file": (compaction.KILL_POINT_OLD_FILE_DELETED, "after", 2),
    "old files": (compaction.KILL_POINT_COUNTS_MOVED, "before", 1),
    "counts": (compaction.KILL_POINT_COUNTS_MOVED, "after", 1),
    "second file": (compaction.KILL_POINT_FILE_NAMED, "after", 2),
}


def message(number: int) -> dict[str, Any]:
    return {
        "type": "track", "event": "Email Opened", "userId": "1", "messageId": f"m{number}",
        "receivedAt": f"2026-05-04T10:00:{number:02}.000Z",
    }  # fmt: skip


def receive(folder: Path, endpoint: str, day: int, *numbers: int, more: bytes = b"") -> Path:
    """Publishes a file that was begun so many days ago, shortly after noon."""
    file = files.open_file(
        folder / "archive", endpoint, files.today(time.time()) / 1000 - (day - 0.5) * DAY + numbers[0]
    )
    file.append([json.dumps(message(number)).encode() + b"\n" for number in numbers] + [more])
    file.close()
    done = files.publish(file.path)
    assert done
    return done


def prepare(folder: Path, call: Call) -> None:
    """A folder with files that can be put together (3 of v1 and 2 of shop), files that cannot, and their books."""
    for number in range(3):
        receive(folder, "v1", 3, number, 10 + number)
    for number in (3, 4):
        receive(folder, "segment-shop", 3, number)
    receive(folder, "v1", 5, 5)  # alone in its day
    receive(folder, "v1", 3, 6, more=b"nonsense\n")  # has a reject
    receive(folder, "v1", 3, 0)  # has a duplicate, and may be put together
    load(folder, call)
    receive(folder, "v1", 3, 7)  # of the newest load
    load(folder, call)
    receive(folder, "v1", 3, 8)  # not loaded


def load(folder: Path, call: Call) -> None:
    said = call("load", "archive", str(folder / "archive"), "--credentials", str(folder / "autopilot.duckdb"))
    assert said.status == 0, said.err


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "autopilot.duckdb")) as connection:
        return connection.execute(sql).fetchall()


def sums(folder: Path) -> list[tuple[Any, ...]]:
    columns = "sum(lines), sum(stored), sum(duplicates), sum(rejected), min(first_received_at), max(last_received_at)"
    return rows(folder, f"SELECT {columns} FROM autopilothq._audit")


def books(folder: Path) -> list[tuple[Any, ...]]:
    """What `_audit` says of each file, without names."""
    columns = "lines, stored, duplicates, rejected, skipped, tables, first_received_at, last_received_at"
    order = "ORDER BY ALL"
    return rows(folder, f"SELECT split_part(file, '/segment-logs/', 2)[:10], {columns} FROM autopilothq._audit {order}")


def messages(folder: Path) -> list[str]:
    return sorted(map(str, published(folder / "archive")))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compacting")


@pytest.fixture
def loaded(house: Path, call: Call) -> Path:
    """The prepared folder, made once."""
    folder = house / "loaded"
    if not folder.exists():
        prepare(folder, call)
    return folder


def copy(loaded: Path, name: str) -> Path:
    """A copy of the prepared folder, whose books know its files by their paths there."""
    folder = loaded.with_name(name)
    shutil.copytree(loaded, folder)
    rows(folder, f"UPDATE autopilothq._audit SET file = replace(file, '{loaded}', '{folder}')")
    return folder


def compact(folder: Path, call: Call, *words: str) -> tuple[int, str, list[str]]:
    credentials = str(folder / "autopilot.duckdb")
    said = call("receive", str(folder / "archive"), "--compact", "--credentials", credentials, *words)
    return said.status, said.out, errors(said)


def test_what_is_put_together(loaded: Path, call: Call) -> None:
    folder = copy(loaded, "undisturbed")
    before = messages(folder), sums(folder)
    status, out, problems = compact(folder, call)
    assert (status, problems) == (0, [])
    sizes = [path.stat().st_size for path in files.published_files(folder / "archive")]
    new = rows(folder, "SELECT file, size, lines, duplicates FROM autopilothq._audit WHERE lines IN (7, 2) ORDER BY 3")
    assert [(lines, duplicates) for _, _, lines, duplicates in new][-1] == (7, 1)
    shop = [size for file, size, *_ in new if "segment-shop" in file]
    assert out == f"6 files became 2 files of {new[-1][1] + shop[0]:,} bytes.\n"
    assert len(sizes) == 10 - 4
    assert (messages(folder), sums(folder)) == before
    assert hidden(folder / "archive") == []
    assert compact(folder, call)[1].startswith("No files are to be put together")
    after = rows(folder, "SELECT * FROM autopilothq._audit ORDER BY file")
    load(folder, call)  # the one file that was not loaded
    known = rows(folder, "SELECT * FROM autopilothq._audit ORDER BY file")
    assert set(after) < set(known)
    assert len(known) == len(after) + 1
    assert rows(folder, "SELECT count(*) FROM autopilothq.email_opened") == [(12,)]


def kill(loaded: Path, name: str, why: str = "killed") -> tuple[Path, int]:
    folder = copy(loaded, f"{why} {name}")
    plans = folder / "plans.json"
    plans.write_text(json.dumps([(str(folder), POINTS[name])]))
    done = forked.run(killed_compaction.__file__, str(plans), cwd=folder, env=clean_environment())
    assert done.stdout, done.stderr
    return folder, int(done.stdout.split()[1])


@pytest.mark.parametrize("name", POINTS)
def test_a_kill_after_each_step(loaded: Path, call: Call, name: str) -> None:
    undisturbed = loaded.with_name("undisturbed too")
    if not undisturbed.exists():
        copy(loaded, undisturbed.name)
        compact(undisturbed, call)
        load(undisturbed, call)
        compact(undisturbed, call)  # what was of the newest load then, too
    folder, status = kill(loaded, name)
    assert status == -signal.SIGKILL
    before = sums(folder)
    assert before == sums(loaded)
    load(folder, call)
    assert rows(folder, "SELECT sum(duplicates), sum(stored) FROM autopilothq._audit") == [(1, 12)]
    assert compact(folder, call)[0] == 0
    assert books(folder) == books(undisturbed)
    assert messages(folder) == messages(loaded)
    assert hidden(folder / "archive") == []
    loads = rows(folder, "SELECT * FROM autopilothq._audit ORDER BY file")
    load(folder, call)
    assert rows(folder, "SELECT * FROM autopilothq._audit ORDER BY file") == loads
    assert rows(folder, "SELECT count(*) FROM autopilothq.email_opened") == [(12,)]


def test_a_person_is_forgotten_after_a_kill(loaded: Path, call: Call) -> None:
    for name in ("joined", "named"):
        folder, _ = kill(loaded, name, "forgotten")
        credentials = str(folder / "autopilot.duckdb")
        words = ("forget", "--user-id", "1", "--credentials", credentials, "--archive", str(folder / "archive"))
        said = call(*words)
        assert said.status == 0, said.err
        assert messages(folder) == ["nonsense"]
        assert [file for file in hidden(folder / "archive") if not file.endswith(compaction.JOURNAL)] == []
        assert compact(folder, call)[0] == 0
        assert messages(folder) == ["nonsense"]
        assert hidden(folder / "archive") == []


def test_another_target_and_another_program(loaded: Path, call: Call) -> None:
    folder, _ = kill(loaded, "named", "another")
    other = folder / "other.duckdb"
    assert call("load", "archive", str(folder / "archive"), "--credentials", str(other)).status == 0
    said = call("receive", str(folder / "archive"), "--compact", "--credentials", str(other))
    assert said.status == 1
    assert "where a compaction was cut off" in errors(said)[0]
    with alone(folder / "archive"):
        status, _, [problem, hint] = compact(folder, call)
    assert (status, hint) == (75, "Try again when it has ended.")
    assert "but another program compacts them, or forgets a person." in problem
    assert compact(folder, call)[0] == 0


def test_books_in_postgresql(tmp_path: Path, call: Call, postgresql: Postgres) -> None:
    with postgresql.database() as credentials:
        target = ("--destination", "postgres", "--credentials", credentials)
        for number in range(4):
            receive(tmp_path, "v1", 3, number)
        assert call("load", "archive", str(tmp_path / "archive"), *target).status == 0
        last = receive(tmp_path, "v1", 3, 5)
        assert call("load", "archive", str(tmp_path / "archive"), *target).status == 0
        said = call("receive", str(tmp_path / "archive"), "--compact", *target)
        assert (said.status, errors(said)) == (0, [])
        [new] = set(files.published_files(tmp_path / "archive")) - {last}
        assert said.out == f"4 files became 1 file of {new.stat().st_size:,} bytes.\n"
        assert call("load", "archive", str(tmp_path / "archive"), *target).status == 0
        with closing(psycopg2.connect(credentials)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT file, lines, stored, duplicates, skipped FROM autopilothq._audit ORDER BY lines")
            assert cursor.fetchall() == [(str(last), 1, 1, 0, 0), (str(new), 4, 4, 0, 0)]
    assert hidden(tmp_path / "archive") == []


def test_what_is_refused(tmp_path: Path, call: Call) -> None:
    receive(tmp_path, "v1", 3, 1)
    said = call("receive", str(tmp_path / "no such"), "--compact")
    assert (said.status, errors(said)) == (
        1,
        [f"Error: Expected a receiver's folder at {tmp_path / 'no such'}, but nothing is there."],
    )
    said = call("receive", str(tmp_path / "archive"), "--compact")
    assert said.status == 1
    assert errors(said)[0].startswith("Error: There is no dataset autopilothq, so no file is loaded there yet.")
    said = call("receive", str(tmp_path / "archive"), "--compact", "--upload", "s3://bucket")
    assert said.status == 2
