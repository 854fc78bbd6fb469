"""Files are known by their version: a loaded file is not read again unless it changes."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fsspec.implementations.local import LocalFileSystem

import autopilothq
from faults.loads import (
    DATASET,
    OLD_DAY,
    Table,
    assert_same,
    assert_sound,
    content,
    file,
    in_memory,
    load,
    pipeline,
    touch,
    track,
)

NEW_DAY = "1551484800000"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects the names of the files whose content is read."""
    names: list[str] = []
    open_file = LocalFileSystem.open

    def spy(self: LocalFileSystem, path: str, *args: Any, **kwargs: Any) -> Any:
        names.append(os.path.basename(path))
        return open_file(self, path, *args, **kwargs)

    monkeypatch.setattr(LocalFileSystem, "open", spy)
    return names


def ids(tables: dict[str, Table], table: str = "tracks") -> list[str]:
    return sorted(row["id"] for row in tables[table].dicts())


def stored(tables: dict[str, Table]) -> list[tuple[str, int, int]]:
    """Returns the file's name, the messages stored and the duplicates of each row of `_audit`."""
    rows = [(os.path.basename(row["file"]), row["stored"], row["duplicates"]) for row in tables["_audit"].dicts()]
    return sorted(rows)


class Step(NamedTuple):
    """A load of the archive: its report, the files that it read, its new rows of the books, and all tables."""

    report: autopilothq.LoadReport
    opened: list[str]
    books: dict[str, tuple[int, int, int, int]]
    """Per file: lines, stored, duplicates, rejected."""
    tables: dict[str, Table]


REPLAYED = [track(31), b"broken", track(32, properties={"note": "a\0b"})]
CUT = range(1_000, 1_500)
LATE = {71: (OLD_DAY, 1990), 72: (OLD_DAY, 2060), 73: (NEW_DAY, 1990)}
"""The day and the year of the time of files that come after one of NEW_DAY, by the number of their track."""


def grow(archive: Path, lines: int) -> None:
    """Writes a growing file of so many lines, whose last line has no line feed yet."""
    path = archive / "live.jsonl"
    file(archive, "live.jsonl", [track(40 + n) for n in range(1, lines + 1)]).rename(path)
    with path.open("rb+") as handle:
        handle.truncate(path.stat().st_size - 1)


def changes(archive: Path) -> Iterator[None]:
    """Writes an archive, and then makes changes to its files between the loads, pausing before each load."""
    file(archive, "old.gz", [track(1)])
    file(archive, "new.json", [track(2)], NEW_DAY)
    trusted = file(archive, "trusted.json", [track(11)])
    file(archive, "rewritten.gz", [track(21), track(22), track(23)])
    file(archive, "played.gz", REPLAYED)
    half = file(archive, "half.json", [track(51), track(52)])
    whole = half.read_bytes()
    half.write_bytes(whole[:-30])
    cut = file(archive, "cut.gz", [track(n) for n in CUT])
    good = cut.read_bytes()
    cut.write_bytes(good[:-20])
    file(archive, "75.gz", [track(75)], NEW_DAY)
    gone = file(archive, "gone.gz", [track(61)])
    grow(archive, 1)
    yield

    mtime = trusted.stat().st_mtime_ns
    trusted.write_bytes(trusted.read_bytes().replace(b"m-11", b"m-12"))
    touch(trusted, mtime)
    # Segment deleted a person's messages from this file, and a late message was added.
    file(archive, "rewritten.gz", [track(21), track(23, properties={"campaign_id": "changed"}), track(24)])
    file(archive, "replay.gz", REPLAYED, NEW_DAY)
    half.write_bytes(whole)
    cut.write_bytes(good)
    for number, (day, year) in LATE.items():
        late = file(archive, f"{number}.gz", [track(number)], day)
        touch(late, int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 10**9)
    saved, times = gone.read_bytes(), gone.stat()
    gone.unlink()
    grow(archive, 2)
    yield

    touch(trusted, mtime + 1_000_000)
    gone.write_bytes(saved)
    touch(gone, times.st_mtime_ns)
    grow(archive, 3)
    yield

    grow(archive, 4)
    yield
    yield  # nothing changes
    shutil.rmtree(archive.parent / "state")  # another machine, which has no state
    yield


@pytest.fixture(scope="module")
def made() -> list[Step]:
    return []


