"""What the tests of archives share: names of files, file systems that fail, and what is read."""

import io
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from autopilothq.segment.message import MAX_LINE, Reject, without_bom
from autopilothq.sources.archive.batches import read_batches
from autopilothq.sources.archive.listing import File

DAYS = {date(2019, 3, 1): "1551398400000", date(2019, 3, 2): "1551484800000", date(2019, 3, 3): "1551571200000"}
FIRST, SECOND, THIRD = DAYS.values()


def put(path: Path, data: bytes = b"{}\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


A, B = "aaaaaaaaaa", "bbbbbbbbbb"


class Refusing(LocalFileSystem):  # type: ignore[misc]
    """A local file system that raises `error` for paths that end with `where`; with `good`, after so many bytes."""

    cachable = False

    def __init__(self, where: str, error: Exception, good: int | None = None) -> None:
        super().__init__()
        self.where, self.error, self.good = where, error, good

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        if path.endswith(self.where):
            raise self.error
        return super().ls(path, detail=detail, **options)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        handle = super().open(path, mode, **options)
        if not path.endswith(self.where):
            return handle
        if self.good is None:
            raise self.error
        return Breaking(handle.read(self.good), self.error)


class Breaking(io.BytesIO):
    """A file that raises `error` instead of ending."""

    def __init__(self, data: bytes, error: Exception) -> None:
        super().__init__(data)
        self.error = error

    def read(self, size: int | None = -1) -> bytes:
        if data := super().read(size):
            return data
        raise self.error


# Files below folders without a name, such as a prefix that was typed as `foo/` leaves in a bucket.
NAMELESS = {
    f"foo//segment-logs/{A}/{FIRST}/x.gz": b"1\n",
    f"foo/segment-logs/{A}/{FIRST}/y.gz": b"2\n",
    f"/segment-logs/{B}/{SECOND}/z.gz": b"3\n",
    f"bar//segment-logs/{A}/{FIRST}/w.gz": b"4\n",
    f"day/segment-logs/{A}/{FIRST}/a//b.gz": b"5\n",
    f"day/segment-logs//{A}/{THIRD}///c.gz": b"6\n",
}
NAMED: list[tuple[str, dict[str, Any], str]] = [
    ("", {}, "xyzwbc"),
    ("/", {}, "xyzwbc"),
    ("//", {}, "z"),
    ("/foo", {}, "xy"),
    ("/foo/", {}, "xy"),
    ("/foo//", {}, "x"),
    ("/foo//segment-logs", {}, "x"),
    ("/bar", {}, "w"),
    ("/bar//", {}, "w"),
    ("//segment-logs/", {}, "z"),
    (f"/day/segment-logs/{A}/{FIRST}/a//b.gz", {}, "b"),
    ("/*//*", {}, "xw"),
    ("/**/*.gz", {}, "xyzwbc"),
    # Days and sources are found despite the empty names.
    ("", {"since": date(2019, 3, 2)}, "zc"),
    ("", {"source_id": A, "until": date(2019, 3, 1)}, "xywb"),
    ("/day", {"source_id": A}, "bc"),
    # No file has exactly these names, so the empty ones are ignored.
    ("//foo/", {}, "xy"),
    ("/foo//segment-logs//", {}, "x"),
    (f"/day//segment-logs/*/{FIRST}", {}, "b"),
]


def nameless(keys: str, root: str) -> list[str]:
    return sorted(f"{root}/{key}" for key in NAMELESS if key[-4] in keys)


Line = tuple[int, int, bytes]
Outcome = tuple[list[Line], list[Reject], list[tuple[int, str | None]]]


def rows(lines: pa.Table) -> list[Line]:
    return [(row["file"], row["line"], row["text"]) for row in lines.to_pylist()]


def not_blank(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if without_bom(line[2]).strip(b" \t\r\n\f")]


def all_lines(files: Sequence[File], **options: Any) -> list[Line]:
    return not_blank([row for batch in read_batches(files, **options) for row in rows(batch.lines)])


def outcome(files: Sequence[File], **options: Any) -> Outcome:
    batches = list(read_batches(files, **options))
    # No batch is empty, unless all its lines are blank and too long.
    is_empty = [not (len(batch.lines) or batch.rejects or batch.ended) for batch in batches]
    assert options.get("max_line", MAX_LINE) < MAX_LINE or not any(is_empty)
    rejects = [reject for batch in batches for reject in batch.rejects]
    ended = [end for batch in batches for end in batch.ended]
    return not_blank([row for batch in batches for row in rows(batch.lines)]), rejects, ended
