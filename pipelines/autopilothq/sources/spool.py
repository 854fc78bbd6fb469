"""The spool: keeps the pages of a scan on the disk, so that an interrupted scan continues from its last page.

Each page is a file that is written atomically, so no page is incomplete. `scan.json` in the folder records where the
scan began. Pages hold personal data: the next load deletes those that are loaded.
"""

import gzip
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import NamedTuple, Self, cast

from .. import disk, private
from ..clients.autopilot import Page
from ..errors import UnexpectedResponse
from ..segment.json_text import DECODER, to_json

IN_MEMORY = 10  # about this many fetched pages keep their contacts in memory until they are processed
STOP_SECONDS = 2.0  # seconds that an interrupted run waits for the current request
KILL_POINT_PAGE_STORED = f"{__name__}:Spool.put"  # for tests/faults


class ScanStart(NamedTuple):
    """Where the pages of a spool begin: at the scan's first page, or at a later `page`, which has this `bookmark`.

    `contacts` is the number of contacts before that page, `account` a digest that identifies the account.
    """

    account: str
    started_at: str
    page: int = 1
    bookmark: str | None = None
    contacts: int = 0


class Spool:
    """The pages of one scan, by number. `last` is the number of the last one, `bookmark` is that of the next page.

    No page from `first` to `last` is missing; earlier pages were deleted because they are loaded.
    """

    def __init__(self, folder: Path, start: ScanStart) -> None:
        self.start = start
        self._folder = folder
        self._has_put = False
        self.first, self.last, self.bookmark = start.page, start.page - 1, start.bookmark
        self._bookmarks = {start.bookmark}
        for number in sorted(int(path.stem) for path in folder.glob("*.gz")):
            if number > self.last + 1:
                self.first = number
            self.last, self.bookmark = number, self._bookmark(number)
            self._bookmarks.add(self.bookmark)

    @classmethod
    def begin(cls, folder: Path, start: ScanStart) -> Self:
        """Empties a folder, and returns a new spool there."""
        shutil.rmtree(folder, ignore_errors=True)
        private.folder(folder)
        _write(folder / "scan.json", json.dumps(start._asdict()).encode())
        return cls(folder, start)

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """Returns the spool in a folder, or None if there is none that can be read."""
        try:
            start = ScanStart(**json.loads((folder / "scan.json").read_bytes()))
            return cls(folder, start)
        except (OSError, EOFError, ValueError, TypeError, zlib.error):
            return None

    @classmethod
    def open_or_begin(cls, folder: Path, start: ScanStart) -> Self:
        """Returns the spool in a folder, or a new one if there is none that can be read."""
        return cls.open(folder) or cls.begin(folder, start)

    @property
    def complete(self) -> bool:
        """Whether the spool has the last page of the scan."""
        return self.last >= self.start.page and self.bookmark is None

    def put(self, page: Page) -> int:
        """Writes the next page; returns its size in bytes. Raises UnexpectedResponse if its bookmark came before."""
        if page.bookmark is not None and page.bookmark in self._bookmarks:
            raise UnexpectedResponse(
                f"Page {self.last + 1} of this scan: bookmark {page.bookmark!r} came before; stopped, because the scan"
                " would never end"
            )
        if not self._has_put:
            self._has_put = True
            for unfinished in self._folder.glob(".*.gz.*"):  # left behind by a killed run
                unfinished.unlink()
        text = f'{json.dumps(page.bookmark)}\n{{"contacts":{to_json(page.contacts)}}}'
        content = text.encode()
        _write(self._path(self.last + 1), gzip.compress(content, 1))
        self.last, self.bookmark = self.last + 1, page.bookmark
        self._bookmarks.add(page.bookmark)
        return len(content)

    def read(self, number: int) -> tuple[list[object], int]:
        """Returns a page's contacts, read without loss, and its size in bytes."""
        content = gzip.decompress(self._path(number).read_bytes())
        _bookmark, _, text = content.partition(b"\n")
        return cast(list[object], DECODER.decode(text.decode()).value("contacts")), len(content)

    def read_all(self, first: int = 1) -> Iterator[tuple[list[object], int]]:
        """Yields what `read` returns for each page, from page `first` to the last one stored so far."""
        return map(self.read, range(first, self.last + 1))

    def contacts_of(self, fetched: "FetchedPage") -> tuple[list[object], int]:
        """Returns a fetched page's contacts, from the disk if they are not in memory, and its size in bytes."""
        return self.read(fetched.page) if fetched.contacts is None else (fetched.contacts, fetched.size)

    def drop(self, before: int) -> None:
        """Deletes the pages before page `before`."""
        for path in self._folder.glob("*.gz"):
            if int(path.stem) < before:
                path.unlink()

    def restart(self) -> None:
        """Deletes all pages, the last one first, so that the scan begins again."""
        for path in sorted(self._folder.glob("*.gz"), reverse=True):
            path.unlink()
        self.first, self.last, self.bookmark = self.start.page, self.start.page - 1, self.start.bookmark
        self._bookmarks = {self.bookmark}

    def delete(self) -> None:
        """Deletes the spool."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _bookmark(self, number: int) -> str | None:
        """Returns the bookmark of the next page from the first line of a page's file, without reading the contacts."""
        with gzip.open(self._path(number)) as page:
            return cast(str | None, json.loads(page.readline()))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08}.gz"


def _write(path: Path, content: bytes) -> None:
    with disk.rewriting(path) as file:
        file.write(content)


class FetchedPage(NamedTuple):
    """A page that was just put into the spool.

    `page` is its number, `size` is in bytes. `total` is how many contacts the account has, if the API says so.
    `contacts` are those of the page; None if they must be read from the disk.
    """

    page: int
    size: int
    total: int | None
    contacts: list[object] | None


def fetch(spool: Spool, pages: Iterator[Page], stopped: Callable[[], bool]) -> Iterator[FetchedPage]:
    """Writes pages into the spool, and yields each, until the last one or until `stopped()`."""
    for page in pages:
        size = spool.put(page)
        yield FetchedPage(spool.last, size, page.total, page.contacts)
        if stopped():
            return


def fetch_ahead(spool: Spool, pages: Iterator[Page], stopped: Callable[[], bool]) -> Iterator[FetchedPage]:
    """Does the same as `fetch`, but in a thread of its own, so that requests do not wait for pages to be processed.

    Only about `IN_MEMORY` of the fetched pages keep their contacts in memory until they are processed.
    """
    queue: SimpleQueue[FetchedPage | BaseException | None] = SimpleQueue()
    closed = Event()

    def run() -> None:
        try:
            for fetched in fetch(spool, pages, lambda: closed.is_set() or stopped()):
                queue.put(fetched if queue.qsize() < IN_MEMORY else fetched._replace(contacts=None))
            queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the pages are taken
            queue.put(error)

    thread = Thread(target=run, name="scan", daemon=True)
    thread.start()
    try:
        while (found := queue.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        closed.set()
        thread.join(STOP_SECONDS)
