"""Listings give each file of an archive one name and a version that changes with its bytes; errors are plain."""

import asyncio
import os
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from fsspec.asyn import sync
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from autopilothq.errors import ArchiveError
from autopilothq.sources.archive import listing
from autopilothq.sources.archive.blocks import BlockReader
from autopilothq.sources.archive.discover import day_and_source, list_files
from autopilothq.sources.archive.listing import File, PathNotFound, StoreTimeout
from listed import Counting

NOON = datetime(2019, 3, 1, 12, tzinfo=UTC)


NAMELESS = {"/b/X/y.gz": b"12", "/b/X//x.gz": b"123", "/b/X//s/z.gz": b"4", "/b/X//s/u": b"", "/b/X//s/t/v": b"5"}


@pytest.fixture
def memory() -> MemoryFileSystem:
    """A bucket `b` in memory, with folders that have no name."""
    fs = MemoryFileSystem()
    for path, data in NAMELESS.items():
        fs.pipe(path, data)
    return fs


class Asking(AsyncFileSystemWrapper):  # type: ignore[misc]
    """A store that answers asynchronously and records the options of its requests."""

    _find: Any

    def __init__(self, fs: Any) -> None:
        super().__init__(fs)
        self.asked: list[dict[str, Any]] = []
        find = self._find

        async def asked(path: str, **options: Any) -> Any:
            self.asked.append({"path": path, **options})
            return await find(path, **options)

        self._find = asked


def answering(answer: Any, asked: list[Any]) -> Callable[..., Any]:
    def function(*args: Any, **options: Any) -> Any:
        asked.append((args, options))
        return answer

    return function


def raising(error: Exception) -> Callable[..., None]:
    def function(*_: Any, **__: Any) -> None:
        raise error

    return function


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("memory://b/a", "/b/a"),
        ("memory://b/a/", "/b/a"),
        ("memory://b/a//", "/b/a/"),
        ("memory://b/a///", "/b/a//"),
        ("memory://b", "/b"),
        ("memory://", ""),
        ("memory:///", ""),
    ],
)
def test_a_path_in_a_bucket_keeps_the_slashes_that_are_names(url: str, path: str) -> None:
    assert listing.normalized_path(MemoryFileSystem(), url) == path


@pytest.mark.parametrize(
    ("protocol", "path", "url"),
    [
        ("memory", "/b/a//x", "memory://b/a//x"),
        (("s3", "s3a"), "b/x", "s3://b/x"),
        (("s3a", "s3"), "b/x", "s3://b/x"),
        (("gcs", "gs"), "b/x", "gs://b/x"),
        ("abfs", "b/x/", "az://b/x/"),
        ("abfss", "b/x/", "az://b/x/"),
    ],
)
def test_all_protocol_names_of_a_store_give_one_scheme(protocol: Any, path: str, url: str) -> None:
    store: Any = SimpleNamespace(protocol=protocol)
    assert listing.file_url(store, path) == url


def test_a_url_that_is_too_long_for_a_key_is_cut_in_its_middle() -> None:
    """The shortened URL is still unique, and at most as long as a key may be."""
    disk, store = LocalFileSystem(), MemoryFileSystem()
    longest = "/" + "a" * (listing.MAX_URL - 1)
    assert listing.file_url(disk, longest) == longest
    paths = [f"/{'a' * 3_000}/{number}/{'é' * 600}/1.gz" for number in range(2)]
    paths += ["/" + b"\xff".decode(errors="surrogateescape") * 501]
    urls = [listing.file_url(fs, path) for fs in (disk, store) for path in paths[: 3 if fs is disk else 2]]
    assert len(set(urls)) == 5
    assert max(len(url.encode()) for url in urls) <= listing.MAX_URL
    assert all(url.endswith("é/1.gz") for url in urls if "é" in url)
    assert (urls[0][:3], urls[2][:5], urls[3][:10]) == ("/aa", "/\\xff", "memory://a")


