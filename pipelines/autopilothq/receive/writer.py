"""The one writer of a process: what came in meanwhile is written and synced together, then all of it is acknowledged.

A sync takes some milliseconds whether one message waits for it or a thousand. So requests wait in memory while the disk
is busy with those before them, and never longer than two syncs (docs/explanation/receiving.md#acknowledged).
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from . import files, metrics
from .settings import ReceiveSettings

PATIENCE = 3.0  # seconds that a request waits for room
TICK = 0.25  # seconds between looks at the clock

_log = logging.getLogger(__name__)


class NoRoom(Exception):
    """The receiver cannot keep messages now; the argument says why, for the sender."""


class _Waiting(NamedTuple):
    endpoint: str
    data: bytes
    lines: int
    done: asyncio.Future[None]


class Writer:
    """Writes the messages of one process into files, and publishes these. `start` and `stop` belong to its life."""

    def __init__(self, settings: ReceiveSettings, published: Callable[[Path], None] | None = None) -> None:
        self.folder = Path(settings.folder)
        self.settings = settings
        self.failure: str | None = None
        """Why the last sync failed, None where it worked."""
        self._published = published
        self._waiting: deque[_Waiting] = deque()
        self._pending = 0
        self._room = asyncio.Condition()
        self._wake = threading.Event()
        self._stopping = False
        self._files: dict[str, files.OpenFile] = {}
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._publisher = ThreadPoolExecutor(1, "publisher")
        self._unpublished: dict[Path, float] = {}

    def start(self) -> None:
        """Begins to write; what processes left that were killed is published meanwhile."""
        self._loop = asyncio.get_running_loop()
        self._free_at, self._free = 0.0, True
        self._thread.start()
        self._publisher.submit(self._recover)

    async def write(self, endpoint: str, data: bytes, lines: int) -> None:
        """Returns as soon as the disk has the lines. Raises NoRoom where it cannot."""
        if not lines:
            return
        if self._stopping:
            raise NoRoom("The receiver is stopping.")
        if not self.has_space():
            raise NoRoom("The disk is nearly full.")
        await self._wait_for_room(len(data))
        done: asyncio.Future[None] = self._loop.create_future()
        self._pending += len(data)
        metrics.PENDING.set(self._pending)
        self._waiting.append(_Waiting(endpoint, data, lines, done))
        self._wake.set()
        await done

    async def _wait_for_room(self, size: int) -> None:
        def has_room() -> bool:
            return not self._pending or self._pending + size <= self.settings.max_pending

        if has_room():
            return
        try:
            async with asyncio.timeout(PATIENCE), self._room:
                await self._room.wait_for(has_room)
        except TimeoutError:
            raise NoRoom("Too much waits for the disk.") from None

    def has_space(self) -> bool:
        """Whether the disk has more room than must stay free; it is asked once a second."""
        if (now := time.monotonic()) - self._free_at >= 1:
            self._free_at = now
            with contextlib.suppress(OSError):
                found = os.statvfs(self.folder)
                self._free = found.f_bavail * found.f_frsize >= self.settings.min_free
        return self._free

    def oldest(self) -> float:
        """Returns the age in seconds of the oldest file of this process that is not published."""
        opened = [*[file.opened for file in [*self._files.values()]], *[*self._unpublished.values()]]
        return time.monotonic() - min(opened, default=time.monotonic())

    async def stop(self) -> None:
        """Writes what waits, and publishes all."""
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._publisher.shutdown)

    # ---- in the writer's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        ordered = self._ordered()
        while True:
            self._wake.wait(TICK)
            self._wake.clear()
            stopping = self._stopping
            self._write(self._drain())
            now, before = time.time(), ordered
            ordered = self._ordered()
            for endpoint, file in list(self._files.items()):
                if stopping or ordered != before or self._is_due(file, now):
                    self._close(endpoint)
            if stopping and not self._waiting:
                return

    def _drain(self) -> list[_Waiting]:
        found = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._waiting.popleft())
        return found

    def _write(self, waiting: list[_Waiting]) -> None:
        """Writes what waits, an endpoint after the other, and tells the senders."""
        failures: dict[str, str] = {}
        by_endpoint: dict[str, list[_Waiting]] = {}
        for one in waiting:
            by_endpoint.setdefault(one.endpoint, []).append(one)
        for endpoint, some in by_endpoint.items():
            try:
                with metrics.SYNC.time():
                    self._append(endpoint, some)
            except Exception as error:  # noqa: BLE001 - whatever it is, the senders are told, and the writer goes on
                failures[endpoint] = getattr(error, "strerror", None) or str(error)
                _log.error("Messages of %s cannot be kept: %s", endpoint, failures[endpoint])
                self._close(endpoint)
        if waiting:
            self.failure = next(iter(failures.values()), None)
            self._loop.call_soon_threadsafe(self._acknowledge, waiting, failures)

    def _append(self, endpoint: str, some: list[_Waiting]) -> None:
        file = self._files.get(endpoint)
        if file is not None and file.day != files.today(time.time()):
            self._close(endpoint)
            file = None
        if file is None:
            file = self._files[endpoint] = files.open_file(self.folder, endpoint, time.time())
        file.append([one.data for one in some])
        file.lines += sum(one.lines for one in some)

    def _acknowledge(self, waiting: list[_Waiting], failures: dict[str, str]) -> None:
        for one in waiting:
            self._pending -= len(one.data)
            if one.done.cancelled():
                continue
            if one.endpoint in failures:
                one.done.set_exception(NoRoom(f"The disk failed: {failures[one.endpoint]}."))
            else:
                one.done.set_result(None)
        metrics.PENDING.set(self._pending)
        self._loop.create_task(self._tell_room())

    async def _tell_room(self) -> None:
        async with self._room:
            self._room.notify_all()

    def _is_due(self, file: files.OpenFile, now: float) -> bool:
        return (
            file.size >= self.settings.rotate_bytes
            or time.monotonic() - file.opened >= self.settings.rotate_seconds
            or file.day != files.today(now)
        )

    def _ordered(self) -> int:
        try:
            return (self.folder / f".{files.ORDER}").stat().st_mtime_ns
        except OSError:
            return 0

    # ---- in the publisher's thread -----------------------------------------------------------------------------------

    def _close(self, endpoint: str) -> None:
        """Has an endpoint's file published; the next message begins another."""
        if file := self._files.pop(endpoint, None):
            self._unpublished[file.path] = file.opened
            self._publisher.submit(self._publish, file)

    def _publish(self, file: files.OpenFile) -> None:
        done: Path | None = None
        while file.path in self._unpublished:
            try:
                os.ftruncate(file.descriptor, file.size)  # what a failed write left
                done = files.publish(file.path)
                del self._unpublished[file.path]
            except OSError as error:
                _log.error("A file cannot be published, which is tried again: %s", error)
                if self._stopping:
                    return  # the next process does it
                time.sleep(1)
        file.close()
        if done:
            metrics.PUBLISHED.inc()
            self._report(done)

    def _report(self, done: Path) -> None:
        if self._published:
            self._published(done)

    def _recover(self) -> None:
        try:
            for done in files.recover(self.folder):
                _log.warning("A file that a process left is published: %s", done.name)
                self._report(done)
        except OSError as error:
            _log.error("What a process left cannot be published: %s", error)
