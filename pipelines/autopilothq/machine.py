"""The processor cores that this process may use, and turns for the threads that share them."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from heapq import heapify, heappush
from math import ceil
from pathlib import Path
from threading import Condition

_CGROUPS = Path("/sys/fs/cgroup")


def cores(cgroups: Path = _CGROUPS) -> int:
    """Returns how many processor cores this process may use, at least 1, by its affinity and a container's limit."""
    affinity = getattr(os, "sched_getaffinity", None)
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(available, _container_limit(cgroups) or available))


def _container_limit(cgroups: Path) -> int | None:
    """Returns how many cores a container may keep busy, from cgroups of version 2 or 1; None if there is no limit."""
    with suppress(OSError, ValueError):
        quota, period = (cgroups / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else ceil(int(quota) / int(period))
    with suppress(OSError, ValueError):
        quota, period = (
            (cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
        )
        return None if int(quota) < 0 else ceil(int(quota) / int(period))
    return None


class LargestFirst:
    """Gives turns to threads, `most` at a time. Of those that wait, the one with the largest task comes next.

    In another order, the largest task could run last, while all other cores are idle. Example:

        queue = LargestFirst(cores())
        with queue.turn(size):
            insert(rows)
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._numbers = itertools.count()
        self.begin()

    def begin(self) -> None:
        """Frees all turns. A forked process calls it, because the threads that hold them exist only in the parent."""
        self._free = self.most
        self._waiting: list[tuple[float, int]] = []
        self._changed = Condition()

    @contextmanager
    def turn(self, size: float, taken: int = 1) -> Iterator[None]:
        """Waits for this thread's turn, which lasts while the block runs.

        It takes `taken` turns at once; if these are all turns, no other thread works at the same time.
        """
        waiting = (-size, next(self._numbers))
        with self._changed:
            heappush(self._waiting, waiting)
            try:
                self._changed.wait_for(lambda: self._waiting[0] == waiting and self._free >= taken)
                self._free -= taken
            finally:  # also if the wait is interrupted, or all others would wait behind this entry for ever
                self._waiting.remove(waiting)
                heapify(self._waiting)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()
