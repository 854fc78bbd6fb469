"""Of a damaged archive, good lines are loaded, `_rejects` has the others, and `_audit` counts all."""

import errno
import gzip
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fsspec.implementations.local import LocalFileSystem

import autopilothq
from autopilothq.segment.message import MAX_LINE
from faults.loads import Table, assert_same, assert_sound, content, file, in_memory, line, load, pipeline, track

DOCS = Path(autopilothq.__file__).parents[1] / "docs"


def rejects(tables: dict[str, Table]) -> list[tuple[str, int, str]]:
    return sorted((Path(row["file"]).name, row["line"], row["reason"]) for row in tables["_rejects"].dicts())


def broken_off(database: duckdb.DuckDBPyConnection) -> set[str]:
    """Returns the files that the query in how-to/schedule.md finds."""
    [query] = re.findall(r"```sql\n(.*?)```", (DOCS / "how-to" / "schedule.md").read_text(), re.DOTALL)
    return {Path(row[0]).name for row in database.execute(query).fetchall()}


def books(tables: dict[str, Table]) -> dict[str, tuple[int, int, int, int]]:
    """Returns the lines, stored, duplicates and rejected of each file."""
    return {
        Path(row["file"]).name: (row["lines"], row["stored"], row["duplicates"], row["rejected"])
        for row in tables["_audit"].dicts()
    }


def loaded(tmp_path: Path) -> dict[str, Table]:
    database = in_memory()
    load(pipeline(tmp_path, database), tmp_path / "archive")
    tables = content(database)
    assert_sound(tables)
    assert load(pipeline(tmp_path, database), tmp_path / "archive").files == 0
    return tables


def damaged(archive: Path) -> None:
    """Makes an archive with all kinds of damage; each test below has its own files."""
    cut = file(archive, "cut.gz", [track(n, properties={"note": f"{n**9}"}) for n in range(500)])
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    file(archive, "good.gz", [track(1000)])

    wrong = file(archive, "wrong.gz", [track(n, properties={"note": f"{n**9}"}) for n in range(2000, 2500)])
    data = bytearray(wrong.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8] = b"\xff" * 8
    wrong.write_bytes(bytes(data))

    good = gzip.compress(line(track(3001)), mtime=0)
    file(archive, "garbage.gz", []).write_bytes(good + b"garbage")
    file(archive, "binary.json", [track(3002), bytes(range(128, 256)), track(3003)])
    file(archive, "nul.json", [track(3004), b"\0" * 40, track(3005)])

    blank = b" " * (1 << 20)
    with gzip.open(archive / "bomb.gz", "wb", compresslevel=1) as out:
        out.write(line(track(4001)))
        for _ in range(16):
            out.write(blank + b"\n" * 1000 + blank + b"\n")
        out.write(line(track(4002)))
    long = {"note": "x" * MAX_LINE}
    file(archive, "long.json", [track(4003, properties=long), track(4004), track(4005, properties=long)])

    day = file(archive, "1.gz", [track(5001)]).parent
    (day / "folder.gz").mkdir()
    file(archive, "in-it.gz", [track(5002)]).rename(day / "folder.gz" / "in-it.gz")
    (day / "empty.gz").touch()
    (day / "empty member.gz").write_bytes(gzip.compress(b"", mtime=0))
    (day / "blank.json").write_bytes(b"\n \r\n\t\n")
    (day / "_SUCCESS").write_text("")
    (day.parent / "dummy-object.txt").write_text("a write test")
    (day / ".hidden.gz").write_bytes(b"not for us")


@pytest.fixture(scope="module")
def made() -> dict[str, Table]:
    return {}


@pytest.fixture
def tables(made: dict[str, Table], tmp_path: Path) -> dict[str, Table]:
    """The tables after a load of the damaged archive; the first test that needs them loads it for all."""
    if not made:
        damaged(tmp_path / "archive")
        made |= loaded(tmp_path)
    return made


def ids(table: Table, start: int, stop: int) -> set[int]:
    """Returns the numbers of a table's tracks, from `start` up to but excluding `stop`."""
    return {number for row in table.dicts() if start <= (number := int(row["id"][2:])) < stop}


def test_the_books_have_all_files(tables: dict[str, Table]) -> None:
    assert set(books(tables)) == {
        "cut.gz", "good.gz", "wrong.gz", "garbage.gz", "binary.json", "nul.json", "bomb.gz", "long.json",
        "1.gz", "in-it.gz", "empty member.gz", "blank.json",
    }  # fmt: skip
    assert {name for name, _, _ in rejects(tables)} == {
        "cut.gz", "wrong.gz", "garbage.gz", "binary.json", "nul.json", "long.json",
    }  # fmt: skip


def test_loads_what_is_before_the_cut_of_a_file(tables: dict[str, Table]) -> None:
    [(at, reason)] = [(at, reason) for name, at, reason in rejects(tables) if name == "cut.gz"]
    assert reason == "truncated"
    assert 100 < at < 400
    assert (books(tables)["cut.gz"], books(tables)["good.gz"]) == ((at, at - 1, 0, 1), (1, 1, 0, 0))
    assert ids(tables["email_opened"], 0, 2000) == {*range(at - 1), 1000}