@pytest.mark.parametrize(
    ("url", "day", "source"),
    [
        ("s3://b/segment-logs/AbC/1551398400000/1.gz", date(2019, 3, 1), "AbC"),
        ("s3://b/segment-logs/AbC/1551484799999/", date(2019, 3, 1), "AbC"),
        ("s3://b/segment-logs/AbC/1551484800000/x/y.gz", date(2019, 3, 2), "AbC"),
        ("s3://b/segment-logs/AbC/", None, "AbC"),
        ("s3://b/segment-logs/AbC", None, None),
        ("s3://b/x/AbC/1551398400000/1.gz", date(2019, 3, 1), "AbC"),
        ("s3://b/AbC/x/1.gz", None, None),
        ("/1551398400000/1.gz", date(2019, 3, 1), None),
        ("s3://b//AbC//1551398400000//1.gz", date(2019, 3, 1), "AbC"),
        ("s3://b/AbC/1551398400000/1551484800000/1.gz", date(2019, 3, 2), "AbC"),
        ("s3://b/AbC/15513984000000/1.gz", date(2461, 8, 14), "AbC"),
        ("s3://b/AbC/155139840000/1.gz", date(1974, 12, 1), "AbC"),
        ("s3://b/AbC/15513984000/1.gz", None, None),
        ("s3://b/AbC/155139840000000/1.gz", None, None),
        ("s3://b/AbC/a1551398400000/1.gz", None, None),
        ("1.gz", None, None),
    ],
)
def test_folders_tell_the_day_and_the_source(url: str, day: date | None, source: str | None) -> None:
    assert day_and_source(url) == (day, source)


# ---- globs ---------------------------------------------------------------------------------------------------------


class Listing(MemoryFileSystem):  # type: ignore[misc]
    """A file system that records which folders are listed; `strip` turns a URL into a path."""

    cachable = False
    store: ClassVar[dict[str, Any]] = {}

    def __init__(self, strip: Callable[[str], str]) -> None:
        super().__init__()
        self.listed: list[str] = []
        self._strip_protocol = strip

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        self.listed.append(path)
        return [] if detail else options


@pytest.mark.parametrize(
    ("strip", "root"),
    [
        (lambda url: "/" + url.removeprefix("memory://").lstrip("/"), "/"),
        (lambda url: url.removeprefix("memory://"), ""),
    ],
)
def test_a_glob_begins_at_the_root_as_the_store_writes_it(strip: Callable[[str], str], root: str) -> None:
    fs = Listing(strip)
    with pytest.raises(PathNotFound):
        list_files(["memory://*.gz"], fs=fs)
    assert fs.listed[-1] == root


@pytest.mark.parametrize(
    ("pattern", "files", "listed"),
    [
        ("**", ["a/b/1.gz", "a/b/c/2.gz", "a/b/c/d/3.gz"], "root a b c d"),
        ("**/**", ["a/b/1.gz", "a/b/c/2.gz", "a/b/c/d/3.gz"], "root a b c d"),
        ("a/**/**/*.gz", ["a/b/1.gz", "a/b/c/2.gz", "a/b/c/d/3.gz"], "a a b b c c d d"),
        ("a/**/**/**", ["a/b/1.gz", "a/b/c/2.gz", "a/b/c/d/3.gz"], "a b c d"),
        ("**/c/**", ["a/b/c/2.gz", "a/b/c/d/3.gz"], None),
        ("*/*/?.gz", ["a/b/1.gz"], "root a b"),
        (".h*/4.gz", [".hidden/4.gz"], "root .hidden"),
        (".h*", [".hidden/4.gz", ".hidden/5.gz"], "root .hidden"),
        (".*/*", [".hidden/4.gz", ".hidden/5.gz"], "root .hidden"),
    ],
)
def test_a_glob_lists_what_it_must(tmp_path: Path, pattern: str, files: list[str], listed: str | None) -> None:
    root = tmp_path / "root"
    for name in ("a/b/1.gz", "a/b/c/2.gz", "a/b/c/d/3.gz", ".hidden/4.gz", ".hidden/5.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"{}")
    fs = Counting()
    found = [os.path.relpath(file.path, root) for file in list_files([f"{root}/{pattern}"], fs=fs)]
    assert found == files
    assert listed is None or sorted(fs.listed) == sorted(listed.split())


def test_a_folder_and_a_link_to_it_are_read_once_by_its_own_name(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "b" / "c").mkdir(parents=True)
    (root / "b" / "c" / "x.gz").write_bytes(b"{}")
    (root / "a").symlink_to(root / "b")
    (root / "z").symlink_to(root)
    assert [file.path for file in list_files([str(root)])] == [str(root / "b" / "c" / "x.gz")]


# ---- versions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"ETag": '"ab"'}, "ab"),
        ({"etag": "W/x"}, "W/x"),
        ({"md5Hash": "m", "ETag": "e", "etag": "f"}, "m"),
        ({"ETag": "e", "etag": "f"}, "e"),
        ({"md5Hash": "", "etag": "f"}, "f"),
        ({"mtime": 1.5}, "5-1500000000"),
        ({"mtime": 0.000000001}, "5-1"),
        ({"mtime": 7}, "5-7"),
        ({"mtime": 1.0, "LastModified": NOON}, "5-1000000000"),
        ({"LastModified": NOON, "last_modified": "x", "updated": "y"}, "5-2019-03-01T12:00:00+00:00"),
        ({"last_modified": "x", "updated": "y"}, "5-x"),
        ({"mtime": 0, "updated": "2019-03-01T12:00:00Z"}, "5-2019-03-01T12:00:00Z"),
        ({"LastModified": NOON.replace(tzinfo=None)}, "5-2019-03-01T12:00:00+00:00"),
        ({"LastModified": NOON.astimezone(timezone(timedelta(hours=2)))}, "5-2019-03-01T12:00:00+00:00"),
        ({}, "5-"),
    ],
)
def test_a_version_is_what_the_store_has_of_it(info: dict[str, Any], version: str) -> None:
    fs = MemoryFileSystem()
    assert listing.make_file(fs, {"name": "/b/x", "size": 5, **info}) == File("memory://b/x", version, 5, fs, "/b/x")


