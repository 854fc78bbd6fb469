"""Discovers the files of Segment's raw archive: day folders, sources, globs (docs/contract/archive.md#layout)."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from ...catalog import ARCHIVE_FOLDER, EXPORT_MARK
from ...errors import ArchiveError
from ...utc import DAY_MS
from ..file_systems import check_not_empty
from .listing import (
    GLOB_CHARACTERS,
    READ_TIMEOUT,
    File,
    Info,
    PathNotFound,
    file_system,
    file_url,
    filesystem_errors,
    list_folder,
    make_file,
    normalized_path,
    path_info,
)

LOOSE_SUFFIXES = (".gz", ".json", ".jsonl", ".ndjson", ".zst")
"""Outside of day folders, only files with one of these suffixes are read."""
NOT_DATA = frozenset({"dummy-object.txt", "_SUCCESS"})
LEFT_OUT = {
    "other_days": "outside of the requested days",
    "other_source": "not of the requested source",
    "not_data": "write tests and job markers",
    "folder_marker": "markers of folders",
    "empty": "empty files",
    "hidden": "hidden, because their names begin with a dot",
    "linked_folder": "linked folders, which ** does not enter",
    "unknown_suffix": f"outside of day folders and without a suffix of {', '.join(LOOSE_SUFFIXES)}",
    "not_a_file": "devices, pipes or sockets",
    "trailing_slash": "objects with content whose name ends with a slash",
    "unfinished_export": "of exports that have not ended, or were cut off",
}
"""The reasons why entries of a listing are not read, in words for a user: what several such entries are."""
ONE_LEFT_OUT = {
    "not_data": "write test or job marker",
    "folder_marker": "marker of a folder",
    "empty": "empty file",
    "hidden": "hidden, because its name begins with a dot",
    "linked_folder": "linked folder, which ** does not enter",
    "not_a_file": "device, pipe or socket",
    "trailing_slash": "object with content whose name ends with a slash",
    "unfinished_export": "of an export that has not ended, or was cut off",
}
"""What a single such entry is, where the words differ."""

EXPORTED = (".parquet", ".csv", ".tsv", ".avro")  # suffixes of exported tables, which are not an archive
_DAY = re.compile(r"[0-9]{12,14}")  # the day's first millisecond


def list_files(
    urls: Sequence[str],
    *,
    since: date | None = None,
    until: date | None = None,
    source_id: str | None = None,
    fs: AbstractFileSystem | None = None,
    credentials: Any = None,
    timeout: float = READ_TIMEOUT,
    left_out: dict[str, str] | None = None,
    keep_broken: bool = False,
) -> list[File]:
    """Returns the archive's files at `urls` (files, folders, globs), each once, sorted by URL.

    `since` and `until` are UTC days, both included. They select day folders; others are not even listed. Files outside
    of day folders are always read. `source_id` selects one source's folder. `fs` is the file system of all `urls`; by
    default each has its own, for which `credentials` are as in `archive`. `timeout` is in seconds, for each request to
    an object store. `left_out` receives what was seen but not returned: a key of LEFT_OUT by URL (a folder's URL ends
    with a slash).

    Raises ArchiveError if nothing exists at a URL or a folder cannot be listed, and for a broken link or a path that is
    too long to be opened, behind which a whole archive may be missing. With `keep_broken`, these are unreadable files,
    unless nothing else is found.

    Example: `list_files(["exports"], since=date(2019, 3, 1)) == [File("/data/exports/segment-logs/…"), …]`.
    """
    seen, broken = dict[str, str](), dict[str, ArchiveError]()
    selection = _Selection(since, until, source_id, seen, broken if keep_broken else None)
    found: dict[str, File] = {}
    for url in urls:
        check_not_empty(url)
        for file in _selected(fs or file_system(url, credentials), url, selection, timeout):
            first = found.setdefault(file.url, file)
            if first.path != file.path:
                raise ArchiveError(f"Expected files with different names, but two are named {file.url}.\nRename one.")
    if broken and found.keys() <= broken.keys():
        raise next(iter(broken.values()))
    if left_out is not None:
        left_out.update((url, why) for url, why in seen.items() if url not in found)
    return sorted(found.values(), key=lambda file: file.url)


def _selected(fs: AbstractFileSystem, url: str, selection: "_Selection", timeout: float) -> Iterator[File]:
    """Yields the selected files at a URL, as they are now; a file comes again for each name that leads to it."""
    with filesystem_errors(url):
        fs.invalidate_cache()
        for info in _Search(fs, url, selection, timeout).files():
            yield make_file(fs, info)


def day_and_source(url: str) -> tuple[date | None, str | None]:
    """Returns the UTC day of the innermost day folder, and the source: the name after `segment-logs` or before the day.

    Example: `day_and_source("s3://b/segment-logs/i0VpEBOWfb/1551398400000/") == (date(2019, 3, 1), "i0VpEBOWfb")`.
    """
    return _folder_day_and_source(url.rpartition("/")[0])


@lru_cache(4096)
def _folder_day_and_source(folder: str) -> tuple[date | None, str | None]:
    day = source = None
    for above, name in pairwise(["", *filter(None, folder.split("/"))]):
        if _DAY.fullmatch(name):
            day = date(1970, 1, 1) + timedelta(days=int(name) // DAY_MS)
            source = source or above or None
        elif above == ARCHIVE_FOLDER:
            source = name
    return day, source


# ---- what is selected ----------------------------------------------------------------------------------------------


class _Selection(NamedTuple):
    """Which day folders and which source to read; `left_out` has what was left out so far.

    `broken` has the errors of broken links and too long paths so far, by URL; None if the first one ends the search.
    """

    since: date | None
    until: date | None
    source_id: str | None
    left_out: dict[str, str]
    broken: dict[str, ArchiveError] | None = None

    def why_no_folder(self, path: str, named: bool) -> str | None:
        """Returns why a folder is not selected (a key of LEFT_OUT); None if it is. A `named` one may be hidden."""
        day, source = _folder_day_and_source(path)
        if _is_hidden(path) and not named:
            return "hidden"
        if not self._has_day(day):
            return "other_days"
        return None if self.source_id is None or source in (None, self.source_id) else "other_source"

    def why_no_file(self, info: Info, named: bool) -> str | None:
        """Returns why a file is not selected (a key of LEFT_OUT); None if it is. A `named` one may be hidden."""
        folder, _, name = info["name"].rpartition("/")
        day, source = _folder_day_and_source(folder)
        other = self.source_id is not None and source != self.source_id and not (named and source is None)
        reasons = {
            "folder_marker": not name and info["size"] == 0,
            "trailing_slash": not name,
            "not_data": name in NOT_DATA,
            "hidden": name.startswith(".") and not named,
            "not_a_file": info["type"] not in ("file", "link"),
            "other_days": not self._has_day(day),
            "other_source": other,
            "empty": info["size"] == 0,
            "unknown_suffix": not named and day is None and not name.lower().endswith(LOOSE_SUFFIXES),
        }
        return next((why for why, holds in reasons.items() if holds), None)

    def _has_day(self, day: date | None) -> bool:
        return day is None or (self.since or day) <= day <= (self.until or day)


def _is_hidden(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")


# ---- searching -----------------------------------------------------------------------------------------------------


class _Search(NamedTuple):
    """The search for the selected files at a URL, as a user gave it. `timeout` is in seconds, for each request."""

    fs: AbstractFileSystem
    url: str
    selection: _Selection
    timeout: float

    def files(self) -> Iterator[Info]:
        """Yields the files; if nothing has exactly that name, those at the path without empty parts (`a//b`)."""
        path = normalized_path(self.fs, self.url)
        *others, last = dict.fromkeys((path, path.rstrip("/") or path, re.sub("//+", "/", path.rstrip("/")) or path))
        for spelling in others:
            with suppress(PathNotFound):
                yield from self._at(spelling)
                return
        yield from self._at(last)

    def _at(self, path: str) -> Iterator[Info]:
        """Yields the files at a path: one file, the files of a folder, or those of every match of a glob."""
        info = path_info(self.fs, path, self.timeout)
        if info is None and GLOB_CHARACTERS.search(path):
            yield from self._glob(path)
        elif info is None:
            raise PathNotFound(
                f"Expected a file or a folder at {self.url}, but nothing is there.\nCheck the path's spelling."
            )
        elif info["type"] == "directory":
            yield from self._below(path)
        elif info["type"] != "file":
            raise ArchiveError(
                f"Expected a file or a folder at {self.url}, but it is neither (a device, a pipe or a socket)."
            )
        else:
            if not self._excludes(info, named=True):
                yield info
            # In a bucket, an object can have the name of a folder; an empty one marks the folder.
            if not isinstance(self.fs, LocalFileSystem) and (info["size"] == 0 or self.url.endswith("/")):
                yield from self._below(path)

    def _below(self, root: str) -> Iterator[Info]:
        """Yields the files below a folder, level by level; linked folders last, and each real folder only once."""
        if self._excludes({"name": root, "type": "directory"}, named=True):
            return
        level, links, seen = [root], list[str](), set[str]()
        with ThreadPoolExecutor(8) as pool:
            # Only an asynchronous file system may be called from several threads.
            each: Callable[..., Iterator[list[Info]]] = pool.map if self.fs.async_impl else map
            while level or links:
                if not level:
                    level = [links.pop(0)]
                level = [folder for folder in level if not _was_seen(self.fs, folder, seen)]
                folders: list[str] = []
                for info in (info for infos in each(self._listed, level) for info in infos if not self._excludes(info)):
                    if info["type"] == "directory":
                        (links if info.get("islink") else folders).append(info["name"])
                    else:
                        yield info
                level = folders

    def _listed(self, folder: str) -> list[Info]:
        """Lists a folder; an unfinished export counts as empty, so that part of it is not mistaken for the whole."""
        infos = list_folder(self.fs, folder, self.timeout)
        if any(info["name"].rpartition("/")[2] == EXPORT_MARK for info in infos):
            self._leave_out({"name": folder, "type": "directory"}, "unfinished_export")
            return []
        return infos

    def _glob(self, path: str) -> Iterator[Info]:
        """Yields the files that a glob matches, and those below the folders that it matches."""
        parts = path.split("/")
        fixed = next(at for at, part in enumerate(parts) if GLOB_CHARACTERS.search(part))
        root = "/".join(parts[:fixed]) or ("/" if path.startswith("/") else "")
        pattern = [part for at, part in enumerate(parts[fixed:], fixed) if part != "**" or parts[at - 1] != "**"]
        nothing = True
        for info in self._matches(root, pattern):
            nothing = False
            if self._excludes(info, named=True):
                continue
            if info["type"] != "directory":
                yield info
            elif pattern[-1] != "**":
                yield from self._below(info["name"])
        if nothing:
            raise PathNotFound(
                f"Expected files that match {self.url}, but none does.\nCheck the pattern, or name a folder."
            )

    def _matches(self, folder: str, pattern: list[str]) -> Iterator[Info]:
        """Yields the matches below a folder, and folders that were not entered because of their day or source."""
        head, rest = pattern[0], pattern[1:]
        if head == "**" and rest:
            yield from self._matches(folder, rest)
        for info in self._listed(folder):
            name, is_broken = info["name"].rpartition("/")[2], info["type"] == "broken"
            is_folder = is_broken or info["type"] == "directory"
            if (rest and not is_folder) or not fnmatchcase(name, head):
                continue
            if _is_hidden(name) and not head.startswith("."):
                self._leave_out(info, "hidden")
            elif is_broken or (is_folder and self._excludes(info, named=True)):
                yield info
            elif head == "**":
                if is_folder and info.get("islink"):
                    self._leave_out(info, "linked_folder")
                elif is_folder:
                    yield from self._matches(info["name"], pattern)
                if not rest:
                    yield info
            elif not rest:
                yield info
            else:
                yield from self._matches(info["name"], rest)

    def _excludes(self, info: Info, *, named: bool = False) -> bool:
        """Returns whether a file or folder is not selected, and records why. One that the user `named` may be hidden.

        Raises ArchiveError for a broken link, unless the selection collects such errors.
        """
        may_be_folder, selection = info["type"] in ("directory", "broken"), self.selection
        why = selection.why_no_folder(info["name"], named) if may_be_folder else selection.why_no_file(info, named)
        if info["type"] == "broken" and not why:
            url, is_link = file_url(self.fs, info["name"]), info.get("islink")
            what = f"a file or a folder behind the link {info['name']}" if is_link else f"to open {url}"
            todo = "Repair or remove the link." if is_link else "Move it to a folder with a shorter path."
            error = ArchiveError(f"Expected {what}: {info['error'].strerror}.\n{todo}")
            if selection.broken is None:
                raise error from info["error"]
            selection.broken[url] = error
        if why:
            self._leave_out(info, why)
        return why is not None

    def _leave_out(self, info: Info, why: str) -> None:
        """Records that a file or folder is not read."""
        url = file_url(self.fs, info["name"]) + ("/" if info["type"] == "directory" else "")
        self.selection.left_out[url] = why


def _was_seen(fs: AbstractFileSystem, folder: str, seen: set[str]) -> bool:
    """Returns whether this folder was seen before, perhaps under another name; adds it to `seen`."""
    real = os.path.realpath(folder) if isinstance(fs, LocalFileSystem) else folder
    known = real in seen
    seen.add(real)
    return known
