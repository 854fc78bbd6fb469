"""Pages of a scan on the disk, so that a scan that was cut off goes on from its last page.

A page is a file, which is written aside and renamed: what is there is whole. The folder's `scan.json` says where the
scan began. Pages hold personal data: the folder is deleted once they are loaded.
"""

import gzip
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import NamedTuple, Self, cast

from .. import private
from ..clients.autopilot import Page
from ..errors import UnexpectedResponse
from ..segment.message import parse_json, to_json

STOP_SECONDS = 2.0  # that an interrupted run waits for the request that is under way


class ScanStart(NamedTuple):
    """Where the pages of a spool begin: at the scan's first page, or at a later one behind a bookmark.

    `contacts` is how many came before.
    """

    account: str
    started_at: str
    page: int = 1
    bookmark: str | None = None
    contacts: int = 0


class Spool:
    """The pages of one scan, numbered from the scan's first."""

    def __init__(self, folder: Path, start: ScanStart) -> None:
        self.start = start
        self._folder = folder
        numbers = sorted(int(path.stem) for path in folder.glob("*.gz"))
        self.last = start.page - 1
        self.bookmark = start.bookmark
        self._bookmarks = {start.bookmark}
        for number in numbers:
            self.last, self.bookmark = number, self._bookmark(number)
            self._bookmarks.add(self.bookmark)

    @classmethod
    def begin(cls, folder: Path, start: ScanStart) -> Self:
        """An empty spool in that folder, whatever is there."""
        shutil.rmtree(folder, ignore_errors=True)
        private.folder(folder)
        _write(folder / "scan.json", json.dumps(start._asdict()).encode())
        return cls(folder, start)

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """The spool that is in that folder, None where there is none."""
        try:
            start = ScanStart(**json.loads((folder / "scan.json").read_bytes()))
            return cls(folder, start)
        except (OSError, EOFError, ValueError, TypeError, zlib.error):
            return None

    @property
    def complete(self) -> bool:
        """Whether the scan's last page is there."""
        return self.last >= self.start.page and self.bookmark is None

    def put(self, page: Page) -> int:
        """Writes the next page; its number. Raises UnexpectedResponse where its bookmark came before."""
        if page.bookmark is not None and page.bookmark in self._bookmarks:
            raise UnexpectedResponse(
                f"Page {self.last + 1} of this scan: bookmark {page.bookmark!r} came before; stopped, because the scan"
                " would never end"
            )
        text = f'{json.dumps(page.bookmark)}\n{{"contacts":{to_json(page.contacts)}}}'
        _write(self._path(self.last + 1), gzip.compress(text.encode(), 1))
        self.last, self.bookmark = self.last + 1, page.bookmark
        self._bookmarks.add(page.bookmark)
        return self.last

    def read(self, number: int) -> tuple[list[object], int]:
        """A page's contacts, parsed as they are spelt, and its size in bytes."""
        text = gzip.decompress(self._path(number).read_bytes())
        return cast(list[object], parse_json(text.partition(b"\n")[2]).value("contacts")), len(text)

    def _bookmark(self, number: int) -> str | None:
        """A page's bookmark, which stands before its contacts so that it is quickly found."""
        with gzip.open(self._path(number)) as page:
            return cast(str | None, json.loads(page.readline()))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08}.gz"

    def drop(self, before: int) -> None:
        """Deletes the pages before that one."""
        for path in self._folder.glob("*.gz"):
            if int(path.stem) < before:
                path.unlink()

    def delete(self) -> None:
        """Deletes all of it."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    aside = path.with_suffix(".new")
    with private.opened(aside) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


class Fetched(NamedTuple):
    """A page that is in the spool now; `total` is how many contacts the account says that there are."""

    number: int
    total: int | None


def fetch(spool: Spool, pages: Iterator[Page], stopped: Callable[[], bool]) -> Iterator[Fetched]:
    """Spools pages until the last one or until `stopped()`."""
    for page in pages:
        yield Fetched(spool.put(page), page.total)
        if stopped():
            return


def fetch_ahead(spool: Spool, pages: Iterator[Page], stopped: Callable[[], bool]) -> Iterator[Fetched]:
    """As `fetch`, in a thread of its own: however long a page is worked on, the scan does not wait."""
    queue: SimpleQueue[Fetched | BaseException | None] = SimpleQueue()
    gone = Event()

    def run() -> None:
        try:
            for fetched in fetch(spool, pages, lambda: gone.is_set() or stopped()):
                queue.put(fetched)
            queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the pages are wanted
            queue.put(error)

    thread = Thread(target=run, name="scan", daemon=True)
    thread.start()
    try:
        while (found := queue.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        gone.set()
        thread.join(STOP_SECONDS)