@pytest.fixture
def history(made: list[Step], opened: list[str], tmp_path: Path) -> list[Step]:
    """The loads, one after each change; the first test that needs them makes them for all."""
    if not made:
        steps: list[Step] = []
        database = in_memory()
        before: Counter[tuple[Any, ...]] = Counter()
        for _ in changes(tmp_path / "archive"):
            opened.clear()
            report = load(pipeline(tmp_path, database), tmp_path / "archive")
            read = sorted(set(opened))
            tables = content(database)
            counts = ("lines", "stored", "duplicates", "rejected")
            books = Counter(
                (os.path.basename(row["file"]), row["version"], *(row[count] for count in counts))
                for row in tables["_audit"].dicts()
            )
            new = {name: (lines, *more) for name, _, lines, *more in (books - before).elements()}
            assert len(new) == (books - before).total()
            steps.append(Step(report, read, new, tables))
            before = books
        made += steps
    return made


def rows_of(step: Step, *numbers: int) -> dict[str, list[dict[str, Any]]]:
    """Returns all rows of these messages, by table."""
    keys = {f"m-{number}" for number in numbers}
    return {
        name: found
        for name, table in step.tables.items()
        if (found := [row for row in table.dicts() if keys & {row.get("id"), row.get("row_id")}])
    }


def test_reads_nothing_where_nothing_is_new(history: list[Step]) -> None:
    everything = [
        "75.gz",
        "cut.gz",
        "gone.gz",
        "half.json",
        "live.jsonl",
        "new.json",
        "old.gz",
        "played.gz",
        "rewritten.gz",
        "trusted.json",
    ]
    assert history[0].opened == sorted(history[0].books) == everything
    # Only these files changed.
    assert history[1].opened == sorted(history[1].books) == [
        "71.gz", "72.gz", "73.gz", "cut.gz", "half.json", "live.jsonl", "replay.gz", "rewritten.gz",
    ]  # fmt: skip
    assert history[2].opened == sorted(history[2].books) == ["live.jsonl", "trusted.json"]
    assert history[3].opened == sorted(history[3].books) == ["live.jsonl"]
    assert [(step.report.files, step.report.files_known) for step in history[:4]] == [(10, 0), (8, 5), (2, 12), (1, 13)]
    for step in history[:4]:
        counts = [sum(column) for column in zip(*step.books.values(), strict=True)]
        report = step.report
        assert [report.lines, report.stored, report.duplicates, report.rejected] == counts
    for step in history[4:]:
        report = step.report
        assert (report.files, report.files_known, report.bytes, report.rows) == (0, 14, 0, {})
        assert (step.opened, step.books) == ([], {})
        assert_same(step.tables, history[3].tables)


def test_trusts_size_and_time_of_a_local_file(history: list[Step]) -> None:
    assert ["trusted.json" in step.opened for step in history] == [True, False, True, False, False, False]
    assert history[2].books["trusted.json"] == (1, 1, 0, 0)
    assert [len(rows_of(step, 12)) for step in history[:3]] == [0, 0, 2]


def test_reads_new_files_of_all_days_and_times(history: list[Step]) -> None:
    assert [step.books.get("75.gz") for step in history] == [(1, 1, 0, 0), *[None] * 5]
    assert ["75.gz" in step.opened for step in history] == [True, *[False] * 5]
    for number in LATE:
        assert [step.books.get(f"{number}.gz") for step in history] == [None, (1, 1, 0, 0), *[None] * 4]
        assert [f"{number}.gz" in step.opened for step in history] == [False, True, *[False] * 4]
    assert {"m-71", "m-72", "m-73", "m-75"} <= set(ids(history[1].tables))
    kept = ("71.gz", "72.gz", "73.gz", "75.gz")
    assert [row for row in stored(history[1].tables) if row[0] in kept] == [(name, 1, 0) for name in kept]


def test_reads_a_file_again_that_was_rewritten_in_place(history: list[Step]) -> None:
    assert [step.books.get("rewritten.gz") for step in history[:2]] == [(3, 3, 0, 0), (3, 1, 2, 0)]
    tables = history[1].tables
    assert {"m-21", "m-22", "m-23", "m-24"} <= set(ids(tables))
    # Stored messages stay as they were first stored.
    opened = sorted((row["id"], row["campaign_id"]) for row in rows_of(history[1], 21, 22, 23, 24)["email_opened"])
    assert opened == [(f"m-{n}", f"c-{n}") for n in (21, 22, 23, 24)]
    books = [row for row in tables["_audit"].dicts() if row["file"].endswith("rewritten.gz")]
    assert [row["lines"] for row in books] == [3, 3]
    assert len({row["file"] for row in books}) == 1
    assert all("rewritten.gz" not in step.opened for step in history[2:])


