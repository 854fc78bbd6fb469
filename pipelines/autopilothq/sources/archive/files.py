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
from functools import lru_cache, partial
from itertools import pairwise
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic
from typing import Any, NamedTuple, Protocol

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from isal import igzip_lib

from ... import private
from ...display import visible
from ...errors import ArchiveError
from ...extras import install
from ...segment.message import MAX_LINE, Batch, Reject

Info = dict[str, Any]
Int64s = npt.NDArray[np.int64]

LOOSE = (".gz", ".json", ".jsonl", ".ndjson", ".zst")
NEVER = frozenset({"dummy-object.txt", "_SUCCESS"})
SCHEMES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
EXTRAS = {"s3": "s3", "gs": "gcs", "az": "az"}
TIMEOUT = 120.0  # seconds for one request to an object store, its retries included
TIMEOUT_SETTING = "sources.autopilothq.read_timeout"
LEFT_OUT = {
    "other_days": "outside of the days asked for",
    "other_source": "not of the source asked for",
    "not_data": "write tests and job markers",
    "folder_marker": "markers of folders",
    "empty": "empty files",
    "hidden": "hidden, as their names begin with a dot",
    "linked_folder": "linked folders, which ** does not enter",
    "unknown_suffix": f"outside of day folders and without a suffix of {', '.join(LOOSE)}",
    "not_a_file": "devices, pipes or sockets",
    "trailing_slash": "objects with content whose name ends with a slash",
}
"""Why something that a listing shows is not read."""

_DAY = re.compile(r"[0-9]{12,14}")
_DAY_MS = 86_400_000
_MAGIC = re.compile(r"[*?\[]")


class File(NamedTuple):
    """One file. `url` names it for ever, `version` changes when its bytes do, `path` is its name on `fs`."""

    url: str
    version: str
    size: int
    fs: AbstractFileSystem
    path: str


# ---- finding files -------------------------------------------------------------------------------------------------


def list_files(
    urls: Sequence[str],
    *,
    since: date | None = None,
    until: date | None = None,
    source_id: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    fs: AbstractFileSystem | None = None,
    timeout: float = TIMEOUT,
    left_out: dict[str, str] | None = None,
) -> Iterator[File]:
    """The archive's files at `urls` (files, folders, globs, here or in a bucket), each once, sorted by url.

    `since` and `until` are UTC days, both included. They choose among day folders, and the others are never listed;
    files outside any day folder are read whatever the days. `source_id` chooses one source's folder. `storage_options`
    go to fsspec for remote urls; `fs` takes the place of the file system that a url's scheme names. `timeout` is in
    seconds, for each request to an object store. What was seen and is not given goes into `left_out`: its url (a
    folder's ends with a slash) and why, a key of LEFT_OUT.
    Raises ArchiveError, before the first file is given, where a url names nothing or a folder cannot be listed.

    Example: `find(["s3://bucket/segment-logs"], since=date(2019, 3, 1))` gives `File("s3://bucket/segment-logs/…")`, ….
    """
    seen: dict[str, str] = {}
    choice = _Choice(since, until, source_id, timeout, seen)
    found: dict[str, File] = {}
    for url in urls:
        with _explained(url):
            system = fs or _filesystem(url, storage_options or {})
            system.invalidate_cache()
            for info in _search(system, _clean(system, url), url, choice):
                file = _file(system, info)
                found[file.url] = file
    if left_out is not None:
        left_out.update((url, why) for url, why in seen.items() if url not in found)
    return iter(sorted(found.values(), key=lambda file: file.url))


