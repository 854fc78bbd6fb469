"""Small files of a receiver are joined; a kill between any two steps makes nothing stored or counted twice."""

import json
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import psycopg2
import pytest

import forked
from autopilothq import compaction
from autopilothq.receive import files
from autopilothq.receive.publishing import alone
from autopilothq.warehouses.dataset import SqlDataset
from calling import Call, errors
from contract.duck import held
from faults import killed_compaction
from faults.test_killed import clean_environment
from receiving import hidden, published
from servers import Postgres
from shared_loads import command, isolation

DAY = 86_400.0
# The kills, in the order of the steps that make the first of two new files.
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


# Receivers' folders. All are loaded into one dataset, because that takes hardly longer than loading one.
FOLDERS = [*POINTS, "undisturbed"]


def message(number: int, of: str = "") -> dict[str, Any]:
    return {
        "type": "track", "event": "Email Opened", "userId": "1", "messageId": f"{of} m{number}",
        "receivedAt": f"2026-05-04T10:00:{number:02}.000Z",
    }  # fmt: skip


def receive(folder: Path, endpoint: str, day: int, *numbers: int, more: bytes = b"") -> Path:
    """Publishes a file that was begun `day` days ago, shortly after noon; returns its path."""
    file = files.open_file(
        folder / "archive", endpoint, files.midnight(time.time()) / 1000 - (day - 0.5) * DAY + numbers[0]
    )
    file.append([json.dumps(message(number, folder.name)).encode() + b"\n" for number in numbers] + [more])
    file.close()
    done = files.publish(file.path)
    assert done
    return done


def receive_first(folder: Path) -> None:
    """Publishes files that can be joined (3 of v1 and 2 of shop), and files that cannot."""
    for number in range(3):
        receive(folder, "v1", 3, number, 10 + number)
    for number in (3, 4):
        receive(folder, "segment-shop", 3, number)
    receive(folder, "v1", 5, 5)  # alone in its day
    receive(folder, "v1", 3, 6, more=b"nonsense\n")  # has a reject
    receive(folder, "v1", 3, 0)  # has a duplicate, and can be joined


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the home of the folders and their dataset; the books know all files but the last one of each folder."""
    home = tmp_path_factory.mktemp("compacting") / "loaded"
    folders = [home / name for name in FOLDERS]
    with isolation(home.parent):
        for folder in folders:
            receive_first(folder)
        with held(credentials(folders[0])):
            load(*folders)
            for folder in folders:
                receive(folder, "v1", 3, 7)  # the newest load
            load(*folders)
        for folder in folders:
            receive(folder, "v1", 3, 8)  # not loaded
    return home


def copy(loaded: Path, name: str) -> Path:
    """Copies the folders and the dataset, with the new paths in the books; returns the new home."""
    home = loaded.with_name(name)
    shutil.copytree(loaded, home)
    with duckdb.connect(str(home / "autopilot.duckdb")) as connection:
        connection.execute(f"UPDATE autopilothq._audit SET file = replace(file, '{loaded}', '{home}')")
    return home


def credentials(folder: Path) -> str:
    return str(folder.parent / "autopilot.duckdb")


def load(*folders: Path) -> None:
    archives = [str(folder / "archive") for folder in folders]
    said = command("load", "archive", *archives, "--credentials", credentials(folders[0]))
    assert said.status == 0, said.err


def rows(folder: Path, columns: str, order: str = "") -> list[tuple[Any, ...]]:
    """Returns columns of the rows of `_audit` for the folder's files."""
    sql = f"SELECT {columns} FROM autopilothq._audit WHERE starts_with(file, ?) {order}"
    with duckdb.connect(credentials(folder)) as connection:
        return connection.execute(sql, [f"{folder}/archive/"]).fetchall()


def stored(folder: Path) -> int:
    """Returns how many of the folder's messages are stored."""
    with duckdb.connect(credentials(folder)) as connection:
        sql = "SELECT count(*) FROM autopilothq.email_opened WHERE starts_with(id, ?)"
        return int(connection.execute(sql, [f"{folder.name} m"]).fetchall()[0][0])


def sums(folder: Path) -> list[tuple[Any, ...]]:
    return rows(
        folder,
        "sum(lines), sum(stored), sum(duplicates), sum(rejected), min(first_received_at), max(last_received_at)",
    )


def audit(folder: Path) -> list[tuple[Any, ...]]:
    return rows(folder, "*", "ORDER BY file")


def books(folder: Path) -> list[tuple[Any, ...]]:
    """Returns the counts in `_audit` for each file, without the files' names."""
    columns = "lines, stored, duplicates, rejected, skipped, tables, first_received_at, last_received_at"
    return rows(folder, f"split_part(file, '/segment-logs/', 2)[:10], {columns}", "ORDER BY ALL")


def messages(folder: Path) -> list[str]:
    return sorted(map(str, published(folder / "archive")))


def compact(folder: Path, *words: str) -> tuple[int, str, list[str]]:
    said = command("receive", str(folder / "archive"), "--compact", "--credentials", credentials(folder), *words)
    return said.status, said.out, errors(said)


