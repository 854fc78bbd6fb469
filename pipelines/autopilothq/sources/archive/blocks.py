"""Reads the stored (compressed) bytes of files, block by block; files in buckets ahead of time."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any

from ...display import visible
from ...errors import ArchiveError
from .listing import READ_TIMEOUT, File, StoreTimeout, call_filesystem, is_unchanged

BLOCK_BYTES = 1 << 18
REMOTE_BLOCK = 8 << 20
FILES_AHEAD = 4
MAX_UNANSWERED = 8  # if this many files in a row time out, the store counts as down
PATIENCE = 5.0  # seconds; an error that comes sooner is a refusal (no permission, no such file), not a timeout


class DamagedFile(Exception):
    """The bytes of a file are wrong from here on."""


class UnreadableFile(Exception):
    """The bytes of a file could not be fetched; another attempt may succeed."""


class _FileChanged(Exception):
    """A file is not the one that was listed."""


class BlockReader:
    """Reads a file's stored bytes, which it fetches block by block; `position` is the number of bytes read so far.

    `schedule` decides when a block is fetched: it takes the function that fetches the block, and returns a function
    that waits for it. `timeout` is in seconds, for each block of a file in an object store.
    """

    def __init__(
        self,
        file: File,
        block: int,
        schedule: Callable[[Callable[[], bytes]], Callable[[], bytes]] = lambda fetch: fetch,
        timeout: float = READ_TIMEOUT,
    ) -> None:
        self.file, self.block, self.schedule, self.timeout = file, block, schedule, timeout
        self.handle: Any = None
        self.restart()

    def restart(self) -> None:
        """Starts again at the first byte."""
        self.close()
        self.position, self.fetched, self.buffer = 0, 0, memoryview(b"")
        self.error: Exception | None = None
        self.waited = 0.0
        self.take = self.schedule(partial(self._fetch, 0))

    def read(self, most: int | None = None) -> bytes:
        """Returns the next bytes, at most `most`; b"" at the end. Raises UnreadableFile."""
        if not self.buffer:
            self.buffer = memoryview(self._block())
        data, self.buffer = bytes(self.buffer[:most]), self.buffer[len(self.buffer) if most is None else most :]
        self.position += len(data)
        return data

    def peek(self, count: int) -> bytes:
        """Returns the next `count` bytes without taking them; fewer if the file ends or cannot be read."""
        # `read` raises the error again once the bytes before it are read.
        with suppress(UnreadableFile):
            while len(self.buffer) < count and (data := self._block()):
                self.buffer = memoryview(b"".join((self.buffer, data)))
        return bytes(self.buffer[:count])

    def unread(self, data: bytes) -> None:
        """Puts bytes back in front of the rest."""
        self.position -= len(data)
        self.buffer = memoryview(b"".join((data, self.buffer)))

    def close(self) -> None:
        """Closes the file if it is open."""
        if self.handle is not None:
            self.handle.close()
            self.handle = None

    def _block(self) -> bytes:
        try:
            if self.error:
                raise self.error  # its retries are used up; another attempt would take as long
            data = self.take()
        except Exception as error:
            self.error = error
            raise UnreadableFile(
                f"Expected to read {visible(self.file.url)} to its end,"
                f" but reading failed at byte {self.position:,}: {_describe(error)}."
            ) from error
        if data:
            self.fetched += len(data)
            self.take = self.schedule(partial(self._fetch, self.fetched))
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
        """Fetches a block of an object.

        An object that fits into one request has one version; for a larger one, the version is checked at each block.
        """
        file = self.file
        if start >= file.size:
            return b""
        end = start + self.block
        data: bytes = call_filesystem(file.fs, "cat_file", file.path, start=start, end=end, timeout=self.timeout)
        if len(data) != file.size and not (data and is_unchanged(file, self.timeout)):
            raise _FileChanged("it was written again after it was listed")
        return data


def open_readers(files: Sequence[File], piece: int, timeout: float) -> Generator[BlockReader, None, None]:
    """Yields a reader for each file; fetches the first blocks of the next few files in a bucket ahead of time.

    Raises ArchiveError if MAX_UNANSWERED files in a row timed out.
    """
    waiting: deque[BlockReader] = deque()
    timeouts = 0
    with ThreadPoolExecutor(FILES_AHEAD) as pool:
        try:
            unopened = iter(files)
            while True:
                for file in islice(unopened, FILES_AHEAD - len(waiting)):
                    if file.fs.async_impl:
                        ahead = BlockReader(file, REMOTE_BLOCK, lambda fetch: pool.submit(fetch).result, timeout)
                    else:
                        ahead = BlockReader(file, min(BLOCK_BYTES, piece))
                    waiting.append(ahead)
                if not waiting:
                    return
                with closing(waiting.popleft()) as reader:
                    yield reader
                timeouts = _count_timeouts(reader, timeouts)
        finally:
            pool.shutdown(cancel_futures=True)
            for reader in waiting:
                reader.close()


def _count_timeouts(reader: BlockReader, timeouts: int) -> int:
    """Returns how many files in a row timed out, up to this one. Raises ArchiveError at MAX_UNANSWERED."""
    refused = isinstance(reader.error, _FileChanged) or reader.waited < min(PATIENCE, reader.timeout)
    if reader.error is None or refused:
        return 0
    if timeouts + 1 == MAX_UNANSWERED:
        raise ArchiveError(
            f"Expected to read {visible(reader.file.url)}, but got {_describe(reader.error)},"
            f" like {timeouts} files before it.\n"
            "Check the endpoint and the network."
        )
    return timeouts + 1


def _describe(error: Exception) -> str:
    if isinstance(error, StoreTimeout | _FileChanged):
        return str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:  # the file is named already
        return f"{type(error).__name__}: {error.strerror}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