class _Choice(NamedTuple):
    """Which day folders and which source to read, how long to wait for a listing, and what was left out so far."""

    since: date | None
    until: date | None
    source_id: str | None
    timeout: float
    left_out: dict[str, str]

    def refuses(self, fs: AbstractFileSystem, info: Info, *, named: bool = False) -> bool:
        """Whether a file or a folder is not wanted; remembers why. One that was `named` may be called anything.

        Raises ArchiveError at a link that leads nowhere: there may be a whole archive behind it.
        """
        is_folder = info["type"] == "directory"
        why = self._why_no_folder(info["name"], named) if is_folder else self._why_no_file(info, named)
        if info["type"] == "broken" and why != "hidden":
            raise ArchiveError(
                f"Expected a file or a folder behind the link {info['name']}: {info['error'].strerror}.\n"
                "Repair or remove the link."
            ) from info["error"]
        if why:
            self.leave_out(fs, info, why)
        return why is not None

    def leave_out(self, fs: AbstractFileSystem, info: Info, why: str) -> None:
        """Remembers that something is not read."""
        self.left_out[_url(fs, info["name"]) + ("/" if info["type"] == "directory" else "")] = why

    def _why_no_folder(self, path: str, named: bool) -> str | None:
        day, source = _place(path)
        if _is_hidden(path) and not named:
            return "hidden"
        if not self._has_day(day):
            return "other_days"
        return None if self.source_id is None or source in (None, self.source_id) else "other_source"

    def _why_no_file(self, info: Info, named: bool) -> str | None:
        folder, _, name = info["name"].rpartition("/")
        day, source = _place(folder)
        other = self.source_id is not None and source != self.source_id and not (named and source is None)
        whys = {
            "folder_marker": not name and info["size"] == 0,
            "trailing_slash": not name,
            "not_data": name in NEVER,
            "hidden": name.startswith(".") and not named,
            "not_a_file": info["type"] not in ("file", "link"),
            "other_days": not self._has_day(day),
            "other_source": other,
            "empty": info["size"] == 0,
            "unknown_suffix": not named and day is None and not name.lower().endswith(LOOSE),
        }
        return next((why for why, holds in whys.items() if holds), None)

    def _has_day(self, day: date | None) -> bool:
        return day is None or (self.since or day) <= day <= (self.until or day)