def test_a_file_of_unknown_size_counts_as_none() -> None:
    assert listing.make_file(MemoryFileSystem(), {"name": "/b/x", "size": None, "etag": "e"}).size == 0


def test_a_file_is_unchanged_until_its_bytes_change(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    path, link = folder / "x.gz", folder / "link.gz"
    path.write_bytes(b"{}\n")
    link.symlink_to(path)
    fs = LocalFileSystem()
    files = [listing.make_file(fs, info) for info in listing.list_folder(fs, str(folder), 1)]
    assert [(Path(file.url).name, file.size) for file in files] == [("link.gz", 3), ("x.gz", 3)]
    assert [listing.is_unchanged(file) for file in files] == [True, True]
    path.write_bytes(b"{ }\n")
    assert [listing.is_unchanged(file) for file in files] == [False, False]


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"{}\n")
    os.utime(tmp_path / "file", (0, 1.5))
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "file", "pipe", "nothing"):
        (tmp_path / f"to {name}").symlink_to(tmp_path / name)
    infos = listing.list_folder(LocalFileSystem(), str(tmp_path), 1)
    found = {os.path.basename(info["name"]): info for info in infos if info.get("islink")}
    assert {name: info["type"] for name, info in found.items()} == {
        "to file": "file", "to folder": "directory", "to nothing": "broken", "to pipe": "other",
    }  # fmt: skip
    assert (found["to file"]["size"], found["to file"]["mtime"]) == (3, 1.5)
    assert found["to nothing"]["error"].strerror == "No such file or directory"


# ---- listings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [lambda fs: fs, Asking])
def test_folders_are_listed_sorted_also_those_without_a_name(memory: MemoryFileSystem, kind: Any) -> None:
    fs = kind(memory)

    def entries(folder: str) -> list[tuple[str, str, int]]:
        return [(info["name"], info["type"], info["size"]) for info in listing.list_folder(fs, folder, 5)]

    assert entries("") == [("/b", "directory", 0)]
    assert entries("/b/X") == [("/b/X/", "directory", 0), ("/b/X/y.gz", "file", 2)]
    assert entries("/b/X/") == [("/b/X//s", "directory", 0), ("/b/X//x.gz", "file", 3)]
    assert entries("/b/X//s") == [("/b/X//s/t", "directory", 0), ("/b/X//s/u", "file", 0), ("/b/X//s/z.gz", "file", 1)]
    assert listing.path_info(fs, "/b/X/", 5) == {"name": "/b/X/", "type": "directory", "size": 0}
    assert [listing.path_info(fs, path, 5) for path in ("/b/X//s/", "/b/c")] == [None, None]
    if isinstance(fs, Asking):
        assert {(asked["path"], asked["prefix"]) for asked in fs.asked} == {("/b/X", "/"), ("/b/X//s", "/")}


