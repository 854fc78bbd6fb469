"""The only writer of a process: messages that come during a sync are written and synced together, then acknowledged.

A sync takes a few milliseconds, for one message or for a thousand. So requests wait in memory while the disk is busy
with earlier ones, but never longer than two syncs (docs/explanation/receiving.md#acknowledged).
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import files, metrics
from .publisher import Publisher
from .room import NoRoom, Room
from .settings import ReceiveSettings

TICK = 0.25  # seconds between checks for files to close
TRY_SECONDS = 1.0  # seconds until a disk that failed is tried again
LAST_TIME = 1.2  # seconds for the last write, and as many for the publication of the last files

_log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    endpoint: str
    data: bytes
    lines: int
    done: asyncio.Future[None]


class _Failures:
    """Why the last syncs of endpoints failed. It tests the disk itself: while `/readyz` fails, no messages come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, str] = {}
        self._tried = 0.0

    def add(self, endpoint: str, error: Exception) -> str:
        """Stores why an endpoint's sync failed, and returns the reason."""
        self._tried = time.monotonic()
        self._found[endpoint] = getattr(error, "strerror", None) or str(error)
        return self._found[endpoint]

    def remove(self, endpoint: str) -> None:
        """Notes that an endpoint's sync succeeded."""
        self._found.pop(endpoint, None)

    def first(self) -> str | None:
        """Returns why a sync failed, or None if the last sync of each endpoint succeeded."""
        return next(iter([*self._found.values()]), None)

    def try_again(self) -> None:
        """Tries to write for the endpoints that failed, at most once in TRY_SECONDS."""
        if not self._found or time.monotonic() - self._tried < TRY_SECONDS:
            return
        for endpoint in [*self._found]:
            try:
                files.try_disk(self._folder, endpoint, time.time())
                self.remove(endpoint)
            except OSError as error:
                self.add(endpoint, error)


class Writer:
    """Writes the messages of one process into files, and publishes them. Call `start` first and `stop` last."""

    def __init__(self, settings: ReceiveSettings, published: Callable[[Path], None] | None = None) -> None:
        self._folder = Path(settings.folder)
        self._settings = settings
        self._failures = _Failures(self._folder)
        self._waiting: deque[_Waiting] = deque()
        self._room = Room(settings.max_pending)
        self._wake = threading.Event()
        self._stopping = False
        self._files: dict[str, files.OpenFile] = {}
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._publisher = Publisher(self._folder, published)

    def start(self) -> None:
        """Starts the threads that write and publish; the files of killed processes are published as well."""
        self._loop = asyncio.get_running_loop()
        self._free_at, self._free = 0.0, True
        self._thread.start()
        self._publisher.start()

    async def write(self, endpoint: str, data: bytes, lines: int) -> None:
        """Writes lines; returns when they are on the disk. Raises NoRoom if they cannot be stored."""
        if not lines:
            return
        if self._stopping:
            raise NoRoom("The receiver is stopping.")
        if not self.has_space():
            raise NoRoom("The disk is nearly full.")
        await self._room.take(len(data), "Too much waits for the disk.")
        done: asyncio.Future[None] = self._loop.create_future()
        metrics.PENDING.set(self._room.taken)
        self._waiting.append(_Waiting(endpoint, data, lines, done))
        self._wake.set()
        await done

    def has_space(self) -> bool:
        """Returns whether the disk has at least `min_free` of free space. Checks it at most once a second."""
        if (now := time.monotonic()) - self._free_at >= 1:
            self._free_at = now
            with contextlib.suppress(OSError):
                found = os.statvfs(self._folder)
                self._free = found.f_bavail * found.f_frsize >= self._settings.min_free
        return self._free

    def failure(self) -> str | None:
        """Returns why the last sync of an endpoint failed, or None if all last syncs, or later tests, succeeded."""
        return self._failures.first()

    def oldest(self) -> float:
        """Returns the age in seconds of the oldest file of this process that is not published."""
        opened = [*(file.opened for file in [*self._files.values()]), *self._publisher.opened()]
        return time.monotonic() - min(opened) if opened else 0.0

    async def stop(self) -> None:
        """Writes the waiting messages and publishes all files. Does not wait for a disk that hangs."""
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join, LAST_TIME)
        await asyncio.to_thread(self._publisher.stop, LAST_TIME)

    # ---- in the writer's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        ordered = self._ordered()
        while True:
            self._wake.wait(TICK)
            self._wake.clear()
            stopping = self._stopping
            self._write(self._drain())
            self._failures.try_again()
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
        """Writes the waiting messages, endpoint by endpoint, and lets their requests be answered."""
        failures: dict[str, str] = {}
        by_endpoint: dict[str, list[_Waiting]] = {}
        for message in waiting:
            by_endpoint.setdefault(message.endpoint, []).append(message)
        for endpoint, messages in by_endpoint.items():
            try:
                with metrics.SYNC.time():
                    self._append(endpoint, messages)
                self._failures.remove(endpoint)
            except Exception as error:  # noqa: BLE001 - after any error the requests are refused, and the writer continues
                failures[endpoint] = self._failures.add(endpoint, error)
                _log.error("Messages of %s cannot be kept in %s: %s", endpoint, self._folder, failures[endpoint])
                self._close(endpoint)
        if waiting:
            self._loop.call_soon_threadsafe(self._acknowledge, waiting, failures)

    def _append(self, endpoint: str, messages: list[_Waiting]) -> None:
        file = self._files.get(endpoint)
        if file is not None and (file.day != files.midnight(time.time()) or file.is_deleted()):
            self._close(endpoint)
            file = None
        if file is None:
            file = self._files[endpoint] = files.open_file(self._folder, endpoint, time.time())
        file.append([message.data for message in messages])
        file.lines += sum(message.lines for message in messages)

    def _acknowledge(self, waiting: list[_Waiting], failures: dict[str, str]) -> None:
        for message in waiting:
            self._room.give(len(message.data))
            if message.done.cancelled():
                continue
            if message.endpoint in failures:
                message.done.set_exception(NoRoom(f"The disk failed: {failures[message.endpoint]}."))
            else:
                message.done.set_result(None)
        metrics.PENDING.set(self._room.taken)

    def _is_due(self, file: files.OpenFile, now: float) -> bool:
        return (
            file.size >= self._settings.rotate_bytes
            or time.monotonic() - file.opened >= self._settings.rotate_seconds
            or file.day != files.midnight(now)
        )

    def _ordered(self) -> int:
        try:
            return (self._folder / f".{files.ORDER}").stat().st_mtime_ns
        except OSError:
            return 0

    def _close(self, endpoint: str) -> None:
        """Queues an endpoint's file for publication. The next message begins another file."""
        if file := self._files.pop(endpoint, None):
            self._publisher.add(file)
