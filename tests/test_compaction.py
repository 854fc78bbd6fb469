"""Which files of a receiver are joined, and how a killed compaction is finished or undone, without a load."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from autopilothq import compaction
from autopilothq.catalog import ARCHIVE_FOLDER, AUDIT
from autopilothq.errors import RunError

NOW, HOUR = 1_800_000_000.0, 3600
MOST = 100


def row(number: int, folder: str = "v1", size: int = 10, before: float = 2 * HOUR, **more: Any) -> dict[str, Any]:
    """Returns a row of `_audit` for a file that was begun so many seconds ago."""
    file = f"{folder}/{int((NOW - before) * 1000)}-{number:032x}.gz"
    loaded = {"version": "1", "size": size, "load_id": "first", "tables": None, "rejected": 0, "skipped": 0}
    return {"file": file, **loaded, **more}


def test_files_that_are_small_and_an_hour_old_are_joined() -> None:
    small = row(1, size=MOST // 2, before=HOUR)
    others = {
        "larger": row(1, size=MOST // 2 + 1, before=HOUR),
        "younger": row(1, size=MOST // 2, before=HOUR - 0.001),
        "of another program": small | {"file": "v1/part-1.gz"},
        "of another program, too": small | {"file": f"{small['file']}.gz"},
    }
    assert [name for name, of in {"small": small, **others}.items() if compaction._is_small(of, NOW, MOST)] == ["small"]


def test_a_file_that_would_be_published_again_is_left(tmp_path: Path) -> None:
    """Its receiver was killed between publishing the file and deleting the open one."""
    found = row(1, str(tmp_path))
    assert compaction._is_small(found, NOW, MOST)
    still_open = Path(found["file"]).with_suffix(".open")
    still_open.with_name(f".{still_open.name}").touch()
    assert not compaction._is_small(found, NOW, MOST)


class Books:
    """Stands in for the books of a dataset."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = rows

    def complete_loads(self) -> set[str]:
        return {"first", "newest"}

    def read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        assert (table, {"file", "version", "tables"} - set(columns)) == ("_audit", set())
        yield from pa.Table.from_pylist(list(self.rows)).to_batches()


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns the numbers of the files that are joined; all files of the rows exist except `missing`."""
    monkeypatch.setattr(
        compaction, "last_load", lambda books, now: ("newest", now) if books.rows and now.tzinfo else None
    )

    def joined(*rows: dict[str, Any], missing: Sequence[dict[str, Any]] = ()) -> list[list[str]]:
        there = [SimpleNamespace(url=row["file"], version=row["version"]) for row in rows]
        monkeypatch.setattr(compaction, "list_files", lambda urls: there if urls == ["folder"] else [])
        books: Any = Books(*rows, *missing)
        found = compaction._groups("folder", books, NOW, MOST)
        return [[os.path.basename(row["file"]).partition("-")[2].lstrip("0")[:-3] for row in group] for group in found]

    return joined


def test_only_files_that_one_finished_load_has_stored_are_joined(groups: Any) -> None:
    left = [
        row(3, load_id="newest"),
        row(4, load_id="was killed"),
        row(5, tables="tracks"),
        row(6, rejected=1),
        row(7, skipped=1),
    ]
    assert groups(row(1), row(2), *left, missing=[row(8), row(1, version="older")]) == [["1", "2"]]


def test_files_of_a_folder_are_joined_in_the_order_in_which_they_were_begun(groups: Any) -> None:
    rows = [row(1, "a", before=3 * HOUR), row(3, "a"), row(2, "a"), row(4, "b", before=4 * HOUR), row(5, "b"), row(6)]
    assert groups(*reversed(rows)) == [["1", "2", "3"], ["4", "5"]]
    assert groups(row(1), row(2, "b")) == []


def test_a_new_file_has_as_many_files_as_it_has_room_for(groups: Any) -> None:
    assert groups(*(row(n, size=50) for n in range(1, 6))) == [["1", "2"], ["3", "4"]]
    assert groups(*(row(n, size=size) for n, size in enumerate([10, 40, 50, 1, 50, 50], 1))) == [
        ["1", "2", "3"],
        ["4", "5"],
    ]
    assert groups(row(1, size=50), row(2, size=50), row(3, size=1)) == [["1", "2"]]


# ---- which books can be changed --------------------------------------------------------------------------------------


def test_books_are_changed_in_transactions_alone_and_if_they_have_all_columns() -> None:
    class Columns:
        def __init__(self, kind: str, *missing: str) -> None:
            self.kind = kind
            self.names = [column.name for column in AUDIT.columns if column.name not in missing]

        def tables(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
            assert names == ["_audit"]
            return {"_audit": dict.fromkeys(self.names, "text")} if self.names else {}

    def refused(*words: str) -> str:
        books: Any = Columns(*words)
        with pytest.raises(RunError) as error:
            compaction._check(books)
        return str(error.value)

    for kind in ("duckdb", "postgres"):
        books: Any = Columns(kind)
        compaction._check(books)
    assert refused("sqlite") == (
        "Expected a destination of duckdb or postgres, because the books must change in one transaction, but got"
        " sqlite. Nothing was changed."
    )
    assert refused("duckdb", "skipped", "mended") == (
        "Expected the columns mended, skipped in _audit, but they are missing. Nothing was changed.\n"
        "Load something with this version first."
    )


# ---- after a kill ----------------------------------------------------------------------------------------------------


class Noted:
    """Books of a target that record what is deleted and whose counts are moved."""

    target = "here"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deleted: list[tuple[str, str, list[str]]] = []
        self.moved: list[str] = []
        monkeypatch.setattr(compaction, "_move_counts", lambda journal, books: books.moved.append(journal.file))

    def template(self, table: str, text: str) -> str:
        return f"{table}: {text}"

    def delete(self, table: str, where: str, values: list[str]) -> None:
        self.deleted.append((table, where, values))


def begin(day: Path, name: str, *old: str, target: str = "here") -> str:
    """Leaves the files of a compaction that was killed before the new file got its name."""
    new, olds = day / f"{name}.gz", [str(day / f"{each}.gz") for each in old]
    for file in olds:
        Path(file).touch()
    new.with_name(f".{new.name}.compacting").touch()
    journal = compaction._Journal(target, str(new), f"version of {name}", [[file, "1"] for file in olds])
    compaction._write_journal(journal)
    return str(new)


def test_each_compaction_that_was_killed_is_finished_or_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = tmp_path / ARCHIVE_FOLDER / "v1" / "1556668800000"
    day.mkdir(parents=True)
    books: Any = Noted(monkeypatch)
    cut, undone, named, again = (begin(day, name, f"{name}1", f"{name}2") for name in "abcd")
    journal = day / ".a.gz.compaction"
    journal.write_bytes(journal.read_bytes()[:-1])
    for new in (named, again):
        Path(new).touch()
    Path(day, "d1.gz").unlink()  # as after a second kill
    compaction._finish_begun(tmp_path, books)
    assert sorted(os.listdir(day)) == ["a1.gz", "a2.gz", "b1.gz", "b2.gz", "c.gz", "d.gz"]
    assert books.deleted == [("_audit", "_audit: {file} = %s AND {version} = %s", [undone, "version of b"])]
    assert (books.moved, cut) == ([named, again], str(day / "a.gz"))


def test_a_compaction_of_another_target_is_left_to_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = tmp_path / ARCHIVE_FOLDER / "v1" / "1556668800000"
    day.mkdir(parents=True)
    books: Any = Noted(monkeypatch)
    Path(begin(day, "a", "a1", target="there\x1b")).touch()
    left = sorted(os.listdir(day))
    with pytest.raises(RunError) as error:
        compaction._finish_begun(tmp_path, books)
    assert str(error.value) == (
        "Expected the target there\\x1b, where a compaction was cut off, but got here. Nothing was changed.\n"
        "Run --compact with that target once."
    )
    assert (sorted(os.listdir(day)), books.deleted, books.moved) == (left, [], [])
