"""The outcomes of requests, and the circuit breaker that sends them: it ends a run whose requests all fail."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

from ..errors import (
    ApiError,
    ContactLimit,
    NotAuthorized,
    OutcomeUnknown,
    RequestRejected,
    Unavailable,
    UnexpectedResponse,
)
from .account import WritableAccount
from .delivery_log import Delivery

FAILURES_IN_A_ROW = 3  # persons in a row whose requests failed; after that, all others would fail as well


class Outcome(NamedTuple):
    """The outcome of a request, in the columns of the delivery log."""

    status: str
    endpoint: str | None
    http_status: int | None = None
    message: str | None = None
    attempts: int = 0

    def of(self, row: Delivery) -> Delivery:
        """Returns the row of the log with this outcome."""
        return row._replace(**self._asdict())


class RunStopped(ApiError):
    """Another request has ended the run."""


class CircuitBreaker:
    """Sends the requests of all threads of a run to an account, and returns their outcomes.

    It blocks all further requests at once if the key is wrong, the account is full or the server asks for a long wait,
    otherwise after `FAILURES_IN_A_ROW` failures in a row. `cause` is the error that opened it, None while it is closed
    or if the run ended by itself. `answers` is how many requests the service has carried out or refused so far.
    """

    def __init__(self, account: WritableAccount) -> None:
        self._account = account
        self.cause: ApiError | None = None
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._failures: set[str] = set()
        self.answers = 0

    @property
    def is_open(self) -> bool:
        """Whether nothing more may be sent."""
        return self._open.is_set()

    def open(self, cause: ApiError | None = None) -> None:
        """Blocks all further requests. Keeps the first cause."""
        self.cause = self.cause or cause
        self._open.set()

    def answered(self) -> None:
        """Notes that the service answers."""
        with self._lock:
            self._failures.clear()
            self.answers += 1

    def failed(self, error: ApiError, who: str) -> None:
        """Notes that a request about a person failed. Raises the error if requests about too many in a row did."""
        with self._lock:
            self._failures.add(who)
            stop = len(self._failures) >= FAILURES_IN_A_ROW
        if stop:
            self.open(error)
            raise error

    def send(self, endpoint: str, request: Callable[[], Any], who: str, once: bool = False) -> Outcome:
        """Sends a request about a person, which may not be repeated if `once` is true, and returns its outcome.

        Raises ApiError if every other request would end the same way.
        """
        outcome, error = self.attempt(endpoint, request, once)
        if is_of_service(error):
            self.failed(error, who)
        return outcome

    def attempt(self, endpoint: str, request: Callable[[], Any], once: bool = False) -> tuple[Outcome, ApiError | None]:
        """Sends a request and returns its outcome and its error, without counting failures, which the caller does.

        If it must be carried out only `once`, an unreadable answer makes its outcome unknown. Raises the errors that
        end the run: NotAuthorized, ContactLimit, and Unavailable if the server asks for a long wait. Raises RunStopped
        once the run has ended.
        """
        if self.is_open:
            raise RunStopped("the run broke off")
        try:
            request()
        except (NotAuthorized, ContactLimit) as error:
            self.open(error)
            raise
        except RequestRejected as error:
            self.answered()
            return outcome_of("refused", endpoint, error), error
        except ApiError as error:
            if isinstance(error, Unavailable) and error.wait is not None:
                self.open(error)
                raise
            is_success = isinstance(error, UnexpectedResponse) and 200 <= (error.status or 0) < 300
            is_unknown = isinstance(error, OutcomeUnknown) or (once and is_success)
            outcome = outcome_of("unknown" if is_unknown else "failed", endpoint, error)
            # The error of an unexpected answer has no number of attempts, but the account has.
            return outcome._replace(attempts=error.attempts or self._account.attempts), error
        self.answered()
        return Outcome("delivered", endpoint, 200, None, self._account.attempts), None


def is_of_service(error: ApiError | None) -> TypeGuard[Unavailable | UnexpectedResponse]:
    """Returns whether a request failed because of the service, or of a proxy or redirect that answers instead."""
    return isinstance(error, Unavailable | UnexpectedResponse)


def outcome_of(status: str, endpoint: str, error: ApiError) -> Outcome:
    """Returns the outcome of a request that ended with an error."""
    return Outcome(status, endpoint, error.status, error.server_message or str(error), error.attempts)
