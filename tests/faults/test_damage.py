"""Damaged archives as whole runs: what is good is loaded, `_rejects` has the rest, `_audit` has every line."""

import errno
import gzip
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

import autopilothq
from autopilothq.messages import MAX_LINE
from faults.loads import Table, assert_same, assert_sound, content, file, line, load, pipeline, track


def rejects(tables: dict[str, Table]) -> list[tuple[str, int, str]]:
    return sorted((Path(row["file"]).name, row["line"], row["reason"]) for row in tables["_rejects"].dicts())


def books(tables: dict[str, Table]) -> dict[str, tuple[int, int, int, int]]:
    """Per file: lines, stored, duplicates, rejected."""
    return {
        Path(row["file"]).name: (row["lines"], row["stored"], row["duplicates"], row["rejected"])
        for row in tables["_audit"].dicts()
    }


def loaded(tmp_path: Path) -> dict[str, Table]:
    load(pipeline(tmp_path), tmp_path / "archive")
    tables = content(tmp_path / "autopilot.duckdb")
    assert_sound(tables)
    assert load(pipeline(tmp_path), tmp_path / "archive").files == 0
    return tables


def test_loads_what_is_before_the_cut_of_a_file(tmp_path: Path) -> None:
    whole = file(tmp_path / "archive", "cut.gz", [track(n, properties={"note": f"{n**9}"}) for n in range(500)])
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    file(tmp_path / "archive", "good.gz", [track(1000)])
    tables = loaded(tmp_path)
    [(_, at, reason)] = rejects(tables)
    assert reason == "truncated"
    assert 100 < at < 400
    assert books(tables) == {"cut.gz": (at, at - 1, 0, 1), "good.gz": (1, 1, 0, 0)}
    assert {row["id"] for row in tables["email_opened"].dicts()} == {f"m-{n}" for n in [*range(at - 1), 1000]}


def test_a_whole_file_completes_a_cut_one(tmp_path: Path) -> None:
    whole = file(tmp_path / "archive", "1.gz", [track(n) for n in range(500)])
    good = whole.read_bytes()
    whole.write_bytes(good[:-20])
    load(pipeline(tmp_path), tmp_path / "archive")
    whole.write_bytes(good)
    report = load(pipeline(tmp_path), tmp_path / "archive")
    assert (report.lines, report.rejected) == (500, 0)
    assert len(content(tmp_path / "autopilot.duckdb")["email_opened"].rows) == 500


