"""Rate limits: one budget of requests for each key and server, which all threads and clients of the process share."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, NamedTuple


class Pace:
    """The budget of one account: all threads and clients together send at most N requests in any second.

    A server counts requests when they arrive, not when they are sent. So a request occupies its slot for a second after
    its first bytes were sent (not after it asked for a connection), plus the time by which its answer was slower than
    the fastest one, because the request may have spent that time in transit. If all answers take the same time, nothing
    is added.
    """

    LATE = 0.05  # seconds in transit at most; assumed until the answer comes
    SLACK = 0.005  # seconds; how far the clocks and schedulers of two machines may differ

    def __init__(self, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self.now = now
        self._sleep = sleep
        self._turn = threading.Lock()
        self._slots: list[PaceSlot] = []
        self._held_until = -inf
        self.fastest = inf

    def wait(self, per_second: float) -> "PaceSlot":
        """Waits until a request may be sent, and returns its slot.

        `per_second` is the caller's limit. All requests of the account count against it.
        """
        return self.wait_for(*allowance(per_second))

    def wait_for(self, most: int, seconds: float) -> "PaceSlot":
        """Waits until a request may be sent, with `most` in any period of `seconds`, and returns its slot."""
        with self._turn:
            while True:
                now = self.now()
                self._slots = [slot for slot in self._slots if slot.free_at > now]
                if len(self._slots) < most and now >= self._held_until:
                    break
                first = min((slot.free_at for slot in self._slots), default=-inf)
                # While a request waits for a connection, it is unknown when its slot will be free.
                self._sleep(
                    min(max(first - now if len(self._slots) >= most else 0, self._held_until - now, 0.001), 0.05)
                )
            slot = PaceSlot(self, seconds)
            self._slots.append(slot)
        return slot

    def hold(self, seconds: float) -> None:
        """Blocks all requests for `seconds`, because the server asked for it."""
        self._held_until = max(self._held_until, self.now() + seconds)


class PaceSlot:
    """The slot of one request in the budget."""

    def __init__(self, pace: Pace, seconds: float) -> None:
        self._pace = pace
        self._seconds = seconds
        self._sent = inf
        self._answered = inf

    def trace(self, event: str, _: Mapping[str, Any]) -> None:
        """Notes when the request's first bytes are sent; httpcore's trace extension calls it."""
        if event.startswith("http11.send_request_headers"):
            self._sent = self._pace.now()

    def answered(self) -> None:
        """Notes that the head of the answer has arrived."""
        self._answered = self._pace.now()
        if self._sent < inf:
            self._pace.fastest = min(self._pace.fastest, self._answered - self._sent)

    def done(self) -> None:
        """Notes that the request has ended in any way. If it was never traced, it counts as sent now."""
        self._answered = min(self._answered, self._pace.now())
        self._sent = min(self._sent, self._answered)

    @property
    def free_at(self) -> float:
        """When another request may take the slot, in the seconds of `Pace.now`."""
        if self._sent == inf:
            return inf
        if self._answered == inf:
            late = Pace.LATE
        else:
            late = min(Pace.LATE, max(0.0, self._answered - self._sent - self._pace.fastest))
        return self._sent + self._seconds + late + Pace.SLACK


def allowance(per_second: float) -> tuple[int, float]:
    """Returns how many requests may be sent, and in how many seconds.

    Examples: `allowance(2.5) == (2, 1.0)`, `allowance(0.5) == (1, 2.0)`.
    """
    return max(1, int(per_second)), max(1.0, 1 / per_second)


class Limit(NamedTuple):
    """A rate limit for some requests, in addition to that for all: `most` of them in any period of `seconds`.

    `setting` is the full name of its setting, empty if the limit is the API's own.
    """

    pace: Pace
    most: int
    seconds: float
    setting: str = ""

    def wait(self) -> PaceSlot:
        """Waits until one of these requests may be sent, and returns its slot."""
        return self.pace.wait_for(self.most, self.seconds)


_paces: dict[str, Pace] = {}
_paces_lock = threading.Lock()


def pace_of(origin: str, key: str) -> Pace:
    """Returns the budget of a key at a server, which the whole process shares.

    It lives as long as the process, because a new client must not start with a full budget.
    """
    name = hashlib.sha256(f"{origin} {key}".encode()).hexdigest()
    with _paces_lock:
        return _paces.setdefault(name, Pace())
