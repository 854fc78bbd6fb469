"""One request to the account and its outcome, and the circuit breaker that ends a run whose requests all fail."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import ApiError, NotAuthorized, OutcomeUnknown, RequestRejected, Unavailable
from .account import WritableAccount
from .delivery_log import Delivery

FAILURES_IN_A_ROW = 3  # requests in a row that found no service: the others would fail as well


class Outcome(NamedTuple):
    """What became of a request, as the delivery log writes it."""

    status: str
    endpoint: str
    http_status: int | None = None
    message: str | None = None
    attempts: int = 0

    def of(self, row: Delivery) -> Delivery:
        """Returns the row of the log with this outcome."""
        return row._replace(**self._asdict())


class RunStopped(ApiError):
    """Another request has ended the run."""


class CircuitBreaker:
    """Stops all threads of a run: after a wrong key at once, after `FAILURES_IN_A_ROW` failures in a row otherwise.

    `cause` is the error that opened it, None while it is closed or where the run ended by itself.
    """

    def __init__(self) -> None:
        self.cause: ApiError | None = None
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """Whether nothing more may be sent."""
        return self._open.is_set()

    def open(self, cause: ApiError | None = None) -> None:
        """Lets nothing more out. The first cause stays."""
        self.cause = self.cause or cause
        self._open.set()

    def succeeded(self) -> None:
        """Notes that the service answers."""
        with self._lock:
            self._failures = 0

    def failed(self, error: Unavailable) -> None:
        """Notes that a request found no service; raises the error where it was one too many."""
        with self._lock:
            self._failures += 1
            stop = self._failures >= FAILURES_IN_A_ROW
        if stop:
            self.open(error)
            raise error


def send_request(
    account: WritableAccount, breaker: CircuitBreaker, endpoint: str, request: Callable[[], Any]
) -> Outcome:
    """Sends a request and returns its outcome; raises ApiError where every other request would end the same way."""
    if breaker.is_open:
        raise RunStopped("the run broke off")
    try:
        request()
    except NotAuthorized as error:
        breaker.open(error)
        raise
    except OutcomeUnknown as error:
        return outcome_of("unknown", endpoint, error)
    except RequestRejected as error:
        return outcome_of("refused", endpoint, error)
    except ApiError as error:
        if isinstance(error, Unavailable):
            breaker.failed(error)
        return outcome_of("failed", endpoint, error)
    breaker.succeeded()
    return Outcome("delivered", endpoint, 200, None, account.attempts)


def outcome_of(status: str, endpoint: str, error: ApiError) -> Outcome:
    """Returns the outcome of a request that ended with an error."""
    return Outcome(status, endpoint, error.status, error.server_message or str(error), error.attempts)