def test_what_is_found_below_a_folder_without_a_name_has_its_path() -> None:
    found = {"b/a//x": {"name": "x", "type": "file", "size": 1}, "b/a/y": {"name": "y", "type": "file", "size": 1}}
    asked: list[Any] = []
    store: Any = SimpleNamespace(async_impl=False, protocol="x", find=answering(found, asked))
    assert listing.list_folder(store, "b/a/", 1) == [{"name": "b/a//x", "type": "file", "size": 1}]
    assert asked == [(("b/a",), {"detail": True})]


def test_each_request_to_a_store_has_its_time(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()

    def timed(loop: Any, function: Any, *args: Any, timeout: float | None, **options: Any) -> Any:
        asked.add((function.__name__, timeout))
        return sync(loop, function, *args, timeout=timeout, **options)

    monkeypatch.setattr(listing, "sync", timed)
    store = Asking(memory)
    files = list(list_files(["memory://b", "memory://b/X//", "memory://b/*/*.gz"], fs=store, timeout=7))
    assert [file.path for file in files] == [path for path in sorted(NAMELESS) if path.endswith(".gz")]
    assert listing.is_unchanged(files[0], 7)
    assert asked == {("info", 7), ("ls", 7), ("asked", 7)}
    asked.clear()
    reader = BlockReader(next(file for file in files if file.size > 1), 1, timeout=7)
    while reader.read():
        pass
    assert asked == {("cat_file", 7), ("info", 7)}
    calls: list[Any] = []
    monkeypatch.setattr(listing, "call_filesystem", answering({}, calls))
    assert listing.list_folder(cast(Any, Pages()), "b/a", 7) == []
    assert [options["timeout"] for _, options in calls] == [7]


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        ({"name": "b/X/x", "type": "file", "size": 1}, {"name": "b/X/x", "type": "file", "size": 1}),
        ({"name": "b/X", "type": "file", "size": 1}, None),
        ({"name": "b/X/", "type": "file", "size": 1}, {"name": "b/X/", "type": "file", "size": 1}),
        ({"name": "b/X/c/", "type": "directory"}, {"name": "b/X/c", "type": "directory"}),
        ({"name": "b/X/c", "type": "directory"}, {"name": "b/X/c", "type": "directory"}),
        ({"name": "b/X", "type": "directory", "x": 1}, {"name": "b/X/", "type": "directory", "x": 1}),
        ({"name": "b/X/", "type": "directory", "x": 1}, {"name": "b/X/", "type": "directory", "x": 1}),
    ],
)
def test_entries_of_all_stores_are_named_alike(given: dict[str, Any], listed: dict[str, Any]) -> None:
    asked: list[Any] = []
    store: Any = SimpleNamespace(async_impl=False, protocol="x", ls=answering([given], asked))
    assert listing.list_folder(store, "b/X", 1) == ([listed] if listed else [])
    assert asked == [(("b/X",), {"detail": True})]


@pytest.mark.parametrize("root", ["", "/"])
def test_the_root_of_a_store_is_not_in_itself(root: str) -> None:
    entries = [{"name": root, "type": "directory"}]
    store: Any = SimpleNamespace(async_impl=False, protocol="x", ls=lambda *_, **__: entries)
    assert listing.list_folder(store, root, 1) == []


class Pages:
    """S3's own listing, a page a call, with a token for the next; records the requests."""

    async_impl, protocol = False, ("s3", "s3a")

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages, self.asked = iter(pages), list[dict[str, Any]]()

    def split_path(self, path: str) -> tuple[str, str]:
        bucket, _, key = path.partition("/")
        return bucket, key

    def call_s3(self, method: str, **options: Any) -> dict[str, Any]:
        assert method == "list_objects_v2"
        self.asked.append(options)
        return next(self.pages)


def test_s3_is_listed_page_by_page() -> None:
    pages: Any = Pages(
        {"CommonPrefixes": [{"Prefix": "a/c/"}, {"Prefix": "a//"}], "IsTruncated": True, "NextContinuationToken": "2"},
        {"Contents": [{"Key": "a/", "Size": 0, "ETag": "e"}, {"Key": "a/x", "Size": 4, "ETag": "f"}]},
    )
    assert listing.list_folder(pages, "b/a", 1) == [
        {"name": "b/a/", "type": "directory", "size": 0},
        {"Key": "a/", "Size": 0, "ETag": "e", "name": "b/a/", "type": "file", "size": 0},
        {"name": "b/a/c", "type": "directory", "size": 0},
        {"Key": "a/x", "Size": 4, "ETag": "f", "name": "b/a/x", "type": "file", "size": 4},
    ]
    first = {"Bucket": "b", "Prefix": "a/", "Delimiter": "/"}
    assert pages.asked == [first, first | {"ContinuationToken": "2"}]