def _is_hidden(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")


def day_and_source(url: str) -> tuple[date | None, str | None]:
    """The UTC day of the innermost day folder, and the source: the name after `segment-logs`, else before the day.

    Example: `place("s3://b/segment-logs/i0VpEBOWfb/1551398400000/") == (date(2019, 3, 1), "i0VpEBOWfb")`.
    """
    return _place(url.rpartition("/")[0])


@lru_cache(4096)
def _place(folder: str) -> tuple[date | None, str | None]:
    day = source = None
    for above, name in pairwise(["", *filter(None, folder.split("/"))]):
        if _DAY.fullmatch(name):
            day = date(1970, 1, 1) + timedelta(days=int(name) // _DAY_MS)
            source = source or above or None
        elif above == "segment-logs":
            source = name
    return day, source


class _NothingThere(ArchiveError):
    """A url names nothing."""


def _search(fs: AbstractFileSystem, path: str, url: str, choice: _Choice) -> Iterator[Info]:
    """What `path` names; where nothing has exactly that name, the same without its empty parts (`a//b`)."""
    *others, last = dict.fromkeys((path, path.rstrip("/") or path, re.sub("//+", "/", path.rstrip("/")) or path))
    for spelling in others:
        with suppress(_NothingThere):
            yield from _at(fs, spelling, url, choice)
            return
    yield from _at(fs, last, url, choice)


def _at(fs: AbstractFileSystem, path: str, url: str, choice: _Choice) -> Iterator[Info]:
    """What `path` names: a file, all files of a folder, or both for every match of a glob."""
    info = _info(fs, path, choice.timeout)
    if info is None and _MAGIC.search(path):
        yield from _globbed(fs, path, url, choice)
    elif info is None:
        raise _NothingThere(
            f"Expected a file or a folder at {url}, but nothing is there.\nCheck how the path is spelt."
        )
    elif info["type"] == "directory":
        yield from _below(fs, path, choice)
    elif info["type"] != "file":
        raise ArchiveError(f"Expected a file or a folder at {url}, but it is neither (a device, a pipe or a socket).")
    else:
        if not choice.refuses(fs, info, named=True):
            yield info
        # In a bucket an object may have the name of a folder, and mark it when it is empty.
        if not isinstance(fs, LocalFileSystem) and (info["size"] == 0 or url.endswith("/")):
            yield from _below(fs, path, choice)


def _below(fs: AbstractFileSystem, root: str, choice: _Choice) -> Iterator[Info]:
    """The wanted files of a folder, level by level; linked folders last, and each real folder only once."""
    if choice.refuses(fs, {"name": root, "type": "directory"}, named=True):
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
            listings = each(lambda folder: _listed(fs, folder, choice.timeout), level)
            for info in (info for infos in listings for info in infos if not choice.refuses(fs, info)):
                if info["type"] == "directory":
                    (links if info.get("islink") else folders).append(info["name"])
                else:
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
        if choice.refuses(fs, info, named=True):
            continue
        if info["type"] != "directory":
            yield info
        elif pattern[-1] != "**":
            yield from _below(fs, info["name"], choice)
    if nothing:
        raise _NothingThere(f"Expected files that match {url}, but none does.\nCheck the pattern, or name a folder.")


def _matches(fs: AbstractFileSystem, folder: str, pattern: list[str], choice: _Choice) -> Iterator[Info]:
    """What matches below `folder`, with the folders that were not entered because of their day or source."""
    head, rest = pattern[0], pattern[1:]
    if head == "**" and rest:
        yield from _matches(fs, folder, rest, choice)
    for info in _listed(fs, folder, choice.timeout):
        name, is_folder = info["name"].rpartition("/")[2], info["type"] in ("directory", "broken")
        if (rest and not is_folder) or not (head == "**" or fnmatchcase(name, head)):
            continue
        if _is_hidden(name) and not head.startswith("."):
            choice.leave_out(fs, info, "hidden")
        elif is_folder and choice.refuses(fs, info, named=True):
            yield info
        elif head == "**":
            if is_folder and info.get("islink"):
                choice.leave_out(fs, info, "linked_folder")
            elif is_folder:
                yield from _matches(fs, info["name"], pattern, choice)
            if not rest:
                yield info
        elif not rest:
            yield info
        else:
            yield from _matches(fs, info["name"], rest, choice)


# ---- listings ------------------------------------------------------------------------------------------------------
#
# A folder's path has no slash at its end, so that one that ends with a slash is a folder whose name is empty: what
# stands below `foo/` in a bucket with the key `foo//x.gz`.


def _listed(fs: AbstractFileSystem, folder: str, timeout: float) -> list[Info]:
    """All that a folder holds, each with its path under `name`; one that ends with a slash is a folder's marker."""
    with _explained(_url(fs, folder)):
        if folder and hasattr(fs, "call_s3"):
            infos = _s3_listing(fs, folder, timeout)
        elif folder.endswith("/") and folder.strip("/") and not isinstance(fs, LocalFileSystem):
            infos = _nameless_listing(fs, folder, timeout)
        else:
            infos = _plain_listing(fs, folder, timeout)
        return sorted(infos, key=lambda info: str(info["name"]))


def _plain_listing(fs: AbstractFileSystem, folder: str, timeout: float) -> Iterator[Info]:
    """What fsspec's `ls` gives."""
    bare = folder.rstrip("/")
    for given in _ask(fs, "ls", folder, detail=True, timeout=timeout):
        info = _followed(given) if given.get("islink") else given
        name = info["name"].rstrip("/")
        if info["type"] != "directory":
            if info["name"] != bare:  # the `ls` of a file gives that file
                yield info
        elif name != bare:
            yield info if info["name"] == name else {**info, "name": name}
        elif bare:
            # A folder in its own listing is what fsspec makes of a folder below it that has an empty name.
            yield {**info, "name": f"{bare}/"}


def _nameless_listing(fs: AbstractFileSystem, folder: str, timeout: float) -> Iterator[Info]:
    """What a folder with an empty name holds, of everything below the folder around it: `ls` merges the two."""
    around, start = folder.rstrip("/"), f"{folder}/"
    # Object stores can narrow it down; what is no object store may not know the word.
    narrow = {"prefix": start[len(around) + 1 :]} if fs.async_impl else {}
    below = _ask(fs, "find", around, detail=True, **narrow, timeout=timeout)
    folders = set()
    for path, info in below.items():
        if path.startswith(start):
            name, slash, _ = path[len(start) :].partition("/")
            if not slash:
                yield {**info, "name": path}
            elif name not in folders:
                folders.add(name)
                yield {"name": start + name, "type": "directory", "size": 0}


def _s3_listing(fs: AbstractFileSystem, folder: str, timeout: float) -> Iterator[Info]:
    """S3's own listing, page by page: s3fs would hide keys with empty parts, and a timeout is a page's."""
    bucket = fs.split_path(f"{folder}/x")[0]
    prefix = f"{folder[len(bucket) + 1 :]}/" if len(folder) > len(bucket) else ""
    token: dict[str, str] = {}
    while True:
        page = _ask(
            fs, "call_s3", "list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **token, timeout=timeout
        )
        for below in page.get("CommonPrefixes", ()):
            yield {"name": f"{bucket}/{below['Prefix'][:-1]}", "type": "directory", "size": 0}
        for key in page.get("Contents", ()):
            yield {**key, "name": f"{bucket}/{key['Key']}", "type": "file", "size": key["Size"]}
        if not page.get("IsTruncated"):
            return
        following = {"ContinuationToken": page["NextContinuationToken"]}
        if following == token:
            raise ArchiveError(
                f"Expected the next page of the listing of {_url(fs, folder)}, but it is the same again."
            )
        token = following


def _followed(info: Info) -> Info:
    """A local link's listing with its target's type, size and time; of the type `broken` where there is no target."""
    path = info["name"]
    try:
        there = os.stat(path)
    except OSError as error:
        return {**info, "type": "broken", "error": error}
    kind = "directory" if os.path.isdir(path) else "file" if os.path.isfile(path) else "other"
    return {**info, "type": kind, "size": there.st_size, "mtime": there.st_mtime}


def _info(fs: AbstractFileSystem, path: str, timeout: float) -> Info | None:
    """What is at `path`; None where nothing is, or where a glob's characters cannot be in a real name."""
    if path.endswith("/") and path.strip("/"):
        return {"name": path, "type": "directory", "size": 0} if _listed(fs, path, timeout) else None
    try:
        info: Info = _ask(fs, "info", path, timeout=timeout)
    except FileNotFoundError:
        return None
    except Exception:
        if _MAGIC.search(path):
            return None
        raise
    return {**info, "name": path}


class _NoAnswer(TimeoutError):
    """An object store did not answer in time."""


def _ask(fs: AbstractFileSystem, method: str, *words: Any, timeout: float, **options: Any) -> Any:
    """Calls a method of a file system, for at most `timeout` seconds, its retries included, where that can be ended.

    Raises _NoAnswer. A file system that is not asynchronous (a local disk) has no such end.
    """
    if not fs.async_impl:
        return getattr(fs, method)(*words, **options)
    try:
        return sync(fs.loop, getattr(fs, f"_{method}"), *words, timeout=timeout, **options)
    except FSTimeoutError as error:
        raise _NoAnswer(f"no answer within {timeout:g} s (set by {TIMEOUT_SETTING})") from error


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
        todo = f"Install it: {install(EXTRAS[scheme])}" if scheme in EXTRAS else "Install the package named above."
        raise ArchiveError(f"{url} needs a package that is missing: {error}\n{todo}") from error
    except ValueError as error:
        if scheme in fsspec.available_protocols():
            raise
        raise ArchiveError(
            f"Expected a path, or a url that begins with s3://, gs://, az:// or file://, but got {url}."
        ) from error


def _clean(fs: AbstractFileSystem, url: str) -> str:
    """The one path of a file or folder, however its url was spelt. `a/b//` in a bucket is `a/b/`: below `b/`, ``."""
    path = str(fs._strip_protocol(url))
    if isinstance(fs, LocalFileSystem):
        return os.path.abspath(path)
    return path.rstrip("/") + "/" * (len(url) - len(url.rstrip("/")) - 1) if path.strip("/") else path


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
        raise _NothingThere(f"Expected a file or a folder at {url}, but nothing is there: {error}") from error
    except PermissionError as error:
        raise ArchiveError(
            f"Expected to list and read {url}, but access was denied: {error}\n"
            "Give these credentials the right to list and to read it, or name only folders that they may read."
        ) from error
    except _NoAnswer as error:
        raise ArchiveError(
            f"Expected to list {url}, but got {error}.\nCheck the endpoint and the network, or allow more time."
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
IN_VAIN = 8  # files one after the other, each waited for in vain: the store is gone, and there may be 100,000 more
PATIENCE = 5.0  # seconds; a refusal (no permission, no such file) comes sooner
CHUNK_ROWS = 8192
ROW_BYTES = 24
NEWLINE = 10
BLANKS = b" \t\r\n"
MARK = b"\xef\xbb\xbf"
SCHEMA = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("text", pa.large_binary())])


def read_batches(
    files: Sequence[File], *, batch_bytes: int = 32 << 20, max_line: int = MAX_LINE, timeout: float = TIMEOUT
) -> Iterator[Batch]:
    """The files' lines in order, in batches of at most about `batch_bytes`, with what could not be read as rejects.

    Gzip, zstd and plain text are told apart by their bytes. A line keeps its `\\r`; each ends with `\\n`,
    the last of a file too, where it had none.
    Blank lines (space, tab, `\\r`) are counted, but not all of them are given. A damaged file ends with a `truncated`
    reject, and so does one that could not be read to its end: for that one `Batch.ended` says why. The next batch is
    made in a thread while this one is used. Memory stays within a few times `batch_bytes`, whatever the files hold.
    `timeout` is in seconds, for each piece of up to 8 MiB of a file in an object store. Raises ArchiveError where
    IN_VAIN files one after the other were waited for in vain.

    Example: `[len(batch.lines) for batch in read(list(find(["exports"])))]`.
    """
    stop = Event()
    with closing(_batches(files, batch_bytes, max_line, timeout, stop)) as batches, ThreadPoolExecutor(1) as thread:
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


def _batches(
    files: Sequence[File], batch_bytes: int, max_line: int, timeout: float, stop: Event
) -> Generator[Batch, None, None]:
    piece = max(1, min(PIECE, batch_bytes // 4))
    with closing(_sources(files, piece, timeout)) as sources:
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

    `ahead` decides when a block is fetched: it turns the fetching into something that gives the block. `timeout` is in
    seconds for a block of a file in an object store.
    """

    def __init__(
        self,
        file: File,
        block: int,
        ahead: Callable[[Callable[[], bytes]], Callable[[], bytes]],
        timeout: float = TIMEOUT,
    ) -> None:
        self.file, self.block, self.ahead, self.timeout = file, block, ahead, timeout
        self.handle: Any = None
        self.restart()

    def restart(self) -> None:
        """From the first byte again."""
        self.close()
        self.position, self.fetched, self.back = 0, 0, memoryview(b"")
        self.error: Exception | None = None
        self.waited = 0.0
        self.take = self.ahead(partial(self._fetch, 0))

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
            if self.error:
                raise self.error  # it was tried again and again: asking once more would be as long in vain
            data = self.take()
        except Exception as error:
            self.error = error
            raise _Unreadable(
                f"Expected to read {visible(self.file.url)} to its end,"
                f" but at byte {self.position:,} came {_what(error)}."
            ) from error
        if data:
            self.fetched += len(data)
            self.take = self.ahead(partial(self._fetch, self.fetched))
        return data

    def _fetch(self, start: int) -> bytes:
        file, started = self.file, monotonic()
        try:
            if file.fs.async_impl and file.size:
                return self._fetch_range(start)
            if self.handle is None:
                self.handle = file.fs.open(file.path, "rb", **({"cache_type": "none"} if file.fs.async_impl else {}))
            data: bytes = self.handle.read(self.block)
            return data
        finally:
            self.waited = monotonic() - started

    def _fetch_range(self, start: int) -> bytes:
        """A block of an object. One that comes whole in one request is one version; of others each block is checked."""
        file = self.file
        if start >= file.size:
            return b""
        end = start + self.block
        data: bytes = _ask(file.fs, "cat_file", file.path, start=start, end=end, timeout=self.timeout)
        if len(data) != file.size and not (data and _is_unchanged(file, self.timeout)):
            raise _Rewritten("another version of it: it was written again after it was listed")
        return data


class _Rewritten(Exception):
    """A file is not the one that was listed."""


def _what(error: Exception) -> str:
    if isinstance(error, _NoAnswer | _Rewritten):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _sources(files: Sequence[File], piece: int, timeout: float) -> Generator[_Source, None, None]:
    """The files opened one after the other; of those in a bucket, the next few are fetched meanwhile."""
    waiting: deque[_Source] = deque()
    in_vain = 0
    with ThreadPoolExecutor(FILES_AHEAD) as pool:
        try:
            for file in files:
                if file.fs.async_impl:
                    waiting.append(_Source(file, REMOTE_BLOCK, lambda fetch: pool.submit(fetch).result, timeout))
                else:
                    waiting.append(_Source(file, min(BLOCK, piece), lambda fetch: fetch))
                if len(waiting) == FILES_AHEAD:
                    with closing(waiting.popleft()) as source:
                        yield source
                    in_vain = _counted(source, in_vain)
            while waiting:
                with closing(waiting.popleft()) as source:
                    yield source
                in_vain = _counted(source, in_vain)
        finally:
            pool.shutdown(cancel_futures=True)
            for source in waiting:
                source.close()


def _counted(source: _Source, in_vain: int) -> int:
    """How many files one after the other were waited for in vain, this one being the last. Raises at IN_VAIN."""
    refused = isinstance(source.error, _Rewritten) or source.waited < min(PATIENCE, source.timeout)
    if source.error is None or refused:
        return 0
    if in_vain + 1 == IN_VAIN:
        raise ArchiveError(
            f"Expected to read {visible(source.file.url)}, but got {_what(source.error)},"
            f" like {in_vain} files before it.\n"
            "Check the endpoint and the network."
        )
    return in_vain + 1


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
            f"Expected a local file or one in a bucket, which can be replaced in one step, at {visible(file.url)}."
        )
    path = os.path.realpath(file.path) if local else file.path
    with ExitStack() as stack:
        if local:
            folder, name = os.path.split(path)
            aside = os.path.join(folder, f".{name}{ASIDE}")
        else:
            aside = os.path.join(stack.enter_context(TemporaryDirectory()), "aside")
        with private.opened(aside) as out:
            try:
                out.writelines(_written_again(file, frozenset(lines)))
            except (_Damage, _Unreadable) as error:
                os.unlink(aside)
                raise ArchiveError(f"{visible(file.url)} was left as it is. {error}") from error
            out.flush()
            os.fsync(out.fileno())
        file.fs.invalidate_cache()
        if not _is_unchanged(file):
            os.unlink(aside)
            raise ArchiveError(f"{visible(file.url)} was changed by another program. Run this again.")
        with _explained(file.url):
            if local:
                _replace(aside, path)
            else:
                file.fs.put_file(aside, path)


def _is_unchanged(file: File, timeout: float = TIMEOUT) -> bool:
    info = _ask(file.fs, "info", file.path, timeout=timeout)
    infos = [info, _followed(info)] if info.get("islink") else [info]
    return file.version in map(_version, infos)


def _replace(aside: str, path: str) -> None:
    old = os.stat(path)
    with suppress(PermissionError):
        os.chown(aside, old.st_uid, old.st_gid)
    os.chmod(aside, old.st_mode)  # last: else it could be another group's for a moment
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
