"""What is known per file and version of it: what was loaded is not read again, what changed is."""

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fsspec.implementations.local import LocalFileSystem

from faults.loads import DATASET, OLD_DAY, Table, assert_same, assert_sound, content, file, load, pipeline, touch, track

NEW_DAY = "1551484800000"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose content is read."""
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
    """Per row of the books: the file's name, what was stored of it, and what was known."""
    rows = [(os.path.basename(row["file"]), row["stored"], row["duplicates"]) for row in tables["_audit"].dicts()]
    return sorted(rows)


def test_reads_nothing_where_nothing_is_new(tmp_path: Path, opened: list[str]) -> None:
    file(tmp_path / "archive", "1.gz", [track(1)])
    file(tmp_path / "archive", "2.json", [track(2)], NEW_DAY)
    load(pipeline(tmp_path), tmp_path / "archive")
    assert sorted(set(opened)) == ["1.gz", "2.json"]
    before = content(tmp_path / "autopilot.duckdb")

    opened.clear()
    for machine in ("state", "another"):
        report = load(pipeline(tmp_path), tmp_path / "archive")
        assert (report.files, report.files_known, report.bytes, report.rows) == (0, 2, 0, {})
        if machine == "state":
            shutil.rmtree(tmp_path / "state")
    assert opened == []
    assert_same(content(tmp_path / "autopilot.duckdb"), before)


def test_trusts_size_and_time_of_a_local_file(tmp_path: Path) -> None:
    path = file(tmp_path / "archive", "1.json", [track(1)])
    load(pipeline(tmp_path), tmp_path / "archive")
    mtime = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"m-1", b"m-2"))
    touch(path, mtime)
    assert load(pipeline(tmp_path), tmp_path / "archive").files == 0
    touch(path, mtime + 1_000_000)
    assert load(pipeline(tmp_path), tmp_path / "archive").stored == 1


@pytest.mark.parametrize(("day", "year"), [(OLD_DAY, 1990), (OLD_DAY, 2060), (NEW_DAY, 1990)])
def test_reads_a_new_file_whatever_its_day_and_time(day: str, year: int, tmp_path: Path, opened: list[str]) -> None:
    file(tmp_path / "archive", "5.gz", [track(1)], NEW_DAY)
    load(pipeline(tmp_path), tmp_path / "archive")
    opened.clear()
    late = file(tmp_path / "archive", "1.gz", [track(2)], day)
    touch(late, int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 10**9)
    assert load(pipeline(tmp_path), tmp_path / "archive").stored == 1
    assert set(opened) == {"1.gz"}
    tables = content(tmp_path / "autopilot.duckdb")
    assert ids(tables) == ["m-1", "m-2"]
    assert stored(tables) == [("1.gz", 1, 0), ("5.gz", 1, 0)]


def test_reads_a_file_again_that_was_rewritten_in_place(tmp_path: Path) -> None:
    path = file(tmp_path / "archive", "1.gz", [track(1), track(2), track(3)])
    load(pipeline(tmp_path), tmp_path / "archive")
    # A person's messages were deleted from it, as Segment does, and one came late.
    file(tmp_path / "archive", "1.gz", [track(1), track(3, properties={"campaign_id": "changed"}), track(4)])
    report = load(pipeline(tmp_path), tmp_path / "archive")
    assert (report.files, report.stored, report.duplicates) == (1, 1, 2)
    tables = content(tmp_path / "autopilot.duckdb")
    assert ids(tables) == ["m-1", "m-2", "m-3", "m-4"]
    # What is stored stays as it was stored first.
    assert [row["campaign_id"] for row in tables["email_opened"].dicts()] == ["c-1", "c-2", "c-3", "c-4"]
    assert [(row["file"], row["lines"]) for row in tables["_audit"].dicts()] == [(str(path), 3), (str(path), 3)]
    assert load(pipeline(tmp_path), tmp_path / "archive").files == 0


def test_stores_nothing_of_a_replay(tmp_path: Path) -> None:
    lines = [track(1), b"broken", track(2, properties={"note": "a\0b"})]
    file(tmp_path / "archive", "1.gz", lines)
    load(pipeline(tmp_path), tmp_path / "archive")
    before = content(tmp_path / "autopilot.duckdb")
    file(tmp_path / "archive", "replay.gz", lines, NEW_DAY)
    report = load(pipeline(tmp_path), tmp_path / "archive")
    assert (report.stored, report.duplicates, report.rejected) == (0, 2, 1)
    after = content(tmp_path / "autopilot.duckdb")
    # A rejected line has a row for each place that it lies at.
    assert_same(after, before, but=["_audit", "_rejects"])
    assert [(row["raw"], row["line"]) for row in after["_rejects"].dicts()] == [("broken", 2)] * 2
    assert stored(after) == [("1.gz", 2, 0), ("replay.gz", 0, 2)]


