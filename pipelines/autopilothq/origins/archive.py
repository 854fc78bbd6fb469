"""Segment's raw archive: finds its files and cuts their bytes into batches of lines (spec/archive.md).

Nothing here reads JSON. Damage and long lines become rejects: every byte is accounted for, and no file ends a run.
"""

import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, NamedTuple, Protocol

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from isal import igzip_lib

from autopilothq.messages import MAX_LINE, Batch, Reject

Info = dict[str, Any]
Int64s = npt.NDArray[np.int64]

LOOSE = (".gz", ".json", ".jsonl", ".ndjson", ".zst")
NEVER = frozenset({"dummy-object.txt", "_SUCCESS"})
SCHEMES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
EXTRAS = {"s3": "s3", "gs": "gcs", "az": "az"}

_DAY = re.compile(r"[0-9]{12,14}")
_DAY_MS = 86_400_000
_MAGIC = re.compile(r"[*?\[]")


class ArchiveError(Exception):
    """The archive cannot be found or listed: what was expected, where, what came, what to do."""


class File(NamedTuple):
    """One file. `url` names it for ever, `version` changes when its bytes do, `path` is its name on `fs`."""

    url: str
    version: str
    size: int
    fs: AbstractFileSystem
    path: str


# ---- finding files -------------------------------------------------------------------------------------------------


def find(
    urls: Sequence[str],
    *,
    since: date | None = None,
    until: date | None = None,
    source_id: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    fs: AbstractFileSystem | None = None,
) -> Iterator[File]:
    """The archive's files at `urls` (files, folders, globs, here or in a bucket), each once, sorted by url.

    `since` and `until` are UTC days, both included. They choose among day folders, and the others are never listed;
    files outside any day folder are read whatever the days. `source_id` chooses one source's folder. `storage_options`
    go to fsspec for remote urls; `fs` takes the place of the file system that a url's scheme names.
    Raises ArchiveError, before the first file is given, where a url names nothing or a folder cannot be listed.

    Example: `find(["s3://bucket/segment-logs"], since=date(2019, 3, 1))` gives `File("s3://bucket/segment-logs/…")`, ….
    """
    choice = _Choice(since, until, source_id)
    found: dict[str, File] = {}
    for url in urls:
        with _explained(url):
            system = fs or _filesystem(url, storage_options or {})
            system.invalidate_cache()
            for info in _search(system, _clean(system, url), url, choice):
                file = _file(system, info)
                found[file.url] = file
    return iter(sorted(found.values(), key=lambda file: file.url))


class _Choice(NamedTuple):
    """Which day folders and which source to read."""

    since: date | None
    until: date | None
    source_id: str | None

    def enters(self, folder: str) -> bool:
        """Whether anything below `folder` can be wanted."""
        day, source = _place(folder)
        return self._has_day(day) and (self.source_id is None or source in (None, self.source_id))

    def takes(self, path: str, *, named: bool) -> bool:
        """Whether a file is wanted; one that was `named` needs no suffix and no known source."""
        folder, _, name = path.rpartition("/")
        day, source = _place(folder)
        if name in NEVER or not self._has_day(day):
            return False
        if self.source_id is not None and source != self.source_id:
            return named and source is None
        return named or day is not None or name.lower().endswith(LOOSE)

    def _has_day(self, day: date | None) -> bool:
        return day is None or (self.since or day) <= day <= (self.until or day)


