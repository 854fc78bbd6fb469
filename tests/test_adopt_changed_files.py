"""Errors of files: one that changes while it is adopted would have rows of two versions (docs/contract/adopt.md)."""

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from autopilothq.errors import ArchiveError
from autopilothq.projection import engine
from autopilothq.sources.adopt import buffer, columns
from autopilothq.sources.adopt.buffer import raising_archive_error
from autopilothq.sources.adopt.databases import buffer_work
from autopilothq.sources.adopt.files import TableFile
from autopilothq.sources.adopt.origin import AdoptedTables

FORMATS = {"csv": "HEADER, FORCE_QUOTE *", "json": "", "parquet": "", "csv.gz": "HEADER, COMPRESSION gzip"}


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect(None, 200, 1) as found:
        found.execute(columns.ADOPT_MACROS)
        yield found


def write(con: duckdb.DuckDBPyConnection, path: Path, select: str) -> None:
    form = path.name.partition(".")[2]
    con.execute(f"COPY ({select}) TO '{path}' ({FORMATS[form] or f'FORMAT {form}'})")


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'"9",\n')


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    """Puts a file with other columns in its place that has the same size and time."""
    state, other = path.stat(), path.with_name("other")
    other.write_bytes(path.read_bytes().replace(b"bb", b"cc"))
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_changes_while_it_is_read_is_an_error(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path, scratch, local_source = tmp_path / f"shop.{form}", tmp_path / "scratch", buffer.local_source
    scratch.mkdir()
    for change in (grow, shrink, replace, Path.unlink):
        write(con, path, "SELECT range::VARCHAR AS id, 'bb' AS bb FROM range(500)")
        [work], _ = AdoptedTables((str(path),)).works()
        buffer_work(con, work, 0, scratch)

        def changing(*given: Any, change: Callable[[Path], object] = change) -> buffer.Source:
            source = local_source(*given)
            change(path)
            return source

        with monkeypatch.context() as patch:
            patch.setattr(buffer, "local_source", changing)
            with pytest.raises(ArchiveError, match=f"Expected {path} to stay as it was"):
                buffer_work(con, work, 0, scratch)


def test_a_file_that_has_grown_since_it_was_listed_is_an_error(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    write(con, path, "SELECT 1 AS id")
    [work], _ = AdoptedTables((str(path),)).works()
    grow(path)
    with pytest.raises(ArchiveError, match="has changed since"):
        buffer_work(con, work, 0, tmp_path)


@pytest.mark.parametrize(
    ("error", "is_of_file"),
    [
        *((of("no"), False) for of in (PermissionError, TimeoutError, ConnectionResetError, FileNotFoundError)),
        (OSError(28, "No space left on device"), False),
        (OSError("Invalid Input Error: no"), True),  # as Arrow raises the engine's errors
        (gzip.BadGzipFile("Not a gzipped file"), True),
    ],
)
def test_a_bucket_that_cannot_be_read_is_no_damaged_file(error: OSError, is_of_file: bool) -> None:
    """Its advice would be to export the file again. Errors of buckets have no number."""
    with (
        pytest.raises(ArchiveError if is_of_file else type(error)),
        raising_archive_error(TableFile("s3://data/shop.csv", "1", 1, "shop", "csv", "data/shop.csv", fs=object())),
    ):
        raise error
