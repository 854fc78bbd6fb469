"""A queue for something that only so many threads do well at a time."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heapify, heappush
from threading import Condition


class LargestFirst:
    """Gives `most` threads their turn at a time. Of those that wait, the one with the largest task comes first.

    So no core is idle at the end, while one works at the largest task of all. Example:

        queue = LargestFirst(cores())
        with queue.turn(size):
            insert(rows)
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers = itertools.count()
        self._begin()
        if hasattr(os, "register_at_fork"):  # the turns of a forked process's parent are given back there alone
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._free = self._most
        self._waiting: list[tuple[float, int]] = []
        self._changed = Condition()

    @contextmanager
    def turn(self, size: float, alone: bool = False) -> Iterator[None]:
        """Waits for this thread's turn, which lasts while the block runs; `alone`: no other has one meanwhile."""
        taken = self._most if alone else 1
        waiting = (-size, next(self._numbers))
        with self._changed:
            heappush(self._waiting, waiting)
            try:
                self._changed.wait_for(lambda: self._waiting[0] == waiting and self._free >= taken)
                self._free -= taken
            finally:  # whatever ends the wait, nobody waits behind it
                self._waiting.remove(waiting)
                heapify(self._waiting)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()
