"""Publishes the files of one process and of killed processes, in a thread of its own."""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from . import files, metrics

AGAIN_SECONDS = 1.0  # until a file that could not be published is tried again
RECOVER_SECONDS = 60.0  # between searches for files of killed processes
SILENT_SECONDS = 60.0  # between log lines about the same file

_log = logging.getLogger(__name__)


class Publisher:
    """Publishes closed files. A file that cannot be published is tried again, and does not hold up the others."""

    def __init__(self, folder: Path, published: Callable[[Path], None] | None) -> None:
        self._folder = folder
        self._published = published
        self._queue: SimpleQueue[files.OpenFile | None] = SimpleQueue()
        self._opened: dict[Path, float] = {}
        self._logged: dict[Path, float] = {}
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Starts the thread, which first publishes the files of killed processes."""
        self._thread.start()

    def add(self, file: files.OpenFile) -> None:
        """Queues a file that is complete."""
        self._opened[file.path] = file.opened
        self._queue.put(file)

    def opened(self) -> list[float]:
        """Returns when each of the waiting files was opened."""
        return [*self._opened.values()]

    def stop(self, seconds: float) -> None:
        """Publishes the queued files within `seconds`. The next process publishes those that fail or take longer."""
        self._queue.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        left: list[files.OpenFile] = []
        recovered, stopping = -RECOVER_SECONDS, False
        while not stopping:
            if time.monotonic() - recovered >= RECOVER_SECONDS:
                self._recover()
                recovered = time.monotonic()
            with suppress(Empty):
                file = self._queue.get(timeout=AGAIN_SECONDS)
                stopping = file is None
                left += [file] if file else []
            left = [file for file in left if not self._publish(file)]

    def _publish(self, file: files.OpenFile) -> bool:
        """Publishes a file; returns False if it must be tried again."""
        try:
            os.ftruncate(file.descriptor, file.size)  # removes the rest of a failed write
            done = files.publish(file.path)
        except FileNotFoundError:
            if not file.is_deleted():
                return False
            _log.error("A file was removed before it was published, with its %d messages: %s", file.lines, file.path)
            done = None
        except OSError as error:
            if time.monotonic() - self._logged.get(file.path, -SILENT_SECONDS) >= SILENT_SECONDS:
                self._logged[file.path] = time.monotonic()
                _log.error("A file cannot be published, and is tried again: %s", error)
            return False
        del self._opened[file.path]
        self._logged.pop(file.path, None)
        file.close()
        if done:
            metrics.PUBLISHED.inc()
            self._report(done)
        return True

    def _report(self, done: Path) -> None:
        if self._published:
            self._published(done)

    def _recover(self) -> None:
        try:
            for done in files.recover(self._folder):
                _log.warning("A file that an earlier process left is published: %s", done.name)
                self._report(done)
        except OSError as error:
            _log.error("Files that an earlier process left cannot be published, and are tried again: %s", error)