def test_stores_nothing_of_a_replay(history: list[Step]) -> None:
    assert history[0].books["played.gz"] == (3, 2, 0, 1)
    assert history[1].books["replay.gz"] == (3, 0, 2, 1)
    before, after = (rows_of(step, 31, 32) for step in history[:2])
    assert after == before
    assert {name: len(rows) for name, rows in after.items()} == {"_discards": 1, "email_opened": 2, "tracks": 2}
    # A rejected line has a row for each of its places.
    rejects = [row for row in history[1].tables["_rejects"].dicts() if row["raw"] == "broken"]
    assert sorted((os.path.basename(row["file"]), row["line"]) for row in rejects) == [
        ("played.gz", 2), ("replay.gz", 2),
    ]  # fmt: skip


def test_reads_the_rest_of_a_file_that_grows(history: list[Step]) -> None:
    assert [step.books.get("live.jsonl") for step in history] == [*((n, 1, n - 1, 0) for n in (1, 2, 3, 4)), None, None]
    assert_sound(history[3].tables)
    assert {"m-41", "m-42", "m-43", "m-44"} <= set(ids(history[3].tables, "email_opened"))


def test_completes_a_line_that_was_half_written(history: list[Step]) -> None:
    assert [step.books.get("half.json") for step in history[:2]] == [(2, 1, 0, 1), (2, 1, 1, 0)]


def test_a_whole_file_completes_a_cut_one(history: list[Step]) -> None:
    lines, stored_lines, _, rejected = history[0].books["cut.gz"]
    assert (stored_lines, rejected) == (lines - 1, 1)
    lines, more, known, rejected = history[1].books["cut.gz"]
    assert (lines, more + known, rejected) == (500, 500, 0)
    assert known == stored_lines
    opened = ids(history[1].tables, "email_opened")
    assert sorted({f"m-{n}" for n in CUT}) == [id_ for id_ in opened if int(id_[2:]) in CUT]


def test_keeps_what_came_from_a_file_that_is_gone(history: list[Step]) -> None:
    assert [step.books.get("gone.gz") for step in history] == [(1, 1, 0, 0), *[None] * 5]
    rows = rows_of(history[0], 61)
    assert rows.keys() == {"tracks", "email_opened"}
    for step in history[1:]:
        assert rows_of(step, 61) == rows


def test_is_quick_with_many_known_files(tmp_path: Path) -> None:
    first = file(tmp_path / "archive", "1.json", [track(1)])
    database = in_memory()
    load(pipeline(tmp_path, database), tmp_path / "archive")
    database.execute(f"""
        INSERT INTO {DATASET}._audit BY NAME
        SELECT a.* REPLACE ('{first.parent}/' || n || '.gz' AS file, '12-' || n AS version)
        FROM {DATASET}._audit a, range(20_000) t(n)""")
    # All have the name of this file, but none has its path.
    file(tmp_path / "archive", "7.gz", [track(2)])
    started = time.process_time()
    report = load(pipeline(tmp_path, database), tmp_path / "archive")
    assert time.process_time() - started < 3
    assert (report.files_known, report.stored) == (1, 1)


INTERVALS: list[tuple[str, str, list[int]]] = [
    ("2019-03-02T00:00:00Z", "2019-03-03T00:00:00Z", [2]),
    ("2019-03-02T00:00:00Z", "2019-03-04T00:00:00Z", [2, 3]),
    ("2019-03-02T10:00:00Z", "2019-03-02T11:00:00Z", [2]),
    ("2019-03-02T23:30:00-01:00", "2019-03-03T00:30:00-01:00", [3]),
    ("2019-03-02T00:00:00Z", "2019-03-02T00:00:00Z", [2]),
]


@pytest.fixture
def four_days(tmp_path: Path) -> Path:
    """Makes an archive with one track a day, numbered by day."""
    for day in (1, 2, 3, 4):
        file(tmp_path / "archive", f"{day}.gz", [track(day)], str(int(OLD_DAY) + (day - 1) * 86_400_000))
    return tmp_path / "archive"


@pytest.mark.parametrize(("start", "end", "days"), INTERVALS)
def test_a_schedulers_interval_chooses_the_days(
    start: str, end: str, days: list[int], four_days: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only iterates the source, because the destination does not matter here."""
    monkeypatch.setenv("DLT_INTERVAL_START", start)
    monkeypatch.setenv("DLT_INTERVAL_END", end)
    tracks = [row for rows in autopilothq.archive(str(four_days)).tracks for row in rows.to_pylist()]
    assert [row["id"] for row in tracks] == [f"m-{day}" for day in days]


def test_a_load_within_a_schedulers_interval(tmp_path: Path, four_days: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, end, days = INTERVALS[1]
    monkeypatch.setenv("DLT_INTERVAL_START", start)
    monkeypatch.setenv("DLT_INTERVAL_END", end)
    database = in_memory()
    load(pipeline(tmp_path, database), four_days)
    tracks = content(database)["tracks"].dicts()
    assert [row["id"] for row in tracks] == [f"m-{day}" for day in days]