def test_joined_files_keep_all_messages_and_counts(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy(loaded, "put together") / "undisturbed"
    [(joined,)] = rows(folder, "min(file)", "AND contains(file, '/segment-shop/')")
    with duckdb.connect(credentials(folder)) as connection:
        older = "SELECT * REPLACE ('older' AS version, 50 AS lines) FROM autopilothq._audit WHERE file = ?"
        connection.execute(f"INSERT INTO autopilothq._audit {older}", [joined])
    before = messages(folder), sums(folder)
    begun = {files.begun_at(path) for path in files.published_files(folder / "archive")}
    loads = set(rows(folder, "load_id, loaded_at"))
    monkeypatch.setattr(compaction, "FILES_PER_STATEMENT", 3)
    deletions: list[str] = []
    delete = SqlDataset.delete

    def noted(self: SqlDataset, table: str, where: str, values: Sequence[Any]) -> None:
        deletions.append(table)
        delete(self, table, where, values)

    monkeypatch.setattr(SqlDataset, "delete", noted)
    status, out, problems = compact(folder)
    assert (status, problems) == (0, [])
    # Two statements for the day of four files, one for that of two: each reads all rows, so there is not one per file.
    assert deletions == ["_audit"] * 3
    assert rows(folder, "file, version", "AND lines = 50") == [(joined, "older")]
    sizes = [path.stat().st_size for path in files.published_files(folder / "archive")]
    new = [row for row in rows(folder, "file, size, lines, duplicates", "ORDER BY lines") if row[2] in (7, 2)]
    assert [(lines, duplicates) for _, _, lines, duplicates in new][-1] == (7, 1)
    assert {files.begun_at(Path(file)) for file, *_ in new} <= begun
    assert set(rows(folder, "load_id, loaded_at")) <= loads
    shop = [size for file, size, *_ in new if "segment-shop" in file]
    assert out == f"6 files became 2 files of {new[-1][1] + shop[0]:,} bytes.\n"
    assert len(sizes) == 10 - 4
    assert (messages(folder), sums(folder)) == before
    assert hidden(folder / "archive") == []
    assert compact(folder)[1].startswith("No files can be joined")
    after = audit(folder)
    load(folder)  # only one file is new
    known = audit(folder)
    assert set(after) < set(known)
    assert len(known) == len(after) + 1
    assert stored(folder) == 12


def kill(home: Path, *names: str) -> dict[str, int]:
    """Compacts the folders in processes that are killed at the points that name them; returns the exit statuses."""
    plans = home / "plans.json"
    plans.write_text(json.dumps([(str(home / name), POINTS[name]) for name in names]))
    done = forked.run(killed_compaction.__file__, str(plans), cwd=home, env=clean_environment())
    statuses = [int(text.split()[1]) for text in done.stdout.splitlines()]
    assert len(statuses) == len(names), done.stderr
    return dict(zip(names, statuses, strict=True))


class Found(NamedTuple):
    """A folder after the kill, after the next load, and after it was compacted and loaded once more."""

    status: int | None
    killed: list[tuple[Any, ...]]
    loaded: list[tuple[Any, ...]]
    compacted: int
    books: list[tuple[Any, ...]]
    messages: list[str]
    hidden: list[str]
    audit: list[tuple[Any, ...]]
    again: list[tuple[Any, ...]]
    stored: int


@pytest.fixture(scope="module")
def found(loaded: Path) -> dict[str, Found]:
    """Returns what is found in each folder; "undisturbed" has no kill. Each load takes all folders together."""
    home = copy(loaded, "killed")
    folders = [home / name for name in FOLDERS]
    with isolation(home), ExitStack() as ended:
        statuses = kill(home, *POINTS)
        ended.enter_context(held(credentials(folders[0])))
        killed = {folder: sums(folder) for folder in folders}
        assert compact(home / "undisturbed")[0] == 0
        load(*folders)
        after = {folder: rows(folder, "sum(duplicates), sum(stored)") for folder in folders}
        compacted = {folder: compact(folder)[0] for folder in folders}  # includes files of the then newest load
        left = {
            folder: (books(folder), messages(folder), hidden(folder / "archive"), audit(folder)) for folder in folders
        }
        load(*folders)
        return {
            one.name: Found(
                statuses.get(one.name), killed[one], after[one], compacted[one], *left[one], audit(one), stored(one)
            )
            for one in folders
        }


@pytest.mark.parametrize("name", POINTS)
def test_a_kill_after_each_step(loaded: Path, found: dict[str, Found], name: str) -> None:
    here, undisturbed = found[name], found["undisturbed"]
    assert here.status == -signal.SIGKILL
    assert here.killed == sums(loaded / name)
    assert here.loaded == [(1, 12)]
    assert here.compacted == 0
    assert here.books == undisturbed.books
    assert here.messages == messages(loaded / name)
    assert here.hidden == []
    assert here.again == here.audit
    assert here.stored == 12


def test_a_person_is_forgotten_after_a_kill(loaded: Path) -> None:
    home = copy(loaded, "forgotten")
    kill(home, "joined", "named")
    folders = [home / name for name in ("joined", "named")]
    archives = [word for folder in folders for word in ("--archive", str(folder / "archive"))]
    said = command("forget", "--user-id", "1", "--credentials", credentials(folders[0]), *archives)
    assert said.status == 0, said.err
    for folder in folders:
        assert messages(folder) == ["nonsense"]
        assert [file for file in hidden(folder / "archive") if not file.endswith(compaction.JOURNAL)] == []
        assert compact(folder)[0] == 0
        assert messages(folder) == ["nonsense"]
        assert hidden(folder / "archive") == []


def test_another_target_and_another_program(loaded: Path, call: Call) -> None:
    folder = copy(loaded, "another") / "named"
    kill(folder.parent, "named")
    other = folder.with_name("other.duckdb")
    assert call("load", "archive", str(folder / "archive"), "--credentials", str(other)).status == 0
    said = call("receive", str(folder / "archive"), "--compact", "--credentials", str(other))
    assert said.status == 1
    assert "where a compaction was cut off" in errors(said)[0]
    with alone(folder / "archive"):
        status, _, [problem, hint] = compact(folder)
    assert (status, hint) == (75, "Try again when it has ended.")
    assert "but another program compacts them, or forgets a person." in problem
    assert compact(folder)[0] == 0


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