def test_loads_what_is_before_wrong_bytes(tmp_path: Path) -> None:
    path = file(tmp_path / "archive", "wrong.gz", [track(n, properties={"note": f"{n**9}"}) for n in range(500)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    tables = loaded(tmp_path)
    # Garbage may inflate for a while before the checksum or the codes give it away: those lines are no JSON.
    (lines, stored, _, rejected) = books(tables)["wrong.gz"]
    assert stored > 100
    assert lines == stored + rejected
    assert rejects(tables)[-1][2] == "truncated"
    assert {row["id"] for row in tables["email_opened"].dicts()} >= {f"m-{n}" for n in range(100)}


def test_garbage_behind_a_member_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    good = gzip.compress(line(track(1)), mtime=0)
    file(tmp_path / "archive", "garbage.gz", []).write_bytes(good + b"garbage")
    file(tmp_path / "archive", "binary.json", [track(2), bytes(range(128, 256)), track(3)])
    file(tmp_path / "archive", "nul.json", [track(4), b"\0" * 40, track(5)])
    tables = loaded(tmp_path)
    assert rejects(tables) == [
        ("binary.json", 2, "not_json"),
        ("garbage.gz", 2, "truncated"),
        ("nul.json", 2, "not_json"),
    ]
    assert len(tables["tracks"].rows) == 5


def test_blanks_without_end_and_long_lines(tmp_path: Path) -> None:
    blank = b" " * (1 << 20)
    bomb = tmp_path / "archive" / "bomb.gz"
    bomb.parent.mkdir()
    with gzip.open(bomb, "wb", compresslevel=1) as out:
        out.write(line(track(1)))
        for _ in range(64):
            out.write(blank + b"\n" * 1000 + blank + b"\n")
        out.write(line(track(2)))
    long = {"note": "x" * MAX_LINE}
    file(tmp_path / "archive", "long.json", [track(3, properties=long), track(4), track(5, properties=long)])
    tables = loaded(tmp_path)
    assert books(tables) == {"bomb.gz": (2, 2, 0, 0), "long.json": (3, 1, 0, 2)}
    assert [row["reason"] for row in tables["_rejects"].dicts()] == ["line_too_long"] * 2
    assert all(len(row["raw"]) == MAX_LINE for row in tables["_rejects"].dicts())


def test_what_else_lies_in_archives(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    file(archive, "1.gz", [track(1)])
    day = next(archive.rglob("1.gz")).parent
    (day / "folder.gz").mkdir()
    file(archive, "in-it.gz", [track(2)]).rename(day / "folder.gz" / "in-it.gz")
    (day / "empty.gz").touch()
    (day / "empty member.gz").write_bytes(gzip.compress(b"", mtime=0))
    (day / "blank.json").write_bytes(b"\n \r\n\t\n")
    (day / "_SUCCESS").write_text("")
    (day.parent / "dummy-object.txt").write_text("a write test")
    (day / ".hidden.gz").write_bytes(b"not for us")
    tables = loaded(tmp_path)
    assert rejects(tables) == []
    assert books(tables) == {
        "1.gz": (1, 1, 0, 0),
        "in-it.gz": (1, 1, 0, 0),
        "empty member.gz": (0, 0, 0, 0),
        "blank.json": (0, 0, 0, 0),
    }


def test_an_archive_of_nothing_but_damage_makes_all_tables(tmp_path: Path) -> None:
    file(tmp_path / "archive", "1.json", [b"{", b"null", b'"text"'])
    tables = loaded(tmp_path)
    assert [row["reason"] for row in tables["_rejects"].dicts()].count("not_an_object") == 2
    assert books(tables) == {"1.json": (3, 0, 0, 3)}
    assert len(tables) == 11
    assert not tables["tracks"].rows


class Failing:
    """A file whose bytes cannot be had from a place on."""

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


@pytest.mark.parametrize("good", [0, 3_000], ids=["from its first byte", "in its middle"])
def test_a_file_that_could_not_be_read_is_read_another_time(
    good: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    file(archive, "1.json", [track(n) for n in range(100)])
    file(archive, "2.json", [track(n) for n in range(100, 110)])
    load(pipeline(tmp_path / "undisturbed"), archive)
    open_file = LocalFileSystem.open

    def failing(self: LocalFileSystem, path: str, *args: Any, **kwargs: Any) -> Any:
        handle = open_file(self, path, *args, **kwargs)
        return Failing(handle, good) if path.endswith("1.json") else handle

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "open", failing)
        reports = [load(pipeline(tmp_path), archive) for _ in range(2)]
    for report in reports:
        assert [Path(url).name for url in report.unfinished] == ["1.json"]
        assert "Input/output error" in next(iter(report.unfinished.values()))
        assert report.rejects == {"truncated": 1}
    assert_sound(content(tmp_path / "autopilot.duckdb"))

    report = load(pipeline(tmp_path), archive)
    assert (report.files, report.lines, report.rejected, report.unfinished) == (1, 100, 0, {})
    tables, undisturbed = content(tmp_path / "autopilot.duckdb"), content(tmp_path / "undisturbed/autopilot.duckdb")
    assert_sound(tables)
    assert_same(tables, undisturbed, but=["_audit", "_rejects"])
    assert tables["_audit"].total("stored") == 110
    assert load(pipeline(tmp_path), archive).files == 0


def test_a_file_that_may_not_be_read_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path / "archive", "1.json", [track(1)])
    file(tmp_path / "archive", "2.json", [track(2)])
    open_file = LocalFileSystem.open

    def forbidden(self: LocalFileSystem, path: str, *args: Any, **kwargs: Any) -> Any:
        if path.endswith("1.json"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open_file(self, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "open", forbidden)
        report = load(pipeline(tmp_path), tmp_path / "archive")
    assert report.stored == 1
    assert "Permission denied" in next(iter(report.unfinished.values()))
    assert load(pipeline(tmp_path), tmp_path / "archive").stored == 1


def test_a_file_that_goes_before_it_is_read_does_not_end_the_run(tmp_path: Path) -> None:
    path = file(tmp_path / "archive", "1.json", [track(1)])
    file(tmp_path / "archive", "2.json", [track(2)])
    pipeline(tmp_path).run(
        autopilothq.archive(str(tmp_path / "archive"), progress=lambda _: path.unlink(missing_ok=True))
    )
    tables = content(tmp_path / "autopilot.duckdb")
    assert [row["id"] for row in tables["tracks"].dicts()] == ["m-2"]
    assert rejects(tables) == [("1.json", 1, "truncated")]