@lru_cache(4096)
def _place(folder: str) -> tuple[date | None, str | None]:
    """The UTC day of the innermost day folder, and the source: the name after `segment-logs`, else before the day.

    Example: `_place("b/segment-logs/i0VpEBOWfb/1551398400000") == (date(2019, 3, 1), "i0VpEBOWfb")`.
    """
    day = source = None
    for above, name in pairwise(["", *folder.split("/")]):
        if _DAY.fullmatch(name):
            day = date(1970, 1, 1) + timedelta(days=int(name) // _DAY_MS)
            source = source or above or None
        elif above == "segment-logs":
            source = name
    return day, source


def _search(fs: AbstractFileSystem, path: str, url: str, choice: _Choice) -> Iterator[Info]:
    """What `path` names: a file, all files of a folder, or both for every match of a glob."""
    info = _info(fs, path)
    if info is None and _MAGIC.search(path):
        yield from _globbed(fs, path, url, choice)
    elif info is None:
        raise ArchiveError(f"Expected a file or a folder at {url}, but nothing is there.\nCheck how the path is spelt.")
    elif info["type"] == "directory":
        yield from _below(fs, path, choice)
    elif info["type"] != "file":
        raise ArchiveError(f"Expected a file or a folder at {url}, but it is neither (a device, a pipe or a socket).")
    elif info["size"] != 0 and choice.takes(path, named=True):
        yield info


def _below(fs: AbstractFileSystem, root: str, choice: _Choice) -> Iterator[Info]:
    """The wanted files of a folder, level by level; linked folders last, and each real folder only once."""
    if not choice.enters(root):
        return
    level, links, seen = [root], list[str](), set[str]()
    with ThreadPoolExecutor(8) as pool:
        # Only an asynchronous file system may be asked from several threads.
        each: Callable[..., Iterator[list[Info]]] = pool.map if fs.async_impl else map
        while level or links:
            if not level:
                level = [links.pop(0)]
            level = [folder for folder in level if not _known(fs, folder, seen)]
            folders: list[str] = []
            for info in (info for infos in each(lambda folder: _listed(fs, folder), level) for info in infos):
                path = info["name"]
                if info["type"] == "directory":
                    if choice.enters(path):
                        (links if info.get("islink") else folders).append(path)
                elif choice.takes(path, named=False):
                    yield info
            level = folders


def _known(fs: AbstractFileSystem, folder: str, seen: set[str]) -> bool:
    """Whether this folder was met before, perhaps under another name; remembers it."""
    real = os.path.realpath(folder) if isinstance(fs, LocalFileSystem) else folder
    known = real in seen
    seen.add(real)
    return known


def _globbed(fs: AbstractFileSystem, path: str, url: str, choice: _Choice) -> Iterator[Info]:
    """The files that a glob names, and those below the folders that it names."""
    parts = path.split("/")
    fixed = next(at for at, part in enumerate(parts) if _MAGIC.search(part))
    root = "/".join(parts[:fixed]) or ("/" if path.startswith("/") else "")
    pattern = [part for at, part in enumerate(parts[fixed:], fixed) if part != "**" or parts[at - 1] != "**"]
    nothing = True
    for info in _matches(fs, root, pattern, choice):
        nothing = False
        if info["type"] != "directory":
            if choice.takes(info["name"], named=True):
                yield info
        elif pattern[-1] != "**":
            yield from _below(fs, info["name"], choice)
    if nothing:
        raise ArchiveError(f"Expected files that match {url}, but none does.\nCheck the pattern, or name a folder.")


def _matches(fs: AbstractFileSystem, folder: str, pattern: list[str], choice: _Choice) -> Iterator[Info]:
    """What matches below `folder`, with the folders that were not entered because of their day or source."""
    head, rest = pattern[0], pattern[1:]
    if head == "**" and rest:
        yield from _matches(fs, folder, rest, choice)
    for info in _listed(fs, folder, hidden=head.startswith(".")):
        name, is_folder = info["name"].rpartition("/")[2], info["type"] == "directory"
        if is_folder and not choice.enters(info["name"]):
            if head == "**" or fnmatchcase(name, head):
                yield info
        elif head == "**":
            if is_folder and not info.get("islink"):
                yield from _matches(fs, info["name"], pattern, choice)
            if not rest:
                yield info
        elif fnmatchcase(name, head):
            if not rest:
                yield info
            elif is_folder:
                yield from _matches(fs, info["name"], rest, choice)


def _listed(fs: AbstractFileSystem, folder: str, *, hidden: bool = False) -> list[Info]:
    """A folder's sub-folders and its files with anything in them, each with its path under `name`."""
    with _explained(_url(fs, folder)):
        infos = [_followed(info) if info.get("islink") else info for info in fs.ls(folder, detail=True)]
    kept = []
    for info in infos:
        path = info["name"].rstrip("/")
        # A folder's marker turns up in the folder's own listing, as itself or with a slash behind it.
        if path == folder.rstrip("/") or (path.rpartition("/")[2].startswith(".") and not hidden):
            continue
        if info["type"] == "directory" or (
            info["type"] in ("file", "link") and info["size"] != 0 and path == info["name"]
        ):
            kept.append(info if path == info["name"] else {**info, "name": path})
    return sorted(kept, key=lambda info: str(info["name"]))


def _followed(info: Info) -> Info:
    """A local link's listing with its target's type, size and time."""
    path = info["name"]
    if os.path.basename(path).startswith("."):
        return info
    try:
        there = os.stat(path)
    except OSError as error:
        raise ArchiveError(
            f"Expected a file or a folder behind the link {path}: {error.strerror}.\nRepair or remove the link."
        ) from error
    kind = "directory" if os.path.isdir(path) else "file" if os.path.isfile(path) else "other"
    return {**info, "type": kind, "size": there.st_size, "mtime": there.st_mtime}


def _info(fs: AbstractFileSystem, path: str) -> Info | None:
    """What is at `path`; None where nothing is, or where a glob's characters cannot be in a real name."""
    try:
        info: Info = fs.info(path)
    except FileNotFoundError:
        return None
    except Exception:
        if _MAGIC.search(path):
            return None
        raise
    return {**info, "name": path}


def _file(fs: AbstractFileSystem, info: Info) -> File:
    return File(_url(fs, info["name"]), _version(info), info["size"] or 0, fs, info["name"])


def _version(info: Info) -> str:
    """What changes when a file's bytes do: a store's digest or tag, else size and time of change.

    Example: `_version({"size": 5, "mtime": 1.5}) == "5-1500000000"`, `_version({"ETag": '"ab"'}) == "ab"`.
    """
    for key in ("md5Hash", "ETag", "etag"):
        if info.get(key):
            return str(info[key]).strip('"')
    changed = next((info[key] for key in ("mtime", "LastModified", "last_modified", "updated") if info.get(key)), "")
    if isinstance(changed, datetime):
        changed = (changed if changed.tzinfo else changed.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    elif isinstance(changed, float):
        changed = int(changed * 1_000_000_000)
    return f"{info['size']}-{changed}"


def _scheme(url: str) -> str:
    scheme = url.partition("://")[0] if "://" in url else "file"
    return SCHEMES.get(scheme, scheme)


def _filesystem(url: str, storage_options: Mapping[str, Any]) -> AbstractFileSystem:
    scheme = _scheme(url)
    if scheme in ("file", "local"):
        return LocalFileSystem()
    try:
        return fsspec.filesystem(scheme, **storage_options)
    except ImportError as error:
        wanted = f'"dlt-autopilothq[{EXTRAS[scheme]}]"' if scheme in EXTRAS else "the package named above"
        raise ArchiveError(f"{url} needs a package that is missing: {error}\npip install {wanted}") from error
    except ValueError as error:
        if scheme in fsspec.available_protocols():
            raise
        raise ArchiveError(
            f"Expected a path, or a url that begins with s3://, gs://, az:// or file://, but got {url}."
        ) from error


def _clean(fs: AbstractFileSystem, url: str) -> str:
    """The one path of a file, however its url was spelt."""
    path = str(fs._strip_protocol(url))
    return os.path.abspath(path) if isinstance(fs, LocalFileSystem) else path


def _url(fs: AbstractFileSystem, path: str) -> str:
    if isinstance(fs, LocalFileSystem):
        return path
    scheme = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return f"{SCHEMES.get(scheme, scheme)}://{path.lstrip('/')}"


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turns what a file system raises into an ArchiveError that says what to do."""
    try:
        yield
    except ArchiveError:
        raise
    except FileNotFoundError as error:
        raise ArchiveError(f"Expected a file or a folder at {url}, but nothing is there: {error}") from error
    except PermissionError as error:
        raise ArchiveError(
            f"Expected to list and read {url}, but access was denied: {error}\n"
            "Give these credentials the right to list and to read it, or name only folders that they may read."
        ) from error
    except Exception as error:
        raise ArchiveError(
            f"Expected to list {url}, but got {type(error).__name__}: {error}\n"
            "Check the credentials (storage_options, or the environment), the endpoint and the network."
        ) from error


# ---- reading files -------------------------------------------------------------------------------------------------

PIECE = 1 << 20
BLOCK = 1 << 18
HEADER = 1024
REMOTE_BLOCK = 8 << 20
FILES_AHEAD = 4
CHUNK_ROWS = 8192
ROW_BYTES = 24
NEWLINE = 10
BLANKS = b" \t\r\n"
MARK = b"\xef\xbb\xbf"
SCHEMA = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("text", pa.large_binary())])


def read(files: Sequence[File], *, batch_bytes: int = 32 << 20, max_line: int = MAX_LINE) -> Iterator[Batch]:
    """The files' lines in order, in batches of at most about `batch_bytes`, with what could not be read as rejects.

    Gzip, zstd and plain text are told apart by their bytes. A line keeps its `\\r`; each ends with `\\n`,
    the last of a file too, where it had none.
    Blank lines (space, tab, `\\r`) are counted, but not all of them are given. A damaged file ends with a `truncated`
    reject, and so does one that could not be read to its end: for that one `Batch.ended` says why. The next batch is
    made in a thread while this one is used. Memory stays within a few times `batch_bytes`, whatever the files hold.

    Example: `[len(batch.lines) for batch in read(list(find(["exports"])))]`.
    """
    stop = Event()
    with closing(_batches(files, batch_bytes, max_line, stop)) as batches, ThreadPoolExecutor(1) as thread:
        try:
            ahead = thread.submit(next, batches, None)
            while (batch := ahead.result()) is not None:
                ahead = thread.submit(next, batches, None)
                yield batch
        finally:
            stop.set()


class _Damage(Exception):
    """The bytes of a file are wrong from here on."""


class _Unreadable(Exception):
    """The bytes of a file could not be had; another time they may."""


class _Stopped(Exception):
    """Nobody wants the lines any more."""


class _Run(NamedTuple):
    """Whole lines of one file: `parts` joined, cut at `ends` (behind each newline), numbered from `line`."""

    file: int
    line: int
    size: int
    parts: list[bytes | memoryview]
    ends: Int64s


def _batches(files: Sequence[File], batch_bytes: int, max_line: int, stop: Event) -> Generator[Batch, None, None]:
    piece = max(1, min(PIECE, batch_bytes // 4))
    with closing(_sources(files, piece)) as sources:
        yield from _filled(sources, piece, batch_bytes, max_line, stop)


def _filled(
    sources: Iterable["_Source"], piece: int, batch_bytes: int, max_line: int, stop: Event
) -> Generator[Batch, None, None]:
    """Batches that are as full as they may be, whichever files their lines come from."""
    runs: list[_Run] = []
    rejects: list[Reject] = []
    ended: list[tuple[int, str | None]] = []
    weight = taken = 0
    for index, source in enumerate(sources):
        lines = _lines(_until(stop, _unmarked(_inflated(source, piece))), index, max_line)
        known = 0
        while True:
            try:
                item = next(lines)
            except StopIteration as end:
                ended.append((index, end.value))
                taken += max(0, source.position - known)
                break
            more = len(item.raw) if isinstance(item, Reject) else item.size + ROW_BYTES * len(item.ends)
            if weight and weight + more > batch_bytes:
                yield _batch(runs, rejects, ended, taken, max_line)
                runs, rejects, ended, weight, taken = [], [], [], 0, 0
            weight += more
            taken, known = taken + max(0, source.position - known), max(known, source.position)
            if isinstance(item, Reject):
                rejects.append(item)
            else:
                runs.append(item)
    if runs or rejects or ended:
        yield _batch(runs, rejects, ended, taken, max_line)


def _batch(
    runs: list[_Run], rejects: list[Reject], ended: list[tuple[int, str | None]], taken: int, max_line: int
) -> Batch:
    table, long = _table(runs, max_line)
    return Batch(table, sorted(rejects + long, key=lambda reject: reject[:2]), ended, taken)


def _table(runs: list[_Run], max_line: int) -> tuple[pa.Table, list[Reject]]:
    """The runs as one table over one buffer, and the lines that are too long for it as rejects."""
    if not runs:
        return SCHEMA.empty_table(), []
    text = b"".join(part for run in runs for part in run.parts)
    counts = np.array([len(run.ends) for run in runs])
    before = np.cumsum([0, *(run.size for run in runs[:-1])])
    rows = np.cumsum(counts) - counts
    offsets = np.zeros(counts.sum() + 1, np.int64)
    np.add(np.concatenate([run.ends for run in runs]), np.repeat(before, counts), out=offsets[1:])
    file = np.repeat(np.array([run.file for run in runs], np.int32), counts)
    line = np.arange(len(file)) + np.repeat(np.array([run.line for run in runs], np.int64) - rows, counts)
    column = pa.Array.from_buffers(pa.large_binary(), len(file), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
    table = pa.Table.from_arrays([pa.array(file), pa.array(line), column], schema=SCHEMA)
    long = np.diff(offsets) - 1 > max_line
    rejects = [
        _too_long(int(file[row]), int(line[row]), int(offsets[row + 1] - offsets[row]) - 1, start[:-1], max_line)
        for row in np.flatnonzero(long)
        if (start := text[offsets[row] : offsets[row + 1]]).strip(BLANKS)
    ]
    if long.any():
        table = table.filter(pa.array(~long))
    return pa.Table.from_batches(table.to_batches(max_chunksize=CHUNK_ROWS), SCHEMA), rejects


def _too_long(file: int, line: int, size: int, start: bytes | bytearray, max_line: int) -> Reject:
    message = f"Expected a line of at most {max_line:,} bytes, but it has {size:,}."
    return Reject(file, line, "line_too_long", message, bytes(start[:MAX_LINE]))


def _lines(pieces: Iterable[bytes], file: int, max_line: int) -> Generator[_Run | Reject, None, str | None]:
    """A file's bytes cut behind newlines. Returns why the file should be read again, None where it need not."""
    line = 1
    begun = _Begun(max(max_line, MAX_LINE))
    trouble: _Damage | _Unreadable | None = None
    try:
        for piece in pieces:
            blank = _is_blank(piece)
            if blank and begun.blank:
                cut = piece.rfind(b"\n") + 1
                line += int(np.count_nonzero(np.frombuffer(piece, np.uint8) == NEWLINE))
                begun = _Begun(begun.room) if cut else begun
                begun.add(piece[cut:], True)
                continue
            ends = _ends(piece)
            if not len(ends):
                begun.add(piece, blank)
                continue
            cut = int(ends[-1])
            yield from _whole(begun, memoryview(piece)[:cut], ends, file, line, max_line)
            line += len(ends)
            begun = _Begun(begun.room)
            begun.add(piece[cut:], _is_blank(piece[cut:]))
    except (_Damage, _Unreadable) as error:
        trouble = error
    start = b"" if begun.blank else bytes(begun.start)
    if trouble:
        yield Reject(file, line, "truncated", str(trouble), start[:MAX_LINE])
    elif begun.size > max_line and start:
        yield _too_long(file, line, begun.size, start, max_line)
    elif start:
        yield _Run(file, line, len(start) + 1, [start, b"\n"], np.array([len(start) + 1]))
    return str(trouble) if isinstance(trouble, _Unreadable) else None


class _Begun:
    """A line whose end has not come yet: its size, and as much of its start as there is room for."""

    def __init__(self, room: int) -> None:
        self.room, self.size, self.start, self.blank = room, 0, bytearray(), True

    def add(self, data: bytes | memoryview, blank: bool) -> None:
        self.start += data[: max(0, self.room - len(self.start))]
        self.size += len(data)
        self.blank = self.blank and blank


def _whole(
    begun: _Begun, data: memoryview, ends: Int64s, file: int, line: int, max_line: int
) -> Iterator[_Run | Reject]:
    """The lines that end in `data`, of which the first has begun before."""
    if begun.size <= begun.room:
        yield _Run(file, line, begun.size + len(data), [bytes(begun.start), data], ends + begun.size)
        return
    first = int(ends[0])
    begun.add(data[: first - 1], _is_blank(bytes(data[: first - 1])))
    if not begun.blank:
        yield _too_long(file, line, begun.size, begun.start, max_line)
    if len(ends) > 1:
        yield _Run(file, line + 1, len(data) - first, [data[first:]], ends[1:] - first)


def _is_blank(data: bytes) -> bool:
    # isspace() is fast, but knows two blanks more than JSON does.
    return not data or (data.isspace() and b"\x0b" not in data and b"\x0c" not in data)


def _ends(data: bytes) -> Int64s:
    """The positions behind each newline."""
    view = np.frombuffer(data, np.uint8)
    if len(view) <= BLOCK:
        return np.flatnonzero(view == NEWLINE) + 1
    # In blocks that stay in the processor's cache: twice as fast.
    blocks = range(0, len(view), BLOCK)
    return np.concatenate([np.flatnonzero(view[at : at + BLOCK] == NEWLINE) + (at + 1) for at in blocks])


def _until(stop: Event, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if stop.is_set():
            raise _Stopped
        yield piece


def _unmarked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes without a byte-order mark at their beginning."""
    start = b""
    trouble: Exception | None = None
    try:
        while len(start) < len(MARK):
            start += next(pieces)
    except StopIteration:
        pass
    except (_Damage, _Unreadable) as error:
        trouble = error
    if start := start.removeprefix(MARK):
        yield start
    if trouble:
        raise trouble
    yield from pieces


# ---- a file's bytes, inflated --------------------------------------------------------------------------------------


class _Source:
    """A file's bytes as they are stored, block by block; `position` counts what was taken.

    `ahead` decides when a block is fetched: it turns the fetching into something that gives the block.
    """

    def __init__(self, file: File, block: int, ahead: Callable[[Callable[[], bytes]], Callable[[], bytes]]) -> None:
        self.file, self.block, self.ahead = file, block, ahead
        self.handle: Any = None
        self.restart()

    def restart(self) -> None:
        """From the first byte again."""
        self.close()
        self.position, self.back = 0, memoryview(b"")
        self.take = self.ahead(self._fetch)

    def read(self, most: int | None = None) -> bytes:
        """The next bytes, b"" at the end."""
        if not self.back:
            self.back = memoryview(self._block())
        data, self.back = bytes(self.back[:most]), self.back[len(self.back) if most is None else most :]
        self.position += len(data)
        return data

    def peek(self, count: int) -> bytes:
        """The next bytes, `count` if there are so many, without taking them."""
        # An error here comes again when what lies before it was taken.
        with suppress(_Unreadable):
            while len(self.back) < count and (data := self._block()):
                self.back = memoryview(b"".join((self.back, data)))
        return bytes(self.back[:count])

    def unread(self, data: bytes) -> None:
        """Puts bytes back in front of the rest."""
        self.position -= len(data)
        self.back = memoryview(b"".join((data, self.back)))

    def close(self) -> None:
        if self.handle is not None:
            self.handle.close()
            self.handle = None

    def _block(self) -> bytes:
        try:
            data = self.take()
        except Exception as error:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise _Unreadable(
                f"Expected to read {self.file.url} to its end, but at byte {self.position:,} came {what}."
            ) from error
        if data:
            self.take = self.ahead(self._fetch)
        return data

    def _fetch(self) -> bytes:
        if self.handle is None:
            file = self.file
            self.handle = file.fs.open(file.path, "rb", **({"cache_type": "none"} if file.fs.async_impl else {}))
        data: bytes = self.handle.read(self.block)
        return data


def _sources(files: Sequence[File], piece: int) -> Generator[_Source, None, None]:
    """The files opened one after the other; of those in a bucket, the next few are fetched meanwhile."""
    waiting: deque[_Source] = deque()
    with ThreadPoolExecutor(FILES_AHEAD) as pool:
        try:
            for file in files:
                if file.fs.async_impl:
                    waiting.append(_Source(file, REMOTE_BLOCK, lambda fetch: pool.submit(fetch).result))
                else:
                    waiting.append(_Source(file, min(BLOCK, piece), lambda fetch: fetch))
                if len(waiting) == FILES_AHEAD:
                    with closing(waiting.popleft()) as source:
                        yield source
            while waiting:
                with closing(waiting.popleft()) as source:
                    yield source
        finally:
            pool.shutdown(cancel_futures=True)
            for source in waiting:
                source.close()


def _inflated(source: _Source, piece: int) -> Iterator[bytes]:
    """A file's content in pieces of about `piece` bytes. Raises _Damage or _Unreadable behind the last good byte."""
    head = source.peek(4)
    if head[:2] == b"\x1f\x8b" or head == b"\x1f":
        yield from _gunzipped(source, piece)
    elif head[:4] == b"\x28\xb5\x2f\xfd" or head[1:4] == b"\x2a\x4d\x18" or head in (b"\x28\xb5", b"\x28\xb5\x2f"):
        yield from (data[at : at + piece] for data in _unzstd(source) for at in range(0, len(data), piece))
    else:
        yield from iter(lambda: source.read(piece), b"")


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _gunzipped(source: _Source, piece: int) -> Iterator[bytes]:
    given = 0
    try:
        for data in _members(source, piece, lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)):
            given += len(data)
            yield data
    except igzip_lib.IsalError:  # type: ignore[misc]  # its stub says that this is an exception, not a class
        # It gave nothing of the piece in which it failed: once more, slowly, up to the last byte that can be had.
        source.restart()
        yield from _beyond(given, _members(source, piece, _SlowInflater))


def _members(source: _Source, piece: int, inflater: Callable[[], _Inflater]) -> Iterator[bytes]:
    """The content of all gzip members of a file, one after the other."""
    member = inflater()
    source.peek(HEADER)
    while True:
        data = source.read(BLOCK) if member.needs_input else b""
        if member.needs_input and not data:
            raise _Damage(f"The file was cut off: it ends at byte {source.position:,}, in the middle of its gzip data.")
        try:
            inflated = member.decompress(data, piece)
        except zlib.error as error:
            at = source.position - len(getattr(member, "pending", b""))
            raise _Damage(f"The file is damaged: its gzip data are wrong near byte {at:,} ({error}).") from error
        if inflated:
            yield inflated
        if member.eof:
            if not _another(source, member.unused_data):
                return
            member = inflater()
            # isal takes a header's checksum for content when the header comes in two pieces.
            source.peek(HEADER)


def _another(source: _Source, rest: bytes) -> bool:
    """Whether another gzip member follows the last one; zeros between and behind them mean nothing."""
    source.unread(rest)
    while data := source.read():
        if found := data.lstrip(b"\0"):
            source.unread(found)
            if not found.startswith(b"\x1f"):
                raise _Damage(f"The file is damaged: at byte {source.position:,}, behind its gzip data, is garbage.")
            return True
    return False


class _SlowInflater:
    """One gzip member; an error comes only when every byte before it was given. The interface is isal's."""

    def __init__(self) -> None:
        self.inflater = zlib.decompressobj(31)
        self.pending = b""

    @property
    def eof(self) -> bool:
        return self.inflater.eof

    @property
    def needs_input(self) -> bool:
        return not self.pending

    @property
    def unused_data(self) -> bytes:
        return self.inflater.unused_data + self.pending

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self.pending += data
        size = len(self.pending)
        while True:
            before = self.inflater.copy()
            try:
                inflated = self.inflater.decompress(self.pending[:size], max_length)
            except zlib.error:
                self.inflater = before
                if size > 1:
                    size //= 2
                elif max_length > 1:
                    max_length //= 2
                else:
                    raise
            else:
                self.pending = self.inflater.unconsumed_tail + self.pending[size:]
                return inflated


def _unzstd(source: _Source) -> Iterator[bytes]:
    given = 0
    try:
        for data in _frames(source, None):
            given += len(data)
            yield data
    except zstandard.ZstdError:
        # As with gzip: what came before the damage is got byte by byte.
        good = source.position
        source.restart()
        yield from _beyond(given, _frames(source, good))


def _frames(source: _Source, good: int | None) -> Iterator[bytes]:
    """The content of all zstd frames of a file. Bytes from `good` on go in one by one, and then an error is damage."""
    frame, fresh = zstandard.ZstdDecompressor().decompressobj(), True
    # Four bytes can hold 128 KiB of content, and there is no way to ask for less than all of it: so few go in at once.
    while data := source.read(1024 if good is None else min(1024, max(1, good - source.position))):
        fresh = False
        try:
            inflated = frame.decompress(data)
        except zstandard.ZstdError as error:
            source.unread(data)
            if good is None:
                raise
            raise _Damage(
                f"The file is damaged: its zstd data are wrong near byte {source.position:,} ({error})."
            ) from error
        if inflated:
            yield inflated
        if frame.eof:
            source.unread(frame.unused_data)
            frame, fresh = zstandard.ZstdDecompressor().decompressobj(), True
    if not fresh:
        raise _Damage(f"The file was cut off: it ends at byte {source.position:,}, in the middle of its zstd data.")


def _beyond(given: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces without their first `given` bytes."""
    for piece in pieces:
        if rest := piece[given:]:
            yield rest
        given = max(0, given - len(piece))


# ---- writing files again -------------------------------------------------------------------------------------------

ASIDE = ".forgetting"  # behind the name of a file that is being written; hidden, so that no load reads it


def without(file: File, lines: Collection[int]) -> None:
    """Writes a file again without these lines (from 1), compressed as it was; all other bytes of its content stay.

    It is written aside and then replaced in one step, in a bucket by one upload: whoever reads it finds the old file or
    the new one. Raises ArchiveError, and leaves it as it is, where it cannot be read to its end or changed meanwhile.
    """
    local = isinstance(file.fs, LocalFileSystem)
    if not local and not file.fs.async_impl:
        raise ArchiveError(
            f"Expected a local file or one in a bucket, which can be replaced in one step, at {file.url}."
        )
    path = os.path.realpath(file.path) if local else file.path
    with ExitStack() as stack:
        if local:
            folder, name = os.path.split(path)
            aside = os.path.join(folder, f".{name}{ASIDE}")
        else:
            aside = os.path.join(stack.enter_context(TemporaryDirectory()), "aside")
        with open(aside, "wb") as out:
            try:
                out.writelines(_written_again(file, frozenset(lines)))
            except (_Damage, _Unreadable) as error:
                os.unlink(aside)
                raise ArchiveError(f"{file.url} was left as it is. {error}") from error
            out.flush()
            os.fsync(out.fileno())
        file.fs.invalidate_cache()
        if not _is_unchanged(file):
            os.unlink(aside)
            raise ArchiveError(f"{file.url} was changed by another program. Run this again.")
        with _explained(file.url):
            if local:
                _replace(aside, path)
            else:
                file.fs.put_file(aside, path)


def _is_unchanged(file: File) -> bool:
    info = file.fs.info(file.path)
    infos = [info, _followed(info)] if info.get("islink") else [info]
    return file.version in map(_version, infos)


def _replace(aside: str, path: str) -> None:
    old = os.stat(path)
    os.chmod(aside, old.st_mode)
    with suppress(PermissionError):
        os.chown(aside, old.st_uid, old.st_gid)
    os.replace(aside, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _written_again(file: File, lines: frozenset[int]) -> Iterator[bytes]:
    """A file's bytes as they are stored, without some lines of its content."""
    with closing(_Source(file, BLOCK, lambda fetch: fetch)) as source:
        head = source.peek(4)
        kept = _but(_inflated(source, PIECE), lines)
        if head[:2] == b"\x1f\x8b":
            yield from _compressed(kept, zlib.compressobj(wbits=31))
        elif head[:4] == b"\x28\xb5\x2f\xfd" or head[1:4] == b"\x2a\x4d\x18":
            yield from _compressed(kept, zstandard.ZstdCompressor().compressobj())
        else:
            yield from kept


def _compressed(pieces: Iterable[bytes], compressor: Any) -> Iterator[bytes]:
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _but(pieces: Iterable[bytes], lines: frozenset[int]) -> Iterator[bytes]:
    """Content without some of its lines, numbered from 1 as `read` numbers them."""
    line = 1
    for piece in pieces:
        at = 0
        for end in [*_ends(piece).tolist(), len(piece)]:
            if line not in lines:
                yield piece[at:end]
            at = end
            line += 1
        line -= 1  # what stands behind the last newline goes on in the next piece