@pytest.mark.parametrize(
    ("folder", "bucket", "prefix"), [("b", "b", ""), ("b/", "b", "/"), ("b/a", "b", "a/"), ("bb/a/", "bb", "a//")]
)
def test_s3_is_asked_for_one_folder(folder: str, bucket: str, prefix: str) -> None:
    pages: Any = Pages({"IsTruncated": False})
    assert listing.list_folder(pages, folder, 1) == []
    assert pages.asked == [{"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}]


@pytest.mark.parametrize("tokens", ["22", "232", "2342", "2343"])
def test_a_listing_that_never_ends_is_stopped(tokens: str) -> None:
    pages: Any = Pages(*({"IsTruncated": True, "NextContinuationToken": token} for token in tokens))
    with pytest.raises(ArchiveError) as error:
        listing.list_folder(pages, "b/a", 1)
    assert str(error.value) == (
        f"Expected the next page of the listing of s3://b/a, but its token '{tokens[-1]}' came before;"
        " stopped, because the listing would never end"
    )
    assert len(pages.asked) == len(tokens)


# ---- errors --------------------------------------------------------------------------------------------------------


def test_a_store_that_does_not_answer_has_only_its_time(memory: MemoryFileSystem) -> None:
    async def late(*_: Any, **__: Any) -> None:
        await asyncio.sleep(5)

    fs = AsyncFileSystemWrapper(memory)
    fs._info = late
    with pytest.raises(StoreTimeout) as error:
        listing.call_filesystem(fs, "info", "/b", timeout=0.05)
    assert str(error.value) == "no answer within 0.05 s (set by sources.autopilothq.read_timeout)"


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("url", ["memory://b", "memory://b/a/", "memory://b/*.gz"])
def test_a_store_that_calls_what_it_cannot_reach_missing_is_not_empty(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, url: str, is_async: bool
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("b") from ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(memory, "info", unreachable)
    monkeypatch.setattr(memory, "ls", unreachable)
    with pytest.raises(ArchiveError, match=r"but got ConnectionRefusedError: \[Errno 111\] Connection refused"):
        list_files([url], fs=AsyncFileSystemWrapper(memory) if is_async else memory)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ArchiveError("as it is"), ArchiveError, "as it is"),
        (FileNotFoundError("a"), PathNotFound, "Expected a file or a folder at s3://b, but nothing is there: a"),
        (
            PermissionError("no"),
            ArchiveError,
            (
                "Expected to list and read s3://b, but access was denied: no\n"
                "Give these credentials the right to list and to read it, or name only folders that they may read."
            ),
        ),
        (
            StoreTimeout("no answer"),
            ArchiveError,
            "Expected to list s3://b, but got no answer.\nCheck the endpoint and the network, or allow more time.",
        ),
        (
            RuntimeError("odd"),
            ArchiveError,
            (
                "Expected to list s3://b, but got RuntimeError: odd\n"
                "Check the credentials (sources.autopilothq.credentials), the endpoint and the network."
            ),
        ),
    ],
)
def test_an_error_of_a_file_system_says_what_to_do(error: Exception, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as raised, listing.filesystem_errors("s3://b"):
        raise error
    assert (type(raised.value), str(raised.value)) == (kind, text)
    assert raised.value is error or raised.value.__cause__ is error


def test_a_glob_that_a_store_cannot_look_up_is_no_name() -> None:
    store: Any = SimpleNamespace(async_impl=False, info=raising(OSError("no such name")))
    assert listing.path_info(store, "b/*.gz", 1) is None
    with pytest.raises(OSError, match=re.escape("no such name")):
        listing.path_info(store, "b/x.gz", 1)


def test_what_is_there_has_the_path_that_was_asked_for() -> None:
    store: Any = SimpleNamespace(async_impl=False, info=lambda path: {"name": f"{path}/", "type": "directory"})
    assert listing.path_info(store, "b/x", 1) == {"name": "b/x", "type": "directory"}
    assert listing.path_info(store, "/", 1) == {"name": "/", "type": "directory"}