def test_reads_the_rest_of_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "archive" / "live.jsonl"
    for number in range(1, 5):
        # The last line has no end yet, and none of its own after the next.
        file(tmp_path / "archive", "live.jsonl", [track(n) for n in range(1, number + 1)]).rename(path)
        with path.open("rb+") as handle:
            handle.truncate(path.stat().st_size - 1)
        report = load(pipeline(tmp_path), tmp_path / "archive")
        assert (report.lines, report.stored, report.duplicates) == (number, 1, number - 1)
    tables = content(tmp_path / "autopilot.duckdb")
    assert_sound(tables)
    assert ids(tables, "email_opened") == ["m-1", "m-2", "m-3", "m-4"]


def test_completes_a_line_that_was_half_written(tmp_path: Path) -> None:
    path = file(tmp_path / "archive", "live.json", [track(1), track(2)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    report = load(pipeline(tmp_path), tmp_path / "archive")
    assert (report.stored, report.rejected) == (1, 1)
    path.write_bytes(whole)
    report = load(pipeline(tmp_path), tmp_path / "archive")
    assert (report.stored, report.duplicates, report.rejected) == (1, 1, 0)


def test_keeps_what_came_from_a_file_that_is_gone(tmp_path: Path) -> None:
    path = file(tmp_path / "archive", "1.gz", [track(1)])
    file(tmp_path / "archive", "2.gz", [track(2)])
    load(pipeline(tmp_path), tmp_path / "archive")
    before = content(tmp_path / "autopilot.duckdb")
    saved, times = path.read_bytes(), path.stat()
    path.unlink()
    assert load(pipeline(tmp_path), tmp_path / "archive").files_known == 1
    path.write_bytes(saved)
    touch(path, times.st_mtime_ns)
    assert load(pipeline(tmp_path), tmp_path / "archive").files == 0
    assert_same(content(tmp_path / "autopilot.duckdb"), before)


def test_is_quick_with_many_known_files(tmp_path: Path) -> None:
    first = file(tmp_path / "archive", "1.json", [track(1)])
    load(pipeline(tmp_path), tmp_path / "archive")
    with duckdb.connect(str(tmp_path / "autopilot.duckdb")) as books:
        books.execute(f"""
            INSERT INTO {DATASET}._audit BY NAME
            SELECT a.* REPLACE ('{first.parent}/' || n || '.gz' AS file, '12-' || n AS version)
            FROM {DATASET}._audit a, range(20_000) t(n)""")
    started = time.process_time()
    assert load(pipeline(tmp_path), tmp_path / "archive").files_known == 1
    assert time.process_time() - started < 3
    # Not one of those is this file, though the names are.
    file(tmp_path / "archive", "7.gz", [track(2)])
    assert load(pipeline(tmp_path), tmp_path / "archive").stored == 1


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2019-03-02T00:00:00Z", "2019-03-03T00:00:00Z", [2]),
        ("2019-03-02T00:00:00Z", "2019-03-04T00:00:00Z", [2, 3]),
        ("2019-03-02T10:00:00Z", "2019-03-02T11:00:00Z", [2]),
        ("2019-03-02T23:30:00-01:00", "2019-03-03T00:30:00-01:00", [3]),
        ("2019-03-02T00:00:00Z", "2019-03-02T00:00:00Z", [2]),
    ],
)
def test_a_schedulers_interval_chooses_the_days(
    start: str, end: str, days: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    for day in (1, 2, 3, 4):
        file(archive, f"{day}.gz", [track(day)], str(int(OLD_DAY) + (day - 1) * 86_400_000))
    monkeypatch.setenv("DLT_INTERVAL_START", start)
    monkeypatch.setenv("DLT_INTERVAL_END", end)
    load(pipeline(tmp_path), archive)
    tracks = content(tmp_path / "autopilot.duckdb")["tracks"].dicts()
    assert [row["id"] for row in tracks] == [f"m-{day}" for day in days]
