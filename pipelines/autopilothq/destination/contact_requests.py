"""Sends requests about one contact each (delete, eject, lists), concurrently, and keeps the delivery log.

All of them are idempotent. The row of each is in the log as `unknown` before the request is sent, so that the log
covers whatever may have happened. Outcomes are written as they come, twice a second. A request whose outcome is unknown
is sent again.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from ..clients.autopilot import Autopilot
from ..clients.urls import path_of
from ..errors import ApiError
from ..projection.engine import batched
from .counts import Counts
from .delivery_log import OUTCOME, Delivery, DeliveryLog
from .dispatch import AT_ONCE
from .requests import CircuitBreaker, Outcome, RunStopped, outcome_of

REQUESTS_AT_ONCE = 100  # requests whose rows are written together
WRITE_SECONDS = 0.5  # between two writes of outcomes; after a kill, the requests of that time are sent again
NOT_SENT_YET = "not sent yet"
NOT_FOUND = 404
KILL_POINT_REQUESTS_PLANNED = f"{__name__}:plan_requests"  # for tests/faults
_BROKEN_OFF = "not sent, because the run broke off"
_UPDATED = tuple(column for column in OUTCOME if column != "endpoint")  # a row has its endpoint already


class ContactRequest(NamedTuple):
    """A request about one contact: its row for the log, still without the outcome, and how it is sent.

    `absent` is the message for a 404 that counts as delivered, `missing` for one that counts as refused. If `logged` is
    false, it has no row, because its person is on the suppression list.
    """

    row: Delivery
    method: str
    path: Sequence[str]
    send: Callable[[Autopilot], None]
    absent: str | None = None
    missing: str | None = None
    logged: bool = True

    @property
    def endpoint(self) -> str:
        """The method and the path."""
        return f"{self.method} {path_of(self.path)}"


def plan_requests(requests: Iterable[ContactRequest], log: DeliveryLog) -> None:
    """Writes the rows of all requests before the first is sent, so that the log has everything that is to be done.

    Their status is `failed`, because nothing was sent yet.
    """
    for some in batched(requests, 10 * REQUESTS_AT_ONCE):
        planned = Outcome("failed", "", None, NOT_SENT_YET)
        log.add([planned._replace(endpoint=each.endpoint).of(each.row) for each in some if each.logged])


class ContactRequests:
    """Sends requests, and writes the outcome of each to the log and the counts.

    `planned` is whether `plan_requests` has written their rows. `progress` is called with the counts.

    Example: `ContactRequests(account, log, counts).send(requests)`.
    """

    def __init__(
        self,
        account: Autopilot,
        log: DeliveryLog,
        counts: Counts,
        progress: Callable[[Counts], None] = lambda _: None,
        planned: bool = False,
    ) -> None:
        self._account = account
        self._log = log
        self._counts = counts
        self._progress = progress
        self._planned = planned
        self._breaker = CircuitBreaker(account)

    def send(self, requests: Iterable[ContactRequest]) -> int:
        """Sends all requests and returns how many had nothing to do (a 404 that counts as delivered).

        Raises the ApiError that ended the run; the log says what was not sent.
        """
        absent = 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for some in batched(requests, REQUESTS_AT_ONCE):
                absent += self._send_some(pool, some)
                self._progress(self._counts)
                if self._breaker.cause is not None:
                    raise self._breaker.cause
        return absent

    def _send_some(self, pool: ThreadPoolExecutor, requests: Sequence[ContactRequest]) -> int:
        self._counts.messages += len(requests)
        before = [Outcome("unknown", each.endpoint).of(each.row) for each in requests if each.logged]
        if self._planned:
            self._log.write_outcomes(before, _UPDATED, over="failed")
        else:
            self._log.add(before)
        done: list[tuple[ContactRequest, Outcome]] = []
        absent, written_at = 0, time.monotonic()
        try:
            for each, outcome in zip(requests, pool.map(self._send_one, requests), strict=True):
                done.append((each, outcome))
                self._counts.add_message([(outcome.status, outcome.message)])
                absent += outcome.http_status == NOT_FOUND and outcome.status == "delivered"
                if time.monotonic() - written_at >= WRITE_SECONDS:
                    self._write(done)
                    done, written_at = [], time.monotonic()
        finally:
            self._write(done)
        return absent

    def _write(self, done: Iterable[tuple[ContactRequest, Outcome]]) -> None:
        self._log.write_outcomes((outcome.of(each.row) for each, outcome in done if each.logged), _UPDATED)

    def _send_one(self, request: ContactRequest) -> Outcome:
        try:
            send = partial(request.send, self._account)
            who = request.row.message_id
            outcome = self._breaker.send(request.endpoint, send, who)
        except RunStopped:
            return Outcome("failed", request.endpoint, None, _BROKEN_OFF)
        except ApiError as error:
            return outcome_of("failed", request.endpoint, error)
        if outcome.http_status != NOT_FOUND:
            return outcome
        if request.absent is not None:
            return outcome._replace(status="delivered", message=request.absent)
        return outcome._replace(message=request.missing or outcome.message)
