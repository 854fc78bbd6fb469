"""Retries of failed requests, and the waits before them."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from ..utc import to_utc

MAX_RETRY_AFTER = 300.0  # seconds; a longer wait that a server asks for is an error instead of a hanging program

_BACKOFF = wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5)
_JITTER = wait_random(0, 0.25)


class TransientFailure(Exception):
    """One attempt failed, but another may succeed.

    `reason` is the cause, for errors. `status` is that of the answer (None without an answer), `server_message` the
    server's own text, and `wait` the seconds that the server asks to wait.
    """

    def __init__(self, reason: str, status: int | None, server_message: str = "", wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.status, self.server_message, self.wait = reason, status, server_message, wait


def retrying(tries: int, sleep: Callable[[float], None], before_sleep: Callable[[RetryCallState], None]) -> Retrying:
    """Returns a `Retrying` that calls a function until it raises no TransientFailure, but at most `tries` times.

    It waits as long as the server asks, otherwise with exponential backoff. The last failure is raised unchanged.
    """
    return Retrying(
        stop=stop_after_attempt(tries),
        retry=retry_if_exception_type(TransientFailure),
        wait=_wait,
        sleep=sleep,
        before_sleep=before_sleep,
        reraise=True,
    )


def _wait(state: RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    if isinstance(failure, TransientFailure) and failure.wait:
        return min(failure.wait, MAX_RETRY_AFTER) + _JITTER(state)
    return _BACKOFF(state)


def retry_after(response: httpx.Response) -> float | None:
    """Returns the seconds of the header `Retry-After`, or None if it is missing or invalid.

    A date in it is compared with the server's own clock, the header `Date`.
    """
    text = response.headers.get("Retry-After", "").strip()
    with suppress(ValueError, OverflowError):
        if text.isascii() and text.isdigit():
            return float(text)
        if text:
            sent = response.headers.get("Date")
            now = _http_date(sent) if sent else datetime.now(UTC)
            return max(0.0, (_http_date(text) - now).total_seconds())
    return None


def _http_date(text: str) -> datetime:
    """Returns the time of an HTTP date, which is in UTC even in the form without a zone. Raises ValueError."""
    return to_utc(parsedate_to_datetime(text))