def test_loads_what_is_before_wrong_bytes(tables: dict[str, Table]) -> None:
    # Garbage may be inflated for a while before a checksum or a bad code shows it, and gives lines that are not JSON.
    (lines, stored, _, rejected) = books(tables)["wrong.gz"]
    assert stored > 100
    assert lines == stored + rejected
    assert [reason for name, _, reason in rejects(tables) if name == "wrong.gz"][-1] == "truncated"
    assert ids(tables["email_opened"], 2000, 3000) >= set(range(2000, 2100))


def test_garbage_behind_a_member_and_bytes_that_are_no_text(tables: dict[str, Table]) -> None:
    assert [reject for reject in rejects(tables) if reject[0] in ("binary.json", "garbage.gz", "nul.json")] == [
        ("binary.json", 2, "not_json"),
        ("garbage.gz", 2, "truncated"),
        ("nul.json", 2, "not_json"),
    ]
    assert ids(tables["tracks"], 3000, 4000) == {3001, 3002, 3003, 3004, 3005}


def test_blanks_without_end_and_long_lines(tables: dict[str, Table]) -> None:
    assert (books(tables)["bomb.gz"], books(tables)["long.json"]) == ((2, 2, 0, 0), (3, 1, 0, 2))
    rows = [row for row in tables["_rejects"].dicts() if Path(row["file"]).name == "long.json"]
    assert [row["reason"] for row in rows] == ["line_too_long"] * 2
    assert all(len(row["raw"]) == MAX_LINE for row in rows)


def test_folders_empty_files_and_markers_in_archives_do_no_harm(tables: dict[str, Table]) -> None:
    names = ("1.gz", "in-it.gz", "empty member.gz", "blank.json")
    assert [books(tables)[name] for name in names] == [(1, 1, 0, 0), (1, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)]
    assert not {*names} & {name for name, _, _ in rejects(tables)}


def test_an_archive_of_nothing_but_damage_makes_all_tables(tmp_path: Path) -> None:
    file(tmp_path / "archive", "1.json", [b"{", b"null", b'"text"'])
    tables = loaded(tmp_path)
    assert [row["reason"] for row in tables["_rejects"].dicts()].count("not_an_object") == 2
    assert books(tables) == {"1.json": (3, 0, 0, 3)}
    assert len(tables) == 11
    assert not tables["tracks"].rows


class Failing:
    """A file that raises EIO after `good` bytes."""

    def __init__(self, handle: Any, good: int) -> None:
        self._handle, self._good = handle, good

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._handle.read(min(size, self._good) if self._good else size)
        if not self._good or not data:
            raise OSError(errno.EIO, "Input/output error")
        self._good -= len(data)
        return data

    def close(self) -> None:
        self._handle.close()


# After how many bytes each file fails: at the first byte, in the middle, and None when it is opened.
FAILING = {"1.json": 0, "2.json": 3_000, "3.json": None}


def test_files_that_could_not_be_read_are_read_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "archive"
    for number, name in enumerate(FAILING):
        file(archive, name, [track(n) for n in range(100 * number, 100 * number + 100)])
    file(archive, "4.json", [track(n) for n in range(300, 310)])
    database, other = in_memory(), in_memory()
    load(pipeline(tmp_path / "undisturbed", other), archive)
    open_file = LocalFileSystem.open

    def failing(self: LocalFileSystem, path: str, *args: Any, **kwargs: Any) -> Any:
        name = Path(path).name
        good = FAILING.get(name, -1)
        if good is None:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        handle = open_file(self, path, *args, **kwargs)
        return handle if good < 0 else Failing(handle, good)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "open", failing)
        reports = [load(pipeline(tmp_path, database), archive) for _ in range(2)]
    for report in reports:
        whys = {Path(url).name: why for url, why in report.unfinished.items()}
        assert whys.keys() == FAILING.keys()
        assert ["Input/output error" in why for why in whys.values()] == [True, True, False]
        assert "Permission denied" in whys["3.json"]
        assert report.rejects == {"truncated": 3}
    assert broken_off(database) == {"1.json", "2.json", "3.json"}
    # Lines before the failures, and those of the good file, are stored already.
    first, second = reports
    assert 10 < first.stored < 110
    assert second.stored == 0
    assert_sound(content(database))

    report = load(pipeline(tmp_path, database), archive)
    assert (report.files, report.lines, report.rejected, report.unfinished) == (3, 300, 0, {})
    assert report.stored == 310 - first.stored
    tables, undisturbed = content(database), content(other)
    assert_sound(tables)
    assert_same(tables, undisturbed, but=["_audit", "_rejects"])
    assert tables["_audit"].total("stored") == 310
    assert broken_off(database) == set()
    assert load(pipeline(tmp_path, database), archive).files == 0


def test_a_file_that_goes_before_it_is_read_does_not_end_the_run(tmp_path: Path) -> None:
    path = file(tmp_path / "archive", "1.json", [track(1)])
    file(tmp_path / "archive", "2.json", [track(2)])
    database = in_memory()
    pipeline(tmp_path, database).run(
        autopilothq.archive(str(tmp_path / "archive"), progress=lambda _: path.unlink(missing_ok=True))
    )
    tables = content(database)
    assert [row["id"] for row in tables["tracks"].dicts()] == ["m-2"]
    assert rejects(tables) == [("1.json", 1, "truncated")]
