"""The only writer of a process: what came during a sync is written and synced together, then all of it is acknowledged.

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
from pathlib import Path
from typing import NamedTuple

from . import files, metrics
from .publisher import Publisher
from .room import NoRoom, Room
from .settings import ReceiveSettings

TICK = 0.25  # seconds between looks at the clock
TRY_SECONDS = 1.0  # until a disk that failed is tried
LAST_TIME = 1.2  # seconds that the last write may take, and as many that the last files may take

_log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    endpoint: str
    data: bytes
    lines: int
    done: asyncio.Future[None]


class _Failures:
    """Why the last syncs of endpoints failed. Who asks for that may send nothing until the disk has been tried."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, str] = {}
        self._tried = 0.0

    def add(self, endpoint: str, error: Exception) -> str:
        """Keeps why an endpoint's sync failed, and returns it."""
        self._tried = time.monotonic()
        self._found[endpoint] = getattr(error, "strerror", None) or str(error)
        return self._found[endpoint]

    def remove(self, endpoint: str) -> None:
        """Notes that an endpoint's sync worked."""
        self._found.pop(endpoint, None)

    def first(self) -> str | None:
        """Returns why a sync failed; None if the last one of each endpoint worked."""
        return next(iter([*self._found.values()]), None)

    def try_again(self) -> None:
        """Tries the disk where it failed, unless that was a moment ago."""
        if not self._found or time.monotonic() - self._tried < TRY_SECONDS:
            return
        for endpoint in [*self._found]:
            try:
                files.try_disk(self._folder, endpoint, time.time())
                self.remove(endpoint)
            except OSError as error:
                self.add(endpoint, error)


class Writer:
    """Writes the messages of one process into files, and publishes these. Call `start` first and `stop` last."""

    def __init__(self, settings: ReceiveSettings, published: Callable[[Path], None] | None = None) -> None:
        self.folder = Path(settings.folder)
        self.settings = settings
        self._failures = _Failures(self.folder)
        self._waiting: deque[_Waiting] = deque()
        self._room = Room(settings.max_pending)
        self._wake = threading.Event()
        self._stopping = False
        self._files: dict[str, files.OpenFile] = {}
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._publisher = Publisher(self.folder, published)

    def start(self) -> None:
        """Begins to write, and to publish what killed processes left."""
        self._loop = asyncio.get_running_loop()
        self._free_at, self._free = 0.0, True
        self._thread.start()
        self._publisher.start()

    async def write(self, endpoint: str, data: bytes, lines: int) -> None:
        """Returns as soon as the disk has the lines. Raises NoRoom if they cannot be kept."""
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
        """Returns whether the disk has more room than must stay free; asks it once a second at most."""
        if (now := time.monotonic()) - self._free_at >= 1:
            self._free_at = now
            with contextlib.suppress(OSError):
                found = os.statvfs(self.folder)
                self._free = found.f_bavail * found.f_frsize >= self.settings.min_free
        return self._free

    def failure(self) -> str | None:
        """Returns why the last sync failed; None if it worked, or the disk has worked since."""
        return self._failures.first()

    def oldest(self) -> float:
        """Returns the age in seconds of the oldest file of this process that is not published."""
        opened = [*(file.opened for file in [*self._files.values()]), *self._publisher.opened()]
        return time.monotonic() - min(opened, default=time.monotonic())

    async def stop(self) -> None:
        """Writes what waits, and publishes all files; does not wait for a disk that hangs."""
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
        """Writes what waits, one endpoint after the other, and has its requests answered."""
        failures: dict[str, str] = {}
        by_endpoint: dict[str, list[_Waiting]] = {}
        for one in waiting:
            by_endpoint.setdefault(one.endpoint, []).append(one)
        for endpoint, some in by_endpoint.items():
            try:
                with metrics.SYNC.time():
                    self._append(endpoint, some)
                self._failures.remove(endpoint)
            except Exception as error:  # noqa: BLE001 - after any error the requests are refused, and the writer goes on
                failures[endpoint] = self._failures.add(endpoint, error)
                _log.error("Messages of %s cannot be kept: %s", endpoint, failures[endpoint])
                self._close(endpoint)
        if waiting:
            self._loop.call_soon_threadsafe(self._acknowledge, waiting, failures)

    def _append(self, endpoint: str, some: list[_Waiting]) -> None:
        file = self._files.get(endpoint)
        if file is not None and (file.day != files.today(time.time()) or file.is_deleted()):
            self._close(endpoint)
            file = None
        if file is None:
            file = self._files[endpoint] = files.open_file(self.folder, endpoint, time.time())
        file.append([one.data for one in some])
        file.lines += sum(one.lines for one in some)

    def _acknowledge(self, waiting: list[_Waiting], failures: dict[str, str]) -> None:
        for one in waiting:
            self._room.give(len(one.data))
            if one.done.cancelled():
                continue
            if one.endpoint in failures:
                one.done.set_exception(NoRoom(f"The disk failed: {failures[one.endpoint]}."))
            else:
                one.done.set_result(None)
        metrics.PENDING.set(self._room.taken)

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

    def _close(self, endpoint: str) -> None:
        """Has an endpoint's file published; the next message begins another."""
        if file := self._files.pop(endpoint, None):
            self._publisher.add(file)
